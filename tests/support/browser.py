"""A real browser that shows a page: Chromium without a window, driven by its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any, final

NAMES = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """The path of the distribution's browser."""
    return next(filter(None, map(which, NAMES)), None)


@final
class Page:
    """A page in the browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = read
        self._left = b""
        self._number = 0
        self._session: str | None = None
        self.fetched: list[str] = []
        """The addresses of everything that was asked for, by the page or for it."""
        self.complaints: list[str] = []
        """What the browser's console says."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(self, path: Path, width: int, *, dark: bool = False) -> None:
        """Shows a file in a window of this width, and waits until it is loaded."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=path.as_uri())
        while self.evaluate("document.readyState") != "complete" or self.evaluate("location.href") != path.as_uri():
            pass

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 (what JavaScript gives)
        """The value of an expression of JavaScript."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path) -> None:
        """Writes the whole page as PNG, to be looked at."""
        picture = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            match answer.get("method"):
                case "Network.requestWillBeSent":
                    self.fetched.append(answer["params"]["request"]["url"])
                case "Log.entryAdded":
                    self.complaints.append(answer["params"]["entry"]["text"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has gone"
            self._left += part
        raw, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message


@contextmanager
def open_page() -> Iterator[Page]:
    """A page in a browser that was started for it."""
    program = browser()
    assert program is not None, f"none of {', '.join(NAMES)}"
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads from descriptor 3, and writes to 4.
        command = (
            f'exec "$0" "$@" 3<&{theirs_read} 4>&{theirs_write}',
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *(f"--user-data-dir={profile}", "--no-first-run", "--disable-dev-shm-usage", "about:blank"),
        )
        with subprocess.Popen(
            ["bash", "-c", *command],
            pass_fds=(theirs_read, theirs_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            os.close(theirs_read)
            os.close(theirs_write)
            try:
                yield Page(ours_write, ours_read)
            finally:
                process.kill()
                os.close(ours_write)
                os.close(ours_read)

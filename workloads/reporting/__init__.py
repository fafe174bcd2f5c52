"""``nrfs report``: a page with plots and tables of results.

- ``read``: results files, checked;
- ``plots``: what is drawn of them, by matplotlib;
- ``page``: the page, from the templates ``page.html`` and ``page.md``.
"""

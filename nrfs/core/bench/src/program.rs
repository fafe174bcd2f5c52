//! What the programs have in common. Their one argument is JSON, and says what to measure. They print each figure when
//! it is measured, as a line of JSON. `workloads/native.py` is the other side.

use std::error::Error;
use std::io::{StdoutLock, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The error that ended the measurement, if any.
pub type Result = std::result::Result<(), Box<dyn Error>>;

/// Writes figures to standard output.
pub struct Figures(StdoutLock<'static>);

impl Figures {
    /// Writes a figure, and flushes it.
    pub fn put(&mut self, figure: &impl Serialize) -> Result {
        serde_json::to_writer(&mut self.0, figure)?;
        writeln!(self.0)?;
        Ok(self.0.flush()?)
    }
}

/// Calls `measure` with the parsed argument; returns the program's exit status.
pub fn run<C: DeserializeOwned>(measure: impl FnOnce(&C, &mut Figures) -> Result) -> ExitCode {
    let measured = std::env::args()
        .nth(1)
        .ok_or_else(|| "what to measure is missing".into())
        .and_then(|argument| Ok(serde_json::from_str(&argument)?))
        .and_then(|configuration| measure(&configuration, &mut Figures(std::io::stdout().lock())));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

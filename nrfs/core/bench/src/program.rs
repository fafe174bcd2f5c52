//! What the programs have in common. The one argument says in JSON what to measure, and every figure is a line of JSON,
//! as it comes: `workloads/native.py` is the other side.

use std::error::Error;
use std::io::{StdoutLock, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why nothing more was measured.
pub type Result = std::result::Result<(), Box<dyn Error>>;

/// Where figures go.
pub struct Figures(StdoutLock<'static>);

impl Figures {
    /// Tells one, now.
    pub fn put(&mut self, figure: &impl Serialize) -> Result {
        serde_json::to_writer(&mut self.0, figure)?;
        writeln!(self.0)?;
        Ok(self.0.flush()?)
    }
}

/// Measures what the argument says; the exit status is the program's.
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

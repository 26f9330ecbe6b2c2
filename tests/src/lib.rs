//! What the end-to-end tests share: a pelton process that is started and killed, a load whose every acknowledgement is
//! written down on the client's side, and the check that reads everything back with librdkafka.
//!
//! Refuses to use pelton's own client code: what is acknowledged is judged by somebody else's.

pub mod broker;
pub mod cases;
pub mod check;
pub mod cli;
pub mod disk;
pub mod exactly_once;
pub mod guest;
pub mod http;
pub mod ledger;
pub mod load;
pub mod records;
pub mod routed;
pub mod settings;

use std::io::Write;
use std::process::ExitCode;

/// Prints one line. Standard output is what these programs are for, so a closed one ends them quietly.
pub fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Says that a program could not do its work here. `./run test` counts it as skipped: it names a file for that.
///
/// # Errors
/// The file cannot be written.
pub fn skip(why: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    say(format_args!("skip {why}"));
    if let Some(path) = std::env::var_os("PELTON_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "{why}")?;
    }
    Ok(())
}

/// Says why a program failed, in one piece, and gives its exit code.
pub fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("FAIL {error:#}"));
            ExitCode::FAILURE
        }
    }
}

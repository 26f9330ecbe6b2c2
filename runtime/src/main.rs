//! The `pelton` binary: parse, run, exit.

mod cli;
mod client;
mod cmd;
mod compose;
mod report;
mod settings;

use clap::Parser;
use std::process::ExitCode;

// glibc's malloc unmaps and maps memory for every plugin answer above 128 KiB; jemalloc does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cmd::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::exit(&error),
    }
}

//! `fluidos`: parse, compose by role, run.

use std::process::ExitCode;

mod cli;
mod node;

fn main() -> ExitCode {
    cli::main()
}

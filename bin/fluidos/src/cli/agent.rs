//! The command line of `fluidos-agent`: the verbs of a machine that joins, as `fluidos` has them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use super::failed;
use crate::check::{self, CheckMachine};
use crate::image::{self, Image};
use crate::join::{self, Join};
use crate::reset::{self, Reset};

#[derive(Parser)]
#[command(
    name = "fluidos-agent",
    version,
    about = "Makes this machine one more of a FLUIDOS node that runs elsewhere, and runs its pods."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make this machine one more of a node, and run its pods until it is told to stop.
    #[command(
        after_help = "Examples:\n  fluidos-agent join STRING --data-dir /var/lib/fluidos-agent --name shed\n  fluidos-agent join --data-dir /var/lib/fluidos-agent    # again, after a restart\n\nThe string is what `fluidos invite --agent` prints at the node."
    )]
    Join(Box<Join>),
    /// The images of this machine.
    #[command(
        subcommand,
        after_help = "Example:\n  fluidos-agent image pull docker.io/library/nginx:1 --data-dir /var/lib/fluidos-agent"
    )]
    Image(Image),
    /// What this machine has for pods and what it lacks, with a remedy each.
    #[command(after_help = "Example:\n  fluidos-agent check    # before the first `fluidos-agent join`")]
    Check(CheckMachine),
    /// Take everything of the agent off this machine.
    #[command(after_help = "Example:\n  fluidos-agent reset --data-dir /var/lib/fluidos-agent")]
    Reset(Reset),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  fluidos-agent completion bash > /etc/bash_completion.d/fluidos-agent")]
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs what the command line says.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // with nowhere to write there is nobody to tell
            return if error.use_stderr() { ExitCode::from(super::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.verb {
        Verb::Join(join) => join::run(&join),
        Verb::Image(image) => image::run(&image),
        Verb::Check(check) => check::of_machine(&check),
        Verb::Reset(reset) => reset::run(&reset),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fluidos-agent", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("fluidos-agent", &error),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}

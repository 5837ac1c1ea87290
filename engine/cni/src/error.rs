//! What can go wrong with the network of a machine.
use std::path::PathBuf;
use std::time::Duration;

/// A pod could not be put on the network of the machine, or taken off it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory without a configuration.
    #[error("{0} has no network configuration: needed a file *.conflist or *.conf as CNI specifies it")]
    None(PathBuf),
    /// A file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that is no configuration.
    #[error("{path} is no network configuration: {why}")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A plug-in is not installed.
    #[error(
        "network {network} needs the plug-in {kind:?}, which is in none of {looked:?}: install it (Debian: containernetworking-plugins)"
    )]
    NoProgram {
        /// The network.
        network: String,
        /// The plug-in.
        kind: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A plug-in could not be run.
    #[error("run {program} for {command}: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What it was asked.
        command: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A plug-in is not back in time.
    #[error("{program} did not answer {command} within {within:?}; it was ended")]
    Late {
        /// The program.
        program: PathBuf,
        /// What it was asked.
        command: &'static str,
        /// How long it had.
        within: Duration,
    },
    /// A plug-in says no.
    #[error("{program} refused {command}: {why}")]
    Refused {
        /// The program.
        program: PathBuf,
        /// What it was asked.
        command: &'static str,
        /// Its own words.
        why: String,
    },
    /// An answer that says nothing.
    #[error("the plug-in {kind:?} answered what is no result: {why}")]
    Result {
        /// The plug-in, or the network.
        kind: String,
        /// What is wrong.
        why: String,
    },
}

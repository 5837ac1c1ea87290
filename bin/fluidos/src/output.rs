//! `-o`: how an answer is printed, the same for every verb that looks.

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use serde::Serialize;

/// What a shell tells of a program that SIGPIPE has ended: 128 and the number of the signal.
const PIPE_CLOSED: i32 = 128 + 13;

/// From now on a process whose reader has gone (`fluidos log | head -1`) ends without a word, as other commands of a pipeline. SIGPIPE itself
/// stays ignored: a node writes into pipes and sockets whose other end may go at any time, and is to be told so.
pub fn end_with_the_reader() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(PIPE_CLOSED);
        }
        before(panic);
    }));
}

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For people, with everything that is known.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// One TYPE/NAME a line.
    Name,
}

impl Output {
    /// A value as JSON or YAML, without the last line end; `None` if the answer is asked for in lines.
    ///
    /// # Errors
    /// A value that cannot be written so.
    pub fn structured<T: Serialize>(self, value: &T) -> Result<Option<String>> {
        match self {
            Self::Json => Ok(Some(serde_json::to_string_pretty(value)?)),
            Self::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(|error| anyhow!("{error}"))?;
                Ok(Some(text.trim_end().to_owned()))
            }
            Self::Table | Self::Wide | Self::Name => Ok(None),
        }
    }
}

//! `-o`: how an answer is printed, the same for every verb that looks.

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use serde::Serialize;

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

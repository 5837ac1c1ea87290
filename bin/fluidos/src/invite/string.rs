//! An invitation as one string, and back. Pure.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a string begins with; the number is the form of the rest.
const PREFIX: &str = "fluidos-agent-1.";
/// An address, a certificate and a token are some 2 KiB.
const BYTES_MAX: usize = 32 * 1024;

/// What another machine needs to join.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// `https://HOST:PORT`.
    pub server: String,
    /// The certificate of the API's authority, as PEM.
    pub authority: String,
    /// A bearer token.
    pub token: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({}, until {})", self.server, self.expires)
    }
}

impl Invitation {
    /// # Errors
    /// An address that is none.
    pub fn new(server: String, authority: String, token: String, expires: Timestamp) -> Result<Self> {
        let url: http::Uri = server.parse().with_context(|| format!("{server:?}: needed https://HOST:PORT"))?;
        if url.scheme_str() != Some("https") || url.host().is_none() || !matches!(url.path(), "" | "/") {
            bail!("{server:?}: needed https://HOST:PORT");
        }
        Ok(Self { server, authority, token, expires })
    }

    /// # Errors
    /// It is over.
    pub fn good_at(&self, now: Timestamp) -> Result<()> {
        if now < self.expires {
            return Ok(());
        }
        bail!(
            "the invitation was good until {}; make another where the node runs: fluidos invite --agent",
            self.expires
        )
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", BASE64URL.encode(json))
    }
}

impl FromStr for Invitation {
    type Err = anyhow::Error;

    /// What is wrong is said without the string: it may be almost a good one.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.len() > BYTES_MAX {
            bail!("an invitation has at most {BYTES_MAX} characters, this one {}", text.len());
        }
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| {
            anyhow!("this is no invitation: one begins with {PREFIX} and comes from `fluidos invite --agent`")
        })?;
        let whole = || anyhow!("the invitation is not whole: copy all of it");
        let json = BASE64URL.decode(rest).map_err(|_| whole())?;
        let Self { server, authority, token, expires } = serde_json::from_slice(&json).map_err(|_| whole())?;
        Self::new(server, authority, token, expires)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_string_is_read_back_or_refused_without_being_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let made = |server: &str| Invitation::new(server.into(), "PEM".into(), "secret".into(), at(100));
        let invitation = made("https://192.0.2.7:6443").unwrap();
        let string = invitation.to_string();
        let read: Invitation = format!(" {string}\n").parse().unwrap();
        assert_eq!(
            (read.server, read.authority, read.token, read.expires),
            (invitation.server.clone(), "PEM".into(), "secret".into(), at(100))
        );
        assert!(!format!("{invitation:?}").contains("secret"));
        assert!(invitation.good_at(at(99)).is_ok());
        let over = invitation.good_at(at(100)).unwrap_err().to_string();
        assert!(
            over.contains("was good until 1970-01-01T00:01:40Z") && over.contains("fluidos invite --agent"),
            "{over}"
        );
        let short = &string[..string.len() - 9];
        for (text, why) in [
            (short, "not whole"),
            ("fluidos-agent-1.!", "not whole"),
            ("eyJ", "begins with fluidos-agent-1."),
            (&format!("{string}{}", "A".repeat(BYTES_MAX)), "at most 32768"),
        ] {
            let told = format!("{:#}", text.parse::<Invitation>().unwrap_err());
            assert!(told.contains(why) && !told.contains("c2VjcmV0") && !told.contains(&string[30..60]), "{told}");
        }
        for wrong in ["http://192.0.2.7", "192.0.2.7:6443", "https://192.0.2.7/x", ""] {
            assert!(made(wrong).unwrap_err().to_string().contains("needed https://HOST:PORT"), "{wrong}");
        }
    }
}

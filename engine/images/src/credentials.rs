//! A *credential* is a user and a password that a registry knows; a *keyring* is many of them, each with the place it is for.
//!
//! ```text
//! {"auths": {"host:5000/team": {"auth": base64("user:password")}}}     config.json of docker
//! {"https://index.docker.io/v1/": {"username": …, "password": …}}      .dockercfg, the older form
//! ```
//!
//! A place is a host, with a port if it has one and the beginning of a path if it is for a part of the registry. `*`, `?` and `[…]` in a label
//! of the host stand for what they stand for in a shell; they do not reach over a dot. The longest place that fits counts, and all
//! credentials that are for it, in the order in which they came (as `pkg/credentialprovider` of Kubernetes does it).
//!
//! Not built: programs that give out credentials (`credHelpers`, `credsStore`) are not run, identity tokens are not exchanged.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Reference, hex};

/// A Secret has at most 1 MiB, and so has a file.
pub const CONFIG_SIZE_MAX: usize = 1 << 20;
/// A place has one credential, rarely two; each costs a registry a request.
const TRIED_MAX: usize = 16;
/// What docker calls its registry.
const DOCKER: &str = "index.docker.io";

/// A user and a password. Neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    username: String,
    password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// One for `username`.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }

    /// What is remembered of it: it can be told from others by whoever has it, and not be found out again.
    pub(crate) fn mark(&self, salt: &[u8]) -> String {
        let mut hash = Sha256::new();
        for part in [salt, self.username.as_bytes(), self.password.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex(&hash.finalize())
    }
}

/// Why a text is no list of credentials; correct it. It says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Too long.
    #[error("has more than {CONFIG_SIZE_MAX} bytes")]
    TooLarge,
    /// Not what docker writes.
    #[error("is not JSON in the form of docker's config.json")]
    Form,
}

/// Credentials by the places that they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Credential>>);

impl Keyring {
    /// Adds those of a `config.json` or a `.dockercfg`. Entries without user and password are left out. Answers whether it names programs that
    /// would give out more, which are not run.
    ///
    /// # Errors
    /// It is neither; nothing is added.
    pub fn add(&mut self, text: &[u8]) -> Result<bool, InvalidConfig> {
        if text.len() > CONFIG_SIZE_MAX {
            return Err(InvalidConfig::TooLarge);
        }
        let config: BTreeMap<String, Value> = serde_json::from_slice(text).map_err(|_| InvalidConfig::Form)?;
        let places = match config.get("auths") {
            Some(Value::Object(auths)) => auths.iter().collect::<Vec<_>>(),
            Some(_) => return Err(InvalidConfig::Form),
            None => config.iter().collect(),
        };
        for (place, entry) in places {
            if let Some(credential) = credential(entry) {
                self.0.entry(normal(place)).or_default().push(credential);
            }
        }
        Ok(config.contains_key("credHelpers") || config.contains_key("credsStore"))
    }

    /// Those for an image, best first.
    pub fn find(&self, reference: &Reference) -> Vec<Credential> {
        let image = reference.repository();
        // Backwards: what is longer with the same beginning comes first.
        let fitting = self.0.iter().rev().find(|(place, _)| fits(place, &image));
        let docker = || self.0.get_key_value(DOCKER).filter(|_| reference.domain() == "docker.io");
        let found = fitting.or_else(docker).map(|(_, credentials)| credentials);
        found.into_iter().flatten().take(TRIED_MAX).cloned().collect()
    }
}

fn credential(entry: &Value) -> Option<Credential> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let pair = match text("auth") {
        "" => (text("username").to_owned(), text("password").to_owned()),
        auth => {
            let bytes = BASE64_STANDARD.decode(auth.trim()).ok()?;
            let decoded = String::from_utf8(bytes).ok()?;
            let (username, password) = decoded.split_once(':')?;
            // docker pads what it stores with zeros.
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        }
    };
    (!pair.0.is_empty() && !pair.1.is_empty()).then_some(Credential { username: pair.0, password: pair.1 })
}

/// A place without what docker writes around it: the scheme, the version of the API, a slash at the end.
fn normal(place: &str) -> String {
    let rest = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = match path {
        "v1" | "v2" => "",
        path => path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path),
    };
    match path.trim_end_matches('/') {
        "" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

/// Whether an image of this repository (`host[:port]/path`) is at this place.
fn fits(place: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        (host.to_owned(), path.to_owned())
    };
    let ((pattern, beginning), (host, path)) = (split(place), split(repository));
    let port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name.to_owned(), port.to_owned()),
        _ => (host.to_owned(), String::new()),
    };
    let ((pattern, port_wanted), (host, port)) = (port(&pattern), port(&host));
    let (labels, of_host) = (pattern.split('.'), host.split('.'));
    port_wanted == port
        && pattern.split('.').count() == host.split('.').count()
        && labels.zip(of_host).all(|(pattern, label)| matches(pattern.as_bytes(), label.as_bytes()))
        && path.starts_with(&beginning)
}

/// A shell's pattern (`*`, `?`, `[a-z]`), in steps that do not grow with what it is held against: the last star is where it goes on from.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        let step = match pattern.get(p..) {
            Some([b'*', ..]) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(rest) => one(rest, *byte),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((after, at))) => {
                star = Some((after, at + 1));
                (p, t) = (after, at + 1);
            }
            (None, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// How much of the pattern stands for this byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => {
            let end = set.iter().position(|b| *b == b']')?;
            let set = set.get(..end)?;
            let (not, set) = set.strip_prefix(b"^").map_or((false, set), |rest| (true, rest));
            let mut at = set;
            let mut is_in = false;
            while let Some((first, rest)) = at.split_first() {
                at = match rest {
                    [b'-', last, rest @ ..] => {
                        is_in |= (*first..=*last).contains(&byte);
                        rest
                    }
                    rest => {
                        is_in |= *first == byte;
                        rest
                    }
                };
            }
            (is_in != not).then_some(end + 2)
        }
        [first, ..] if *first == byte => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;

    fn keyring(places: &[(&str, &str)]) -> Keyring {
        let mut keyring = Keyring::default();
        for (place, user) in places {
            let auth = BASE64_STANDARD.encode(format!("{user}:secret"));
            assert!(!keyring.add(json!({"auths": {*place: {"auth": auth}}}).to_string().as_bytes()).unwrap());
        }
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> String {
        let found = keyring.find(&image.parse().unwrap());
        found.iter().map(|c| c.username.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_longest_place_that_fits_counts() {
        let ring = keyring(&[
            ("https://index.docker.io/v1/", "hub"),
            ("quay.io", "all"),
            ("quay.io/team", "team"),
            ("https://quay.io/v2/team", "second"),
            ("*.example.com", "any"),
            ("*.kubernetes.io:5000", "port"),
            ("[a-c]?.example.org/x/", "set"),
        ]);
        for (image, expected) in [
            ("nginx", "hub"),
            ("me/app", "hub"),
            ("quay.io/other/app", "all"),
            ("quay.io/team/app:1", "team second"),
            ("r.example.com/app", "any"),
            ("a.b.example.com/app", ""),
            ("example.com/app", ""),
            ("r.kubernetes.io:5000/app", "port"),
            ("r.kubernetes.io/app", ""),
            ("b1.example.org/x/app", "set"),
            ("d1.example.org/x/app", ""),
            ("b1.example.org/y", ""),
            ("quay.io.evil.org/team/app", ""),
        ] {
            assert_eq!(users(&ring, image), expected, "{image}");
        }
    }

    #[test]
    fn both_forms_and_nonsense() {
        let mut ring = Keyring::default();
        ring.add(br#"{"r.io": {"username": "old", "password": "p"}, "s.io": {"auth": "%%%"}, "t.io": {"email": "x"}}"#)
            .unwrap();
        assert_eq!((users(&ring, "r.io/a").as_str(), users(&ring, "s.io/a").as_str()), ("old", ""));
        assert!(ring.add(br#"{"auths": {}, "credsStore": "pass"}"#).unwrap());
        for text in [&b"nothing"[..], b"[]", br#"{"auths": 1}"#] {
            assert_eq!(ring.add(text), Err(InvalidConfig::Form));
        }
        assert_eq!(ring.add(&vec![b' '; CONFIG_SIZE_MAX + 1]), Err(InvalidConfig::TooLarge));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let credential = Credential::new("ada", "secret");
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        let (one, other) = (credential.mark(b"1"), credential.mark(b"2"));
        assert!(one != other && one.len() == 64 && one == Credential::new("ada", "secret").mark(b"1"));
        assert_ne!(one, Credential::new("adas", "ecret").mark(b"1"));
    }
}

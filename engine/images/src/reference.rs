//! A *reference* names an image. Short names mean what they mean to containerd and Docker:
//!
//! ```text
//! nginx               docker.io/library/nginx:latest
//! me/app:1            docker.io/me/app:1
//! host:5000/app@sha256:…   stays
//! ```
//!
//! Grammar and limits: the distribution project's reference grammar (OCI distribution specification, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use super::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
/// The distribution specification's limit on a repository name, host included.
const NAME_MAX: usize = 255;
/// The distribution specification's limit on a tag.
const TAG_MAX: usize = 128;

/// An image's normalised name; displays as containerd writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference; correct the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub struct InvalidReference {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// The registry's host, with its port if it has one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; a reference by digest alone has none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, when the reference pins one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `domain/path`, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Whether the tag is `latest`, which changes the default pull policy to Always.
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let bad = |why| InvalidReference { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| bad("the digest is not sha256:<64 hex>"))?)),
            None => (text, None),
        };
        // A colon after the last slash separates the tag; one before it is the port of the host.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            let all = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !first || !all || tag.len() > TAG_MAX {
                return Err(bad("the tag must be 1-128 letters, digits, '_', '.', '-'"));
            }
        }
        let (domain, path) = split_domain(name);
        if name.is_empty() || domain.len() + path.len() > NAME_MAX {
            return Err(bad("the name must have 1-255 characters"));
        }
        // A colon without a port is no host: `host:/usr/bin/x` means something else.
        let host = !domain.ends_with(':')
            && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
            && domain.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'[');
        if !host || !path.split('/').all(is_path_component) {
            return Err(bad("the repository name must be lower case letters, digits and separators"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { domain, path, tag, digest })
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        _ => (DEFAULT_DOMAIN, name.to_owned()),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
    (domain.to_owned(), path)
}

fn is_path_component(part: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let hex = "a".repeat(64);
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("me/app:1.2", "docker.io/me/app:1.2".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("host:5000/a/b", "host:5000/a/b:latest".to_owned()),
            ("index.docker.io/nginx:1", "docker.io/library/nginx:1".to_owned()),
            (&format!("nginx@sha256:{hex}"), format!("docker.io/library/nginx@sha256:{hex}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "UPPER", "a//b", "../etc", "a:", "a@sha256:12", "a b", "-a", "host:/usr/bin/x", &"a".repeat(300)]
        {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
    }
}

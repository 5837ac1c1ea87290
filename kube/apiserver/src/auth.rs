//! Who asks. Whether they may is for [`crate::authorization`].
//!
//! A user comes from a client certificate (common name and organisations), from a bearer token (of the process, or of a service account:
//! [`account_tokens`]), or from the process itself (in-process clients carry their user with them). Nobody else gets further than health and version.
//! Who may [`impersonation`] asks as somebody else.

pub mod account_tokens;
pub(crate) mod impersonation;
mod last_used;

use std::collections::HashMap;

use http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::server::ApiServer;
use crate::status::Status;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As `system:kube-scheduler`.
    pub name: String,
    /// As `system:masters`.
    pub groups: Vec<String>,
}

impl User {
    /// A user of this name, in `system:authenticated` and `groups`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(ToString::to_string).chain(["system:authenticated".to_owned()]).collect();
        Self { name: name.to_owned(), groups }
    }

    /// Nobody known.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }

    /// Whether this is nobody known.
    pub fn is_anonymous(&self) -> bool {
        self.name == "system:anonymous"
    }

    /// The user whom a verified client certificate names.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().last()?.as_str().ok()?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        Some(Self::new(name, &groups))
    }
}

/// Bearer tokens that are accepted. Only their digests are kept, so that a token is in no memory dump and looking
/// one up takes no time that depends on how much of it is right.
#[derive(Clone, Debug, Default)]
pub struct Tokens(HashMap<[u8; 32], User>);

impl Tokens {
    /// `token` is `user` from now on.
    pub fn insert(&mut self, token: &str, user: User) {
        self.0.insert(Sha256::digest(token.as_bytes()).into(), user);
    }

    /// The user of a token, if it is known.
    pub fn user(&self, token: &str) -> Option<User> {
        let digest: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        self.0.get(&digest).cloned()
    }
}

/// The user of a request: the bearer token's, else the connection's, else nobody.
///
/// # Errors
/// 401 for a token that is not known: it must not fall back to anonymous.
pub fn authenticate(server: &ApiServer, headers: &HeaderMap, connection: Option<&User>) -> Result<User, Status> {
    let Some(header) = headers.get(http::header::AUTHORIZATION) else {
        return Ok(connection.cloned().unwrap_or_else(User::anonymous));
    };
    let token = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer ")).ok_or_else(Status::unauthorized)?;
    token_user(server, token, &[]).map(|(user, _)| user).map_err(|_| Status::unauthorized())
}

/// The user of a token, and for which of `audiences` it is ([`account_tokens::user`]); tokens of the process are for this server alone.
///
/// # Errors
/// Why it is nobody's.
pub fn token_user(server: &ApiServer, token: &str, audiences: &[&str]) -> Result<(User, Vec<String>), &'static str> {
    match server.inner.tokens.user(token) {
        Some(user) if audiences.is_empty() => Ok((user, Vec::new())),
        _ if account_tokens::may_be(token) => account_tokens::user(server, token, audiences),
        _ => Err("invalid bearer token"),
    }
}

/// Paths that need no user.
pub fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/version" | "/version/")
}

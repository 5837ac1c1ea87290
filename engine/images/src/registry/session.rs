//! Requests to one repository with one credential, or none. What a registry says is bounded here: documents in size and time, layers in
//! how slowly they may come. Its own words are not passed on: they might hold what was sent to it.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use crate::{Credential, Digest, Error, Reference};

/// Tokens have some KiB; with what is around them they stay far below this.
const TOKEN_ANSWER_MAX: u64 = 256 << 10;
/// A manifest or a token, whole.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A registry that is not there must not hold up the next source for long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// And one that stops in the middle of a layer is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a registry did not give something.
#[derive(Debug)]
pub(super) enum Refused {
    /// Not with this credential: another may help. The words say with which code.
    Denied(String),
    /// Nothing will help.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A client for a registry; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    domain: String,
}

impl Http {
    pub fn new(reference: &Reference) -> Result<Self, Error> {
        let domain = reference.domain().to_owned();
        let said = |why: String| Error::Source { source_name: format!("registry {domain}"), why };
        // reqwest takes the provider of the process and panics without one; another may have set it, to the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let local = super::is_loopback(&domain);
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // Neither a redirection nor a giver of tokens leads away from TLS.
            .https_only(!local)
            .user_agent("substrate")
            .build()
            .map_err(|e| said(words(&e)))?;
        let host = if domain == "docker.io" { "registry-1.docker.io" } else { &domain };
        let scheme = if local { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", reference.path());
        let base = Url::parse(&base).map_err(|e| said(format!("{base}: {e}")))?;
        Ok(Self { client, base, domain })
    }

    fn said(&self, why: impl Into<String>) -> Error {
        Error::Source { source_name: format!("registry {}", self.domain), why: why.into() }
    }
}

/// One repository as one credential sees it.
pub(super) struct Session<'a> {
    http: &'a Http,
    path: &'a str,
    credential: Option<&'a Credential>,
    /// What the registry took last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Session<'a> {
    pub fn new(http: &'a Http, reference: &'a Reference, credential: Option<&'a Credential>) -> Self {
        Self { http, path: reference.path(), credential, authorization: Mutex::default() }
    }

    /// A small document, whole.
    pub async fn document(&self, path: &str, accept: &str, max: u64) -> Result<Vec<u8>, Refused> {
        let what = format!("{path} of {}/{}", self.http.domain, self.path);
        let asked = async { read(self.get(path, accept).await?, &what, max, self.http).await.map_err(Refused::Failed) };
        match tokio::time::timeout(DOCUMENT_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.http.said(format!("gave no {path} in {} s", DOCUMENT_TIMEOUT.as_secs())).into()),
        }
    }

    /// The beginning of a blob; its bytes are read from the answer.
    pub async fn blob(&self, digest: &Digest) -> Result<Response, Refused> {
        self.get(&format!("blobs/{digest}"), "*/*").await
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Response, Refused> {
        let url = self.http.base.join(path).map_err(|e| self.http.said(format!("{path}: {e}")))?;
        let known = self.authorization.lock().await.clone();
        let answer = self.send(url.clone(), accept, known).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.checked(path, answer);
        }
        // Asked for the first time, or a token has run out.
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|header| header.to_str().ok());
        let challenge = challenges.filter_map(Challenge::parse).next();
        let Some(authorization) = self.authorize(challenge).await? else { return self.checked(path, answer) };
        *self.authorization.lock().await = Some(authorization.clone());
        let answer = self.send(url, accept, Some(authorization)).await?;
        self.checked(path, answer)
    }

    async fn send(&self, url: Url, accept: &str, authorization: Option<HeaderValue>) -> Result<Response, Error> {
        let mut request = self.http.client.get(url).header(ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|e| self.http.said(words(&e)))
    }

    fn checked(&self, path: &str, answer: Response) -> Result<Response, Refused> {
        let status = answer.status();
        let why = format!("{path} of {}: {status}", self.path);
        match status {
            StatusCode::OK => Ok(answer),
            // Whoever may not see it is often told that it is not there.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(Refused::Denied(why)),
            _ => Err(self.http.said(why).into()),
        }
    }

    /// What to send for a challenge; none when there is nothing that could be sent.
    async fn authorize(&self, challenge: Option<Challenge>) -> Result<Option<HeaderValue>, Refused> {
        let text = match (challenge, self.credential) {
            (Some(Challenge::Basic), Some(credential)) => credential.basic(),
            (Some(Challenge::Bearer { realm, service }), credential) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), credential).await?)
            }
            _ => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| self.http.said("gives a token, or has a credential, that no header can hold"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<String, Refused> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let what = "the giver of its tokens";
        let mut url = Url::parse(realm).map_err(|e| self.http.said(format!("{what}: {e}")))?;
        if url.scheme() != "https" && !url.host_str().is_some_and(super::is_loopback) {
            return Err(self
                .http
                .said(format!("{what} is to be asked without TLS, which would show the credential"))
                .into());
        }
        url.query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:pull", self.path))
            .extend_pairs(service.map(|service| ("service", service)));
        let mut request = self.http.client.get(url);
        if let Some(credential) = credential {
            let value = HeaderValue::from_str(&credential.basic());
            let mut value = value.map_err(|_| self.http.said("has a credential that no header can hold"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.send().await.map_err(|e| self.http.said(format!("{what}: {}", words(&e))))?;
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Refused::Denied(format!("{what}: {status}")));
            }
            status => return Err(self.http.said(format!("{what}: {status}")).into()),
        }
        let bytes = read(answer, what, TOKEN_ANSWER_MAX, self.http).await?;
        let given = serde_json::from_slice::<Token>(&bytes).ok().and_then(|given| given.token.or(given.access_token));
        given.ok_or_else(|| self.http.said(format!("{what} gave none")).into())
    }
}

async fn read(mut answer: Response, what: &str, max: u64, http: &Http) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| http.said(words(&e)))? {
        if bytes.len() as u64 + chunk.len() as u64 > max {
            return Err(Error::TooLarge { what: what.to_owned(), max });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// An error of the client with its causes. The address is left out: a redirection may have put secrets of its own into it.
pub(super) fn words(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = match (error.is_timeout(), error.is_connect(), error.is_redirect()) {
        (true, ..) => "timed out".to_owned(),
        (_, true, _) => "cannot be reached".to_owned(),
        (_, _, true) => "leads elsewhere in a way that is not followed".to_owned(),
        _ => "broke off".to_owned(),
    };
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

//! Pages: over HTTP/1 or, by a certificate that nobody checks, HTTPS; followed where they send us on the same host.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::{chain, dial};

/// What of a page is read: enough for people to see what it is.
const BODY_MAX: usize = 10 << 10;
/// What an answer may take before its page: a hundred headers, as hyper has it, of some 160 bytes.
const HEAD_MAX: usize = 16 << 10;
/// How often a page may send us on (Go's client).
const REDIRECTS_MAX: usize = 10;

/// An answer.
pub struct Page {
    /// Its status code.
    pub code: u16,
    /// Its beginning.
    pub body: String,
}

/// Asks for the page at `first`, as `host` if another name is asked for, and follows where it sends us as long as the host is the same.
///
/// # Errors
/// There is no answer, or none of HTTP/1.
pub async fn page(first: &Url, host: Option<&str>, headers: &HeaderMap) -> Result<Page, String> {
    let (mut at, mut host) = (first.clone(), host);
    for _ in 0..REDIRECTS_MAX {
        let (page, location) = get(&at, host, headers).await.map_err(|why| format!("Get \"{at}\": {why}"))?;
        let Some(next) = location else { return Ok(page) };
        let to = at.join(&next).map_err(|e| format!("Get \"{at}\": failed to parse Location header {next:?}: {e}"))?;
        if to.host() != first.host() || !matches!(to.scheme(), "http" | "https") {
            return Ok(page);
        }
        // A whole address names its host itself.
        host = host.filter(|_| Url::parse(&next).is_err());
        at = to;
    }
    Err(format!("Get \"{at}\": stopped after {REDIRECTS_MAX} redirects"))
}

/// The name that is asked for, if there is one among the headers, and the others; ours where they say nothing, and none where they say it
/// empty.
///
/// # Errors
/// One is no header.
pub fn headers<'a>(
    own: impl Iterator<Item = (&'a str, &'a str)>,
    agent: &str,
) -> Result<(Option<&'a str>, HeaderMap), String> {
    let (mut host, mut all) = (None, HeaderMap::new());
    for (name, value) in own {
        if name.eq_ignore_ascii_case("host") {
            host = Some(value);
            continue;
        }
        let key: HeaderName = name.parse().map_err(|e| format!("header {name:?}: {e}"))?;
        all.append(key, HeaderValue::from_str(value).map_err(|e| format!("header {name:?}: {e}"))?);
    }
    for (name, usual) in [(header::USER_AGENT, agent), (header::ACCEPT, "*/*")] {
        match all.get(&name) {
            None => drop(all.insert(name, HeaderValue::from_str(usual).map_err(|e| e.to_string())?)),
            Some(own) if own.is_empty() => drop(all.remove(name)),
            Some(_) => {}
        }
    }
    all.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok((host, all))
}

/// One answer, and where it sends us.
async fn get(at: &Url, host: Option<&str>, headers: &HeaderMap) -> Result<(Page, Option<String>), String> {
    let name = at.host_str().unwrap_or_default();
    let socket = dial(name, at.port_or_known_default().unwrap_or(80)).await?;
    if at.scheme() != "https" {
        return exchange(socket, at, host, headers).await;
    }
    let tls = TLS.as_ref().map_err(|why| why.clone())?;
    let name = name.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(|e| format!("tls: {e}"))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await.map_err(|e| format!("tls: {e}"))?;
    exchange(stream, at, host, headers).await
}

async fn exchange<S>(
    stream: S,
    at: &Url,
    host: Option<&str>,
    headers: &HeaderMap,
) -> Result<(Page, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let target = &at[url::Position::BeforePath..url::Position::AfterQuery];
    let own = &at[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::get(target)
        .header(header::HOST, host.unwrap_or(own))
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    request.headers_mut().extend(headers.clone());
    let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
    let code = response.status().as_u16();
    let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
    let location = location.filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308));
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while text.len() < BODY_MAX
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|e| chain(&e))?;
        let bytes = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
        text.extend_from_slice(&bytes[..bytes.len().min(BODY_MAX - text.len())]);
    }
    Ok((Page { code, body: String::from_utf8_lossy(&text).into_owned() }, location))
}

static TLS: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let tls = tls.map_err(|e| e.to_string())?.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Ok(Arc::new(tls.with_no_client_auth()))
});

/// Believes every certificate: what is asked is whether it answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

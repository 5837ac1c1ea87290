//! One call of a webhook, of admission or of conversion: who is meant, TLS, a POST, its answer.
//!
//! Each call has a connection of its own; TLS sessions are taken up again. Redirects are not followed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::body::BODY_BYTES_MAX;
use crate::server::ApiServer;
use crate::verbs::read::decoded;

/// Calls at once, of all webhooks; more wait, and their time runs.
const CALLS_MAX: usize = 64;
static CALLS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CALLS_MAX));

/// Where a webhook listens, and whom it must prove to be.
pub struct Client {
    place: Place,
    path: String,
    timeout: Duration,
    tls: Arc<ClientConfig>,
}

enum Place {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Client {
    /// Reads `clientConfig`; an answer must come within `timeout`.
    ///
    /// # Errors
    /// What is no address and no certificate, in words.
    pub fn read(config: &Value, timeout: Duration) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (place, path) = match config["url"].as_str() {
            Some(url) => {
                let uri: Uri = url.parse().map_err(|e| format!("url must be a valid URL: {e}"))?;
                let host = uri.host().ok_or("host must be specified")?;
                let host = host.trim_matches(['[', ']']).to_owned();
                (Place::Url { host, port: uri.port_u16().unwrap_or(443) }, uri.path().to_owned())
            }
            None => {
                let service = &config["service"];
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let place =
                    Place::Service { namespace: text(&service["namespace"]), name: text(&service["name"]), port };
                (place, service["path"].as_str().unwrap_or("/").to_owned())
            }
        };
        let roots = roots(config["caBundle"].as_str().filter(|bundle| !bundle.is_empty()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { place, path, timeout, tls: Arc::new(tls) })
    }

    /// Sends `review` and returns what comes back.
    ///
    /// # Errors
    /// In the words of upstream's client.
    pub async fn call(&self, server: &ApiServer, review: &Value) -> Result<Value, String> {
        let late = |_| "context deadline exceeded".to_owned();
        let answer = tokio::time::timeout(self.timeout, self.post(server, review)).await.map_err(late);
        answer.and_then(|answer| answer).map_err(|why| format!("failed to call webhook: Post {:?}: {why}", self.url()))
    }

    /// As it stands in messages.
    fn url(&self) -> String {
        let (host, port) = self.host();
        format!("https://{host}:{port}{}?timeout={}s", self.path, self.timeout.as_secs())
    }

    /// The name that its certificate must have, and its port.
    fn host(&self) -> (String, u16) {
        match &self.place {
            Place::Url { host, port } => (host.clone(), *port),
            Place::Service { namespace, name, port } => (format!("{name}.{namespace}.svc"), *port),
        }
    }

    async fn post(&self, server: &ApiServer, review: &Value) -> Result<Value, String> {
        let _permit = CALLS.acquire().await.map_err(|e| e.to_string())?;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (host, port) = self.host();
        let (address, port) = self.address(server).unwrap_or_else(|| Ok((host.clone(), port)))?;
        let socket = TcpStream::connect((address.as_str(), port)).await.map_err(|e| format!("dial tcp: {e}"))?;
        let _ = socket.set_nodelay(true);
        let name = ServerName::try_from(host.clone()).map_err(|e| text(&e))?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, socket)
            .await
            .map_err(|e| format!("tls: failed to verify certificate: {e}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::post(format!("{}?timeout={}s", self.path, self.timeout.as_secs()))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|e| text(&e))?;
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|e| text(&e))?.to_bytes();
        if code == http::StatusCode::NOT_FOUND {
            return Err("the server could not find the requested resource".into());
        }
        if !code.is_success() {
            let said: String = String::from_utf8_lossy(&body).chars().take(256).collect();
            return Err(format!("an error on the server ({said:?}) has prevented the request from succeeding"));
        }
        serde_json::from_slice(&body).map_err(|e| format!("the answer is no JSON: {e}"))
    }

    /// Where a Service is to be reached; none for a URL.
    fn address(&self, server: &ApiServer) -> Option<Result<(String, u16), String>> {
        let Place::Service { namespace, name, port } = &self.place else { return None };
        let found = || {
            let kind = server.inner.registry.get("", "v1", "services").ok_or("services are not served")?;
            let entry = server.inner.store.get(&kind.key(namespace, name));
            let entry = entry.ok_or_else(|| format!("service {name:?} not found"))?;
            let spec = decoded(&kind, &entry).map_err(|status| status.message)?["spec"].take();
            if spec["type"] == "ExternalName" {
                return Ok((spec["externalName"].as_str().unwrap_or_default().to_owned(), *port));
            }
            let mut ports = spec["ports"].as_array().into_iter().flatten();
            if !ports.any(|known| known["port"] == *port) {
                return Err(format!("no service port {port} found for service {name:?}"));
            }
            match spec["clusterIP"].as_str().filter(|ip| !ip.is_empty() && *ip != "None") {
                Some(ip) => Ok((ip.to_owned(), *port)),
                None => Err("cannot route to service with ClusterIP \"None\"".to_owned()),
            }
        };
        Some(found())
    }
}

/// Whose word counts for who a server is: the bundle (base64 of PEM), else the machine's authorities.
fn roots(bundle: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(bundle) = bundle else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unreadable = "unable to load root certificates: unable to parse bytes as PEM block";
    let pem = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, bundle).map_err(|_| unreadable)?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| unreadable)?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() { Err(unreadable.into()) } else { Ok(roots) }
}

/// That a `clientConfig` says where a webhook is.
///
/// # Errors
/// Why it does not.
pub fn check(config: &Value) -> Result<(), String> {
    Client::read(config, Duration::from_secs(1)).map(|_| ())
}

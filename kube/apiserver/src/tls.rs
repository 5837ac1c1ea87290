//! The server's door: certificates, and connections over TLS.
//!
//! The API has a certificate authority of its own (ECDSA P-256, which every client speaks). It signs the server's
//! certificate anew at each start, for the addresses that it has then, and client certificates.

mod issue;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::auth::User;
use crate::bounds::{Origin, network};
use crate::server::ApiServer;

/// Connections served at once; more wait. A device's file table has 1,024 entries and a node's own parts need some.
const CONNECTIONS_MAX: usize = 768;
/// … of one address, so that it cannot take all; what it opens beyond them is closed. Loopback is one address, too.
const CONNECTIONS_OF_ONE_MAX: usize = 256;
/// How long a reader may read nothing of what is to be sent.
const READER: Duration = Duration::from_secs(60);
/// An HTTP/2 connection that says nothing is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);
/// A handshake that takes longer is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the authority cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made or understood.
    #[error("certificate: {0}")]
    Certificate(String),
}

fn certificate(error: impl std::fmt::Display) -> Error {
    Error::Certificate(error.to_string())
}

/// A key and the certificate that says whose it is, as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS 8).
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// The API's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM: what clients trust.
    pub certificate_pem: String,
}

impl Authority {
    /// The authority in `directory` (`ca.crt`, `ca.key`, mode 0600), made if absent.
    ///
    /// # Errors
    /// When the files cannot be read, written, or understood.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let file = |path: &Path| {
            let path = path.display().to_string();
            move |source| Error::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(file(directory))?;
        if !key_path.exists() {
            let key = KeyPair::generate().map_err(certificate)?;
            let signed = Self::params()?.self_signed(&key).map_err(certificate)?;
            write_private(&certificate_path, signed.pem().as_bytes()).map_err(file(&certificate_path))?;
            write_private(&key_path, key.serialize_pem().as_bytes()).map_err(file(&key_path))?;
        }
        let key_pem = std::fs::read_to_string(&key_path).map_err(file(&key_path))?;
        let certificate_pem = std::fs::read_to_string(&certificate_path).map_err(file(&certificate_path))?;
        let key = KeyPair::from_pem(&key_pem).map_err(certificate)?;
        Ok(Self { issuer: Issuer::new(Self::params()?, key), certificate_pem })
    }

    fn params() -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
        params.distinguished_name = name("kubernetes", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }

    /// A client certificate for `user` (`CN`) in `groups` (`O`).
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
        params.distinguished_name = name(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A server certificate for these addresses and names.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn server(&self, addresses: &[IpAddr], names: &[&str]) -> Result<Identity, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(certificate)?;
        params.distinguished_name = name("kube-apiserver", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = addresses.iter().map(|a| SanType::IpAddress(*a)).collect();
        for dns in names {
            params.subject_alt_names.push(SanType::DnsName((*dns).try_into().map_err(certificate)?));
        }
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(certificate)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(certificate)?;
        Ok(Identity { certificate_pem: signed.pem(), key_pem: key.serialize_pem() })
    }

    /// What a server with `identity` does with connections: TLS, client certificates of this authority welcome.
    ///
    /// # Errors
    /// When identity or authority cannot be used.
    pub fn server_config(&self, identity: &Identity) -> Result<ServerConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(certificate)?)
            .map_err(certificate)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(certificate)?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).map_err(certificate)?];
        let key =
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(certificate)?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(certificate)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn name(common: &str, organisations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organisation in organisations {
        name.push(DnType::OrganizationName, *organisation);
    }
    name.push(DnType::CommonName, common);
    name
}

/// Writes a file that only its owner reads, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// The connections of each address.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection of an address, until it is dropped.
struct Door(Doors, IpAddr);

impl Doors {
    fn open(&self, address: IpAddr) -> Option<Door> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        *count += 1;
        if *count > CONNECTIONS_OF_ONE_MAX {
            *count -= 1;
            return None;
        }
        Some(Door(self.clone(), address))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// Serves connections until the task is dropped.
pub async fn serve(server: ApiServer, listener: TcpListener, config: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(config);
    let (room, doors) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Doors::default());
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors: others must close first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(door) = doors.open(network(peer.ip())) else {
            tracing::debug!(%peer, "closed: {CONNECTIONS_OF_ONE_MAX} connections of this address are open");
            continue;
        };
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let _kept = (permit, door);
            let _ = socket.set_nodelay(true);
            if let Err(why) = connection(server, acceptor, socket, peer.ip()).await {
                tracing::debug!(%peer, why, "connection ended");
            }
        });
    }
}

async fn connection(server: ApiServer, acceptor: TlsAcceptor, socket: TcpStream, peer: IpAddr) -> Result<(), String> {
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(READER));
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(Box::pin(socket))).await;
    let stream = stream.map_err(|_| "no TLS in time")?.map_err(|error| format!("no TLS: {error}"))?;
    let user = stream.get_ref().1.peer_certificates().and_then(|chain| User::from_certificate(chain.first()?));
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Origin::Address(peer));
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(server.answer(user.as_ref(), request).await) }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    let mut http2 = http.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(SILENCE).keep_alive_timeout(HANDSHAKE);
    http2.max_concurrent_streams(250); // as upstream
    http.serve_connection_with_upgrades(TokioIo::new(stream), service).await.map_err(|error| error.to_string())
}

//! TLS material from a node key: TLS 1.3 only, both sides proven, no authority.
//!
//! A certificate here is only the envelope in which a key travels: names, dates and its own signature say nothing. What
//! counts is that the handshake proves possession of the Ed25519 key inside, and that this key *is* the peer's name.
//! Sessions are never resumed and nothing is sent before the handshake is over, so a recorded one is worth nothing.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::{NodeId, NodeKey};

/// Our certificates are under 500 bytes; parsing stops at what is clearly something else.
const CERTIFICATE_BYTES_MAX: usize = 4096;
/// The beginning of every Ed25519 SubjectPublicKeyInfo (RFC 8410 §4); 32 bytes of key follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Whether a server asks the client for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No key, no connection: the link.
    Demand,
    /// A client may come without one and is then nobody: REAR, which anybody may ask for flavors.
    Accept,
}

/// Why there is no TLS material or no name in a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("making the certificate of {node}: {reason}")]
    Make {
        /// Whose.
        node: NodeId,
        /// What was wrong.
        reason: String,
    },
    /// The certificate is not of a node.
    #[error("certificate does not hold an Ed25519 key of a node: {0}")]
    NotANode(String),
    /// rustls refused.
    #[error(transparent)]
    Rustls(#[from] Error),
}

/// Returns the name of the node whose key is in a certificate. Possession is proven by the handshake, not here.
///
/// # Errors
/// [`TlsError::NotANode`] if it holds anything but a usable Ed25519 key.
pub fn certificate_node_id(certificate: &CertificateDer<'_>) -> Result<NodeId, TlsError> {
    let refused = |reason: String| TlsError::NotANode(reason);
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(refused(format!("{} bytes, at most {CERTIFICATE_BYTES_MAX}", certificate.len())));
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| refused(error.to_string()))?;
    let spki = parsed.subject_public_key_info();
    let key: [u8; 32] = spki
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| refused("the key is of another algorithm".into()))?;
    NodeId::from_public_key(key).map_err(|error| refused(error.to_string()))
}

/// Returns the peer of a finished handshake, or `None` if it came without a key.
///
/// # Errors
/// [`TlsError::NotANode`] if what it came with is not a node's; the verifiers here do not let that happen.
pub fn peer_node_id(certificates: Option<&[CertificateDer<'_>]>) -> Result<Option<NodeId>, TlsError> {
    certificates.and_then(<[_]>::first).map(certificate_node_id).transpose()
}

/// Returns a TLS 1.3 server of this node.
///
/// # Errors
/// [`TlsError`] if the certificate cannot be made.
pub fn server_config(key: &NodeKey, clients: ClientAuth, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = SingleCertAndKey::from(key.certified(|| certified(key, &provider))?);
    let verifier = Verifier { provider: provider.clone(), expected: None, clients };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Returns a TLS 1.3 client of this node. With `expected`, a server with another key is refused in the handshake;
/// without, any node is taken and the caller asks who it is.
///
/// # Errors
/// [`TlsError`] if the certificate cannot be made.
pub fn client_config(key: &NodeKey, expected: Option<NodeId>, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = SingleCertAndKey::from(key.certified(|| certified(key, &provider))?);
    let verifier = Verifier { provider: provider.clone(), expected, clients: ClientAuth::Demand };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // no authority vouches for a key: the key is the name
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(shown));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Makes the certificate and the key in the form that rustls takes.
fn certified(key: &NodeKey, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let failed = |reason: String| TlsError::Make { node: key.id(), reason };
    let der = key.pkcs8_der().map_err(failed)?;
    let pkcs8 = PrivatePkcs8KeyDer::from(der.as_slice());
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)
        .map_err(|error| failed(error.to_string()))?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, key.id().to_string());
    params.serial_number = Some(rcgen::SerialNumber::from(key.id().public_key()[..8].to_vec()));
    let certificate = params.self_signed(&pair).map_err(|error| failed(error.to_string()))?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    Ok(CertifiedKey::from_der(vec![certificate.der().clone()], secret, provider)?)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    expected: Option<NodeId>,
    clients: ClientAuth,
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let observed = certificate_node_id(certificate).map_err(|error| Error::General(error.to_string()))?;
        match self.expected {
            Some(needed) if needed != observed => Err(Error::General(format!("peer is {observed}, needed {needed}"))),
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

/// TLS 1.2 is not offered, so nobody can get here; refused all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientAuth::Demand
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// Runs a handshake in memory; returns what each side knows about the other, or the first error.
    fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(Option<NodeId>, Option<NodeId>), String> {
        let name = ServerName::try_from("node.invalid").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        for _ in 0..8 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        Ok((peer_node_id(client.peer_certificates()).unwrap(), peer_node_id(server.peer_certificates()).unwrap()))
    }

    #[test]
    fn a_certificate_is_made_once_for_a_key_and_its_clones() {
        let (key, other) = keys();
        let provider = rustls::crypto::ring::default_provider();
        let made = key.certified(|| certified(&key, &provider)).unwrap();
        let never = || Err(TlsError::NotANode("made again".into()));
        let again = key.clone().certified(never).unwrap();
        assert!(Arc::ptr_eq(&made, &again));
        assert_eq!(certificate_node_id(&made.cert[0]).unwrap(), key.id());
        assert!(other.certified(never).is_err(), "another key has its own");
    }

    fn keys() -> (NodeKey, NodeKey) {
        (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap())
    }

    fn anonymous_client() -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier { provider: provider.clone(), expected: None, clients: ClientAuth::Demand };
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        builder.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    }

    #[test]
    fn each_side_learns_the_key_of_the_other() {
        let (a, b) = keys();
        let client = client_config(&a, Some(b.id()), &[]).unwrap();
        let server = server_config(&b, ClientAuth::Demand, &[]).unwrap();
        assert_eq!(handshake(client, server), Ok((Some(b.id()), Some(a.id()))));
    }

    #[test]
    fn another_key_than_expected_is_refused() {
        let (a, b) = keys();
        let client = client_config(&a, Some(a.id()), &[]).unwrap();
        let refused = handshake(client, server_config(&b, ClientAuth::Demand, &[]).unwrap()).unwrap_err();
        assert!(refused.contains(&format!("peer is {}", b.id())), "{refused}");
    }

    #[test]
    fn a_client_without_a_key_is_nobody_or_refused() {
        let (_, b) = keys();
        let accepted = handshake(anonymous_client(), server_config(&b, ClientAuth::Accept, &[]).unwrap());
        assert_eq!(accepted, Ok((Some(b.id()), None)));
        let refused = handshake(anonymous_client(), server_config(&b, ClientAuth::Demand, &[]).unwrap());
        assert!(refused.is_err());
    }

    #[test]
    fn a_certificate_without_its_secret_is_refused() {
        let (a, b) = keys();
        let provider = rustls::crypto::ring::default_provider();
        let (stolen, own) = (certified(&b, &provider).unwrap(), certified(&a, &provider).unwrap());
        let forged = CertifiedKey::new(stolen.cert, own.key);
        let resolver = Arc::new(SingleCertAndKey::from(forged));
        let mut client = client_config(&a, None, &[]).unwrap();
        client.client_auth_cert_resolver = resolver;
        let refused = handshake(client, server_config(&b, ClientAuth::Accept, &[]).unwrap());
        assert!(refused.is_err(), "{refused:?}");
    }

    #[test]
    fn a_certificate_of_another_algorithm_is_not_a_node() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        assert!(matches!(certificate_node_id(certificate.der()), Err(TlsError::NotANode(_))));
        assert!(certificate_node_id(&CertificateDer::from(vec![0x30; 5000])).is_err());
        assert!(certificate_node_id(&CertificateDer::from(vec![])).is_err());
    }
}

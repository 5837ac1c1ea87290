#![allow(clippy::unwrap_used, clippy::panic)]

use fluidos_identity::NodeKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const DOMAIN: &str = "farm.example";

fn owner(seed: u8) -> NodeId {
    NodeKey::from_seed([seed; 32]).unwrap().id()
}

/// A web server on loopback with a certificate of its own authority for a name; it answers everybody with these bytes.
pub(in crate::introductions) async fn server(name: &str, answer: Vec<u8>) -> (SocketAddr, Vec<u8>) {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..read].starts_with(b"GET /.well-known/did.json HTTP/1.1"));
                // Who has heard enough hangs up.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, root.der().to_vec())
}

pub(in crate::introductions) fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nlocation: https://127.0.0.1/\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn names(address: SocketAddr) -> Option<Names> {
    Some(Arc::new(move |_| Box::pin(async move { Ok(vec![address]) })))
}

async fn fetched(options: Options, domain: &str) -> Result<Vec<u8>, String> {
    let mut web = Web::new(options);
    web.want(&[(owner(1), domain.to_owned())].into(), Instant::now());
    web.done().await.document.map(|(_, document)| document)
}

#[tokio::test]
async fn a_document_is_fetched_over_tls_and_names_its_key() {
    let document = format!("did:web:{DOMAIN}").parse::<DidWeb>().unwrap().document(&owner(1)).to_string();
    let (address, root) = server(DOMAIN, http("200 OK", &document)).await;
    let options = Options { private: true, roots: vec![root], names: names(address) };
    let read = fetched(options.clone(), DOMAIN).await.unwrap();
    let web: DidWeb = format!("did:web:{DOMAIN}").parse().unwrap();
    assert_eq!(web.check_document(&read, &owner(1)), Ok(()));
    assert!(web.check_document(&read, &owner(2)).is_err());

    // It is not asked inside a network that its owner has not opened, nor believed without a root, or for another name.
    let refused = fetched(Options { private: false, ..options.clone() }, DOMAIN).await.unwrap_err();
    assert!(refused.contains("127.0.0.1, which is no public address"), "{refused}");
    let refused = fetched(Options { roots: vec![], ..options.clone() }, DOMAIN).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    let refused = fetched(options.clone(), "mill.example").await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert!(fetched(options, "127.0.0.1").await.unwrap_err().contains("did:web"));
}

#[tokio::test]
async fn what_is_too_large_or_elsewhere_is_refused() {
    let large = http("200 OK", &"x".repeat(DID_DOCUMENT_BYTES_MAX + 1));
    for (answer, needed) in
        [(large, "is larger than"), (http("302 Found", ""), "answers 302"), (http("404 No", ""), "404")]
    {
        let (address, root) = server(DOMAIN, answer).await;
        let options = Options { private: true, roots: vec![root], names: names(address) };
        let refused = fetched(options, DOMAIN).await.unwrap_err();
        assert!(refused.contains(needed), "{refused}");
    }
}

#[tokio::test]
async fn who_fails_is_asked_less_and_less_and_all_is_bounded() {
    let nowhere: Option<Names> = Some(Arc::new(|_| Box::pin(async { Ok(vec![]) })));
    let mut web = Web::new(Options { names: nowhere, ..Options::default() });
    let claims: BTreeSet<Claim> = (0..300).map(|i| (owner(1), format!("d{i}.example"))).collect();
    let start = Instant::now();
    let mut asked = 0;
    loop {
        web.want(&claims, start);
        assert!(web.tasks.len() <= AT_ONCE);
        if web.tasks.is_empty() {
            break;
        }
        let Fetched { claim, document } = web.done().await;
        let reason = document.unwrap_err();
        assert!(reason.contains("leads nowhere"), "{reason}");
        web.noted(&claim, Err(reason), start);
        asked += 1;
    }
    assert_eq!(asked, DOMAINS_MAX);
    let claim = claims.first().unwrap();
    assert!(web.reason(claim).is_some());
    let next = |web: &Web| web.looked[claim].next.unwrap().duration_since(start).as_secs();
    let waits: Vec<u64> = (0..4)
        .map(|_| {
            let wait = next(&web);
            web.noted(claim, Err("again".into()), start);
            wait
        })
        .collect();
    assert_eq!(waits, [600, 1200, 2400, 3600]);
    web.noted(claim, Ok(()), start);
    assert_eq!((next(&web), web.reason(claim)), (18 * 3600, None));
    web.want(&BTreeSet::new(), start);
    assert!(web.looked.is_empty(), "what nobody claims is forgotten");
}

#[test]
fn only_addresses_of_the_internet_are_public() {
    for ip in
        ["1.1.1.1", "192.0.1.1", "100.63.0.1", "100.128.0.1", "2606:4700::1111", "2001:4860::8888", "::ffff:8.8.8.8"]
    {
        assert!(is_public(ip.parse().unwrap()), "{ip}");
    }
    for ip in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.251",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "64:ff9b::a00:1",
        "2001:db8::1",
        "2002:a00:1::",
        "2001::1",
    ] {
        assert!(!is_public(ip.parse().unwrap()), "{ip}");
    }
}

//! A registry as a source of images, by the OCI distribution specification, without credentials.
//!
//! What a registry says is hostile like everything else: manifests and blobs are taken only under the digest of their
//! bytes, sizes are bounded by the store. Registries on this machine (loopback) are spoken to without TLS.

use futures::TryStreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio_util::io::StreamReader;

use super::config::{DOCUMENT_SIZE_MAX, Descriptor, Index, Manifest, architecture};
use super::{Digest, Error, ImageStore, Reference};

/// What is understood, best first.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// A registry that is not there must not hold up the next source for long.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// And one that stops in the middle of a layer is given up.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Whatever registry a reference names.
#[derive(Clone, Debug, Default)]
pub struct Registry;

impl Registry {
    /// Brings an image into the store and names it.
    ///
    /// # Errors
    /// The registry cannot be reached, does not have it, or delivers something else than it promised.
    pub async fn pull(&self, reference: &Reference, store: &ImageStore) -> Result<(), Error> {
        let said = |why: String| Error::Source { source_name: format!("registry {}", reference.domain()), why };
        // reqwest takes the provider of the process and panics without one; another may have set it, to the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = oci_client::Client::try_from(ClientConfig {
            protocol: if is_loopback(reference.domain()) { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            ..ClientConfig::default()
        })
        .map_err(|e| said(e.to_string()))?;
        let pulled = Pull { client, store, reference, said: &said };
        let (digest, manifest) = pulled.manifest().await?;
        for blob in manifest.blobs() {
            pulled.blob(blob).await?;
        }
        store.tag(reference, &digest).await
    }
}

struct Pull<'a> {
    client: oci_client::Client,
    store: &'a ImageStore,
    reference: &'a Reference,
    said: &'a (dyn Fn(String) -> Error + Sync),
}

impl Pull<'_> {
    /// The manifest for this machine, through an index if there is one.
    async fn manifest(&self) -> Result<(Digest, Manifest), Error> {
        let bytes = self.document(&self.reference.to_string(), self.reference.digest()).await?;
        let what = format!("manifest of {}", self.reference);
        let index: Option<Index> = serde_json::from_slice(&bytes).ok();
        let Some(index) = index else { return Ok((self.keep(&bytes).await?, Manifest::parse(&what, &bytes)?)) };
        let fitting = index.manifests.into_iter().find(|d| d.platform.is_some() && d.fits());
        let chosen =
            fitting.ok_or_else(|| Error::invalid(&what, format!("has nothing for linux/{}", architecture())))?;
        let by_digest = format!("{}@{}", self.reference.repository(), chosen.digest);
        let bytes = self.document(&by_digest, Some(&chosen.digest)).await?;
        Ok((self.keep(&bytes).await?, Manifest::parse(&what, &bytes)?))
    }

    async fn document(&self, name: &str, wanted: Option<&Digest>) -> Result<bytes::Bytes, Error> {
        let name: oci_client::Reference = name.parse().map_err(|e| (self.said)(format!("{name}: {e}")))?;
        let answer = self.client.pull_manifest_raw(&name, &RegistryAuth::Anonymous, &ACCEPTED).await;
        let (bytes, _) = answer.map_err(|e| (self.said)(e.to_string()))?;
        if bytes.len() as u64 > DOCUMENT_SIZE_MAX {
            return Err(Error::TooLarge { what: format!("manifest {name}"), max: DOCUMENT_SIZE_MAX });
        }
        let observed = Digest::of(&bytes);
        match wanted {
            Some(wanted) if *wanted != observed => Err(Error::Corrupt { wanted: wanted.clone(), observed }),
            _ => Ok(bytes),
        }
    }

    async fn keep(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.store.write(&digest, bytes).await?;
        Ok(digest)
    }

    async fn blob(&self, blob: &Descriptor) -> Result<(), Error> {
        if self.store.has(&blob.digest) {
            return Ok(());
        }
        let name: oci_client::Reference =
            self.reference.to_string().parse().map_err(|e| (self.said)(format!("{}: {e}", self.reference)))?;
        let size =
            i64::try_from(blob.size).map_err(|_| Error::invalid(blob.digest.to_string(), "has an absurd size"))?;
        let descriptor = OciDescriptor { digest: blob.digest.to_string(), size, ..OciDescriptor::default() };
        let answer = self.client.pull_blob_stream(&name, &descriptor).await.map_err(|e| (self.said)(e.to_string()))?;
        self.store.write(&blob.digest, StreamReader::new(answer.stream.into_stream())).await.map(drop)
    }
}

fn is_loopback(domain: &str) -> bool {
    let host = domain
        .strip_prefix('[')
        .and_then(|d| d.split(']').next())
        .unwrap_or_else(|| domain.split(':').next().unwrap_or(domain));
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A registry with one image; `corrupt` makes it send another layer than it promised.
    async fn registry(corrupt: bool) -> String {
        let layer = b"layer".to_vec();
        let config =
            json!({"architecture": architecture(), "os": "linux", "config": {"Cmd": ["x"]}}).to_string().into_bytes();
        let describe = |bytes: &[u8]| json!({"mediaType": "t", "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": ACCEPTED[1], "config": describe(&config), "layers": [describe(&layer)]});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = describe(&manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture()});
        entry["mediaType"] = json!(ACCEPTED[1]);
        let index =
            json!({"schemaVersion": 2, "mediaType": ACCEPTED[0], "manifests": [entry]}).to_string().into_bytes();
        let layer_sent = if corrupt { b"other".to_vec() } else { layer.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 8192];
                let n = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request[..n]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let (kind, body) = if path.ends_with("/manifests/1") {
                    (ACCEPTED[0], index.clone())
                } else if path.ends_with(&Digest::of(&manifest).to_string()) {
                    (ACCEPTED[1], manifest.clone())
                } else if path.ends_with(&Digest::of(&config).to_string()) {
                    ("c", config.clone())
                } else if path.ends_with(&Digest::of(&layer).to_string()) {
                    ("l", layer_sent.clone())
                } else {
                    ("x", Vec::new())
                };
                let status = if kind == "x" && path != "/v2/" { "404 Not Found" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&body).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_image_through_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let reference: Reference = format!("{}/app:1", registry(false).await).parse().unwrap();
        Registry.pull(&reference, &store).await.unwrap();
        assert_eq!(store.find(&reference).await.unwrap().unwrap().config.cmd, ["x"]);
        let absent: Reference = format!("{}/app:2", reference.domain()).parse().unwrap();
        let refused = Registry.pull(&absent, &store).await.unwrap_err();
        assert!(matches!(refused, Error::Source { .. }), "{refused}");
    }

    #[tokio::test]
    async fn another_layer_than_promised_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let reference: Reference = format!("{}/app:1", registry(true).await).parse().unwrap();
        let refused = Registry.pull(&reference, &store).await;
        assert!(refused.is_err(), "a forged layer was taken");
        assert!(store.find(&reference).await.unwrap().is_none());
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (domain, is) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("example.org", false),
            ("10.0.0.1:80", false),
        ] {
            assert_eq!(is_loopback(domain), is, "{domain}");
        }
    }
}

//! A registry as a source of images, by the OCI distribution specification.
//!
//! ```text
//! credentials of the caller, the machine's, none ─▶ manifest ─▶ admitted ─▶ layers, three at a time ─▶ name
//!              each in turn, until one is admitted
//! ```
//!
//! What a registry says is hostile like everything else: manifests and blobs are taken only under the digest of their bytes, bounded in size and
//! time. Registries on this machine (loopback) are spoken to without TLS; the authorities of all others are those of the machine.

mod challenge;
mod session;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, ReadBuf};

use super::config::{DOCUMENT_SIZE_MAX, Descriptor, Index, Manifest, architecture};
use super::store::Blob;
use super::{Admitted, Caller, Credential, Digest, Error, ImageStore, Keyring, Progress, Reference};
use session::{Http, Refused, Session};

/// What is understood, best first.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Layers of an image that come at once, as docker does it.
const LAYERS_AT_ONCE: usize = 3;
/// A layer takes at most so long, and a second more for each of its KiB: slower is not slow but kept waiting.
const BLOB_TIME: Duration = Duration::from_secs(300);

/// Whatever registry a reference names.
#[derive(Clone, Default)]
pub struct Registry {
    config: Option<PathBuf>,
    progress: Option<Arc<dyn Progress>>,
}

impl Registry {
    /// One that shows the credentials of `config`, too (docker's `config.json`), which is read at each pull.
    pub fn new(config: Option<PathBuf>) -> Self {
        Self { config, progress: None }
    }

    /// The same, with somebody who is told.
    #[must_use]
    pub fn with_progress(self, progress: Arc<dyn Progress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Brings an image into the store and names it for the caller. The machine's credentials are for its owner only.
    ///
    /// # Errors
    /// The registry cannot be reached, does not have it, admits none of the credentials, or delivers something else than it promised.
    pub async fn pull(&self, reference: &Reference, caller: &Caller, store: &ImageStore) -> Result<(), Error> {
        let http = Http::new(reference)?;
        let machine = if caller.realm.is_empty() { self.machine(reference).await? } else { Vec::new() };
        let own = caller.credentials.iter().map(|credential| (Some(credential), Admitted::With(credential)));
        let shared = machine.iter().map(|credential| (Some(credential), Admitted::Everybody));
        let mut last = None;
        for (credential, admitted) in own.chain(shared).chain([(None, Admitted::Everybody)]) {
            let session = Session::new(&http, reference, credential);
            match self.manifest(&session, reference).await {
                Ok(manifest) => return self.layers(&session, reference, &manifest, caller, admitted, store).await,
                Err(Refused::Failed(error)) => return Err(error),
                // What the best credential was told says most.
                Err(Refused::Denied(why)) => last = last.or(Some(why)),
            }
        }
        let why = last.unwrap_or_default();
        Err(Error::Source { source_name: format!("registry {}", reference.domain()), why })
    }

    /// The machine's own credentials for an image.
    async fn machine(&self, reference: &Reference) -> Result<Vec<Credential>, Error> {
        use tokio::io::AsyncReadExt as _;
        let Some(path) = &self.config else { return Ok(Vec::new()) };
        let file = tokio::fs::File::open(path).await.map_err(Error::io("open", path))?;
        let mut text = Vec::new();
        let max = super::CONFIG_SIZE_MAX as u64 + 1;
        file.take(max).read_to_end(&mut text).await.map_err(Error::io("read", path))?;
        let mut keyring = Keyring::default();
        let has_helpers = keyring.add(&text).map_err(|e| Error::invalid(path.display().to_string(), e.to_string()))?;
        if has_helpers {
            tracing::warn!(path = %path.display(), "credHelpers and credsStore are not run; only what is under \"auths\" counts");
        }
        Ok(keyring.find(reference))
    }

    /// The bytes of the manifest for this machine, through an index if there is one.
    async fn manifest(&self, session: &Session<'_>, reference: &Reference) -> Result<Vec<u8>, Refused> {
        let name = reference.digest().map(ToString::to_string);
        let name = name.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_else(|| "latest".to_owned());
        let bytes = document(session, &name, reference.digest()).await?;
        let what = format!("manifest of {reference}");
        let Ok(index) = serde_json::from_slice::<Index>(&bytes) else { return Ok(bytes) };
        let fitting = index.manifests.into_iter().filter(|d| d.platform.is_some() && d.fits());
        let fitting = fitting.min_by_key(Descriptor::rank);
        let chosen =
            fitting.ok_or_else(|| Error::invalid(&what, format!("has nothing for linux/{}", architecture())))?;
        document(session, &chosen.digest.to_string(), Some(&chosen.digest)).await
    }

    async fn layers(
        &self,
        session: &Session<'_>,
        reference: &Reference,
        manifest: &[u8],
        caller: &Caller,
        admitted: Admitted<'_>,
        store: &ImageStore,
    ) -> Result<(), Error> {
        Manifest::parse(&format!("manifest of {reference}"), manifest)?;
        let incoming = store.incoming(reference, manifest, caller, admitted).await?;
        if let Some(progress) = &self.progress {
            progress.expects(incoming.needed().len(), incoming.needed().iter().map(|blob| blob.size).sum());
        }
        let mut each: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
        for blob in incoming.needed() {
            each.push(Box::pin(incoming.take(blob, self.blob(session, reference, blob))));
        }
        let mut coming = futures::stream::iter(each).buffer_unordered(LAYERS_AT_ONCE);
        let mut taken = Ok(());
        while let Some(one) = coming.next().await {
            taken = one;
            if taken.is_err() {
                break;
            }
        }
        drop(coming); // half of a layer goes with whoever brought it
        match taken {
            Ok(()) => incoming.finish().await,
            Err(error) => {
                if matches!(error, Error::NoRoom { .. }) {
                    drop(incoming); // what holds off who tidies up
                    store.tidy().await?;
                }
                Err(error)
            }
        }
    }

    async fn blob(&self, session: &Session<'_>, reference: &Reference, blob: &Blob) -> Result<Arriving, Error> {
        let answer = session.blob(&blob.digest).await.map_err(|refused| match refused {
            Refused::Failed(error) => error,
            Refused::Denied(why) => Error::Source { source_name: format!("registry {}", reference.domain()), why },
        })?;
        let chunks = futures::stream::try_unfold(answer, |mut answer: reqwest::Response| async move {
            let chunk = answer.chunk().await.map_err(|e| std::io::Error::other(session::words(&e)))?;
            Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, answer)))
        });
        let time = BLOB_TIME + Duration::from_secs(blob.size >> 10);
        Ok(Arriving {
            bytes: Box::pin(tokio_util::io::StreamReader::new(chunks.boxed())),
            deadline: Box::pin(tokio::time::sleep(time)),
            progress: self.progress.clone(),
            what: blob.digest.hex().to_owned(),
            size: blob.size,
            arrived: 0,
        })
    }
}

async fn document(session: &Session<'_>, name: &str, wanted: Option<&Digest>) -> Result<Vec<u8>, Refused> {
    let bytes = session.document(&format!("manifests/{name}"), &ACCEPTED.join(", "), DOCUMENT_SIZE_MAX).await?;
    let observed = Digest::of(&bytes);
    match wanted {
        Some(wanted) if *wanted != observed => Err(Error::Corrupt { wanted: wanted.clone(), observed }.into()),
        _ => Ok(bytes),
    }
}

/// The bytes of a blob as they come, in a bounded time.
struct Arriving {
    bytes: Pin<Box<dyn AsyncRead + Send>>,
    deadline: Pin<Box<tokio::time::Sleep>>,
    progress: Option<Arc<dyn Progress>>,
    what: String,
    size: u64,
    arrived: u64,
}

impl AsyncRead for Arriving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        std::task::ready!(self.bytes.as_mut().poll_read(context, into))?;
        self.arrived += (into.filled().len() - before) as u64;
        if let Some(progress) = &self.progress {
            progress.moved(&self.what, self.arrived, self.size);
        }
        Poll::Ready(Ok(()))
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
    #![allow(missing_docs)]
    use super::is_loopback;

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

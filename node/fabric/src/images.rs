//! Images follow the pod: a provider takes what it does not have from the consumer, over the link.
//!
//! ```text
//! provider                                               consumer
//! kubelet ─▶ PeerImages ── image/1 {contract, uid, reference} ──▶ Shelf: is it an image of a pod on that contract?
//!                       ◀── the digest of its manifest ──────────
//!            ImageStore ◀── blob/1 {contract, uid, digest} ──────  bytes, verified by their digest before they have a name
//! ```
//! A reseller (`resale`) asks on: what its provider wants of a twin's images is asked of the twin's consumer, and the bytes are passed through
//! without being kept, at most as many as were said. Who asked verifies them by their digest.
//!
//! What is here already is not sent again, so an interrupted image goes on with the blob that was interrupted.

use std::collections::BTreeSet;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use engine_images::{Admitted, BLOB_SIZE_MAX, Caller, Digest, Error, Found, Image, ImageStore, Reference};
use fluidos_identity::NodeId;
use fluidos_link::{Handler, LinkError, LinkStream, PeerInfo, RequestHandler, RequestRefusal};
use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use substrate_kubelet::ImageSource;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

use crate::deal::Deal;
use crate::fabric::Shared;
use crate::twins::Origin;
use crate::{frames, resale};

const IMAGE: &str = "image/1";
const BLOB: &str = "blob/1";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A link that gives nothing for this long does not work.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A blob is asked for again when the link breaks; each time it begins anew.
const TRIES_MAX: u32 = 3;
/// A manifest names its layers: 100 of them are 20 KiB.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ImageRequest {
    contract: String,
    uid: String,
    reference: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ImageAnswer {
    digest: Digest,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct BlobHeader {
    contract: String,
    uid: String,
    digest: Digest,
}

/// What the bytes of a blob begin with: their number, or why there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum BlobAnswer {
    Size(u64),
    Refused(String),
}

/// Answers providers from now on.
pub(crate) fn serve(shared: &Arc<Shared>) -> Result<(), LinkError> {
    let shelf = Arc::new(Shelf(shared.clone()));
    shared.links.handle_requests(IMAGE, shelf.clone())?;
    shared.links.handle(BLOB, shelf)
}

/// The consumer's side: the images that pods on a contract name, and no others.
struct Shelf(Arc<Shared>);

impl Shelf {
    /// The pod, which must be on a virtual node of a contract with the peer.
    fn pod(&self, provider: NodeId, contract: &str, uid: &str) -> Result<Arc<Pod>, String> {
        let deal = self.0.live_deal(contract, self.0.id(), provider).map_err(|error| error.to_string())?;
        let is_on = |node: &str| {
            self.0.nodes.get("", node).is_some_and(|node| {
                node.labels().contains_key(names::VIRTUAL_NODE)
                    && node.labels().get(names::LABEL_CONTRACT) == Some(&deal.name)
            })
        };
        let pod = self.0.pods.list().into_iter().find(|pod| pod.uid().as_deref() == Some(uid));
        let node = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let pod =
            pod.filter(|pod| node(pod).is_some_and(|node| is_on(&node))).ok_or("no such pod is on this contract")?;
        match resale::barred(contract, self.0.serving().get(contract), &pod) {
            Some(why) => Err(why),
            None => Ok(pod),
        }
    }

    /// The consumer that has the images of a twin which runs elsewhere, with the contract and uid by which it knows it; `None` for an own pod.
    fn consumer(&self, pod: &Pod) -> Result<Option<(NodeId, String, String)>, String> {
        let (Some(contract), Some(origin)) = (pod.labels().get(names::LABEL_CONTRACT), Origin::of(pod)) else {
            return Ok(None);
        };
        let found = self.0.contracts.get(names::NAMESPACE, contract).ok_or("the contract of the pod is gone")?;
        let deal = Deal::of(&found, &self.0.speakers)?;
        Ok((deal.seller == self.0.id()).then(|| (deal.buyer, contract.clone(), origin.uid)))
    }

    fn store(&self) -> Result<&ImageStore, String> {
        self.0.images.as_ref().ok_or_else(|| "this node gives no images".to_owned())
    }

    async fn image(&self, provider: NodeId, request: &ImageRequest) -> Result<Digest, String> {
        let pod = self.pod(provider, &request.contract, &request.uid)?;
        if !images(&pod).contains(&normal(&request.reference)?) {
            return Err("the pod does not name this image".into());
        }
        if let Some((consumer, contract, uid)) = self.consumer(&pod)? {
            let request = ImageRequest { contract, uid, reference: request.reference.clone() };
            let answer = self.0.links.request::<_, ImageAnswer>(&consumer, IMAGE, &request, ANSWER_TIMEOUT).await;
            return answer.map(|answer| answer.digest).map_err(|error| error.to_string());
        }
        self.held(&pod, &parse(&request.reference)?).await.map(|image| image.digest)
    }

    /// An image of this node for one of its pods: as here, a private one only for a pod whose pull secrets its registry has admitted.
    async fn held(&self, pod: &Pod, reference: &Reference) -> Result<Image, String> {
        let asked = substrate_kubelet::pod::image::caller(&self.0.client, pod, reference, None).await;
        let (caller, _) = asked.map_err(|error| error.to_string())?;
        match self.store()?.find_for(reference, &caller).await.map_err(|error| error.to_string())? {
            Found::Here(image) => Ok(*image),
            Found::Barred => {
                Err(format!("image {reference} is here, and the pod has no credential that was admitted to it"))
            }
            Found::Absent => Err(Error::NoImage(reference.to_string()).to_string()),
        }
    }

    /// Opens a blob of one of the pod's images.
    async fn blob(&self, provider: NodeId, header: &BlobHeader) -> Result<(u64, Source), String> {
        let pod = self.pod(provider, &header.contract, &header.uid)?;
        if let Some((consumer, contract, uid)) = self.consumer(&pod)? {
            let header = BlobHeader { contract, uid, digest: header.digest.clone() };
            let (size, bytes) = ask(&self.0, consumer, &header, BLOB_SIZE_MAX).await?;
            return Ok((size, Source::Consumer(bytes)));
        }
        let store = self.store()?;
        for reference in images(&pod) {
            let Ok(image) = self.held(&pod, &parse(&reference)?).await else { continue };
            let Ok(blobs) = store.blobs_of_image(&image).await else { continue };
            if let Some(blob) = blobs.iter().find(|blob| blob.digest == header.digest) {
                let file = store.open_blob(&blob.digest).await.map_err(|error| error.to_string())?;
                return Ok((blob.size, Source::Store(file)));
            }
        }
        Err("no image of the pod has this blob".into())
    }
}

/// Where the bytes of a blob come from.
enum Source {
    Store(tokio::fs::File),
    /// The consumer of a twin that this node does not run.
    Consumer(Patient),
}

/// Asks a consumer for a blob: how long it is, at most `size_max`, and its bytes.
async fn ask(shared: &Shared, consumer: NodeId, header: &BlobHeader, size_max: u64) -> Result<(u64, Patient), String> {
    let mut stream = shared.links.open(&consumer, BLOB, header).await.map_err(|error| error.to_string())?;
    let answering = frames::read::<BlobAnswer>(&mut stream, "blob", 16 * 1024);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answering).await.map_err(|_| "no answer".to_owned())?;
    match answer.map_err(|error| error.to_string())? {
        BlobAnswer::Size(size) if size <= size_max => Ok((size, Patient::new(stream))),
        BlobAnswer::Size(size) => Err(format!("has {size} bytes, at most {size_max}")),
        BlobAnswer::Refused(why) => Err(frames::cut(&why, 512)),
    }
}

fn images(pod: &Pod) -> BTreeSet<String> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.filter_map(|container| normal(container.image.as_deref()?).ok()).collect()
}

fn parse(reference: &str) -> Result<Reference, String> {
    reference.parse().map_err(|error: engine_images::InvalidReference| error.to_string())
}

fn normal(reference: &str) -> Result<String, String> {
    parse(reference).map(|reference| reference.to_string())
}

#[async_trait]
impl RequestHandler for Shelf {
    async fn request(&self, peer: &PeerInfo, request: Value) -> Result<Value, RequestRefusal> {
        let refused = |why: String| RequestRefusal::new("image", why);
        let request: ImageRequest = serde_json::from_value(request).map_err(|error| refused(error.to_string()))?;
        let digest = self.image(peer.id, &request).await.map_err(refused)?;
        serde_json::to_value(ImageAnswer { digest }).map_err(|error| refused(error.to_string()))
    }
}

#[async_trait]
impl Handler for Shelf {
    async fn stream(&self, peer: &PeerInfo, header: Value, mut stream: LinkStream) {
        let opened = match serde_json::from_value::<BlobHeader>(header) {
            Ok(header) => self.blob(peer.id, &header).await,
            Err(error) => Err(error.to_string()),
        };
        let sent = match opened {
            Ok((size, source)) => {
                async {
                    frames::write(&mut stream, "blob", &BlobAnswer::Size(size)).await?;
                    let copied = match source {
                        Source::Store(mut file) => tokio::io::copy(&mut file, &mut stream).await,
                        Source::Consumer(bytes) => tokio::io::copy(&mut bytes.take(size), &mut stream).await,
                    };
                    match copied.map_err(crate::Error::stream("blob"))? {
                        copied if copied == size => Ok(()),
                        _ => Err(crate::Error::stream("blob")(std::io::ErrorKind::UnexpectedEof.into())),
                    }
                }
                .await
            }
            Err(why) => frames::write(&mut stream, "blob", &BlobAnswer::Refused(why)).await,
        };
        if let Err(error) = sent {
            tracing::debug!(peer = %peer.id, %error, "a blob was not sent");
            return stream.abandon();
        }
        let _ = stream.shutdown().await;
        // The peer closes its direction when it has all: until then nothing must be thrown away.
        let mut rest = [0; 64];
        let _ = tokio::time::timeout(STALL_TIMEOUT, stream.read(&mut rest)).await;
    }
}

/// A source of the kubelet: the consumer of a twin.
pub(crate) struct PeerImages(pub Arc<Shared>);

#[async_trait]
impl ImageSource for PeerImages {
    fn name(&self) -> &str {
        "the owner of the pod"
    }

    async fn fetch(
        &self,
        reference: &Reference,
        pod: &Pod,
        caller: &Caller,
        store: &ImageStore,
    ) -> Result<bool, Error> {
        let (Some(contract), Some(origin)) = (pod.labels().get(names::LABEL_CONTRACT), Origin::of(pod)) else {
            return Ok(false);
        };
        let failed = |why: String| Error::Source { source_name: self.name().to_owned(), why };
        let found = self
            .0
            .contracts
            .get(names::NAMESPACE, contract)
            .ok_or_else(|| failed(format!("contract {contract} is gone")))?;
        let consumer = Deal::of(&found, &self.0.speakers).map_err(&failed)?.buyer;
        let request =
            ImageRequest { contract: contract.clone(), uid: origin.uid.clone(), reference: reference.to_string() };
        let answer: ImageAnswer = self
            .0
            .links
            .request(&consumer, IMAGE, &request, ANSWER_TIMEOUT)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if reference.digest().is_some_and(|wanted| *wanted != answer.digest) {
            return Err(failed(format!("it gives {} for {reference}", answer.digest)));
        }
        let header = |digest: &Digest| BlobHeader {
            contract: contract.clone(),
            uid: origin.uid.clone(),
            digest: digest.clone(),
        };
        let manifest = self.manifest(consumer, &header(&answer.digest)).await?;
        // Its owner brings it: nobody is admitted but the owner.
        let incoming = store.incoming(reference, &manifest, caller, Admitted::Everybody).await?;
        for blob in incoming.needed() {
            let mut tries = 0;
            loop {
                tries += 1;
                match incoming.take(blob, self.blob(consumer, &header(&blob.digest), blob.size)).await {
                    Err(error) if tries < TRIES_MAX => {
                        tracing::info!(digest = %blob.digest, %error, "a blob is asked for again")
                    }
                    other => break other?,
                }
            }
        }
        incoming.finish().await?;
        Ok(true)
    }
}

impl PeerImages {
    /// A manifest, whole and verified.
    async fn manifest(&self, consumer: NodeId, header: &BlobHeader) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let from = self.blob(consumer, header, MANIFEST_BYTES_MAX).await?;
        from.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).await.map_err(|error| self.failed(header, error))?;
        match Digest::of(&bytes) {
            observed if observed == header.digest => Ok(bytes),
            observed => Err(Error::Corrupt { wanted: header.digest.clone(), observed }),
        }
    }

    /// The bytes of one blob, which has at most `size_max`.
    async fn blob(
        &self,
        consumer: NodeId,
        header: &BlobHeader,
        size_max: u64,
    ) -> Result<tokio::io::Take<Patient>, Error> {
        let asked = ask(&self.0, consumer, header, size_max).await;
        asked.map(|(size, bytes)| bytes.take(size)).map_err(|why| self.failed(header, why))
    }

    fn failed(&self, header: &BlobHeader, why: impl std::fmt::Display) -> Error {
        Error::Source { source_name: self.name().to_owned(), why: format!("{}: {why}", header.digest) }
    }
}

/// A stream that fails when nothing comes for too long.
struct Patient {
    stream: LinkStream,
    stall: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl Patient {
    fn new(stream: LinkStream) -> Self {
        Self { stream, stall: Box::pin(tokio::time::sleep(STALL_TIMEOUT)) }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => match self.stall.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
            ready => {
                self.stall.as_mut().reset(tokio::time::Instant::now() + STALL_TIMEOUT);
                ready
            }
        }
    }
}

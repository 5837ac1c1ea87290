//! Images of this machine's own store for containerd: it gets the blobs over its own services, under the digest, so that what is asked of
//! the store (who may have an image, from where it comes) holds for containerd's containers, and no name of anybody's is changed.
//!
//! ```text
//! lease ─▶ blobs (verified by their digest) ─▶ image NAME@DIGEST ─▶ CRI knows it by the digest of its configuration ─▶ lease ends
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::grpc::{Client, Failure, code, framed};
use crate::messages as cri;

/// An answer to something small.
const SHORT: Duration = Duration::from_secs(30);
/// CRI hears of a new image from containerd's events.
const HEARD: Duration = Duration::from_secs(10);
/// A manifest has some kilobytes.
const MANIFEST_MAX: u64 = 4 << 20;
/// containerd takes messages of 16 MiB; this is read from a disk at once.
const PIECE: usize = 1 << 20;
/// A lease that nobody ended, ends: the largest images take minutes.
const LEASE_HOURS: i64 = 24;

/// `WriteAction`.
const WRITE: i32 = 1;
const COMMIT: i32 = 2;

/// An image in a store of blobs (`BLOBS/sha256/HEX`).
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// What it is called, for people.
    pub name: &'a str,
    /// The digest of its manifest.
    pub digest: &'a str,
    /// Where the blobs are.
    pub blobs: &'a Path,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    config: Part,
    layers: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    digest: String,
}

/// What was brought to containerd and is to go from there once nobody needs it.
#[derive(Debug)]
pub(crate) struct Images {
    /// A file for each, named by the hexadecimal digits of its manifest: name, configuration and place of the blobs, line by line.
    dir: PathBuf,
    /// One image is brought at a time: of pods that want the same, the second finds it.
    bringing: Mutex<()>,
}

impl Images {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, bringing: Mutex::default() }
    }

    /// The runtime's name of the image, which it has now.
    pub async fn bring(&self, client: &Client, wanted: &Wanted<'_>) -> Result<String, String> {
        let _one = self.bringing.lock().await;
        let hex = hex(wanted.digest)?;
        let bytes = read(&wanted.blobs.join("sha256").join(hex), MANIFEST_MAX).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| format!("image {}: its manifest cannot be read: {e}", wanted.name))?;
        let config = manifest.config.digest.clone();
        if known(client, &config).await.map_err(|e| e.why)?.is_some() {
            return Ok(config);
        }
        let name = format!("{}@{}", repository(wanted.name), wanted.digest);
        let record = format!("{name}\n{config}\n{}\n", wanted.blobs.display());
        let path = self.dir.join(hex);
        let told = engine_host::files::write_durably(&path, record.as_bytes(), 0o600);
        told.map_err(|e| format!("write {}: {e}", path.display()))?;
        let failed = |e: Failure| format!("image {}: the container runtime does not take it: {}", wanted.name, e.why);
        let lease = format!("import-{hex}");
        lease_begin(client, &lease).await.map_err(failed)?;
        let brought = self.pour_all(client, wanted, &manifest, &lease, &name, bytes.len()).await;
        let ended = cri::Lease { id: lease, labels: cri::Map::new() };
        let ended = client.call::<cri::Empty>("/containerd.services.leases.v1.Leases/Delete", &ended, SHORT).await;
        brought?;
        ended.map_err(failed)?;
        let deadline = tokio::time::Instant::now() + HEARD;
        while known(client, &config).await.map_err(failed)?.is_none() {
            if tokio::time::Instant::now() > deadline {
                let seconds = HEARD.as_secs();
                return Err(format!(
                    "image {}: containerd has it and CRI does not know of it after {seconds} s",
                    wanted.name
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(config)
    }

    async fn pour_all(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        manifest: &Manifest,
        lease: &str,
        name: &str,
        size: usize,
    ) -> Result<(), String> {
        let parts =
            manifest.layers.iter().chain([&manifest.config]).map(|part| (part.digest.as_str(), cri::Map::new()));
        // What holds a manifest holds what it refers to.
        let mut refers = crate::plan::labels([("containerd.io/gc.ref.content.config", &manifest.config.digest)]);
        for (n, layer) in manifest.layers.iter().enumerate() {
            refers.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.clone());
        }
        for (digest, labels) in parts.chain([(wanted.digest, refers)]) {
            pour(client, wanted.blobs, digest, labels, lease).await?;
        }
        let media_type = match manifest.media_type.as_str() {
            "" => "application/vnd.oci.image.manifest.v1+json",
            said => said,
        };
        let target = cri::Descriptor {
            media_type: media_type.to_owned(),
            digest: wanted.digest.to_owned(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        };
        let image = cri::Image { name: name.to_owned(), labels: cri::Map::new(), target: Some(target) };
        let request = cri::CreateImageRequest { image: Some(image) };
        let method = "/containerd.services.images.v1.Images/Create";
        match client.call_under::<cri::Empty>(method, &request, Some(lease), SHORT).await {
            Err(e) if e.code != code::ALREADY_EXISTS => Err(format!("image {name}: {}", e.why)),
            _ => Ok(()),
        }
    }

    /// Takes images from containerd that the store has no more and no container stands on; others stay, whoever brought them.
    pub async fn collect(&self, client: &Client) -> Result<(), String> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) => return Err(format!("list {}: {e}", self.dir.display())),
        };
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let mut lines = text.lines();
            let (Some(name), Some(config), Some(blobs)) = (lines.next(), lines.next(), lines.next()) else { continue };
            let manifest = Path::new(blobs).join("sha256").join(entry.file_name());
            if manifest.exists() || self.let_go(client, name, config).await.is_err() {
                continue; // tried again when the next pod goes
            }
            let _ = std::fs::remove_file(entry.path()); // else it is looked for again, and not found
        }
        Ok(())
    }

    /// Takes from containerd all that was brought.
    pub async fn collect_all(&self, client: &Client) -> Result<(), Failure> {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let mut lines = text.lines();
            let (Some(name), Some(config)) = (lines.next(), lines.next()) else { continue };
            self.let_go(client, name, config).await?;
        }
        Ok(())
    }

    async fn let_go(&self, client: &Client, name: &str, config: &str) -> Result<(), Failure> {
        let all = cri::ListContainersRequest::default();
        let all: cri::ListContainersResponse =
            client.call("/runtime.v1.RuntimeService/ListContainers", &all, SHORT).await?;
        if all.containers.iter().any(|container| container.image_ref == config) {
            return Err(Failure::new(code::UNKNOWN, "a container stands on it"));
        }
        let Some(known) = known(client, config).await? else { return Ok(()) };
        // Removed by CRI an image goes with all its names; only ours is ours.
        let is_ours = known.tags.is_empty() && known.digests.iter().all(|digest| digest == name);
        let removed: Result<cri::Empty, Failure> = match is_ours {
            true => {
                let image = Some(cri::ImageSpec { image: config.to_owned() });
                client.call("/runtime.v1.ImageService/RemoveImage", &cri::ImageRequest { image }, SHORT).await
            }
            false => {
                let request = cri::DeleteImageRequest { name: name.to_owned() };
                client.call("/containerd.services.images.v1.Images/Delete", &request, SHORT).await
            }
        };
        match removed {
            Err(e) if e.code != code::NOT_FOUND => Err(e),
            _ => Ok(()),
        }
    }
}

/// What CRI knows of an image, by the digest of its configuration.
async fn known(client: &Client, config: &str) -> Result<Option<cri::KnownImage>, Failure> {
    let request = cri::ImageRequest { image: Some(cri::ImageSpec { image: config.to_owned() }) };
    let answer: cri::ImageStatusResponse = client.call("/runtime.v1.ImageService/ImageStatus", &request, SHORT).await?;
    Ok(answer.image)
}

async fn lease_begin(client: &Client, id: &str) -> Result<(), Failure> {
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(LEASE_HOURS);
    let labels = crate::plan::labels([("containerd.io/gc.expire", &format!("{expires:.0}"))]);
    let request = cri::Lease { id: id.to_owned(), labels };
    let begun = client.call::<cri::Empty>("/containerd.services.leases.v1.Leases/Create", &request, SHORT).await;
    match begun {
        Err(e) if e.code != code::ALREADY_EXISTS => Err(e),
        _ => Ok(()),
    }
}

/// Brings one blob; containerd verifies it. One that it has is fine.
async fn pour(client: &Client, blobs: &Path, digest: &str, labels: cri::Map, lease: &str) -> Result<(), String> {
    let path = blobs.join("sha256").join(hex(digest)?);
    let open = |e: std::io::Error| format!("open {}: {e}", path.display());
    let mut file = tokio::fs::File::open(&path).await.map_err(open)?;
    let total = i64::try_from(file.metadata().await.map_err(open)?.len()).unwrap_or(i64::MAX);
    let (send, receive) = mpsc::channel::<Bytes>(2);
    let (name, expected) = (format!("{lease}-{digest}"), digest.to_owned());
    let reading = tokio::spawn(async move {
        let part = |action, offset, data, labels| {
            let (name, expected) = (name.clone(), expected.clone());
            framed(&cri::WriteContentRequest { action, name, total, expected, offset, data, labels })
        };
        let mut offset = 0;
        loop {
            let mut data = vec![0; PIECE];
            let n = file.read(&mut data).await?;
            let last = n == 0;
            data.truncate(n);
            let message = match last {
                true => part(COMMIT, offset, data, labels.clone()),
                false => part(WRITE, offset, data, cri::Map::new()),
            };
            if send.send(message).await.is_err() || last {
                return std::io::Result::Ok(()); // containerd has heard enough, or all
            }
            offset += i64::try_from(n).unwrap_or(i64::MAX);
        }
    });
    let poured =
        client.pour("/containerd.services.content.v1.Content/Write", ReceiverStream::new(receive), lease).await;
    match reading.await {
        Ok(Err(e)) => return Err(format!("read {}: {e}", path.display())),
        Err(e) => return Err(format!("read {}: {e}", path.display())),
        Ok(Ok(())) => {}
    }
    match poured {
        Err(e) if e.code != code::ALREADY_EXISTS => {
            Err(format!("blob {digest}: containerd does not take it: {}", e.why))
        }
        _ => Ok(()),
    }
}

async fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("read {}: {e}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

/// The hexadecimal digits of a digest, which are a file's name.
fn hex(digest: &str) -> Result<&str, String> {
    let hex =
        digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.ok_or_else(|| format!("digest {digest:?}: needed sha256: and 64 hexadecimal digits"))
}

/// A name without its tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_tags() {
        for (name, expected) in [
            ("docker.io/library/busybox:1", "docker.io/library/busybox"),
            ("registry.local:5000/a", "registry.local:5000/a"),
            ("registry.local:5000/a:1@sha256:00", "registry.local:5000/a"),
        ] {
            assert_eq!(repository(name), expected);
        }
        assert!(hex("sha256:../../../etc/passwd").is_err());
    }
}

//! Reads images out of a directory or an archive in one pass, without unpacking it anywhere.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/…       OCI image layout, as directory, tar, tar.gz or tar.zst
//! manifest.json, CONFIG.json, LAYER/layer.tar  docker save, tar, tar.gz or tar.zst
//! ```
//!
//! Blobs of a layout are verified against their names; parts of a Docker archive have none, so they get the
//! digest of their bytes and an OCI manifest is written for them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tar::EntryType;

use super::blobs::{BLOB_SIZE_MAX, Blobs};
use super::config::{DOCUMENT_SIZE_MAX, Descriptor, Index, LAYERS_MAX, Manifest, architecture};
use super::inflate::inflated;
use super::metered::each_entry;
use super::{Digest, Error, Progress, Reference};

/// Files in an archive: 100 layers of one image are 103 files; archives of a hundred images are rare.
const ENTRIES_MAX: usize = 20_000;
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What an archive holds besides blobs.
#[derive(Default)]
struct Contents {
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    /// Path in a Docker archive → what it turned out to be.
    parts: HashMap<PathBuf, Digest>,
    /// Symbolic links in a Docker archive: repeated layers.
    links: HashMap<PathBuf, PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// Puts the blobs of `file` into `blobs` and answers the names with their manifests.
pub(super) fn load(
    blobs: &Blobs,
    file: &Path,
    hint: Option<Reference>,
    progress: &dyn Progress,
) -> Result<Vec<(Reference, Digest)>, Error> {
    let what = file.display().to_string();
    let contents =
        if file.is_dir() { read_dir(blobs, file, progress)? } else { read_tar(blobs, file, &what, progress)? };
    let docker: Option<Vec<DockerImage>> = match &contents.docker {
        Some(bytes) => Some(
            serde_json::from_slice(bytes)
                .map_err(|e| Error::invalid(format!("{what}: manifest.json"), format!("is not docker save's: {e}")))?,
        ),
        None => None,
    };
    let found = match (&contents.index, docker) {
        (Some(index), docker) => from_layout(blobs, &what, index, docker.as_deref(), hint)?,
        (None, Some(docker)) => from_docker(blobs, &what, &contents, &docker, hint)?,
        (None, None) => {
            return Err(Error::invalid(what, "holds neither index.json (OCI) nor manifest.json (docker save)"));
        }
    };
    if found.is_empty() {
        return Err(Error::invalid(what, "names no image; give it a name"));
    }
    Ok(found)
}

fn read_dir(blobs: &Blobs, dir: &Path, progress: &dyn Progress) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let index = dir.join("index.json");
    let file = File::open(&index).map_err(Error::io("read", &index))?;
    contents.index = Some(document("index.json", file)?);
    let folder = dir.join("blobs/sha256");
    for entry in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
        let path = entry.map_err(Error::io("list", &folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        if !blobs.has(&digest) {
            let from = File::open(&path).map_err(Error::io("read", &path))?;
            let size = from.metadata().map_err(Error::io("read", &path))?.len();
            progress.expects(1, size);
            blobs.write(Told { from, progress, what: name, read: 0, size }, Some(&digest), BLOB_SIZE_MAX)?;
        }
    }
    Ok(contents)
}

fn read_tar(blobs: &Blobs, file: &Path, what: &str, progress: &dyn Progress) -> Result<Contents, Error> {
    let opened = File::open(file).map_err(Error::io("open", file))?;
    let size = opened.metadata().map_err(Error::io("read", file))?.len();
    progress.expects(1, size);
    let reader = inflated(Told { from: opened, progress, what, read: 0, size }).map_err(Error::io("read", file))?;
    let failed = |e: io::Error| Error::invalid(what, format!("cannot be read as a tar: {e}"));
    let mut contents = Contents::default();
    let mut files = 0;
    each_entry(reader, failed, |entry| {
        files += 1;
        if files > ENTRIES_MAX {
            return Err(Error::invalid(what, format!("has more than {ENTRIES_MAX} files")));
        }
        let path = engine_host::rooted::normal(&entry.path().map_err(failed)?).map_err(failed)?;
        match entry.header().entry_type() {
            EntryType::Regular => take(blobs, &mut contents, path, entry)?,
            EntryType::Symlink | EntryType::Link => {
                if let Some(to) = entry.link_name().map_err(failed)? {
                    contents.links.insert(path, to.into_owned());
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(contents)
}

/// Tells how much of a file has been read.
struct Told<'a> {
    from: File,
    progress: &'a dyn Progress,
    what: &'a str,
    read: u64,
    size: u64,
}

impl Read for Told<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.read += read as u64;
        self.progress.moved(self.what, self.read, self.size);
        Ok(read)
    }
}

fn take(blobs: &Blobs, contents: &mut Contents, path: PathBuf, mut from: impl Read) -> Result<(), Error> {
    match path.to_str() {
        Some("index.json") => contents.index = Some(document("index.json", from)?),
        Some("manifest.json") => contents.docker = Some(document("manifest.json", from)?),
        Some("oci-layout" | "repositories") => {}
        Some(text) => {
            let named =
                text.strip_prefix("blobs/sha256/").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            match named {
                Some(digest) if blobs.has(&digest) => {
                    io::copy(&mut from, &mut io::sink()).map_err(Error::io("read", &path))?;
                    contents.parts.insert(path, digest);
                }
                wanted => {
                    let (digest, _) = blobs.write(from, wanted.as_ref(), BLOB_SIZE_MAX)?;
                    contents.parts.insert(path, digest);
                }
            }
        }
        None => {}
    }
    Ok(())
}

fn from_layout(
    blobs: &Blobs,
    what: &str,
    index: &[u8],
    docker: Option<&[DockerImage]>,
    hint: Option<Reference>,
) -> Result<Vec<(Reference, Digest)>, Error> {
    let index: Index = serde_json::from_slice(index)
        .map_err(|e| Error::invalid(format!("{what}: index.json"), format!("is no OCI index: {e}")))?;
    let mut found = Vec::new();
    for descriptor in index.manifests.iter().filter(|d| d.fits()) {
        let names = names_of(descriptor, docker, &hint)?;
        if names.is_empty() {
            continue;
        }
        let digest = manifest_for_this_machine(blobs, what, descriptor)?;
        found.extend(names.into_iter().map(|name| (name, digest.clone())));
    }
    Ok(found)
}

/// containerd's annotation holds the whole name; OCI's may be a whole name or just a tag.
fn names_of(d: &Descriptor, docker: Option<&[DockerImage]>, hint: &Option<Reference>) -> Result<Vec<Reference>, Error> {
    if let Some(hint) = hint {
        return Ok(vec![hint.clone()]);
    }
    if let Some(full) = d.annotations.get(CONTAINERD_NAME) {
        return Ok(vec![full.parse()?]);
    }
    if let Some(name) = d.annotations.get(OCI_NAME).filter(|n| n.contains(['/', ':'])) {
        return Ok(vec![name.parse()?]);
    }
    match docker {
        Some([only]) => only.repo_tags.iter().flatten().map(|t| Ok(t.parse()?)).collect(),
        _ => match d.annotations.get(OCI_NAME) {
            Some(name) => Ok(vec![name.parse()?]),
            None => Ok(Vec::new()),
        },
    }
}

fn from_docker(
    blobs: &Blobs,
    what: &str,
    contents: &Contents,
    images: &[DockerImage],
    hint: Option<Reference>,
) -> Result<Vec<(Reference, Digest)>, Error> {
    let mut found = Vec::new();
    for image in images {
        if image.layers.len() > LAYERS_MAX {
            return Err(Error::invalid(what, format!("has {} layers, at most {LAYERS_MAX}", image.layers.len())));
        }
        let config = describe(blobs, contents, what, &image.config, "application/vnd.oci.image.config.v1+json")?;
        let layers = image
            .layers
            .iter()
            .map(|path| describe(blobs, contents, what, path, "application/vnd.oci.image.layer.v1.tar"))
            .collect::<Result<_, _>>()?;
        let media_type = Some("application/vnd.oci.image.manifest.v1+json".to_owned());
        let manifest = Manifest { schema_version: 2, media_type, config, layers };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::invalid(what, e.to_string()))?;
        let (digest, _) = blobs.write(bytes.as_slice(), None, DOCUMENT_SIZE_MAX)?;
        let names: Vec<Reference> = match &hint {
            Some(hint) => vec![hint.clone()],
            None => image.repo_tags.iter().flatten().map(|t| t.parse()).collect::<Result<_, _>>()?,
        };
        found.extend(names.into_iter().map(|name| (name, digest.clone())));
    }
    Ok(found)
}

fn describe(
    blobs: &Blobs,
    contents: &Contents,
    what: &str,
    path: &Path,
    media_type: &str,
) -> Result<Descriptor, Error> {
    let digest = contents
        .parts
        .get(path)
        .or_else(|| {
            // docker save links a repeated layer as ../OTHER/layer.tar; only the last two components say which.
            let to = contents.links.get(path)?;
            let relative: PathBuf = to.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
            contents.parts.get(&relative)
        })
        .ok_or_else(|| Error::invalid(what, format!("manifest.json names {}, which is missing", path.display())))?;
    let size = blobs.size(digest)?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size,
        platform: None,
        annotations: BTreeMap::new(),
    })
}

/// The manifest for this machine that `descriptor` leads to, through at most two levels of index.
fn manifest_for_this_machine(blobs: &Blobs, what: &str, descriptor: &Descriptor) -> Result<Digest, Error> {
    let mut at = descriptor.clone();
    for _ in 0..3 {
        if !at.is_index() {
            Manifest::parse(what, &blobs.read(&at.digest, DOCUMENT_SIZE_MAX)?)?;
            return Ok(at.digest);
        }
        let index: Index = serde_json::from_slice(&blobs.read(&at.digest, DOCUMENT_SIZE_MAX)?)
            .map_err(|e| Error::invalid(what, format!("is no index: {e}")))?;
        at = index
            .manifests
            .into_iter()
            .filter(Descriptor::fits)
            .min_by_key(Descriptor::rank)
            .ok_or_else(|| Error::invalid(what, format!("has no manifest for linux/{}", architecture())))?;
    }
    Err(Error::invalid(what, "nests more than two indexes"))
}

fn document(what: &str, from: impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    from.take(DOCUMENT_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("read", what))?;
    match bytes.len() as u64 > DOCUMENT_SIZE_MAX {
        true => Err(Error::TooLarge { what: what.to_owned(), max: DOCUMENT_SIZE_MAX }),
        false => Ok(bytes),
    }
}

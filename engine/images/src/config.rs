//! What of an image's manifest and configuration a container needs (OCI image specification 1.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, Error, Reference};

/// Manifests and configurations are a few KiB; registries refuse manifests above 4 MiB, and so do we.
pub(crate) const DOCUMENT_SIZE_MAX: u64 = 4 << 20;
/// overlayfs takes its options in one page: 100 lower directories at 33 bytes each leave 800 for the paths of the upper one.
pub(crate) const LAYERS_MAX: usize = 100;

/// An image in the store, ready to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name it was found under.
    pub reference: Reference,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The one architecture that it is for; empty if it does not say.
    pub architecture: String,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Manifest, configuration and layers in bytes, as stored.
    pub size_bytes: u64,
}

impl Image {
    /// What a container status calls `imageID`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.reference.repository(), self.digest)
    }
}

/// How an image wants to be run (`config` of the OCI image configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User or uid, and optionally `:` group or gid.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Default arguments (or the program, without an entry point).
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Which signal asks it to stop.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    pub manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<ImageConfig>,
}

impl Manifest {
    /// Parses a manifest and checks its bounds; an index is an error here.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(what, format!("is no image manifest (schema version 2): {e}")))?;
        if manifest.schema_version != 2 {
            return Err(Error::invalid(what, format!("has schema version {}, needed 2", manifest.schema_version)));
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(Error::invalid(what, format!("has {} layers, at most {LAYERS_MAX}", manifest.layers.len())));
        }
        Ok(manifest)
    }

    /// Every blob it names.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// What a layer of bare WebAssembly is called in the directory that it becomes.
pub(crate) const WASM_FILE: &str = "module.wasm";
/// Layers that are bare WebAssembly: as the CNCF's "Wasm OCI Artifact layout" has it, and an older name.
const WASM_LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

/// Whether it is for WebAssembly, which runs on any machine (where a runtime for it is).
fn is_wasm(os: &str, architecture: &str) -> bool {
    ["wasi", "wasip1", "wasip2"].contains(&os) && ["wasm", "wasm32"].contains(&architecture)
}

impl ConfigFile {
    /// How its image is run, and for which architecture it is. What names no program and has one layer of bare WebAssembly is that.
    pub fn read(self, reference: &Reference, layers: &[Descriptor]) -> Result<(String, ImageConfig), Error> {
        let is_bare = matches!(layers, [only] if WASM_LAYERS.contains(&only.media_type.as_str()));
        let mut config = self.config.unwrap_or_default();
        if is_bare && config.entrypoint.is_empty() {
            config.entrypoint = vec![format!("/{WASM_FILE}")];
        }
        let fits = |have: &str, need: &str| have.is_empty() || have == need;
        match (self.os.as_str(), self.architecture.as_str()) {
            (os, of) if is_wasm(os, of) => Ok((String::new(), config)),
            (os, of) if fits(os, "linux") && fits(of, architecture()) => Ok((self.architecture, config)),
            (os, of) => {
                let why = format!("is for {os}/{of}, needed linux/{} or wasi/wasm", architecture());
                Err(Error::invalid(reference.to_string(), why))
            }
        }
    }
}

/// This machine in the words of the OCI image specification (those of Go).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Descriptor {
    /// Whether it names an index of manifests.
    pub fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// Whether this machine can run it; one without a platform may be.
    pub fn fits(&self) -> bool {
        let is_native = |p: &Platform| p.os == "linux" && p.architecture == architecture();
        self.platform.as_ref().is_none_or(|p| is_native(p) || is_wasm(&p.os, &p.architecture))
    }

    /// The lower, the sooner it is chosen: programs of this machine's own come before WebAssembly.
    pub fn rank(&self) -> u8 {
        self.platform.as_ref().is_some_and(|p| is_wasm(&p.os, &p.architecture)).into()
    }
}

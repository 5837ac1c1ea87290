//! Images made on the spot: a root file system with a static busybox, packed as an OCI layout.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use engine_images::Digest;
use serde_json::json;

/// Entries of a layer.
pub struct Layer(tar::Builder<Vec<u8>>);

#[allow(clippy::new_without_default)] // a layer of nothing is what `new` says
impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn file(mut self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        raw_path(&mut header, path);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        raw_path(&mut header, path);
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    pub fn link(mut self, path: &str, to: &str, kind: tar::EntryType) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(0);
        raw_path(&mut header, path);
        header.as_gnu_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The tar crate refuses to write hostile paths; a hostile archive does not ask it.
fn raw_path(header: &mut tar::Header, path: &str) {
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
}

/// A layer with busybox under the names that tests use.
pub fn busybox() -> Layer {
    let binary = fs::read("/bin/busybox").expect("apt-get install busybox-static");
    let mut layer =
        Layer::new().dir("bin/", 0o755).dir("tmp/", 0o1777).dir("etc/", 0o755).file("bin/busybox", 0o755, &binary);
    layer = layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/:/bin/sh\n");
    layer = layer.file("etc/group", 0o644, b"root:x:0:\nweb:x:102:\nextra:x:103:web\n");
    for name in "sh sleep echo cat ls rm id true false env hostname kill ps mount tty stty httpd nc touch mkdir dd head tail tr od chmod unshare test trap wget grep ip yes seq stat readlink date mknod".split(' ') {
        layer = layer.link(&format!("bin/{name}"), "busybox", tar::EntryType::Symlink);
    }
    layer
}

/// Writes an OCI layout into `dir`; `layers` are tar bytes.
pub fn layout(dir: &Path, name: &str, config: serde_json::Value, layers: &[Vec<u8>]) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|bytes| {
            let (digest, size) = put(bytes);
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
        })
        .collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config =
        json!({"architecture": arch, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": ids}});
    let (digest, size) = put(config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        "layers": layers,
    });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": name},
    }]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    dir.to_owned()
}

/// Packs a directory as a tar, gzipped or not.
pub fn pack(dir: &Path, to: &Path, gzip: bool) {
    let file = fs::File::create(to).unwrap();
    if gzip {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        tar.append_dir_all("", dir).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
    } else {
        let mut tar = tar::Builder::new(file);
        tar.append_dir_all("", dir).unwrap();
        tar.finish().unwrap();
    }
}

//! The image store against real files: loading, sharing, collecting, and layers written by an enemy.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use engine_images::{Digest, Error, ImageStore, Reference};
use serde_json::json;
use support::{Layer, layout, pack};
use tar::EntryType::{Link, Symlink};
use tempfile::tempdir;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_same_image_loads_from_directory_tar_and_gzip() {
    let dir = tempdir().unwrap();
    let layer = Layer::new().file("a", 0o644, b"1").bytes();
    let source = layout(&dir.path().join("src"), "example/app:1", json!({"Cmd": ["/a"], "Env": null}), &[layer]);
    pack(&source, &dir.path().join("plain.tar"), false);
    pack(&source, &dir.path().join("small.tar.gz"), true);
    for (n, file) in ["src", "plain.tar", "small.tar.gz"].iter().enumerate() {
        let store = ImageStore::open(dir.path().join(format!("store{n}"))).unwrap();
        let loaded = store.load(dir.path().join(file), None).await.unwrap();
        assert_eq!(loaded.len(), 1, "{file}");
        assert_eq!(loaded[0].reference, "docker.io/example/app:1");
        let image = store.find(&reference("example/app:1")).await.unwrap().unwrap();
        assert_eq!(image.config.cmd, ["/a"]);
        let by_digest = reference(&format!("other@{}", image.digest));
        assert!(store.find(&by_digest).await.unwrap().is_some(), "{file}");
        assert_eq!(store.blobs(&reference("example/app:1")).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_docker_archive_loads() {
    let dir = tempdir().unwrap();
    let src = dir.path().join("src");
    std::fs::create_dir_all(src.join("one")).unwrap();
    std::fs::write(src.join("one/layer.tar"), Layer::new().file("a", 0o644, b"1").bytes()).unwrap();
    std::fs::create_dir_all(src.join("two")).unwrap();
    std::os::unix::fs::symlink("../one/layer.tar", src.join("two/layer.tar")).unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    std::fs::write(src.join("c.json"), json!({"architecture": arch, "os": "linux"}).to_string()).unwrap();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["tool:3"], "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    std::fs::write(src.join("manifest.json"), manifest.to_string()).unwrap();
    let file = std::fs::File::create(dir.path().join("saved.tar")).unwrap();
    let mut tar = tar::Builder::new(file);
    tar.follow_symlinks(false);
    tar.append_dir_all("", &src).unwrap();
    tar.finish().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let loaded = store.load(dir.path().join("saved.tar"), None).await.unwrap();
    assert_eq!(loaded[0].reference, "docker.io/library/tool:3");
    let image = store.find(&reference("tool:3")).await.unwrap().unwrap();
    assert_eq!(image.layers.len(), 2);
}

#[tokio::test]
async fn blobs_are_verified_shared_and_collected() {
    let dir = tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let good = Digest::of(b"good");
    let refused = store.write(&good, &b"evil"[..]).await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert!(!store.has(&good));
    store.write(&good, &b"good"[..]).await.unwrap();
    assert!(store.has(&good));

    let shared = Layer::new().file("shared", 0o644, b"s").bytes();
    for name in ["one", "two"] {
        let own = Layer::new().file(name, 0o644, name.as_bytes()).bytes();
        let source = layout(&dir.path().join(name), &format!("{name}:1"), json!({}), &[shared.clone(), own]);
        store.load(source, None).await.unwrap();
    }
    let two = store.find(&reference("two:1")).await.unwrap().unwrap();
    store.unpacked(&two, "flt").await.unwrap();
    assert!(store.remove(&reference("one:1")).await.unwrap());
    assert!(!store.remove(&reference("one:1")).await.unwrap());
    assert!(!store.has(&good), "what no image names is collected");
    assert!(store.has(&Digest::of(&shared)), "what another image needs stays");
    assert_eq!(store.list().await.unwrap().len(), 1);
    // Somebody stands on the layers of the other: they outlive its name, until they are let go.
    let layers = store.unpacked(&two, "flt").await.unwrap();
    store.remove(&reference("two:1")).await.unwrap();
    assert!(layers.iter().all(|l| l.is_dir()) && store.list().await.unwrap().is_empty());
    store.release("flt").await.unwrap();
    store.remove(&reference("two:1")).await.unwrap();
    assert!(!layers.iter().any(|l| l.exists()));
}

#[tokio::test]
async fn a_tag_needs_all_blobs() {
    let dir = tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let missing = Digest::of(b"config");
    let manifest =
        json!({"schemaVersion": 2, "config": {"mediaType": "c", "digest": missing, "size": 6}, "layers": []})
            .to_string();
    let digest = Digest::of(manifest.as_bytes());
    store.write(&digest, manifest.as_bytes()).await.unwrap();
    let refused = store.tag(&reference("x"), &digest).await;
    assert!(matches!(&refused, Err(Error::NoBlob(d)) if *d == missing), "{refused:?}");
}

async fn unpack(dir: &Path, layer: Vec<u8>) -> Result<std::path::PathBuf, Error> {
    let source = layout(&dir.join("src"), "x:1", json!({}), &[layer]);
    let store = ImageStore::open(dir.join("store")).unwrap();
    store.load(source, None).await.unwrap();
    let image = store.find(&reference("x:1")).await.unwrap().unwrap();
    Ok(store.unpacked(&image, "flt").await?.remove(0))
}

#[tokio::test]
async fn whiteouts_become_those_of_overlayfs() {
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .dir("d/", 0o750)
        .file("d/.wh..wh..opq", 0o644, b"")
        .file("d/new", 0o4755, b"new")
        .file(".wh.gone", 0o644, b"")
        .link("hard", "d/new", Link);
    let root = unpack(dir.path(), layer.bytes()).await.unwrap();
    let gone = std::fs::symlink_metadata(root.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(root.join("d").metadata().unwrap().mode() & 0o7777, 0o750);
    assert_eq!(root.join("d/new").metadata().unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(root.join("d/new").metadata().unwrap().ino(), root.join("hard").metadata().unwrap().ino());
}

#[tokio::test]
async fn hostile_layers_cannot_leave_their_directory() {
    let dir = tempdir().unwrap();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, b"untouched").unwrap();
    let outside = dir.path().to_str().unwrap();
    let cases = [
        ("dot dot", Layer::new().file("../../victim", 0o644, b"evil")),
        ("absolute", Layer::new().file(victim.to_str().unwrap(), 0o644, b"evil")),
        ("through a link", Layer::new().link("l", outside, Symlink).file("l/victim", 0o644, b"evil")),
        ("over a link", Layer::new().link("v", victim.to_str().unwrap(), Symlink).file("v", 0o644, b"evil")),
        ("relative link", Layer::new().link("r", "../../..", Symlink).file("r/victim", 0o644, b"evil")),
        ("hard link", Layer::new().link("h", "../../victim", Link).file("h", 0o644, b"evil")),
        ("whiteout", Layer::new().link("w", outside, Symlink).file("w/.wh.victim", 0o644, b"")),
    ];
    for (n, (name, layer)) in cases.into_iter().enumerate() {
        let sub = dir.path().join(n.to_string());
        let result = unpack(&sub, layer.bytes()).await;
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched", "{name}: {result:?}");
        assert!(victim.is_file(), "{name}");
    }
}

#[tokio::test]
async fn archives_that_are_none_are_refused_in_words() {
    let dir = tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("junk"), vec![7; 4096]).unwrap();
    let junk = store.load(dir.path().join("junk"), None).await.unwrap_err();
    assert!(junk.to_string().contains("cannot be read as a tar"), "{junk}");
    std::fs::write(dir.path().join("empty"), Layer::new().file("readme", 0o644, b"hi").bytes()).unwrap();
    let empty = store.load(dir.path().join("empty"), None).await.unwrap_err();
    assert!(empty.to_string().contains("neither index.json"), "{empty}");
    assert!(matches!(store.blobs(&reference("none")).await, Err(Error::NoImage(_))));
}

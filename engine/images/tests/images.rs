//! The image store against real files: loading, sharing, collecting, and layers written by an enemy.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use engine_images::{Digest, Error, ImageStore, Reference};
use serde_json::json;
use support::{Layer, busybox, layout, pack};
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

/// The CNCF's layout of artifacts: a layer that is the module itself, and a configuration that names no program.
#[tokio::test]
async fn bare_webassembly_is_an_image() {
    let dir = tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let source = layout(&dir.path().join("src"), "native:1", json!({"Cmd": ["sh"]}), &[busybox().bytes()]);
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(source.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let layer = put("application/wasm", b"\0asm\x01\0\0\0");
    let config =
        put("application/vnd.wasm.config.v0+json", br#"{"os": "wasip2", "architecture": "wasm", "layerDigests": []}"#);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let mut wasm = put("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    let path = source.join("index.json");
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut native = index["manifests"][0].clone();
    native["platform"] = json!({"os": "linux", "architecture": engine_images::architecture()});
    wasm["platform"] = json!({"os": "wasip2", "architecture": "wasm"});
    for (first, rest, entrypoint, files) in
        [(wasm.clone(), vec![], vec!["/module.wasm"], 1), (wasm, vec![native], vec![], 3)]
    {
        let manifests = [vec![first], rest].concat();
        let both = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        let mut both = put("application/vnd.oci.image.index.v1+json", both.as_bytes());
        both["annotations"] = json!({"org.opencontainers.image.ref.name": "either:1"});
        std::fs::write(&path, json!({"schemaVersion": 2, "manifests": [both]}).to_string()).unwrap();
        store.load(&source, None).await.unwrap();
        let image = store.find(&reference("either:1")).await.unwrap().unwrap();
        assert_eq!(image.config.entrypoint, entrypoint, "this machine's own comes first");
        let root = store.unpacked(&image, "flt").await.unwrap().remove(0);
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), files);
        let module = std::fs::read(root.join("module.wasm"));
        assert_eq!(module.ok(), (files == 1).then(|| b"\0asm\x01\0\0\0".to_vec()));
    }
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

#[tokio::test]
async fn zstd_is_taken_in_layers_and_archives() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let dir = tempdir().unwrap();
    let words = b"words that come again ".repeat(5000);
    let layer = Layer::new().dir("d/", 0o755).file("d/words", 0o644, &words).bytes();
    let small = compress_to_vec(layer.as_slice(), CompressionLevel::Fastest);
    assert!(small.len() < layer.len() / 2);
    let root = unpack(dir.path(), small).await.unwrap();
    assert_eq!(std::fs::read(root.join("d/words")).unwrap(), words);
    let source = layout(&dir.path().join("plain"), "z:1", json!({}), &[layer]);
    pack(&source, &dir.path().join("plain.tar"), false);
    let archive = std::fs::File::open(dir.path().join("plain.tar")).unwrap();
    std::fs::write(dir.path().join("small.tar.zst"), compress_to_vec(archive, CompressionLevel::Fastest)).unwrap();
    let store = ImageStore::open(dir.path().join("other")).unwrap();
    assert_eq!(store.load(dir.path().join("small.tar.zst"), None).await.unwrap()[0].reference, "docker.io/library/z:1");
}

/// A disk of so many MiB, as long as it lives. Needs root.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(path: std::path::PathBuf, mib: u32) -> Self {
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={mib}m");
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-t", "tmpfs", "-o", &size, "flt-images"]).arg(&path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status(); // a test that fails says why
    }
}

/// Bytes that no two images share.
fn own(name: &str) -> Vec<u8> {
    (0..1 << 14).flat_map(|n: u32| Digest::of(format!("{name}{n}").as_bytes()).hex().as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn a_disk_that_is_full_says_so_and_what_nobody_uses_goes() {
    let dir = tempfile::Builder::new().prefix("flt-images-").tempdir().unwrap();
    let disk = Disk::new(dir.path().join("disk"), 12);
    let store = ImageStore::open(&disk.0).unwrap();
    for (name, minutes) in [("stood-on", 60), ("old", 50), ("older", 55), ("new", 0)] {
        let layer = Layer::new().file("f", 0o644, &own(name)).bytes();
        let source = layout(&dir.path().join(name), &format!("{name}:1"), json!({}), &[layer]);
        store.load(source, None).await.unwrap();
        let file = disk.0.join("references").join(Digest::of(format!("docker.io/library/{name}:1").as_bytes()).hex());
        let at = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * minutes);
        std::fs::File::options().append(true).open(file).unwrap().set_modified(at).unwrap();
    }
    let image = store.find(&reference("stood-on:1")).await.unwrap().unwrap();
    store.unpacked(&image, "flt").await.unwrap();
    let names = async || -> Vec<String> {
        let short =
            |listed: engine_images::Listed| listed.reference.trim_start_matches("docker.io/library/").to_owned();
        store.list().await.unwrap().into_iter().map(short).collect()
    };
    let freed = store.evict(512 << 10).await.unwrap();
    assert!(freed >= 512 << 10, "{freed}");
    assert_eq!(names().await, ["new:1", "old:1", "stood-on:1"], "the one that was not used for longest");
    // Who finds an image uses it.
    let caller = engine_images::Caller::default();
    store.find_for(&reference("old:1"), &caller).await.unwrap();
    // What else changes on the disk meanwhile is counted, too: less than an image all the same.
    let freed = store.evict(1 << 40).await.unwrap();
    assert!(freed < 512 << 10, "{freed}");
    assert_eq!(names().await, ["new:1", "old:1", "stood-on:1"], "what is new or stood on stays");

    // A pull that has no room says so before, and in the middle.
    let manifest = |size: u64, layer: &[u8]| {
        json!({"schemaVersion": 2, "config": {"mediaType": "c", "digest": Digest::of(layer), "size": size}, "layers": []}).to_string()
    };
    let (name, admitted) = (reference("large:1"), engine_images::Admitted::Everybody);
    let told =
        store.incoming(&name, manifest(100 << 20, b"x").as_bytes(), &caller, admitted).await.unwrap_err().to_string();
    let path = disk.0.display().to_string();
    assert!(told.starts_with(&path) && told.contains("104857600 bytes are needed and"), "{told}");
    let large = own("large").repeat(2);
    let incoming =
        store.incoming(&name, manifest(large.len() as u64, &large).as_bytes(), &caller, admitted).await.unwrap();
    let free = store.disk().unwrap().available;
    std::fs::write(disk.0.join("filler"), vec![1; usize::try_from(free).unwrap() - (1 << 20)]).unwrap();
    let taken = incoming.take(&incoming.needed()[0], async { Ok(large.as_slice()) }).await;
    assert!(matches!(&taken, Err(Error::NoRoom { needed, .. }) if *needed == large.len() as u64), "{taken:?}");
    assert_eq!(std::fs::read_dir(disk.0.join("tmp")).unwrap().count(), 0, "half of something stays");
}

#[tokio::test]
async fn what_was_not_on_the_disk_when_the_machine_went_down_is_unpacked_anew() {
    let dir = tempdir().unwrap();
    let layer = Layer::new().file("a", 0o644, b"whole").bytes();
    let source = layout(&dir.path().join("src"), "example/app:1", json!({}), &[layer]);
    let root = dir.path().join("store");
    let settling = || std::fs::read_dir(root.join("settling")).unwrap().flatten().next();
    let settled = || {
        let begun = std::time::Instant::now();
        while settling().is_some() {
            assert!(begun.elapsed().as_secs() < 30, "30 s without a sync");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    let unpacked = async |store: &ImageStore| {
        let image = store.find(&reference("example/app:1")).await.unwrap().unwrap();
        store.unpacked(&image, "pod").await.unwrap().remove(0)
    };
    let store = ImageStore::open(&root).unwrap();
    store.load(&source, None).await.unwrap();
    let path = unpacked(&store).await;
    settled();
    let note = root.join("settling").join(path.file_name().unwrap());
    // As power that is cut leaves it: the file has its name, and nothing in it.
    let cut = |boot: &str| {
        std::fs::write(path.join("a"), "").unwrap();
        std::fs::write(&note, boot).unwrap();
        drop(ImageStore::open(&root).unwrap());
    };
    let this = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    cut(&this);
    settled();
    assert_eq!(std::fs::read(path.join("a")).unwrap(), b"", "what this boot has unpacked is what containers stand on");
    cut("another");
    assert!(!path.exists() && !note.exists());
    assert_eq!(std::fs::read(unpacked(&store).await.join("a")).unwrap(), b"whole");
}

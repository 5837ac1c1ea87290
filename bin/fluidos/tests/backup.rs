//! A node is saved while it runs, and made again elsewhere; what is encrypted on its disk; directories that must not be started.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod stage;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use serde_json::json;
use tempfile::TempDir;

use self::stage::fluidos;
use self::stage::node::Node;

const SECRET: &str = "the-combination-is-12345";

fn encryption(home: &Path) -> String {
    let path = home.join("encryption.yaml");
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - aesgcm: {{keys: [{{name: one, secret: {key}}}]}}\n  - identity: {{}}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether these bytes, or what they are in base64, stand in a file or in one of a folder.
fn holds(path: &Path, text: &str) -> bool {
    use base64::Engine as _;
    let coded = base64::prelude::BASE64_STANDARD.encode(text);
    if path.is_dir() {
        return std::fs::read_dir(path).unwrap().any(|entry| holds(&entry.unwrap().path(), text));
    }
    let bytes = std::fs::read(path).unwrap();
    [text, &coded].iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

async fn write(node: &Node, name: &str) -> Result<ConfigMap, kube::Error> {
    let object =
        serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "what": "anybody-may-see-this" } }));
    Api::<ConfigMap>::namespaced(node.client().await, "default").create(&Default::default(), &object.unwrap()).await
}

fn refused(home: &Path, directory: &str, more: &[&str], needed: &str) {
    let up = ["up", "--name", "farm", "--no-agent", "--no-mdns", "--api", "127.0.0.1:0", "--rear", "127.0.0.1:0"];
    let told = fluidos(home, &[&up[..], &["--data-dir", directory], more].concat()).unwrap_err();
    assert!(told.contains(needed), "{needed:?} is not in: {told}");
    let error: Vec<&str> = told.lines().filter(|line| line.starts_with("fluidos: ")).collect();
    assert_eq!(error.len(), 1, "one line: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_saved_while_it_runs_and_made_again() {
    let home = TempDir::with_prefix("flt-backup-").unwrap();
    let home = home.path();
    let encryption = encryption(home);
    let with_key = ["--encryption-config", encryption.as_str()];
    let farm = Node::start(home, "farm", "farm", &with_key);
    let secret = json!({ "metadata": { "name": "safe" }, "stringData": { "word": SECRET } });
    let secrets = Api::<Secret>::namespaced(farm.client().await, "default");
    secrets.create(&Default::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    write(&farm, "before").await.unwrap();

    let writes = async {
        for n in 0..40 {
            write(&farm, &format!("during-{n:02}")).await.unwrap();
        }
    };
    let backup = async {
        let (home, data) = (home.to_owned(), farm.data().to_owned());
        tokio::task::spawn_blocking(move || fluidos(&home, &["backup", "farm.tar", "--data-dir", &data])).await.unwrap()
    };
    let ((), told) = tokio::join!(writes, backup);
    assert!(told.unwrap().contains("whoever has it is the node"));
    let file = home.join("farm.tar");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for path in [&file, &home.join("farm/store")] {
        assert!(holds(path, "anybody-may-see-this"), "{}", path.display());
        assert!(!holds(path, SECRET), "the Secret is there to be read in {}", path.display());
    }
    let newest = write(&farm, "after").await.unwrap().metadata.resource_version.unwrap().parse::<u64>().unwrap();
    let did = farm.did.clone();
    drop(farm);

    // Without the key nothing is made, and nothing starts.
    let restore = ["restore", "farm.tar", "--data-dir", "again"];
    let told = fluidos(home, &restore).unwrap_err();
    assert!(told.contains("is sealed by key \"one\", and the keys given are []"), "{told}");
    assert!(!home.join("again").exists() && !home.join("again.restoring").exists());
    refused(home, "farm", &[], "give the keys (--encryption-config)");

    fluidos(home, &[&restore[..], &with_key].concat()).unwrap();
    let again = Node::start(home, "again", "farm", &with_key);
    assert_eq!(again.did, did, "it is the same node");
    let secrets = Api::<Secret>::namespaced(again.client().await, "default");
    assert_eq!(secrets.get("safe").await.unwrap().data.unwrap()["word"].0, SECRET.as_bytes());
    let names: Vec<String> = Api::<ConfigMap>::namespaced(again.client().await, "default")
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .filter(|name| name.starts_with("during-"))
        .collect();
    let expected: Vec<String> = (0..names.len()).map(|n| format!("during-{n:02}")).collect();
    assert_eq!(names, expected, "what is there is what was written first");
    let maps = Api::<ConfigMap>::namespaced(again.client().await, "default");
    assert!(maps.get("before").await.is_ok() && maps.get("after").await.is_err());
    let next = write(&again, "next").await.unwrap().metadata.resource_version.unwrap().parse::<u64>().unwrap();
    assert!(next > newest, "no version that was seen comes again: {next} after {newest}");
    let told = fluidos(home, &[&restore[..], &with_key].concat()).unwrap_err();
    assert!(told.contains("is not empty, and nothing in it is overwritten"), "{told}");
}

#[test]
fn a_backup_that_is_damaged_or_strange_makes_nothing() {
    let home = TempDir::with_prefix("flt-backup-").unwrap();
    let home = home.path();
    drop(Node::start(home, "farm", "farm", &[]));
    fluidos(home, &["backup", "whole.tar", "--data-dir", "farm"]).unwrap();
    let whole = std::fs::read(home.join("whole.tar")).unwrap();
    let refuse = |bytes: Vec<u8>, needed: &str| {
        std::fs::write(home.join("bad.tar"), bytes).unwrap();
        let told = fluidos(home, &["restore", "bad.tar", "--data-dir", "again"]).unwrap_err();
        assert!(told.contains(needed), "{needed:?} is not in: {told}");
        assert!(!home.join("again").exists() && !home.join("again.restoring").exists());
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    refuse(flipped, "is damaged at byte");
    refuse(whole[..whole.len() / 2].to_vec(), "bad.tar");
    refuse(b"hello".to_vec(), "is no backup");
    // Somebody else's tar: it would write where it likes.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.as_mut_bytes()[..22].copy_from_slice(b"identity/../../escaped");
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    refuse(tar.into_inner().unwrap(), "does not belong into a backup");
    assert!(!home.join("escaped").exists());
}

#[test]
fn a_directory_that_is_newer_damaged_or_of_another_store_is_refused_in_one_line() {
    let home = TempDir::with_prefix("flt-backup-").unwrap();
    let home = home.path();
    drop(Node::start(home, "farm", "farm", &[]));
    let log = home.join("farm/store/0000000001.log");
    let whole = std::fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    std::fs::write(&log, damaged).unwrap();
    refused(home, "farm", &[], "0000000001.log is damaged at byte 53");
    refused(home, "farm", &[], "restore a backup (fluidos restore FILE)");
    std::fs::write(&log, whole).unwrap();
    std::fs::write(home.join("farm/format"), "2\n").unwrap();
    refused(home, "farm", &[], "is of format 2, of a newer version; this one knows format 1: use the newer one");
    std::fs::write(home.join("farm/format"), "1\n").unwrap();
    drop(Node::start(home, "farm", "farm", &[]));
}

//! Registries with and without credentials, over HTTP, and whom an image that is here serves.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/registry.rs"]
mod server;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine_images::{Admitted, Caller, Credential, Digest, Error, Found, ImageStore, Reference, Registry};
use serde_json::json;
use server::{Guard, INDEX, Server};
use tempfile::tempdir;

fn store(dir: &tempfile::TempDir) -> ImageStore {
    ImageStore::open(dir.path().join("store")).unwrap()
}

fn named(text: &str) -> Reference {
    text.parse().unwrap()
}

fn who(user: &str) -> Caller {
    Caller { realm: String::new(), credentials: vec![Credential::new(user, "secret")] }
}

fn realm(name: &str) -> Caller {
    Caller { realm: name.to_owned(), credentials: Vec::new() }
}

/// What a caller finds, in a word.
async fn seen(store: &ImageStore, image: &str, caller: &Caller) -> &'static str {
    match store.find_for(&named(image), caller).await.unwrap() {
        Found::Absent => "absent",
        Found::Barred => "barred",
        Found::Here(_) => "here",
    }
}

/// Loads the image from an OCI layout with what the registry has.
async fn by_hand(store: &ImageStore, server: &Server, image: &str, digest: &Digest, dir: &std::path::Path) {
    let layout = dir.join("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let mut size = 0;
    for (path, (_, bytes)) in &server.content.lock().unwrap().answers {
        if let Some((_, hex)) = path.split_once("sha256:") {
            std::fs::write(layout.join("blobs/sha256").join(hex), bytes).unwrap();
            size = if hex == digest.hex() { bytes.len() } else { size };
        }
    }
    let name = json!({"org.opencontainers.image.ref.name": image});
    let manifest = json!({"mediaType": server::MANIFEST, "digest": digest, "size": size, "annotations": name});
    std::fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    store.load(layout, None).await.unwrap();
}

#[tokio::test]
async fn an_image_through_an_index_and_what_was_promised() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Open));
    let (image, _) = server.put("app", "1", &[b"layer".to_vec(), b"layer".to_vec()]);
    Registry::default().pull(&named(&image), &Caller::default(), &store).await.unwrap();
    assert_eq!(store.find(&named(&image)).await.unwrap().unwrap().config.cmd, ["1"]);
    assert_eq!(server.given().iter().filter(|path| path.contains("/blobs/")).count(), 2, "the same layer once");
    let absent = named(&format!("{}/app:2", server.domain));
    let refused = Registry::default().pull(&absent, &Caller::default(), &store).await.unwrap_err();
    assert!(refused.to_string().contains("manifests/2 of app: 404"), "{refused}");

    // Other bytes, and more bytes, than were promised are not taken, nor is a manifest without end.
    for (layer, sent) in [(b"one".to_vec(), b"eno".to_vec()), (b"two".to_vec(), b"two and more".to_vec())] {
        let (image, _) = server.put("forged", "1", std::slice::from_ref(&layer));
        let path = format!("forged/blobs/{}", Digest::of(&layer));
        server.content.lock().unwrap().answers.get_mut(&path).unwrap().1 = sent;
        let refused = Registry::default().pull(&named(&image), &Caller::default(), &store).await.unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. } | Error::TooLarge { .. }), "{refused}");
        assert_eq!(seen(&store, &image, &Caller::default()).await, "absent");
    }
    let endless = ("forged/manifests/2".to_owned(), (INDEX, vec![b' '; 5 << 20]));
    server.content.lock().unwrap().answers.extend([endless]);
    let refused =
        Registry::default().pull(&named(&format!("{}/forged:2", server.domain)), &Caller::default(), &store).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "half of something stays");
}

#[tokio::test]
async fn credentials_are_tried_in_turn_and_never_told() {
    for guard in [Guard::Basic, Guard::Bearer] {
        let dir = tempdir().unwrap();
        let (store, server) = (store(&dir), Server::start(guard));
        let (image, _) = server.put("ada/app", "1", &[b"layer".to_vec()]);
        let mut caller = who("eve");
        let refused = Registry::default().pull(&named(&image), &caller, &store).await.unwrap_err();
        let told = format!("{refused} {refused:?}");
        assert!(told.contains("401") && !told.contains("secret"), "{told}");
        assert!(!told.contains(&BASE64_STANDARD.encode("eve:secret")), "{told}");
        caller.credentials.push(Credential::new("ada", "secret"));
        Registry::default().pull(&named(&image), &caller, &store).await.unwrap();
        // Without any: what is for everybody, by a token for nobody, too.
        let (free, _) = server.put("public/app", "1", &[b"free".to_vec()]);
        Registry::default().pull(&named(&free), &who("eve"), &store).await.unwrap();
        assert_eq!(seen(&store, &free, &who("eve")).await, "here");
        let kept = std::process::Command::new("grep").args(["-rl", "secret"]).arg(dir.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "a password is on the disk");
    }
}

#[tokio::test]
async fn the_machine_has_credentials_in_a_file() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Basic));
    let (image, _) = server.put("ada/app", "1", &[b"layer".to_vec()]);
    let path = dir.path().join("config.json");
    let config = |user: &str| {
        let auth = BASE64_STANDARD.encode(format!("{user}:secret"));
        json!({"auths": {&server.domain: {"auth": auth}}}).to_string()
    };
    std::fs::write(&path, config("eve")).unwrap();
    let registry = Registry::new(Some(path.clone()));
    registry.pull(&named(&image), &Caller::default(), &store).await.unwrap_err();
    // It is read again, and a guest gets nothing of it.
    std::fs::write(&path, config("ada")).unwrap();
    registry.pull(&named(&image), &realm("guest"), &store).await.unwrap_err();
    registry.pull(&named(&image), &Caller::default(), &store).await.unwrap();
    assert_eq!(seen(&store, &image, &who("eve")).await, "here", "the machine's credentials are for all of its own");
    std::fs::write(&path, "nothing").unwrap();
    let told = registry.pull(&named(&image), &Caller::default(), &store).await.unwrap_err().to_string();
    assert!(told.contains("config.json") && told.contains("is not JSON"), "{told}");
}

#[tokio::test]
async fn a_private_image_serves_whoever_was_admitted() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Basic));
    let (image, digest) = server.put("ada/app", "1", &[b"layer".to_vec()]);
    let by_digest = format!("{}/other@{digest}", server.domain);
    Registry::default().pull(&named(&image), &who("ada"), &store).await.unwrap();
    for (caller, expected) in [
        (who("ada"), "here"),
        (who("eve"), "barred"),
        (Caller::default(), "barred"),
        (realm("guest"), "barred"),
        (Caller { realm: "guest".into(), ..who("ada") }, "barred"),
    ] {
        assert_eq!(seen(&store, &image, &caller).await, expected, "{caller:?}");
        assert_eq!(seen(&store, &by_digest, &caller).await, expected, "{caller:?} by digest");
    }
    // Another store of the same machine and a restart know it, too; what is known is no password.
    assert_eq!(seen(&ImageStore::open(dir.path().join("store")).unwrap(), &image, &who("eve")).await, "barred");
    // Loaded by hand it is everybody's, and stays so when somebody pulls it.
    store.remove(&named(&image)).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("store/access")).unwrap().count(), 1, "only the salt stays");
    Registry::default().pull(&named(&image), &who("ada"), &store).await.unwrap();
    by_hand(&store, &server, &image, &digest, dir.path()).await;
    assert_eq!(seen(&store, &image, &who("eve")).await, "here");
    Registry::default().pull(&named(&image), &who("ada"), &store).await.unwrap();
    assert_eq!(seen(&store, &image, &who("eve")).await, "here");
}

#[tokio::test]
async fn a_layer_of_others_is_no_way_in() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Basic));
    let (image, _) = server.put("ada/app", "1", &[b"private".to_vec()]);
    Registry::default().pull(&named(&image), &who("ada"), &store).await.unwrap();
    // Eve knows the digest of the layer and has a manifest that names it, and not the layer.
    let layer = Digest::of(b"private");
    let (forged, _) = server.put("eve/app", "1", &[b"private".to_vec()]);
    server.content.lock().unwrap().answers.remove(&format!("eve/app/blobs/{layer}"));
    server.given();
    let refused = Registry::default().pull(&named(&forged), &who("eve"), &store).await.unwrap_err();
    assert!(refused.to_string().contains("404"), "{refused}");
    assert_eq!(seen(&store, &forged, &who("eve")).await, "absent");
    // Ada has it: nothing is fetched twice. And with the layer Eve has it, too.
    let (second, _) = server.put("ada/second", "1", &[b"private".to_vec()]);
    server.given();
    Registry::default().pull(&named(&second), &who("ada"), &store).await.unwrap();
    assert!(!server.given().iter().any(|path| path.contains(layer.hex())), "a layer that is here was fetched");
    let (forged, _) = server.put("eve/app", "1", &[b"private".to_vec()]);
    Registry::default().pull(&named(&forged), &who("eve"), &store).await.unwrap();
    assert_eq!(seen(&store, &forged, &who("eve")).await, "here");
}

#[tokio::test]
async fn what_others_bring_is_theirs_alone() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Open));
    let (image, digest) = server.put("app", "1", &[b"of the guest".to_vec()]);
    Registry::default().pull(&named(&image), &realm("guest"), &store).await.unwrap();
    assert_eq!(seen(&store, &image, &realm("guest")).await, "here");
    for caller in [Caller::default(), realm("other")] {
        assert_eq!(seen(&store, &image, &caller).await, "absent", "{caller:?}");
        assert_ne!(seen(&store, &format!("x@{digest}"), &caller).await, "here", "{caller:?}");
    }
    // The owner's image of the same name is another one; it is everybody's who has none of its own.
    let (image, _) = server.put("app", "1", &[b"of the owner".to_vec()]);
    Registry::default().pull(&named(&image), &Caller::default(), &store).await.unwrap();
    let layers = async |caller: Caller| match store.find_for(&named(&image), &caller).await.unwrap() {
        Found::Here(found) => found.layers,
        other => panic!("{other:?}"),
    };
    assert_eq!(layers(realm("guest")).await, [Digest::of(b"of the guest")]);
    assert_eq!(layers(realm("other")).await, [Digest::of(b"of the owner")]);
    assert_eq!(layers(Caller::default()).await, [Digest::of(b"of the owner")]);
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert!(store.remove(&named(&image)).await.unwrap());
    assert_eq!(store.list().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_pull_that_is_cut_short_leaves_nothing_for_others() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Basic));
    let (image, digest) = server.put("ada/app", "1", &[b"private".to_vec()]);
    let manifest = server.content.lock().unwrap().answers[&format!("ada/app/manifests/{digest}")].1.clone();
    let ada = Credential::new("ada", "secret");
    let incoming = store.incoming(&named(&image), &manifest, &who("ada"), Admitted::With(&ada)).await.unwrap();
    for (blob, bytes) in incoming.needed().iter().zip([&b"no"[..], b"private"]) {
        let from = async { Ok(bytes) };
        let _ = incoming.take(blob, from).await; // the configuration never comes
    }
    drop(incoming);
    assert!(store.has(&Digest::of(b"private")));
    let eve = Credential::new("eve", "secret");
    let (forged, digest) = server.put("eve/app", "1", &[b"private".to_vec()]);
    let manifest = server.content.lock().unwrap().answers[&format!("eve/app/manifests/{digest}")].1.clone();
    let incoming = store.incoming(&named(&forged), &manifest, &who("eve"), Admitted::With(&eve)).await.unwrap();
    assert!(incoming.needed().iter().any(|blob| blob.digest == Digest::of(b"private")), "{:?}", incoming.needed());
}

#[tokio::test]
async fn a_token_that_no_header_holds_and_a_realm_without_tls() {
    let dir = tempdir().unwrap();
    let (store, server) = (store(&dir), Server::start(Guard::Absurd));
    let (image, _) = server.put("ada/app", "1", &[b"layer".to_vec()]);
    let told = Registry::default().pull(&named(&image), &who("ada"), &store).await.unwrap_err().to_string();
    assert!(told.contains("that no header can hold"), "{told}");
}

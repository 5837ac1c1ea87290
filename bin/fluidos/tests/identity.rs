//! `fluidos identity rotate`, `revoke`, `resolve`: the node's key changes, and nobody else's word changes it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod stage;

use self::stage::Stage;

const HISTORY: &str = "node/identity/history.json";

impl Stage {
    fn did(&self) -> String {
        self.shown()["did"].as_str().unwrap().to_owned()
    }

    fn shown(&self) -> serde_json::Value {
        let shown = self.run(&["identity", "show", "--data-dir", "node", "-o", "json"]).unwrap();
        serde_json::from_str(&shown).unwrap()
    }

    /// The owner vouches for the node, as `owner.jwt`.
    fn vouch(&self) {
        self.issue("owner.key", &["--claim", "domain=farm.example", "--out", "owner.jwt"]).unwrap();
    }
}

#[test]
fn a_node_is_known_by_its_first_key_through_two_rotations() {
    let stage = Stage::new();
    for _ in 0..2 {
        let told = stage.run(&["identity", "rotate", "--data-dir", "node"]).unwrap();
        assert!(told.contains("handed over to"), "{told}");
    }
    let before: Vec<String> = stage.shown()["predecessors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["did"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((before.len(), &before[1]), (2, &stage.node));
    let resolved = stage.run(&["identity", "resolve", &stage.node, "--statements", HISTORY]).unwrap();
    assert_eq!(resolved, format!("current {}\n", stage.did()));
}

#[test]
fn who_reads_no_more_is_not_told_of_a_broken_pipe() {
    let stage = Stage::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut show = std::process::Command::new(env!("CARGO_BIN_EXE_fluidos"));
    show.args(["identity", "show", "--data-dir", "node"]).current_dir(stage.directory.path()).stdout(writer);
    let ended = show.output().unwrap();
    assert_eq!(
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()),
        (Some(141), ""),
        "as by SIGPIPE"
    );
}

#[test]
fn a_running_node_keeps_its_key() {
    let stage = Stage::new();
    let running = substrate_store::Store::open(&stage.directory.path().join("node/store")).unwrap();
    stage.refused(&["identity", "rotate", "--data-dir", "node"], "its node is running");
    stage.refused(&["identity", "revoke", &stage.node, "--data-dir", "node", "--reason", "x"], "its node is running");
    drop(running);
    assert_eq!(stage.did(), stage.node);
}

#[test]
fn an_owner_brings_a_stolen_node_back_and_the_thief_is_not_believed() {
    let stage = Stage::new();
    stage.vouch();
    // The thief has the directory, and hands the node over to a key of his own.
    let node = stage.directory.path().join("node");
    let thiefs = stage.directory.path().join("thief");
    let copied = std::process::Command::new("cp").arg("-a").arg(&node).arg(&thiefs).status().unwrap();
    assert!(copied.success());
    stage.run(&["identity", "rotate", "--data-dir", "thief"]).unwrap();

    stage.run(&["identity", "rotate", "--data-dir", "node", "--owner-key", "owner.key"]).unwrap();
    let resolve = |more: &[&str]| {
        let common = ["identity", "resolve", &stage.node, "--statements", HISTORY];
        stage.run(&[&common[..], more].concat())
    };
    let stolen = ["--statements", "thief/identity/history.json"];
    let believed = format!("current {}\n", stage.did());
    assert_eq!(resolve(&[&stolen[..], &["--owner", "owner.jwt"]].concat()).unwrap(), believed);
    // Who does not know the owner does not know whom to believe.
    assert_eq!(resolve(&[]).unwrap(), format!("current {}\n", stage.node));
    stage.refused(
        &["identity", "rotate", "--data-dir", "node", "--owner-key", "owner.key", "--lost", &stage.node],
        "here is the key of",
    );
    // The stranger is no owner, whatever he signs.
    std::fs::create_dir(stage.directory.path().join("forged")).unwrap();
    let forge = ["identity", "rotate", "--data-dir", "forged", "--owner-key", "stranger.key", "--lost", &stage.node];
    stage.run(&forge).unwrap();
    let forged = ["--owner", "owner.jwt", "--statements", "forged/identity/history.json"];
    assert_eq!(resolve(&forged).unwrap(), believed);
}

#[test]
fn a_key_that_is_lost_is_replaced_in_an_empty_directory() {
    let stage = Stage::new();
    stage.vouch();
    std::fs::remove_dir_all(stage.directory.path().join("node")).unwrap();
    let recover = ["identity", "rotate", "--data-dir", "node", "--owner-key", "owner.key"];
    assert!(stage.run(&recover).is_err(), "which key is lost?");
    stage.run(&[&recover[..], &["--lost", &stage.node]].concat()).unwrap();
    let common = ["identity", "resolve", &stage.node, "--statements", HISTORY, "--owner", "owner.jwt"];
    assert_eq!(stage.run(&common).unwrap(), format!("current {}\n", stage.did()));
}

#[test]
fn a_revoked_node_is_nobody_and_does_not_start() {
    let stage = Stage::new();
    stage.vouch();
    let revoke =
        |did: &str, more: &[&str]| stage.run(&[&["identity", "revoke", did, "--reason", "stolen"][..], more].concat());
    assert!(
        revoke(&stage.owner, &["--data-dir", "node"]).unwrap_err().contains("neither this node's key nor one before")
    );
    // A stranger may say so, and nobody listens; the owner may.
    revoke(&stage.node, &["--key", "stranger.key", "--out", "stranger.json"]).unwrap();
    revoke(&stage.node, &["--key", "owner.key", "--out", "owner.json"]).unwrap();
    let resolve = |file: &str| {
        let common = ["identity", "resolve", &stage.node, "--owner", "owner.jwt", "--statements", file];
        stage.run(&common)
    };
    assert!(resolve("stranger.json").unwrap().starts_with("current "));
    assert!(resolve("owner.json").unwrap_err().contains(&format!("revoked {} by {}", stage.node, stage.owner)));
    // Its own word is kept in its directory.
    revoke(&stage.node, &["--data-dir", "node"]).unwrap();
    assert!(resolve(HISTORY).unwrap_err().contains("no key speaks for"));
    stage.refused(&["identity", "rotate", "--data-dir", "node"], "was revoked by");
    let up = ["up", "--name", "farm", "--data-dir", "node", "--no-agent", "--no-mdns", "--api", "127.0.0.1:0"];
    stage.refused(&[&up[..], &["--rear", "127.0.0.1:0"]].concat(), "was revoked by");
}

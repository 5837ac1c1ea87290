//! `fluidos credential` and `fluidos identity new`: what is refused, and how it is said.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod stage;

use self::stage::Stage;

const FARM: [&str; 2] = ["--claim", "domain=farm.example"];

#[test]
fn a_key_is_never_overwritten_and_a_node_is_not_made_by_looking() {
    let stage = Stage::new();
    stage.refused(&["identity", "new", "--out", "owner.key"], "never overwritten");
    stage.refused(&["identity", "new", "--data-dir", "node"], "never overwritten");
    stage.refused(&["identity", "show", "--data-dir", "nowhere"], "no node has run there");
    assert!(!stage.directory.path().join("nowhere").exists());
    let shown: serde_json::Value =
        serde_json::from_str(&stage.run(&["identity", "show", "--data-dir", "node", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(shown["did"], stage.node);
}

#[test]
fn what_cannot_count_is_not_issued() {
    let stage = Stage::new();
    for (more, needed) in [
        (&[][..], "it says nothing"),
        (&["--claim", "region=EU"][..], "claim `domain` is \"missing\""),
        (&["--claim", "domain=a.example", "--claim", "domain=b.example"][..], "given twice"),
        (&["--claim", "domain"][..], "needed NAME=VALUE"),
        (&["--claim", "domain=a.example", "--valid-days", "0"][..], "--valid-days"),
    ] {
        let told = stage.issue("owner.key", more).expect_err("refused");
        assert!(told.contains(needed), "{needed:?} is not in: {told}");
    }
    assert!(stage.issue("nobody.key", &FARM).unwrap_err().contains("fluidos identity new --out nobody.key"));
}

#[test]
fn each_wrong_answer_is_named() {
    let stage = Stage::new();
    let credential = stage.issue("owner.key", &FARM).unwrap();
    let file = stage.directory.path().join("c.jwt");
    std::fs::write(&file, &credential).unwrap();
    let verify = |more: &[&str]| stage.run(&[&["credential", "verify", "c.jwt"][..], more].concat());
    assert!(verify(&["--issuer", &stage.owner, "--subject", &stage.node]).unwrap().contains("✓ validity"));
    let refused = |more: &[&str], needed: &str| {
        let told = verify(more).expect_err("refused");
        assert!(told.contains(needed), "{needed:?} is not in: {told}");
    };
    refused(&["--issuer", &stage.node], "it does not count: issuer\n");
    refused(&["--subject", &stage.owner, "--at", "2020-01-01T00:00:00Z"], "it does not count: subject, validity\n");
    std::fs::write(&file, credential.replacen("J", "K", 1)).unwrap();
    refused(&[], "it does not count: ");
    std::fs::write(&file, credential.trim().rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(86)).unwrap();
    refused(&[], "it does not count: signature\n");
    refused(&["-o", "json"], "\"valid\": false");
    std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    refused(&[], "more than");
}

#[test]
fn a_bit_is_given_away_once_and_a_list_is_its_issuers() {
    let stage = Stage::new();
    let issue = |key: &str, name: &str| stage.issue(key, &[&FARM[..], &["--status", "s.jwt", "--out", name]].concat());
    // At once, as from two terminals: each has a bit of its own.
    std::thread::scope(|scope| {
        let issue = &issue;
        let issuing: Vec<_> = (0..4).map(|i| scope.spawn(move || issue("owner.key", &format!("{i}.jwt")))).collect();
        issuing.into_iter().for_each(|one| drop(one.join().unwrap().unwrap()));
    });
    let verify = |name: &str| stage.run(&["credential", "verify", name, "--status", "s.jwt"]);
    (0..4).for_each(|i| drop(verify(&format!("{i}.jwt")).unwrap()));
    stage.run(&["credential", "revoke", "2.jwt", "--key", "owner.key", "--status", "s.jwt"]).unwrap();
    let counting: Vec<bool> = (0..4).map(|i| verify(&format!("{i}.jwt")).is_ok()).collect();
    assert_eq!(counting, [true, true, false, true]);

    assert!(issue("stranger.key", "x.jwt").unwrap_err().contains("--status s.jwt: it is of"));
    stage.issue("stranger.key", &[&FARM[..], &["--status", "other.jwt", "--out", "x.jwt"]].concat()).unwrap();
    let revoke = |file: &str, key: &str, list: &str, needed: &str| {
        stage.refused(&["credential", "revoke", file, "--key", key, "--status", list], needed);
    };
    revoke("x.jwt", "owner.key", "s.jwt", "issued by");
    revoke("1.jwt", "stranger.key", "s.jwt", "it is of");
    std::fs::remove_file(stage.directory.path().join("s.jwt.issued")).unwrap();
    assert!(issue("owner.key", "5.jwt").unwrap_err().contains("which bits of the list are given away"));
    std::fs::remove_file(stage.directory.path().join("other.jwt")).unwrap();
    let lost = stage.issue("stranger.key", &[&FARM[..], &["--status", "other.jwt"]].concat()).unwrap_err();
    assert!(lost.contains("restore it"), "{lost}");
}

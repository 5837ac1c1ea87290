//! The commands of the guides, run as they are written.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::Command;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::binary;
use fluidos_e2e::stage::Stage;

/// A guide waits for what it has begun, without an end: longer than this none takes, on a slow machine beside others.
const LIMIT_S: &str = "600";

/// The text of all `sh` blocks of a guide, as one script that stops at the first failure.
fn script(guide: &str) -> String {
    let text = std::fs::read_to_string(fluidos_e2e::root().join("docs/guides").join(guide)).unwrap();
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "{guide} has no commands");
    // What a guide starts in the background must not outlive a failure.
    format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", blocks.join("\n"))
}

/// Runs a guide on a machine of its own; what it prints.
fn walk(guide: &str, stage: &str) -> String {
    let mut stage = Stage::new(stage).unwrap();
    let setup = stage.setup("guide", &[]).unwrap();
    std::fs::create_dir_all(&setup.directory).unwrap();
    let enter = setup.machine.as_ref().unwrap().enter();
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let log = setup.directory.join("guide.log");
    let writing = std::fs::File::create(&log).unwrap();
    let status = Command::new(&enter[0])
        .arg(&enter[1])
        .args(["timeout", LIMIT_S, "bash", "-c", &script(guide)])
        .current_dir(&setup.directory)
        .env("PATH", path)
        .env("BUSYBOX", Image::Busybox.layout().unwrap())
        .env("FLUIDOS_DEFAULT_RUNTIME", "oci")
        .env("KUBECACHEDIR", setup.directory.join("kubectl-cache"))
        .stdin(std::process::Stdio::null())
        .stdout(writing.try_clone().unwrap())
        .stderr(writing)
        .status()
        .unwrap();
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{told}");
    told
}

fn expect(told: &str, expected: &[&str]) {
    for expected in expected {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}

#[test]
fn one_machine() {
    let told = walk("one-machine.md", "one");
    expect(
        &told,
        &[
            "✓ root",
            "farm   Ready",
            "docker.io/library/busybox:1",
            "successfully rolled out",
            "placed on farm: an own node",
            "Scheduled",
            "its key is kept",
        ],
    );
}

#[test]
fn runtimes() {
    let told = walk("runtimes.md", "runt");
    expect(
        &told,
        &[
            "handler \"\"\nhandler \"oci\"\n",
            "handler \"process\"\n",
            "✓ processes are confined by Landlock",
            "\nopened\n",
            "I am user 65532",
            "\nkept\n",
            "what was written does not run",
            "the rest of the machine is not there",
        ],
    );
}

#[test]
fn network_policies() {
    let told = walk("network-policies.md", "netp");
    let welcome = told.matches("welcome").count();
    assert_eq!(welcome, 2, "before the first policy and with the second:\n{told}");
    expect(&told, &["visitors   app=web", "web.default.svc.cluster.local"]);
}

#[test]
fn expose() {
    let told = walk("expose.md", "expo");
    assert_eq!(told.matches("welcome").count(), 2, "by the balancer and by the machine's port:\n{told}");
    expect(&told, &["LoadBalancer", "is used by default/web", "service/late condition met"]);
}

#[test]
fn cni() {
    let told = walk("cni.md", "cnin");
    assert_eq!(told.matches("welcome").count(), 2, "before the policy and after it, over a restart:\n{told}");
    expect(&told, &["   10.22.0.2   ", "can't connect to remote host", "\n0\n"]);
}

#[test]
fn agents() {
    let told = walk("agents.md", "agen");
    expect(
        &told,
        &[
            "ready name=shed server=https://192.168.77.1:6443 pods=100.",
            "shed   Ready ",
            "hello from hello",
            "node/shed drained",
            "its Node is at https://192.168.77.1:6443: kubectl delete node shed",
            "node \"shed\" deleted",
        ],
    );
}

#[test]
fn audit() {
    let told = walk("audit.md", "audi");
    expect(
        &told,
        &[
            "\"level\":\"Metadata\"",
            "\"name\":\"door\"",
            "secrets is forbidden: User \"ada\" cannot list resource \"secrets\"",
            "\"data\":{\"index.html\":\"hello\"}",
            "-rw------- 1 ",
        ],
    );
}

#[test]
fn discovery() {
    let told = walk("discovery.md", "disc");
    expect(
        &told,
        &[
            "No peers are known.",
            "To name one: fluidos up --peer ADDR:PORT",
            "discoverypolicy.network.fluidos.eu/sellers-in-europe created",
            "sellers-in-europe",
            "Nobody was rejected.",
        ],
    );
}

#[test]
fn trust() {
    let told = walk("trust.md", "trust");
    expect(
        &told,
        &[
            "permit (principal, action == Action::\"Discover\", resource)",
            "accesspolicy.security.fluidos.eu/house created",
            "may Buy: policy offer/sell permits Buy",
            "may not Buy: policy house/half-a-cpu forbids Buy: at most 500m for each buyer",
            "evidence: none",
            "refused",
            "No peers are known.",
        ],
    );
}

#[test]
fn catalog() {
    let told = walk("catalog.md", "cat");
    expect(&told, &["ready did=did:key:z6Mk", "catalog=https://", "farm   ", "catalog"]);
}

#[test]
fn log() {
    let told = walk("log.md", "log");
    expect(
        &told,
        &[
            "0    contract-signed   contract-fluidos-eu-k8slice-",
            "this node",
            "whole, root ",
            "countersigned   1         agrees",
            "asked           1         agrees",
            "node   Complete   1 ",
            "Complete: 1 entry here, 0 missing; back are 1 contract, ",
            "yes       1         Agrees",
            "   sold   ",
            "✓ no contract or receipt is known to be lost",
            "it keeps another history of 1 entries; entry 0 is the first that differs: here contract-signed of contract-forged-eu-k8slice-",
        ],
    );
}

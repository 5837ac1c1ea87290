//! The routes of the log against the document that REAR serves, by a third party's tester: whatever it sends, answers are as written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fluidos_acquisition::exporter::Exporter;
use fluidos_door::{Host, Limits};
use fluidos_identity::NodeKey;
use fluidos_rear as rear;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::Node;

/// Each operation gets so many requests, of which many are wrong on purpose.
const EXAMPLES: &str = "40";
const OPERATIONS: [&str; 7] =
    ["submitHead", "getKeptHead", "getKeptLeaves", "getConsistency", "getInclusion", "listContracts", "getBooks"];
const LIMITS: Limits = Limits { name: "tested", connections: 64, per_address: 64, idle: Duration::from_secs(10) };

/// REAR for somebody who proves another key with each request: the guard, which would soon not listen, has tests of its own.
#[derive(Clone)]
struct Everybody {
    service: rear::RearService,
    count: Arc<AtomicU64>,
}

impl Host for Everybody {
    type Body = <rear::RearService as Host>::Body;

    async fn answer(&self, request: Request<Incoming>, peer: rear::Peer) -> Response<Self::Body> {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let node = Some(NodeKey::from_seed(seed).unwrap().id());
        self.service.answer(request, rear::Peer { node, ..peer }).await
    }
}

/// Schemathesis: what `cargo xtask test` has brought, or what `FLUIDOS_SCHEMATHESIS` names.
fn schemathesis() -> PathBuf {
    let brought = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/schemathesis/bin/schemathesis");
    std::env::var_os("FLUIDOS_SCHEMATHESIS").map_or(brought, PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_answers_as_the_document_says() {
    let program = schemathesis();
    assert!(program.exists(), "{}: not there; `cargo xtask test` brings it", program.display());
    let mut node = Node::start(1).await;
    let exporter = Arc::new(Exporter::new(node.client.clone(), node.options.clone()));
    let notary = node.notary.clone().unwrap();
    let service = rear::RearService::of(exporter, None, Some(notary));
    let everybody = Everybody { service, count: Arc::default() };
    let count = everybody.count.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    node.rooms.spawn(async move {
        fluidos_door::open(listener, None, LIMITS, everybody, std::future::pending()).await.unwrap();
    });

    let folder = tempfile::Builder::new().prefix("flt-schemathesis").tempdir().unwrap();
    let output = Command::new(program)
        .arg("--config-file")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notary/openapi/schemathesis.toml"))
        .args(["run", &format!("http://{address}/api/v2/openapi.json")])
        .args(OPERATIONS.iter().flat_map(|operation| ["--include-operation-id", operation]))
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--workers", "1", "--no-color"])
        .current_dir(folder.path())
        .env_remove("PYTHONPATH")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(300), output).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let requests = count.load(Ordering::Relaxed);
    assert!(requests > 100, "{requests} requests came, needed some for each operation\n{said}");
}

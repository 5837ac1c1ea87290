//! The real kubectl looks into a pod whose machine is this test.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use substrate_apiserver::AuditLog;
use substrate_apiserver::node_proxy::{ContainerTarget, Error, ExecOptions, ExecOutput, ExecSession, NodeProxy};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::support;
use crate::support::Api;
use crate::support::kubectl::{message, start, websocket};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A machine whose containers say back in capitals what they hear, and then fail. They have no programs.
struct Machine;

/// A machine that knows nothing of attach.
struct Old;

#[async_trait]
impl NodeProxy for Machine {
    async fn exec(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        if target.container == "debug" {
            return Err(Error::BadRequest("container \"debug\" in pod \"web\" is not running".into()));
        }
        let program = &options.command[0];
        Err(Error::Internal(format!("exec: {program:?}: stat {program}: no such file or directory")))
    }

    async fn attach(&self, target: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        assert!(options.stdin && options.command.is_empty());
        let (stdin, mut heard) = mpsc::channel::<Bytes>(16);
        let (say, output) = mpsc::channel(16);
        let name = target.container.clone();
        tokio::spawn(async move {
            while let Some(bytes) = heard.recv().await {
                let loud = format!("{name}: {}", String::from_utf8_lossy(&bytes).to_uppercase());
                let _ = say.send(ExecOutput::Stdout(loud.into())).await;
            }
            let _ = say.send(ExecOutput::Exit(3)).await;
        });
        Ok(ExecSession { stdin, resize: mpsc::channel(1).0, output })
    }
}

#[async_trait]
impl NodeProxy for Old {}

/// A running pod on a node, with an ephemeral container.
async fn running(api: &Api, name: &str, node: &str) {
    let mut pod = support::pod(name);
    pod["spec"]["nodeName"] = node.into();
    pod["spec"]["containers"][0]["stdin"] = true.into();
    assert_eq!(api.post(PODS, pod).await.0, 201);
    let debug = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "i", "stdin": true }] } });
    let path = format!("{PODS}/{name}/ephemeralcontainers");
    assert_eq!(api.patch(&path, "strategic-merge-patch", debug).await.0, 200);
    assert_eq!(phase(api, name, "Running").await, 200);
}

async fn phase(api: &Api, name: &str, phase: &str) -> u16 {
    let status = json!({ "status": { "phase": phase } });
    api.patch(&format!("{PODS}/{name}/status"), "merge-patch", status).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn attach() {
    let kubectl = start().await;
    kubectl.api.proxies.register("m1", Arc::new(Machine));
    kubectl.api.proxies.register("old", Arc::new(Old));
    running(&kubectl.api, "web", "m1").await;
    running(&kubectl.api, "far", "old").await;
    let mut said = Vec::new();
    for args in ["attach -i web", "attach -i web -c debug"] {
        let mut command = kubectl.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
        let done = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
        let output = done.unwrap_or_else(|_| panic!("30 s of kubectl {args}")).unwrap();
        said.push((output.status.code(), String::from_utf8(output.stdout).unwrap()));
    }
    // How it ended is said by the pod, not by who was attached.
    assert_eq!(said, [(Some(0), "main: HELLO\n".to_owned()), (Some(0), "debug: HELLO\n".to_owned())]);

    for (args, why) in [
        ("-i far", "the node of pod far does not carry attach"),
        ("web -c nobody", "container nobody not found in pod"), // said by kubectl itself
    ] {
        let (_, error) = kubectl.run(&format!("attach {args}")).await;
        assert!(error.contains(why), "{args}: {error}");
    }
    let api = &kubectl.api;
    let (code, status) = api.get(&format!("{PODS}/web/attach?container=nobody&stdin=1")).await;
    assert_eq!((code, &status["message"]), (400, &json!("container nobody is not valid for pod web")));
    assert_eq!(phase(api, "web", "Succeeded").await, 200);
    let (code, status) = api.get(&format!("{PODS}/web/attach?stdin=1")).await;
    let message = json!("cannot attach a container in a completed pod; current phase is Succeeded");
    assert_eq!((code, &status["message"]), (400, &message));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_in_the_audit_log_when_it_ends() {
    let (kubectl, directory) = (start().await, tempfile::tempdir().unwrap());
    kubectl.api.proxies.register("m1", Arc::new(Machine));
    running(&kubectl.api, "web", "m1").await;
    let path = directory.path().join("audit.log");
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, verbs: [get]}]}";
    kubectl.api.server.audit(policy, AuditLog { path: path.clone(), bytes_max: 1 << 20, backups_max: 1 }).unwrap();
    let (_proxy, port) = kubectl.proxy().await;
    let mut socket =
        websocket(port, &format!("{PODS}/web/attach?container=main&stdin=1"), "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    assert_eq!(message(&mut socket).await, Some((1, b"main: HELLO".to_vec())));
    // The stages that are in the log of the session, once what was asked after it is there.
    let stages = async |marker: &str, least: usize| loop {
        kubectl.api.get(&format!("{PODS}/{marker}")).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events: Vec<serde_json::Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_session = events.iter().filter(|event| event["objectRef"]["subresource"] == "attach");
        let stages: Vec<String> = of_session.map(|event| event["stage"].as_str().unwrap().to_owned()).collect();
        if events.iter().any(|event| event["objectRef"]["name"] == marker) && stages.len() >= least {
            return stages;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(stages("first", 1).await, ["ResponseStarted"]);
    drop(socket);
    let done = tokio::time::timeout(Duration::from_secs(30), stages("second", 2)).await;
    assert_eq!(done.unwrap_or_else(|_| panic!("30 s without an end")), ["ResponseStarted", "ResponseComplete"]);
}

/// What cannot be started is told where the end of a command is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_start() {
    let kubectl = start().await;
    kubectl.api.proxies.register("m1", Arc::new(Machine));
    running(&kubectl.api, "web", "m1").await;
    let why = r#"error executing command in container: exec: "/no/such": stat /no/such: no such file or directory"#;
    for (args, error) in [
        ("exec web -c main -- /no/such", format!("error: Internal error occurred: {why}\n")),
        ("exec -i web -c main -- /no/such", format!("error: Internal error occurred: {why}\n")),
        (
            "exec web -c debug -- ls",
            "error: Internal error occurred: unable to upgrade connection: container \"debug\" in pod \"web\" is not running\n".into(),
        ),
    ] {
        let output = kubectl.command(args).output().await.unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), error), "{args}");
    }
    // Clients of the older protocol are told so, too; of what was not even tried, before the upgrade.
    let (_proxy, port) = kubectl.proxy().await;
    let exec = |container: &str| format!("{PODS}/web/exec?container={container}&command=/no/such&stdout=1");
    let mut socket = websocket(port, &exec("main"), "v4.channel.k8s.io").await.unwrap();
    let (channel, status) = message(&mut socket).await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!((channel, &status["reason"], &status["code"]), (3, &json!("InternalError"), &json!(500)));
    assert_eq!(status["message"], format!("Internal error occurred: {why}"));
    assert_eq!(message(&mut socket).await, None);
    let (code, told) = websocket(port, &exec("debug"), "v4.channel.k8s.io").await.err().unwrap();
    assert!(code == 400 && told.contains("is not running"), "{code} {told}");
}

/// A client may read before it knows its own channels, and lose what comes for them: a command that is over at once waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_nothing_before_it_reads() {
    let kubectl = start().await;
    kubectl.api.proxies.register("m1", Arc::new(Machine));
    running(&kubectl.api, "web", "m1").await;
    let (_proxy, port) = kubectl.proxy().await;
    let failing = format!("{PODS}/web/exec?container=main&command=/no/such&stdout=1");
    let mut socket = websocket(port, &failing, "v5.channel.k8s.io").await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
    let begun = std::time::Instant::now();
    assert_eq!(message(&mut socket).await.unwrap().0, 3);
    assert!(begun.elapsed() >= Duration::from_millis(20), "{:?} after the answer", begun.elapsed());
}

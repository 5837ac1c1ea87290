//! Probes and hooks that need a server: the test is one, at the address of the pod.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use super::*;

/// A port of the pod.
async fn listen(world: &World, pod: &Value, port: u16) -> TcpListener {
    let netns = world.network.attach(pod["metadata"]["uid"].as_str().unwrap()).await.unwrap().netns;
    let bound = std::thread::spawn(move || {
        nix::sched::setns(std::fs::File::open(netns).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::TcpListener::bind(("0.0.0.0", port)).unwrap()
    });
    let listener = bound.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

async fn running(world: &World, name: &str) -> Value {
    world.wait(name, |p| main_status(p)["state"]["running"].is_object()).await
}

pub async fn probes_and_hooks_over_https(world: &mut World) {
    let page = |path: &str| json!({"httpGet": {"port": 8443, "path": path, "scheme": "HTTPS"}, "periodSeconds": 1});
    let main = json!({"name": "main", "image": "busy:1", "args": ["trap 'exit 0' TERM; sleep 1000 & wait"], "readinessProbe": page("/ready"),
        "lifecycle": {"preStop": {"httpGet": page("/bye")["httpGet"]}}});
    world.create("secure", json!({"containers": [main]})).await;
    let pod = running(world, "secure").await;
    world.wait_event("secure", "Unhealthy: Readiness probe failed: Get \"https://").await;
    let listener = listen(world, &pod, 8443).await;
    let key = rcgen::generate_simple_self_signed(vec!["somebody.test".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let server = tokio::spawn(async move {
        loop {
            let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            let heard = Arc::clone(&heard);
            let answer = service_fn(move |request: Request<Incoming>| {
                let agent = request.headers()["user-agent"].to_str().unwrap();
                heard.lock().unwrap().push(format!("{} by {agent}", request.uri()));
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("well")))) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        }
    });
    world.ready("secure").await;
    world.delete("secure").await;
    server.abort();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.first().unwrap(), "/ready by kube-probe/1.34");
    assert!(asked.contains(&"/bye by kube-lifecycle/1.34".to_owned()), "{asked:?}");
    let events = world.events("secure").await;
    assert!(!events.iter().any(|e| e.contains("PreStopHook")), "{events:?}");
}

/// What a server of gRPC says of a service.
fn say(service: &[u8]) -> (u8, &'static str) {
    match service {
        b"" => (1, "0"),
        b"db" => (2, "0"),
        _ => (0, "5"),
    }
}

pub async fn probes_over_grpc(world: &mut World) {
    let check = |service: Option<&str>| json!({"grpc": {"port": 5000, "service": service}, "periodSeconds": 1});
    let container = |name: &str, service: Option<&str>| json!({"name": name, "image": "busy:1", "args": ["sleep 1000"], "readinessProbe": check(service)});
    let all = json!([container("main", None), container("db", Some("db")), container("other", Some("other"))]);
    world.create("rpc", json!({"terminationGracePeriodSeconds": 0, "containers": all})).await;
    let pod = running(world, "rpc").await;
    world.wait_event("rpc", "Readiness probe failed: error: failed to connect service at \"100.99.0.").await;
    let listener = listen(world, &pod, 5000).await;
    let server = tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let answer = service_fn(|request: Request<Incoming>| async {
                let (head, body) = request.into_parts();
                assert_eq!(head.uri.path(), "/grpc.health.v1.Health/Check");
                assert_eq!(head.headers["te"], "trailers");
                let body = body.collect().await.unwrap().to_bytes();
                let (status, code) = say(body.get(7..).unwrap_or_default());
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))]);
                let message = Full::new(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]));
                let body = message.with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
                Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    world.wait("rpc", |p| main_status(p)["ready"] == true).await;
    world.wait_event("rpc", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")").await;
    world.wait_event("rpc", "Readiness probe failed: error: health rpc probe failed: rpc error: code = 5").await;
    let pod = world.wait("rpc", |_| true).await;
    let ready: Vec<bool> =
        pod["status"]["containerStatuses"].as_array().unwrap().iter().map(|c| c["ready"] == true).collect();
    assert_eq!(ready, [true, false, false]);
    server.abort();
    world.delete("rpc").await;
}

/// Runs a command in the sidecar.
async fn run(world: &World, pod: &Value, command: &str) {
    let command = vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()];
    let options = ExecOptions { command, stdout: true, ..ExecOptions::default() };
    let mut session = world.handle.exec(&world.target(pod, "side"), &options).await.unwrap();
    while let Some(said) = session.output.recv().await {
        assert!(matches!(said, ExecOutput::Exit(0)), "{said:?}");
    }
}

/// A sidecar is ready or not, and run again when it is not alive, within the grace of the probe.
pub async fn sidecars_are_probed(world: &mut World) {
    let command =
        |test: &str| json!({"exec": {"command": ["sh", "-c", test]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut live = command("! test -e /dead");
    live["terminationGracePeriodSeconds"] = json!(1);
    let sidecar = json!({"name": "side", "image": "busy:1", "restartPolicy": "Always", "args": ["trap '' TERM; while :; do sleep 1; done"],
        "readinessProbe": command("test -e /ready"), "livenessProbe": live});
    let main = json!({"name": "main", "image": "busy:1", "args": ["trap 'exit 0' TERM; sleep 1000 & wait"]});
    // With the pod's own grace the sidecar would be there for minutes yet.
    world
        .create(
            "beside",
            json!({"terminationGracePeriodSeconds": 600, "initContainers": [sidecar], "containers": [main]}),
        )
        .await;
    let pod = running(world, "beside").await;
    let side = |p: &Value| p["status"]["initContainerStatuses"][0].clone();
    assert_eq!((condition(&pod, "Ready"), &side(&pod)["ready"]), ("False", &json!(false)));
    run(world, &pod, "touch /ready").await;
    world.ready("beside").await;
    run(world, &pod, "touch /dead").await;
    let pod = world.wait("beside", |p| side(p)["restartCount"] == 1).await;
    assert_eq!(side(&pod)["lastState"]["terminated"]["exitCode"], 137);
    world.wait_event("beside", "Killing: Container side failed liveness probe, will be restarted").await;
    world
        .pods()
        .delete("beside", &DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() })
        .await
        .unwrap();
    world.gone("beside").await;
}

//! A machine that nobody can call opens a tunnel, and the API server looks into its pods through it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use substrate_apiserver::auth::User;
use substrate_apiserver::node_proxy::{
    ContainerTarget, Duplex, Error, ExecOptions, ExecOutput, ExecSession, LogOptions, NodeProxy, TerminalSize,
};
use substrate_apiserver::node_tunnel::{PATH, PROTOCOL, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{Api, api};

/// A machine that tells its name, and what it was asked.
struct Machine(&'static str);

fn target(container: &str) -> ContainerTarget {
    let text = str::to_owned;
    ContainerTarget { namespace: text("d"), pod: text("p"), pod_uid: text("u"), container: text(container) }
}

#[async_trait]
impl NodeProxy for Machine {
    async fn logs(
        &self,
        target: &ContainerTarget,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        if target.container == "none" {
            return Err(Error::BadRequest("container \"none\" is waiting to start".into()));
        }
        let lines = [format!("{} {target:?}\n", self.0), format!("{options:?}\n"), "x".repeat(1 << 20)];
        let lines = futures::stream::iter(lines.map(|line| Ok(line.into())));
        // Who follows gets more, and never an end.
        Ok(if options.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }

    async fn exec(&self, _: &ContainerTarget, options: &ExecOptions) -> Result<ExecSession, Error> {
        let (stdin, mut heard) = mpsc::channel::<Bytes>(16);
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(16);
        let (say, output) = mpsc::channel(16);
        let words = options.command.join(" ");
        tokio::spawn(async move {
            let size = sizes.recv().await.unwrap();
            say.send(ExecOutput::Stderr(format!("{words} {}x{}", size.width, size.height).into())).await.unwrap();
            while let Some(bytes) = heard.recv().await {
                say.send(ExecOutput::Stdout(bytes)).await.unwrap();
            }
            say.send(ExecOutput::Exit(42)).await.unwrap();
        });
        Ok(ExecSession { stdin, resize, output })
    }

    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        Ok((path == "pods").then(|| ("application/json", format!("{{\"of\":\"{}\"}}", self.0))))
    }

    async fn port_forward(&self, _: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let (here, there) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(there);
            write.write_all(&port.to_be_bytes()).await.unwrap();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        Ok(Box::new(here))
    }
}

/// Asks for a tunnel as this user; the machine's end of it runs until it is aborted, or how it was refused.
async fn dial(api: &Api, user: User, machine: Machine) -> Result<JoinHandle<hyper::Result<()>>, StatusCode> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = api.server.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(server.answer(Some(&user), request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(near), service);
    tokio::spawn(serving.with_upgrades());
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(far)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(PATH).header("host", "api").header("connection", "upgrade").header("upgrade", PROTOCOL);
    let response = send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(response.status());
    }
    let turned = hyper::upgrade::on(response).await.unwrap();
    Ok(tokio::spawn(serve(turned, Arc::new(machine))))
}

fn node(name: &str) -> User {
    User::new(&format!("system:node:{name}"), &["system:nodes"])
}

/// The proxy of a node, once what it reads of itself is this.
async fn reached(api: &Api, node: &str, of: &str) -> Arc<dyn NodeProxy> {
    let look = async {
        loop {
            if let Some(proxy) = api.proxies.get(node)
                && let Ok(Some((kind, text))) = proxy.read("pods").await
                && text == format!("{{\"of\":\"{of}\"}}")
            {
                assert_eq!(kind, "application/json");
                return proxy;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look).await.unwrap_or_else(|_| panic!("{node} is not {of}"))
}

#[tokio::test]
async fn logs_commands_and_ports_through_a_tunnel() {
    let api = api().await;
    let _machine = dial(&api, node("m1"), Machine("one")).await.unwrap();
    let proxy = reached(&api, "m1", "one").await;
    assert_eq!(proxy.read("nothing").await.unwrap(), None);

    let options = LogOptions { tail_lines: Some(7), ..LogOptions::default() };
    let log: Vec<_> = proxy.logs(&target("c"), &options).await.unwrap().collect().await;
    let log: Vec<u8> = log.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect();
    let said = format!("one {:?}\n{options:?}\n", target("c"));
    assert_eq!((log.len(), log.starts_with(said.as_bytes())), (said.len() + (1 << 20), true));
    let why = proxy.logs(&target("none"), &options).await.err().unwrap();
    assert_eq!(why, Error::BadRequest("container \"none\" is waiting to start".into()));

    let command = ["sh", "-c", &"y".repeat(100_000)].map(str::to_owned).to_vec();
    let asked = ExecOptions { command: command.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = proxy.exec(&target("c"), &asked).await.unwrap();
    session.resize.send(TerminalSize { width: 80, height: 24 }).await.unwrap();
    session.stdin.send("hello".into()).await.unwrap();
    drop(session.stdin);
    let (mut errors, mut output, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(said) = session.output.recv().await {
        match said {
            ExecOutput::Stderr(bytes) => errors.extend_from_slice(&bytes),
            ExecOutput::Stdout(bytes) => output.extend_from_slice(&bytes),
            last => end = Some(last),
        }
    }
    assert_eq!((output.as_slice(), end), (&b"hello"[..], Some(ExecOutput::Exit(42))));
    assert_eq!(String::from_utf8(errors).unwrap(), format!("{} 80x24", command.join(" ")));
    let why = proxy.attach(&target("c"), &asked).await.err().unwrap();
    assert_eq!(why, Error::NotImplemented("the node of pod p does not carry attach".into()));

    let mut port = proxy.port_forward(&target(""), 8080).await.unwrap();
    port.write_all(b"there and back").await.unwrap();
    port.shutdown().await.unwrap();
    let mut heard = Vec::new();
    port.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [&8080u16.to_be_bytes()[..], b"there and back"].concat());
}

#[tokio::test]
async fn a_tunnel_is_for_the_node_itself_and_ends_with_its_connection() {
    let api = api().await;
    api.proxies.register("here", Arc::new(Machine("here")));
    for (user, code) in [
        (User::new("admin", &["system:masters"]), StatusCode::FORBIDDEN),
        (User::new("jane", &[]), StatusCode::FORBIDDEN),
        (User::new("jane", &["system:nodes"]), StatusCode::FORBIDDEN),
        (node("here"), StatusCode::CONFLICT),
    ] {
        assert_eq!(dial(&api, user, Machine("thief")).await.err(), Some(code));
    }
    reached(&api, "here", "here").await;

    let first = dial(&api, node("m1"), Machine("first")).await.unwrap();
    let old = reached(&api, "m1", "first").await;
    let following = LogOptions { follow: true, ..LogOptions::default() };
    let mut log = old.logs(&target("c"), &following).await.unwrap();
    log.next().await.unwrap().unwrap();
    // The machine calls again before its old connection is known to be gone.
    let second = dial(&api, node("m1"), Machine("second")).await.unwrap();
    reached(&api, "m1", "second").await;
    first.abort();
    let broken = async { while let Some(Ok(_)) = log.next().await {} };
    tokio::time::timeout(Duration::from_secs(30), broken).await.unwrap();
    drop((log, old));
    reached(&api, "m1", "second").await;
    second.abort();
    let gone = async {
        while api.proxies.get("m1").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}

//! Which runtime runs the pods whose RuntimeClass names no handler.
//!
//! ```text
//! --default-runtime ──▶ what this node began with ──▶ a node of before: oci ──▶ a container runtime that is free: cri ──▶ oci
//! ```
//!
//! It is chosen once and kept in the node's directory: a socket that comes, goes, or is late when the machine starts moves no pod.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use engine_cri::{CriRuntime, Found};
use serde::{Deserialize, Serialize};
use substrate_kubelet::ContainerRuntime;

use super::machine;
use crate::cli::pods::{Pods, SOCKETS, usual_socket};

/// The built-in runtime.
const BUILT_IN: &str = "oci";
/// Below the kubelet's directory.
const FILE: &str = "default-runtime.json";

/// What a node has begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    handler: String,
    /// The container runtime that was there.
    socket: Option<PathBuf>,
}

/// Runtimes, as the kubelet takes them.
pub struct Chosen {
    /// What runs pods that name no handler.
    pub handler: String,
    /// A container runtime beside the built-in one.
    pub container_runtime: Option<ContainerRuntime>,
}

/// Chooses for the kubelet in `directory`, and keeps what was chosen there.
pub async fn choose(pods: &Pods, directory: &Path) -> Result<Chosen> {
    let kept = kept(directory)?;
    let socket = socket(pods, directory, kept.as_ref());
    let handler = match &pods.default_runtime {
        Some(named) => named.clone(),
        None => match expected(kept.as_ref(), directory, socket.as_deref(), CriRuntime::take).await {
            (handler, Some(why)) => {
                tracing::info!("pods without a RuntimeClass are run by {handler}: {why}");
                handler
            }
            (handler, None) => handler,
        },
    };
    if handler != BUILT_IN && socket.is_none() {
        bail!(
            "--default-runtime {handler}: this machine has no container runtime at {}; name its socket: --container-runtime-endpoint unix:///PATH",
            SOCKETS.join(" or ")
        );
    }
    let now = Kept { handler, socket };
    if kept.as_ref() != Some(&now) {
        let path = directory.join(FILE);
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        engine_host::files::write_durably(&path, &serde_json::to_vec(&now)?, 0o600)
            .with_context(|| path.display().to_string())?;
    }
    let container_runtime = match now.socket {
        Some(socket) => Some(ContainerRuntime { socket, plugin: machine::network_plugin()? }),
        None => None,
    };
    Ok(Chosen { handler: now.handler, container_runtime })
}

/// What a node in `directory` would choose without a flag, and why if it is no matter of course.
async fn expected(
    kept: Option<&Kept>,
    directory: &Path,
    socket: Option<&Path>,
    ask: impl AsyncFn(&Path) -> Result<Found, engine_runtime::Error>,
) -> (String, Option<String>) {
    let found = match socket {
        Some(socket) if kept.is_none() && !is_of_before(directory) => Some(ask(socket).await),
        _ => None,
    };
    match (kept, found) {
        (Some(kept), _) => (kept.handler.clone(), None),
        (None, Some(Ok(found))) => {
            let why = format!("{} {} is on this machine", found.name, found.version);
            (engine_cri::HANDLER.to_owned(), Some(why))
        }
        (None, Some(Err(why))) => (BUILT_IN.to_owned(), Some(why.to_string())),
        (None, None) => (BUILT_IN.to_owned(), None),
    }
}

/// What a node in `directory` begins with, or has begun with, in words.
pub async fn forecast(directory: &Path) -> Result<String> {
    let kept = kept(directory)?;
    let socket = kept.as_ref().and_then(|kept| kept.socket.clone()).or_else(usual_socket);
    let (handler, why) = expected(kept.as_ref(), directory, socket.as_deref(), CriRuntime::free).await;
    let why = match (&kept, why) {
        (Some(_), _) => " (it began with it)".to_owned(),
        (None, Some(why)) => format!(" ({why})"),
        (None, None) => String::new(),
    };
    Ok(handler + &why)
}

/// Whether a node has run pods here that did not keep what it chose: by the built-in runtime then.
fn is_of_before(directory: &Path) -> bool {
    directory.join("run").exists()
}

fn socket(pods: &Pods, directory: &Path, kept: Option<&Kept>) -> Option<PathBuf> {
    let has_pods = || std::fs::read_dir(directory.join("cri/pods")).is_ok_and(|mut all| all.next().is_some());
    let needed = |kept: &&Kept| kept.handler != BUILT_IN || has_pods();
    let earlier = kept.filter(needed).and_then(|kept| kept.socket.clone());
    pods.container_runtime_endpoint.clone().or(earlier).or_else(usual_socket)
}

fn kept(directory: &Path) -> Result<Option<Kept>> {
    let path = directory.join(FILE);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| path.display().to_string())?,
    };
    let kept = serde_json::from_slice(&bytes).with_context(|| {
        format!("{}: it does not tell a runtime; remove it and say which: --default-runtime oci|cri", path.display())
    });
    kept.map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(default: Option<&str>, endpoint: Option<&Path>) -> Pods {
        Pods {
            registry_config: None,
            static_pods: None,
            reserve: Default::default(),
            eviction_hard: None,
            container_runtime_endpoint: endpoint.map(Path::to_owned),
            cni_conf_dir: None,
            cni_bin_dir: Vec::new(),
            default_runtime: default.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn a_node_keeps_what_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("no.sock");
        // Nothing answers there: the built-in one, and so it stays.
        let fresh = dir.path().join("fresh");
        let chosen = choose(&asked(None, Some(&gone)), &fresh).await.unwrap();
        assert_eq!((chosen.handler.as_str(), chosen.container_runtime.is_some()), ("oci", true));
        assert_eq!(kept(&fresh).unwrap().unwrap().handler, "oci");
        // Who says so begins with the other, which need not be there yet; without the flag it goes on with it, and knows where it was.
        let by_cri = dir.path().join("by-cri");
        choose(&asked(Some("cri"), Some(&gone)), &by_cri).await.unwrap();
        let again = choose(&asked(None, None), &by_cri).await.unwrap();
        assert_eq!((again.handler.as_str(), again.container_runtime.unwrap().socket), ("cri", gone.clone()));
        assert_eq!(forecast(&by_cri).await.unwrap(), "cri (it began with it)");
        // Another word is another word.
        assert_eq!(choose(&asked(Some("oci"), None), &by_cri).await.unwrap().handler, "oci");
        assert_eq!(choose(&asked(None, None), &by_cri).await.unwrap().handler, "oci");
        // The container runtime of pods that are there is not forgotten.
        std::fs::create_dir_all(by_cri.join("cri/pods/flt")).unwrap();
        std::fs::write(by_cri.join(FILE), format!(r#"{{"handler":"oci","socket":{gone:?}}}"#)).unwrap();
        let with_pods = choose(&asked(None, None), &by_cri).await.unwrap();
        assert_eq!(with_pods.container_runtime.unwrap().socket, gone);
        // What cannot be read is no choice.
        std::fs::write(by_cri.join(FILE), "oci").unwrap();
        let refused = choose(&asked(None, None), &by_cri).await.err().unwrap().to_string();
        assert!(refused.contains("remove it and say which"), "{refused}");
    }
}

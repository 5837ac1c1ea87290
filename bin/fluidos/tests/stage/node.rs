//! Nodes that run: real processes on loopback, no root.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fluidos_model::kinds::names;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::fluidos;

/// A running node; dropping it kills it.
pub struct Node {
    pub name: String,
    pub directory: PathBuf,
    pub did: String,
    pub rear: String,
    pub child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// Starts a node in `HOME/DIRECTORY` that nobody finds by multicast.
    pub fn start(home: &Path, directory: &str, name: &str, more: &[&str]) -> Self {
        let path = home.join(directory);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join(format!("{directory}.log")));
        let mut child = Command::new(env!("CARGO_BIN_EXE_fluidos"))
            // Owners here have domains that are nobody's: no DNS is asked about them.
            .args(["up", "--name", name, "--no-agent", "--no-mdns", "--api", "127.0.0.1:0", "--did-web", "off"])
            .args(if more.contains(&"--rear") { &[][..] } else { &["--rear", "127.0.0.1:0"] })
            .arg("--data-dir")
            .arg(&path)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let word = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap_or_default().to_owned();
        let (did, rear) = (word("did="), word("rear=https://"));
        let log = || std::fs::read_to_string(home.join(format!("{directory}.log"))).unwrap_or_default();
        assert!(line.starts_with("ready "), "{name} did not start: {}", log());
        Self { name: name.into(), directory: path, did, rear, child }
    }

    /// Asks this node.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let kubeconfig = self.directory.join("kubeconfig");
        fluidos(&self.directory, &[arguments, &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat())
    }

    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.directory.join("kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    pub async fn list<K>(&self) -> Vec<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client().await, names::NAMESPACE);
        api.list(&Default::default()).await.unwrap().items
    }

    pub fn data(&self) -> &str {
        self.directory.to_str().unwrap()
    }
}

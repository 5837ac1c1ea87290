//! The network that a machine has for pods already: a *configuration* (CNI 1.0) names *plug-ins*, programs of which each adds its part to a pod's
//! namespace.
//!
//! ```text
//!  /etc/cni/net.d/10-lab.conflist              /opt/cni/bin/
//!  { name, cniVersion, plugins: [bridge, …] }     bridge  firewall  …
//!            │                                      │        │
//!    add: ───┴── ADD, the namespace ───────────────▶│        │
//!                  result: addresses, devices ──────┴───────▶│ (prevResult) ──▶ the pod's address
//!    del: the other way round, from the configuration that the pod was added by
//! ```
//!
//! What is called here is root's own, from directories of root: it is believed, but bounded in time and in what it may say.
//!
//! Not here: `CHECK`, `GC`, `STATUS`, capabilities (`runtimeConfig`), results older than 0.3.
mod configuration;
mod error;
mod plugin;
mod result;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use configuration::Configuration;
pub use error::Error;
pub use result::Added;

/// The device that a pod gets, as everywhere in Kubernetes.
const DEVICE: &str = "eth0";

/// A configuration and where its programs are. Kept beside each pod that was added by it, so that the pod can be taken away after the machine's
/// configuration has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    configuration: Configuration,
    /// Directories of programs, the first that has one counts.
    programs: Vec<PathBuf>,
}

/// Whom a network is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its uid, by which plug-ins know it.
    pub uid: String,
    /// Its namespace in the API.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// The file that keeps its network namespace.
    pub netns: PathBuf,
}

impl Network {
    /// The first configuration of a directory, in the order of names, whose programs are all there.
    ///
    /// # Errors
    /// The directory has none, it cannot be read, or one of its programs is in none of the directories.
    pub fn find(directory: &Path, programs: &[PathBuf]) -> Result<Network, Error> {
        let configuration = Configuration::first(directory)?;
        let network = Network { configuration, programs: programs.to_vec() };
        for kind in network.configuration.kinds() {
            network.program(kind)?;
        }
        Ok(network)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.configuration.name()
    }

    /// Whether pods of it share a segment of Ethernet, whose packets the machine does not route.
    pub fn is_bridged(&self) -> bool {
        self.configuration.kinds().any(|kind| kind == "bridge")
    }

    /// Gives a pod its place. Its namespace is there and empty. Whoever is refused calls [`del`](Self::del), which undoes what was done before.
    ///
    /// # Errors
    /// A plug-in refuses, is not back in time or gives no IPv4 address.
    pub async fn add(&self, pod: &Pod) -> Result<Added, Error> {
        let mut before = None;
        for input in self.configuration.plugins() {
            let answer = self.call("ADD", input.kind, pod, input.with(before.as_ref())).await?;
            before = Some(result::parse(input.kind, &answer)?);
        }
        Added::new(self.name(), before.unwrap_or_default())
    }

    /// Takes a pod off the network. One that is not there, or whose namespace is gone, is fine.
    ///
    /// # Errors
    /// A plug-in refuses; the others were asked all the same.
    pub async fn del(&self, pod: &Pod, added: Option<&Added>) -> Result<(), Error> {
        let mut done = Ok(());
        let plugins: Vec<_> = self.configuration.plugins().collect();
        for input in plugins.into_iter().rev() {
            let called = self.call("DEL", input.kind, pod, input.with(added.map(Added::result))).await;
            done = done.and(called.map(drop));
        }
        done
    }

    async fn call(&self, command: &'static str, kind: &str, pod: &Pod, input: Vec<u8>) -> Result<Vec<u8>, Error> {
        let program = self.program(kind)?;
        plugin::call(&program, command, &self.programs, pod, input).await
    }

    fn program(&self, kind: &str) -> Result<PathBuf, Error> {
        let found = self.programs.iter().map(|directory| directory.join(kind)).find(|path| path.is_file());
        found.ok_or_else(|| Error::NoProgram {
            network: self.name().to_owned(),
            kind: kind.to_owned(),
            looked: self.programs.clone(),
        })
    }
}

//! A stage: a LAN, a directory and the nodes on it. Whatever a story ends with, nothing of it stays on the machine. A stage
//! is exclusive: a second one of the same name, in whatever process, waits until the first is gone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::claim::Claim;
use crate::lan::Lan;
use crate::node::{Node, Setup, binary};

/// Where a story is played.
#[derive(Debug)]
pub struct Stage {
    directory: PathBuf,
    lan: Lan,
    setups: Vec<Setup>,
    program: PathBuf,
    /// Last, so that it is given back when everything else is gone.
    _claim: Claim,
}

impl Stage {
    /// A stage with a name of at most four characters. It waits until no other process has a stage of this name.
    ///
    /// # Errors
    /// When its namespaces or its directory cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let claim = Claim::take(name)?;
        let directory = std::env::temp_dir().join(format!("flt-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Self::open(claim, directory)
    }

    /// A stage of a name that is claimed already, in a directory that must not exist.
    ///
    /// # Errors
    /// When its namespaces or its directory cannot be made.
    pub fn at(claim: Claim, directory: PathBuf) -> Result<Self> {
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        Self::open(claim, directory)
    }

    fn open(claim: Claim, directory: PathBuf) -> Result<Self> {
        match Lan::new(claim.name()) {
            Ok(lan) => Ok(Self { directory, lan, setups: Vec::new(), program: binary(), _claim: claim }),
            Err(error) => {
                std::fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
                Err(error)
            }
        }
    }

    /// The LAN.
    pub fn lan(&self) -> &Lan {
        &self.lan
    }

    /// Where the nodes' directories are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Chooses the program that the nodes of this stage are, and with which they are taken away; without, what cargo built.
    pub fn play(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// A node on a machine of its own, not yet started.
    ///
    /// # Errors
    /// When its machine cannot be made.
    pub fn setup(&mut self, name: &str, arguments: &[&str]) -> Result<Setup> {
        let mut setup = Setup::new(name, &self.directory);
        setup.program.clone_from(&self.program);
        setup.machine = Some(self.lan.machine(name)?);
        setup.arguments = arguments.iter().map(ToString::to_string).collect();
        self.setups.push(setup.clone());
        Ok(setup)
    }

    /// A node on a machine of its own, ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&mut self, name: &str, arguments: &[&str]) -> Result<Node> {
        self.setup(name, arguments)?.start()
    }

    /// A node called `farm` of so many machines, each of which runs pods and has the image; the agents beside the server are to be kept
    /// as long as the story needs them.
    ///
    /// # Errors
    /// When one of them does not become ready.
    pub fn machines(&mut self, count: usize, image: &Path) -> Result<(Node, Vec<Node>)> {
        let (node, agents) = together(&self.setups(count, &[])?)?;
        for machine in agents.iter().chain([&node]) {
            machine.setup.load(image)?;
        }
        Ok((node, agents))
    }

    /// The machines of a node called `farm`, not yet started: its server first, then its agents, all with these arguments of machines
    /// that run pods.
    ///
    /// # Errors
    /// When a machine cannot be made.
    pub fn setups(&mut self, count: usize, arguments: &[&str]) -> Result<Vec<Setup>> {
        let listen: &[&str] = if count > 1 { &["--no-mdns", "--api", "0.0.0.0:6443"] } else { &["--no-mdns"] };
        let server = self.setup("farm", &[listen, arguments].concat())?;
        let agents = (1..count).map(|number| self.setup(&format!("m{number}"), arguments));
        std::iter::once(Ok(server)).chain(agents).collect()
    }
}

/// Starts the machines of one node: the first is its server, the others join it.
///
/// # Errors
/// When there is none, or one does not become ready.
pub fn together(setups: &[Setup]) -> Result<(Node, Vec<Node>)> {
    let (server, agents) = setups.split_first().context("a node without a machine")?;
    let node = server.start()?;
    let join = |agent: &Setup| agent.join(Some(&node.invite()?));
    let agents = agents.iter().map(join).collect::<Result<_>>()?;
    Ok((node, agents))
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut is_clean = true;
        let has_run =
            |setup: &&Setup| ["identity", "agent/agent.json"].iter().any(|part| setup.directory.join(part).exists());
        for setup in self.setups.iter().filter(has_run) {
            if let Err(error) = setup.reset() {
                eprintln!("{}: {error:#}", setup.name);
                is_clean = false;
            }
        }
        if !is_clean {
            // The directory says what else there is on the machine: without it nobody could take it away.
            eprintln!("not all is gone; what is left is told by {}", self.directory.display());
        } else if std::thread::panicking() {
            eprintln!("the nodes' logs are kept in {}", self.directory.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

//! A node as its owner runs it: `fluidos up` in a directory, and kubectl with the kubeconfig that it wrote.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::{NodeKey, fabric_prefix};
use serde_json::Value;

use crate::lan::Machine;
use crate::root;

/// A node is ready within this time or it is not started.
const READY: Duration = Duration::from_secs(30);

/// `kubectl port-forward` listens within this time.
const FORWARD: Duration = Duration::from_secs(30);

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub directory: PathBuf,
    /// Where it runs; `None` is the machine's own network.
    pub machine: Option<Machine>,
    /// Further arguments of `up`.
    pub arguments: Vec<String>,
    /// The program.
    pub program: PathBuf,
}

/// A running node. Dropping it kills the process; its containers go with [`Node::remove`].
#[derive(Debug)]
pub struct Node {
    /// How it was started.
    pub setup: Setup,
    /// How long it took until it was ready.
    pub ready_after: Duration,
    /// What it said when it was.
    pub ready_line: String,
    child: Child,
}

/// A running `kubectl port-forward`; dropping it ends it.
#[derive(Debug)]
pub struct Forward {
    /// Where it listens on the node's machine.
    pub address: String,
    child: Child,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    /// What it has said on standard error so far.
    pub fn complaints(&self) -> String {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that is tested: what cargo built, or what `FLUIDOS_BIN` names.
pub fn binary() -> PathBuf {
    match std::env::var_os("FLUIDOS_BIN") {
        Some(path) => path.into(),
        None => root().join("target/debug/fluidos"),
    }
}

/// The smaller program for machines that only join, beside the other.
pub fn agent_binary() -> PathBuf {
    binary().with_file_name("fluidos-agent")
}

/// kubectl: what the PATH has, else what `cargo xtask` brought.
pub fn kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("kubectl")).find(|file| file.exists());
    on_path.unwrap_or_else(|| root().join("target/tools/kubectl"))
}

impl Setup {
    /// A node of this name in `parent/NAME`.
    pub fn new(name: &str, parent: &Path) -> Self {
        Self {
            name: name.into(),
            directory: parent.join(name),
            machine: None,
            arguments: Vec::new(),
            program: binary(),
        }
    }

    /// A command on the machine of this node, whether it runs or not.
    pub fn command(&self, program: &Path) -> Command {
        match &self.machine {
            Some(machine) => {
                let enter = machine.enter();
                let mut command = Command::new(&enter[0]);
                command.args(&enter[1..]).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// Starts it and waits until it is ready. What it logs goes to `DIRECTORY.log`.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with the end of its log.
    pub fn start(&self) -> Result<Node> {
        let is_new = !self.directory.join("identity").exists();
        let node = self.begin(&["up", "--name", &self.name])?;
        if is_new && self.clashes()? {
            drop(node);
            self.reset()?;
            return self.start();
        }
        Ok(node)
    }

    /// Makes it an agent of another node by an invitation, or again what it is already, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Setup::start`].
    pub fn join(&self, invitation: Option<&str>) -> Result<Node> {
        match invitation {
            Some(string) => self.begin(&["join", string, "--name", &self.name]),
            None => self.begin(&["join"]),
        }
    }

    /// Whether a neighbour has the same addresses among peers: two fresh keys have the same range once in a thousand pairs, and such nodes
    /// exchange no packets, which no story is about.
    fn clashes(&self) -> Result<bool> {
        let range = |directory: &Path| -> Result<_> {
            let key = NodeKey::open(&directory.join("identity/node.key")).map_err(|error| anyhow!("{error}"))?;
            Ok(fabric_prefix(&key.id(), 0).v4_cidr())
        };
        let own = range(&self.directory)?;
        for entry in self.directory.parent().into_iter().flat_map(std::fs::read_dir).flatten().flatten() {
            let other = entry.path();
            if other != self.directory && other.join("identity/node.key").exists() && range(&other)? == own {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin(&self, verb: &[&str]) -> Result<Node> {
        let log_path = self.directory.with_extension("log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| log_path.display().to_string())?;
        let mut command = self.command(&self.program);
        command.args(verb).arg("--data-dir").arg(&self.directory).args(&self.arguments);
        // The machine that tests may be short of disk: that is for it to mind, and not for the pods of a story that says nothing of it.
        command.env("FLUIDOS_EVICTION_HARD", "memory.available<10Mi");
        // Which runtime a machine happens to have is no part of a story that names none.
        if !self.arguments.iter().any(|argument| argument == "--container-runtime-endpoint") {
            command.env("FLUIDOS_DEFAULT_RUNTIME", "oci");
        }
        // A group of its own: Ctrl-C at the terminal is the story's to handle, not the node's.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", self.name))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        match lines.recv_timeout(READY) {
            Ok(line) if line.starts_with("ready ") => {
                Ok(Node { setup: self.clone(), ready_after: begun.elapsed(), ready_line: line, child })
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let text = std::fs::read_to_string(&log_path).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(8).collect();
                bail!(
                    "{} is not ready ({other:?}); its log ends:\n{}",
                    self.name,
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                )
            }
        }
    }

    /// Runs `fluidos` with arguments on the node's machine, with its directory as `--data-dir` in the environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn fluidos(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(&self.program);
        command.args(arguments).env("FLUIDOS_DATA_DIR", &self.directory).env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null()).output().with_context(|| format!("fluidos {}", arguments.join(" ")))
    }

    /// Takes everything of the node off the machine; it must not be running. If its machine is gone, that of this process
    /// has the processes, mounts and cgroups all the same.
    ///
    /// # Errors
    /// What `fluidos reset` says.
    pub fn reset(&self) -> Result<String> {
        let machine = self.machine.clone().filter(Machine::exists);
        let output = Self { machine, ..self.clone() }.fluidos(&["reset", "--yes", "--identity"])?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Loads an image into the node.
    ///
    /// # Errors
    /// What `fluidos image load` says.
    pub fn load(&self, layout: &Path) -> Result<()> {
        let output = self.fluidos(&["image", "load", &layout.display().to_string()])?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The kubeconfig that the node wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// A kubectl command on this node.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.client(&kubectl());
        command.args(arguments);
        command
    }

    /// A client of the API on the node's machine, with the kubeconfig that the node wrote.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = self.command(program);
        command.env("KUBECONFIG", self.kubeconfig());
        // A cache of its own: another node may have the same address.
        command.env("KUBECACHEDIR", self.directory.join("kubectl-cache"));
        command
    }
}

impl Node {
    /// The string by which other machines join this node.
    ///
    /// # Errors
    /// What `fluidos invite --agent` says.
    pub fn invite(&self) -> Result<String> {
        let output = self.setup.fluidos(&["invite", "--agent"])?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.setup.kubectl_command(arguments).stdin(Stdio::null()).output().context("kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What kubectl prints when it is given `input`, and whether it succeeded.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        use std::io::Write;
        let mut command = self.setup.kubectl_command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes()); // it may end without reading all
        }
        child.wait_with_output().context("kubectl")
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When kubectl fails, with what it says.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let output = self.kubectl_with(&["apply", "-f", "-"], manifest)?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// When kubectl fails, with what it says.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// `kubectl port-forward` to a port of a pod, when it listens.
    ///
    /// # Errors
    /// When it says no port within 10 s.
    pub fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        let arguments = ["port-forward", "--address", "127.0.0.1", pod, &format!(":{port}")];
        let mut command = self.setup.kubectl_command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl port-forward")?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
        let stderr = child.stderr.take().ok_or_else(|| anyhow!("no standard error"))?;
        let mut forward = Forward { child, address: String::new(), complaints: Arc::default() };
        let complaints = forward.complaints.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                complaints.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line); // only the first is asked for; the rest must be read all the same
            }
        });
        let line = line.recv_timeout(FORWARD);
        let address = line.as_ref().ok().and_then(|l| l.strip_prefix("Forwarding from ")?.split(' ').next());
        match address {
            Some(address) => forward.address = address.to_owned(),
            None => bail!(
                "kubectl port-forward {pod} :{port} says {line:?} {:?}, needed a line \"Forwarding from ...\"",
                forward.complaints()
            ),
        }
        Ok(forward)
    }

    /// What a program on the node's machine gets from an address with HTTP.
    ///
    /// # Errors
    /// When nothing answers, with what was said.
    pub fn fetch(&self, address: &str) -> Result<String> {
        let url = format!("http://{address}/");
        let mut command = self.setup.command(Path::new("busybox"));
        let output = command.args(["wget", "-q", "-O", "-", &url]).stdin(Stdio::null()).output().context("busybox")?;
        if !output.status.success() {
            bail!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end within 20 s.
    pub fn terminate(mut self) -> Result<Setup> {
        crate::command::run("kill", &["-TERM", &self.pid().to_string()])?;
        let pid = self.pid();
        let child = &mut self.child;
        crate::wait::until(&format!("{} ends", self.setup.name), Duration::from_secs(20), || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("process {pid} runs")),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(self.setup.clone())
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(mut self) -> Setup {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.setup.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

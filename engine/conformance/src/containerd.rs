//! Debian's containerd and runc, from the machine or downloaded and unpacked beside the tests; nothing is installed. Where they cannot be had the
//! tests fail and say so: what is not tried is not known to work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A containerd with everything of it in one directory.
pub struct Containerd {
    directory: PathBuf,
    path: String,
    child: Option<Child>,
}

impl Containerd {
    /// Starts one in `directory`. What the machine has not is downloaded below `downloads`, which outlives the test (`CARGO_TARGET_TMPDIR`).
    /// `within` is how a command is begun where it is to run (`nsenter …`), or nothing.
    pub fn start(directory: &Path, downloads: &Path, within: &[&str]) -> Self {
        fs::create_dir_all(directory.join("cni")).unwrap();
        let shown = directory.display();
        let config = format!(
            r#"version = 2
root = "{shown}/root"
state = "{shown}/state"
[grpc]
address = "{shown}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{shown}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{shown}/cni/bin"
conf_dir = "{shown}/cni/net.d"
"#
        );
        fs::write(directory.join("containerd.toml"), config).unwrap();
        let mut containerd = Self { directory: directory.to_owned(), path: programs(downloads), child: None };
        containerd.again(within);
        containerd
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Starts it once more, after [`kill`](Self::kill).
    pub fn again(&mut self, within: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.directory.join("containerd.log")).unwrap();
        let words: Vec<&str> = within.iter().copied().chain(["containerd"]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("-c").arg(self.directory.join("containerd.toml")).env("PATH", &self.path);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.ctr(&["version"]).is_err() {
            let log = fs::read_to_string(self.directory.join("containerd.log")).unwrap();
            assert!(Instant::now() < deadline, "containerd does not answer: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it; what it runs goes on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
    }

    /// Asks it with its own command.
    ///
    /// # Errors
    /// What the command said.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.socket();
        let output = Command::new("ctr")
            .env("PATH", &self.path)
            .args(["-a", socket.to_str().unwrap(), "-n", "k8s.io"])
            .args(arguments)
            .output()
            .map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Gives it an image from a directory in the OCI layout.
    pub fn load(&self, layout: &Path, name: &str) {
        let archive = self.directory.join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(layout).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(tar.success());
        // A layout may name its image itself. Were its index called the same, too, the index would be nobody's: ctr reads it once more, and
        // containerd may have thrown it away by then.
        let named = fs::read_to_string(layout.join("index.json")).unwrap().contains(&format!("\"{name}\""));
        let index: &[&str] = if named { &[] } else { &["--index-name", name] };
        self.ctr(&[&["images", "import"][..], index, &[archive.to_str().unwrap()]].concat()).unwrap();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.kill();
        // What a case that failed has left of its pods: each shim has this socket in its command line.
        let socket = self.socket().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("containerd-shim") && line.contains(&socket) {
                let _ = Command::new("kill").arg("-9").arg(entry.file_name()).status();
            }
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let own = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for mount in own.filter(|at| Path::new(at).starts_with(&self.directory)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

/// A search path that leads to containerd, runc and ctr. What is downloaded comes over the network of who calls first; several may at once.
pub fn programs(downloads: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let on_path = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if ["containerd", "runc", "ctr", "containerd-shim-runc-v2"].into_iter().all(on_path) {
        return path;
    }
    fs::create_dir_all(downloads).unwrap();
    let alone = fs::File::create(downloads.join("containerd.lock")).unwrap();
    alone.lock().unwrap();
    let directory = downloads.join("containerd");
    let complete = directory.join("complete");
    if !complete.exists() {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        const NEEDED: &str = "needed for the tests with containerd: containerd and runc on the PATH, or apt-get and dpkg-deb with a source that has both packages";
        let run = |command: &mut Command| match command.current_dir(&directory).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("{NEEDED}; {command:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(e) => panic!("{NEEDED}; {command:?}: {e}"),
        };
        run(Command::new("apt-get").args(["download", "-qq", "containerd", "runc"]));
        let archives: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
        for archive in archives.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
            run(Command::new("dpkg-deb").arg("-x").arg(archive).arg("root"));
        }
        fs::write(complete, "").unwrap();
    }
    let root = directory.join("root/usr");
    format!("{}:{}:{path}", root.join("bin").display(), root.join("sbin").display())
}

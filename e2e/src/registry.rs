//! A registry of somebody else: Debian's `docker-registry`, on the machine of a node, for users with passwords.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::command::run;
use crate::node::Setup;
use crate::root;
use crate::wait::until;

/// Where it listens, on loopback: it is spoken to without TLS.
pub const DOMAIN: &str = "127.0.0.1:5000";

/// Users and their passwords, which are nobody's.
pub const USERS: [(&str, &str); 2] = [("ada", "flt-one"), ("bob", "flt-two")];
/// The same as the registry reads them (bcrypt).
const HTPASSWD: &str = "ada:$2b$04$UzwjA5kXDl05HQg8RHo09Oz56pH1R7KF24JyAmIwJ1ANI0dxaf2gy
bob:$2b$04$qIHvkyy70K9P3q/Lq9KTT.R52s8bwjOgKc/dYONJQU/5SQTMO0f..
";

/// A registry that runs; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    setup: Setup,
    child: Child,
}

impl Registry {
    /// Starts one on the node's machine, with what it has in `directory`.
    ///
    /// # Errors
    /// When the program cannot be had, or does not answer.
    pub fn start(setup: &Setup, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("users"), HTPASSWD)?;
        let config = directory.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: \"{DOMAIN}\"}}\nauth: {{htpasswd: {{realm: flt, path: {0}/users}}}}\n",
                directory.display()
            ),
        )?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = setup.client(&program()?);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let registry = Self { setup: setup.clone(), child: command.spawn().context("docker-registry")? };
        until("the registry", Duration::from_secs(20), || {
            registry.curl(&["-o", "/dev/null"], "/v2/").map_err(|error| error.to_string())
        })?;
        Ok(registry)
    }

    /// Puts an OCI layout into it, as `repository:tag`.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn push(&self, layout: &Path, repository: &str, tag: &str) -> Result<()> {
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let digest = index["manifests"][0]["digest"].as_str().context("a manifest")?;
        let file = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
        let manifest = file(digest);
        let parts: Value = serde_json::from_slice(&fs::read(&manifest)?)?;
        for blob in parts["layers"].as_array().into_iter().flatten().chain([&parts["config"]]) {
            let digest = blob["digest"].as_str().context("a digest")?;
            let begun = self.curl(&["-i", "-X", "POST"], &format!("/v2/{repository}/blobs/uploads/"))?;
            let place = begun.lines().find_map(|line| line.strip_prefix("Location: "));
            let place = place.ok_or_else(|| anyhow!("no place to put a blob: {begun}"))?.trim();
            let place = place.strip_prefix(&format!("http://{DOMAIN}")).unwrap_or(place);
            let (bytes, kind) = (format!("@{}", file(digest).display()), "Content-Type: application/octet-stream");
            self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &bytes], &format!("{place}&digest={digest}"))?;
        }
        let (bytes, kind) =
            (format!("@{}", manifest.display()), "Content-Type: application/vnd.oci.image.manifest.v1+json");
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &bytes], &path).map(drop)
    }

    fn curl(&self, arguments: &[&str], path: &str) -> Result<String> {
        let mut command = self.setup.client(Path::new("curl"));
        let (user, password) = USERS[0];
        command.args(["-sS", "--fail-with-body", "-u", &format!("{user}:{password}")]).args(arguments);
        let output = command.arg(format!("http://{DOMAIN}{path}")).stdin(Stdio::null()).output().context("curl")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{path}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// The program, from Debian's package, downloaded once.
fn program() -> Result<PathBuf> {
    let directory = root().join("target/packages/docker-registry");
    let program = directory.join("usr/bin/docker-registry");
    // Of this process one at a time; other processes have another place aside.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !program.exists() {
        let aside = directory.with_extension(std::process::id().to_string());
        fs::create_dir_all(&aside)?;
        let download = std::process::Command::new("apt-get")
            .args(["download", "-qq", "docker-registry"])
            .current_dir(&aside)
            .stderr(Stdio::null())
            .status()?;
        if !download.success() {
            bail!("apt-get download docker-registry: {download}; run apt-get update first");
        }
        for entry in fs::read_dir(&aside)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                run("dpkg-deb", &["-x", &path.display().to_string(), &aside.display().to_string()])?;
            }
        }
        if fs::rename(&aside, &directory).is_err() {
            fs::remove_dir_all(&aside)?; // somebody was faster
        }
    }
    Ok(program)
}

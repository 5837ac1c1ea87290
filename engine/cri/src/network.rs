//! A pod's network at a runtime that makes networks itself: it asks *plug-ins* for them (CNI 1.0), and ours puts the namespace that the pod has
//! already in the place of the one that the runtime made.
//!
//! ```text
//! sandbox(netns) ──▶ DIR/UID: the path of netns          runtime ── ADD, CNI_NETNS, K8S_POD_UID ──▶ plug-in
//!                                                                    CNI_NETNS now is netns ◀── mounted over it
//! ```
//!
//! So addresses, Services, policies and name look-ups of the pod are those of every other pod of the machine. What is mounted over stays below until
//! the runtime lets go of it: at no moment is there no namespace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::mounts;

/// Which pod has which namespace. Of the machine, not of a data directory: a runtime has one configuration for all who use it.
/// What is in it ends with the machine's run, as the namespaces do.
const DIR: &str = "/run/engine-cri/netns";
/// The configuration is small; who writes more is not a container runtime.
const CONFIGURATION_MAX: u64 = 1 << 20;
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// How the plug-in is called, and by what it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Its name, which is that of its file and of its configuration, too.
    pub name: String,
    /// The command line that leads to [`plugin`].
    pub command: Vec<OsString>,
}

/// Where a runtime looks for its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Places {
    /// Programs of plug-ins.
    #[serde(default)]
    pub bin_dir: PathBuf,
    /// Configurations, of which the first in the order of their names counts.
    #[serde(default)]
    pub conf_dir: PathBuf,
}

/// Notes which namespace a pod has.
pub(crate) fn note(pod_uid: &str, netns: &Path) -> io::Result<()> {
    fs::create_dir_all(DIR)?;
    fs::write(Path::new(DIR).join(pod_uid), netns.as_os_str().as_encoded_bytes())
}

/// Forgets it. Absence is fine.
pub(crate) fn forget(pod_uid: &str) -> io::Result<()> {
    absent(fs::remove_file(Path::new(DIR).join(pod_uid)))
}

/// Puts the plug-in where the runtime looks for it.
///
/// # Errors
/// Another network is configured there; or a file cannot be written.
pub(crate) fn install(places: &Places, plugin: &Plugin) -> Result<(), String> {
    let (conf, program) = files(places, &plugin.name);
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| format!("{what} {}: {e}", path.display())
    };
    if let Some(other) = other(&places.conf_dir, &conf) {
        return Err(format!(
            "{} configures another network for the container runtime's pods; theirs would not reach this node's Services: remove it, or run these pods with the handler \"oci\"",
            other.display()
        ));
    }
    for dir in [&places.bin_dir, &places.conf_dir] {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
    }
    write_program(&program, &plugin.command).map_err(failed("write", &program))?;
    // containerd wants this one to set up a namespace's own device, which ours has set up already.
    let loopback = places.bin_dir.join("loopback");
    if !loopback.exists() {
        write_program(&loopback, &plugin.command).map_err(failed("write", &loopback))?;
    }
    let text = json!({ "cniVersion": "0.4.0", "name": plugin.name, "plugins": [{ "type": plugin.name }] }).to_string();
    if fs::read_to_string(&conf).is_ok_and(|is| is == text) {
        return Ok(()); // the runtime reads it again whenever it is written
    }
    engine_host::files::write_durably(&conf, text.as_bytes(), 0o644).map_err(failed("write", &conf))
}

/// Takes the plug-in away. Absence is fine.
pub(crate) fn uninstall(places: &Places, plugin: &Plugin) -> io::Result<()> {
    let (conf, program) = files(places, &plugin.name);
    let loopback = places.bin_dir.join("loopback");
    let is_ours = fs::read(&loopback).is_ok_and(|text| text == script(&plugin.command));
    absent(fs::remove_file(conf))?;
    absent(fs::remove_file(program))?;
    if is_ours { absent(fs::remove_file(loopback)) } else { Ok(()) }
}

fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn files(places: &Places, name: &str) -> (PathBuf, PathBuf) {
    (places.conf_dir.join(format!("10-{name}.conflist")), places.bin_dir.join(name))
}

/// A configuration of the network of pods that nobody here has made.
pub(crate) fn of_others(dir: &Path) -> Option<PathBuf> {
    other(dir, Path::new(""))
}

/// A configuration that is not ours.
fn other(dir: &Path, own: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|end| ["conf", "conflist", "json"].iter().any(|one| end == *one)) && path != own
    };
    found.into_iter().find(is_one)
}

fn write_program(path: &Path, command: &[OsString]) -> io::Result<()> {
    let text = script(command);
    if fs::read(path).is_ok_and(|is| is == text) {
        return Ok(());
    }
    engine_host::files::write_durably(path, &text, 0o755)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A program that runs a command line.
fn script(command: &[OsString]) -> Vec<u8> {
    let mut text = b"#!/bin/sh\nexec".to_vec();
    for word in command {
        text.extend_from_slice(b" '");
        for byte in word.as_encoded_bytes() {
            match byte {
                b'\'' => text.extend_from_slice(b"'\\''"),
                byte => text.push(*byte),
            }
        }
        text.push(b'\'');
    }
    text.push(b'\n');
    text
}

/// The plug-in's `main`: `CNI_COMMAND` and the like say what is to be done. To be called while the process has one thread.
pub fn plugin() -> ExitCode {
    let environment: BTreeMap<String, String> = std::env::vars().filter(|(name, _)| name.starts_with("CNI_")).collect();
    let mut configuration = Vec::new();
    let read = io::stdin().lock().take(CONFIGURATION_MAX).read_to_end(&mut configuration);
    let done = read.map_err(|e| e.to_string()).and_then(|_| answer(&environment, &configuration));
    let (text, code) = match done {
        Ok(text) => (text, ExitCode::SUCCESS),
        // 999 is nobody's: codes below 100 are the specification's own.
        Err(why) => (json!({ "cniVersion": "0.4.0", "code": 999, "msg": why }).to_string(), ExitCode::FAILURE),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(environment: &BTreeMap<String, String>, configuration: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(rename = "cniVersion", default)]
        version: String,
        #[serde(rename = "type", default)]
        kind: String,
    }
    let of = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
    let configuration: Configuration =
        serde_json::from_slice(configuration).map_err(|e| format!("the configuration cannot be read: {e}"))?;
    let netns = Path::new(of("CNI_NETNS"));
    match of("CNI_COMMAND") {
        "VERSION" => Ok(json!({ "cniVersion": "0.4.0", "supportedVersions": VERSIONS }).to_string()),
        "ADD" if configuration.kind == "loopback" => {
            Ok(json!({ "cniVersion": configuration.version, "interfaces": [], "ips": [] }).to_string())
        }
        "ADD" => {
            let own = noted(of("CNI_ARGS"))?;
            if !same(netns, &own) {
                mount(Some(&own), netns, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .map_err(|e| format!("show {} at {}: {e}", own.display(), netns.display()))?;
            }
            let address = address(&own)?;
            let device = of("CNI_IFNAME");
            let ip = json!({ "version": "4", "interface": 0, "address": format!("{address}/32") });
            let interface = json!({ "name": device, "sandbox": netns });
            Ok(json!({ "cniVersion": configuration.version, "interfaces": [interface], "ips": [ip] }).to_string())
        }
        "DEL" if configuration.kind == "loopback" => Ok(String::new()),
        "DEL" => {
            // The runtime takes its own away, which is the lowest.
            let Ok(netns) = fs::canonicalize(netns) else { return Ok(String::new()) };
            while mounts::layers_at(&netns).map_err(|e| e.to_string())? > 1 {
                umount2(&netns, MntFlags::MNT_DETACH).map_err(|e| format!("unmount {}: {e}", netns.display()))?;
            }
            Ok(String::new())
        }
        "CHECK" => Ok(String::new()),
        other => Err(format!("CNI_COMMAND is {other:?}, needed ADD, DEL, CHECK or VERSION")),
    }
}

/// The namespace of the pod that these arguments (`NAME=VALUE;…`) tell of.
fn noted(arguments: &str) -> Result<PathBuf, String> {
    let uid = arguments.split(';').find_map(|pair| pair.strip_prefix("K8S_POD_UID=")).unwrap_or_default();
    let is_name = !uid.is_empty() && !uid.starts_with('.') && !uid.contains('/');
    let path = is_name.then(|| fs::read(Path::new(DIR).join(uid)).ok()).flatten();
    let path = path.map(|bytes| PathBuf::from(String::from_utf8_lossy(&bytes).into_owned()));
    let found = path.filter(|path| statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC));
    found.ok_or_else(|| format!("pod {uid:?} has no network namespace here: it belongs to another node or kubelet"))
}

/// Whether two files are the same namespace.
pub(crate) fn same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    of(one).is_some() && of(one) == of(other)
}

/// The address that a namespace has. The process goes into it and stays.
fn address(netns: &Path) -> Result<Ipv4Addr, String> {
    let failed = |e: String| format!("look into {}: {e}", netns.display());
    let file = File::open(netns).map_err(|e| failed(e.to_string()))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.to_string()))?;
    let all = nix::ifaddrs::getifaddrs().map_err(|e| failed(e.to_string()))?;
    let of = |found: nix::ifaddrs::InterfaceAddress| Some(found.address?.as_sockaddr_in()?.ip());
    all.filter_map(of).find(|ip| !ip.is_loopback()).ok_or_else(|| failed("it has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn installed_once_and_not_beside_another() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { bin_dir: dir.path().join("bin"), conf_dir: dir.path().join("conf") };
        let plugin = Plugin { name: "flt".into(), command: vec!["/o'p t/x".into(), "net".into()] };
        install(&places, &plugin).unwrap();
        install(&places, &plugin).unwrap();
        let text = fs::read_to_string(places.bin_dir.join("flt")).unwrap();
        assert_eq!(text, "#!/bin/sh\nexec '/o'\\''p t/x' 'net'\n");
        fs::write(places.bin_dir.join("loopback"), "of others").unwrap();
        uninstall(&places, &plugin).unwrap();
        uninstall(&places, &plugin).unwrap();
        let left: Vec<_> = fs::read_dir(&places.bin_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["loopback"]);
        fs::write(places.conf_dir.join("05-other.conflist"), "{}").unwrap();
        assert!(install(&places, &plugin).unwrap_err().contains("05-other.conflist configures another network"));
    }

    #[test]
    fn who_is_not_ours_gets_no_network() {
        let all = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let add = all(&[("CNI_COMMAND", "ADD"), ("CNI_ARGS", "K8S_POD_UID=../../etc/passwd"), ("CNI_NETNS", "/x")]);
        assert!(answer(&add, br#"{"type":"flt"}"#).unwrap_err().contains("has no network namespace here"));
        let version = answer(&all(&[("CNI_COMMAND", "VERSION")]), b"{}").unwrap();
        assert!(version.contains("supportedVersions"));
        assert!(answer(&all(&[]), b"{}").unwrap_err().contains("needed ADD"));
    }
}

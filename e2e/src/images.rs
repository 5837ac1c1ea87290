//! Images of real third-party programs, packed on this machine as OCI layouts: the programs come from Debian packages, with
//! exactly the libraries that they need. No registry and no container engine takes part.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::root;

/// Packages that the programs and their libraries come from.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "nginx",
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libc6",
    "libcap2",
    "libcrypt1",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "libhiredis0.14",
    "libjemalloc2",
    "liblz4-1",
    "liblzf1",
    "liblzma5",
    "libpcre2-8-0",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
];

/// An image that can be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// A shell and small tools.
    Busybox,
    /// nginx.
    Nginx,
    /// The redis server.
    Redis,
    /// busybox with the redis client.
    RedisClient,
    /// What other runtimes keep a pod's namespaces with: busybox that sleeps.
    Pause,
}

impl Image {
    /// What it is called.
    pub fn reference(self) -> &'static str {
        match self {
            Self::Busybox => "docker.io/library/busybox:1",
            Self::Nginx => "docker.io/library/nginx:1",
            Self::Redis => "docker.io/library/redis:7",
            Self::RedisClient => "docker.io/library/redis-client:7",
            Self::Pause => "docker.io/library/pause:1",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Busybox | Self::Pause => &["bin/busybox"],
            Self::Nginx => &["usr/sbin/nginx", "bin/busybox"],
            Self::Redis => &["usr/bin/redis-server", "usr/bin/redis-cli", "bin/busybox"],
            Self::RedisClient => &["usr/bin/redis-cli", "bin/busybox"],
        }
    }

    fn config(self) -> Value {
        let path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        match self {
            Self::Busybox | Self::RedisClient => json!({ "Env": [path], "Cmd": ["sh"] }),
            Self::Pause => json!({ "Env": [path], "Entrypoint": ["sleep", "2147483647"] }),
            Self::Nginx => {
                json!({ "Env": [path], "Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": { "80/tcp": {} } })
            }
            Self::Redis => json!({ "Env": [path], "Cmd": ["redis-server"], "ExposedPorts": { "6379/tcp": {} } }),
        }
    }

    /// The OCI layout of this image; packed on first use and kept in `target/images`.
    ///
    /// # Errors
    /// When a package cannot be had or a library is missing.
    pub fn layout(self) -> Result<PathBuf> {
        let name = self.reference().rsplit('/').next().unwrap_or_default().replace(':', "-");
        let layout = root().join("target/images").join(name);
        // Of this process one at a time; other processes have another place aside.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !layout.join("index.json").exists() {
            // Aside and then in place: a half packed image must not be taken for one, and several tests may pack at once.
            let aside = layout.with_extension(std::process::id().to_string());
            let _ = fs::remove_dir_all(&aside);
            if let Err(error) = self.pack(&aside) {
                let _ = fs::remove_dir_all(&aside); // what came first is what there is to say
                return Err(error.context(format!("pack {}", self.reference())));
            }
            if fs::rename(&aside, &layout).is_err() {
                fs::remove_dir_all(&aside)?; // somebody was faster
            }
        }
        Ok(layout)
    }

    fn pack(self, layout: &Path) -> Result<()> {
        let files = packages()?;
        let rootfs = layout.join("rootfs");
        for directory in [
            "bin",
            "dev",
            "etc",
            "proc",
            "run",
            "sys",
            "tmp",
            "root",
            "var/log/nginx",
            "var/lib/nginx",
            "usr/bin",
            "usr/sbin",
            "usr/share/nginx/html",
        ] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        for program in self.programs() {
            let source = inside(&files, Path::new(program))?;
            fs::copy(&source, rootfs.join(program))?;
            for library in libraries(&files, &source)? {
                let target = rootfs.join(library.strip_prefix("/").unwrap_or(&library));
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::copy(inside(&files, &library)?, target)?;
            }
        }
        for applet in run("chroot", &[&rootfs.display().to_string(), "/bin/busybox", "--list"])?.lines() {
            let link = rootfs.join("bin").join(applet);
            if applet != "busybox" && !link.exists() {
                std::os::unix::fs::symlink("busybox", link)?;
            }
        }
        write_layout(layout, &rootfs, self.reference(), self.config())?;
        fs::remove_dir_all(rootfs)?;
        Ok(())
    }
}

/// The unpacked packages, downloaded once.
fn packages() -> Result<PathBuf> {
    let directory = root().join("target/packages");
    let done = directory.join("unpacked");
    let list = PACKAGES.join(" ");
    if fs::read_to_string(done.join("complete")).is_ok_and(|of| of == list) {
        return Ok(done);
    }
    fs::create_dir_all(&directory)?;
    let status = Command::new("apt-get")
        .args(["download", "-qq"])
        .args(PACKAGES)
        .current_dir(&directory)
        .stderr(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        bail!("apt-get download {}: {status}; run apt-get update first", PACKAGES.join(" "));
    }
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            run("dpkg-deb", &["-x", &path.display().to_string(), &done.display().to_string()])?;
        }
    }
    fs::write(done.join("complete"), list)?;
    Ok(done)
}

/// The file that `path` names within `files`, where absolute links begin at `files` and not at this machine's root.
fn inside(files: &Path, path: &Path) -> Result<PathBuf> {
    let mut at = files.join(path.strip_prefix("/").unwrap_or(path));
    for _ in 0..8 {
        match fs::read_link(&at) {
            Ok(target) if target.is_absolute() => at = files.join(target.strip_prefix("/").unwrap_or(&target)),
            Ok(target) => at = at.parent().unwrap_or(files).join(target),
            Err(_) => return Ok(at),
        }
    }
    bail!("{} is a loop of links", path.display())
}

/// Libraries of a program, as paths inside `files`, found by following what each one says it needs.
fn libraries(files: &Path, program: &Path) -> Result<BTreeSet<PathBuf>> {
    let directories =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
    let (mut open, mut found) = (vec![program.to_owned()], BTreeSet::new());
    while let Some(file) = open.pop() {
        let text = run("readelf", &["-ld", &file.display().to_string()])?;
        let interpreter =
            text.lines().filter_map(|l| l.trim().strip_prefix("[Requesting program interpreter: ")?.strip_suffix(']'));
        let needed = text.lines().filter_map(|l| l.split_once("Shared library: [")?.1.split(']').next());
        for name in needed {
            let Some(path) = directories.iter().map(|d| Path::new(d).join(name)).find(|p| files.join(p).exists())
            else {
                bail!("{} needs {name}, which no package of the list brings", file.display());
            };
            if found.insert(Path::new("/").join(&path)) {
                open.push(inside(files, &path)?);
            }
        }
        found.extend(interpreter.map(PathBuf::from));
    }
    Ok(found)
}

/// Writes the OCI layout of an image that is one module or component of WebAssembly and nothing else.
///
/// # Errors
/// When a file cannot be written.
pub fn webassembly(layout: &Path, reference: &str, bytes: &[u8]) -> Result<()> {
    let layer = blob(layout, bytes, "application/wasm")?;
    let config = json!({ "architecture": "wasm", "os": "wasip2", "layerDigests": [layer["digest"]] });
    name(layout, reference, &config, "application/vnd.wasm.config.v0+json", &layer)
}

fn write_layout(layout: &Path, rootfs: &Path, reference: &str, config: Value) -> Result<()> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", rootfs)?;
    let layer = blob(layout, &archive.into_inner()?, "application/vnd.oci.image.layer.v1.tar")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    name(layout, reference, &config, "application/vnd.oci.image.config.v1+json", &layer)
}

fn blob(layout: &Path, bytes: &[u8], media: &str) -> Result<Value> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    fs::write(blobs.join(&hex), bytes)?;
    Ok(json!({ "mediaType": media, "digest": format!("sha256:{hex}"), "size": bytes.len() }))
}

fn name(layout: &Path, reference: &str, config: &Value, media: &str, layer: &Value) -> Result<()> {
    let config = blob(layout, config.to_string().as_bytes(), media)?;
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer] });
    let mut manifest = blob(layout, manifest.to_string().as_bytes(), media)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

//! A virtual machine that boots Debian's kernel: what most users' machines look like, whatever this one does. It is emulated
//! by QEMU without help of the processor, so it is slow (a minute for a story) and works where nested virtual machines do not.
//!
//! ```text
//! kernel package ─┐
//! programs + libs ─┼─▶ initramfs ─▶ qemu ─▶ serial console: what the script prints
//! script ─────────┘      └ /init: moves to a tmpfs (a container cannot pivot from an initramfs), mounts, runs the script
//! ```

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::root;

/// The package whose dependency is the newest kernel of this Debian, small and made for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Modules that a node needs, as folders and files below `kernel/`.
const MODULES: &[&str] = &[
    "net",
    "fs/overlayfs",
    "lib",
    "crypto",
    "drivers/block/virtio_blk.ko",
    "drivers/virtio",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
];
/// Enough for the programs, which live in memory, and for what runs.
const MEMORY_MIB: u32 = 2048;
/// What the script's output ends with.
const END: &str = "flt-vm-end";

/// Prepares the machine's first process; the story's script follows it.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin HOME=/root
if [ ! -e /moved ]; then
  /bin/busybox --install -s /bin
  mount -t tmpfs -o size=90% none /new
  for d in /*; do case $d in /new|/dev|/proc|/sys) ;; *) cp -a "$d" /new/ ;; esac; done
  mkdir -p /new/dev /new/proc /new/sys /new/tmp /new/run
  touch /new/moved
  exec switch_root /new /init
fi
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
modprobe tun
modprobe virtio_pci
modprobe virtio_blk
sh /story < /dev/null 2>&1
echo flt-vm-end
poweroff -f
"#;

/// Boots the machine with these files (source, and where they are inside), runs the script there and returns what it said.
/// Programs bring their libraries; busybox is there.
///
/// # Errors
/// When the machine cannot be made, or the script has not ended within `limit`, with what it said until then.
pub fn story(script: &str, files: &[(&Path, &str)], limit: Duration) -> Result<String> {
    boot(script, files, None, |text| text.contains(END), limit)
        .map(|told| told.split_once(END).map_or(told.clone(), |(told, _)| told.to_owned()))
}

/// As [`story`], on a machine with a disk (`/dev/vda`), which is killed as soon as `enough` was said: its disk keeps what was written to it, and
/// nothing that its kernel still had in memory.
///
/// # Errors
/// When the machine cannot be made, or not enough was said within `limit`.
pub fn power_loss(
    script: &str,
    files: &[(&Path, &str)],
    disk: &Path,
    enough: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<String> {
    boot(script, files, Some(disk), enough, limit)
}

fn boot(
    script: &str,
    files: &[(&Path, &str)],
    disk: Option<&Path>,
    enough: impl Fn(&str) -> bool,
    limit: Duration,
) -> Result<String> {
    let kernel = kernel()?;
    let place = tempfile::Builder::new().prefix("flt-vm-").tempdir()?;
    let image = place.path().join("initramfs");
    pack(&kernel, script, files, &place.path().join("root"), &image)?;
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", &MEMORY_MIB.to_string()])
        .args(["-nographic", "-no-reboot", "-net", "none"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&image)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .args(disk.iter().flat_map(|disk| ["-drive".into(), format!("file={},format=raw,if=virtio", disk.display())]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("qemu-system-x86_64")?;
    let told = listen(machine.stdout.take().context("no console")?, enough, limit);
    let _ = machine.kill(); // it has switched itself off, or has had its time
    machine.wait()?;
    told
}

/// What comes over the console until it is enough.
fn listen(mut console: impl Read + Send + 'static, enough: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
    let (sender, parts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut part) {
            if sender.send(part[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let (deadline, mut bytes) = (Instant::now() + limit, Vec::new());
    loop {
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        if enough(&text) {
            return Ok(text);
        }
        match parts.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(part) => bytes.extend(part),
            Err(reason) => bail!("the virtual machine did not come to its end within {limit:?} ({reason}):\n{text}"),
        }
    }
}

struct Kernel {
    image: PathBuf,
    /// `lib/modules/RELEASE`.
    modules: PathBuf,
}

/// The kernel of this Debian, downloaded once.
fn kernel() -> Result<Kernel> {
    let directory = root().join("target/packages/kernel");
    let unpacked = directory.join("unpacked");
    if !unpacked.join("complete").exists() {
        fs::create_dir_all(&directory)?;
        let depends = run("apt-cache", &["depends", KERNEL])?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).context("no kernel")?;
        let status = Command::new("apt-get")
            .args(["download", "-qq", package])
            .current_dir(&directory)
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("apt-get download {package}: {status}; run apt-get update first");
        }
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                run("dpkg-deb", &["-x", &path.display().to_string(), &unpacked.display().to_string()])?;
            }
        }
        fs::write(unpacked.join("complete"), package)?;
    }
    let first = |folder: &str, prefix: &str| -> Result<PathBuf> {
        let entries = fs::read_dir(unpacked.join(folder))?.flatten().map(|entry| entry.path());
        let mut named = entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
        named.next().with_context(|| format!("the kernel package has no {folder}/{prefix}…"))
    };
    Ok(Kernel { image: first("boot", "vmlinuz")?, modules: first("lib/modules", "")? })
}

/// Writes the initramfs.
fn pack(kernel: &Kernel, script: &str, files: &[(&Path, &str)], tree: &Path, image: &Path) -> Result<()> {
    for directory in ["bin", "sbin", "dev", "proc", "sys", "tmp", "run", "root", "new"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh"))?;
    // The kernel calls it for what it needs and has not loaded.
    std::os::unix::fs::symlink("/bin/busybox", tree.join("sbin/modprobe"))?;
    let release = kernel.modules.file_name().context("no release")?.to_string_lossy().into_owned();
    let modules = tree.join("lib/modules").join(&release);
    for part in MODULES {
        copy(&kernel.modules.join("kernel").join(part), &modules.join("kernel").join(part))?;
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&kernel.modules.join(list), &modules.join(list))?;
    }
    run("depmod", &["-b", &tree.display().to_string(), &release])?;
    for (source, inside) in files {
        let target = tree.join(inside.trim_start_matches('/'));
        copy(source, &target)?;
        if source.is_file() {
            libraries(source, tree)?;
            // Without its lines and names a program of a debug build is a tenth as large; what is no program stays.
            let _ = crate::command::output("strip", &[&target.display().to_string()]);
        }
    }
    fs::write(tree.join("story"), script)?;
    fs::write(tree.join("init"), INIT)?;
    run("chmod", &["755", &tree.join("init").display().to_string()])?;
    let packing = format!("cd {} && find . | cpio --quiet -o -H newc > {}", tree.display(), image.display());
    run("sh", &["-c", &packing])?;
    Ok(fs::remove_dir_all(tree)?)
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    run("cp", &["-rL", &source.display().to_string(), &target.display().to_string()])?;
    Ok(())
}

/// The libraries of a program of this machine, at the same places; a static one has none.
fn libraries(program: &Path, tree: &Path) -> Result<()> {
    let output = crate::command::output("ldd", &[&program.display().to_string()])?;
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let target = tree.join(word.trim_start_matches('/'));
        if !target.exists() {
            copy(Path::new(word), &target)?;
        }
    }
    Ok(())
}

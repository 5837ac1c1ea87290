//! A virtual machine that boots Debian's kernel: what most users' machines look like, whatever this one does. It is emulated
//! by QEMU without help of the processor, so it is slow (a minute for a story) and works where nested virtual machines do not.
//!
//! ```text
//! kernel package ─┐
//! programs + libs ─┼─▶ initramfs ─▶ qemu ─▶ serial console: what the script prints
//! script ─────────┘      └ /init: moves to a tmpfs (a container cannot pivot from an initramfs), mounts, runs the script
//! disk, cable ────────────────────────▶ /dev/vda, eth0
//! ```

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::lan::Machine;
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
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];
/// Enough for the programs, which live in memory, and for what runs.
const MEMORY_MIB: u32 = 2048;
/// What is said before the script's output, and what that ends with.
const BEGIN: &str = "flt-vm-begin";
const END: &str = "flt-vm-end";
/// An emulated machine on a busy one.
const BOOT: Duration = Duration::from_secs(180);

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
modprobe virtio_net
echo flt-vm-begin
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
    let told = VirtualMachine::boot(script, files, None, None)?.says(|text| text.contains(END), limit)?;
    Ok(told.split_once(END).map_or(told.clone(), |(told, _)| told.to_owned()))
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
    VirtualMachine::boot(script, files, Some(disk), None)?.says(enough, limit)
}

/// A machine that runs. Its power is cut when it is dropped.
#[derive(Debug)]
pub struct VirtualMachine {
    process: Child,
    console: mpsc::Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl VirtualMachine {
    /// Boots a machine as [`story`] does, with a disk (`/dev/vda`), and in the place of a machine of a LAN: it has the cable (`eth0`, without an address).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn boot(script: &str, files: &[(&Path, &str)], disk: Option<&Path>, place: Option<&Machine>) -> Result<Self> {
        let kernel = kernel()?;
        let made = tempfile::Builder::new().prefix("flt-vm-").tempdir()?;
        let image = made.path().join("initramfs");
        pack(&kernel, script, files, &made.path().join("root"), &image)?;
        let mut words: Vec<String> = place.map(Machine::enter).into_iter().flatten().collect();
        words.push("qemu-system-x86_64".into());
        let mut machine = Command::new(&words[0]);
        machine
            .args(&words[1..])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", &MEMORY_MIB.to_string()])
            .args(["-nographic", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&image)
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
        if let Some(disk) = disk {
            machine.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.display()));
        }
        match place {
            Some(place) => {
                let tap = place.tap()?;
                machine.arg("-netdev").arg(format!("tap,id=cable,ifname={tap},script=no,downscript=no"));
                machine.args(["-device", "virtio-net-pci,netdev=cable,romfile="])
            }
            None => machine.args(["-net", "none"]),
        };
        let mut process = machine
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("qemu-system-x86_64")?;
        let console = listen(process.stdout.take().context("no console")?);
        let mut booted = Self { process, console, said: Vec::new() };
        // It reads the files while it boots.
        booted.says(|text| text.contains(BEGIN), BOOT)?;
        Ok(booted)
    }

    /// All that it has said over the console, once that is enough.
    ///
    /// # Errors
    /// When it was not enough within `limit`, with what it said until then.
    pub fn says(&mut self, enough: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let text = String::from_utf8_lossy(&self.said).replace('\r', "");
            if enough(&text) {
                return Ok(text);
            }
            match self.console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.said.extend(part),
                Err(reason) => bail!("the virtual machine did not say it within {limit:?} ({reason}):\n{text}"),
            }
        }
    }

    /// Types a line at the console (`/dev/ttyS0`).
    ///
    /// # Errors
    /// When nobody is there.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let mut keyboard = self.process.stdin.as_ref().context("no keyboard")?;
        Ok(writeln!(keyboard, "{line}")?)
    }
}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has switched itself off, or has had its time
        let _ = self.process.wait();
    }
}

/// What comes over the console.
fn listen(mut console: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, parts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = console.read(&mut part) {
            if sender.send(part[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    parts
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

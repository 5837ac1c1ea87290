//! What is around a container of a fenced pod beside namespaces, user, capabilities and seccomp: Landlock, in two layers.
//!
//! ```text
//! supervisor ─▶ scope    one domain of the whole pod: signals and abstract sockets end there
//! container  ─▶ files    one domain of its own: which files are read, written, run
//! command    ─▶ files    another one by the same rules
//! ```
//!
//! Two, because a scope that each container had for itself would part a command (`kubectl exec`, a hook) from the program it is to signal;
//! and because who is kept from files may not mount. What Landlock does not know stays with the mounts: nothing that can be written to can
//! be run (`noexec`), also not by the loader. Its rules are about directories, not mounts: one that is mounted twice has what both may, and only
//! the mounts tell them apart.

use std::io;

use landlock::{ABI, AccessFs, BitFlags, PathBeneath, RulesetCreatedAttr, RulesetStatus};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::process::{self, PROGRAMS};
use crate::{ContainerConfig, Root, SandboxConfig};

type Rights = BitFlags<AccessFs>;

/// Keeps this process and all that it starts within the pod. Needs CAP_SYS_ADMIN.
pub(super) fn scope(config: &SandboxConfig) -> io::Result<()> {
    if let Some(why) = process::missing() {
        return Err(io::Error::other(format!("the handler {}: {why}; {}", process::HANDLER, process::REMEDY)));
    }
    match process::scopes() {
        Ok(rules) => rules.no_new_privs(false).restrict_self().map(drop).map_err(failed),
        // Without the machine's network and processes there is nobody to reach.
        Err(_) if config.netns.is_some() => Ok(()),
        Err(e) => Err(io::Error::other(format!(
            "the handler {} cannot keep a pod with hostNetwork from the machine's abstract sockets ({e}): use a kernel from Linux 6.12 on, or \
             a network of its own",
            process::HANDLER
        ))),
    }
}

/// Why this container cannot be behind the fences, or not without them.
pub(super) fn refused(config: &ContainerConfig) -> Option<String> {
    let handler = process::HANDLER;
    if !config.fenced {
        let is_machine = matches!(config.root, Root::Machine);
        return is_machine.then(|| format!("programs of the machine run with the handler {handler} only"));
    }
    if config.privileged {
        return Some(format!("privileged: the handler {handler} has no way through its fences; use the handler oci"));
    }
    (config.host_pid && !process::has_scopes()).then(|| {
        format!(
            "hostPID: the handler {handler} cannot keep it from signalling the machine's processes; use a kernel from Linux 6.12 on, or \
             processes of its own"
        )
    })
}

/// Confines this process to the container's files. Needs CAP_SYS_ADMIN, and the container's root as its own.
pub(super) fn files(config: &ContainerConfig) -> io::Result<()> {
    let mut rules = process::ruleset().map_err(failed)?;
    for (path, rights) in rights(config) {
        let fd = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => continue, // nothing is allowed there
            Err(e) => return Err(io::Error::other(format!("Landlock: open {path}: {e}"))),
        };
        let is_dir = nix::sys::stat::fstat(&fd)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
        let rights = if is_dir { rights } else { rights & AccessFs::from_file(ABI::V5) };
        rules = rules.add_rule(PathBeneath::new(fd, rights)).map_err(failed)?;
    }
    let status = rules.no_new_privs(false).restrict_self().map_err(failed)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            Err(io::Error::other("Landlock: the kernel took the rules and does not follow them"))
        }
        _ => Ok(()),
    }
}

/// What may be done below which paths; everything else may not. Pure.
fn rights(config: &ContainerConfig) -> Vec<(&str, Rights)> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    // Devices are the machine's to make.
    let write = read | AccessFs::from_write(ABI::V5) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let devices = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut all: Vec<(&str, Rights)> = match config.root {
        Root::Layers { .. } | Root::Image { .. } => vec![("/", run)],
        Root::Machine => {
            let programs = PROGRAMS.iter().map(|dir| (*dir, run));
            programs.chain(["/etc", "/proc", "/sys"].map(|dir| (dir, read))).collect()
        }
    };
    all.extend([("/dev", devices), ("/dev/shm", write), ("/dev/mqueue", write), ("/tmp", write)]);
    let mounts = config.mounts.iter().filter_map(|m| Some((m.destination.to_str()?, m.read_only)));
    all.extend(mounts.map(|(path, is_read_only)| (path, if is_read_only { run } else { write })));
    all
}

fn failed(e: landlock::RulesetError) -> io::Error {
    io::Error::other(format!("Landlock: {e}"))
}

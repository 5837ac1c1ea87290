//! The handler *process*: programs as ordinary processes of the machine, behind every fence that the kernel has for them.
//!
//! ```text
//! host:/usr/bin/python3 ─▶ program ─▶ Root::Machine   the machine's own programs, read-only, and a /tmp of its own
//! an image              ───────────▶ Root::Layers     as with `oci`
//!                                     │
//!     fences of the sandbox: no_new_privs · nobody is root unasked · Landlock · what can be written to cannot be run
//! ```
//!
//! It is the built-in runtime with [`crate::SandboxConfig::fenced`]: the supervisor then puts the fences around every container and command
//! of the pod, whatever it is told. What of the machine is seen with [`crate::Root::Machine`]:
//!
//! - [`PROGRAMS`], without what the machine has mounted below them;
//! - of `/etc` what programs need to start, to find certificates and to tell the time (`SETTINGS` beside the code that mounts them). Users,
//!   groups and the order of look-ups are written for the container: the machine's users are nobody's business;
//! - `/proc`, `/dev` and the pod's volumes as with `oci`; no `/sys` but the container's own cgroup.
//!
//! Landlock (`landlock(7)`, Linux 5.13) is needed: without it no pod of this handler starts. Its scopes (Linux 6.12) keep signals and
//! abstract sockets within the pod; without them a pod may not share the machine's network or processes.

use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope,
};

/// The name that RuntimeClasses know it by.
pub const HANDLER: &str = "process";

/// Directories of the machine that hold programs and what they load.
pub const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Who runs where nobody asked for a user. No distribution gives this number away: below it end systemd's dynamic users, above it is
/// `nobody`, who owns what a network file system cannot name.
pub const USER: u32 = 65532;

/// What an image begins with that is a program of the machine. No image can be called so: after a host's colon comes a number.
const SCHEME: &str = "host:";

/// The program of the machine that an image's name means; none for a name of an image.
///
/// # Errors
/// It means one, and there cannot be such a program: what was found and what is needed.
pub fn program(image: &str) -> Option<Result<PathBuf, String>> {
    let path = Path::new(image.strip_prefix(SCHEME)?);
    let is_plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let is_below = |dir: &&str| path.starts_with(dir) && path != Path::new(dir);
    Some(match is_plain && !image.contains('\0') && PROGRAMS.iter().any(is_below) {
        true => Ok(path.to_owned()),
        false => Err(format!("needed {SCHEME} and a path without .. below one of {}", PROGRAMS.join(", "))),
    })
}

/// What makes a kernel fit for it.
pub const REMEDY: &str =
    "name landlock in lsm= on the kernel's command line, or use a kernel with CONFIG_SECURITY_LANDLOCK (Linux 5.13)";

/// What this machine lacks for the handler; none when no pod of it would be refused for that. [`REMEDY`] says what helps.
pub fn missing() -> Option<String> {
    ruleset().err().map(|e| format!("the kernel confines no files with Landlock ({e})"))
}

/// Whether the kernel can keep signals and abstract sockets within a pod (Landlock ABI 6, Linux 6.12).
pub fn has_scopes() -> bool {
    scopes().is_ok()
}

/// Rules about files, of which there are none yet. What the first version knows is needed; the rest (moving between directories,
/// truncating, control of devices) is taken where the kernel has it.
pub(crate) fn ruleset() -> Result<RulesetCreated, RulesetError> {
    let first = AccessFs::from_all(ABI::V1);
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(first)?;
    rules.set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(ABI::V5))?.create()
}

/// Rules that keep signals and abstract sockets within.
pub(crate) fn scopes() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).scope(Scope::from_all(ABI::V6))?.create()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn only_programs_of_the_machine_are_named() {
        assert_eq!(program("nginx:1.27"), None);
        assert_eq!(program("host.example:5000/usr/bin/python3"), None);
        assert_eq!(program("host:/usr/bin/python3"), Some(Ok(PathBuf::from("/usr/bin/python3"))));
        assert_eq!(program("host:/bin/sh"), Some(Ok(PathBuf::from("/bin/sh"))));
        let bad = [
            "",
            "/",
            "/usr",
            "/usr/",
            "usr/bin/x",
            "/etc/shadow",
            "/usr/../etc/shadow",
            "/usrx/a",
            "/srv/x",
            "/usr/a\0b",
        ];
        for path in bad {
            let refused = program(&format!("host:{path}")).unwrap().unwrap_err();
            assert!(
                refused.starts_with("needed host: and a path without .. below one of /usr, /bin"),
                "{path}: {refused}"
            );
        }
    }
}

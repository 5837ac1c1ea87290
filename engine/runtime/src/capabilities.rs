//! Capabilities as the kernel numbers them, and the set a container gets when nothing else is said.

/// `capabilities(7)`; the index is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bit of a capability, named with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == short).map(|n| 1 << n)
}

/// All capabilities that have a name.
pub fn all() -> u64 {
    (1 << NAMES.len()) - 1
}

/// The default set.
pub fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit)
}

/// The name of the lowest capability in a set.
pub fn first_name(set: u64) -> Option<&'static str> {
    NAMES.get(set.trailing_zeros() as usize).copied()
}

/// The names in a set.
pub fn names(set: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(n, _)| set & (1 << n) != 0).map(|(_, name)| *name)
}

/// `base` less `drop` plus `add`, either of which may say `ALL`.
///
/// # Errors
/// The name that is none.
pub fn resolve(base: u64, add: &[String], drop: &[String]) -> Result<u64, String> {
    let set = |names: &[String]| {
        names.iter().try_fold(0, |set, name| match name.eq_ignore_ascii_case("ALL") {
            true => Ok(all()),
            false => bit(name).map(|bit| set | bit).ok_or_else(|| name.clone()),
        })
    };
    let (add_set, drop_set) = (set(add)?, set(drop)?);
    let named = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    // As containerd: ALL is applied first, so that single names can be taken out of it or put back.
    let base = match (named(add), named(drop)) {
        (true, _) => all(),
        (false, true) => 0,
        (false, false) => base,
    };
    let dropped = if named(drop) { 0 } else { drop_set };
    let added = if named(add) { 0 } else { add_set };
    Ok((base | added) & !dropped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn added_and_dropped() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            resolve(default_set(), &[], &[]).unwrap(),
            0xa804_25fb,
            "the set that containers have had for ten years"
        );
        assert_eq!(resolve(default_set(), &names(&["NET_BIND_SERVICE"]), &names(&["ALL"])).unwrap(), 1 << 10);
        assert_eq!(resolve(default_set(), &names(&["ALL"]), &names(&["CAP_SYS_ADMIN"])).unwrap(), all() & !(1 << 21));
        assert_eq!(resolve(default_set(), &names(&["sys_time"]), &[]).unwrap(), default_set() | 1 << 25);
        assert_eq!(resolve(0, &names(&["CHOWN"]), &names(&["KILL"])).unwrap(), 1, "where nothing is usual");
        assert_eq!(resolve(default_set(), &names(&["NOPE"]), &[]).unwrap_err(), "NOPE");
    }
}

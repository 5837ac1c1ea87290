//! How much memory a container may have, as its cgroups say it (kernel documentation, "Memory Controller", "Control Group v2").

use std::fs;
use std::path::PathBuf;

/// What the kernel says where there is no limit, less some pages (version 1).
const UNLIMITED: u64 = i64::MAX as u64 & !0xffff;

/// The smallest limit in bytes, if there is one.
pub(crate) fn memory(cgroups: &[PathBuf]) -> Option<u64> {
    let names = ["memory.max", "memory.limit_in_bytes"];
    let said = cgroups.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    let limits = said.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()); // "max" is none
    limits.filter(|limit| *limit < UNLIMITED).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn the_smallest_of_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, files: &[(&str, &str)]| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            files.iter().for_each(|(name, text)| fs::write(path.join(name), text).unwrap());
            path
        };
        let one = of("one", &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        let two = of("two", &[("memory.max", "max\n")]);
        assert_eq!(memory(&[one.clone(), two.clone()]), None);
        let three = of("three", &[("memory.max", "1048576\n")]);
        assert_eq!(memory(&[one, two, three, dir.path().join("nowhere")]), Some(1 << 20));
    }
}

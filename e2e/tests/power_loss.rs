//! A machine loses its power in the middle of writes: what the store has acknowledged is on its disk. The machine is QEMU's, killed; what its
//! kernel had not written to the disk is gone with it. Only on the architecture for which the virtual machine is made.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use fluidos_e2e::command::run;
use fluidos_e2e::virtual_machine;
use substrate_store::Store;

/// An emulated machine on a busy one: half a minute, less than this.
const LIMIT: Duration = Duration::from_secs(300);
/// Writes that are acknowledged before the power goes.
const ENOUGH: usize = 2_000;

/// Runs the writer with these arguments until `enough` was said and takes the power away: what was said, and the store that is on the disk.
fn cut(
    place: &Path,
    arguments: &str,
    preload: Option<&Path>,
    enough: impl Fn(&str) -> bool,
) -> (String, Result<Store, String>) {
    let disk = place.join("disk");
    std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).unwrap();
    let writer = PathBuf::from(env!("CARGO_BIN_EXE_store_writer"));
    let mut files = vec![(writer.as_path(), "/bin/store_writer")];
    let mut story = String::from("mkdir -p /disk\nmount -t ext4 /dev/vda /disk || exit\n");
    if let Some(library) = preload {
        files.push((library, "/lib/unsynced.so"));
        story += "export LD_PRELOAD=/lib/unsynced.so\n";
    }
    story += &format!("store_writer /disk/store {arguments}\n");
    let told = virtual_machine::power_loss(&story, &files, &disk, enough, LIMIT).unwrap();

    // The file system's own journal is played, as a machine that starts again does it.
    let _ = run("e2fsck", &["-fy", disk.to_str().unwrap()]);
    let out = place.join("out");
    std::fs::create_dir(&out).unwrap();
    let dump = format!("rdump /store {}", out.display());
    run("debugfs", &["-R", &dump, disk.to_str().unwrap()]).unwrap();
    (told, Store::open(&out.join("store")).map_err(|error| error.to_string()))
}

/// Whether what a machine had acknowledged when its power went is on its disk; and how much that was.
fn survives(preload: Option<&Path>) -> Result<usize, String> {
    let place = tempfile::Builder::new().prefix("flt-power-").tempdir().unwrap();
    let (told, store) = cut(place.path(), "", preload, |text| text.matches("ack ").count() >= ENOUGH);
    // A line is whole when its end is there.
    let whole = told.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines: Vec<Vec<&str>> = whole.lines().map(|line| line.split_whitespace().collect()).collect();
    let acknowledged = lines.iter().filter_map(|words| match words[..] {
        ["ack", key, revision] => Some((key, revision.parse::<u64>().ok()?)),
        _ => None,
    });
    let acknowledged: Vec<(&str, u64)> = acknowledged.collect();
    assert!(acknowledged.len() >= ENOUGH / 2, "most lines can be read: {} of\n{told}", acknowledged.len());
    let store = store?;
    for (key, revision) in &acknowledged {
        let found = store.get(key).ok_or(format!("{key} was acknowledged at {revision} and is gone"))?;
        assert_eq!((found.revision, found.value.trim_ascii_end()), (*revision, key.as_bytes()));
    }
    Ok(acknowledged.len())
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    for life in 0..2 {
        let kept = survives(None);
        assert!(kept.is_ok(), "life {life}: {kept:?}");
    }
}

#[test]
fn a_store_that_does_not_sync_fails_this_test() {
    // Without that the test above would prove nothing.
    let place = tempfile::Builder::new().prefix("flt-power-").tempdir().unwrap();
    let (source, library) = (place.path().join("unsynced.c"), place.path().join("unsynced.so"));
    let text =
        "int fsync(int f) { return 0; }\nint fdatasync(int f) { return 0; }\nint sync_file_range() { return 0; }\n";
    std::fs::write(&source, text).unwrap();
    run("cc", &["-shared", "-fPIC", "-w", "-o", library.to_str().unwrap(), source.to_str().unwrap()]).unwrap();
    let kept = survives(Some(&library));
    let lost = kept.expect_err("writes survived without a sync");
    assert!(lost.contains("is gone") || lost.contains("is damaged"), "{lost}");
}

#[test]
fn a_renewal_wears_out_no_disk_and_no_revision_comes_twice() {
    let place = tempfile::Builder::new().prefix("flt-power-").tempdir().unwrap();
    let (told, store) = cut(place.path(), "renew", None, |text| text.matches("renewed ").count() >= 50);
    let store = store.unwrap();
    // The machine's own words may stand before the first.
    let number = |word: &str| told.lines().rev().find_map(|line| line.split_once(word)?.1.trim().parse::<u64>().ok());
    let lease = store.get("/lease").unwrap();
    // What was only renewed had not been forced to the disk: it is as it was written.
    assert_eq!((lease.revision, lease.value.as_ref()), (number("ack /lease ").unwrap(), b"0".as_ref()), "{told}");
    assert!(store.revision() >= number("renewed ").unwrap(), "{} after {told}", store.revision());
}

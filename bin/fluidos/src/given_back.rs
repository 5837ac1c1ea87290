//! What is not needed any more is given back to the machine: on a device memory is the budget.
//!
//! ```text
//! ready ─ 10 s ─▶ free pages of the heap ─▶ the machine
//!              ├▶ pages of the program itself, mapped since the start ran over them ─▶ the machine's cache of files
//!              └ every minute ├ if objects are gone ─▶ free pages of the heap
//!                             └ pages of the program, mapped since the last time
//! ```
//! The allocator keeps what is freed between things that stay, and gives back only what is free at the end of its heaps: without being told, a
//! node that had 10,000 pods once would keep their 200 MB.
//!
//! The kernel maps 64 KiB and more of a program around each place that runs. Most of what was mapped when a node has started never runs again:
//! kinds are defined once, pods start and then run. Such pages stay with the process until the machine is short of memory. Unmapped, they are an ordinary part
//! of the cache; what runs again is mapped again from there, without a disk, in less than a microsecond. So what is mapped is what has run within a minute.
#![allow(unsafe_code)]

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Until the managers have looked at everything once; less would map again what goes.
const STARTED: Duration = Duration::from_secs(10);

/// How often is looked at what there is to give back.
const LOOK: Duration = Duration::from_secs(60);
/// How much more must be free in the heap than what could not be given back before: to go through a heap takes the time of some milliseconds, in
/// which nothing else allocates. The history of the store, which keeps what is gone for some minutes, is as much.
const WORTH_BYTES: usize = 4 << 20;

/// Waits until the start is over, and gives back; then what becomes free, until dropped.
pub async fn run() {
    tokio::time::sleep(STARTED).await;
    give_back();
    let mut left = unused_bytes();
    loop {
        tokio::time::sleep(LOOK).await;
        left = trim_if_worth(left);
        unmap_program();
    }
}

/// Gives back free pages of the heap if there is more to give than what was `left` last time, between things that stay. Returns what is left now.
fn trim_if_worth(left: usize) -> usize {
    let unused = unused_bytes();
    if unused < left.saturating_add(WORTH_BYTES) {
        return left.min(unused);
    }
    trim();
    let left = unused_bytes();
    tracing::debug!(unused, left, "free memory is given back");
    left
}

/// Bytes in memory that nothing is kept in: pages of no file less what the allocator has handed out. What it has free says nothing, as that
/// counts what was given back, too.
fn unused_bytes() -> usize {
    anonymous_bytes().saturating_sub(handed_out_bytes())
}

/// Bytes of this process that are in memory and of no file (proc_pid_statm(5)); nothing if the kernel does not say it.
fn anonymous_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (all, of_files) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    all.saturating_sub(of_files) * 4096
}

/// Bytes that the allocator has handed out (mallinfo(3)). Where it cannot be asked all of it is, and nothing is trimmed.
fn handed_out_bytes() -> usize {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and only reads.
        let told = unsafe { libc::mallinfo2() };
        told.uordblks + told.hblkhd
    }
    #[cfg(not(target_env = "gnu"))]
    usize::MAX
}

fn give_back() {
    trim();
    unmap_program();
}

fn unmap_program() {
    let told = std::env::current_exe().and_then(|program| Ok((program, std::fs::read_to_string("/proc/self/smaps")?)));
    match told {
        Ok((program, smaps)) => unmap(&clean(&smaps, &program)),
        Err(error) => tracing::debug!(%error, "pages of the program stay mapped"),
    }
}

/// The mappings of a program in `smaps` (proc(5)) that nobody can have changed: not writable, and without a page of their own.
fn clean(smaps: &str, program: &Path) -> Vec<Range<usize>> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in smaps.lines() {
        if let Some(size) = line.strip_prefix("Anonymous:") {
            let is_clean = size.trim() == "0 kB";
            found.extend(last.take().filter(|_| is_clean));
        } else if let Some(head) = head(line, program) {
            last = head;
        }
    }
    found
}

/// `None`: the line begins no mapping. `Some(None)`: it begins one that is not meant.
fn head(line: &str, program: &Path) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
    let mode = words.next()?;
    // Offset, device and inode; the name may have spaces, and says if its file has been removed.
    let name = line.splitn(6, ' ').nth(5).map_or("", str::trim_start);
    let is_meant = mode.starts_with("r-") && mode.ends_with('p') && Path::new(name) == program;
    Some(is_meant.then_some(range))
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and frees only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn unmap(ranges: &[Range<usize>]) {
    for range in ranges {
        let (start, length) = (range.start as *mut libc::c_void, range.end.saturating_sub(range.start));
        // SAFETY: the range is a private mapping of this program's own file, which stays as long as the process. It is not writable and had no
        // page of its own, so each of its pages is that of the file, and is read from there when it is used again.
        if unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) } != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "pages of the program stay mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As the kernel writes it, with less of what is said of each.
    const SMAPS: &str = "\
55e0a0000000-55e0a0400000 r--p 00000000 fe:00 4711                       /opt/my node/fluidos
Rss:                4096 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55e0a0400000-55e0a2000000 r-xp 00400000 fe:00 4711                       /opt/my node/fluidos
Anonymous:             0 kB
55e0a2000000-55e0a2200000 r--p 02000000 fe:00 4711                       /opt/my node/fluidos
Anonymous:          1416 kB
55e0a2200000-55e0a2300000 rw-p 02200000 fe:00 4711                       /opt/my node/fluidos
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 4712                       /lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 r--p 00000000 00:00 0 
Anonymous:             0 kB
";

    #[test]
    fn only_pages_that_are_the_files_own_are_unmapped() {
        let ranges = clean(SMAPS, Path::new("/opt/my node/fluidos"));
        assert_eq!(ranges, [0x55e0_a000_0000..0x55e0_a040_0000, 0x55e0_a040_0000..0x55e0_a200_0000]);
        assert_eq!(clean(SMAPS, Path::new("/opt/my node/other")), Vec::<Range<usize>>::new());
        assert_eq!(clean("garbage\n-\nAnonymous: 0 kB\n12-zz r-xp", Path::new("")), Vec::<Range<usize>>::new());
    }

    #[test]
    fn what_is_free_between_things_that_stay_is_given_back() {
        let (left, before) = (unused_bytes(), anonymous_bytes());
        let mut all: Vec<Option<Box<[u8]>>> = (0..65_536).map(|_| Some(vec![7; 1024].into())).collect();
        let full = anonymous_bytes();
        assert!(full > before + (48 << 20), "{before} {full}");
        // Looked at while all of it is in use: there is nothing to give, and later no less.
        let left = trim_if_worth(left);
        assert!(anonymous_bytes() > before + (48 << 20), "{before} {left}");
        // One in a hundred stays.
        all.iter_mut().enumerate().filter(|(i, _)| i % 100 != 0).for_each(|(_, one)| drop(one.take()));
        let kept = anonymous_bytes();
        assert!(kept > before + (48 << 20), "the allocator gives back by itself: {before} {kept}");
        let left = trim_if_worth(left);
        let after = anonymous_bytes();
        assert!(after < before + (24 << 20), "{before} {kept} {after}");
        assert_eq!(trim_if_worth(left), left, "nothing has come since");
        assert!(all.iter().flatten().all(|one| one.iter().all(|byte| *byte == 7)));
    }

    /// Far more than the kernel maps around a place that is used; nobody else uses it.
    static PART: [u8; 2 << 20] = [7; 2 << 20];

    /// Whether the page of the middle is mapped (proc_pid_pagemap(5)).
    fn is_mapped() -> bool {
        use std::os::unix::fs::FileExt as _;
        let page = std::ptr::from_ref(&PART[PART.len() / 2]).addr() / 4096;
        let (mut entry, pagemap) = ([0; 8], std::fs::File::open("/proc/self/pagemap").unwrap());
        pagemap.read_exact_at(&mut entry, page as u64 * 8).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    }

    #[test]
    fn a_program_runs_on_without_its_pages() {
        let used = || std::hint::black_box(&PART)[PART.len() / 2];
        assert!(!is_mapped() && used() == 7 && is_mapped());
        give_back();
        assert!(!is_mapped(), "it is still mapped");
        assert!(used() == 7 && is_mapped(), "it is read from the file again");
    }
}

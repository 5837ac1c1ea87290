//! The few system calls that no safe wrapper offers, each behind a safe function.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use seccompiler::BpfProgram;

/// Sets an extended attribute of an open file.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open, the name is NUL-terminated, and value points to value.len() readable bytes.
    let rc = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    checked(rc)
}

/// Like `fork`, into new namespaces and optionally as a sibling (`CLONE_PARENT`). `None` in the child.
///
/// The caller must be a process with one thread: the child gets a copy of the caller's memory in which no other
/// thread holds a lock. The supervisor is one by construction; [`has_one_thread`] checks it.
pub fn clone_process(flags: libc::c_int) -> io::Result<Option<i32>> {
    if !has_one_thread() {
        return Err(io::Error::other("a process with several threads cannot start containers"));
    }
    // SAFETY: no stack is given and memory is not shared (no CLONE_VM), so this is fork(2) with namespaces. The
    // process has a single thread (checked above), so no lock of the allocator or of std is held in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        ..0 => Err(Errno::last().into()),
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Ends a forked child at once, running no destructor of the memory it has copied.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Installs a seccomp filter without touching no_new_privs.
pub fn install_seccomp(program: &BpfProgram) -> io::Result<()> {
    let len = u16::try_from(program.len())
        .map_err(|_| io::Error::other("seccomp filter has more than 65535 instructions"))?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: fprog points to `len` instructions that live for the call; the kernel only reads them, and
    // seccompiler's sock_filter has the kernel's layout (repr(C), the same four fields).
    checked(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const fprog) })
}

/// One `prctl(2)` with an integer argument.
pub fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only options that take one integer are passed by the callers in this crate.
    checked(unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

/// Closes every descriptor of this process; what still owns one must be forgotten, not dropped. Needs Linux 5.9.
pub fn close_all() -> io::Result<()> {
    // SAFETY: three integers; the caller never uses a descriptor again.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) };
    checked(rc as libc::c_int)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit words per set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Makes `set` the effective and permitted capabilities of this thread, and none inheritable.
pub fn set_capabilities(set: u64) -> io::Result<()> {
    let header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let word = |bits: u64| CapData { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [word(set & 0xffff_ffff), word(set >> 32)];
    // SAFETY: header and both data words have the layout of version 3 and live for the call.
    let rc = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    checked(rc as libc::c_int)
}

/// The permitted capabilities of this thread.
pub fn permitted_capabilities() -> io::Result<u64> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: as above; the kernel writes both words.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    checked(rc as libc::c_int)?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Removes a capability from the bounding set; `false` when the kernel knows no such capability.
pub fn drop_bounding(capability: u32) -> io::Result<bool> {
    match prctl(libc::PR_CAPBSET_DROP, capability.into()) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Makes `fd` the controlling terminal of this session.
pub fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open; TIOCSCTTY takes an integer.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })
}

/// Sets a terminal's size in characters.
pub fn set_terminal_size(fd: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and size lives for the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// Unlocks the other end of a terminal and answers its number.
pub fn unlock_terminal(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let (unlock, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    // SAFETY: both calls get a pointer to an integer that lives for the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    // SAFETY: as above; the kernel writes the number.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}

/// Takes ownership of a descriptor that the kernel has just handed over in a message, or that a launcher left open for us.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor received by SCM_RIGHTS, or one inherited across execve and named by the program
    // that did it; nobody else in this process owns either.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Gives every signal its default action, as a new program expects.
pub fn default_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL installs no code of ours.
        let previous = unsafe { libc::signal(signal, libc::SIG_DFL) };
        // Signals that the C library keeps for itself are refused, and are not ours to reset.
        let _ = previous;
    }
    Ok(nix::sys::signal::SigSet::empty().thread_set_mask()?)
}

/// Whether somebody has the file of a descriptor open for writing, in whichever process. The descriptor is open for reading.
///
/// The kernel is asked for a lease of a reader, which it gives where there is no writer (fcntl(2), "Leases"), and which is given back at once.
/// Needs the file's owner or `CAP_LEASE`, and a file system that knows leases: those of this machine's own disks and memory do.
pub fn has_writer(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const F_SETSIG: libc::c_int = 10; // fcntl.h of Linux, on every architecture that we build for
    // SAFETY: the descriptor is open, and both commands take an integer.
    let ask = |command, value: libc::c_int| checked(unsafe { libc::fcntl(fd.as_raw_fd(), command, value) });
    // Who opens the file for writing in between has the kernel send a signal: one that is ignored in place of SIGIO, of which one dies.
    ask(F_SETSIG, libc::SIGURG)?;
    match ask(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => ask(libc::F_SETLEASE, libc::F_UNLCK).map(|()| false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

fn checked(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 { Err(Errno::last().into()) } else { Ok(()) }
}

/// `fork` of a process with one thread.
pub fn fork() -> io::Result<nix::unistd::ForkResult> {
    if !has_one_thread() {
        return Err(io::Error::other("a process with several threads cannot become a supervisor"));
    }
    // SAFETY: the process has a single thread (checked above), so the child may use everything it has copied.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Watches a descriptor that this process owns.
pub fn async_fd(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: register needs a descriptor that stays open and the same while it is registered; an OwnedFd that is
    // moved into the AsyncFd and never taken out or replaced is.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::libc;

    use super::has_writer;

    #[test]
    fn who_writes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(has_writer(reader.as_fd()).unwrap());
        drop(writer);
        assert!(!has_writer(reader.as_fd()).unwrap());
        // It is given back: who comes now does not wait for it, and is not told that he would.
        drop(File::options().append(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap());
        assert!(!has_writer(reader.as_fd()).unwrap());
    }
}

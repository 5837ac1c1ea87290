//! The RuntimeDefault profile: which system calls a container may make.
//!
//! As data, after the profile that container engines share: everything that is not named is refused with EPERM.
//! Calls that need a capability are allowed only to containers that have it. `clone3` hides its flags from a
//! filter, so it answers ENOSYS and C libraries fall back to `clone`, whose namespace flags are refused; that
//! takes a second filter, because one filter knows one refusal (the kernel takes the stricter answer of the two).
//!
//! Another architecture's system calls end the process (the filter's own check); programs for 32-bit x86 do
//! therefore not run under this profile.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Cond, SeccompFilter,
    SeccompRule,
};

mod profile;

pub use profile::compile as profile;

use crate::capabilities;
use engine_host::sys;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Allowed to everybody, on every architecture.
const ALLOWED: &[libc::c_long] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime SYS_clock_getres
    SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod
    SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock
    SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv
    SYS_get_mempolicy SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64
    SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid
    SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname
    SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1
    SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy SYS_io_getevents  SYS_io_setup SYS_io_submit
    SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek
    SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat
    SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open
    SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync
    SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl
    SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_pselect6 SYS_pwrite64 SYS_pwritev
    SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg
    SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr
    SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop
    SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid
    SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid
    SYS_setreuid SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget
    SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill
    SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
    SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_clone3
];

/// What only the older architecture still has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init
    SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink
    SYS_rename SYS_rmdir SYS_select SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
    SYS_get_thread_area SYS_set_thread_area
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// Allowed with the capability.
const WITH_CAPABILITY: &[(&str, &[libc::c_long])] = &[
    ("DAC_READ_SEARCH", calls![SYS_open_by_handle_at]),
    (
        "SYS_ADMIN",
        calls![SYS_bpf SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_lookup_dcookie SYS_mount
            SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_quotactl SYS_quotactl_fd
            SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare SYS_clone],
    ),
    ("SYS_BOOT", calls![SYS_reboot]),
    ("SYS_CHROOT", calls![SYS_chroot]),
    ("SYS_MODULE", calls![SYS_delete_module SYS_init_module SYS_finit_module]),
    ("SYS_PACCT", calls![SYS_acct]),
    ("SYS_PTRACE", calls![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise]),
    ("SYS_TIME", calls![SYS_settimeofday SYS_clock_settime]),
    ("SYS_TTY_CONFIG", calls![SYS_vhangup]),
    ("SYS_NICE", calls![SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_migrate_pages SYS_move_pages]),
    ("SYSLOG", calls![SYS_syslog]),
    ("BPF", calls![SYS_bpf]),
    ("PERFMON", calls![SYS_perf_event_open]),
];

/// Calls newer than the C library's names for them; from 424 on the numbers are the same everywhere: cachestat,
/// map_shadow_stack, futex_wake, futex_wait, futex_requeue.
const ALLOWED_NEW: &[libc::c_long] = &[451, 453, 454, 455, 456];
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: libc::c_long = 333;
#[cfg(not(target_arch = "x86_64"))]
const IO_PGETEVENTS: libc::c_long = 292;

/// Values of `personality(2)` that change nothing dangerous: Linux, Linux 32 bit, both with ADDR_COMPAT, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Installs a profile; the kernel takes the strictest answer of its filters. Needs CAP_SYS_ADMIN or no_new_privs.
///
/// # Errors
/// The kernel has no seccomp, or refuses.
pub fn install(programs: &[BpfProgram]) -> io::Result<()> {
    programs.iter().try_for_each(sys::install_seccomp)
}

/// The profile for a process with these capabilities.
///
/// # Errors
/// The library does not know this architecture.
pub fn runtime_default(granted: u64) -> io::Result<Vec<BpfProgram>> {
    let has = |name: &str| capabilities::bit(name).is_some_and(|bit| granted & bit != 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED.iter().chain(ALLOWED_HERE).chain(ALLOWED_NEW).chain([&IO_PGETEVENTS]) {
        rules.insert(*call, Vec::new());
    }
    for call in WITH_CAPABILITY.iter().filter(|(name, _)| has(name)).flat_map(|(_, calls)| *calls) {
        rules.insert(*call, Vec::new());
    }
    let one = |condition: Cond| SeccompRule::new(vec![condition]).map_err(refused);
    if !has("SYS_ADMIN") {
        let no_namespace = Cond::new(0, Len::Qword, Op::MaskedEq(CLONE_NAMESPACES), 0).map_err(refused)?;
        rules.insert(libc::SYS_clone, vec![one(no_namespace)?]);
    }
    let not_vsock = Cond::new(0, Len::Dword, Op::Ne, libc::AF_VSOCK as u64).map_err(refused)?;
    rules.insert(libc::SYS_socket, vec![one(not_vsock)?]);
    let personalities = PERSONALITIES
        .iter()
        .map(|value| one(Cond::new(0, Len::Dword, Op::Eq, *value).map_err(refused)?))
        .collect::<io::Result<_>>()?;
    rules.insert(libc::SYS_personality, personalities);

    let mut programs = vec![program(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?];
    if !has("SYS_ADMIN") {
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        programs.push(program(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?);
    }
    Ok(programs)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(refused)?;
    SeccompFilter::new(rules, otherwise, listed, arch).map_err(refused)?.try_into().map_err(refused)
}

fn refused(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("seccomp profile: {e}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn the_profile_fits_the_kernels_limit() {
        for granted in [0, capabilities::default_set(), capabilities::all()] {
            for program in runtime_default(granted).unwrap() {
                assert!(program.len() < 4096, "{granted:x}: {} instructions", program.len());
            }
        }
    }
}

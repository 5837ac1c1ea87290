//! Enters the networks of guest pods on this machine and tries addresses from there.
//!
//! ```text
//!   /proc/*/mountinfo: nsfs at …/net/<uid of the pod> ──▶ /proc/<pid>/root/…/net/<uid>
//!                                                               │ setns, on a thread of its own that ends
//!                                                               ▼
//!                              bind the pod's address: is it that network?   then connect, once each, all at once
//! ```
//! The node keeps a pod's network namespace as a file in its own mount namespace, which need not be the caller's: it is found by way of
//! any process that sees it. A guest cannot put one there: to mount is a right that it has not.
//!
//! Needs root on the machine on which the pod runs. Nothing is sent but the opening of TCP connections, which are closed at once.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fluidos_security::exposure::inside::{Answer, Attempt, Guest, Target, Tried};
use nix::sched::{CloneFlags, setns};

/// What answers at all on one machine answers within milliseconds; a lost packet is sent again after one second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Tries everything from inside each guest. Takes [`PATIENCE`] for each at most.
pub fn try_all(guests: Vec<Guest>) -> Vec<Tried> {
    let one = |guest: Guest| {
        let namespace = namespace_of(&guest.uid);
        let attempts = namespace.and_then(|namespace| probe(&namespace, guest.address, guest.targets));
        Tried { pod: guest.pod, attempts }
    };
    guests.into_iter().map(one).collect()
}

/// The network namespace of a pod, by way of the first process that sees it and may be looked into: this one before others.
fn namespace_of(uid: &str) -> Result<File, String> {
    let is_process = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?.flatten().filter(is_process);
    let mut why = None;
    for process in std::iter::once(PathBuf::from("/proc/self")).chain(processes.map(|entry| entry.path())) {
        let found = fs::read_to_string(process.join("mountinfo")).and_then(|mounts| {
            let point = mount_point(&mounts, uid).map(|point| point.strip_prefix("/").unwrap_or(point));
            point.map(|point| File::open(process.join("root").join(point))).transpose()
        });
        match found {
            Ok(Some(namespace)) => return Ok(namespace),
            Ok(None) => {}
            // Processes end while they are looked at, and those of others may not be looked into.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                why = Some(
                    "it needs root on the machine on which the pod runs, and no process that may be looked into has its network",
                );
            }
            Err(_) => {}
        }
    }
    let elsewhere = "no process of this machine has its network: it runs on another, where this verb can be called";
    Err(why.unwrap_or(elsewhere).into())
}

/// The mount point of a pod's network namespace in the text of a `mountinfo` (proc(5)).
fn mount_point<'a>(mountinfo: &'a str, uid: &str) -> Option<&'a Path> {
    // 36 35 0:4 net:[4026532198] /DIR/network/net/UID rw shared:1 - nsfs nsfs rw
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        let of_pod = point.file_name()? == uid && point.parent()?.file_name()? == "net";
        (of_pod && kind.starts_with("nsfs ")).then_some(point)
    })
}

/// Tries targets in a network namespace, and beside it in this one.
fn probe(namespace: &File, own: IpAddr, targets: Vec<Target>) -> Result<Vec<Attempt>, String> {
    let wrong = move |error: io::Error| format!("its network has not the pod's address {own}: {error}");
    // The thread ended; it got there; it found the address.
    within(namespace, move || UdpSocket::bind((own, 0)).map(drop).map_err(wrong)).and_then(joined)???;
    let tries = targets.into_iter().map(|target| {
        let address = target.address;
        let inside = within(namespace, move || connect(address));
        let machine = thread::Builder::new().name("exposure".into()).spawn(move || connect(address));
        (target, inside, machine.map_err(|error| format!("start a thread: {error}")))
    });
    // All are begun before the first is waited for.
    let tries: Vec<_> = tries.collect();
    let answer = |thread: Result<JoinHandle<Answer>, String>| thread.and_then(joined).unwrap_or_else(Answer::NotTried);
    let inside = |thread: Result<JoinHandle<Result<Answer, String>>, String>| {
        thread.and_then(joined).and_then(|entered| entered).unwrap_or_else(Answer::NotTried)
    };
    let attempts = tries.into_iter().map(|(target, from_inside, machine)| Attempt {
        target,
        inside: inside(from_inside),
        machine: answer(machine),
    });
    Ok(attempts.collect())
}

/// Starts something in a network namespace: on a thread of its own, for a namespace belongs to a thread.
fn within<T: Send + 'static>(
    namespace: &File,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Result<T, String>>, String> {
    let namespace = namespace.try_clone().map_err(|error| format!("its network: {error}"))?;
    let enter = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("enter its network: {error}"))?;
        Ok(work())
    };
    thread::Builder::new().name("exposure".into()).spawn(enter).map_err(|error| format!("start a thread: {error}"))
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T, String> {
    thread.join().map_err(|_| "the thread that tried it was lost".to_owned())
}

fn connect(address: SocketAddr) -> Answer {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => Answer::Connected,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Answer::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Answer::Silent,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::PermissionDenied => {
                Answer::Prohibited(error.to_string())
            }
            _ => Answer::NotTried(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests;

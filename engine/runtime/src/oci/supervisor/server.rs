//! The loop: children, logs and the kubelet's requests, one `poll` for all.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::channel::received;
use super::child::Stdio;
use super::containers::{Containers, exit_code};
use crate::SandboxConfig;
use crate::oci::protocol::{ExecConfig, MESSAGE_SIZE_MAX, Request, Response};

/// Connections: the kubelet holds one to watch and one per running exec; a pod with more execs than this is abused.
const CONNECTIONS_MAX: usize = 128;
/// Unsent answers per connection: far more than all statuses of a pod, so only a reader that stopped reaches it.
const UNSENT_MAX: usize = 1 << 20;

/// Serves until the pod is shut down.
pub(super) fn serve(dir: &Path, listener: &UnixListener, config: &SandboxConfig) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let containers = Containers::new(dir, config);
    let mut server = Server { containers, connections: Vec::new(), shutdown: false };
    loop {
        let woken = server.wait(&signals, listener)?;
        if woken.children {
            while let Ok(Some(_)) = signals.read_signal() {}
            server.reap();
        }
        for id in woken.logs {
            server.containers.pump(&id);
        }
        // From the last to the first: removing one does not move those still to be served.
        for n in woken.connections.into_iter().rev() {
            server.serve_connection(n);
        }
        if woken.newcomer {
            server.accept(listener)?;
        }
        if server.shutdown && !server.containers.running() {
            server.broadcast();
            for connection in &mut server.connections {
                connection.flush();
            }
            return Ok(());
        }
    }
}

struct Server {
    containers: Containers,
    connections: Vec<Connection>,
    shutdown: bool,
}

struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    unsent: Vec<u8>,
    watching: bool,
    exec: Option<i32>,
    attached: Option<String>,
    closed: bool,
}

#[derive(Default)]
struct Woken {
    children: bool,
    newcomer: bool,
    logs: Vec<String>,
    connections: Vec<usize>,
}

impl Server {
    fn wait(&self, signals: &SignalFd, listener: &UnixListener) -> io::Result<Woken> {
        let mut fds =
            vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        for connection in &self.connections {
            let flags =
                if connection.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            fds.push(PollFd::new(connection.stream.as_fd(), flags));
        }
        let streams: Vec<_> = self.containers.streams().collect();
        fds.extend(streams.iter().map(|(_, _, s)| s.awaited()));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Woken::default()),
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let (connections, logs) = ready[2..].split_at(self.connections.len());
        let mut logs: Vec<String> =
            streams.iter().zip(logs).filter(|(_, r)| **r).map(|((id, _, _), _)| (*id).to_owned()).collect();
        logs.dedup();
        let connections = connections.iter().enumerate().filter(|(_, r)| **r).map(|(n, _)| n).collect();
        Ok(Woken { children: ready[0], newcomer: ready[1], logs, connections })
    }

    fn accept(&mut self, listener: &UnixListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, _)) if self.connections.len() < CONNECTIONS_MAX => {
                stream.set_nonblocking(true)?;
                self.connections.push(Connection::new(stream));
            }
            Ok(_) => {} // dropped: the caller sees a closed connection
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn reap(&mut self) {
        let mut changed = false;
        while let Ok(how) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = how.pid().filter(|_| how != WaitStatus::StillAlive) else { break };
            if let Some(id) = self.containers.reaped(pid, how) {
                changed = true;
                for connection in self.connections.iter_mut().filter(|c| c.attached.as_ref() == Some(&id)) {
                    connection.attached = None;
                    connection.answer(&Response::ExecExited { exit_code: exit_code(how).0 }, None);
                }
                continue;
            }
            if let Some(connection) = self.connections.iter_mut().find(|c| c.exec == Some(pid.as_raw())) {
                connection.exec = None;
                connection.answer(&Response::ExecExited { exit_code: exit_code(how).0 }, None);
            }
        }
        if changed {
            self.broadcast();
        }
    }

    fn broadcast(&mut self) {
        let status = Response::Status(self.containers.statuses());
        for connection in self.connections.iter_mut().filter(|c| c.watching) {
            connection.answer(&status, None);
        }
    }

    fn serve_connection(&mut self, n: usize) {
        self.connections[n].flush();
        self.connections[n].receive();
        while let Some(line) = self.connections[n].line() {
            match serde_json::from_slice(&line) {
                Ok(request) => self.answer(n, request),
                Err(e) => self.connections[n].answer(&Response::Failed(format!("cannot read the request: {e}")), None),
            }
        }
        if self.connections[n].closed {
            let connection = self.connections.remove(n);
            if let Some(pid) = connection.exec {
                // Whoever wanted it is gone. Not reaped yet, so the id is still its own.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn answer(&mut self, n: usize, request: Request) {
        let changes = matches!(request, Request::Start(_) | Request::Forget { .. });
        let response = match request {
            Request::Start(_) if self.shutdown => Response::Failed("the pod is being shut down".to_owned()),
            Request::Start(config) => match self.containers.start(*config) {
                Ok(status) => Response::Started(status),
                Err(why) => Response::Failed(why),
            },
            Request::Exec(config) => return self.exec(n, &config),
            Request::Attach { id, stdin } => return self.attach(n, id, stdin),
            Request::Signal { id, signal } => {
                self.containers.signal(&id, signal);
                Response::Done
            }
            Request::Forget { id } => match self.containers.forget(&id) {
                Ok(()) => Response::Done,
                Err(why) => Response::Failed(why),
            },
            Request::Watch => {
                self.connections[n].watching = true;
                Response::Status(self.containers.statuses())
            }
            Request::Shutdown => {
                self.shutdown = true;
                self.containers.kill_all();
                Response::Done
            }
        };
        self.connections[n].answer(&response, None);
        if changes {
            self.broadcast();
        }
    }

    fn exec(&mut self, n: usize, config: &ExecConfig) {
        let connection = &mut self.connections[n];
        let mut given = connection.descriptors.drain(..);
        let stdio = match (given.next(), given.next(), given.next()) {
            (Some(input), Some(output), Some(error)) => Some(Stdio { input, output, error }),
            _ => None,
        };
        drop(given);
        match self.containers.exec(&config.id, &config.command, config.tty, stdio) {
            Ok(exec) => {
                connection.exec = Some(exec.pid);
                connection.answer(&Response::ExecStarted, exec.terminal);
            }
            Err(why) => connection.answer(&Response::Failed(why), None),
        }
    }

    fn attach(&mut self, n: usize, id: String, stdin: bool) {
        let connection = &mut self.connections[n];
        let mut given = connection.descriptors.drain(..);
        let (Some(output), Some(error)) = (given.next(), given.next()) else {
            drop(given);
            return connection.answer(&Response::Failed("attaching needs two descriptors".to_owned()), None);
        };
        drop(given);
        match self.containers.attach(&id, stdin, output, error) {
            Ok(input) => {
                connection.attached = Some(id);
                connection.answer(&Response::ExecStarted, input);
            }
            Err(why) => connection.answer(&Response::Failed(why), None),
        }
    }
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            descriptors: VecDeque::new(),
            unsent: Vec::new(),
            watching: false,
            exec: None,
            attached: None,
            closed: false,
        }
    }

    fn receive(&mut self) {
        let mut bytes = [0; 16 << 10];
        let mut space = nix::cmsg_space!([RawFd; 3]);
        loop {
            let mut slices = [io::IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let got = match recvmsg::<UnixAddr>(self.stream.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => {
                    let fds: Vec<OwnedFd> =
                        message.cmsgs().map(|all| all.flat_map(received).collect()).unwrap_or_default();
                    (message.bytes, fds)
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => continue,
                Err(_) => return self.closed = true,
            };
            let (len, fds) = got;
            if len == 0 {
                return self.closed = true;
            }
            self.unread.extend_from_slice(&bytes[..len]);
            self.descriptors.extend(fds);
            if self.unread.len() > MESSAGE_SIZE_MAX || self.descriptors.len() > 3 {
                return self.closed = true;
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.unread.iter().position(|b| *b == b'\n')?;
        let rest = self.unread.split_off(end + 1);
        let line = std::mem::replace(&mut self.unread, rest);
        self.unread.shrink_to_fit();
        Some(line)
    }

    fn answer(&mut self, response: &Response, descriptor: Option<OwnedFd>) {
        let Ok(mut line) = serde_json::to_vec(response) else { return self.closed = true };
        line.push(b'\n');
        if let Some(fd) = descriptor {
            // The first answer on a fresh connection: the socket's buffer takes it whole.
            let fds = [fd.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&fds)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let sent = sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &[io::IoSlice::new(&line)], &message, flags, None);
            if sent != Ok(line.len()) {
                self.closed = true;
            }
            return;
        }
        self.unsent.extend_from_slice(&line);
        if self.unsent.len() > UNSENT_MAX {
            return self.closed = true;
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.closed = true,
            }
        }
        self.unsent.shrink_to_fit();
    }
}

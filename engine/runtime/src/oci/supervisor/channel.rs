//! The conversation between the supervisor and a child that is on its way to `execve`.
//!
//! ```text
//! child ──Pid? Identity? Terminal?── Ready ─▶ supervisor ── go ─▶ child ── execve closes the channel
//!       └─────────── Failed(why) ───────────▶
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recv, recvmsg, send,
    sendmsg, socketpair,
};

use super::identity::Identity;
use engine_host::sys;

/// Mounting a hundred layers on a slow disk takes seconds; a child that needs longer than this hangs.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Error texts are cut to this: they end in a pod's status, which the API bounds too.
const TEXT_MAX: usize = 4096;

/// One message of the child.
pub(super) enum Word {
    /// The process that will run the command (exec only).
    Pid(i32),
    /// Who the image's user turned out to be (init only).
    Identity(Identity),
    /// Our end of its terminal.
    Terminal(OwnedFd),
    /// Everything but `execve` is done.
    Ready,
    /// It ends here.
    Failed(String),
}

/// One end.
pub(super) struct Channel(OwnedFd);

/// What a started child has said.
#[derive(Default)]
pub(super) struct Started {
    pub pid: Option<i32>,
    pub identity: Option<Identity>,
    pub terminal: Option<OwnedFd>,
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Channel {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    pub fn say(&self, word: Word) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        match word {
            Word::Pid(pid) => self.send(b'P', &pid.to_ne_bytes()),
            Word::Identity(who) => {
                let text = format!("{} {} {:?} {}", who.uid, who.gid, who.groups, who.home);
                self.send(b'I', text.as_bytes())
            }
            Word::Ready => self.send(b'R', b""),
            Word::Failed(why) => self.send(b'E', &why.as_bytes()[..why.len().min(TEXT_MAX)]),
            Word::Terminal(ours) => {
                let fds = [ours.as_raw_fd()];
                let message = [ControlMessage::ScmRights(&fds)];
                sendmsg::<UnixAddr>(fd, &[IoSlice::new(b"T")], &message, MsgFlags::MSG_NOSIGNAL, None)?;
                Ok(())
            }
        }
    }

    /// Waits until the supervisor has noted everything; an error when it is gone.
    pub fn wait_for_go(&self) -> io::Result<()> {
        let mut byte = [0];
        match recv(self.0.as_raw_fd(), &mut byte, MsgFlags::empty())? {
            1 => Ok(()),
            _ => Err(io::Error::other("the supervisor is gone")),
        }
    }

    /// The supervisor's side: listens until the program runs.
    ///
    /// # Errors
    /// What the child said, or that it died or hung.
    pub fn attend(self) -> Result<Started, String> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut started = Started::default();
        let mut ready = false;
        loop {
            let left =
                PollTimeout::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) => return Err(format!("the container did not start within {} s", START_TIMEOUT.as_secs())),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.to_string()),
            }
            match self.hear().map_err(|e| e.to_string())? {
                Some(Word::Pid(pid)) => started.pid = Some(pid),
                Some(Word::Identity(who)) => started.identity = Some(who),
                Some(Word::Terminal(ours)) => started.terminal = Some(ours),
                Some(Word::Failed(why)) => return Err(why),
                Some(Word::Ready) => {
                    ready = true;
                    self.send(b'G', b"").map_err(|e| e.to_string())?;
                }
                None if ready => return Ok(started),
                None => return Err("the container's first process died while it was set up".to_owned()),
            }
        }
    }

    fn send(&self, kind: u8, rest: &[u8]) -> io::Result<()> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(rest);
        send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    fn hear(&self) -> io::Result<Option<Word>> {
        let mut bytes = [0; TEXT_MAX + 1];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let (len, fds) = {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let message =
                recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
            let fds: Vec<OwnedFd> = message.cmsgs()?.flat_map(received).collect();
            (message.bytes, fds)
        };
        let broken = || io::Error::other("the child's words make no sense");
        let Some((kind, rest)) = bytes[..len].split_first() else { return Ok(None) };
        Ok(Some(match kind {
            b'P' => Word::Pid(i32::from_ne_bytes(rest.try_into().map_err(|_| broken())?)),
            b'I' => Word::Identity(parse(&String::from_utf8_lossy(rest)).ok_or_else(broken)?),
            b'T' => Word::Terminal(fds.into_iter().next().ok_or_else(broken)?),
            b'R' => Word::Ready,
            b'E' => Word::Failed(String::from_utf8_lossy(rest).into_owned()),
            _ => return Err(broken()),
        }))
    }
}

/// The descriptors of one control message, owned.
pub(super) fn received(message: ControlMessageOwned) -> Vec<OwnedFd> {
    match message {
        ControlMessageOwned::ScmRights(fds) => fds.into_iter().map(sys::adopt).collect(),
        _ => Vec::new(),
    }
}

fn parse(text: &str) -> Option<Identity> {
    let (uid, rest) = text.split_once(' ')?;
    let (gid, rest) = rest.split_once(' ')?;
    let (groups, home) = rest.strip_prefix('[')?.split_once("] ")?;
    let groups = groups.split(", ").filter(|g| !g.is_empty()).map(|g| g.parse().ok()).collect::<Option<_>>()?;
    Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups, home: home.to_owned() })
}

//! Netlink: how a process talks with the kernel about its network. Messages, their attributes, and a socket.
//!
//! ```text
//! message    = length u32 | kind u16 | flags u16 | sequence u32 | port u32 | fixed part | attribute*
//! attribute  = length u16 | kind u16 | value, padded to 4 bytes       (a value may be attributes again: nested)
//! ```
//!
//! Both families that a node needs, routing and nftables, are the same three shapes, so this file replaces two trees of
//! generated types. Sizes and alignment: `include/uapi/linux/netlink.h`.
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// It is a request.
pub const REQUEST: u16 = 0x001;
/// Say when it is carried out.
pub const ACK: u16 = 0x004;
/// Replace what is there.
pub const REPLACE: u16 = 0x100;
/// Refuse if it is there.
pub const EXCL: u16 = 0x200;
/// Answer all there are.
pub const DUMP: u16 = 0x300;
/// Make it if it is not there.
pub const CREATE: u16 = 0x400;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;

/// One message being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message with its fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Message { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a text attribute, which ends in a zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends a number in network byte order, as nftables wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a number in the machine's byte order, as routing wants its numbers.
    pub fn ne32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends raw bytes: the fixed part of a nested object.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Message {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute whose value is what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        // Callers keep nested values below 64 KiB: lists are cut into several messages (`nftables::ELEMENTS_MAX`).
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Asks the kernel to say when it has carried the message out.
    pub fn request_ack(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn finish(&mut self, sequence: u32) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A received message without its header.
#[derive(Debug)]
pub struct Answer {
    /// What comes after the header.
    pub body: Vec<u8>,
}

impl Answer {
    /// The attributes after a fixed part of `fixed` bytes. What is cut short ends the list.
    pub fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(fixed..).unwrap_or_default())
    }

    /// Four bytes of the fixed part as a number.
    pub fn u32_at(&self, offset: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.body.get(offset..offset + 4)?.try_into().ok()?))
    }
}

/// The attributes in a list, such as the value of a nested one. What is cut short ends the list.
pub fn attributes(list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A netlink socket. It stays in the network namespace of the thread that opened it, whoever uses it later.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of a family in the calling thread's network namespace.
    pub fn open(protocol: SockProtocol) -> io::Result<Socket> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // A transaction is one datagram; the kernel's default of 208 KiB holds about 500 rules. 8 MiB hold some
        // 20,000. Without the privilege the default has to do, and too large a send says so.
        let _ = setsockopt(&fd, SndBufForce, &(8 << 20));
        let _ = setsockopt(&fd, RcvBufForce, &(1 << 20));
        // The kernel answers within the call that sends; 5 s only keep a lost answer from hanging the node.
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(5, 0))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Sends one request and waits until the kernel has carried it out.
    pub fn execute(&mut self, message: Message) -> io::Result<()> {
        self.transact(vec![message]).map_err(|(_, error)| error)
    }

    /// Sends messages in one datagram, of which the last that asks for an acknowledgement ends the exchange. On refusal
    /// also answers which of the messages was refused.
    pub fn transact(&mut self, mut messages: Vec<Message>) -> Result<(), (usize, io::Error)> {
        let first = self.sequence.wrapping_add(1);
        let mut last = None;
        let mut datagram = Vec::new();
        for message in &mut messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence);
            if u16::from_ne_bytes([message.bytes[6], message.bytes[7]]) & ACK != 0 {
                last = Some(self.sequence);
            }
            datagram.extend_from_slice(&message.bytes);
        }
        self.send(&datagram).map_err(|error| (0, error))?;
        let Some(last) = last else { return Ok(()) };
        let mut refused: Option<(usize, io::Error)> = None;
        loop {
            for (sequence, kind, body) in self.receive().map_err(|error| refused.take().unwrap_or((0, error)))? {
                if kind != KIND_ERROR {
                    continue;
                }
                let code = body.get(0..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code != 0 && refused.is_none() {
                    let index = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(0);
                    refused = Some((index, io::Error::from_raw_os_error(-code)));
                }
                // Who may not, or asks for a family that is not there, is answered about the first message alone.
                let all_refused = code != 0 && sequence == first;
                if sequence == last || all_refused {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends a request that answers a list.
    pub fn dump(&mut self, mut message: Message) -> io::Result<Vec<Answer>> {
        self.sequence = self.sequence.wrapping_add(1);
        message.finish(self.sequence);
        self.send(&message.bytes)?;
        let mut answers = Vec::new();
        loop {
            for (sequence, kind, body) in self.receive()? {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    KIND_DONE => return Ok(answers),
                    KIND_ERROR => {
                        let code = body.get(0..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        return if code == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => answers.push(Answer { body }),
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), datagram, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The messages of one datagram: sequence, kind, body.
    fn receive(&self) -> io::Result<Vec<(u32, u16, Vec<u8>)>> {
        // The kernel fills at most 32 KiB per datagram of a list; an error echoes at most the header.
        let mut buffer = vec![0; 64 << 10];
        let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while let Some(header) = rest.get(..HEADER) {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(body) = rest.get(HEADER..size) else { break };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            messages.push((sequence, kind, body.to_vec()));
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, REQUEST, &[0; 16]);
        message.text(3, "abc").nest(18, |inner| {
            inner.text(1, "veth");
        });
        message.finish(7);
        let answer = Answer { body: message.bytes[HEADER..].to_vec() };
        let found: Vec<(u16, Vec<u8>)> = answer.attributes(16).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(found[0], (3, b"abc\0".to_vec()));
        assert_eq!(found[1].0, 18);
        assert_eq!(&found[1].1[..9], &[9, 0, 1, 0, b'v', b'e', b't', b'h', 0]);
        assert_eq!(message.bytes.len() % 4, 0);
        assert_eq!(message.bytes[0] as usize, message.bytes.len());
    }

    #[test]
    fn a_cut_answer_ends_quietly() {
        let answer = Answer { body: vec![8, 0, 1, 0, 1, 2] };
        assert_eq!(answer.attributes(0).count(), 0);
    }
}

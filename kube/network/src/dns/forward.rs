//! Questions for others' names, carried to the machine's own resolvers.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A resolver that has not answered in this time is given up for the next one; pods give up after 5 s (`resolv.conf`).
const PATIENCE: Duration = Duration::from_millis(1500);

/// As many as the C library would ask (`MAXNS` of resolv.conf).
const RESOLVERS_MAX: usize = 3;

/// The resolvers in a `resolv.conf`, without those that are this server itself.
pub(crate) fn resolvers(path: &Path, own: &[Ipv4Addr]) -> Vec<SocketAddr> {
    // Without the file the machine has no resolver.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    parse(&text, own)
}

fn parse(text: &str, own: &[Ipv4Addr]) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse::<IpAddr>().ok())
        .filter(|address| !own.iter().any(|own| IpAddr::V4(*own) == *address))
        .map(|address| SocketAddr::new(address, 53))
        .take(RESOLVERS_MAX)
        .collect()
}

/// Asks the resolvers in turn and answers the first answer to this very question. `None` if nobody answers.
pub(crate) async fn ask(resolvers: &[SocketAddr], question: &[u8], stream: bool) -> Option<Vec<u8>> {
    for resolver in resolvers {
        let asked = async {
            if stream { by_stream(*resolver, question).await } else { by_datagram(*resolver, question).await }
        };
        if let Ok(Ok(answer)) = timeout(PATIENCE, asked).await {
            return Some(answer);
        }
    }
    None
}

async fn by_datagram(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { ([0u16; 8], 0).into() };
    // A socket of its own per question: the kernel chooses a port by chance and lets in only this resolver.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    // What pods may announce at most (`server::DATAGRAM_MAX`) is also the most that is taken.
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(question, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_stream(resolver: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answers(question, &answer) { Ok(answer) } else { Err(std::io::Error::other("another question's answer")) }
}

/// Whether the answer carries the question's number and is an answer.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer.get(..2) == question.get(..2) && answer[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn resolvers_are_read_and_oneself_left_out() {
        let text = "# by hand\nsearch example.org\nnameserver 10.1.0.1\n nameserver\t192.0.2.1 # b\nnameserver bad\n\
                    nameserver 192.0.2.2\nnameserver ::1\nnameserver 192.0.2.3\n";
        let found: Vec<String> = parse(text, &[Ipv4Addr::new(10, 1, 0, 1)]).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "192.0.2.2:53", "[::1]:53"]);
    }
}

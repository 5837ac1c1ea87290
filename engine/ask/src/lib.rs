//! *Asking* a server whether it is well: whether its port takes connections, what a page of it says, whether a service of gRPC is healthy.
//!
//! ```text
//! dial ─▶ a connection        page ─▶ code, beginning, also over TLS and where it sends us        health ─▶ SERVING or why not
//! ```
//!
//! Who answers may be anybody: nothing of an answer is kept beyond a bound, and no certificate is believed or refused, for what is asked is
//! whether it answers, not who it is. Time is the caller's to bound: each question ends when it is dropped. Errors are in the words of Go's
//! clients, which people search for.

mod health;
mod page;

pub use health::check;
pub use page::{Page, headers, page};

use tokio::net::TcpStream;

/// A connection to a port.
///
/// # Errors
/// Nobody takes it.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let host = host.trim_matches(['[', ']']);
    TcpStream::connect((host, port)).await.map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => e.to_string(),
        };
        format!("dial tcp {}: {why}", joined(host, port))
    })
}

/// A host and its port; an address of IPv6 in brackets.
pub fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An error with its causes, for people.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

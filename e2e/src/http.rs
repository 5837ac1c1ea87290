//! As much HTTP as it takes to look at a page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A page of the stories is a line or two.
const PAGE_BYTES_MAX: u64 = 64 * 1024;

/// `GET /` over HTTP/1.0 at ADDRESS:PORT; the body.
///
/// # Errors
/// What was seen instead: it is looked at again and again, until it is there.
pub fn get(address: &str) -> Result<String, String> {
    let parsed = address.parse().map_err(|_| format!("{address} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&parsed, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(8))).map_err(|e| e.to_string())?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut text).map_err(|e| e.to_string())?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or(text)
}

//! `grpc.health.v1.Health/Check`, over HTTP/2 without TLS (the GRPC Health Checking Protocol).
//!
//! ```text
//! HealthCheckRequest  { string service = 1; }      a message: 0, its length in four bytes, its bytes
//! HealthCheckResponse { ServingStatus status = 1; }
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use crate::{chain, dial, joined};

/// An answer has seven bytes.
const ANSWER_MAX: usize = 1024;
/// gRPC's codes that are told apart.
const OK: i32 = 0;
const UNIMPLEMENTED: i32 = 12;
/// `ServingStatus`, by number.
const STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks whether `service` is well; none stands for the whole server.
///
/// # Errors
/// It is not, or does not answer.
pub async fn check(host: &str, port: u16, service: &str, agent: &str) -> Result<(), String> {
    let at = joined(host, port);
    let lost = |why: String| format!("error: failed to connect service at {at:?}: {why}");
    let socket = dial(host, port).await.map_err(lost)?;
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.max_header_list_size(16 << 10);
    let (mut sender, connection) = client.handshake(TokioIo::new(socket)).await.map_err(|e| lost(chain(&e)))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let failed = |e: &dyn std::error::Error| format!("error: health rpc probe failed: {}", chain(e));
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, agent)
        .body(Full::new(request(service)))
        .map_err(|e| failed(&e))?;
    let (head, body) = sender.send_request(request).await.map_err(|e| failed(&e))?.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|e| failed(e.as_ref()))?;
    if head.status != http::StatusCode::OK {
        return Err(format!("error: health rpc probe failed: unexpected HTTP status code {}", head.status));
    }
    // An error without a message has its code in the head.
    let (code, said) = code(body.trailers()).or_else(|| code(Some(&head.headers))).unwrap_or_else(unsaid);
    match code {
        OK => {}
        UNIMPLEMENTED => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}"
            ));
        }
        code => return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {said}")),
    }
    match status(&body.to_bytes()) {
        Some("SERVING") => Ok(()),
        Some(status) => Err(format!("service unhealthy (responded with {status:?})")),
        None => Err("error: health rpc probe failed: the answer is no HealthCheckResponse".to_owned()),
    }
}

/// The message that asks for a service.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a); // field 1, of a length
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut all = BytesMut::new();
    all.put_u8(0); // not compressed
    all.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)); // the API bounds an object to far less
    all.put(message);
    all.freeze()
}

/// What is in the answer: nothing stands for 0; what came later than this is UNKNOWN, too.
fn status(answer: &[u8]) -> Option<&'static str> {
    let message = answer.strip_prefix(&[0])?;
    let (length, message) = message.split_at_checked(4)?;
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    match message {
        [] => STATUS.first().copied(),
        [0x08, number] => Some(STATUS.get(usize::from(*number)).copied().unwrap_or("UNKNOWN")),
        _ => None,
    }
}

/// An answer that says nothing of how it went is none (gRPC's Internal).
fn unsaid() -> (i32, String) {
    (13, "server closed the stream without sending trailers".to_owned())
}

/// gRPC's own code and words.
fn code(of: Option<&HeaderMap>) -> Option<(i32, String)> {
    let text = |name: &str| of?.get(name)?.to_str().ok();
    let code = text("grpc-status")?.parse().ok()?;
    Some((code, text("grpc-message").unwrap_or_default().chars().take(256).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_messages() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = request(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some("SERVING"));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some("UNKNOWN"), "what is not there is 0");
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 9]), Some("UNKNOWN"));
        for wrong in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 2, 0x10, 1]] {
            assert_eq!(status(wrong), None, "{wrong:?}");
        }
    }
}

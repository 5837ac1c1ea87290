//! Requests in, responses out: media types, bodies, representations.

pub mod accept;
pub mod deliver;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

pub use self::accept::{Format, Offer, View, negotiate};
use crate::protobuf;
use crate::status::Status;

/// What responses carry.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The largest request body (`MaxRequestBodyBytes` upstream).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What a request's body may be.
const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// A response of what `write` writes, while it is written: a reader that is slow holds it up, and no more than a few chunks are kept.
pub fn written(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send + 'static) -> Response<Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut sink = std::io::BufWriter::with_capacity(CHUNK_BYTES, Chunks(sender.clone()));
        if let Err(error) = write(&mut sink).and_then(|()| std::io::Write::flush(&mut sink)) {
            let _ = sender.blocking_send(Err(error)); // so that the reader does not take it for whole
        }
    });
    let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk: std::io::Result<Bytes>| (chunk.map(http_body::Frame::data), receiver))
    });
    let mut response = Response::new(http_body_util::StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

const CHUNK_BYTES: usize = 256 * 1024;

struct Chunks(tokio::sync::mpsc::Sender<std::io::Result<Bytes>>);

impl std::io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads a whole body, within its bound.
pub async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(BODY_BYTES_MAX)),
        Err(error) => Err(Status::bad_request(format!("cannot read the body: {error}"))),
    }
}

/// Reads JSON, YAML or protobuf, as `Content-Type` says.
///
/// # Errors
/// 400 when the bytes are not what it says; 415 when it says something else, or protobuf of a kind that has none.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Value, Status> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|c| c.to_str().ok()).unwrap_or("application/json");
    match sent.split(';').next().unwrap_or_default().trim() {
        "application/yaml" | "application/x-yaml" | "text/yaml" => parse_yaml(body),
        "application/json" | "*/*" | "" => serde_json::from_slice(body).map_err(|e| {
            Status::bad_request(format!("the object provided is unrecognized (must be of type JSON or YAML): {e}"))
        }),
        protobuf::MEDIA_TYPE => protobuf::decode(body).map_err(|e| match e.is_unknown_kind() {
            true => Status::unsupported_media_type(&format!("{} ({e})", protobuf::MEDIA_TYPE), MEDIA_TYPES),
            false => Status::bad_request(format!("the object provided is unrecognized (protobuf): {e}")),
        }),
        other => Err(Status::unsupported_media_type(other, MEDIA_TYPES)),
    }
}

/// Stack for a reader of YAML, which takes 64 levels at most: some 27 KiB for each in a debug build.
const YAML_STACK_BYTES: usize = 4 * 1024 * 1024;

/// Reads YAML as the JSON it stands for. Most of what is sent as YAML is JSON, and is read as that (as upstream).
pub fn parse_yaml(body: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(body).map_err(|_| Status::bad_request("the YAML is not UTF-8"))?;
    let json = text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    if let Some(value) = json {
        return Ok(value);
    }
    // The reader goes down as deep as the text, and whoever asks may have used most of its own stack.
    let read = || serde_saphyr::from_str(text).map_err(|e| format!("error converting YAML to JSON: {e}"));
    let read = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(YAML_STACK_BYTES).spawn_scoped(scope, read);
        thread.map(|thread| thread.join().unwrap_or_else(|_| Err("the YAML could not be read".into())))
    });
    read.map_err(|e| Status::internal(format!("a thread for YAML: {e}")))?.map_err(Status::bad_request)
}

/// The JSON text of a response, beside it: what [`deliver`] may write in another way.
#[derive(Clone)]
struct Whole(Bytes);

/// The JSON text of a response, if it is whole and not yet dressed.
pub fn whole(response: &Response<Body>) -> Option<Bytes> {
    response.extensions().get::<Whole>().map(|Whole(json)| json.clone())
}

/// A response of JSON text.
pub fn json_bytes(code: StatusCode, json: Bytes) -> Response<Body> {
    let mut response = Response::new(full(json.clone()));
    response.extensions_mut().insert(Whole(json));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

/// A response of one JSON value.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    json_bytes(code, value.to_string().into())
}

/// A response of plain text.
pub fn text(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A whole body.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

impl From<Status> for Response<Body> {
    fn from(status: Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(code, &status.to_value());
        let seconds = status.details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn deep_yaml_needs_nothing_of_the_stack_of_who_asks() {
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(60), close.repeat(60));
        let read = move |text: String| {
            let little = std::thread::Builder::new().stack_size(128 * 1024);
            little.spawn(move || parse_yaml(text.as_bytes())).unwrap().join().unwrap()
        };
        assert!(read(deep("{a: ", "}")).unwrap()["a"]["a"].is_object());
        assert!(read(deep("- ", "x")).is_ok());
        assert!(read(deep("{a: ", "}").repeat(2)).is_err());
        assert_eq!(read("{\"a\": [1, null]}".into()).unwrap(), serde_json::json!({"a": [1, null]}));
    }
}

//! The last step of an answer: whole JSON documents become what the caller accepts.
//!
//! ```text
//! verb ─▶ JSON text ─▶ protobuf or YAML, if that was asked for ─▶ gzip, if it is long ─▶ caller
//! ```
//!
//! So every verb speaks JSON, which is what the store holds, and errors come in the same dress as objects. Streams pass as they are.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::Value;

use super::accept::{Format, Offer, negotiate};
use super::{Body, Whole, full};
use crate::protobuf::{self, encode};
use crate::status::Status;

/// Shorter answers are not compressed (`defaultGzipThresholdBytes` upstream): it would cost more than it spares.
const GZIP_FROM: usize = 128 * 1024;

/// What of a request says how its answer is to be written.
pub struct Wishes {
    accept: HeaderMap,
    gzip: bool,
}

impl Wishes {
    /// Those of a request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).map(|accept| (header::ACCEPT, accept.clone())).into_iter().collect();
        let encodings = headers.get(header::ACCEPT_ENCODING).and_then(|e| e.to_str().ok()).unwrap_or_default();
        Self { accept, gzip: encodings.split(',').any(|encoding| encoding.trim() == "gzip") }
    }

    /// The response as it is sent.
    pub async fn dress(&self, mut response: Response<Body>) -> Response<Body> {
        let Some(Whole(json)) = response.extensions_mut().remove::<Whole>() else { return response };
        let written = match self.encoded(&json) {
            Ok(None) => None,
            Ok(Some((media, bytes))) => {
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
                Some(bytes)
            }
            Err(why) => {
                tracing::warn!(%why, "an answer could not be encoded");
                return Status::internal(why).into();
            }
        };
        let whole = written.clone().unwrap_or(json);
        if self.gzip && whole.len() >= GZIP_FROM {
            // Some 10 ms for a MiB: others on this thread need not wait for it.
            let zipped = tokio::task::spawn_blocking(move || gzip(&whole)).await;
            if let Ok(Ok(zipped)) = zipped {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
                *response.body_mut() = full(zipped);
                return response;
            }
        }
        if let Some(bytes) = written {
            *response.body_mut() = full(bytes);
        }
        response
    }

    /// The media type and text of another encoding than JSON, if that is wanted.
    fn encoded(&self, json: &[u8]) -> Result<Option<(&'static str, Bytes)>, Box<dyn std::error::Error + Send + Sync>> {
        if self.accept.is_empty() {
            return Ok(None);
        }
        // Only who names another format pays for a look into the text.
        let Ok((_, format)) = negotiate(&self.accept, Offer { protobuf: true, stream: false }) else { return Ok(None) };
        if format == Format::Json {
            return Ok(None);
        }
        let (version, kind) = encode::kind_of(json);
        let offer = Offer { protobuf: encode::is_known(&version, &kind), stream: false };
        // Whoever accepts nothing of it was refused before; a refusal comes in JSON then.
        match negotiate(&self.accept, offer) {
            Ok((_, Format::Protobuf)) => Ok(encode::encode(json)?.map(|bytes| (protobuf::MEDIA_TYPE, bytes.into()))),
            Ok((_, Format::Yaml)) => {
                let value: Value = serde_json::from_slice(json)?;
                Ok(Some(("application/yaml", serde_saphyr::to_string(&value)?.into())))
            }
            _ => Ok(None),
        }
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    // The fastest level, as upstream: lists are mostly repetition, and better levels gain little.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

//! `Accept`: which of its representations a caller wants of an object, and in which encoding.
//!
//! ```text
//! Accept: application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json;q=0.5
//!         └──────────── how ───────────────┘ └──────────── what ───────────────────────┘  └── or, rather less, …
//! ```
//!
//! What is wanted most comes first, what is said more closely before what is said with `*` (RFC 9110 §12.5.1).

use http::{HeaderMap, header};

use crate::protobuf;
use crate::status::Status;

/// How the caller wants to see objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As they are.
    Object,
    /// Only type and metadata.
    Metadata,
    /// Rows.
    Table,
}

/// How what is shown is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, which is what the store holds.
    Json,
    /// Text for people.
    Yaml,
    /// By the tables of [`crate::protobuf`].
    Protobuf,
}

/// What can be answered, by the kind that is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// Whether objects of the kind have a protobuf; metadata alone always have one.
    pub protobuf: bool,
    /// Whether the answer is a stream of events, for which YAML has no frames.
    pub stream: bool,
}

/// Clauses that are looked at; browsers send some eight.
const CLAUSES_MAX: usize = 64;

/// One clause of the header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// From 0 to 1.
    quality: f32,
}

/// What `headers` want of what is offered.
///
/// # Errors
/// 406 when nothing of it is.
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Result<(View, Format), Status> {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).filter(|a| !a.trim().is_empty());
    let mut clauses: Vec<Clause> = accept.unwrap_or("*/*").split(',').take(CLAUSES_MAX).map(clause).collect();
    let stars = |media: &str| media.matches('*').count();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(stars(a.media).cmp(&stars(b.media))));
    let found = clauses.iter().filter(|clause| clause.quality > 0.0).find_map(|clause| chosen(clause, offer));
    found.ok_or_else(|| {
        let last = if offer.protobuf { [", ", protobuf::MEDIA_TYPE].concat() } else { String::new() };
        let all = if offer.stream { "application/json" } else { "application/json, application/yaml" };
        Status::not_acceptable(&format!("{all}{last}"))
    })
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
    let quality = parameters.iter().find(|(key, _)| *key == "q").map_or(Ok(1.0), |(_, q)| q.parse());
    Clause { media, parameters, quality: quality.unwrap_or(0.0) }
}

/// What a clause asks for, if that is offered.
fn chosen(clause: &Clause, offer: Offer) -> Option<(View, Format)> {
    let parameter = |name: &str| clause.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if parameter("stream").is_some_and(|stream| !(offer.stream && stream == "watch")) {
        return None;
    }
    let view = match (parameter("as"), parameter("v")) {
        (None, _) => View::Object,
        (Some("Table"), Some("v1")) => View::Table,
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => View::Metadata,
        _ => return None,
    };
    let format = match clause.media {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" if !offer.stream => Format::Yaml,
        // Rows are JSON within JSON: they have no message.
        protobuf::MEDIA_TYPE if view == View::Metadata || (offer.protobuf && view == View::Object) => Format::Protobuf,
        _ => return None,
    };
    Some((view, format))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wanted_most_and_is_offered() {
        const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
        let (all, custom) = (Offer { protobuf: true, stream: false }, Offer::default());
        let watch = Offer { protobuf: true, stream: true };
        for (accept, offer, expected) in [
            ("", all, "Object Json"),
            ("*/*", all, "Object Json"),
            (PROTOBUF, all, "Object Protobuf"),
            ("application/vnd.kubernetes.protobuf,application/json", custom, "Object Json"),
            (PROTOBUF, custom, "only the following media types are accepted: application/json, application/yaml"),
            ("application/json;q=0.4, application/yaml;q=0.5", all, "Object Yaml"),
            ("*/*, application/yaml", all, "Object Yaml"),
            ("application/json;q=0, application/yaml", all, "Object Yaml"),
            (
                "application/yaml",
                watch,
                "only the following media types are accepted: application/json, application/vnd.kubernetes.protobuf",
            ),
            ("application/vnd.kubernetes.protobuf;stream=watch", watch, "Object Protobuf"),
            ("application/vnd.kubernetes.protobuf;stream=watch, application/json", all, "Object Json"),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                custom,
                "Metadata Protobuf",
            ),
            ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json", all, "Object Json"),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v2,application/json;as=Table;g=meta.k8s.io;v=v1",
                all,
                "Table Json",
            ),
            (
                "text/html",
                all,
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            let observed = match negotiate(&headers, offer) {
                Ok((view, format)) => format!("{view:?} {format:?}"),
                Err(status) => status.message,
            };
            assert_eq!(observed, expected, "{accept}");
        }
    }
}

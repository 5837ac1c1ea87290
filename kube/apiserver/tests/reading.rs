//! What comes back of a read: how it is packed, of which moment it is, and what is said when that moment is gone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use support::{api, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn long_answers_are_zipped_for_who_says_so() {
    let api = api().await;
    api.post(MAPS, config_map("small", "1")).await;
    api.post(MAPS, config_map("large", &"x".repeat(130 * 1024))).await;
    let packed = async |path: &str, encodings: &str| {
        let headers = [("accept-encoding", encodings)];
        let response = api.raw(Method::GET, path, &headers, "").await;
        let encoding = response.headers().get("content-encoding").map(|e| e.to_str().unwrap().to_owned());
        (encoding, response.into_body().collect().await.unwrap().to_bytes())
    };
    let large = format!("{MAPS}/large");
    let (encoding, bytes) = packed(&large, "deflate, gzip").await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    assert!(bytes.len() < 8 * 1024, "{}", bytes.len());
    let mut text = String::new();
    GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), api.get(&large).await.1);
    assert_eq!(packed(&format!("{MAPS}/small"), "gzip").await.0, None, "that would cost more than it spares");
    assert_eq!(packed(&large, "deflate").await.0, None);
    let watch = api.raw(Method::GET, &format!("{MAPS}?watch=1"), &[("accept-encoding", "gzip")], "").await;
    assert_eq!(watch.headers().get("content-encoding"), None);
}

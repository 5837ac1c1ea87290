//! What comes back of a read: how it is packed, of which moment it is, and what is said when that moment is gone.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{api, config_map, events};

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

#[tokio::test]
async fn what_may_be_asked_of_lists_and_watches() {
    let api = api().await;
    let forbidden =
        |why: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}");
    let both = "resourceVersionMatch is forbidden when continue is provided";
    for (query, code, message) in [
        ("resourceVersionMatch=Exact", 422, forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x", 422, forbidden(both)),
        (
            "resourceVersionMatch=Some&resourceVersion=1",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \"Some\": supported values: \"Exact\", \"NotOlderThan\", \"\"".into(),
        ),
        ("sendInitialEvents=true", 422, "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".into()),
        ("watch=1&sendInitialEvents=true", 422, forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422, forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")),
        ("resourceVersion=99999", 504, "Timeout: Too large resource version: 99999, current: ".into()),
        ("resourceVersion=x", 400, "resourceVersion: Invalid value: \"x\": invalid resource version".into()),
    ] {
        let (observed, status) = api.get(&format!("{MAPS}?{query}")).await;
        assert_eq!(observed, code, "{query}: {status}");
        assert!(status["message"].as_str().unwrap().starts_with(&message), "{query}: {}", status["message"]);
    }
    let (code, status) = api.get(&format!("{MAPS}/a?resourceVersion=99999")).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
}

fn values(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|o| o["data"]["k"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn of_which_moment_a_list_is() {
    let api = api().await;
    let (_, made) = api.post(MAPS, config_map("a", "old")).await;
    let then = made["metadata"]["resourceVersion"].as_str().unwrap();
    api.put(&format!("{MAPS}/a"), config_map("a", "new")).await;
    for (query, expected) in [
        ("", "new"),
        ("resourceVersion=0", "new"),
        (&format!("resourceVersion={then}"), "new"),
        (&format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=1"), "new"),
        (&format!("resourceVersion={then}&resourceVersionMatch=Exact"), "old"),
        (&format!("resourceVersion={then}&limit=1"), "old"),
    ] {
        assert_eq!(values(&api.get(&format!("{MAPS}?{query}")).await.1), [expected], "{query}");
    }
}

#[tokio::test]
async fn a_token_that_is_too_old_says_how_to_go_on() {
    let api = api().await;
    for name in ["a", "b", "c"] {
        api.post(MAPS, config_map(name, name)).await;
    }
    let (_, first) = api.get(&format!("{MAPS}?limit=1")).await;
    let big = "x".repeat(1_000_000);
    for i in 0..6 {
        api.put(&format!("{MAPS}/c"), config_map("c", &format!("{big}{i}"))).await;
    }
    api.put(&format!("{MAPS}/c"), config_map("c", "newer")).await;
    let page = async |token: &Value| api.get(&format!("{MAPS}?limit=1&continue={}", token.as_str().unwrap())).await;
    let (code, gone) = page(&first["metadata"]["continue"]).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")), "{gone}");
    let said = gone["message"].as_str().unwrap();
    assert!(said.contains("or use the continue token in this response to retrieve the remainder"), "{said}");
    let (code, second) = page(&gone["metadata"]["continue"]).await;
    assert_eq!((code, values(&second)), (200, vec!["b"]));
    assert_eq!(values(&page(&second["metadata"]["continue"]).await.1), ["newer"]);
}

#[tokio::test]
async fn initial_events_and_their_end_come_as_asked() {
    let api = api().await;
    api.post(MAPS, config_map("a", "1")).await;
    let watch = |query: &str| format!("{MAPS}?watch=1&resourceVersionMatch=NotOlderThan&{query}");
    let list = api.raw(Method::GET, &watch("sendInitialEvents=true"), &[], "").await;
    let silent = api.raw(Method::GET, &watch("sendInitialEvents=false"), &[], "").await;
    api.post(MAPS, config_map("b", "1")).await;
    let told = |events: Vec<Value>| -> Vec<String> {
        events
            .iter()
            .map(|e| {
                format!("{} {}", e["type"].as_str().unwrap(), e["object"]["metadata"]["name"].as_str().unwrap_or("-"))
            })
            .collect()
    };
    assert_eq!(told(events(list, 2).await), ["ADDED a", "ADDED b"], "without bookmarks there is none at their end");
    assert_eq!(told(events(silent, 1).await), ["ADDED b"]);
}

//! Watches: nothing missed, nothing repeated, and a clear word when the past is gone.

use http::Method;
use serde_json::{Value, json};

use crate::support::{api, config_map, events};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn told(events: &[Value]) -> Vec<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|e| (text(&e["type"]), text(&e["object"]["metadata"]["name"]), text(&e["object"]["data"]["k"])))
        .collect()
}

fn row(kind: &str, name: &str, value: &str) -> (String, String, String) {
    (kind.into(), name.into(), value.into())
}

#[tokio::test]
async fn from_a_list_on() {
    let api = api().await;
    api.post(MAPS, config_map("a", "1")).await;
    let (_, list) = api.get(MAPS).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    api.put(&format!("{MAPS}/a"), config_map("a", "2")).await;
    let watch = api.raw(Method::GET, &format!("{MAPS}?watch=1&resourceVersion={from}"), &[], "").await;
    api.post(MAPS, config_map("b", "1")).await;
    api.delete(&format!("{MAPS}/a")).await;
    assert_eq!(
        told(&events(watch, 3).await),
        [row("MODIFIED", "a", "2"), row("ADDED", "b", "1"), row("DELETED", "a", "2")]
    );
}

#[tokio::test]
async fn a_selection_sees_objects_enter_and_leave() {
    let api = api().await;
    let labelled = |value: &str| {
        let mut object = config_map("a", value);
        object["metadata"]["labels"] = json!({"v": value});
        object
    };
    let watch = api.raw(Method::GET, &format!("{MAPS}?watch=1&labelSelector=v%3Din"), &[], "").await;
    api.post(MAPS, labelled("out")).await;
    api.put(&format!("{MAPS}/a"), labelled("in")).await;
    api.put(&format!("{MAPS}/a"), labelled("out")).await;
    assert_eq!(told(&events(watch, 2).await), [row("ADDED", "a", "in"), row("DELETED", "a", "in")]);
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let api = api().await;
    api.post(MAPS, config_map("a", "1")).await;
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let seen = events(api.raw(Method::GET, &path, &[], "").await, 2).await;
    assert_eq!(seen[1]["type"], "BOOKMARK");
    assert_eq!(seen[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn a_forgotten_past_is_410_and_time_ends_a_watch() {
    let api = api().await;
    api.post(MAPS, config_map("a", "0")).await;
    // More than the history holds: each event keeps this value and the one before.
    let big = "x".repeat(1_000_000);
    for i in 0..6 {
        api.put(&format!("{MAPS}/a"), config_map("a", &format!("{big}{i}"))).await;
    }
    let watch = api.raw(Method::GET, &format!("{MAPS}?watch=1&resourceVersion=1"), &[], "").await;
    // It begins, and ends with the reason: clients begin anew only when they hear it there.
    assert_eq!(watch.status(), 200);
    let told = &events(watch, 2).await[..];
    assert_eq!(
        (told.len(), &told[0]["type"], &told[0]["object"]["code"]),
        (1, &json!("ERROR"), &json!(410)),
        "{told:?}"
    );
    assert!(told[0]["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("), "{told:?}");
    let watch = api
        .raw(
            Method::GET,
            &format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion=0&fieldSelector=metadata.name%3Dnone"),
            &[],
            "",
        )
        .await;
    assert!(events(watch, 1).await.is_empty());
}

#[tokio::test]
async fn many_writers_one_watcher() {
    let api = std::sync::Arc::new(api().await);
    let watch = api
        .raw(
            Method::GET,
            &format!(
                "{MAPS}?watch=1&resourceVersion={}",
                api.get(MAPS).await.1["metadata"]["resourceVersion"].as_str().unwrap()
            ),
            &[],
            "",
        )
        .await;
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let api = api.clone();
            tokio::spawn(async move {
                for i in 0..25 {
                    assert_eq!(api.post(MAPS, config_map(&format!("m-{w}-{i}"), "1")).await.0, 201);
                }
            })
        })
        .collect();
    let seen = events(watch, 200).await;
    for writer in writers {
        writer.await.unwrap();
    }
    let versions: Vec<u64> =
        seen.iter().map(|e| e["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(versions.len(), 200);
    assert!(versions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each once, in order");
}

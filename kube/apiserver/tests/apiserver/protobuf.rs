//! Answers in protobuf: objects, lists, refusals, watches and metadata alone, read here by the encoding's own rules, not by the server's tables.

use std::time::Duration;

use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use substrate_apiserver::Body;

use crate::support::{Api, api, config_map, pod};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// What stands at a path of field numbers, each time that it occurs.
fn dig(mut bytes: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    let Some((wanted, rest)) = path.split_first() else { return vec![bytes.to_vec()] };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                let number = varint(&mut bytes);
                if tag >> 3 == *wanted && rest.is_empty() {
                    found.push(number.to_string().into_bytes());
                }
                continue;
            }
            2 => varint(&mut bytes) as usize,
            other => panic!("wire type {other}"),
        };
        let (value, left) = bytes.split_at(length);
        bytes = left;
        if tag >> 3 == *wanted {
            found.extend(dig(value, rest));
        }
    }
    found
}

fn words(bytes: &[u8], path: &[u64]) -> Vec<String> {
    dig(bytes, path).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

/// An envelope: apiVersion and kind, and what is in it.
fn opened(bytes: &[u8]) -> (String, Vec<u8>) {
    let unknown = bytes.strip_prefix(b"k8s\0").unwrap_or_else(|| panic!("no envelope: {bytes:?}"));
    let kind = [words(unknown, &[1, 1]), words(unknown, &[1, 2])].concat().join(" ");
    (kind, dig(unknown, &[2]).concat())
}

async fn ask(api: &Api, method: Method, path: &str, accept: &str, body: &str) -> (u16, String, Vec<u8>) {
    let response = api.raw(method, path, &[("accept", accept)], body.to_owned()).await;
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), media, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Frames of a watch: word, kind and name of each.
async fn frames(response: Response<Body>, count: usize) -> Vec<(String, String, String)> {
    let (mut body, mut read, mut seen) = (response.into_body(), Vec::new(), Vec::new());
    while seen.len() < count {
        let frame =
            tokio::time::timeout(Duration::from_secs(30), body.frame()).await.unwrap_or_else(|_| panic!("{seen:?}"));
        read.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        while let Some((length, rest)) = read.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if rest.len() < length {
                break;
            }
            let event = rest[..length].to_vec();
            read = rest[length..].to_vec();
            let (kind, raw) = opened(&dig(&event, &[2, 1]).concat());
            seen.push((words(&event, &[1]).concat(), kind, words(&raw, &[1, 1]).concat()));
        }
    }
    seen
}

fn row(word: &str, kind: &str, name: &str) -> (String, String, String) {
    (word.into(), kind.into(), name.into())
}

#[tokio::test]
async fn objects_lists_and_refusals() {
    let api = api().await;
    let (code, media, made) = ask(&api, Method::POST, PODS, PROTOBUF, &pod("a").to_string()).await;
    assert_eq!((code, media.as_str()), (201, PROTOBUF));
    let (kind, raw) = opened(&made);
    assert_eq!((kind.as_str(), words(&raw, &[1, 1])), ("v1 Pod", vec!["a".to_owned()]));
    assert_eq!((words(&raw, &[2, 2, 1]), words(&raw, &[2, 2, 2])), (vec!["main".into()], vec!["busybox".into()]));

    let (_, _, got) = ask(&api, Method::GET, &format!("{PODS}/a"), PROTOBUF, "").await;
    assert_eq!(got, made);
    // What was got is what a client may send back: nothing of it was lost.
    let (_, before) = api.get(&format!("{PODS}/a")).await;
    let sent = api
        .raw(Method::PUT, &format!("{PODS}/a"), &[("content-type", PROTOBUF), ("accept", "application/json")], got)
        .await;
    let after: Value = serde_json::from_slice(&sent.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(after, before);

    api.post(PODS, pod("b")).await;
    let (_, _, list) = ask(&api, Method::GET, &format!("{PODS}?limit=1"), PROTOBUF, "").await;
    let (kind, raw) = opened(&list);
    assert_eq!((kind.as_str(), words(&raw, &[2, 1, 1])), ("v1 PodList", vec!["a".to_owned()]));
    assert_eq!(
        (words(&raw, &[1, 3]).len(), words(&raw, &[1, 4])),
        (1, vec!["1".to_owned()]),
        "a token, and one is left"
    );

    let (code, media, refused) = ask(&api, Method::GET, &format!("{PODS}/none"), PROTOBUF, "").await;
    assert_eq!((code, media.as_str()), (404, PROTOBUF));
    let (kind, raw) = opened(&refused);
    assert_eq!(
        (kind.as_str(), words(&raw, &[3]), words(&raw, &[6])),
        ("v1 Status", vec!["pods \"none\" not found".to_owned()], vec!["404".to_owned()])
    );
    let (code, _, deleted) = ask(&api, Method::DELETE, &format!("{PODS}/a?gracePeriodSeconds=0"), PROTOBUF, "").await;
    assert_eq!((code, opened(&deleted).0.as_str()), (200, "v1 Pod"));
    let (_, media, yaml) = ask(&api, Method::GET, &format!("{PODS}/b"), "application/yaml", "").await;
    assert!(media == "application/yaml" && yaml.starts_with(b"apiVersion: v1\nkind: Pod\n"), "{media}");
}

#[tokio::test]
async fn a_watch_has_frames() {
    let api = api().await;
    api.post(MAPS, config_map("a", "1")).await;
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let watch = api.raw(Method::GET, &path, &accept, "").await;
    assert_eq!(watch.headers()["content-type"], accept[0].1);
    api.put(&format!("{MAPS}/a"), config_map("a", "2")).await;
    api.delete(&format!("{MAPS}/a")).await;
    let kind = "v1 ConfigMap";
    assert_eq!(
        frames(watch, 4).await,
        [row("ADDED", kind, "a"), row("BOOKMARK", kind, ""), row("MODIFIED", kind, "a"), row("DELETED", kind, "a")]
    );
}

#[tokio::test]
async fn custom_kinds_have_metadata_alone() {
    let api = api().await;
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let definition = json!({ "metadata": { "name": "rockets.x.io" }, "spec": {
        "group": "x.io", "scope": "Cluster", "names": { "plural": "rockets", "kind": "Rocket" },
        "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }] } });
    let (code, made) = api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(code, 201, "{made}");
    const ROCKETS: &str = "/apis/x.io/v1/rockets";
    let (code, refused) = {
        let (code, media, body) = ask(&api, Method::POST, ROCKETS, PROTOBUF, r#"{"metadata":{"name":"a"}}"#).await;
        (code, format!("{media} {}", opened(&body).0))
    };
    assert_eq!((code, refused.as_str()), (406, "application/vnd.kubernetes.protobuf v1 Status"));
    assert_eq!(api.get(&format!("{ROCKETS}/a")).await.0, 404, "nothing was written for who cannot read the answer");
    api.post(ROCKETS, json!({ "apiVersion": "x.io/v1", "kind": "Rocket", "metadata": { "name": "a" }, "fuel": 1 }))
        .await;
    let (_, media, _) = ask(&api, Method::GET, ROCKETS, &format!("{PROTOBUF},application/json"), "").await;
    assert_eq!(media, "application/json");
    let (_, _, list) = ask(&api, Method::GET, ROCKETS, METADATA, "").await;
    let (kind, raw) = opened(&list);
    assert_eq!(
        (kind.as_str(), words(&raw, &[2, 1, 1])),
        ("meta.k8s.io/v1 PartialObjectMetadataList", vec!["a".to_owned()])
    );
    let path =
        format!("{ROCKETS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let watch = api.raw(Method::GET, &path, &[("accept", METADATA)], "").await;
    let kind = "meta.k8s.io/v1 PartialObjectMetadata";
    assert_eq!(frames(watch, 2).await, [row("ADDED", kind, "a"), row("BOOKMARK", kind, "")]);
}

#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use expect_test::{Expect, expect};
use fluidos_identity::{NodeKey, fabric_prefix};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret, Service};
use serde_json::{Value, json};

use super::package::{Around, package};
use super::plan::{Action, State, View, plan};
use crate::frames::Reported;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, deleting: bool) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"nodeName": "grid", "containers": [{"name": "c", "image": "i"}]}});
    if deleting {
        pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:30Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    }
    from(pod)
}

fn around(services: Vec<Arc<Service>>) -> Around<'static> {
    Around {
        config_map: &|name| Some(Arc::new(from::<ConfigMap>(json!({"metadata": {"name": name}, "data": {"A": "1"}})))),
        secret: &|name| {
            (name != "absent")
                .then(|| Arc::new(from::<Secret>(json!({"metadata": {"name": name, "annotations": {"x": "y"}}}))))
        },
        services,
        dns_address: Ipv4Addr::new(100, 64, 15, 10),
        cluster_domain: "cluster.local",
    }
}

fn view(pods: Vec<Pod>) -> View {
    let around = around(vec![]);
    let wanted = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let packages = wanted.map(|pod| (pod.metadata.uid.clone().unwrap(), package(pod, &around))).collect();
    let prefix = fabric_prefix(&NodeKey::from_seed([3; 32]).unwrap().id(), 0);
    View { pods: pods.into_iter().map(Arc::new).collect(), packages, barred: Default::default(), prefix: Some(prefix) }
}

fn check(view: &View, state: &State, second: i64, expected: Expect) {
    let actions = plan(view, state, Timestamp::from_second(second).unwrap());
    let lines: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Put { uid, .. } => format!("put {uid}"),
            Action::Delete { uid, grace_seconds } => format!("delete {uid} {grace_seconds:?}"),
            Action::Status { name, patch, .. } => format!("status {name} {patch}"),
            Action::Remove { name, .. } => format!("remove {name}"),
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

fn connected(view: &View) -> State {
    let mut state = State::default();
    state.connect(view);
    state
}

#[test]
fn a_deleted_pod_goes_when_nothing_of_it_runs() {
    let view = view(vec![pod("web", true)]);
    let now = Timestamp::from_second(10).unwrap();
    let mut state = connected(&self::view(vec![pod("web", false)]));
    check(&view, &state, 10, expect!["delete web Some(30)"]);
    state.deleted.insert("web".into());
    check(&view, &state, 100, expect![""]);
    state.hear(Reported::Gone { uid: "web".into(), reason: None }, now);
    check(&view, &state, 100, expect!["remove web"]);
    // Not named when the stream began: only Ready says that it has stopped.
    let mut state = connected(&view);
    check(&view, &state, 100, expect![""]);
    state.ready = true;
    check(&view, &state, 100, expect!["remove web"]);
    // Nobody can be told: its grace is waited for, and a link that comes back at once.
    state.disconnect(Timestamp::from_second(28).unwrap());
    check(&view, &state, 29, expect![""]);
    check(&view, &state, 31, expect![""]);
    check(&view, &state, 33, expect!["remove web"]);
}

#[test]
fn what_is_refused_is_asked_again_later_and_what_is_gone_here_is_deleted_there() {
    let both = view(vec![pod("a", false), pod("b", false)]);
    let mut state = connected(&both);
    check(
        &both,
        &state,
        0,
        expect![[r#"
        put a
        put b"#]],
    );
    for action in plan(&both, &state.clone(), Timestamp::UNIX_EPOCH) {
        if let Action::Put { uid, digest, .. } = action {
            state.put.insert(uid, digest);
        }
    }
    let refused = Reported::Refused { uid: "a".into(), reason: "no\u{1b} room".into(), yields: false };
    state.hear(refused, Timestamp::from_second(1).unwrap());
    check(
        &both,
        &state,
        2,
        expect![[
            r#"status a {"status":{"message":"the provider refused it: no room","phase":"Pending","reason":"Refused"}}"#
        ]],
    );
    check(
        &view(vec![pod("a", false)]),
        &state,
        11,
        expect![[r#"
        put a
        status a {"status":{"message":"the provider refused it: no room","phase":"Pending","reason":"Refused"}}
        delete b None"#]],
    );
    // What is said of pods that are not here is not kept.
    let status = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
    state.hear(Reported::Observed { uid: "foreign".into(), status: Box::new(status) }, Timestamp::UNIX_EPOCH);
    assert!(state.observed.is_empty());
}

#[test]
fn a_pod_that_yields_says_so_and_is_asked_for_again() {
    let one = view(vec![pod("a", false)]);
    let mut state = connected(&one);
    state.put.insert("a".into(), [0; 32]);
    let at = |second| Timestamp::from_second(second).unwrap();
    state.hear(Reported::Refused { uid: "a".into(), reason: "it yields".into(), yields: true }, at(1));
    let told =
        r#"status a {"status":{"message":"the provider refused it: it yields","phase":"Pending","reason":"Yielded"}}"#;
    let actions = plan(&one, &state, at(2));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Status { patch, .. } if told.ends_with(&patch.to_string())))
    );
    assert_eq!(state.yielding.len(), 1);
    let status = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
    state.hear(Reported::Observed { uid: "a".into(), status: Box::new(status) }, at(3));
    assert!(state.yielding.is_empty());
    // One that ran and had to go is over, and says why.
    state.hear(Reported::Gone { uid: "a".into(), reason: Some("it yields\u{1b}".into()) }, at(4));
    let Some(Action::Status { patch, .. }) = plan(&one, &state, at(5)).pop() else { panic!("nothing is said") };
    assert_eq!((&patch["status"]["phase"], &patch["status"]["reason"]), (&json!("Failed"), &json!("Evicted")));
    assert_eq!(patch["status"]["message"], "the provider has taken it down: it yields");
}

#[test]
fn addresses_and_phases_are_believed_within_bounds() {
    let view = view(vec![pod("a", false)]);
    let mut state = connected(&view);
    state.put.insert("a".into(), [0; 32]);
    let mut observe = |phase: &str, address: &str, node: &str| {
        let status = json!({"phase": phase, "podIP": address, "podIPs": [{"ip": address}], "hostIP": node, "nominatedNodeName": "x",
            "conditions": [{"type": "Ready", "status": "Perhaps"}, {"type": "fluidos.eu/Placed", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "evil", "imageID": "", "ready": true, "restartCount": -1}, {"name": "other", "image": "", "imageID": "", "ready": true, "restartCount": 0}]});
        state.hear(Reported::Observed { uid: "a".into(), status: Box::new(from(status)) }, Timestamp::UNIX_EPOCH);
        state.clone()
    };
    check(
        &view,
        &observe("Owned", "10.0.0.1", "10.0.0.2"),
        0,
        expect![[r#"
        put a
        status a {"status":{"conditions":[],"containerStatuses":[{"image":"i","imageID":"","name":"c","ready":true,"restartCount":0}]}}"#]],
    );
    check(
        &view,
        &observe("Running", "100.125.80.7", "10.0.0.2"),
        0,
        expect![[r#"
        put a
        status a {"status":{"conditions":[],"containerStatuses":[{"image":"i","imageID":"","name":"c","ready":true,"restartCount":0}],"phase":"Running","podIP":"100.125.80.7","podIPs":[{"ip":"100.125.80.7"}]}}"#]],
    );
}

#[test]
fn only_what_runs_crosses_the_link() {
    let pod: Pod = from(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"}, "annotations": {"private": "x"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r"}]},
        "spec": {
            "nodeName": "grid", "serviceAccountName": "robot", "priority": 5, "schedulerName": "mine", "imagePullSecrets": [{"name": "pull"}],
            "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "dnsPolicy": "ClusterFirst",
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "volumes": [
                {"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"name": "mixed", "projected": {"sources": [{"configMap": {"name": "one"}}, {"secret": {"name": "two"}}]}}],
            "containers": [{"name": "c", "image": "i",
                "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run"}, {"name": "mixed", "mountPath": "/m"}],
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "three"}}],
                "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k", "optional": true}}},
                    {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}]}}));
    let service: Service = from(
        json!({"metadata": {"name": "my-api", "namespace": "shop"}, "spec": {"clusterIP": "100.64.15.20", "ports": [{"name": "http", "port": 80}]}}),
    );
    let headless: Service = from(
        json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
    );
    let put = package(&pod, &around(vec![Arc::new(service), Arc::new(headless)]));
    let names = |names: Vec<Option<String>>| names.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let goes = format!(
        "configMaps: {}\nsecrets: {}\n{}",
        names(put.config_maps.iter().map(|m| m.metadata.name.clone()).collect()),
        names(put.secrets.iter().map(|m| m.metadata.name.clone()).collect()),
        serde_json::to_string_pretty(&put.pod).unwrap()
    );
    expect![[r#"
        configMaps: one three
        secrets: two
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "labels": {
              "app": "web"
            },
            "name": "web",
            "namespace": "shop",
            "uid": "u"
          },
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "MY_API_PORT",
                    "value": "tcp://100.64.15.20:80"
                  },
                  {
                    "name": "MY_API_PORT_80_TCP",
                    "value": "tcp://100.64.15.20:80"
                  },
                  {
                    "name": "MY_API_PORT_80_TCP_ADDR",
                    "value": "100.64.15.20"
                  },
                  {
                    "name": "MY_API_PORT_80_TCP_PORT",
                    "value": "80"
                  },
                  {
                    "name": "MY_API_PORT_80_TCP_PROTO",
                    "value": "tcp"
                  },
                  {
                    "name": "MY_API_SERVICE_HOST",
                    "value": "100.64.15.20"
                  },
                  {
                    "name": "MY_API_SERVICE_PORT",
                    "value": "80"
                  },
                  {
                    "name": "MY_API_SERVICE_PORT_HTTP",
                    "value": "80"
                  },
                  {
                    "name": "S",
                    "valueFrom": {
                      "secretKeyRef": {
                        "key": "k",
                        "name": "absent",
                        "optional": true
                      }
                    }
                  },
                  {
                    "name": "L",
                    "value": "web"
                  },
                  {
                    "name": "IP",
                    "valueFrom": {
                      "fieldRef": {
                        "fieldPath": "status.podIP"
                      }
                    }
                  }
                ],
                "envFrom": [
                  {
                    "configMapRef": {
                      "name": "three"
                    },
                    "prefix": "P_"
                  }
                ],
                "image": "i",
                "name": "c",
                "volumeMounts": [
                  {
                    "mountPath": "/m",
                    "name": "mixed"
                  }
                ]
              }
            ],
            "dnsConfig": {
              "nameservers": [
                "100.64.15.10"
              ],
              "options": [
                {
                  "name": "ndots",
                  "value": "1"
                }
              ],
              "searches": [
                "shop.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local"
              ]
            },
            "dnsPolicy": "None",
            "volumes": [
              {
                "name": "mixed",
                "projected": {
                  "sources": [
                    {
                      "configMap": {
                        "name": "one"
                      }
                    },
                    {
                      "secret": {
                        "name": "two"
                      }
                    }
                  ]
                }
              }
            ]
          }
        }"#]]
    .assert_eq(&goes);
}

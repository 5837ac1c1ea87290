//! Families of Services: what they get, what they may ask for, and what becomes of that (KEP-563), in upstream's words.
use serde_json::{Value, json};

use crate::support::{Api, api, dual_api};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

/// Policy, families and addresses.
fn shown(service: &Value) -> String {
    let list = |field: &str| {
        let all = service["spec"][field].as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join(",")
    };
    let addresses = list("clusterIPs");
    assert_eq!(service["spec"]["clusterIP"].as_str(), addresses.split(',').next());
    format!("{} {} {addresses}", service["spec"]["ipFamilyPolicy"].as_str().unwrap(), list("ipFamilies"))
}

async fn made(api: &Api, name: &str, more: Value) -> String {
    let (code, made) = api.post(SERVICES, service(name, more)).await;
    assert_eq!(code, 201, "{made}");
    shown(&made)
}

async fn patched(api: &Api, name: &str, spec: Value) -> Result<String, String> {
    let (code, answer) = api.patch(&format!("{SERVICES}/{name}"), "merge-patch", json!({ "spec": spec })).await;
    match code {
        200 => Ok(shown(&answer)),
        422 => Err(answer["message"].as_str().unwrap().to_owned()),
        _ => panic!("{answer}"),
    }
}

#[tokio::test]
async fn services_get_the_families_that_they_ask_for() {
    let api = dual_api().await;
    let prefer = || json!("PreferDualStack");
    for (name, more, expected) in [
        ("one", json!({}), "SingleStack IPv4 10.96.0.16"),
        ("both", json!({"ipFamilyPolicy": prefer()}), "PreferDualStack IPv4,IPv6 10.96.0.17,fd00:9::10"),
        (
            "turned",
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            "RequireDualStack IPv6,IPv4 fd00:9::11,10.96.0.18",
        ),
        ("six", json!({"ipFamilies": ["IPv6"]}), "SingleStack IPv6 fd00:9::12"),
        ("asked", json!({"clusterIP": "fd00:9::77"}), "SingleStack IPv6 fd00:9::77"),
        (
            "first",
            json!({"clusterIP": "10.96.0.99", "ipFamilyPolicy": prefer()}),
            "PreferDualStack IPv4,IPv6 10.96.0.99,fd00:9::13",
        ),
        (
            "named",
            json!({"clusterIP": "fd00:9::78", "clusterIPs": ["fd00:9::78", "10.96.0.98"], "ipFamilyPolicy": prefer()}),
            "PreferDualStack IPv6,IPv4 fd00:9::78,10.96.0.98",
        ),
        ("headless", json!({"clusterIP": "None"}), "SingleStack IPv4 None"),
        ("heads", json!({"clusterIP": "None", "ipFamilyPolicy": prefer()}), "PreferDualStack IPv4,IPv6 None"),
        ("loose", json!({"clusterIP": "None", "selector": null}), "RequireDualStack IPv4,IPv6 None"),
    ] {
        assert_eq!(made(&api, name, more).await, expected, "{name}");
    }
    let (_, made) = api.post(SERVICES, service("away", json!({"type": "ExternalName", "externalName": "a.org"}))).await;
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(made["spec"].get(field).is_none(), "{made}");
    }
}

#[tokio::test]
async fn a_cluster_of_one_family() {
    let api = api().await;
    let prefers = json!({"ipFamilyPolicy": "PreferDualStack"});
    assert_eq!(made(&api, "prefers", prefers).await, "PreferDualStack IPv4 10.96.0.16");
    let loose = json!({"clusterIP": "None", "selector": null});
    assert_eq!(made(&api, "loose", loose).await, "RequireDualStack IPv4,IPv6 None");
    for (more, why) in [
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"clusterIP": "fd00:9::77"}),
            "spec.clusterIPs[0]: Invalid value: [\"fd00:9::77\"]: IPv6 is not configured on this cluster",
        ),
    ] {
        let (code, answer) = api.post(SERVICES, service("refused", more.clone())).await;
        assert_eq!(
            (code, answer["message"].as_str().unwrap()),
            (422, &*format!("Service \"refused\" is invalid: {why}"))
        );
    }
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let api = dual_api().await;
    made(&api, "taken", json!({"clusterIP": "fd00:9::77"})).await;
    let prefer = "PreferDualStack";
    for (more, why) in [
        (
            json!({"ipFamilyPolicy": "Both"}),
            "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": prefer}),
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00:9::20"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
        ),
        (
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.21"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.21\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIPs": ["10.96.0.21"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.21\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "10.96.0.21"], "ipFamilyPolicy": prefer}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.20\",\"10.96.0.21\"]: may specify no more than one IP for each IP family",
        ),
        (
            json!({"clusterIP": "10.96.0.20", "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.20\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "fd00:9::20"], "ipFamilyPolicy": prefer}),
            "'None' must be the first and only value",
        ),
        (
            json!({"clusterIP": "fd00:0009::0:77"}),
            "spec.clusterIPs: Invalid value: [\"fd00:0009::0:77\"]: failed to allocate IP fd00:0009::0:77: provided IP is already allocated",
        ),
        (
            json!({"clusterIP": "fd00:8::1"}),
            "the provided IP (fd00:8::1) is not in the valid range. The range of valid IPs is fd00:9::/112",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.org", "ipFamilyPolicy": prefer}),
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ),
    ] {
        let (code, answer) = api.post(SERVICES, service("refused", more.clone())).await;
        let message = answer["message"].as_str().unwrap();
        assert!(code == 422 && message.contains(why), "{more}: {message}");
    }
}

#[tokio::test]
async fn the_second_family_comes_and_goes_and_the_first_stays() {
    let api = dual_api().await;
    assert_eq!(made(&api, "web", json!({})).await, "SingleStack IPv4 10.96.0.16");
    let patch = async |spec: Value| patched(&api, "web", spec).await;
    let policy = |policy: &str| json!({ "ipFamilyPolicy": policy });
    let both = "PreferDualStack IPv4,IPv6 10.96.0.16,fd00:9::10";
    assert_eq!(patch(policy("PreferDualStack")).await.unwrap(), both);
    assert_eq!(patch(json!({"ports": [{"port": 81}]})).await.unwrap(), both, "a change of something else");
    // Who does not speak of it leaves it as it is.
    let (_, put) = api.put(&format!("{SERVICES}/web"), service("web", json!({}))).await;
    assert_eq!(shown(&put), both);
    for (spec, why) in [
        (json!({"clusterIPs": ["10.96.0.16"]}), "must be 'SingleStack' to release the secondary cluster IP"),
        (json!({"ipFamilies": ["IPv4"]}), "must be 'SingleStack' to release the secondary IP family"),
        (
            json!({"clusterIPs": ["10.96.0.16", "fd00:9::99"]}),
            "spec.clusterIPs[1]: Invalid value: [\"10.96.0.16\",\"fd00:9::99\"]: may not change once set",
        ),
        (
            json!({"clusterIP": "10.96.0.99", "clusterIPs": ["10.96.0.99", "fd00:9::10"]}),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.99\",\"fd00:9::10\"]: may not change once set",
        ),
        (json!({"ipFamilies": ["IPv6", "IPv4"]}), "expected an IPv6 value as indicated by `ipFamilies[0]`"),
    ] {
        let refused = patch(spec.clone()).await.unwrap_err();
        assert!(refused.contains(why), "{spec}: {refused}");
    }
    assert_eq!(patch(policy("SingleStack")).await.unwrap(), "SingleStack IPv4 10.96.0.16");
    // What was given back is free again.
    assert_eq!(made(&api, "next", json!({"ipFamilies": ["IPv6"]})).await, "SingleStack IPv6 fd00:9::10");
    assert_eq!(patch(policy("RequireDualStack")).await.unwrap(), "RequireDualStack IPv4,IPv6 10.96.0.16,fd00:9::11");
    let single = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.16"]});
    assert_eq!(patch(single).await.unwrap(), "SingleStack IPv4 10.96.0.16");
    let family = patch(json!({"ipFamilies": ["IPv6"], "clusterIPs": null})).await.unwrap_err();
    assert!(family.contains("expected an IPv6 value as indicated by `ipFamilies[0]`"), "{family}");

    made(&api, "headless", json!({"clusterIP": "None"})).await;
    let turned = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    assert_eq!(
        patched(&api, "headless", turned).await.unwrap(),
        "PreferDualStack IPv6,IPv4 None",
        "has no address to keep"
    );

    // Another type gives them back, and gets new ones.
    let away = json!({"spec": {"type": "ExternalName", "externalName": "a.org"}});
    let (code, away) = api.patch(&format!("{SERVICES}/web"), "merge-patch", away).await;
    assert_eq!((code, away["spec"].get("clusterIPs"), away["spec"].get("ipFamilies")), (200, None, None), "{away}");
    let back = patch(json!({"type": "ClusterIP", "externalName": null, "ipFamilyPolicy": "RequireDualStack"})).await;
    assert_eq!(back.unwrap(), "RequireDualStack IPv4,IPv6 10.96.0.16,fd00:9::11");
}

//! What is counted, and whether the server is well.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;

use crate::support::{Api, api, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn text(api: &Api, path: &str) -> (u16, String) {
    let response = api.raw(Method::GET, path, &[], "").await;
    let code = response.status().as_u16();
    (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// The value of the one line that begins so and has all of these labels.
async fn value(api: &Api, name: &str, labels: &[&str]) -> f64 {
    let (_, all) = text(api, "/metrics").await;
    let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let lines: Vec<&str> = all.lines().filter(fits).collect();
    match lines.as_slice() {
        [one] => one.rsplit(' ').next().unwrap().parse().unwrap(),
        [] => 0.0,
        many => panic!("{name} {labels:?}: {many:?}"),
    }
}

#[tokio::test]
async fn requests_are_counted_by_what_was_asked_and_answered() {
    let api = api().await;
    let of = |verb: &'static str, code: &'static str| {
        [format!("verb=\"{verb}\""), format!("code=\"{code}\""), "resource=\"configmaps\"".into()]
    };
    for (name, codes) in [("m", "201"), ("m", "409")] {
        assert_eq!(api.post(MAPS, config_map(name, "v")).await.0.to_string(), codes);
    }
    api.get(MAPS).await;
    api.get(&format!("{MAPS}/none")).await;
    api.patch(&format!("{MAPS}/m"), "merge-patch", json!({ "data": { "k": "w" } })).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    api.raw(Method::PATCH, &format!("{MAPS}/a?fieldManager=flt"), &apply, config_map("a", "v").to_string()).await;
    api.delete(&format!("{MAPS}/m?dryRun=All")).await;
    for (verb, code, scope) in [
        ("POST", "201", "namespace"),
        ("POST", "409", "namespace"),
        ("LIST", "200", "namespace"),
        ("GET", "404", "resource"),
        ("PATCH", "200", "resource"),
        ("APPLY", "201", "resource"),
        ("DELETE", "200", "resource"),
    ] {
        let labels = of(verb, code);
        let scope = format!("scope=\"{scope}\"");
        let labels: Vec<&str> = labels.iter().map(String::as_str).chain([scope.as_str(), "version=\"v1\""]).collect();
        assert_eq!(value(&api, "apiserver_request_total{", &labels).await, 1.0, "{labels:?}");
    }
    let seconds = |part: &'static str| format!("apiserver_request_duration_seconds_{part}{{");
    let list = ["verb=\"LIST\"", "resource=\"configmaps\""];
    assert_eq!(value(&api, &seconds("count"), &list).await, 1.0);
    assert!(value(&api, &seconds("sum"), &list).await > 0.0);
    assert_eq!(value(&api, &seconds("bucket"), &[list[0], list[1], "le=\"60\""]).await, 1.0);
    assert_eq!(
        value(&api, "apiserver_current_inflight_requests{", &["request_kind=\"readOnly\""]).await,
        1.0,
        "this one"
    );
    assert_eq!(value(&api, "apiserver_current_inflight_requests{", &["request_kind=\"mutating\""]).await, 0.0);
    assert!(value(&api, "process_resident_memory_bytes ", &[]).await > 1e6);
    assert!(value(&api, "process_open_fds ", &[]).await > 2.0);
    let begun = value(&api, "process_start_time_seconds ", &[]).await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(begun > now - 86_400.0 && begun <= now + 1.0, "{begun} at {now}");
    let (_, list) = api.get(MAPS).await;
    let revision: f64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(value(&api, "substrate_store_revision ", &[]).await, revision);
}

#[tokio::test]
async fn streams_are_counted_while_they_are_open() {
    let api = api().await;
    let open =
        async || value(&api, "apiserver_longrunning_requests{", &["resource=\"configmaps\"", "verb=\"WATCH\""]).await;
    let watch = api.raw(Method::GET, &format!("{MAPS}?watch=1"), &[], "").await;
    assert_eq!(open().await, 1.0);
    drop(watch);
    assert_eq!(open().await, 0.0);
    assert_eq!(value(&api, "apiserver_request_duration_seconds_count{", &["verb=\"WATCH\""]).await, 0.0);
}

#[tokio::test]
async fn what_strangers_write_is_no_label() {
    let api = api().await;
    let before = text(&api, "/metrics").await.1.lines().count();
    let grown = async || text(&api, "/metrics").await.1.lines().count() - before;
    for n in 0..3 {
        for path in [
            format!("/flt-{n}"),
            format!("/apis/flt-{n}/v1/things"),
            format!("{MAPS}/m/flt-{n}"),
            format!("/api/v1/flt-{n}"),
        ] {
            api.raw(Method::GET, &path, &[], "").await;
            api.raw(Method::from_bytes(format!("FLT{n}").as_bytes()).unwrap(), &path, &[], "").await;
        }
        if n == 0 {
            assert!(grown().await > 0);
        }
    }
    let (_, all) = text(&api, "/metrics").await;
    assert!(!all.to_lowercase().contains("flt"), "{all}");
}

#[tokio::test]
async fn who_may_read_them_is_a_right() {
    let api = api().await;
    let ada = api.asked_by("ada", &[]);
    assert_eq!(ada.get("/metrics").await.0, 403);
    assert_eq!(ada.get("/livez/ping").await.0, 403);
    let monitor = api.asked_by("ada", &["system:monitoring"]);
    let (code, all) = text(&monitor, "/metrics").await;
    assert!(code == 200 && all.contains("# TYPE apiserver_request_total counter"), "{all}");
    assert_eq!(text(&monitor, "/livez/ping").await, (200, "ok".into()));
}

#[tokio::test]
async fn health_is_told_in_parts() {
    let api = api().await;
    let roles = "poststarthook/rbac/bootstrap-roles";
    for (path, expected) in [
        ("/livez", "ok".to_owned()),
        ("/healthz?verbose", "[+]ping ok\n[+]etcd ok\nhealthz check passed\n".into()),
        ("/readyz?verbose=true", format!("[+]ping ok\n[+]etcd ok\n[+]{roles} ok\nreadyz check passed\n")),
        ("/livez?verbose&exclude=etcd", "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n".into()),
        (
            "/livez?verbose&exclude=no&exclude=more",
            "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"no\",\"more\"\nlivez check passed\n".into(),
        ),
        ("/readyz/etcd", "ok".into()),
    ] {
        assert_eq!(text(&api, path).await, (200, expected), "{path}");
    }
    assert_eq!(text(&api, "/livez/none").await.0, 404);
    let (code, _) = api.delete("/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin").await;
    assert_eq!(code, 200);
    let said = format!("[+]ping ok\n[+]etcd ok\n[-]{roles} failed: reason withheld\nreadyz check failed\n");
    assert_eq!(text(&api, "/readyz").await, (500, said), "what fails is told unasked");
    assert_eq!(text(&api, &format!("/readyz/{roles}")).await, (500, "internal server error: not finished\n".into()));
    assert_eq!(text(&api, &format!("/readyz?exclude={roles}")).await, (200, "ok".into()));
    assert_eq!(text(&api, "/livez").await.0, 200, "what lives need not be ready");
}

#[tokio::test]
async fn a_request_without_a_path_ends_nothing() {
    let api = api().await;
    let response = api.raw(Method::CONNECT, "localhost:1", &[], String::new()).await;
    assert_eq!(response.status(), 404, "of a CONNECT the path is empty");
}

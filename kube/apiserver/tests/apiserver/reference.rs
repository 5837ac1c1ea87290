//! The page that says what is served is made from what is served.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use crate::support;

#[test]
fn the_page_is_what_the_kinds_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kubernetes.md");
    let made = substrate_apiserver::reference::kubernetes();
    if std::env::var_os("FLT_BLESS").is_some() {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "{} is not up to date: run `cargo xtask reference`", path.display());
}

#[tokio::test]
async fn every_kind_of_the_page_is_served_and_every_other_is_not() {
    let api = support::api().await;
    let page = substrate_apiserver::reference::kubernetes();
    let mut group = "";
    let mut seen = 0;
    for line in page.lines() {
        if let Some(heading) =
            line.strip_prefix("## ").filter(|heading| ["v1", "v2", "v1beta1"].iter().any(|end| heading.ends_with(end)))
        {
            group = heading;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, kind, plural, _, "namespace" | "cluster", ..] = cells[..] else { continue };
        let root = if group == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group}") };
        if line.contains("**create** only") {
            assert_eq!(api.get(&format!("{root}/{plural}")).await.0, 405, "{root}/{plural}");
            seen += 1;
            continue;
        }
        let (code, list) = api.get(&format!("{root}/{plural}")).await;
        assert_eq!((code, list["kind"].as_str()), (200, Some(format!("{kind}List").as_str())), "{root}/{plural}");
        seen += 1;
    }
    assert_eq!(seen, 60);
    for path in ["/api/v1/componentstatuses", "/apis/resource.k8s.io/v1/resourceclaims", "/apis/batch/v1beta1/cronjobs"]
    {
        assert_eq!(api.get(path).await.0, 404, "{path}");
    }
}

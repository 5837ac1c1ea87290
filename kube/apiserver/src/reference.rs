//! What is served, as a page for people: `docs/reference/kubernetes.md` is made from the descriptions of the kinds
//! (`cargo xtask reference`), and a test says when it is not what it should be.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::kinds::{Description, descriptions};

const HEAD: &str = "# Kubernetes: what is served\n\n\
Made by `cargo xtask reference` from the descriptions of the kinds (`kube/apiserver/src/kinds`); do not edit it by hand.\n\
Kinds of CustomResourceDefinitions come to these. Every kind has all verbs (create, delete, deletecollection, get, list,\n\
patch, update, watch) unless the table says otherwise; objects are sent as JSON, YAML or protobuf, and answered in JSON.\n";

const TAIL: &str = "\n## Not served\n\n\
| what | what happens instead |\n|---|---|\n\
| ComponentStatus | 404: deprecated upstream, and a process has no components to ask |\n\
| FlowSchema, PriorityLevelConfiguration | 404: flow control is not built |\n\
| resource.k8s.io (dynamic resource allocation) | 404 |\n\
| groups of foreign API servers (APIService with a Service) | the APIService says `Available=False, reason=NotBuilt` |\n\
| `pods/resize`, `nodes/proxy`, `serviceaccounts/token` | 404 |\n\
| alpha and beta versions of any group | 404 |\n";

/// The page.
pub fn kubernetes() -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&Description>> = BTreeMap::new();
    for kind in descriptions() {
        groups.entry((kind.names[0], kind.names[1])).or_default().push(kind);
    }
    let mut page = String::from(HEAD);
    for ((group, version), mut kinds) in groups {
        kinds.sort_by_key(|kind| kind.names[2]);
        let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let _ = writeln!(
            page,
            "\n## {name}\n\n| kind | resource | short | scope | subresources | what comes of it |\n|---|---|---|---|---|---|"
        );
        for kind in kinds {
            let _ = writeln!(page, "{}", row(kind));
        }
    }
    page.push_str(TAIL);
    page
}

fn row(kind: &Description) -> String {
    let [_, _, name, plural] = kind.names;
    let mut subresources: Vec<String> =
        kind.subresources.iter().map(|(name, _, verbs)| format!("{name} ({})", verbs.join(", "))).collect();
    if kind.has_status {
        subresources.push("status (get, patch, update)".into());
    }
    let acted = if kind.idle.is_empty() { String::new() } else { format!("**thin**: {}", kind.idle) };
    let kept = kind.face.map(|face| format!("kept as {} {}", face.stored_as[2], face.stored_as[1]));
    let only = (kind.verbs == ["create"]).then(|| "**create** only: answered, not kept".to_owned());
    let notes: Vec<String> = kept.into_iter().chain(only).chain((!acted.is_empty()).then_some(acted)).collect();
    let scope = if kind.namespaced { "namespace" } else { "cluster" };
    let cell = |text: String| if text.is_empty() { String::new() } else { format!(" {text} ").trim_end().to_owned() };
    format!(
        "| {name} | {plural} |{} | {scope} |{} |{} |",
        cell(kind.short.join(", ")),
        cell(subresources.join("; ")),
        cell(notes.join("; "))
    )
}

//! The roles and bindings that every cluster has before anybody asks.

mod parts;

use serde_json::{Value, json};

use super::{GROUP, Rule};
use crate::auth::User;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs::read::decoded;

/// Objects with this annotation get what a newer version of this program adds to them; set it to `false` to keep one as it is.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";

/// Name, which role it is added to, and rules: verbs, groups (commas between), resources; a group of `/` is followed by paths, a resource
/// and `=` by the names of those that are meant.
type Role = (&'static str, &'static str, &'static [(&'static str, &'static str, &'static str)]);

const ROLES: &[Role] = &[
    ("cluster-admin", "", &[("*", "*", "*"), ("*", "/", "*")]),
    (
        "system:discovery",
        "",
        &[("get", "/", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")],
    ),
    (
        "system:service-account-issuer-discovery",
        "",
        &[(
            "get",
            "/",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    (
        "system:monitoring",
        "",
        &[("get", "/", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
    ),
    ("system:public-info-viewer", "", &[("get", "/", "/healthz /livez /readyz /version /version/")]),
    (
        "system:basic-user",
        "",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    (
        "system:auth-delegator",
        "",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:aggregate-to-view",
        "view",
        &[
            (
                READ,
                "",
                "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims \
                 persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale \
                 replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status",
            ),
            (
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
                 replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (READ, "events.k8s.io", "events"),
            (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        ],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            (READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            ("impersonate", "", "serviceaccounts"),
            (
                WRITE,
                "",
                "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy \
                 replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            ),
            ("create", "", "pods/eviction serviceaccounts/token"),
            (
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "cronjobs jobs"),
            (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            (WRITE, "policy", "poddisruptionbudgets"),
        ],
    ),
    (
        "system:aggregate-to-admin",
        "admin",
        &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            ("create delete deletecollection get list patch update watch", GROUP, "rolebindings roles"),
        ],
    ),
];

/// Roles that are the sum of others: name, and what those are labelled for.
const SUMS: &[(&str, &[&str])] =
    &[("admin", &["admin", "edit", "view"]), ("edit", &["edit", "view"]), ("view", &["view"])];

/// Cluster role and the group that it is bound to.
const BINDINGS: &[(&str, &str)] = &[
    ("cluster-admin", "system:masters"),
    ("system:basic-user", "system:authenticated"),
    ("system:discovery", "system:authenticated"),
    ("system:monitoring", "system:monitoring"),
    ("system:public-info-viewer", "system:authenticated"),
    ("system:service-account-issuer-discovery", "system:serviceaccounts"),
];

/// Writes what is missing; adds rules that a role of an earlier version lacks.
///
/// # Errors
/// What the store refuses.
pub async fn write(server: &ApiServer, user: &User) -> Result<(), Status> {
    for (name, added_to, rules) in ROLES.iter().chain(parts::ROLES) {
        let mut role = object("ClusterRole", name);
        if !added_to.is_empty() {
            role["metadata"]["labels"][label(added_to)] = "true".into();
        }
        role["rules"] = rules.iter().map(rule).collect();
        ensure(server, user, "clusterroles", role).await?;
    }
    for (name, of) in SUMS {
        let mut role = object("ClusterRole", name);
        let selectors = of.iter().map(|of| json!({ "matchLabels": { label(of): "true" } })).collect::<Vec<_>>();
        role["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
        let parts = ROLES.iter().filter(|(_, added_to, _)| of.contains(added_to));
        role["rules"] = parts.flat_map(|(_, _, rules)| rules.iter().map(rule)).collect();
        ensure(server, user, "clusterroles", role).await?;
    }
    let groups = BINDINGS.iter().map(|(role, group)| (*role, "Group", *group));
    let of_controllers = parts::ROLES.iter().filter_map(|(role, ..)| {
        role.strip_prefix("system:controller:").map(|name| (*role, "ServiceAccount", name)) // an account of kube-system
    });
    for (role, kind, name) in groups.chain(parts::BINDINGS.iter().copied()).chain(of_controllers) {
        let mut binding = object("ClusterRoleBinding", role);
        binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": role });
        binding["subjects"] = match kind {
            "ServiceAccount" => json!([{ "kind": kind, "namespace": "kube-system", "name": name }]),
            _ => json!([{ "apiGroup": GROUP, "kind": kind, "name": name }]),
        };
        ensure(server, user, "clusterrolebindings", binding).await?;
    }
    Ok(())
}

/// The label of what is added to a role.
fn label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

fn object(kind: &str, name: &str) -> Value {
    let labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
    let metadata = json!({ "name": name, "labels": labels, "annotations": { AUTOUPDATE: "true" } });
    json!({ "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata })
}

fn rule((verbs, groups, what): &(&str, &str, &str)) -> Value {
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect::<Vec<_>>();
    if *groups == "/" {
        return json!({ "verbs": words(verbs), "nonResourceURLs": words(what) });
    }
    let groups: Vec<&str> = groups.split(',').collect();
    match what.split_once('=') {
        Some((resource, names)) => {
            json!({ "verbs": words(verbs), "apiGroups": groups, "resources": [resource], "resourceNames": words(names) })
        }
        None => json!({ "verbs": words(verbs), "apiGroups": groups, "resources": words(what) }),
    }
}

async fn ensure(server: &ApiServer, user: &User, plural: &str, object: Value) -> Result<(), Status> {
    let kind = server.inner.registry.get(GROUP, "v1", plural).ok_or_else(Status::no_resource)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(entry) = server.inner.store.get(&kind.key("", &name)) else {
        return crate::verbs::create_object(server, user, &kind, "", object).await.map(|_| ());
    };
    let mut present = decoded(&kind, &entry)?;
    let keeps = present["metadata"]["annotations"][AUTOUPDATE] != json!("true");
    let missing = Rule::beyond(&Rule::all(&present), &Rule::all(&object));
    if keeps || plural != "clusterroles" || missing.is_empty() || object["aggregationRule"].is_object() {
        return Ok(()); // sums are kept by who adds up
    }
    let held = Rule::all(&present);
    let added = object["rules"].as_array().cloned().unwrap_or_default();
    if let Some(rules) = present["rules"].as_array_mut() {
        rules.extend(added.into_iter().filter(|rule| !Rule::beyond(&held, &[Rule::read(rule)]).is_empty()));
    }
    crate::verbs::update_object(server, user, &kind, "", &name, present).await.map(|_| ())
}

//! Kinds: one declarative description each. Adding a built-in kind is one entry in [`builtin`] and, when it has
//! rules of its own, one file here.
//!
//! A description says how the kind is named, which type of the table its objects are ([`crate::schema`]), how they are
//! completed, judged, and shown in a table.

mod config;
mod crd;
mod deployment;
mod endpoints;
mod event;
mod namespace;
mod node;
mod pod;
mod pod_spec;
mod replicaset;
mod runtime_class;
mod service;
mod validate;

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    node::v1 as runtime,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde_json::Value;

pub use self::validate::{Errors, LABEL, SUBDOMAIN, is_qualified_name, name_is_label, name_is_subdomain};
use crate::custom::CustomKind;
use crate::schema::{self, View};

/// Text that is static for built-in kinds and owned for custom ones.
pub type Text = Cow<'static, str>;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading.
    pub name: Text,
    /// `string`, `integer`, `date` …
    pub kind: Text,
    /// `name` marks the name column.
    pub format: Text,
    /// Shown by `-o wide` only when above 0.
    pub priority: i32,
    /// What it means.
    pub description: Text,
}

/// A column of a built-in kind.
pub(crate) const fn column(name: &'static str, priority: i32) -> Column {
    let format = if name.len() == 4 && matches!(name.as_bytes(), b"Name") { "name" } else { "" };
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed("string"),
        format: Cow::Borrowed(format),
        priority,
        description: Cow::Borrowed(""),
    }
}

/// The names of a kind.
#[derive(Clone, Debug)]
pub struct Names {
    /// Empty for the core group.
    pub group: Text,
    /// As `v1`.
    pub version: Text,
    /// As `Pod`.
    pub kind: Text,
    /// As `pods`.
    pub plural: Text,
    /// As `pod`.
    pub singular: Text,
    /// As `po`.
    pub short: Vec<Text>,
    /// As `all`.
    pub categories: Vec<Text>,
}

impl Names {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// How names of objects must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label: 63 characters, no dots.
    Label,
    /// RFC 1123 subdomain: 253 characters.
    Subdomain,
}

/// The rules of a built-in kind.
#[derive(Clone)]
pub struct Builtin {
    /// What its objects are made of; `None` when the table has no such type, and then nothing is decoded.
    of: Option<&'static schema::Type>,
    /// Fills in what was left out.
    pub default: fn(&mut Value),
    /// Judges an object by itself.
    pub validate: fn(&Value, &mut Errors),
    /// Judges a change: old, new.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    /// Headings of its table.
    pub columns: &'static [Column],
    /// One row, and the time to count ages to.
    pub cells: fn(&Value, jiff::Timestamp) -> Vec<Value>,
}

/// Where a kind's rules come from.
pub enum Rules {
    /// This program.
    Builtin(Builtin),
    /// A CustomResourceDefinition.
    Custom(CustomKind),
}

/// A kind that is served.
pub struct Kind {
    /// What it is called.
    pub names: Names,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `status` is written apart.
    pub has_status: bool,
    /// Other subresources that discovery lists: name, kind, verbs.
    pub subresources: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// How its objects are named.
    pub name_rule: NameRule,
    /// Its rules.
    pub rules: Rules,
}

/// A decoded object and what was in it that its kind does not know.
pub struct Decoded {
    /// The object, without unknown fields.
    pub object: Value,
    /// Paths of fields that were dropped.
    pub unknown: Vec<String>,
}

impl Kind {
    /// Reads `sent` as an object of this kind.
    ///
    /// # Errors
    /// What does not fit, in words: a value of the wrong type.
    pub fn decode(&self, sent: Value) -> Result<Decoded, String> {
        match &self.rules {
            Rules::Builtin(rules) => {
                let of = rules.of.ok_or_else(|| format!("the table of types has no {}", self.names.kind))?;
                let (mut object, unknown) = schema::decode(of, sent)?;
                object["apiVersion"] = self.names.api_version().into();
                object["kind"] = self.names.kind.as_ref().into();
                Ok(Decoded { object, unknown })
            }
            Rules::Custom(custom) => Ok(custom.prune(sent)),
        }
    }

    /// What patches see of its objects.
    pub fn view(&self) -> View {
        match &self.rules {
            Rules::Builtin(rules) => rules.of.map_or(View::Free, View::Type),
            Rules::Custom(_) => View::Free, // strategic merge patches are for built-in kinds only
        }
    }

    /// Fills in what was left out.
    pub fn default(&self, object: &mut Value) {
        match &self.rules {
            Rules::Builtin(rules) => (rules.default)(object),
            Rules::Custom(custom) => custom.default(object),
        }
    }

    /// Judges an object by itself.
    pub fn validate(&self, object: &Value, errors: &mut Errors) {
        match &self.rules {
            Rules::Builtin(rules) => (rules.validate)(object, errors),
            Rules::Custom(custom) => custom.validate(object, errors),
        }
    }

    /// Judges a change.
    pub fn validate_update(&self, old: &Value, new: &Value, errors: &mut Errors) {
        if let Rules::Builtin(rules) = &self.rules {
            (rules.validate_update)(old, new, errors);
        }
    }

    /// Whether this is the kind of `group` and `plural`, in any version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.names.group == group && self.names.plural == plural
    }

    /// The key of an object in the store. The version is not part of it: all versions are one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.prefix(namespace))
    }

    /// The beginning of the keys of all objects (of one namespace, if not empty).
    pub fn prefix(&self, namespace: &str) -> String {
        let group = if self.names.group.is_empty() { "core" } else { &self.names.group };
        if namespace.is_empty() {
            format!("/{group}/{}/", self.names.plural)
        } else {
            format!("/{group}/{}/{namespace}/", self.names.plural)
        }
    }
}

fn nothing(_: &mut Value) {}
fn no_rule(_: &Value, _: &mut Errors) {}
fn any_change(_: &Value, _: &Value, _: &mut Errors) {}

const NAME_AGE: &[Column] = &[column("Name", 0), column("Age", 0)];

fn name_age(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), crate::table::age(object, now)]
}

impl Builtin {
    fn of<K: k8s_openapi::Resource>() -> Self {
        Self {
            of: schema::lookup(K::GROUP, K::VERSION, K::KIND),
            default: nothing,
            validate: no_rule,
            validate_update: any_change,
            columns: NAME_AGE,
            cells: name_age,
        }
    }
}

struct Description {
    names: [&'static str; 5],
    short: &'static [&'static str],
    in_all: bool,
    namespaced: bool,
    has_status: bool,
    subresources: &'static [(&'static str, &'static str, &'static [&'static str])],
    name_rule: NameRule,
    rules: Builtin,
}

impl Description {
    fn kind(self) -> Arc<Kind> {
        let [group, version, kind, plural, singular] = self.names.map(Cow::Borrowed);
        Arc::new(Kind {
            names: Names {
                group,
                version,
                kind,
                plural,
                singular,
                short: self.short.iter().map(|s| Cow::Borrowed(*s)).collect(),
                categories: if self.in_all { vec![Cow::Borrowed("all")] } else { Vec::new() },
            },
            namespaced: self.namespaced,
            has_status: self.has_status,
            subresources: self.subresources,
            name_rule: self.name_rule,
            rules: Rules::Builtin(self.rules),
        })
    }
}

/// Every built-in kind.
pub fn builtin() -> Vec<Arc<Kind>> {
    use NameRule::{Label, Subdomain};
    let plain = |names, rules| Description {
        names,
        short: &[],
        in_all: false,
        namespaced: true,
        has_status: false,
        subresources: &[],
        name_rule: Subdomain,
        rules,
    };
    const POD_SUBRESOURCES: &[(&str, &str, &[&str])] = &[
        ("binding", "Binding", &["create"]),
        ("exec", "PodExecOptions", &["create", "get"]),
        ("log", "Pod", &["get"]),
        ("portforward", "PodPortForwardOptions", &["create", "get"]),
    ];
    const SCALE: &[(&str, &str, &[&str])] = &[("scale", "Scale", &["get", "patch", "update"])];
    [
        Description {
            short: &["cm"],
            ..plain(
                ["", "v1", "ConfigMap", "configmaps", "configmap"],
                config::config_map(Builtin::of::<core::ConfigMap>()),
            )
        },
        Description {
            short: &["ep"],
            ..plain(
                ["", "v1", "Endpoints", "endpoints", "endpoints"],
                endpoints::endpoints(Builtin::of::<core::Endpoints>()),
            )
        },
        Description {
            short: &["ev"],
            ..plain(["", "v1", "Event", "events", "event"], event::event(Builtin::of::<core::Event>()))
        },
        Description {
            short: &["ns"],
            namespaced: false,
            has_status: true,
            subresources: &[("finalize", "Namespace", &["update"])],
            name_rule: Label,
            ..plain(
                ["", "v1", "Namespace", "namespaces", "namespace"],
                namespace::namespace(Builtin::of::<core::Namespace>()),
            )
        },
        Description {
            short: &["no"],
            namespaced: false,
            has_status: true,
            ..plain(["", "v1", "Node", "nodes", "node"], node::node(Builtin::of::<core::Node>()))
        },
        Description {
            short: &["po"],
            in_all: true,
            has_status: true,
            subresources: POD_SUBRESOURCES,
            ..plain(["", "v1", "Pod", "pods", "pod"], pod::pod(Builtin::of::<core::Pod>()))
        },
        plain(["", "v1", "Secret", "secrets", "secret"], config::secret(Builtin::of::<core::Secret>())),
        Description {
            short: &["sa"],
            ..plain(
                ["", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount"],
                config::service_account(Builtin::of::<core::ServiceAccount>()),
            )
        },
        Description {
            short: &["svc"],
            in_all: true,
            has_status: true,
            name_rule: Label,
            ..plain(["", "v1", "Service", "services", "service"], service::service(Builtin::of::<core::Service>()))
        },
        Description {
            short: &["deploy"],
            in_all: true,
            has_status: true,
            subresources: SCALE,
            ..plain(
                ["apps", "v1", "Deployment", "deployments", "deployment"],
                deployment::deployment(Builtin::of::<apps::Deployment>()),
            )
        },
        Description {
            short: &["rs"],
            in_all: true,
            has_status: true,
            subresources: SCALE,
            ..plain(
                ["apps", "v1", "ReplicaSet", "replicasets", "replicaset"],
                replicaset::replica_set(Builtin::of::<apps::ReplicaSet>()),
            )
        },
        plain(
            ["coordination.k8s.io", "v1", "Lease", "leases", "lease"],
            node::lease(Builtin::of::<coordination::Lease>()),
        ),
        Description {
            namespaced: false,
            ..plain(
                ["node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass"],
                runtime_class::runtime_class(Builtin::of::<runtime::RuntimeClass>()),
            )
        },
        plain(
            ["discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice"],
            endpoints::endpoint_slice(Builtin::of::<discovery::EndpointSlice>()),
        ),
        Description {
            short: &["crd", "crds"],
            namespaced: false,
            has_status: true,
            ..plain(
                [
                    "apiextensions.k8s.io",
                    "v1",
                    "CustomResourceDefinition",
                    "customresourcedefinitions",
                    "customresourcedefinition",
                ],
                crd::definition(Builtin::of::<apiextensions::CustomResourceDefinition>()),
            )
        },
    ]
    .into_iter()
    .map(Description::kind)
    .collect()
}

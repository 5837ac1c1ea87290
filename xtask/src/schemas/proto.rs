//! The table of messages (`kube/apiserver/src/protobuf/messages.txt`) against the tags of upstream's declarations.
//!
//! ```text
//! Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`   upstream
//!      1 replicas opt int32                                                          the table
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Packages of the table, and those of Go that they are of.
const TABLES: &[(&str, &str)] = &[
    ("admissionregistration.v1", "api/admissionregistration/v1"),
    ("apiextensions.v1", "apiextensions-apiserver/pkg/apis/apiextensions/v1"),
    ("apps.v1", "api/apps/v1"),
    ("authentication.v1", "api/authentication/v1"),
    ("authorization.v1", "api/authorization/v1"),
    ("autoscaling.v1", "api/autoscaling/v1"),
    ("autoscaling.v2", "api/autoscaling/v2"),
    ("batch.v1", "api/batch/v1"),
    ("certificates.v1", "api/certificates/v1"),
    ("coordination.v1", "api/coordination/v1"),
    ("core.v1", "api/core/v1"),
    ("discovery.v1", "api/discovery/v1"),
    ("events.v1", "api/events/v1"),
    ("meta.v1", "apimachinery/pkg/apis/meta/v1"),
    ("networking.v1", "api/networking/v1"),
    ("node.v1", "api/node/v1"),
    ("policy.v1", "api/policy/v1"),
    ("rbac.v1", "api/rbac/v1"),
    ("scheduling.v1", "api/scheduling/v1"),
    ("storage.v1", "api/storage/v1"),
];

/// Messages that only wrap another value: their fields have no name in JSON.
const OF_THEIR_OWN: &[&str] = &["SchemaOrArray", "SchemaOrBool", "SchemaOrStrings"];

/// Fields of a message by number: name in JSON, how often, type.
type Fields = BTreeMap<u32, (String, String, String)>;

/// Where the table in the file `ours` differs from the sources under `root` (`…/src/k8s.io`).
///
/// # Errors
/// A file that cannot be read.
pub fn differences(root: &Path, ours: &Path) -> Result<Vec<String>, String> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let (mut lines, mut aliases) = (Vec::new(), BTreeMap::new());
    for (_, package) in TABLES {
        for file in sources(&root.join(package))? {
            let found = |line: &str| {
                let (name, go) = line.strip_prefix("type ")?.split_once(' ')?;
                let go = go.split("//").next().unwrap_or_default().trim();
                (!go.starts_with("struct") && !go.ends_with('{')).then(|| (name.to_owned(), go.to_owned()))
            };
            aliases.extend(read(&file)?.lines().filter_map(found));
        }
    }
    let ours = table(&read(ours)?);
    for (module, package) in TABLES {
        let mut theirs: BTreeMap<String, Fields> = BTreeMap::new();
        for file in sources(&root.join(package))? {
            declared(&read(&file)?, &aliases, &mut theirs);
        }
        for (name, fields) in &ours {
            let Some(name) = name.strip_prefix(module).and_then(|name| name.strip_prefix('.')) else { continue };
            if OF_THEIR_OWN.contains(&name) {
                continue;
            }
            let Some(upstream) = theirs.get(name) else {
                lines.push(format!("{module}.{name}: upstream has no such message"));
                continue;
            };
            for number in fields.keys().chain(upstream.keys()).collect::<std::collections::BTreeSet<_>>() {
                let show = |fields: &Fields| match fields.get(number) {
                    Some((_, how, of)) if how == "inline" => format!("{number} {how} {of}"),
                    Some((name, how, of)) => format!("{number} {name:?} {how} {of}"),
                    None => format!("{number} nothing"),
                };
                let (ours, needed) = (show(fields), show(upstream));
                if ours != needed {
                    lines.push(format!("{module}.{name}: {ours}; upstream: {needed}"));
                }
            }
        }
    }
    Ok(lines)
}

/// The files of a package.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let files = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let files = files.filter_map(|file| Some(file.ok()?.path()));
    Ok(files.filter(|path| path.extension().is_some_and(|e| e == "go")).collect())
}

/// The messages that Go source declares.
fn declared(text: &str, aliases: &BTreeMap<String, String>, messages: &mut BTreeMap<String, Fields>) {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) else {
            if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct{}")) {
                messages.entry(name.to_owned()).or_default();
            }
            continue;
        };
        let mut fields = Fields::new();
        for line in lines.by_ref().take_while(|line| *line != "}") {
            if line.trim_start().starts_with("//") {
                continue; // a field that is gone
            }
            let Some((declared, tags)) = line.split_once('`') else { continue };
            let protobuf: Vec<&str> = super::go::tag(tags, "protobuf").split(',').collect();
            let Some(number) = protobuf.get(1).and_then(|number| number.parse().ok()) else { continue };
            let Some(go) = declared.split_whitespace().last() else { continue };
            let json = super::go::tag(tags, "json").split(',').next().unwrap_or_default();
            let (how, of) = shape(go, json.is_empty(), aliases);
            fields.insert(number, (json.to_owned(), how.to_owned(), of));
        }
        messages.insert(name.to_owned(), fields);
    }
}

/// How often a Go type occurs on the wire, and its type in the words of the tables.
fn shape(go: &str, inline: bool, aliases: &BTreeMap<String, String>) -> (&'static str, String) {
    let last = |go: &str| go.rsplit('.').next().unwrap_or(go).to_owned();
    let named = |go: &str| match last(go).as_str() {
        "ExtraValue" | "JSON" => None, // messages, whatever they are in Go
        name => aliases.get(name).cloned(),
    };
    let (pointer, go) = go.strip_prefix('*').map_or((false, go), |go| (true, go));
    let go = named(go).unwrap_or_else(|| go.to_owned());
    let (how, of) = match (go.strip_prefix("[]"), go.split_once(']')) {
        (Some("byte"), _) => ("one", go.as_str()),
        (Some(of), _) => ("list", of),
        (None, Some((_, of))) => ("map", of),
        _ if inline => ("inline", go.as_str()),
        _ => ("one", go.as_str()),
    };
    let of = named(of).unwrap_or_else(|| of.to_owned());
    let of = last(&of);
    let of = match of.as_str() {
        "string" | "UID" | "NodeName" | "JSONSchemaURL" => "string",
        "int" => "int64",
        "float64" => "double",
        "[]byte" => "bytes",
        "RawExtension" | "FieldsV1" | "JSON" => "json",
        "Time" => "time",
        "MicroTime" => "micro_time",
        "Quantity" => "quantity",
        "IntOrString" => "int_or_string",
        "ExtraValue" => "strings",
        "JSONSchemaPropsOrArray" => "schema_or_array",
        "JSONSchemaPropsOrBool" => "schema_or_bool",
        "JSONSchemaPropsOrStringArray" => "schema_or_strings",
        other => other,
    };
    let scalar = of.starts_with(|c: char| c.is_ascii_lowercase())
        && matches!(of, "string" | "bool" | "int32" | "int64" | "double");
    (if pointer && scalar { "opt" } else { how }, of.to_owned())
}

/// The messages of the table, by name; types without their package.
fn table(text: &str) -> Vec<(String, Fields)> {
    let mut messages: Vec<(String, Fields)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(field) = line.strip_prefix(' ') else {
            messages.push((line.to_owned(), Fields::new()));
            continue;
        };
        let words: Vec<&str> = field.split(' ').collect();
        if let ([number, name, how, of], Some((_, fields))) = (words.as_slice(), messages.last_mut()) {
            let of = of.rsplit('.').next().unwrap_or(of);
            fields.insert(number.parse().unwrap_or_default(), ((*name).to_owned(), (*how).to_owned(), of.to_owned()));
        }
    }
    messages
}

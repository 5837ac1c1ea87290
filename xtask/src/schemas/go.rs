//! Go's type declarations, as far as the API packages of Kubernetes use them, read into lines of the table.
//!
//! Facts only: names, types, tags and markers. Comments that describe are passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Where the packages of the table are under `k8s.io`, and what they are called in it.
const PACKAGES: &[(&str, &str)] = &[
    ("api/admissionregistration/v1", "admissionregistration.v1"),
    ("api/apps/v1", "apps.v1"),
    ("api/authentication/v1", "authentication.v1"),
    ("api/authorization/v1", "authorization.v1"),
    ("api/autoscaling/v1", "autoscaling.v1"),
    ("api/autoscaling/v2", "autoscaling.v2"),
    ("api/batch/v1", "batch.v1"),
    ("api/certificates/v1", "certificates.v1"),
    ("api/coordination/v1", "coordination.v1"),
    ("api/core/v1", "core.v1"),
    ("api/discovery/v1", "discovery.v1"),
    ("api/events/v1", "events.v1"),
    ("api/networking/v1", "networking.v1"),
    ("api/node/v1", "node.v1"),
    ("api/policy/v1", "policy.v1"),
    ("api/rbac/v1", "rbac.v1"),
    ("api/scheduling/v1", "scheduling.v1"),
    ("api/storage/v1", "storage.v1"),
    ("apiextensions-apiserver/pkg/apis/apiextensions/v1", "apiextensions.v1"),
    ("apimachinery/pkg/apis/meta/v1", "meta.v1"),
];

/// What has a form of its own on the wire, whatever its declaration says.
const KNOWN: &[(&str, &str)] = &[
    ("string", "str"),
    ("bool", "bool"),
    ("int32", "i32"),
    ("int64", "i64"),
    ("int", "i64"),
    ("float64", "f64"),
    ("[]byte", "bytes"),
    ("resource.Quantity", "quantity"),
    ("intstr.IntOrString", "intorstr"),
    ("types.UID", "str"),
    ("types.NodeName", "str"),
    ("runtime.RawExtension", "any"),
    ("runtime.Object", "any"),
    ("meta.v1.Time", "time"),
    ("meta.v1.MicroTime", "microtime"),
    ("meta.v1.Duration", "str"),
    ("meta.v1.FieldsV1", "any"),
    ("apiextensions.v1.JSON", "any"),
    ("apiextensions.v1.JSONSchemaURL", "str"),
    ("apiextensions.v1.JSONSchemaPropsOrBool", "?.JSONSchemaProps"),
    ("apiextensions.v1.JSONSchemaPropsOrArray", "?.JSONSchemaProps"),
    ("apiextensions.v1.JSONSchemaPropsOrStringArray", "?.JSONSchemaProps"),
];

#[derive(Default)]
struct Struct {
    atomic: bool,
    /// The inlined ones by their type alone.
    fields: Vec<Field>,
}

#[derive(Default, Clone)]
struct Field {
    name: String,
    go: String,
    inline: bool,
    flags: Vec<String>,
}

#[derive(Default)]
struct Read {
    structs: BTreeMap<String, Struct>,
    aliases: BTreeMap<String, String>,
}

/// The table of all types that kinds reach, from the sources under `root` (`…/src/k8s.io`).
///
/// # Errors
/// A package that cannot be read, or a type that nobody declares.
pub fn table(root: &Path, version: &str) -> Result<String, String> {
    let mut read = Read::default();
    for (folder, package) in PACKAGES {
        let folder = root.join(folder);
        let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut files: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".go") && !name.ends_with("_test.go") && !name.contains("generated") {
                let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
                read.source(package, &text);
            }
        }
    }
    read.print(version)
}

impl Read {
    fn source(&mut self, package: &str, text: &str) {
        let imports = imports(text);
        let mut markers: Vec<String> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(marker) = line.strip_prefix("// +") {
                markers.push(marker.trim().to_owned());
                continue;
            }
            let Some(rest) = line.strip_prefix("type ") else {
                if !line.starts_with("//") && !line.trim().is_empty() {
                    markers.clear();
                }
                continue;
            };
            let (name, go) = rest.split_once(' ').unwrap_or((rest, ""));
            let name = format!("{package}.{name}");
            if go == "struct {" {
                let fields = body(&mut lines, package, &imports);
                let atomic = markers.iter().any(|m| m == "structType=atomic" || m == "mapType=atomic");
                self.structs.insert(name, Struct { atomic, fields });
            } else if go == "struct{}" {
                self.structs.insert(name, Struct::default());
            } else if !go.ends_with('{') {
                let go = go.split("//").next().unwrap_or_default().trim();
                self.aliases.insert(name, resolve(go, package, &imports));
            }
            markers.clear();
        }
    }

    /// The type of the table for one of Go, and which structs it needs.
    fn shape(&self, go: &str, package: &str, needs: &mut BTreeSet<String>) -> Result<String, String> {
        let go = go.trim_start_matches('*');
        if let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == go) {
            if let Some(of) = known.strip_prefix("?.") {
                needs.insert(format!("apiextensions.v1.{of}"));
            }
            return Ok((*known).to_owned());
        }
        if let Some(of) = go.strip_prefix("[]") {
            return Ok(format!("[{}", self.shape(of, package, needs)?));
        }
        if let Some(of) = go.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            return Ok(format!("{{{}", self.shape(of.1, package, needs)?));
        }
        if let Some(of) = self.aliases.get(go) {
            return self.shape(of, package, needs);
        }
        if self.structs.contains_key(go) {
            needs.insert(go.to_owned());
            let near = go.strip_prefix(package).filter(|rest| rest.starts_with('.'));
            return Ok(near.unwrap_or(go).to_owned());
        }
        Err(format!("nobody declares {go} (asked in {package})"))
    }

    /// The fields of a struct with those that it inlines.
    fn fields(&self, name: &str) -> Vec<Field> {
        let Some(of) = self.structs.get(name) else { return Vec::new() };
        let mut all = Vec::new();
        for field in &of.fields {
            match field.inline {
                true => all.extend(self.fields(&field.go)),
                false => all.push(field.clone()),
            }
        }
        all
    }

    fn print(&self, version: &str) -> Result<String, String> {
        let is_root = |(name, of): &(&String, &Struct)| {
            let kind = of.fields.iter().any(|f| f.inline && f.go == "meta.v1.TypeMeta");
            let asked = name.strip_prefix("meta.v1.").is_none_or(|name| matches!(name, "DeleteOptions" | "Status"));
            kind && asked && !name.ends_with("List")
        };
        let mut wanted: BTreeSet<String> = self.structs.iter().filter(is_root).map(|(name, _)| name.clone()).collect();
        let mut done: BTreeMap<String, String> = BTreeMap::new();
        while let Some(name) = wanted.pop_first() {
            if done.contains_key(&name) {
                continue;
            }
            let package = name.rsplit_once('.').map_or("", |(package, _)| package);
            let atomic = self.structs.get(&name).is_some_and(|of| of.atomic);
            let mut text = format!("{name}{}\n", if atomic { " a" } else { "" });
            let mut fields = self.fields(&name);
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            for field in fields {
                let shape = self.shape(&field.go, package, &mut wanted)?;
                let flags: String = field.flags.iter().map(|flag| format!(" {flag}")).collect();
                let _ = writeln!(text, " {} {shape}{flags}", field.name);
            }
            done.insert(name, text);
        }
        let mut table = format!(
            "# Types of the built-in kinds of Kubernetes {version}: facts, made by `cargo xtask schemas`. Not to be edited.\n"
        );
        done.values().for_each(|text| table.push_str(text));
        Ok(table)
    }
}

/// Packages by the names that a file gives them.
fn imports(text: &str) -> BTreeMap<String, String> {
    let mut imports = BTreeMap::new();
    for line in text.lines().skip_while(|line| *line != "import (").skip(1).take_while(|line| *line != ")") {
        let Some((alias, path)) = line.trim().split_once('"') else { continue };
        let path = path.trim_end_matches('"');
        let known = PACKAGES.iter().find(|(folder, _)| path.strip_prefix("k8s.io/") == Some(folder));
        let last = path.rsplit('/').next().unwrap_or_default();
        let alias = if alias.trim().is_empty() { last } else { alias.trim() };
        imports.insert(alias.to_owned(), known.map_or(last, |(_, package)| package).to_owned());
    }
    imports
}

/// A type with its package in the words of the table.
fn resolve(go: &str, package: &str, imports: &BTreeMap<String, String>) -> String {
    let go = go.trim_start_matches('*');
    if KNOWN.iter().any(|(name, _)| *name == go) {
        return go.to_owned();
    }
    if let Some(of) = go.strip_prefix("[]") {
        return format!("[]{}", resolve(of, package, imports));
    }
    if let Some((key, of)) = go.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[{key}]{}", resolve(of, package, imports));
    }
    match go.split_once('.') {
        Some((alias, name)) => format!("{}.{name}", imports.get(alias).map_or(alias, String::as_str)),
        None => format!("{package}.{go}"),
    }
}

/// The fields of a struct up to its closing brace.
fn body<'a>(
    lines: &mut impl Iterator<Item = &'a str>,
    package: &str,
    imports: &BTreeMap<String, String>,
) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut markers: Vec<String> = Vec::new();
    for line in lines.take_while(|line| *line != "}") {
        let line = line.trim();
        if line.is_empty() {
            continue; // markers may stand apart from their field
        }
        if let Some(comment) = line.strip_prefix("//") {
            if let Some(marker) = comment.trim().strip_prefix('+') {
                markers.push(marker.trim().to_owned());
            }
            continue;
        }
        let Some((declared, tags)) = line.split_once('`') else { continue };
        let words: Vec<&str> = declared.split_whitespace().collect();
        let json = tag(tags, "json");
        let (name, options) = json.split_once(',').unwrap_or((json, ""));
        if name != "-"
            && let Some(go) = words.last()
        {
            let inline = name.is_empty() && (options.contains("inline") || words.len() == 1);
            let flags = flags(tags, options, &markers);
            fields.push(Field { name: name.to_owned(), go: resolve(go, package, imports), inline, flags });
        }
        markers.clear();
    }
    fields
}

pub(super) fn tag<'a>(tags: &'a str, name: &str) -> &'a str {
    let found = tags.split_once(&format!("{name}:\"")).map(|(_, rest)| rest);
    found.and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

fn flags(tags: &str, options: &str, markers: &[String]) -> Vec<String> {
    let value = |name: &str| markers.iter().find_map(|m| m.strip_prefix(name));
    let has = |name: &str| markers.iter().any(|m| m == name);
    let mut flags = Vec::new();
    match value("listType=") {
        Some("map") => {
            let keys: Vec<&str> = markers.iter().filter_map(|m| m.strip_prefix("listMapKey=")).collect();
            flags.push(format!("k={}", keys.join(",")));
        }
        Some("set") => flags.push("s".to_owned()),
        Some("atomic") => flags.push("a".to_owned()),
        _ if has("mapType=atomic") || has("structType=atomic") => flags.push("a".to_owned()),
        _ => {}
    }
    let strategy = tag(tags, "patchStrategy");
    if strategy.split(',').any(|s| s == "merge") {
        flags.push(format!("m={}", tag(tags, "patchMergeKey")));
    }
    if strategy.split(',').any(|s| s == "retainKeys") {
        flags.push("r".to_owned());
    }
    let optional = has("optional") || options.contains("omitempty") || options.contains("omitzero");
    if has("required") || !optional {
        flags.push("!".to_owned());
    }
    if let Some(given) = value("default=").filter(|given| !given.starts_with("ref(")) {
        flags.push(format!("d={given}"));
    }
    flags
}

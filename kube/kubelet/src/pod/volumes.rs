//! Volumes as directories on the machine.
//!
//! ```text
//! DIR/volumes/NAME/..2026-…/KEY    one generation of files
//! DIR/volumes/NAME/..data          link to the current generation: swapped in one rename
//! DIR/volumes/NAME/KEY             link to ..data/KEY: what the container opens
//! ```
//!
//! [`payload`] decides what is in a volume (pure); [`write`] makes it so. A container sees all files of a generation
//! or all of the next, never a mixture (the kubelet's atomic writer has the same layout).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};

use super::ConfigError;
use super::environment::{Place, Sources, field, resource};
use engine_host::rooted::normal;

/// Files of a volume: relative path → content and mode.
pub type Payload = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// The API's default for `defaultMode`.
const MODE: i32 = 0o644;

/// The files of a volume made from API objects; `None` for an emptyDir.
///
/// # Errors
/// An object or key that is not optional is missing, or a path leads out of the volume.
pub fn payload(pod: &Pod, volume: &Volume, sources: &Sources, place: &Place) -> Result<Option<Payload>, ConfigError> {
    let mut files = Payload::new();
    if volume.empty_dir.is_some() {
        return Ok(None);
    } else if let Some(source) = &volume.config_map {
        let map = sources.config_maps.get(&source.name);
        let mode = source.default_mode.unwrap_or(MODE);
        keyed(
            &mut files,
            config_map(map),
            Object { kind: "configmap", name: &source.name, there: map.is_some() },
            source.items.as_deref(),
            source.optional,
            mode,
        )?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = sources.secrets.get(name);
        let mode = source.default_mode.unwrap_or(MODE);
        keyed(
            &mut files,
            secret_data(secret),
            Object { kind: "secret", name, there: secret.is_some() },
            source.items.as_deref(),
            source.optional,
            mode,
        )?;
    } else if let Some(source) = &volume.downward_api {
        downward(
            &mut files,
            pod,
            source.items.as_deref().unwrap_or_default(),
            source.default_mode.unwrap_or(MODE),
            place,
        )?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE);
        for source in projected.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                let map = sources.config_maps.get(&s.name);
                keyed(
                    &mut files,
                    config_map(map),
                    Object { kind: "configmap", name: &s.name, there: map.is_some() },
                    s.items.as_deref(),
                    s.optional,
                    mode,
                )?;
            }
            if let Some(s) = &source.secret {
                let secret = sources.secrets.get(&s.name);
                keyed(
                    &mut files,
                    secret_data(secret),
                    Object { kind: "secret", name: &s.name, there: secret.is_some() },
                    s.items.as_deref(),
                    s.optional,
                    mode,
                )?;
            }
            if let Some(s) = &source.downward_api {
                downward(&mut files, pod, s.items.as_deref().unwrap_or_default(), mode, place)?;
            }
            if let Some(s) = &source.service_account_token
                && let Some(token) = sources.tokens.get(&(volume.name.clone(), s.path.clone()))
            {
                put(&mut files, &s.path, token.clone().into_bytes(), 0o600.max(mode & 0o644))?;
            }
        }
    } else {
        return Err(ConfigError::Unsupported(format!("the kind of volume {:?}", volume.name)));
    }
    Ok(Some(files))
}

struct Object<'a> {
    kind: &'static str,
    name: &'a str,
    there: bool,
}

fn config_map(map: Option<&ConfigMap>) -> BTreeMap<String, Vec<u8>> {
    let Some(map) = map else { return BTreeMap::new() };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect()
}

fn secret_data(secret: Option<&Secret>) -> BTreeMap<String, Vec<u8>> {
    secret.iter().flat_map(|s| s.data.iter().flatten()).map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

fn keyed(
    files: &mut Payload,
    data: BTreeMap<String, Vec<u8>>,
    object: Object<'_>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), ConfigError> {
    let Object { kind, name, there } = object;
    if !there && optional != Some(true) {
        return Err(ConfigError::Missing(format!("{kind} \"{name}\" not found")));
    }
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return data.into_iter().try_for_each(|(key, bytes)| put(files, &key, bytes, mode));
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => put(files, &item.path, bytes.clone(), item.mode.unwrap_or(mode))?,
            None if optional == Some(true) => {}
            None => {
                let text = format!("{kind} \"{name}\" references non-existent {kind} key: {}", item.key);
                return Err(ConfigError::Missing(text));
            }
        }
    }
    Ok(())
}

fn downward(
    files: &mut Payload,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    place: &Place,
) -> Result<(), ConfigError> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(r), _) => field(pod, &r.field_path, place)?,
            (None, Some(r)) => {
                let divisor = r.divisor.as_ref().map(|q| q.0.as_str());
                resource(pod, r.container_name.as_deref().unwrap_or_default(), &item.path, &r.resource, divisor, place)?
            }
            (None, None) => return Err(ConfigError::Invalid(format!("downward API file {} has no source", item.path))),
        };
        put(files, &item.path, text.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

fn put(files: &mut Payload, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), ConfigError> {
    let inside = normal(Path::new(path)).map_err(|e| ConfigError::Invalid(e.to_string()))?;
    // `..data` and the generations are ours.
    if path.starts_with('/') || path.starts_with("..") || inside.as_os_str().is_empty() {
        return Err(ConfigError::Invalid(format!("{path:?} is no path within a volume")));
    }
    files.insert(inside, (bytes, u32::try_from(mode).unwrap_or(0o644) & 0o777));
    Ok(())
}

/// Makes `dir` show exactly `files`; nothing is touched when it already does. `group` is the pod's fsGroup.
///
/// # Errors
/// The disk does not take it; what was shown before stays.
pub fn write(dir: &Path, files: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let data = dir.join("..data");
    let current = fs::read_link(&data).ok();
    if let Some(current) = &current
        && shows(&dir.join(current), files)
    {
        return Ok(());
    }
    let name = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let generation = dir.join(&name);
    fs::create_dir(&generation)?;
    fs::set_permissions(&generation, Permissions::from_mode(0o755))?;
    for (path, (bytes, mode)) in files {
        let full = generation.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, bytes)?;
        // Members of the pod's group can read what the pod gets.
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        chown(&full, None, group)?;
        fs::set_permissions(&full, Permissions::from_mode(mode))?;
    }
    let next = dir.join("..data_next");
    let _ = fs::remove_file(&next); // left by a crash, or not there
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    links(dir, files)?;
    if let Some(old) = current {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

fn links(dir: &Path, files: &Payload) -> io::Result<()> {
    let wanted: std::collections::BTreeSet<_> =
        files.keys().filter_map(|p| p.components().next()).map(|c| c.as_os_str().to_owned()).collect();
    for name in &wanted {
        match symlink(Path::new("..data").join(name), dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

fn shows(generation: &Path, files: &Payload) -> bool {
    let same = files.iter().all(|(path, (bytes, _))| fs::read(generation.join(path)).is_ok_and(|b| b == *bytes));
    same && count(generation) == files.len()
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
}

/// Makes an emptyDir: everybody may write, and with an fsGroup new files belong to it.
///
/// # Errors
/// The disk does not take it.
pub fn empty_dir(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    chown(dir, None, group)?;
    fs::set_permissions(dir, Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::{Value, json};

    fn sources() -> Sources {
        let map = json!({"metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}});
        Sources {
            config_maps: [("conf".to_owned(), serde_json::from_value(map).unwrap())].into(),
            ..Sources::default()
        }
    }

    fn check(volume: Value) -> String {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"x": "y"}}})).unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        match payload(&pod, &volume, &sources(), &Place::default()) {
            Ok(Some(files)) => files
                .iter()
                .map(|(p, (b, m))| format!("{}={:?} {m:o};", p.display(), String::from_utf8_lossy(b)))
                .collect(),
            Ok(None) => "empty".into(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn what_is_in_a_volume() {
        assert_eq!(check(json!({"name": "v", "configMap": {"name": "conf"}})), "a=\"1\" 644;b=\"2\" 644;");
        let items = json!({"name": "v", "configMap": {"name": "conf", "defaultMode": 256, "items": [{"key": "b", "path": "d/x", "mode": 511}]}});
        assert_eq!(check(items), "d/x=\"2\" 777;");
        assert_eq!(check(json!({"name": "v", "secret": {"secretName": "no"}})), "secret \"no\" not found");
        assert_eq!(check(json!({"name": "v", "secret": {"secretName": "no", "optional": true}})), "");
        let labels = json!({"name": "v", "projected": {"sources": [{"configMap": {"name": "conf", "items": [{"key": "a", "path": "a"}]}},
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}});
        assert_eq!(check(labels), "a=\"1\" 644;l=\"x=\\\"y\\\"\" 644;");
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../x", "/etc/x", "a/../../x", "..data"] {
            let volume = json!({"name": "v", "configMap": {"name": "conf", "items": [{"key": "a", "path": path}]}});
            let said = check(volume);
            assert!(said.contains("no path within") || said.contains("refused"), "{path}: {said}");
        }
    }

    #[test]
    fn updates_swap_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        let files = |list: &[(&str, &str)]| -> Payload {
            list.iter().map(|(p, t)| (PathBuf::from(p), (t.as_bytes().to_vec(), 0o600))).collect()
        };
        write(&volume, &files(&[("a", "1"), ("d/x", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("d/x")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read_link(volume.join("..data")).unwrap();
        write(&volume, &files(&[("a", "1"), ("d/x", "2")]), None).unwrap();
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), before, "unchanged is untouched");
        write(&volume, &files(&[("a", "3")]), Some(77)).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join("d").exists() && !volume.join(before).exists());
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&fs::metadata(volume.join("a")).unwrap()), 77);
    }
}

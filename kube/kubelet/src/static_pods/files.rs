//! From a directory to pods.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine_host::folder::Folder;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{HASH, MIRROR, SEEN, SOURCE, Said, Statics};
use crate::pod::environment;

/// How often the directory is looked at; nothing is read that has not changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// As many as pods on a machine.
const FILES_MAX: usize = 110;
/// What the API takes of one object is 3 MiB, and nobody writes such a pod by hand.
const FILE_MAX: u64 = 1 << 20;

/// Keeps `statics` what `dir` says, until nobody wants it.
pub(crate) async fn watch(dir: PathBuf, node: String, statics: watch::Sender<Said>) {
    let mut known = Known::new(dir);
    loop {
        let looked = tokio::task::spawn_blocking({
            let node = node.clone();
            move || {
                let changed = known.look(&node);
                (known, changed)
            }
        });
        let Ok((next, changed)) = looked.await else { return }; // only a panic ends it
        known = next;
        if changed {
            statics.send_replace(Some(known.statics()));
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = statics.closed() => return,
        }
    }
}

/// The pods of the files, by file.
struct Known {
    folder: Folder,
    pods: BTreeMap<OsString, Arc<Pod>>,
    looked: bool,
    complaint: Option<String>,
}

impl Known {
    fn new(dir: PathBuf) -> Self {
        Self { folder: Folder::new(dir, FILES_MAX, FILE_MAX), pods: BTreeMap::new(), looked: false, complaint: None }
    }

    /// Looks at the directory; whether pods have come, changed or gone (the first time in any case).
    fn look(&mut self, node: &str) -> bool {
        let first = !std::mem::replace(&mut self.looked, true);
        let dir = self.folder.path().display().to_string();
        let looked = match self.folder.look() {
            Ok(looked) => looked,
            Err(e) => {
                self.complain(format!("{dir}: {e}; static pods stay as they are"));
                return first;
            }
        };
        match looked.beyond {
            0 => self.complaint = None,
            n => self.complain(format!("{dir}: {n} files beyond {FILES_MAX} are not read")),
        }
        let before = self.statics();
        self.pods.retain(|name, _| looked.there.binary_search(name).is_ok());
        for (name, text) in looked.read {
            let file = name.to_string_lossy().into_owned();
            match text.map_err(|e| e.to_string()).and_then(|text| pod(&text, &file, node)) {
                Ok(pod) => drop(self.pods.insert(name, Arc::new(pod))),
                Err(why) => tracing::warn!("static pod {dir}/{file}: {why}"),
            }
        }
        first || before.keys().ne(self.statics().keys())
    }

    fn complain(&mut self, what: String) {
        if self.complaint.as_ref() != Some(&what) {
            tracing::warn!("{what}");
            self.complaint = Some(what);
        }
    }

    /// One pod of a name: the first file's.
    fn statics(&self) -> Statics {
        let mut names = std::collections::BTreeSet::new();
        let once =
            self.pods.values().filter(|pod| names.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone())));
        once.filter_map(|pod| Some((pod.metadata.uid.clone()?, Arc::clone(pod)))).collect()
    }
}

/// The pod of a file: named after its node, bound to it, marked.
fn pod(text: &[u8], file: &str, node: &str) -> Result<Pod, String> {
    let mut hash = Sha256::new();
    for part in [node.as_bytes(), file.as_bytes(), text] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let uid = engine_images::hex(&hash.finalize()[..16]);
    let complete = |pod: &mut Value| {
        let meta = &mut pod["metadata"];
        meta["name"] = json!(format!("{}-{node}", meta["name"].as_str().unwrap_or_default()));
        if meta["namespace"].as_str().unwrap_or_default().is_empty() {
            meta["namespace"] = json!("default");
        }
        meta["uid"] = json!(uid);
        let marks = [(HASH, uid.as_str()), (SOURCE, "file"), (SEEN, &Timestamp::now().to_string()), (MIRROR, &uid)];
        marks.into_iter().for_each(|(name, value)| meta["annotations"][name] = json!(value));
        let spec = &mut pod["spec"];
        spec["nodeName"] = json!(node);
        let all = json!({"operator": "Exists", "effect": "NoExecute"});
        match spec["tolerations"].as_array_mut() {
            Some(list) => list.push(all),
            None => spec["tolerations"] = json!([all]),
        }
    };
    let read = substrate_apiserver::read_pod(text, complete)?;
    let mut pod: Pod = serde_json::from_value(read).map_err(|e| e.to_string())?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if name.starts_with('-')
        || name.len() > 253
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    {
        return Err(format!("the name {name:?} is no name of a pod"));
    }
    if let Some(what) = reference(&pod) {
        return Err(format!("static pods may not refer to objects of the API, and it refers to {what}"));
    }
    pod.metadata.annotations.iter_mut().for_each(|all| drop(all.remove(MIRROR)));
    pod.status = None;
    Ok(pod)
}

/// The first thing of the API that a pod refers to, in words (upstream's `PreventStaticPodAPIReferences`).
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let needed = environment::needed(pod);
    let some = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    let mut volumes = spec.volumes.iter().flatten();
    let sources = volumes.clone().flat_map(|v| v.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    let checks = [
        (some(&spec.service_account_name) || some(&spec.service_account), "a service account"),
        (!needed.secrets.is_empty() || spec.image_pull_secrets.iter().flatten().next().is_some(), "secrets"),
        (!needed.config_maps.is_empty(), "configmaps"),
        (sources.into_iter().any(|s| s.service_account_token.is_some()), "tokens of a service account"),
        (
            volumes.any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some() || v.csi.is_some()),
            "persistent volume claims or drivers",
        ),
        (spec.resource_claims.iter().flatten().next().is_some(), "resource claims"),
        (spec.runtime_class_name.is_some(), "a runtime class"),
        (spec.ephemeral_containers.iter().flatten().next().is_some(), "ephemeral containers"),
    ];
    checks.into_iter().find(|(refers, _)| *refers).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: busy:1}]\n";

    #[test]
    fn a_file_is_a_pod_of_this_node() {
        let read = pod(WEB.as_bytes(), "web.yaml", "n1").unwrap();
        let spec = read.spec.as_ref().unwrap();
        assert_eq!(read.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("n1"), Some("Always")));
        assert_eq!(spec.tolerations.as_ref().unwrap().len(), 1, "and none that ends after a time");
        let uid = read.metadata.uid.clone().unwrap();
        assert!(super::super::is_own(&uid) && super::super::is_static(&read));
        assert_eq!(annotation_of(&read, HASH), uid);
        let again =
            |text: &str, file: &str, node: &str| pod(text.as_bytes(), file, node).unwrap().metadata.uid.unwrap();
        assert_eq!(again(WEB, "web.yaml", "n1"), uid);
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"busy:1"}]}}"#;
        for other in [again(json, "web.yaml", "n1"), again(WEB, "b.yaml", "n1"), again(WEB, "web.yaml", "n2")] {
            assert_ne!(other, uid);
        }
    }

    fn annotation_of(pod: &Pod, name: &str) -> String {
        super::super::annotation(pod, name).unwrap().to_owned()
    }

    #[test]
    fn what_is_no_static_pod_is_refused_in_words() {
        let check = |text: &str| pod(text.as_bytes(), "f", "n1").unwrap_err();
        assert!(check("kind: Service\napiVersion: v1").starts_with("needed a Pod of v1, found \"Service\" of \"v1\""));
        assert!(check("a: [").contains("YAML"));
        assert!(check(&WEB.replace("image:", "imagine:")).contains("unknown field"));
        assert!(
            check(&WEB.replace(", image: busy:1", "")).contains("image"),
            "{}",
            check(&WEB.replace(", image: busy:1", ""))
        );
        assert!(check(&WEB.replace("name: web", "name: ../up")).contains("no name of a pod"));
        let with = |line: &str| check(&format!("{WEB}  {line}\n"));
        assert!(with("serviceAccountName: me").ends_with("refers to a service account"));
        assert!(with("imagePullSecrets: [{name: s}]").ends_with("refers to secrets"));
        assert!(with("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]").ends_with("claims or drivers"));
        assert!(with("volumes: [{name: v, configMap: {name: c}}]").ends_with("refers to configmaps"));
    }

    #[test]
    fn a_directory_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("pods");
        let mut known = Known::new(at.clone());
        assert!(known.look("n"), "the first time");
        assert!(!known.look("n") && known.statics().is_empty());
        std::fs::create_dir_all(at.join("directory")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
        write("web.yaml", WEB);
        write(".web.swp", WEB);
        write("wrong.yaml", "kind: Pod");
        assert!(known.look("n") && known.statics().len() == 1);
        assert!(!known.look("n"), "nothing is new");
        let before: Vec<String> = known.statics().into_keys().collect();
        write("web.yaml", "half a po");
        assert!(!known.look("n") && known.statics().into_keys().eq(before.clone()), "it runs on");
        write("web.yaml", &WEB.replace("busy:1", "busy:2"));
        assert!(known.look("n") && !known.statics().contains_key(&before[0]));
        write("web2.yaml", WEB);
        assert!(!known.look("n"), "the name is taken");
        std::fs::remove_file(at.join("web.yaml")).unwrap();
        assert!(known.look("n") && known.statics().len() == 1);
        write("big.yaml", &" ".repeat(2 << 20));
        assert!(!known.look("n"));
        (0..200).for_each(|n| write(&format!("n{n}.yaml"), &WEB.replace("name: web", &format!("name: w{n}"))));
        known.look("n");
        assert!(known.pods.len() == FILES_MAX - 1 && known.complaint.is_some());
    }
}

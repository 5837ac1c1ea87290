//! Volumes whose data is on the machine already: a *located* volume is mounted from where it is, not from the pod's
//! directory.
//!
//! ```text
//! hostPath ──────────────────▶ the path, after its type was looked at
//! claim ──bound──▶ volume ───▶ the path of its hostPath or local source, when its node affinity allows this node
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Volume,
};
use kube::{Api, Client};
use substrate_client::lookup::node_selector_term_matches;
use substrate_client::volumes::is_for;

/// Where a volume's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// A file or directory of the machine.
    pub path: PathBuf,
    /// Whether it is mounted read-only whatever a container says.
    pub read_only: bool,
    /// Whether it is given to the pod's fsGroup.
    pub grouped: bool,
}

/// Why the volume of a claim cannot be mounted; in the words of every kubelet.
#[derive(Debug, thiserror::Error)]
pub enum Unbound {
    /// The claim is not there, or not bound: its volume is not known.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: error processing PVC {claim}: {why}"
    )]
    Claim {
        /// The pod's name of it.
        volume: String,
        /// Namespace and name.
        claim: String,
        /// What is missing.
        why: String,
    },
    /// Its volume cannot be had here.
    #[error("MountVolume.{step} failed for volume {name:?} : {why}")]
    Volume {
        /// What was being done.
        step: &'static str,
        /// Of the PersistentVolume.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A kind of volume that is not built.
    #[error("not supported on this node: the kind of persistent volume {0:?}")]
    Kind(String),
}

/// Whether the volume's data is not made by the kubelet for this pod.
pub fn is_located(volume: &Volume) -> bool {
    volume.host_path.is_some() || volume.persistent_volume_claim.is_some()
}

/// Finds the data of a claim in `namespace` on the node of that name.
///
/// # Errors
/// It is not bound yet, or its volume is not on this node.
pub async fn claimed(
    client: &Client,
    namespace: &str,
    node: &str,
    volume: &str,
    source: &PersistentVolumeClaimVolumeSource,
) -> Result<Located, Unbound> {
    let title = &source.claim_name;
    let unbound =
        |why: String| Unbound::Claim { volume: volume.to_owned(), claim: format!("{namespace}/{title}"), why };
    let fetch = |what: &str, e: kube::Error| unbound(format!("failed to fetch {what} from API server: {e}"));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(title).await.map_err(|e| fetch("PVC", e))?;
    let spec = claim.spec.as_ref();
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = spec.and_then(|spec| spec.volume_name.as_ref()).filter(|name| !name.is_empty());
    let Some(name) = name.filter(|_| phase == Some("Bound")) else {
        return Err(unbound("PVC is not bound".to_owned()));
    };
    let found =
        Api::<PersistentVolume>::all(client.clone()).get(name).await.map_err(|e| fetch(&format!("PV {name}"), e))?;
    if is_for(&found, &claim) != Some(true) {
        return Err(unbound(format!("PV {name} is bound to another claim")));
    }
    let failed = |step: &'static str| move |why: String| Unbound::Volume { step, name: name.clone(), why };
    let here = Api::<Node>::all(client.clone()).get(node).await.map_err(|e| fetch(&format!("node {node}"), e))?;
    let of = found.spec.unwrap_or_default();
    let terms = of.node_affinity.and_then(|affinity| affinity.required).map(|required| required.node_selector_terms);
    if terms.is_some_and(|terms| !terms.iter().any(|term| node_selector_term_matches(term, &here))) {
        return Err(failed("NodeAffinity check")("no matching NodeSelectorTerms".to_owned()));
    }
    let read_only = source.read_only == Some(true);
    match (&of.host_path, &of.local) {
        _ if of.volume_mode.as_deref() == Some("Block") => Err(Unbound::Kind(name.clone())),
        (Some(source), _) => {
            let path = host_path(source).map_err(failed("SetUp"))?;
            Ok(Located { path, read_only, grouped: false })
        }
        (None, Some(local)) => {
            let path = PathBuf::from(&local.path);
            match path.try_exists() {
                Ok(true) => Ok(Located { path, read_only, grouped: !read_only }),
                _ => Err(failed("NewMounter initialization")(format!("path {:?} does not exist", local.path))),
            }
        }
        (None, None) => Err(Unbound::Kind(name.clone())),
    }
}

/// Looks whether the machine has at the path what its type says, and makes what the type says shall be made.
///
/// # Errors
/// What is there is something else, or cannot be made; in the words of every kubelet.
pub fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = Path::new(&source.path);
    let found = match fs::metadata(path) {
        Ok(found) => Some(found.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(format!("{}: {e}", source.path)),
    };
    let directory = || DirBuilder::new().recursive(true).mode(0o755).create(path);
    let file = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map(drop);
    let (is_it, what) = match (source.type_.as_deref().unwrap_or_default(), found) {
        // Nobody says what it shall be: made as a directory, as every runtime does, or taken as it is.
        ("" | "DirectoryOrCreate", None) => return made(path, directory()),
        ("FileOrCreate", None) => return made(path, file()),
        ("", Some(_)) => (true, ""),
        ("Directory" | "DirectoryOrCreate", found) => (found.is_some_and(|f| f.is_dir()), "directory"),
        ("File" | "FileOrCreate", found) => (found.is_some_and(|f| f.is_file()), "file"),
        ("Socket", found) => (found.is_some_and(|f| f.is_socket()), "socket file"),
        ("CharDevice", found) => (found.is_some_and(|f| f.is_char_device()), "character device"),
        ("BlockDevice", found) => (found.is_some_and(|f| f.is_block_device()), "block device"),
        (other, _) => return Err(format!("{other} is an invalid volume type")),
    };
    match is_it {
        true => Ok(path.to_owned()),
        false => Err(format!("hostPath type check failed: {} is not a {what}", source.path)),
    }
}

fn made(path: &Path, made: io::Result<()>) -> Result<PathBuf, String> {
    made.map(|()| path.to_owned()).map_err(|e| format!("create {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn types_of_host_paths() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let check = |name: &str, type_: &str| {
            let path = if name.starts_with('/') { name.to_owned() } else { format!("{root}/{name}") };
            let said = host_path(&HostPathVolumeSource { path, type_: Some(type_.to_owned()) });
            said.map_or_else(|why| why.replace(root, "."), |_| "ok".to_owned())
        };
        let expected = [
            ("dir", "Directory", "ok"),
            ("file", "Directory", "hostPath type check failed: ./file is not a directory"),
            ("none", "Directory", "hostPath type check failed: ./none is not a directory"),
            ("file", "DirectoryOrCreate", "hostPath type check failed: ./file is not a directory"),
            ("new/deep", "DirectoryOrCreate", "ok"),
            ("file", "File", "ok"),
            ("link", "File", "ok"),
            ("dir", "File", "hostPath type check failed: ./dir is not a file"),
            ("none", "File", "hostPath type check failed: ./none is not a file"),
            ("made", "FileOrCreate", "ok"),
            ("dir", "FileOrCreate", "hostPath type check failed: ./dir is not a file"),
            ("no/parent", "FileOrCreate", "create ./no/parent: No such file or directory (os error 2)"),
            ("socket", "Socket", "ok"),
            ("file", "Socket", "hostPath type check failed: ./file is not a socket file"),
            ("/dev/null", "CharDevice", "ok"),
            ("file", "CharDevice", "hostPath type check failed: ./file is not a character device"),
            ("/dev/null", "BlockDevice", "hostPath type check failed: /dev/null is not a block device"),
            ("file", "", "ok"),
            ("unsaid", "", "ok"),
            ("file", "Pipe", "Pipe is an invalid volume type"),
        ];
        for (name, type_, said) in expected {
            assert_eq!(check(name, type_), said, "{name} as {type_:?}");
        }
        assert!(dir.path().join("new/deep").is_dir() && dir.path().join("unsaid").is_dir());
        assert!(dir.path().join("made").is_file());
    }
}

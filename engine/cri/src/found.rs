//! What a runtime says of itself, and whether it can be used.

use std::collections::BTreeMap;
use std::time::Duration;

use engine_runtime::Error;
use serde::Deserialize;

use crate::calls::SHORT;
use crate::grpc::{Client, Failure};
use crate::messages as cri;
use crate::network::{self, Places};
use crate::plan::label;

/// A node that starts does not wait longer for an image.
const PULL: Duration = Duration::from_secs(15);

/// What a runtime says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `containerd`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it can run pods with (runc, gVisor, Kata), as RuntimeClasses name it.
    pub handlers: Vec<String>,
    /// Why it cannot be used, if so.
    pub unusable: Option<String>,
    pub(crate) places: Places,
    sandbox_image: String,
}

/// Asks a runtime that nobody has named whether it may have all pods of this machine.
///
/// # Errors
/// Why not: it does not answer, it cannot be used, or another program runs its pods by it.
pub(crate) async fn free(client: &Client) -> Result<Found, Error> {
    let refused = |call, why| Error::Call { at: client.socket().display().to_string(), call, why };
    let found = look(client).await?;
    if let Some(why) = found.unusable {
        return Err(refused("Status", why));
    }
    if let Some(other) = network::of_others(&found.places.conf_dir) {
        let why = format!("{} configures the network of another program's pods", other.display());
        return Err(refused("Status", why));
    }
    let every = cri::ListPodSandboxRequest { filter: None };
    let method = "/runtime.v1.RuntimeService/ListPodSandbox";
    let sandboxes: cri::ListPodSandboxResponse =
        client.call(method, &every, SHORT).await.map_err(|e| refused("ListPodSandbox", e.why))?;
    if sandboxes.items.iter().any(|sandbox| !sandbox.labels.contains_key(label::OWNER)) {
        return Err(refused("ListPodSandbox", "it runs another program's pods".to_owned()));
    }
    Ok(found)
}

/// Has a runtime pull its sandbox image if it is not there, so that the first pod does not wait for what cannot be had.
///
/// # Errors
/// It cannot pull it.
pub(crate) async fn complete(client: &Client, found: &Found) -> Result<(), Error> {
    let image = &found.sandbox_image;
    if image.is_empty() {
        return Ok(()); // it does not tell which
    }
    let refused = |call, why: String| {
        let why = format!("its sandbox image {image}: {why}");
        Error::Call { at: client.socket().display().to_string(), call, why }
    };
    let request = cri::ImageRequest { image: Some(cri::ImageSpec { image: image.clone() }) };
    let known: cri::ImageStatusResponse = client
        .call("/runtime.v1.ImageService/ImageStatus", &request, SHORT)
        .await
        .map_err(|e| refused("ImageStatus", e.why))?;
    if known.image.is_some() {
        return Ok(());
    }
    let pulled: Result<cri::Empty, Failure> = client.call("/runtime.v1.ImageService/PullImage", &request, PULL).await;
    pulled.map(drop).map_err(|e| refused("PullImage", e.why))
}

pub(crate) async fn look(client: &Client) -> Result<Found, Error> {
    let failed = |call, e: Failure| Error::Call { at: client.socket().display().to_string(), call, why: e.why };
    let version: cri::VersionResponse = client
        .call("/runtime.v1.RuntimeService/Version", &cri::Empty {}, SHORT)
        .await
        .map_err(|e| failed("Version", e))?;
    let status: cri::StatusResponse = client
        .call("/runtime.v1.RuntimeService/Status", &cri::StatusRequest { verbose: true }, SHORT)
        .await
        .map_err(|e| failed("Status", e))?;
    let config = status.info.get("config").map(String::as_str).unwrap_or_default();
    let told = Told::read(config);
    let unusable = match (version.runtime_name.as_str(), &told) {
        ("containerd", Ok(told)) => told.unusable(),
        ("containerd", Err(e)) => Some(format!("its configuration cannot be read: {e}")),
        (name, _) => Some(format!("it is {name:?}, needed containerd: only that takes this node's images")),
    };
    let conditions = status.status.into_iter().flat_map(|status| status.conditions);
    let not_ready = conditions.into_iter().find(|c| c.kind == "RuntimeReady" && !c.status);
    let unusable = unusable.or_else(|| not_ready.map(|c| format!("it is not ready: {} {}", c.reason, c.message)));
    let told = told.unwrap_or_default();
    let mut handlers: Vec<String> = told.containerd.runtimes.into_keys().collect();
    handlers.extend(status.handlers.into_iter().map(|handler| handler.name).filter(|name| !name.is_empty()));
    handlers.sort();
    handlers.dedup();
    let (name, version) = (version.runtime_name, version.runtime_version);
    Ok(Found { name, version, handlers, unusable, places: told.cni, sandbox_image: told.sandbox_image })
}

/// What containerd tells of its configuration.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    cni: Places,
    #[serde(default)]
    containerd: Containerd,
    /// What its sandboxes are made from; later releases tell it elsewhere.
    #[serde(default, rename = "sandboxImage")]
    sandbox_image: String,
}

#[derive(Debug, Default, Deserialize)]
struct Containerd {
    #[serde(default)]
    runtimes: BTreeMap<String, Kind>,
}

#[derive(Debug, Default, Deserialize)]
struct Kind {
    #[serde(default)]
    options: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Told {
    fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn unusable(&self) -> Option<String> {
        let by_systemd = |kind: &Kind| {
            kind.options.as_ref().and_then(|options| options.get("SystemdCgroup"))
                == Some(&serde_json::Value::Bool(true))
        };
        if self.containerd.runtimes.values().any(by_systemd) {
            return Some(
                "it makes cgroups by systemd, needed cgroupfs: SystemdCgroup = false in its configuration".to_owned(),
            );
        }
        let places = [&self.cni.bin_dir, &self.cni.conf_dir];
        places
            .iter()
            .any(|place| !place.is_absolute())
            .then(|| "it does not tell where it looks for CNI plug-ins".to_owned())
    }
}

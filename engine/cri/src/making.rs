//! What a runtime is to make, and to take away.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use engine_runtime::{ContainerConfig, Error, Root, SandboxConfig, Seccomp};

use crate::calls::{Inner, LONG, absent, attempt, gone, pid};
use crate::found::look;
use crate::grpc::{Failure, code};
use crate::images::Wanted;
use crate::kept::{io_error, remember, remove_dir};
use crate::messages::{self as cri, state};
use crate::mounts;
use crate::network;
use crate::plan::{self, Given, label};

/// A runtime reads a new configuration of the network within a second.
const NETWORK: Duration = Duration::from_secs(15);
/// How often a pod is asked to stop. containerd (seen with 1.6) refuses to kill a container that is just ending by itself, as what watched over
/// it is gone (`ttrpc: closed`), until it has noticed.
const STOPS_MAX: u32 = 10;
const STOP_AGAIN: Duration = Duration::from_millis(200);
/// Where the plug-in is.
pub(crate) const NETWORK_FILE: &str = "network.json";
/// Below a pod's directory: what was mounted for its containers.
const MOUNTS_DIR: &str = "mounts";

impl Inner {
    /// Makes the runtime ready for the pods' network.
    pub async fn network(&self) -> Result<(), Error> {
        let found = look(&self.client).await?;
        let refused = |why| Error::Call { at: self.client.socket().display().to_string(), call: "pods", why };
        if let Some(why) = found.unusable {
            return Err(refused(why));
        }
        self.install(found.places).await?;
        let deadline = tokio::time::Instant::now() + NETWORK;
        loop {
            let request = cri::StatusRequest { verbose: false };
            let status: cri::StatusResponse =
                self.cri(("Status", "/runtime.v1.RuntimeService/Status"), &request).await?;
            let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
            let Some(network) = conditions.into_iter().find(|c| c.kind == "NetworkReady" && !c.status) else {
                return Ok(());
            };
            if tokio::time::Instant::now() > deadline {
                return Err(refused(format!("the network is not ready: {} {}", network.reason, network.message)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn install(&self, places: network::Places) -> Result<(), Error> {
        let _one = self.installing.lock().await;
        remember(&self.root.join(NETWORK_FILE), &places)?;
        let plugin = self.plugin.clone();
        let installed = tokio::task::spawn_blocking(move || network::install(&places, &plugin)).await;
        let refused = |why| Error::Call { at: self.client.socket().display().to_string(), call: "pods", why };
        installed.unwrap_or_else(|e| Err(e.to_string())).map_err(refused)
    }

    pub async fn run_sandbox(&self, config: &SandboxConfig, handler: &str) -> Result<(), Error> {
        let earlier = self.sandboxes(Some(&config.pod_uid)).await?;
        for sandbox in &earlier {
            // Its containers have ended; what it has of the network goes, that the next may have it.
            self.stop_sandbox(&sandbox.id).await?;
        }
        let attempt = earlier.first().map_or(0, |sandbox| attempt(sandbox).saturating_add(1));
        let sandbox = plan::sandbox(config, &self.owner, attempt, false);
        let request = cri::RunPodSandboxRequest { config: Some(sandbox), handler: handler.to_owned() };
        let made: cri::SandboxId =
            self.cri(("RunPodSandbox", "/runtime.v1.RuntimeService/RunPodSandbox"), &request).await?;
        let Some(netns) = &config.netns else { return Ok(()) };
        let request = cri::SandboxStatusRequest { id: made.id.clone(), verbose: true };
        let status: cri::SandboxStatusResponse =
            self.cri(("PodSandboxStatus", "/runtime.v1.RuntimeService/PodSandboxStatus"), &request).await?;
        // A runtime whose sandboxes are no processes (virtual machines) has none to look at.
        match pid(&status.info) {
            Some(pid) if !network::same(Path::new(&format!("/proc/{pid}/ns/net")), netns) => {
                self.remove_sandbox(&made.id).await?; // else it would be taken for the pod's the next time
                let why = "the pod is in another network than its own: another CNI configuration comes before ours; remove it, or run the pod with the handler \"oci\"";
                Err(self.failed("RunPodSandbox", Failure::new(code::UNKNOWN, why)))
            }
            _ => Ok(()),
        }
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = cri::SandboxId { id: id.to_owned() };
        let call = ("StopPodSandbox", "/runtime.v1.RuntimeService/StopPodSandbox");
        let mut asked = 0;
        loop {
            asked += 1;
            match absent(self.client.call::<cri::Empty>(call.1, &request, LONG).await) {
                Err(refused) if is_asked_again(&refused, asked) => tokio::time::sleep(STOP_AGAIN).await,
                other => return other.map_err(|e| self.failed(call.0, e)),
            }
        }
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        self.stop_sandbox(id).await?;
        let request = cri::SandboxId { id: id.to_owned() };
        let call = ("RemovePodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox");
        absent(self.client.call::<cri::Empty>(call.1, &request, LONG).await).map_err(|e| self.failed(call.0, e))
    }

    /// What a container is given beside its configuration.
    pub async fn given(&self, sandbox: &SandboxConfig, config: &ContainerConfig) -> Result<Given, Error> {
        let Root::Image { name, digest, blobs } = &config.root else {
            return Err(Error::Refused(format!("container {}: its root is unpacked, needed an image", config.name)));
        };
        let target = match &config.beside {
            None => None,
            Some(wanted) => {
                let all = self.containers(Some(&sandbox.pod_uid), None).await?;
                let is_it = |c: &cri::Container| c.state == state::RUNNING && c.labels.get(label::NAME) == Some(wanted);
                let found = all.into_iter().find(is_it).map(|container| container.id);
                Some(found.ok_or_else(|| Error::Refused(format!("unable to find target container {wanted}")))?)
            }
        };
        let image = self.images.bring(&self.client, &Wanted { name, digest, blobs }).await;
        let image = image.map_err(|why| self.failed("import an image", Failure::new(code::UNKNOWN, why)))?;
        let dir = self.pod_dir(&sandbox.pod_uid).join(MOUNTS_DIR).join(&config.id);
        let mut mounts = Vec::new();
        for (n, mount) in config.mounts.iter().enumerate() {
            let at = match &mount.sub_path {
                None => mount.source.clone(),
                Some(inside) => {
                    let at = dir.join(n.to_string());
                    mounts::bind(&mount.source, inside, &at)
                        .map_err(|e| Error::Refused(format!("mount {}: {e}", mount.destination.display())))?;
                    at
                }
            };
            mounts.push(plan::mount(mount, &at));
        }
        let profile = match &config.seccomp {
            Seccomp::Profile(text) => {
                let path = dir.join("seccomp.json");
                fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
                fs::write(&path, text).map_err(io_error("write", &path))?;
                Some(path.display().to_string())
            }
            _ => None,
        };
        Ok(Given { image, mounts, target, profile })
    }

    pub async fn create(&self, pod_uid: &str, config: &ContainerConfig) -> Result<String, Error> {
        let living = self.living(pod_uid).await?.ok_or_else(|| gone(pod_uid))?;
        let sandbox = self.sandbox_config(pod_uid)?;
        if !self.containers(Some(pod_uid), Some(&config.id)).await?.is_empty() {
            return Err(Error::Refused(format!("container {} was started before", config.id)));
        }
        let given = self.given(&sandbox, config).await?;
        let (container, sandbox) = plan::container(config, &sandbox, &self.owner, given).map_err(Error::Refused)?;
        let request =
            cri::CreateContainerRequest { sandbox_id: living.id, config: Some(container), sandbox: Some(sandbox) };
        let made: cri::ContainerId =
            self.cri(("CreateContainer", "/runtime.v1.RuntimeService/CreateContainer"), &request).await?;
        Ok(made.id)
    }

    /// Takes away what was mounted on the machine for a container, and what is known of it.
    pub fn let_go(&self, pod_uid: &str, id: &str) -> Result<(), Error> {
        self.memory.let_go(pod_uid, Some(id));
        let kept = self.oom_kept(pod_uid, id);
        match fs::remove_file(&kept) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &kept)(e)),
            _ => {}
        }
        let dir = self.pod_dir(pod_uid).join(MOUNTS_DIR).join(id);
        mounts::unmount_below(&dir).and_then(|()| remove_dir(&dir)).map_err(io_error("unmount and remove", &dir))
    }
}

/// Whether who has refused to stop a pod so many times is asked again: not if it is away, or too slow.
fn is_asked_again(refused: &Failure, times: u32) -> bool {
    refused.code == code::UNKNOWN && times < STOPS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_to_stop_what_ends_by_itself_is_asked_again_and_who_is_away_is_not() {
        let refused = |code| Failure::new(code, "ttrpc: closed");
        let times = (1..100).take_while(|times| is_asked_again(&refused(code::UNKNOWN), *times)).count();
        assert_eq!(times, 9, "ten times in all");
        assert!(
            !is_asked_again(&refused(code::UNAVAILABLE), 1) && !is_asked_again(&refused(code::DEADLINE_EXCEEDED), 1)
        );
    }
}

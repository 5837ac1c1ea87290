//! A pod's volumes: those that are on the machine already, those made of objects, those in memory.

use super::*;

impl Starter<'_> {
    pub(super) fn no_mount(&self, failure: &Failure) {
        self.shared.events.warning(self.pod, None, "FailedMount", failure.message.clone());
    }

    pub(super) fn of_pod(&self) -> impl Iterator<Item = &Volume> {
        self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
    }

    /// Finds the volumes that are on the machine already.
    pub(super) async fn located(&self) -> Result<BTreeMap<String, Located>, Failure> {
        let mut all = BTreeMap::new();
        for volume in self.of_pod() {
            if let Some(source) = &volume.persistent_volume_claim {
                let found = self.claimed(volume, source).await.inspect_err(|f| self.no_mount(f))?;
                all.insert(volume.name.clone(), found);
            }
            let Some(source) = &volume.host_path else { continue };
            // The API refused it to guests before (PodSecurity); what came another way gets none of the machine either.
            if self.shared.guests.as_ref().is_some_and(|guests| guests.is_guest(self.pod)) {
                let message = format!("volume {:?}: a guest gets no files of this machine", volume.name);
                self.shared.events.warning(self.pod, None, "FailedMount", message.clone());
                return Err(Failure { reason: "NotSupported", message, retry: Retry::Never });
            }
            let path = host_path(source).map_err(|why| set_up(volume, why)).inspect_err(|f| self.no_mount(f))?;
            all.insert(volume.name.clone(), Located { path, read_only: false, grouped: false });
        }
        Ok(all)
    }

    /// Finds the volume of a claim, and gives it to the pod's fsGroup.
    pub(super) async fn claimed(
        &self,
        volume: &Volume,
        source: &PersistentVolumeClaimVolumeSource,
    ) -> Result<Located, Failure> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let found = claimed(&self.shared.client, namespace, &self.shared.node_name, &volume.name, source).await;
        let found = found.map_err(|e| match e {
            Unbound::Kind(_) => Failure { reason: "NotSupported", message: e.to_string(), retry: Retry::Never },
            _ => Failure { reason: "ContainerCreating", message: e.to_string(), retry: Retry::Soon },
        })?;
        let context = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        if let Some(group) = self.fs_group().filter(|_| found.grouped) {
            let (path, only_if_other) = (found.path.clone(), policy == Some("OnRootMismatch"));
            let given =
                tokio::task::spawn_blocking(move || engine_host::group::give(&path, group, only_if_other)).await;
            given.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| set_up(volume, e))?;
        }
        Ok(found)
    }

    pub(super) fn volumes(&self, sources: &Sources, place: &Place) -> Result<(), Failure> {
        let group = self.fs_group();
        for volume in self.of_pod().filter(|volume| !is_located(volume)) {
            let dir = self.dir.volume(&volume.name);
            let made = match volumes::payload(self.pod, volume, sources, place) {
                Err(e @ ConfigError::Unsupported(_)) => return Err(config_failure(e)),
                Err(e) => return Err(set_up(volume, e)),
                Ok(Some(files)) => volumes::write(&dir, &files, group),
                Ok(None) => volumes::empty_dir(&dir, group),
            };
            made.map_err(|e| set_up(volume, e))?;
        }
        Ok(())
    }

    pub(super) fn memory_volumes(&self) -> BTreeMap<PathBuf, u64> {
        let all = self.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let in_memory =
            all.filter_map(|v| Some((v, v.empty_dir.as_ref().filter(|e| e.medium.as_deref() == Some("Memory"))?)));
        in_memory
            .map(|(volume, dir)| {
                let size = dir.size_limit.as_ref().and_then(|q| substrate_client::quantity::Quantity::try_from(q).ok());
                (self.dir.volume(&volume.name), size.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0))
            })
            .collect()
    }
}

/// A volume that cannot be made: its pod is being created all the while, and its events say why.
fn set_up(volume: &Volume, why: impl std::fmt::Display) -> Failure {
    let message = format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name);
    Failure { reason: "ContainerCreating", message, retry: Retry::Soon }
}

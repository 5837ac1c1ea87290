//! The image of a container: from the machine if the pod may have it, else from where it can be had. `host:/usr/bin/python3` is none but a
//! program of the machine, for the handler `process` ([`engine_runtime::process`]).
//!
//! ```text
//! imagePullSecrets ─▶ credentials for the image ─▶ here, and for this pod?  yes ─▶ it, unless the policy is Always
//!                                                                           no  ─▶ sources in turn, unless it is Never
//! ```

use std::time::{Duration, Instant};

use engine_images::{Caller, Error as ImageError, Found, Image, ImageConfig, Keyring, Reference};
use engine_runtime::{Root, process};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::Api;

use super::plan::Hold;
use super::start::{Failure, Retry, Starter, chain, failed, uid};

/// What a container is made of.
pub(super) enum Origin {
    Image(Box<Image>),
    /// A program of the machine: its name in the pod, and how it is run.
    Machine(String, ImageConfig),
}

impl Origin {
    /// What a container status calls `imageID`.
    pub fn id(&self) -> String {
        match self {
            Self::Image(image) => image.id(),
            Self::Machine(name, _) => name.clone(),
        }
    }

    pub fn config(&self) -> &ImageConfig {
        match self {
            Self::Image(image) => &image.config,
            Self::Machine(_, config) => config,
        }
    }
}

/// Whoever `pod` belongs to, with what its pull secrets hold for this image; and the secrets that hold nothing or are not there.
/// A guest's secrets are not here but with its owner.
///
/// # Errors
/// The API cannot be asked.
pub async fn caller(
    client: &kube::Client,
    pod: &Pod,
    reference: &Reference,
    realm: Option<String>,
) -> Result<(Caller, Vec<String>), kube::Error> {
    if let Some(realm) = realm {
        return Ok((Caller { realm, credentials: Vec::new() }, Vec::new()));
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"));
    let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
    for named in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let found = if named.name.is_empty() { None } else { secrets.get_opt(&named.name).await? };
        let held = found.as_ref().and_then(|secret| {
            let entry = format!(".{}", secret.type_.as_deref()?.strip_prefix("kubernetes.io/")?);
            let is_one = matches!(entry.as_str(), ".dockerconfigjson" | ".dockercfg");
            secret.data.as_ref()?.get(&entry).filter(|_| is_one)
        });
        // What is wrong with it is not told: its author may be somebody else than who reads the event.
        if held.is_none_or(|bytes| keyring.add(&bytes.0).is_err()) {
            missing.push(named.name.clone());
        }
    }
    Ok((Caller { realm: String::new(), credentials: keyring.find(reference) }, missing))
}

impl Starter<'_> {
    pub(super) async fn origin(&self, spec: &Container, held: Option<&Hold>) -> Result<Origin, Failure> {
        let text = spec.image.clone().unwrap_or_default();
        let Some(program) = process::program(&text) else {
            return self.image(spec, text, held).await.map(|image| Origin::Image(Box::new(image)));
        };
        let why = match program {
            _ if self.shared.guests.as_ref().is_some_and(|guests| guests.is_guest(self.pod)) => {
                "what is installed on this machine is for its owner's pods; use an image".to_owned()
            }
            _ if !self.is_fenced() => {
                let handler = self.shared.runtimes.handler_of(uid(self.pod));
                format!(
                    "the handler {handler:?} runs images only; name a RuntimeClass with the handler {}, or an image",
                    process::HANDLER
                )
            }
            Err(why) => why,
            Ok(path) => {
                let entrypoint = vec![path.to_string_lossy().into_owned()];
                return Ok(Origin::Machine(text, ImageConfig { entrypoint, ..ImageConfig::default() }));
            }
        };
        Err(self.misnamed(spec, format!("Failed to use the machine's program \"{text}\": {why}")))
    }

    /// The files that the container sees, as the pod's runtime wants them.
    pub(super) async fn root(&self, origin: &Origin) -> Result<Root, Failure> {
        let Origin::Image(image) = origin else { return Ok(Root::Machine) };
        let (images, uid) = (&self.shared.images, uid(self.pod));
        let takes_images = self.shared.runtimes.of_pod_takes_images(uid);
        if takes_images.map_err(|e| failed("CreateContainerError", chain(&e)))? {
            let (name, digest) = (image.reference.to_string(), image.digest.to_string());
            return Ok(Root::Image { name, digest, blobs: images.blobs_dir() });
        }
        let layers = images.unpacked(image, uid).await;
        let layers = layers.map_err(|e| failed("CreateContainerError", chain(&e)))?;
        let layers = layers.iter().filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())).collect();
        Ok(Root::Layers { dir: images.layers_dir(), layers })
    }

    fn misnamed(&self, spec: &Container, message: String) -> Failure {
        self.shared.events.warning(self.pod, Some(spec.name.as_str()), "InspectFailed", message.clone());
        Failure { reason: "InvalidImageName", message, retry: Retry::Never }
    }

    async fn image(&self, spec: &Container, text: String, held: Option<&Hold>) -> Result<Image, Failure> {
        let (events, name) = (&self.shared.events, Some(spec.name.as_str()));
        let reference: Reference = text.parse().map_err(|e: engine_images::InvalidReference| {
            self.misnamed(spec, format!("Failed to apply default image tag \"{text}\": {}", e.why))
        })?;
        let realm = self.shared.guests.as_ref().and_then(|guests| guests.owner(self.pod));
        let (caller, missing) = caller(&self.shared.client, self.pod, &reference, realm)
            .await
            .map_err(|e| failed("ErrImagePull", format!("get the pull secrets of the pod: {e}")))?;
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            events.warning(self.pod, None, "FailedToRetrieveImagePullSecret", message);
        }
        let found = self.shared.images.find_for(&reference, &caller).await;
        let found = found.map_err(|e| failed("ImageInspectError", chain(&e)))?;
        let policy =
            spec.image_pull_policy.as_deref().unwrap_or(if reference.is_latest() { "Always" } else { "IfNotPresent" });
        let never = |message: String| {
            events.warning(self.pod, name, "ErrImageNeverPull", message.clone());
            Err(Failure { reason: "ErrImageNeverPull", message, retry: Retry::BackOff })
        };
        match (found, policy) {
            (Found::Here(image), "IfNotPresent" | "Never") => {
                let message = if caller.credentials.is_empty() { "" } else { " and can be accessed by the pod" };
                let message = format!("Container image \"{text}\" already present on machine{message}");
                events.normal(self.pod, name, "Pulled", message);
                Ok(*image)
            }
            (Found::Absent, "Never") => {
                never(format!("Container image \"{text}\" is not present with pull policy of Never"))
            }
            (Found::Barred, "Never") => never(format!(
                "Container image \"{text}\" is present with pull policy of Never but does not have the proper credentials to access the image"
            )),
            (Found::Here(image), _) => self.pull((spec, &text), &reference, &caller, Some(*image), held).await,
            (_, _) => self.pull((spec, &text), &reference, &caller, None, held).await,
        }
    }

    async fn pull(
        &self,
        (spec, text): (&Container, &str),
        reference: &Reference,
        caller: &Caller,
        here: Option<Image>,
        held: Option<&Hold>,
    ) -> Result<Image, Failure> {
        let (events, name) = (&self.shared.events, Some(spec.name.as_str()));
        events.normal(self.pod, name, "Pulling", format!("Pulling image \"{text}\""));
        let waiting = Instant::now();
        let slot = self.shared.pulls.acquire().await;
        let started = Instant::now();
        let mut complaints = Vec::new();
        for source in &self.shared.image_sources {
            match source.fetch(reference, self.pod, caller, &self.shared.images).await {
                Ok(false) => {}
                Err(e) => {
                    if let ImageError::NoRoom { needed, .. } = &e {
                        self.shared.disk_full.send_replace(*needed);
                    }
                    complaints.push(format!("{}: {}", source.name(), chain(&e)));
                }
                Ok(true) => match self.shared.images.find_for(reference, caller).await {
                    Ok(Found::Here(image)) => {
                        let (took, in_all) = (told(started.elapsed()), told(waiting.elapsed()));
                        let size = image.size_bytes;
                        let message = format!(
                            "Successfully pulled image \"{text}\" in {took} ({in_all} including waiting). Image size: {size} bytes."
                        );
                        events.normal(self.pod, name, "Pulled", message);
                        return Ok(*image);
                    }
                    Ok(_) => complaints.push(format!("{}: said it delivered the image and did not", source.name())),
                    Err(e) => complaints.push(format!("{}: {}", source.name(), chain(&e))),
                },
            }
        }
        drop(slot);
        if let Some(image) = here.filter(|_| caller.credentials.is_empty()) {
            // Always means: as new as can be had. Nobody else has it, so the one that was loaded by hand is. A credential is to be
            // admitted anew each time.
            let note = if complaints.is_empty() { String::new() } else { format!("; {}", complaints.join("; ")) };
            events.normal(
                self.pod,
                name,
                "Pulled",
                format!("Container image \"{text}\" already present on machine{note}"),
            );
            return Ok(image);
        }
        let why = if complaints.is_empty() { "no image source has it".to_owned() } else { complaints.join("; ") };
        let message = format!("failed to pull image \"{text}\": {why}");
        events.warning(self.pod, name, "Failed", format!("Failed to pull image \"{text}\": {why}"));
        let again = held.is_some_and(|h| matches!(h.reason.as_str(), "ErrImagePull" | "ImagePullBackOff"));
        if again {
            events.normal(self.pod, name, "BackOff", format!("Back-off pulling image \"{text}\""));
            let message = format!("Back-off pulling image \"{text}\": ErrImagePull: {message}");
            return Err(Failure { reason: "ImagePullBackOff", message, retry: Retry::BackOff });
        }
        events.warning(self.pod, name, "Failed", "Error: ErrImagePull".to_owned());
        Err(Failure { reason: "ErrImagePull", message, retry: Retry::BackOff })
    }
}

/// A time as Go writes it, to the millisecond: `350ms`, `2.5s`, `1m3.25s`.
fn told(time: Duration) -> String {
    let millis = time.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn times_are_told_as_go_does() {
        for (millis, expected) in [(0, "0ms"), (350, "350ms"), (2000, "2s"), (2500, "2.5s"), (63_250, "1m3.25s")] {
            assert_eq!(told(Duration::from_millis(millis)), expected);
        }
    }
}

//! Which volume is for which claim. Asked by the controller that binds them and by the scheduler, which chooses one with the node. Pure.
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::lookup::label_selector_matches;
use crate::quantity::Quantity;

/// The claims that a pod uses, by name; those of its ephemeral volumes are named after the pod.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes.filter_map(move |volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
        (None, None) => None,
    })
}

/// Whether a volume is this claim's: `Some(false)` if it is another's, nothing if it is nobody's.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<bool> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let same = reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace;
    Some(same && (reference.uid.is_none() || reference.uid == claim.metadata.uid))
}

fn amount(list: Option<&std::collections::BTreeMap<String, Text>>) -> Quantity {
    list.and_then(|list| list.get("storage")).and_then(|text| Quantity::try_from(text).ok()).unwrap_or_default()
}

/// How large a volume is.
pub fn size(volume: &PersistentVolume) -> Quantity {
    amount(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// Whether a volume has what a claim asks for: class, size, modes, labels.
pub fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let asked = amount(wants.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let modes = has.access_modes.clone().unwrap_or_default();
    let block = |mode: &Option<String>| mode.as_deref() == Some("Block");
    let selected = |selector| label_selector_matches(Some(selector), volume.metadata.labels.as_ref());
    has.storage_class_name.clone().unwrap_or_default() == wants.storage_class_name.clone().unwrap_or_default()
        && size(volume) >= asked
        && wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && block(&has.volume_mode) == block(&wants.volume_mode)
        && wants.selector.as_ref().is_none_or(selected)
}

/// The smallest of these volumes that is free and fits.
pub fn smallest<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a std::sync::Arc<PersistentVolume>>,
) -> Option<&'a std::sync::Arc<PersistentVolume>> {
    let free =
        |volume: &PersistentVolume| is_for(volume, claim).is_none() && volume.metadata.deletion_timestamp.is_none();
    let fitting = volumes.filter(|volume| free(volume) && fits(volume, claim));
    fitting.min_by_key(|volume| (size(volume), volume.metadata.name.clone()))
}

//! Which pods of others may run here: the PodSecurity standard `baseline`, and what twins cannot have. Pure.

use k8s_openapi::api::core::v1::{PodSpec, Volume};
use substrate_pod_security::{Level, check, containers};

/// What one pod may consist of: more than real ones do, and little enough to look at at once.
const CONTAINERS_MAX: usize = 32;
const VOLUMES_MAX: usize = 64;

/// Says why a pod may not run here, in one sentence.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn admit(spec: &PodSpec) -> Result<(), String> {
    check(Level::Baseline, "latest", spec)?;
    let mut unavailable: Vec<String> = spec.volumes.iter().flatten().filter_map(volume).collect();
    let counts = [
        ("containers", containers(spec).count(), CONTAINERS_MAX),
        ("volumes", spec.volumes.iter().flatten().count(), VOLUMES_MAX),
    ];
    unavailable
        .extend(counts.iter().filter(|(_, n, max)| n > max).map(|(what, n, max)| format!("{n} {what}, at most {max}")));
    let others = [
        (spec.ephemeral_containers.iter().flatten().next().is_some(), "ephemeral containers"),
        (spec.resource_claims.iter().flatten().next().is_some(), "resource claims"),
        (spec.runtime_class_name.is_some(), "a runtime class"),
        (spec.resources.is_some(), "resources of a whole pod"),
    ];
    unavailable.extend(others.into_iter().filter(|(has, _)| *has).map(|(_, what)| what.to_owned()));
    if unavailable.is_empty() {
        Ok(())
    } else {
        Err(format!("not available to pods of another owner: {}", unavailable.join(", ")))
    }
}

/// Volumes that need something of the provider's own, in words.
fn volume(volume: &Volume) -> Option<String> {
    let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    let is_odd = |source: &k8s_openapi::api::core::v1::VolumeProjection| {
        source.service_account_token.is_some()
            || source.cluster_trust_bundle.is_some()
            || source.pod_certificate.is_some()
    };
    let known = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.empty_dir.is_some()
        || volume.downward_api.is_some()
        || (volume.projected.is_some() && !projected.clone().any(is_odd));
    // A volume has one source; one that has two is refused by the API.
    (!known).then(|| format!("the kind of volume {:?}", volume.name))
}

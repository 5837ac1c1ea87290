//! Level `restricted`: what a hardened pod has, and what it says so.

use k8s_openapi::api::core::v1::{SeccompProfile, Volume};

use crate::{Look, baseline};

/// What a container may get back after it has dropped everything.
const CAPABILITIES: [&str; 1] = ["NET_BIND_SERVICE"];

pub(crate) fn check(look: &mut Look<'_>) {
    // What only Linux has is not asked of pods that say that they are for Windows.
    let linux = look.spec.os.as_ref().is_none_or(|os| os.name != "windows");
    volumes(look);
    if linux {
        let who = look.who(|each| each.context.allow_privilege_escalation != Some(false));
        let what = "must set securityContext.allowPrivilegeEscalation=false";
        look.report("allowPrivilegeEscalation != false", [who.map(|who| who.must(what))]);
        capabilities(look);
    }
    users(look);
    if linux {
        seccomp(look);
    }
}

fn capabilities(look: &mut Look<'_>) {
    let keeps = look.who(|each| {
        let mut dropped = each.context.capabilities.iter().flat_map(|capabilities| capabilities.drop.iter().flatten());
        !dropped.any(|name| name == "ALL")
    });
    let (adds, added) = baseline::adds(look, &CAPABILITIES);
    let keeps = keeps.map(|who| who.must("must set securityContext.capabilities.drop=[\"ALL\"]"));
    let adds = adds.map(|who| who.must(&format!("must not include {added} in securityContext.capabilities.add")));
    look.report("unrestricted capabilities", [keeps, adds]);
}

/// Only what is made for the pod, or claimed.
fn volumes(look: &mut Look<'_>) {
    let other: Vec<(String, &str)> = look
        .spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| Some((format!("{:?}", volume.name), restricted_type(volume)?)))
        .collect();
    let names: Vec<&str> = other.iter().map(|(name, _)| name.as_str()).collect();
    let mut types: Vec<String> = other.iter().map(|(_, kind)| format!("{kind:?}")).collect();
    types.sort();
    types.dedup();
    let (volumes, uses) = if names.len() > 1 { ("volumes", "use") } else { ("volume", "uses") };
    let word = if types.len() > 1 { "types" } else { "type" };
    let about = format!("{volumes} {} {uses} restricted volume {word} {}", names.join(", "), types.join(", "));
    look.report("restricted volume types", [(!names.is_empty()).then_some(about)]);
}

fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let is_fine = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if is_fine {
        return None;
    }
    Some(match volume {
        Volume { host_path: Some(_), .. } => "hostPath",
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { iscsi: Some(_), .. } => "iscsi",
        Volume { image: Some(_), .. } => "image",
        Volume { cephfs: Some(_), .. } => "cephfs",
        Volume { rbd: Some(_), .. } => "rbd",
        Volume { fc: Some(_), .. } => "fc",
        Volume { git_repo: Some(_), .. } => "gitRepo",
        Volume { glusterfs: Some(_), .. } => "glusterfs",
        Volume { aws_elastic_block_store: Some(_), .. } => "awsElasticBlockStore",
        Volume { azure_disk: Some(_), .. } => "azureDisk",
        Volume { azure_file: Some(_), .. } => "azureFile",
        Volume { cinder: Some(_), .. } => "cinder",
        Volume { flex_volume: Some(_), .. } => "flexVolume",
        Volume { gce_persistent_disk: Some(_), .. } => "gcePersistentDisk",
        Volume { portworx_volume: Some(_), .. } => "portworxVolume",
        Volume { vsphere_volume: Some(_), .. } => "vsphereVolume",
        _ => "unknown",
    })
}

fn users(look: &mut Look<'_>) {
    let pod = look.pod.run_as_non_root;
    let refused = (pod == Some(false)).then(|| "pod must not set securityContext.runAsNonRoot=false".to_owned());
    let root = look.who(|each| each.context.run_as_non_root == Some(false));
    let unsaid = look.who(|each| each.context.run_as_non_root.is_none() && pod.is_none());
    look.report(
        "runAsNonRoot != true",
        [
            refused,
            root.map(|who| who.must("must not set securityContext.runAsNonRoot=false")),
            unsaid.map(|who| format!("pod or {} must set securityContext.runAsNonRoot=true", who.subject())),
        ],
    );
    let refused = (look.pod.run_as_user == Some(0)).then(|| "pod must not set runAsUser=0".to_owned());
    let root = look.who(|each| each.context.run_as_user == Some(0));
    look.report("runAsUser=0", [refused, root.map(|who| who.must("must not set runAsUser=0"))]);
}

fn seccomp(look: &mut Look<'_>) {
    let fine = |profile: &SeccompProfile| matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost");
    let pod = look.pod.seccomp_profile.clone();
    let open = pod
        .as_ref()
        .filter(|profile| !fine(profile))
        .map(|profile| format!("pod must not set securityContext.seccompProfile.type to {:?}", profile.type_));
    let refused = look.who(|each| each.context.seccomp_profile.as_ref().is_some_and(|profile| !fine(profile)));
    let kinds: Vec<String> = look
        .each
        .iter()
        .filter_map(|each| each.context.seccomp_profile.as_ref())
        .filter(|profile| !fine(profile))
        .map(|profile| format!("{:?}", profile.type_))
        .collect();
    let refused = refused
        .map(|who| who.must(&format!("must not set securityContext.seccompProfile.type to {}", kinds.join(", "))));
    let unsaid = look.who(|each| each.context.seccomp_profile.is_none() && pod.is_none());
    let unsaid = unsaid.map(|who| {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            who.subject()
        )
    });
    look.report("seccompProfile", [open, refused, unsaid]);
}

//! What follows from what runs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use engine_images::Image;
use fluidos_identity::NodeId;
use fluidos_model::kinds::KnownClusterMeasurement;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

/// The attribute, as nodes claim it.
pub(super) const ARCHITECTURE: &str = "arch";
/// So long it says something after it was seen last.
const SEEN_FOR: SignedDuration = SignedDuration::from_mins(10);
/// It is written again when so much of that is left.
const RENEW_LEFT: SignedDuration = SignedDuration::from_mins(5);
/// There are some six architectures.
const KEPT_MAX: usize = 8;

/// One that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub provider: NodeId,
    /// As its pod names it.
    pub image: String,
    /// What its provider says has run, `repository@digest`.
    pub image_id: String,
}

/// The containers of a pod that are ready, if it is on a node of a provider and ready itself.
pub(super) fn ready(pod: &Pod, provider: impl Fn(&str) -> Option<NodeId>) -> Vec<Container> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let is_ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    let Some(provider) = spec.node_name.as_deref().filter(|_| is_ready).and_then(provider) else { return Vec::new() };
    let statuses = status.container_statuses.iter().flatten().filter(|status| status.ready);
    let of_spec = statuses.filter_map(|status| {
        let container = spec.containers.iter().find(|container| container.name == status.name)?;
        Some(Container { provider, image: container.image.clone()?, image_id: status.image_id.clone() })
    });
    of_spec.collect()
}

/// The architectures that were seen of each provider.
pub(super) fn seen(containers: &[Container], images: &BTreeMap<String, Image>) -> BTreeMap<NodeId, BTreeSet<String>> {
    let mut seen: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
    for container in containers {
        let image = images.get(&container.image).filter(|image| !image.architecture.is_empty());
        let same =
            |image: &&Image| container.image_id.rsplit_once('@').is_some_and(|(_, id)| id == image.digest.to_string());
        if let Some(image) = image.filter(same) {
            seen.entry(container.provider).or_default().insert(image.architecture.clone());
        }
    }
    seen
}

/// What stands in the entry of a provider from now on; `None` if nothing is to be written.
pub(super) fn due(
    before: &[KnownClusterMeasurement],
    seen: &BTreeSet<String>,
    now: Timestamp,
) -> Option<Vec<KnownClusterMeasurement>> {
    let left = |one: &KnownClusterMeasurement| one.until.parse::<Timestamp>().map(|until| until.duration_since(now));
    let lasts = |one: &&KnownClusterMeasurement| left(one).is_ok_and(|left| left > SignedDuration::ZERO);
    let fresh = |value: &String| {
        let known = |one: &&KnownClusterMeasurement| one.name == ARCHITECTURE && one.value == *value;
        before.iter().find(known).is_some_and(|one| left(one).is_ok_and(|left| left > RENEW_LEFT))
    };
    let mut next: Vec<KnownClusterMeasurement> = before.iter().filter(lasts).cloned().collect();
    for value in seen.iter().filter(|value| !fresh(value)) {
        next.retain(|one| one.name != ARCHITECTURE || one.value != *value);
        let until = now.checked_add(SEEN_FOR).unwrap_or(Timestamp::MAX).to_string();
        next.push(KnownClusterMeasurement {
            name: ARCHITECTURE.into(),
            value: value.clone(),
            at: now.to_string(),
            until,
        });
    }
    next.drain(..next.len().saturating_sub(KEPT_MAX));
    (next != before).then_some(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use fluidos_identity::NodeKey;
    use serde_json::json;

    use super::*;

    fn provider() -> NodeId {
        NodeKey::from_seed([2; 32]).unwrap().id()
    }

    fn digest(of: &str) -> engine_images::Digest {
        engine_images::Digest::of(of.as_bytes())
    }

    fn image(architecture: &str) -> BTreeMap<String, Image> {
        let image = Image {
            reference: "flt/app:1".parse().unwrap(),
            digest: digest("manifest"),
            architecture: architecture.into(),
            config: Default::default(),
            layers: Vec::new(),
            size_bytes: 1,
        };
        BTreeMap::from([("flt/app:1".to_owned(), image)])
    }

    fn told(ready: &str, id: &str, node: &str, architecture: &str) -> Vec<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "flt/app:1"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [
                    {"name": "c", "image": "flt/app:1", "imageID": id, "ready": ready == "True", "restartCount": 0},
                    {"name": "not-ours", "image": "x", "imageID": "x", "ready": true, "restartCount": 0},
                ],
            },
        }))
        .unwrap();
        let containers = super::ready(&pod, |node| (node == "grid").then(provider));
        seen(&containers, &image(architecture)).into_values().flatten().collect()
    }

    #[test]
    fn only_an_image_of_ours_that_is_ready_there_shows_an_architecture() {
        let id = format!("docker.io/flt/app@{}", digest("manifest"));
        assert_eq!(told("True", &id, "grid", "arm64"), ["arm64"]);
        assert!(told("False", &id, "grid", "arm64").is_empty(), "it may never have run");
        assert!(told("True", &id, "home", "arm64").is_empty(), "a machine of this owner");
        assert!(told("True", "docker.io/flt/app@sha256:00", "grid", "arm64").is_empty(), "another image of that name");
        assert!(told("True", &id, "grid", "").is_empty(), "an image that does not say for what it is");
    }

    #[test]
    fn what_was_seen_is_renewed_in_time_and_goes_when_its_time_is_over() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let (arm, none) = (BTreeSet::from(["arm64".to_owned()]), BTreeSet::new());
        let first = due(&[], &arm, at(0)).unwrap();
        assert_eq!((first[0].value.as_str(), first[0].until.as_str()), ("arm64", "1970-01-01T00:10:00Z"));
        assert_eq!(due(&first, &arm, at(4)), None, "no write for each look");
        assert_eq!(due(&first, &arm, at(5)).unwrap()[0].until, "1970-01-01T00:15:00Z");
        assert_eq!(due(&first, &none, at(9)), None);
        assert_eq!(due(&first, &none, at(10)), Some(Vec::new()), "it is over");
        let both = due(&first, &BTreeSet::from(["amd64".to_owned()]), at(1)).unwrap();
        assert_eq!(both.iter().map(|one| one.value.as_str()).collect::<Vec<_>>(), ["arm64", "amd64"], "it has both");
    }
}

//! Images that nobody uses go when the disk that they are on is nearly full.
//!
//! ```text
//!  ───────────────────────┬──────────┬──────
//!                 down to ┘80 %  from┘85 %  used of the disk; longest unused first, never what a pod stands on
//! ```
//!
//! Looked at every five minutes (`imageGCHighThresholdPercent`, `imageGCLowThresholdPercent` of upstream's kubelet and their defaults), and when a
//! pull had no room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine_images::{Disk, Listed, Reference};
use k8s_openapi::api::core::v1::ContainerImage;

use crate::Shared;

const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
const PERIOD: Duration = Duration::from_secs(300);
/// As many images a Node tells of at most (`nodeStatusMaxImages`).
const TOLD_MAX: usize = 50;

/// Bytes that must come free: `wanted` ones that a pull had no room for, or as many as lead from above the one threshold to the other.
fn too_few(disk: Disk, wanted: u64) -> u64 {
    let percent = |part: u64| disk.capacity / 100 * part;
    let used = disk.capacity.saturating_sub(disk.available);
    let above = if used > percent(HIGH_PERCENT) { used - percent(LOW_PERCENT) } else { 0 };
    above.max(wanted.saturating_sub(disk.available))
}

/// Looks after the disk, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut full = shared.disk_full.subscribe();
    let mut period = tokio::time::interval(PERIOD);
    loop {
        let wanted = tokio::select! {
            _ = period.tick() => 0,
            // The sender is in what is shared: it is there as long as this is.
            _ = full.changed() => *full.borrow_and_update(),
        };
        if let Err(error) = collect(&shared, wanted).await {
            shared.events.of_node(&shared.node_name, "ImageGCFailed", error.to_string());
        }
    }
}

async fn collect(shared: &Shared, wanted: u64) -> Result<(), engine_images::Error> {
    let needed = too_few(shared.images.disk()?, wanted);
    if needed == 0 {
        return Ok(());
    }
    let freed = shared.images.evict(needed).await?;
    if freed < needed {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {needed} bytes, but only found {freed} bytes eligible to free."
        );
        shared.events.of_node(&shared.node_name, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

/// What the Node says of its images (`status.images`): the largest, each with all its names. `None` if they cannot be read, which is logged.
pub(crate) async fn told(shared: &Shared) -> Option<Vec<ContainerImage>> {
    let here = shared.images.list().await.inspect_err(|e| tracing::warn!("list the images: {e}")).ok()?;
    Some(largest(&here))
}

fn largest(here: &[Listed]) -> Vec<ContainerImage> {
    let mut images: BTreeMap<String, (BTreeSet<String>, u64)> = BTreeMap::new();
    for Listed { reference, digest, size_bytes, .. } in here {
        let (names, size) = images.entry(digest.to_string()).or_default();
        let name = reference.parse::<Reference>().map_or_else(|_| reference.clone(), |parsed| parsed.repository());
        names.extend([format!("{name}@{digest}"), reference.clone()]);
        *size = *size_bytes;
    }
    let mut images: Vec<_> = images.into_values().collect();
    images.sort_by_key(|(names, size)| (std::cmp::Reverse(*size), names.clone()));
    images.truncate(TOLD_MAX);
    let image = |(names, size): (BTreeSet<String>, u64)| ContainerImage {
        names: Some(names.into_iter().collect()),
        size_bytes: i64::try_from(size).ok(),
    };
    images.into_iter().map(image).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn from_the_high_threshold_down_to_the_low_one() {
        for (available, wanted, expected) in [
            (1000, 0, 0),
            (151, 0, 0),
            (150, 0, 0),
            (149, 0, 51),
            (10, 0, 190),
            (400, 300, 0),
            (200, 300, 100),
            (100, 900, 800),
        ] {
            assert_eq!(too_few(Disk { capacity: 1000, available }, wanted), expected, "{available} {wanted}");
        }
    }

    #[test]
    fn a_node_tells_of_its_largest_images_with_all_their_names() {
        let digest = |n: usize| format!("sha256:{n:064x}");
        let listed = |reference: &str, n: usize, size_bytes: u64| Listed {
            reference: reference.to_owned(),
            digest: digest(n).parse().unwrap(),
            size_bytes,
            realm: String::new(),
        };
        let told = largest(&[
            listed("docker.io/library/small:1", 1, 10),
            listed("host:5000/team/app:1", 2, 30),
            listed("docker.io/library/other:2", 2, 30),
        ]);
        let shown: Vec<_> =
            told.iter().map(|image| (image.names.clone().unwrap().join(" "), image.size_bytes)).collect();
        let two = digest(2);
        let both = format!(
            "docker.io/library/other:2 docker.io/library/other@{two} host:5000/team/app:1 host:5000/team/app@{two}"
        );
        let small = format!("docker.io/library/small:1 docker.io/library/small@{}", digest(1));
        assert_eq!(shown, [(both, Some(30)), (small, Some(10))]);
        let many: Vec<Listed> = (0..60).map(|n| listed(&format!("docker.io/library/a:{n}"), n, n as u64)).collect();
        let told = largest(&many);
        assert_eq!((told.len(), told[0].size_bytes, told[49].size_bytes), (50, Some(59), Some(10)));
    }
}

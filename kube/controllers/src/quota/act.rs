//! Counts and writes what is used.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use substrate_client::{Cache, Caches};

use super::usage::used;
use crate::kinds::{Kind, discover};
use crate::objects::{name, namespace};
use crate::work::{Next, Rounds};

/// Kinds that are not watched here are counted so often.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Names of kinds that quotas had before `count/`.
const OLD_NAMES: [&str; 4] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas"];

/// Counts until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let quotas = caches.all::<ResourceQuota>();
    let counter = Counter { client, pods: caches.all(), services: caches.all() };
    let changes = vec![quotas.changes(), counter.pods.changes(), counter.services.changes()];
    let mut rounds = Rounds::begin(changes).await;
    loop {
        let mut next = Next::default();
        for quota in quotas.list() {
            let result = counter.round(&quota, &mut next).await;
            next.judge("ResourceQuota", &quota.metadata, result);
        }
        rounds.wait(next).await;
    }
}

struct Counter {
    client: Client,
    pods: Cache<Pod>,
    services: Cache<Service>,
}

impl Counter {
    async fn round(&self, quota: &ResourceQuota, next: &mut Next) -> Result<(), kube::Error> {
        let Some(spec) = &quota.spec else { return Ok(()) };
        let home = namespace(&quota.metadata);
        let names: BTreeSet<&String> = spec.hard.iter().flatten().map(|(name, _)| name).collect();
        let claims = if names.iter().any(|name| name.contains("storage") || name.ends_with("persistentvolumeclaims")) {
            next.wake_in(Some(COUNT_EVERY));
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), home);
            api.list(&ListParams::default()).await?.items
        } else {
            Vec::new()
        };
        let counts = self.counts(home, &names, next).await?;
        let (pods, services) = (self.pods.list_in(home), self.services.list_in(home));
        let used = used(spec, &pods, &services, &claims, &counts);
        let text = |(name, amount): (String, substrate_client::quantity::Quantity)| (name, Text(amount.to_string()));
        let used: BTreeMap<String, Text> = used.into_iter().map(text).collect();
        let status = ResourceQuotaStatus { hard: spec.hard.clone(), used: Some(used) };
        if quota.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), home);
        // Of exactly the quota that was read: what was admitted meanwhile is counted the next time.
        let wanted = ResourceQuota { metadata: quota.metadata.clone(), spec: quota.spec.clone(), status: Some(status) };
        api.replace_status(name(&quota.metadata), &PostParams::default(), &wanted).await.map(|_| ())
    }

    /// How many objects there are of kinds that are counted only.
    async fn counts(
        &self,
        home: &str,
        names: &BTreeSet<&String>,
        next: &mut Next,
    ) -> Result<BTreeMap<String, i64>, kube::Error> {
        let known = ["count/pods", "count/services", "count/persistentvolumeclaims"];
        let plain = |name: &&&String| {
            OLD_NAMES.contains(&name.as_str()) || (name.starts_with("count/") && !known.contains(&name.as_str()))
        };
        let wanted: Vec<&String> = names.iter().filter(plain).copied().collect();
        let mut counts = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(counts);
        }
        next.wake_in(Some(COUNT_EVERY));
        let kinds = discover(&self.client).await?;
        for name in wanted {
            // As `jobs.batch`, or `configmaps` of the core.
            let resource = name.strip_prefix("count/").unwrap_or(name);
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            let is_meant =
                |kind: &&Kind| kind.namespaced && kind.resource.plural == plural && kind.resource.group == group;
            let Some(kind) = kinds.iter().find(is_meant) else { continue };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), home, &kind.resource);
            let list = api.list_metadata(&ListParams::default()).await?;
            counts.insert(name.clone(), i64::try_from(list.items.len()).unwrap_or(i64::MAX));
        }
        Ok(counts)
    }
}

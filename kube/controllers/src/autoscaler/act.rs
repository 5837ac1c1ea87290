//! Asks, scales and says so.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::pinned_kind;
use kube::{Api, Client};
use substrate_client::Caches;
use substrate_client::quantity::Quantity;
use tracing::warn;

use super::behavior::Past;
use super::metrics::{Samples, verdict};
use super::plan::{plan, say};
use crate::objects::{name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Next, Rounds};

/// As often as kube-controller-manager looks.
const EVERY: Duration = Duration::from_secs(15);
/// A difference of a tenth is none.
const TOLERANCE: f64 = 0.1;

/// Scales until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let autoscalers = caches.all::<HorizontalPodAutoscaler>();
    let recorder = Recorder { client: client.clone(), component: "horizontal-pod-autoscaler" };
    let mut actor = Actor { client, recorder, remembered: BTreeMap::new() };
    let mut rounds = Rounds::begin(vec![autoscalers.changes()]).await;
    loop {
        let autoscalers = autoscalers.list();
        let there: BTreeSet<&str> = autoscalers.iter().map(|hpa| uid(&hpa.metadata)).collect();
        actor.remembered.retain(|uid, _| there.contains(uid.as_str()));
        let mut next = Next::default();
        for hpa in autoscalers.iter().filter(|hpa| hpa.metadata.deletion_timestamp.is_none()) {
            let due = actor.due(hpa);
            if due.is_zero() {
                let result = actor.round(hpa).await;
                next.judge("HorizontalPodAutoscaler", &hpa.metadata, result);
            }
            next.wake_in(Some(if due.is_zero() { EVERY } else { due }));
        }
        rounds.wait(next).await;
    }
}

/// What is known of one autoscaler between its rounds.
#[derive(Default)]
struct Memory {
    past: Past,
    /// When it was looked at, and what it wanted.
    looked: Option<(Instant, Option<HorizontalPodAutoscalerSpec>)>,
    said: BTreeSet<String>,
}

struct Actor {
    client: Client,
    recorder: Recorder,
    remembered: BTreeMap<String, Memory>,
}

impl Actor {
    /// How long until it is looked at; nothing if that is now. Its own status is no reason to look again.
    fn due(&mut self, hpa: &HorizontalPodAutoscaler) -> Duration {
        let memory = self.remembered.entry(uid(&hpa.metadata).to_owned()).or_default();
        match &memory.looked {
            Some((at, wanted)) if *wanted == hpa.spec => EVERY.saturating_sub(at.elapsed()),
            _ => Duration::ZERO,
        }
    }

    async fn round(&mut self, hpa: &Arc<HorizontalPodAutoscaler>) -> Result<(), kube::Error> {
        let key = uid(&hpa.metadata).to_owned();
        let memory = self.remembered.entry(key.clone()).or_default();
        memory.looked = Some((Instant::now(), hpa.spec.clone()));
        let Some(spec) = &hpa.spec else { return Ok(()) };
        let now = Timestamp::now();
        let target = match self.target(hpa, spec).await {
            Ok(target) => target,
            Err(error) => {
                let mut status = hpa.status.clone().unwrap_or_default();
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                say(&mut status, now, "AbleToScale", false, "FailedGetScale", &message);
                self.tell(hpa, vec![(Kind::Warning, "FailedGetScale".to_owned(), error)]).await;
                return self.write_status(hpa, status).await;
            }
        };
        let scale = &target.1;
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let running = scale.status.as_ref().map_or(0, |status| status.replicas);
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let verdicts = self.verdicts(hpa, spec, &selector, replicas, now).await;
        let memory = self.remembered.entry(key.clone()).or_default();
        let mut plan = plan(hpa, spec, replicas, running, &verdicts, &mut memory.past, now);
        if let Some(wanted) = plan.scale {
            let result = self.scale(hpa, target, wanted).await;
            let memory = self.remembered.entry(key).or_default();
            match result {
                Ok(()) => {
                    memory.past.changed.push((now, wanted - replicas));
                    let message = format!("the HPA controller was able to update the target scale to {wanted}");
                    say(&mut plan.status, now, "AbleToScale", true, "SucceededRescale", &message);
                    plan.status.last_scale_time = Some(Time(now));
                    let message = format!("New size: {wanted}; reason: {}", plan.reason);
                    plan.events.push((Kind::Normal, "SuccessfulRescale".to_owned(), message));
                }
                Err(error) => {
                    let message = format!("the HPA controller was unable to update the target scale: {error}");
                    say(&mut plan.status, now, "AbleToScale", false, "FailedUpdateScale", &message);
                    plan.status.desired_replicas = replicas;
                    let message = format!("New size: {wanted}; reason: {}; error: {error}", plan.reason);
                    plan.events.push((Kind::Warning, "FailedRescale".to_owned(), message));
                }
            }
        }
        self.tell(hpa, plan.events).await;
        self.write_status(hpa, plan.status).await
    }

    /// What is scaled, and its size; why it is not known.
    async fn target(
        &self,
        hpa: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Result<(Api<DynamicObject>, Scale), String> {
        let wanted = &spec.scale_target_ref;
        let version = wanted.api_version.clone().unwrap_or_else(|| "v1".to_owned());
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = GroupVersionKind::gvk(group, version, &wanted.kind);
        let title = format!("{}/{}/{}", wanted.kind, namespace(&hpa.metadata), wanted.name);
        let (resource, _) = pinned_kind(&self.client, &kind).await.map_err(|error| format!("{title}: {error}"))?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace(&hpa.metadata), &resource);
        let scale = api.get_scale(&wanted.name).await.map_err(|error| error.to_string())?;
        Ok((api, scale))
    }

    async fn verdicts(
        &self,
        hpa: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        selector: &str,
        replicas: i32,
        now: Timestamp,
    ) -> Vec<super::plan::Verdict> {
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let home = namespace(&hpa.metadata);
        let samples = Samples::ask(&self.client, home, selector).await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), home);
        // A scale without a selector has no pods that could be known. Asked, not kept: a selector in words is the server's to read.
        let listed = match selector {
            "" => Ok(Vec::new()),
            selector => pods.list(&ListParams::default().labels(selector)).await.map(|list| list.items),
        };
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                warn!(autoscaler = name(&hpa.metadata), %error, "its pods are not known");
                Vec::new()
            }
        };
        let own: Vec<&Pod> = listed.iter().collect();
        let tolerance = tolerance(spec);
        metrics.iter().map(|metric| verdict(metric, &samples, &own, replicas, tolerance, now)).collect()
    }

    async fn scale(
        &self,
        hpa: &HorizontalPodAutoscaler,
        (api, mut scale): (Api<DynamicObject>, Scale),
        wanted: i32,
    ) -> Result<(), kube::Error> {
        // With the version that was read: who has scaled meanwhile is not overruled.
        scale.spec.get_or_insert_default().replicas = Some(wanted);
        let title = hpa.spec.as_ref().map(|spec| spec.scale_target_ref.name.clone()).unwrap_or_default();
        let scale = serde_json::from_value(serde_json::to_value(&scale).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::SerdeError)?;
        api.replace_scale(&title, &PostParams::default(), &scale).await.map(|_| ())
    }

    /// Says what was not said the last time.
    async fn tell(&mut self, hpa: &HorizontalPodAutoscaler, events: Vec<(Kind, String, String)>) {
        let said: BTreeSet<String> = events.iter().map(|(_, _, message)| message.clone()).collect();
        let memory = self.remembered.entry(uid(&hpa.metadata).to_owned()).or_default();
        let before = std::mem::replace(&mut memory.said, said);
        for (kind, reason, message) in events.iter().filter(|(_, _, message)| !before.contains(message)) {
            let of = ("autoscaling/v2", "HorizontalPodAutoscaler", &hpa.metadata);
            self.recorder.event(of, *kind, reason, message).await;
        }
    }

    async fn write_status(
        &self,
        hpa: &HorizontalPodAutoscaler,
        status: HorizontalPodAutoscalerStatus,
    ) -> Result<(), kube::Error> {
        if hpa.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), namespace(&hpa.metadata));
        let wanted =
            HorizontalPodAutoscaler { metadata: hpa.metadata.clone(), spec: hpa.spec.clone(), status: Some(status) };
        api.replace_status(name(&hpa.metadata), &PostParams::default(), &wanted).await.map(|_| ())
    }
}

/// What is tolerated: the stricter of both directions if they are said.
fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> f64 {
    let behavior = spec.behavior.as_ref();
    let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let text = rules?.tolerance.as_ref()?;
        Quantity::try_from(text).ok().map(Quantity::as_f64)
    };
    let up = of(behavior.and_then(|behavior| behavior.scale_up.as_ref()));
    let down = of(behavior.and_then(|behavior| behavior.scale_down.as_ref()));
    [up, down].into_iter().flatten().reduce(f64::min).unwrap_or(TOLERANCE)
}

//! What pods use, asked of the metrics API.
use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use substrate_client::quantity::Quantity;

use super::calculate::{Answer, Question, Sample, Target, calculate};
use super::plan::Verdict;
use crate::objects::name;

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    /// As Go writes it: `30s`, `1m0s`.
    window: String,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, Text>,
}

/// The samples of one namespace, or why there are none. Asked once for all metrics of an autoscaler.
pub(crate) struct Samples(Result<Vec<PodMetrics>, String>);

/// So many bytes of an answer are read: 5,000 pods of 1 KiB.
const ANSWER_MAX: usize = 5 << 20;

impl Samples {
    /// Asks for the pods of a selector.
    pub async fn ask(client: &Client, home: &str, selector: &str) -> Samples {
        let query: String = form(selector);
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{home}/pods?labelSelector={query}");
        let request = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Samples(Err(error.to_string())),
        };
        let answer = client.request_text(request).await;
        let absent = "the server could not find the requested resource (get pods.metrics.k8s.io)";
        Samples(match answer {
            Ok(text) if text.len() > ANSWER_MAX => Err(format!("the answer is longer than {ANSWER_MAX} bytes")),
            Ok(text) => serde_json::from_str::<PodMetricsList>(&text).map(|list| list.items).map_err(|e| e.to_string()),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(absent.to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    fn of(&self, resource: &str, container: Option<&str>) -> Result<BTreeMap<String, Sample>, String> {
        let list =
            self.0.as_ref().map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
        if list.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut samples = BTreeMap::new();
        for pod in list {
            let wanted = |found: &&ContainerMetrics| container.is_none_or(|name| name == found.name);
            let used: Option<Vec<i64>> = pod
                .containers
                .iter()
                .filter(wanted)
                .map(|found| Some(Quantity::try_from(found.usage.get(resource)?).ok()?.milli_value()))
                .collect();
            // A pod of which a container says nothing is not heard.
            if let Some(used) = used.filter(|used| !used.is_empty()) {
                let window: k8s_openapi::jiff::SignedDuration = pod.window.parse().unwrap_or_default();
                let sample = Sample { millis: used.iter().sum(), at: pod.timestamp, window_s: window.as_secs() };
                samples.insert(pod.metadata.name.clone(), sample);
            }
        }
        Ok(samples)
    }
}

/// A selector as part of a query.
fn form(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What one metric says.
pub(crate) fn verdict(
    metric: &MetricSpec,
    samples: &Samples,
    pods: &[&Pod],
    replicas: i32,
    tolerance: f64,
    now: Timestamp,
) -> Verdict {
    let (resource, container, target) = match (&metric.resource, &metric.container_resource) {
        (Some(resource), _) => (&resource.name, None, &resource.target),
        (None, Some(found)) => (&found.name, Some(found.container.as_str()), &found.target),
        (None, None) => {
            let kind = &metric.type_;
            let message =
                format!("metrics of type {kind} are not read by this controller; use Resource or ContainerResource");
            return Verdict { title: kind.clone(), outcome: Err((format!("FailedGet{kind}Metric"), message)) };
        }
    };
    let (goal, kind) = match goal(target) {
        Some(Target::Average(millis)) => (Some(Target::Average(millis)), "value"),
        other => (other, "utilization"),
    };
    let title = match (goal, container) {
        (Some(Target::Average(_)), None) => format!("{resource} resource"),
        (_, None) => format!("{resource} resource utilization (percentage of request)"),
        (_, Some(_)) => format!("{resource} container resource utilization (percentage of request)"),
    };
    let answer =
        goal.ok_or_else(|| "neither an utilization nor an average value target is set".to_owned()).and_then(|target| {
            let found = samples
                .of(resource, container)
                .map_err(|error| format!("unable to get metrics for resource {resource}: {error}"))?;
            let requests = requests(pods, resource, container);
            let is_cpu = resource == "cpu";
            calculate(&Question {
                replicas,
                pods: pods.to_vec(),
                samples: &found,
                requests,
                target,
                is_cpu,
                tolerance,
                now,
            })
        });
    let outcome = match answer {
        Ok(answer) => Ok((answer.replicas, status(metric, resource, container, answer))),
        Err(error) => {
            let reason =
                if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
            Err((reason.to_owned(), format!("failed to get {resource} {kind}: {error}")))
        }
    };
    Verdict { title, outcome }
}

fn goal(target: &MetricTarget) -> Option<Target> {
    let average = target.average_value.as_ref().and_then(|value| Quantity::try_from(value).ok());
    average
        .map(|value| Target::Average(value.milli_value()))
        .or_else(|| target.average_utilization.map(Target::Utilization))
}

/// What each pod requests, in thousandths.
fn requests(pods: &[&Pod], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut sum = 0;
        for found in containers.filter(|found| container.is_none_or(|name| name == found.name)) {
            let requests = found.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request =
                requests.and_then(|requests| requests.get(resource)).and_then(|text| Quantity::try_from(text).ok());
            let Some(request) = request else {
                let title = name(&pod.metadata);
                return Err(format!("missing request for {resource} in container {} of Pod {title}", found.name));
            };
            sum += request.milli_value();
        }
        all.insert(name(&pod.metadata).to_owned(), sum);
    }
    Ok(all)
}

fn status(metric: &MetricSpec, resource: &str, container: Option<&str>, answer: Answer) -> MetricStatus {
    let current = MetricValueStatus {
        average_utilization: answer.utilization,
        average_value: Some(Text(Quantity::millis(answer.average_millis).to_string())),
        value: None,
    };
    let mut status = MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() };
    match container {
        None => status.resource = Some(ResourceMetricStatus { current, name: resource.to_owned() }),
        Some(container) => {
            status.container_resource = Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                current,
                name: resource.to_owned(),
            });
        }
    }
    status
}

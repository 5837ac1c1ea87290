//! What the server has done and is doing, for Prometheus (`/metrics`), under the names that kube-apiserver gives it.
//!
//! Values of labels are bounded: verbs are those of the table here, resources and subresources those that are served when the request
//! ends, codes those of HTTP. What the store is has names of its own: it is no etcd.

mod process;

use std::time::Instant;

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::audit::log::Counters;
use crate::registry::Registry as Kinds;
use crate::server::answer::Asked;
use crate::status::Status;

/// Seconds (as upstream).
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// What tells requests apart, in this order.
const LABELS: [&str; 8] = ["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
/// Of a stream, which nobody tries.
const OF_STREAMS: [&str; 7] = ["component", "group", "resource", "scope", "subresource", "verb", "version"];

/// All that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    current: IntGaugeVec,
    streams: IntGaugeVec,
    store_bytes: IntGauge,
    store_revision: IntGauge,
    /// Of the audit log.
    pub audit: Counters,
    process: process::Process,
}

/// Something that is going on, until it is dropped.
pub struct Going(IntGauge);

impl Going {
    fn on(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Something that is counted, of which the registry tells.
fn counted<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> prometheus::Result<C> {
    let made = made?;
    registry.register(Box::new(made.clone())).map(|()| made)
}

/// Those of a request, in the order of [`LABELS`].
fn labels_of(asked: &Asked, kinds: &Kinds) -> [String; 8] {
    let route = asked.route();
    let kind = route.and_then(|route| kinds.get(&route.group, &route.version, &route.plural));
    let (Some(route), Some(kind)) = (route, kind) else {
        // Of what is no resource a path may be anything.
        let verb = if asked.method == Method::GET { "GET" } else { "OTHER" };
        return ["apiserver", "", "", "", "", "", verb, ""].map(str::to_owned);
    };
    let scope = match (route.name.is_empty(), route.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    let known = kind.subresources.iter().any(|(name, ..)| *name == route.subresource);
    let known = known || (kind.has_status && route.subresource == "status");
    let verb = match (asked.verb, route.subresource.as_str()) {
        (_, "exec" | "attach" | "portforward" | "proxy" | "log") => "CONNECT",
        (Some("create"), _) => "POST",
        (Some("update"), _) => "PUT",
        (Some("patch"), _) if asked.applies => "APPLY",
        (Some("get"), _) => "GET",
        (Some("list"), _) => "LIST",
        (Some("watch"), _) => "WATCH",
        (Some("patch"), _) => "PATCH",
        (Some("delete"), _) => "DELETE",
        (Some("deletecollection"), _) => "DELETECOLLECTION",
        _ => "OTHER",
    };
    let dry_run = if asked.query.get("dryRun") == Some("All") { "All" } else { "" };
    let subresource = if known { &route.subresource } else { "" };
    ["apiserver", dry_run, &route.group, &route.plural, scope, subresource, verb, &route.version].map(str::to_owned)
}

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When a name or label is none that Prometheus takes.
    pub fn new() -> Result<Self, Status> {
        let with_code: Vec<&str> = LABELS.iter().copied().chain(["code"]).collect();
        let make = || -> prometheus::Result<Self> {
            let registry = Registry::new();
            let gauge = |name, help| counted(&registry, IntGauge::new(name, help));
            let seconds = HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "Seconds that requests took, by what was asked for.",
            );
            let requests = Opts::new(
                "apiserver_request_total",
                "Requests that were answered, by what was asked for and the code of the answer.",
            );
            let current =
                Opts::new("apiserver_current_inflight_requests", "Requests that are answered now, without streams.");
            let streams = Opts::new("apiserver_longrunning_requests", "Watches and other streams that are open.");
            let failures = Opts::new("apiserver_audit_error_total", "Events that could not be written.");
            Ok(Self {
                requests: counted(&registry, IntCounterVec::new(requests, &with_code))?,
                seconds: counted(&registry, HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &LABELS))?,
                current: counted(&registry, IntGaugeVec::new(current, &["request_kind"]))?,
                streams: counted(&registry, IntGaugeVec::new(streams, &OF_STREAMS))?,
                store_bytes: gauge("substrate_store_bytes", "Bytes of the keys and values that the store holds.")?,
                store_revision: gauge("substrate_store_revision", "The newest revision of the store.")?,
                audit: Counters {
                    events: counted(
                        &registry,
                        IntCounter::new("apiserver_audit_event_total", "Events of the audit log."),
                    )?,
                    failures: counted(&registry, IntCounter::with_opts(failures.const_label("plugin", "log")))?,
                },
                process: process::Process::new(&registry)?,
                registry: registry.clone(),
            })
        };
        make().map_err(Status::internal)
    }

    /// Counts a request that begins, until what is given is dropped.
    pub fn begins(&self, asked: &Asked, kinds: &Kinds) -> Going {
        if asked.is_stream() {
            let [component, _, group, resource, scope, subresource, verb, version] = labels_of(asked, kinds);
            let labels = [component, group, resource, scope, subresource, verb, version];
            return Going::on(self.streams.with_label_values(&labels));
        }
        let reads = matches!(asked.method, Method::GET | Method::HEAD | Method::OPTIONS);
        Going::on(self.current.with_label_values(&[if reads { "readOnly" } else { "mutating" }]))
    }

    /// Counts a request that was answered.
    pub fn ends(&self, asked: &Asked, kinds: &Kinds, begun: Instant, code: StatusCode) {
        let labels = labels_of(asked, kinds);
        let all = labels.each_ref().map(String::as_str);
        let code = code.as_str();
        self.requests.with_label_values(&all.iter().copied().chain([code]).collect::<Vec<_>>()).inc();
        if !asked.is_stream() {
            self.seconds.with_label_values(&all).observe(begun.elapsed().as_secs_f64());
        }
    }

    /// As Prometheus reads it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self, store: &substrate_store::Store) -> Result<Vec<u8>, Status> {
        self.store_bytes.set(store.size_bytes().try_into().unwrap_or(i64::MAX));
        self.store_revision.set(store.revision().try_into().unwrap_or(i64::MAX));
        self.process.look().map_err(Status::internal)?;
        let mut text = Vec::new();
        // And what other parts of this process count.
        for all in [self.registry.gather(), prometheus::gather()] {
            TextEncoder::new().encode(&all, &mut text).map_err(Status::internal)?;
        }
        Ok(text)
    }
}

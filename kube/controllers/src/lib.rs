//! What kube-controller-manager does: makes what is there be what was asked for.
//!
//! | controller | keeps |
//! |---|---|
//! | `deployment` | ReplicaSets of Deployments: roll-outs |
//! | `replica_set` | the number of pods, of ReplicaSets and ReplicationControllers |
//! | `stateful_set` | pods with names and claims, in order |
//! | `daemon_set` | a pod on each node that it suits |
//! | `job` | pods that run until so many have succeeded; each is counted once |
//! | `cron_job` | a Job at each time of a schedule |
//! | `ttl` | deletion of Jobs that are over and have asked for it |
//! | `autoscaler` | sizes, by what pods use |
//! | `disruption` | how many pods of a budget may be taken away |
//! | `volumes` | claims bound to volumes, and what is used from going |
//! | `quota` | how much of its quotas a namespace uses |
//! | `endpoint_slice` | where the pods of a Service are |
//! | `load_balancer` | addresses of the machines for Services that want a balancer |
//! | `namespace` | deletion of namespaces with all that is in them |
//! | `garbage` | deletion of what is owned with its owners |
//! | `node_life` | what is believed of silent nodes, and evictions by taints |
//! | `node_ipam` | a range of addresses of pods for each node |
//! | `pod_gc` | pods that nobody else would clear away |
//! | `cluster_role` | roles that are the sum of others |
//! | `service_account` | the account and the certificate in every namespace |
//! | `token` | tokens of accounts that are kept in Secrets |
//! | `certificates` | requests for certificates: approved, signed, cleared away |
//!
//! Each is *index → plan → act*: a view of the shared caches, a pure function to a plan, and one file with all effects.
//! Each writes with a client of its own, so that rights and audit tell them apart. They never call one another: what one
//! writes another sees. Those of kinds that many never use begin when their kind is in use (`in_use`).
//!
//! Not built yet: clearing away of tokens in Secrets that nobody uses.
mod autoscaler;
mod certificates;
mod cluster_role;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod expectations;
mod garbage;
mod hash;
mod history;
mod in_use;
mod job;
mod kinds;
mod load_balancer;
mod namespace;
mod node_ipam;
mod node_life;
mod objects;
mod pod_gc;
mod pods;
mod quota;
mod rank;
mod recorder;
mod replica_set;
mod revisions;
mod service_account;
mod stateful_set;
mod token;
mod ttl;
mod volumes;
mod work;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use substrate_client::Caches;
use substrate_client::certificates::Signer;
use tokio::task::JoinSet;
use tracing::error;

use crate::in_use::InUse;
pub use crate::node_ipam::{PodRange, Ranges};
pub use crate::token::Minter;

/// How the controllers work.
#[derive(Clone)]
pub struct Options {
    /// A node whose Lease has not changed for so long is silent.
    pub node_grace: Duration,
    /// Pods of a node that has been missing for so long are cleared away.
    pub missing_node_grace: Duration,
    /// So many pods that have ended are kept.
    pub ended_pods_max: usize,
    /// PEM of the certificate by which pods know the API server. Without it no ConfigMap says so.
    pub root_certificate: Option<String>,
    /// Signs certificates that were approved. Without it nobody does.
    pub signer: Option<Signer>,
    /// Makes tokens that are kept in Secrets. Without it such Secrets stay empty.
    pub minter: Option<Minter>,
    /// Ranges of addresses for pods of nodes. Without them nodes have none, or bring their own.
    pub node_ranges: Option<Ranges>,
    /// The copies of the API that all parts of the process share; without them the controllers have their own.
    pub caches: Option<Caches>,
}

impl Default for Options {
    /// The values of kube-controller-manager.
    fn default() -> Options {
        Options {
            node_grace: Duration::from_secs(40),
            missing_node_grace: Duration::from_secs(40),
            ended_pods_max: 12_500,
            root_certificate: None,
            signer: None,
            minter: None,
            node_ranges: None,
            caches: None,
        }
    }
}

/// Runs all controllers until dropped. `client_for` answers the client of a controller, named as its user is in
/// Kubernetes (`system:serviceaccount:kube-system:NAME`); `shared-informers` only reads.
pub async fn run(client_for: impl Fn(&str) -> kube::Client, options: Options) {
    let reader = client_for("shared-informers");
    let shared = options.caches.unwrap_or_else(|| Caches::new(reader.clone()));
    let caches = work::Caches::start(&reader, &shared);
    let in_use = InUse::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(deployment::run(client_for("deployment-controller"), caches.clone()));
    let client = client_for("replicaset-controller");
    tasks.spawn(replica_set::run(client, caches.replica_sets.clone(), caches.pods.clone()));
    tasks.spawn(endpoint_slice::run(client_for("endpointslice-controller"), caches.clone()));
    tasks.spawn(load_balancer::run(client_for("service-controller"), caches.clone()));
    tasks.spawn(namespace::run(client_for("namespace-controller"), caches.clone()));
    tasks.spawn(garbage::run(client_for("generic-garbage-collector"), in_use.clone()));
    tasks.spawn(node_life::run(client_for("node-controller"), caches.clone(), options.node_grace));
    if let Some(ranges) = options.node_ranges {
        tasks.spawn(node_ipam::run(client_for("node-ipam-controller"), caches.nodes.clone(), ranges));
    }
    tasks.spawn(cluster_role::run(client_for("clusterrole-aggregation-controller"), shared.all()));
    tasks.spawn(service_account::run_accounts(client_for("service-account-controller"), caches.clone()));
    if let Some(minter) = options.minter {
        let (client, accounts, used) =
            (client_for("tokens-controller"), caches.service_accounts.clone(), in_use.clone());
        let certificate = options.root_certificate.clone();
        tasks.spawn(async move {
            used.first("", &["Secret"]).await;
            token::run(client, accounts, certificate, minter).await;
        });
    }
    if let Some(certificate) = options.root_certificate {
        let client = client_for("root-ca-cert-publisher");
        tasks.spawn(service_account::run_certificates(client, caches.clone(), certificate));
    }
    let (client, requests, used) = (client_for("certificate-controller"), shared.clone(), in_use.clone());
    tasks.spawn(async move {
        used.first("certificates.k8s.io", &["CertificateSigningRequest"]).await;
        certificates::run(client, requests.all(), options.signer).await;
    });
    of_rare_kinds(&client_for, &shared, &in_use, &mut tasks);
    let client = client_for("pod-garbage-collector");
    tasks.spawn(pod_gc::run(client, caches, options.missing_node_grace, options.ended_pods_max));
    while let Some(ended) = tasks.join_next().await {
        // None of them ends by itself: this is a defect, and the others go on.
        error!(?ended, "a controller has ended");
    }
}

/// The controllers of kinds that many never use: each begins when its kind is in use.
fn of_rare_kinds(client_for: &impl Fn(&str) -> kube::Client, shared: &Caches, in_use: &InUse, tasks: &mut JoinSet<()>) {
    let mut begin =
        |user: &str, of: (&'static str, &'static [&'static str]), start: fn(kube::Client, Caches) -> Running| {
            let (client, shared, in_use) = (client_for(user), shared.clone(), in_use.clone());
            tasks.spawn(async move {
                in_use.first(of.0, of.1).await;
                start(client, shared).await;
            });
        };
    begin("job-controller", ("batch", &["Job"]), |client, s| job::run(client, s.all(), s.all()).boxed());
    begin("ttl-after-finished-controller", ("batch", &["Job"]), |client, s| ttl::run(client, s.all()).boxed());
    begin("cronjob-controller", ("batch", &["CronJob"]), |client, s| cron_job::run(client, s.all(), s.all()).boxed());
    begin("statefulset-controller", ("apps", &["StatefulSet"]), |client, s| stateful_set::run(client, s).boxed());
    begin("daemon-set-controller", ("apps", &["DaemonSet"]), |client, s| daemon_set::run(client, s).boxed());
    begin("disruption-controller", ("policy", &["PodDisruptionBudget"]), |client, s| {
        disruption::run(client, s).boxed()
    });
    begin("horizontal-pod-autoscaler", ("autoscaling", &["HorizontalPodAutoscaler"]), |client, s| {
        autoscaler::run(client, s).boxed()
    });
    begin("resourcequota-controller", ("", &["ResourceQuota"]), |client, s| quota::run(client, s).boxed());
    begin("persistent-volume-binder", ("", &["PersistentVolume", "PersistentVolumeClaim"]), |client, s| {
        volumes::run(client, s).boxed()
    });
    begin("replication-controller", ("", &["ReplicationController"]), |client, s| {
        replica_set::run_legacy(client, s.all(), s.all()).boxed()
    });
}

/// A controller at work.
type Running = BoxFuture<'static, ()>;

//! A profile: which filters and scores there are for the pods of one `schedulerName`, and how much each score weighs.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

/// What can be switched off, and the weight of its score; 0 where it has none. In the order of kube-scheduler.
pub(crate) const PLUGINS: [(&str, i64); 16] = [
    ("SchedulingGates", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
];

/// What makes a node good by what is free on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitStrategy {
    /// Much that is free.
    LeastAllocated,
    /// Little that is free.
    MostAllocated,
    /// What a line through these points says: utilization in percent, score of 0 to 10. Rising in utilization.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// How nodes are chosen for the pods of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The `schedulerName` of its pods.
    pub name: String,
    /// Plug-ins whose filter is not asked.
    pub no_filter: BTreeSet<String>,
    /// Weights that differ from the usual ones; 0 switches a score off.
    pub weights: BTreeMap<String, i64>,
    /// How well a node does by what is free on it.
    pub fit: FitStrategy,
    /// Which resources count there, with their weights.
    pub fit_resources: BTreeMap<String, i64>,
    /// How pods without constraints of their own spread, as long as they have a controller.
    pub default_constraints: Vec<TopologySpreadConstraint>,
    /// They are upstream's own: a node without one of their labels is looked at, too.
    pub defaults_are_upstream: bool,
    /// What a pod that requires another near is happier by with it there.
    pub hard_pod_affinity_weight: i64,
}

impl Profile {
    /// The default profile of kube-scheduler under a name.
    pub fn named(name: &str) -> Profile {
        let constraint = |key: &str, max_skew: i32| TopologySpreadConstraint {
            topology_key: key.to_owned(),
            max_skew,
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        };
        Profile {
            name: name.to_owned(),
            no_filter: BTreeSet::new(),
            weights: BTreeMap::new(),
            fit: FitStrategy::LeastAllocated,
            fit_resources: [("cpu".to_owned(), 1), ("memory".to_owned(), 1)].into(),
            default_constraints: vec![
                constraint("kubernetes.io/hostname", 3),
                constraint("topology.kubernetes.io/zone", 5),
            ],
            defaults_are_upstream: true,
            hard_pod_affinity_weight: 1,
        }
    }

    pub(crate) fn asks(&self, plugin: &str) -> bool {
        !self.no_filter.contains(plugin)
    }

    pub(crate) fn weight(&self, plugin: &str) -> i64 {
        let usual = || PLUGINS.iter().find(|(name, _)| *name == plugin).map_or(0, |(_, weight)| *weight);
        self.weights.get(plugin).copied().unwrap_or_else(usual)
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile::named("default-scheduler")
    }
}

//! `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`: the file that kube-scheduler takes with `--config`.
//!
//! What is not known here is refused by its name, so that nothing that was written goes without effect.
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde::Deserialize;
use serde_json::Value;

use crate::profile::{FitStrategy, PLUGINS, Profile};
use crate::run::Options;

/// A configuration that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It has another form.
    #[error("scheduler configuration: {0}")]
    Form(#[from] serde_json::Error),
    /// It says something that is not known or makes no sense.
    #[error("scheduler configuration: {0}")]
    Content(String),
}

/// More profiles than anybody has; each is prepared for on its own.
const PROFILES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<Written>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    scheduler_name: Option<String>,
    #[serde(default)]
    plugins: Plugins,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Plugins {
    multi_point: Set,
    filter: Set,
    post_filter: Set,
    score: Set,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Set {
    enabled: Vec<Plugin>,
    disabled: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    args: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    #[serde(default, rename = "apiVersion")]
    _version: Value,
    #[serde(default, rename = "kind")]
    _kind: Value,
    scoring_strategy: Option<Strategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strategy {
    r#type: String,
    #[serde(default)]
    resources: Vec<Plugin>,
    #[serde(default)]
    requested_to_capacity_ratio: Shape,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    shape: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    #[serde(default, rename = "apiVersion")]
    _version: Value,
    #[serde(default, rename = "kind")]
    _kind: Value,
    #[serde(default)]
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AffinityArgs {
    #[serde(default, rename = "apiVersion")]
    _version: Value,
    #[serde(default, rename = "kind")]
    _kind: Value,
    hard_pod_affinity_weight: Option<i64>,
}

fn content<T>(words: String) -> Result<T, ConfigError> {
    Err(ConfigError::Content(words))
}

impl Options {
    /// The options that a configuration asks for.
    ///
    /// # Errors
    /// It has another form, or says something that is not known here.
    pub fn configured(text: Value) -> Result<Options, ConfigError> {
        let read: Configuration = serde_json::from_value(text)?;
        let named = (read.api_version.as_str(), read.kind.as_str());
        if named != ("kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration") {
            return content(format!("{} {} is not known", read.api_version, read.kind));
        }
        let mut options = Options::default();
        if !read.profiles.is_empty() {
            options.profiles = read.profiles.into_iter().map(profile).collect::<Result<_, _>>()?;
        }
        let mut names: Vec<&str> = options.profiles.iter().map(|profile| profile.name.as_str()).collect();
        names.sort_unstable();
        if names.len() > PROFILES_MAX || names.windows(2).any(|pair| pair[0] == pair[1]) {
            return content(format!("profiles: at most {PROFILES_MAX}, each of another schedulerName"));
        }
        options.back_off_first = read.pod_initial_backoff_seconds.map_or(options.back_off_first, Duration::from_secs);
        options.back_off_most = read.pod_max_backoff_seconds.map_or(options.back_off_most, Duration::from_secs);
        Ok(options)
    }
}

fn profile(written: Written) -> Result<Profile, ConfigError> {
    let mut profile = Profile::named(written.scheduler_name.as_deref().unwrap_or("default-scheduler"));
    let Plugins { multi_point, filter, post_filter, score } = written.plugins;
    for (set, filters, scores) in
        [(multi_point, true, true), (filter, true, false), (post_filter, true, false), (score, false, true)]
    {
        for plugin in set.disabled {
            for name in known(&plugin.name)? {
                if filters {
                    profile.no_filter.insert(name.to_owned());
                }
                if scores {
                    profile.weights.insert(name.to_owned(), 0);
                }
            }
        }
        for plugin in set.enabled {
            for name in known(&plugin.name)? {
                if filters {
                    profile.no_filter.remove(name);
                }
                if scores {
                    let usual = PLUGINS.iter().find(|(known, _)| *known == name).map_or(0, |(_, weight)| *weight);
                    let weight = if plugin.weight == 0 { usual } else { plugin.weight };
                    profile.weights.insert(name.to_owned(), positive("weight", weight, 1 << 31)?);
                }
            }
        }
    }
    written.plugin_config.into_iter().try_for_each(|config| configure(&mut profile, config))?;
    Ok(profile)
}

/// The plug-in of a name; all of them for `*`.
fn known(name: &str) -> Result<Vec<&'static str>, ConfigError> {
    let found: Vec<&str> =
        PLUGINS.iter().map(|(known, _)| *known).filter(|known| name == "*" || *known == name).collect();
    if found.is_empty() { content(format!("there is no plug-in {name:?}")) } else { Ok(found) }
}

fn positive(what: &str, number: i64, most: i64) -> Result<i64, ConfigError> {
    if (0..=most).contains(&number) {
        Ok(number)
    } else {
        content(format!("{what}: {number} is not between 0 and {most}"))
    }
}

fn configure(profile: &mut Profile, PluginConfig { name, args }: PluginConfig) -> Result<(), ConfigError> {
    match name.as_str() {
        "NodeResourcesFit" => {
            if let Some(strategy) = serde_json::from_value::<FitArgs>(args)?.scoring_strategy {
                fit(profile, strategy)?;
            }
        }
        "PodTopologySpread" => {
            let args: SpreadArgs = serde_json::from_value(args)?;
            if args.defaulting_type.as_deref() == Some("List") {
                if args.default_constraints.iter().any(|constraint| constraint.label_selector.is_some()) {
                    return content("defaultConstraints: a labelSelector is not taken".to_owned());
                }
                (profile.default_constraints, profile.defaults_are_upstream) = (args.default_constraints, false);
            } else if !args.default_constraints.is_empty() {
                return content("defaultConstraints need defaultingType: List".to_owned());
            }
        }
        "InterPodAffinity" => {
            let weight = serde_json::from_value::<AffinityArgs>(args)?.hard_pod_affinity_weight.unwrap_or(1);
            profile.hard_pod_affinity_weight = positive("hardPodAffinityWeight", weight, 100)?;
        }
        _ => return content(format!("plug-in {name:?} is not configured here")),
    }
    Ok(())
}

fn fit(profile: &mut Profile, strategy: Strategy) -> Result<(), ConfigError> {
    let points: Vec<(i64, i64)> =
        strategy.requested_to_capacity_ratio.shape.iter().map(|point| (point.utilization, point.score)).collect();
    profile.fit = match strategy.r#type.as_str() {
        "LeastAllocated" => FitStrategy::LeastAllocated,
        "MostAllocated" => FitStrategy::MostAllocated,
        "RequestedToCapacityRatio" => {
            let rises = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let inside = points.iter().all(|(at, score)| (0..=100).contains(at) && (0..=10).contains(score));
            if points.is_empty() || !rises || !inside {
                return content("shape: utilization must rise from 0 to 100, scores be 0 to 10".to_owned());
            }
            FitStrategy::RequestedToCapacityRatio(points)
        }
        other => return content(format!("there is no scoring strategy {other:?}")),
    };
    if !strategy.resources.is_empty() {
        let of = |resource: Plugin| Ok((resource.name, positive("weight of a resource", resource.weight.max(1), 100)?));
        profile.fit_resources =
            strategy.resources.into_iter().map(of).collect::<Result<BTreeMap<_, _>, ConfigError>>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

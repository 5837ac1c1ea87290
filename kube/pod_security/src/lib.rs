//! The Pod Security Standards (KEP-2579): what a pod may have at a *level*. Pure.
//!
//! ```text
//!  privileged ── everything
//!  baseline   ── nothing that reaches the machine or what else runs on it        (`baseline`)
//!  restricted ── that, and nothing that a pod does not need to run hardened      (`restricted`)
//! ```
//!
//! The words are those of k8s.io/pod-security-admission, so that a user finds them where everybody else does. Every version of the
//! standards is read as the latest.

mod baseline;
mod restricted;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSecurityContext, PodSpec, SecurityContext};

/// How much a pod may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing that reaches beyond the pod.
    Baseline,
    /// What a hardened pod has.
    Restricted,
}

impl Level {
    /// The level of a word, if it is one.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Says what of a pod a level does not allow: reasons, each with what of the pod it is about. `version` is that of the standards as
/// somebody wrote it, `latest` if nobody did.
///
/// # Errors
/// Everything that is wrong with it, in one sentence.
pub fn check(level: Level, version: &str, spec: &PodSpec) -> Result<(), String> {
    let mut look = Look::of(spec);
    if level >= Level::Baseline {
        baseline::check(&mut look, level);
    }
    if level >= Level::Restricted {
        restricted::check(&mut look);
    }
    if look.found.is_empty() {
        return Ok(());
    }
    Err(format!("violates PodSecurity \"{}:{version}\": {}", level.word(), look.found.join(", ")))
}

/// All containers of a pod that are declared, also those that only begin it.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// A container of any sort, as far as security is concerned.
struct Each<'a> {
    name: &'a str,
    context: SecurityContext,
    /// What else it has; ephemeral ones have neither ports nor probes.
    container: Option<&'a Container>,
}

/// A pod while it is looked at.
struct Look<'a> {
    spec: &'a PodSpec,
    pod: PodSecurityContext,
    each: Vec<Each<'a>>,
    found: Vec<String>,
}

impl<'a> Look<'a> {
    fn of(spec: &'a PodSpec) -> Self {
        let declared = containers(spec).map(|container| Each {
            name: &container.name,
            context: container.security_context.clone().unwrap_or_default(),
            container: Some(container),
        });
        let later = |container: &'a EphemeralContainer| Each {
            name: &container.name,
            context: container.security_context.clone().unwrap_or_default(),
            container: None,
        };
        let each = declared.chain(spec.ephemeral_containers.iter().flatten().map(later)).collect();
        Self { spec, pod: spec.security_context.clone().unwrap_or_default(), each, found: Vec::new() }
    }

    /// The containers of which `is` holds, as they are spoken of.
    fn who(&self, is: impl Fn(&Each<'a>) -> bool) -> Option<Who> {
        let names: Vec<String> =
            self.each.iter().filter(|each| is(each)).map(|each| format!("{:?}", each.name)).collect();
        (!names.is_empty()).then(|| Who { many: names.len() > 1, names: names.join(", ") })
    }

    /// Notes a reason, if there is anything that it is about.
    fn report(&mut self, reason: &str, about: impl IntoIterator<Item = Option<String>>) {
        let about: Vec<String> = about.into_iter().flatten().collect();
        if !about.is_empty() {
            self.found.push(format!("{reason} ({})", about.join("; ")));
        }
    }
}

/// Some containers, by name.
struct Who {
    many: bool,
    names: String,
}

impl Who {
    /// As `containers "a", "b" must …`.
    fn must(&self, what: &str) -> String {
        format!("{} {what}", self.subject())
    }

    fn subject(&self) -> String {
        format!("{} {}", if self.many { "containers" } else { "container" }, self.names)
    }
}

#[cfg(test)]
mod tests;

//! What is audited, and how much of it: a `Policy` of `audit.k8s.io/v1`. The first rule that a request fits says its level; without one it
//! is not audited.

use serde::Deserialize;

use crate::auth::User;
use crate::authorization::Attributes;

/// How much of a request is kept; each has what the one before it has.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, when, and what came of it.
    Metadata,
    /// … and what was sent.
    Request,
    /// … and what was answered.
    RequestResponse,
}

/// When something is written of a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Stage {
    /// It came.
    RequestReceived,
    /// A stream begins.
    ResponseStarted,
    /// It is over.
    ResponseComplete,
    /// The server failed over it.
    Panic,
}

/// What of requests is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    /// It has a name, which says nothing.
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy in YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("{} {}: needed audit.k8s.io/v1 Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("rules: needed at least one".into());
        }
        for (n, rule) in policy.rules.iter().enumerate() {
            if rule.level.is_none() {
                return Err(format!("rules[{n}].level: needed None, Metadata, Request or RequestResponse"));
            }
            let regular = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if regular && !rule.urls.is_empty() {
                return Err(format!("rules[{n}]: rules cannot apply to both regular resources and non-resource URLs"));
            }
            if let Some(url) = rule.urls.iter().find(|url| *url != "*" && !url.starts_with('/')) {
                return Err(format!("rules[{n}].nonResourceURLs: {url:?} must begin with '/' or be '*'"));
            }
        }
        Ok(policy)
    }

    /// What is kept of a request of `user`.
    pub fn of(&self, user: &User, asked: &Attributes) -> Wanted {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, asked)) else { return Wanted::default() };
        Wanted {
            level: rule.level.unwrap_or_default(),
            omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn fits(&self, user: &User, asked: &Attributes) -> bool {
        let any = |list: &[String], fits: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| fits(one));
        let url = |url: &str| url.strip_suffix('*').map_or(asked.path == url, |begin| asked.path.starts_with(begin));
        any(&self.users, &|name| name == user.name)
            && any(&self.user_groups, &|name| user.groups.iter().any(|group| group == name))
            && any(&self.verbs, &|verb| verb == "*" || verb == asked.verb)
            && if asked.resource.is_empty() {
                self.resources.is_empty() && self.namespaces.is_empty() && any(&self.urls, &url)
            } else {
                self.urls.is_empty()
                    && any(&self.namespaces, &|namespace| namespace == asked.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|one| one.fits(asked)))
            }
    }
}

impl Resources {
    fn fits(&self, asked: &Attributes) -> bool {
        let (plural, sub) = asked.resource.split_once('/').unwrap_or((&asked.resource, ""));
        let fits = |wanted: &String| match wanted.split_once('/') {
            Some((of, wanted)) => !sub.is_empty() && (of == "*" || of == plural) && (wanted == "*" || wanted == sub),
            None => wanted == "*" || *wanted == asked.resource,
        };
        self.group == asked.group
            && (self.resources.is_empty() || self.resources.iter().any(fits))
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }
}

//! One rule of a role: what it allows, and whether it covers another. Pure.

use serde_json::Value;

use super::Attributes;

/// What may be done with what. A list of `*` is everything of its sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// As `get`.
    pub verbs: Vec<String>,
    /// As `apps`; empty is the core group.
    pub groups: Vec<String>,
    /// As `pods`, `pods/log`, `*/scale`.
    pub resources: Vec<String>,
    /// Only these objects; empty is all.
    pub names: Vec<String>,
    /// Paths that are no resources, as `/metrics` or `/healthz/*`.
    pub urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

fn has_resource(list: &[String], wanted: &str) -> bool {
    has(list, wanted)
        || wanted.split_once('/').is_some_and(|(_, sub)| list.iter().any(|one| one.strip_prefix("*/") == Some(sub)))
}

fn has_url(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted || one.strip_suffix('*').is_some_and(|begin| wanted.starts_with(begin)))
}

impl Rule {
    /// Reads a `PolicyRule`.
    pub fn read(rule: &Value) -> Self {
        let texts = |field: &str| {
            let list = rule[field].as_array().into_iter().flatten();
            list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// All rules of a role.
    pub fn all(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    /// Whether it lets somebody do this.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if asked.resource.is_empty() {
            return has_url(&self.urls, &asked.path);
        }
        has(&self.groups, &asked.group)
            && has_resource(&self.resources, &asked.resource)
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }

    /// Whether everything that `part`, a rule of one verb and one thing, allows is allowed by it.
    fn covers(&self, part: &Rule) -> bool {
        let all = |wanted: &[String], covered: &dyn Fn(&str) -> bool| wanted.iter().all(|one| covered(one));
        let verbs = all(&part.verbs, &|verb| has(&self.verbs, verb));
        if !part.urls.is_empty() {
            return verbs && all(&part.urls, &|url| has_url(&self.urls, url));
        }
        verbs
            && all(&part.groups, &|group| has(&self.groups, group))
            && all(&part.resources, &|resource| has_resource(&self.resources, resource))
            && (self.names.is_empty()
                || (!part.names.is_empty() && all(&part.names, &|name| self.names.contains(&name.to_owned()))))
    }

    /// The rules of one verb and one thing that it consists of.
    fn parts(&self) -> Vec<Rule> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            parts.extend(self.urls.iter().map(|url| Rule {
                verbs: verbs.clone(),
                urls: vec![url.clone()],
                ..Rule::default()
            }));
            for (group, resource) in self.groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
                let one = Rule {
                    verbs: verbs.clone(),
                    groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if self.names.is_empty() {
                    parts.push(one);
                } else {
                    parts.extend(self.names.iter().map(|name| Rule { names: vec![name.clone()], ..one.clone() }));
                }
            }
        }
        parts
    }

    /// What of `wanted` nothing of `held` covers.
    pub fn beyond(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
        let parts = wanted.iter().flat_map(Rule::parts);
        parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
    }

    /// As refusals show it.
    pub fn shown(&self) -> String {
        let lists = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
            ("NonResourceURLs", &self.urls),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let shown = lists.map(|(name, list)| {
            format!("{name}:[{}]", list.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" "))
        });
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

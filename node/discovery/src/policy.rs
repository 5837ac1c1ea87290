//! DiscoveryPolicies: what is told by which approach, and who becomes a peering candidate. Pure.

use fluidos_model::kinds::{
    DiscoveryPolicy, DiscoveryPolicySpec, FeatureOperator, FeatureRequirement, KnownClusterSource, KnownClusterTrust,
    Rating,
};
use fluidos_model::rating;
use kube::ResourceExt;

use crate::features::Features;

/// Policies that are looked at; more are a mistake, and each is asked for each sighting.
const POLICIES_MAX: usize = 32;
/// Rules of one policy.
const RULES_MAX: usize = 64;

/// All DiscoveryPolicies of a node, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(Vec<(String, DiscoveryPolicySpec)>);

impl Policies {
    /// The policies of these objects.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a DiscoveryPolicy>) -> Self {
        let policies = objects.into_iter().take(POLICIES_MAX);
        Self(policies.map(|policy| (policy.name_any(), policy.spec.clone())).collect())
    }

    /// Whether this node makes itself known by an approach: all policies must allow it.
    pub fn announces(&self, approach: KnownClusterSource) -> bool {
        let outgoing = self.0.iter().filter_map(|(_, policy)| policy.outgoing.as_ref());
        outgoing.filter_map(|outgoing| outgoing.approaches.as_ref()).all(|approaches| approaches.contains(&approach))
    }

    /// Whether what is sold here is announced in catalogs: all policies must allow it.
    pub fn tells_offers(&self) -> bool {
        self.0.iter().filter_map(|(_, policy)| policy.outgoing.as_ref()?.offers).all(|tells| tells)
    }

    /// Whether this node says how it has fared with others: one policy must ask for it, and none may refuse it.
    pub fn tells_opinions(&self) -> bool {
        let mut words = self.0.iter().filter_map(|(_, policy)| policy.outgoing.as_ref()?.opinions).peekable();
        words.peek().is_some() && words.all(|tells| tells)
    }

    /// What is told of this node: its own features, and what policies add, less what one of them keeps back. Beside it what
    /// is wrong with that which policies add; it is not told then.
    pub fn told(&self, own: &Features) -> (Features, Option<String>) {
        let outgoing: Vec<_> = self.0.iter().filter_map(|(_, policy)| policy.outgoing.as_ref()).collect();
        let kept_back =
            |key: &str| outgoing.iter().filter_map(|o| o.features.as_ref()).any(|told| !told.iter().any(|k| k == key));
        let mut words: std::collections::BTreeMap<String, String> =
            own.iter().filter(|(key, _)| !kept_back(key)).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let plain = Features::new(words.clone()).unwrap_or_default();
        words.extend(outgoing.iter().flat_map(|o| o.labels.clone()).filter(|(key, _)| !kept_back(key)));
        match Features::new(words) {
            Ok(features) => (features, None),
            Err(why) => (plain, Some(why)),
        }
    }

    /// Whether a node becomes a candidate: all policies must take it. Who was named by the owner is not asked about.
    ///
    /// # Errors
    /// The policy that does not, with the observed and the needed.
    pub fn admit(
        &self,
        source: KnownClusterSource,
        trust: KnownClusterTrust,
        features: &Features,
        rating: Option<&Rating>,
    ) -> Result<(), String> {
        if source == KnownClusterSource::Static {
            return Ok(());
        }
        for (name, policy) in &self.0 {
            if let Some(why) = fault(policy).or_else(|| refusal(policy, source, trust, features, rating)) {
                return Err(format!("policy {name}: {why}"));
            }
        }
        Ok(())
    }
}

/// What is wrong with a policy itself. Such a one takes nobody: a filter that cannot be read must not be an open door.
pub fn fault(policy: &DiscoveryPolicySpec) -> Option<String> {
    let incoming = policy.incoming.as_ref()?;
    if let Some(minimum) = incoming.minimum_rating.filter(|minimum| *minimum > 100) {
        return Some(format!("minimumRating is {minimum}, needed 0 to 100"));
    }
    if incoming.match_expressions.len() + incoming.match_labels.len() > RULES_MAX {
        return Some(format!("it has more than {RULES_MAX} rules"));
    }
    incoming.match_expressions.iter().find_map(|rule| match (rule.operator, rule.values.is_empty()) {
        (FeatureOperator::In | FeatureOperator::NotIn, true) => {
            Some(format!("matchExpressions {}: {:?} has no values, needed at least one", rule.key, rule.operator))
        }
        (FeatureOperator::Exists | FeatureOperator::DoesNotExist, false) => {
            Some(format!("matchExpressions {}: {:?} has values, needed none", rule.key, rule.operator))
        }
        _ => None,
    })
}

fn refusal(
    policy: &DiscoveryPolicySpec,
    source: KnownClusterSource,
    trust: KnownClusterTrust,
    features: &Features,
    rating: Option<&Rating>,
) -> Option<String> {
    let incoming = policy.incoming.as_ref()?;
    if let Some(approaches) = incoming.approaches.as_ref().filter(|approaches| !approaches.contains(&source)) {
        return Some(format!("found by {source:?}, needed one of {approaches:?}"));
    }
    if incoming.minimum_trust == Some(KnownClusterTrust::Trusted) && trust == KnownClusterTrust::Untrusted {
        return Some("it is Untrusted, needed Trusted (--trust says who is)".into());
    }
    // Who has no rating yet passes: everybody was new once.
    if let Some(why) = incoming.minimum_rating.and_then(|minimum| rating::meets(rating, minimum, true).err()) {
        return Some(why);
    }
    let label = incoming.match_labels.iter().find(|(key, value)| features.get(key) != Some(value));
    if let Some((key, value)) = label {
        return Some(format!("{key} is {}, needed {value}", observed(features, key)));
    }
    incoming.match_expressions.iter().find_map(|rule| unmet(rule, features))
}

fn unmet(rule: &FeatureRequirement, features: &Features) -> Option<String> {
    let value = features.get(&rule.key);
    let listed = value.is_some_and(|value| rule.values.iter().any(|v| v == value));
    let needed = match rule.operator {
        FeatureOperator::In if !listed => format!("one of {}", rule.values.join(", ")),
        FeatureOperator::NotIn if listed => format!("none of {}", rule.values.join(", ")),
        FeatureOperator::Exists if value.is_none() => "any".into(),
        FeatureOperator::DoesNotExist if value.is_some() => "none".into(),
        _ => return None,
    };
    Some(format!("{} is {}, needed {needed}", rule.key, observed(features, &rule.key)))
}

fn observed(features: &Features, key: &str) -> String {
    features.get(key).map_or_else(|| "not told".into(), str::to_owned)
}

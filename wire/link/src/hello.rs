//! The first word on a session: who a node says it is, what it speaks and what it can.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::LinkError;

/// The protocol versions that this node speaks.
pub const PROTOCOL_VERSIONS: RangeInclusive<u32> = 1..=1;
/// Features of one node: a word each.
pub const FEATURES_MAX: usize = 64;
/// Attributes of one node: where REAR answers, its prefix, its location.
pub const ATTRIBUTES_MAX: usize = 16;
const FEATURE_LENGTH_MAX: usize = 64;
const ATTRIBUTE_LENGTH_MAX: usize = 256;
/// A DNS label and a DNS name.
const NAME_LENGTH_MAX: usize = 63;
const DOMAIN_LENGTH_MAX: usize = 253;

/// What a node says about itself when a session begins. All of it is a claim; the key is proven by the handshake.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The lowest version it speaks.
    pub version_min: u32,
    /// The highest version it speaks.
    pub version_max: u32,
    /// Grows with every start of the node (milliseconds since 1970 will do): tells a restart from a second session.
    pub incarnation: u64,
    /// The name its owner gave it.
    pub name: String,
    /// What its owner calls itself.
    #[serde(default)]
    pub domain: String,
    /// What it can, such as `pods`, `images`, `packets`.
    #[serde(default)]
    pub features: Vec<String>,
    /// What else is to be known early, such as `rear` (a port).
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl Hello {
    /// Checks every bound, of our own and of a peer's.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] names the field, what was observed and what was needed.
    pub(crate) fn check(&self) -> Result<(), LinkError> {
        let bounded = |what: &str, observed: usize, max: usize| {
            if observed <= max { Ok(()) } else { Err(malformed(format!("{what} is {observed}, at most {max}"))) }
        };
        if self.version_min > self.version_max {
            return Err(malformed(format!("versions {} to {}", self.version_min, self.version_max)));
        }
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.name.is_empty() || !printable(&self.name) || !printable(&self.domain) {
            return Err(malformed("name and domain need printable ASCII, and a name at least one of it".into()));
        }
        bounded("length of name", self.name.len(), NAME_LENGTH_MAX)?;
        bounded("length of domain", self.domain.len(), DOMAIN_LENGTH_MAX)?;
        bounded("number of features", self.features.len(), FEATURES_MAX)?;
        bounded("number of attributes", self.attributes.len(), ATTRIBUTES_MAX)?;
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        bounded("length of a feature", longest(&mut self.features.iter().map(String::len)), FEATURE_LENGTH_MAX)?;
        let attributes = self.attributes.iter().flat_map(|(key, value)| [key.len(), value.len()]);
        bounded("length of an attribute", longest(&mut attributes.into_iter()), ATTRIBUTE_LENGTH_MAX)
    }

    /// Returns the highest version that both speak.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] names both ranges if there is none.
    pub(crate) fn common_version(&self, other: &Self) -> Result<u32, LinkError> {
        let (least, most) = (self.version_min.max(other.version_min), self.version_max.min(other.version_max));
        if least <= most {
            return Ok(most);
        }
        let (ours, theirs) = ((self.version_min, self.version_max), (other.version_min, other.version_max));
        let reason =
            format!("peer speaks versions {} to {}, needed one of {} to {}", theirs.0, theirs.1, ours.0, ours.1);
        Err(malformed(reason))
    }
}

fn malformed(reason: String) -> LinkError {
    LinkError::Malformed { what: "hello", reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn hello(version_min: u32, version_max: u32) -> Hello {
        Hello { version_min, version_max, name: "farm".into(), ..Hello::default() }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(hello(1, 3).common_version(&hello(2, 5)).unwrap(), 3);
        let refused = hello(1, 1).common_version(&hello(2, 5)).unwrap_err().to_string();
        assert!(refused.contains("peer speaks versions 2 to 5, needed one of 1 to 1"), "{refused}");
    }

    #[test]
    fn every_field_is_bounded() {
        hello(1, 1).check().unwrap();
        for wrong in [
            hello(2, 1),
            Hello { name: String::new(), ..hello(1, 1) },
            Hello { name: "a b".into(), ..hello(1, 1) },
            Hello { name: "x".repeat(64), ..hello(1, 1) },
            Hello { domain: "x".repeat(254), ..hello(1, 1) },
            Hello { features: vec!["x".into(); 65], ..hello(1, 1) },
            Hello { features: vec!["x".repeat(65)], ..hello(1, 1) },
            Hello { attributes: (0..17).map(|i| (i.to_string(), String::new())).collect(), ..hello(1, 1) },
            Hello { attributes: [("k".into(), "x".repeat(257))].into(), ..hello(1, 1) },
        ] {
            assert!(matches!(wrong.check(), Err(LinkError::Malformed { .. })), "{wrong:?}");
        }
    }
}

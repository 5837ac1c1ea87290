//! Filters in the query of a list request.
//!
//! ```text
//!   filter[architecture|cpu|memory|pods|storage][match]=V
//!   filter[cpu|memory|pods|storage][range][min|max]=V
//!   filter[category|tags][match]=V
//!   filter[plan][match]=OFFER/PLAN       (ours)
//! ```
//! Brackets come raw or percent-encoded. Official clients send the storage range without `filter`; that is read too. Values
//! are texts: what they mean is the seller's to say.

use std::fmt::Write as _;

use crate::FlavorType;

/// There are eight keys that mean something; a few more are repetitions.
const FILTERS_MAX: usize = 16;
/// Values are quantities and names.
const VALUE_LENGTH_MAX: usize = 256;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    /// Of which type; `None` is any.
    pub flavor_type: Option<FlavorType>,
    /// Filters that all must hold.
    pub filters: Vec<SelectorFilter>,
}

/// One filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SelectorFilter {
    /// The named characteristic is this.
    Match {
        /// `architecture`, `cpu`, `memory`, `pods`, `storage`, `category`, `tags`, `plan`.
        name: String,
        /// The value.
        value: String,
    },
    /// The named characteristic is between these, both included.
    Range {
        /// `cpu`, `memory`, `pods`, `storage`.
        name: String,
        /// The least.
        min: Option<String>,
        /// The most.
        max: Option<String>,
    },
}

impl Selector {
    /// Returns the selector of a path's type and a query.
    ///
    /// # Errors
    /// A sentence that names the key and says what is known.
    pub(crate) fn from_query(flavor_type: Option<FlavorType>, query: &str) -> Result<Self, String> {
        let mut selector = Self { flavor_type, filters: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (percent_decode(key)?, percent_decode(value)?);
            if value.is_empty() || value.len() > VALUE_LENGTH_MAX {
                return Err(format!(
                    "`{}` has no value, or one of over {VALUE_LENGTH_MAX} characters",
                    shortened(&key)
                ));
            }
            selector.add(&key, value)?;
            if selector.filters.len() > FILTERS_MAX {
                return Err(format!("more than {FILTERS_MAX} filters"));
            }
        }
        Ok(selector)
    }

    fn add(&mut self, key: &str, value: String) -> Result<(), String> {
        let unknown = || {
            let key = shortened(key);
            format!("`{key}` is not known: needed filter[NAME][match] or filter[NAME][range][min|max]")
        };
        let parts: Vec<&str> = key.strip_prefix("filter").unwrap_or(key).split('[').skip(1).collect();
        let parts: Option<Vec<&str>> = parts.iter().map(|part| part.strip_suffix(']')).collect();
        let parts = parts.ok_or_else(unknown)?;
        let quantity = |name: &str| matches!(name, "cpu" | "memory" | "pods" | "storage");
        let text = |name: &str| matches!(name, "architecture" | "category" | "tags" | "plan");
        match parts.as_slice() {
            [name, "match" | "exact"] if quantity(name) || text(name) => {
                self.filters.push(SelectorFilter::Match { name: (*name).into(), value });
                Ok(())
            }
            [name, "range", bound @ ("min" | "max")] if quantity(name) => {
                self.add_bound(name, *bound == "min", value);
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    fn add_bound(&mut self, wanted: &str, is_min: bool, value: String) {
        let known = self.filters.iter_mut().find_map(|filter| match filter {
            SelectorFilter::Range { name, min, max } if name == wanted => Some((min, max)),
            _ => None,
        });
        match known {
            Some((min, _)) if is_min => *min = Some(value),
            Some((_, max)) => *max = Some(value),
            None => {
                let (min, max) = if is_min { (Some(value), None) } else { (None, Some(value)) };
                self.filters.push(SelectorFilter::Range { name: wanted.into(), min, max });
            }
        }
    }

    /// Returns the path and query that ask for this.
    pub(crate) fn path_and_query(&self) -> String {
        let mut path = String::from("/api/v2/flavors");
        if let Some(flavor_type) = self.flavor_type {
            path = format!("{path}/{}", flavor_type.as_str());
        }
        self.query_of(&path)
    }

    /// Returns a path with the filters of this.
    pub(crate) fn query_of(&self, path: &str) -> String {
        let mut path = path.to_owned();
        let mut separator = '?';
        let mut add = |key: String, value: &str| {
            let _ = write!(path, "{separator}{key}={}", percent_encode(value)); // writing to a String cannot fail
            separator = '&';
        };
        for filter in &self.filters {
            match filter {
                SelectorFilter::Match { name, value } => add(format!("filter%5B{name}%5D%5Bmatch%5D"), value),
                SelectorFilter::Range { name, min, max } => {
                    let bounds = [("min", min), ("max", max)];
                    for (bound, value) in bounds.iter().filter_map(|(bound, value)| Some((bound, value.as_ref()?))) {
                        add(format!("filter%5B{name}%5D%5Brange%5D%5B{bound}%5D"), value);
                    }
                }
            }
        }
        path
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(crate) fn percent_decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
            rest = after;
            std::str::from_utf8(digits).ok()
        });
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("`{}` has a broken percent code", shortened(text)))?);
    }
    String::from_utf8(bytes).map_err(|_| "query is not UTF-8".into())
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn official_queries_are_read_raw_and_encoded() {
        let raw = "filter[architecture][match]=amd64&filter[cpu][range][min]=1&filter[cpu][range][max]=4&[storage][range][min]=1Gi";
        let selector = Selector::from_query(Some(FlavorType::K8Slice), raw).unwrap();
        assert_eq!(selector.filters.len(), 3);
        let asked = selector.path_and_query();
        let (path, query) = asked.split_once('?').unwrap();
        assert_eq!(path, "/api/v2/flavors/k8slice");
        assert_eq!(Selector::from_query(Some(FlavorType::K8Slice), query).unwrap(), selector);
    }

    #[test]
    fn wrong_queries_are_refused() {
        for query in [
            "filter[cpu][range]=1",
            "filter[architecture][range][regex]=.*",
            "filter[mods][match]=1",
            "filter[cpu][match]=",
            "filter[cpu",
            "cpu=1",
            "filter[cpu][match]=%4",
            "filter[cpu][match]=%zz",
            "filter[cpu][match]=%ff",
            &"filter[cpu][match]=1&".repeat(20),
            &format!("filter[cpu][match]={}", "1".repeat(300)),
        ] {
            assert!(Selector::from_query(None, query).is_err(), "{query}");
        }
    }
}

//! Features: what a node says of itself at a high level, as keys and values of labels (§6.4.1). All of them are claims.
//!
//! ```text
//! city=Milan,country=Italy,sells=compute      one text, in announcements and in a link's hello
//! ```

use std::collections::BTreeMap;
use std::fmt;

/// Features of one node: what a shop window holds.
pub const FEATURES_MAX: usize = 16;
/// One string of a TXT record holds 255 bytes, one attribute of a hello 256; the name of the field goes off it.
pub const TEXT_MAX: usize = 240;
/// Keys and values of labels are at most this long.
const WORD_MAX: usize = 63;

/// What a node says of itself. Keys and values are those of Kubernetes labels, without a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(BTreeMap<String, String>);

impl Features {
    /// Takes what are words, and says what is wrong with the first that is none.
    ///
    /// # Errors
    /// The feature, and what was needed.
    pub fn new(words: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut features = BTreeMap::new();
        for (key, value) in words {
            if !is_word(&key) || key.is_empty() || !is_word(&value) {
                return Err(format!(
                    "feature {:?}={:?} is none: needed letters, digits, `-`, `_` and `.`, at most {WORD_MAX} of them",
                    shown(&key),
                    shown(&value)
                ));
            }
            if features.insert(key.clone(), value).is_some() {
                return Err(format!("feature {key} stands there twice, needed once"));
            }
        }
        let features = Self(features);
        let length = features.to_string().len();
        if features.0.len() > FEATURES_MAX || length > TEXT_MAX {
            return Err(format!(
                "{} features of {length} characters, needed at most {FEATURES_MAX} of {TEXT_MAX}",
                features.0.len()
            ));
        }
        Ok(features)
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("features of {} characters, needed at most {TEXT_MAX}", text.len()));
        }
        let word = |pair: &str| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("feature {:?} has no value, needed key=value", shown(pair))),
        };
        let words: Vec<_> = text.split(',').filter(|pair| !pair.is_empty()).map(word).collect::<Result<_, _>>()?;
        Self::new(words)
    }

    /// The value of a feature.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// As a KnownCluster holds them.
    pub fn to_list(&self) -> Vec<String> {
        self.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// Reads what a KnownCluster holds; what is no feature is left out, it may be an owner's own words.
    pub fn from_list(list: &[String]) -> Self {
        let words = list.iter().filter_map(|pair| pair.split_once('=')).filter(|(k, v)| is_word(k) && is_word(v));
        Self(words.map(|(k, v)| (k.to_owned(), v.to_owned())).take(FEATURES_MAX).collect())
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_list().join(","))
    }
}

/// Makes a word of a text: what a label cannot hold becomes a `-`, as in `New-York`.
pub fn word(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let word: String = text.trim().chars().map(fits).take(WORD_MAX).collect();
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Whether it can be the value of a label: empty, or letters and digits at both ends.
fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= WORD_MAX
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn shown(text: &str) -> String {
    text.chars().take(WORD_MAX + 1).collect()
}

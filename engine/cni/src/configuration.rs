//! A network's configuration: read from a file, bounded, told to each plug-in in its turn.
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Error;

/// A configuration is small; what is larger was put there by mistake.
const SIZE_MAX: u64 = 1 << 20;
/// No network chains more.
const PLUGINS_MAX: usize = 16;

/// What a file of the machine says of a network (CNI 1.0, section 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Of the protocol that its plug-ins speak.
    cni_version: String,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

/// What one plug-in is told.
pub(crate) struct Input<'a> {
    of: &'a Configuration,
    pub kind: &'a str,
    plugin: &'a Map<String, Value>,
}

impl Configuration {
    /// The first of a directory, in the order of the names of its files, as container runtimes choose it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn first(directory: &Path) -> Result<Configuration, Error> {
        let failed = |source| Error::Read { path: directory.to_owned(), source };
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
        files.retain(|path| {
            path.extension().is_some_and(|end| ["conflist", "conf", "json"].iter().any(|is| end == *is))
        });
        files.sort();
        let first = files.first().ok_or_else(|| Error::None(directory.to_owned()))?;
        Self::read(first)
    }

    fn read(path: &Path) -> Result<Configuration, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        let wrong = |why: String| Error::Configuration { path: path.to_owned(), why };
        if bytes.len() as u64 > SIZE_MAX {
            return Err(wrong(format!("it is larger than {SIZE_MAX} bytes")));
        }
        Self::parse(&bytes).map_err(wrong)
    }

    /// A list, or the single plug-in that files had before there were lists.
    fn parse(bytes: &[u8]) -> Result<Configuration, String> {
        let text: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let word = |name: &str| text.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let plugins = match text.get("plugins") {
            Some(list) => serde_json::from_value(list.clone()).map_err(|e| format!("plugins: {e}"))?,
            None => vec![text.clone()],
        };
        let read = Configuration { cni_version: word("cniVersion"), name: word("name"), plugins };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        if !["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].contains(&self.cni_version.as_str()) {
            return Err(format!("cniVersion is {:?}, needed 0.3.0 to 1.1.0", self.cni_version));
        }
        if !is_name(&self.name) {
            return Err(format!("name is {:?}, needed letters, digits, '.', '_' and '-'", self.name));
        }
        if !(1..=PLUGINS_MAX).contains(&self.plugins.len()) {
            return Err(format!("it has {} plug-ins, needed 1 to {PLUGINS_MAX}", self.plugins.len()));
        }
        match self.plugins.iter().map(kind).find(|kind| !is_name(kind)) {
            Some(kind) => Err(format!("the type of a plug-in is {kind:?}, needed the name of a program")),
            None => Ok(()),
        }
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The types of its plug-ins, which are the names of their programs.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(kind)
    }

    pub(crate) fn plugins(&self) -> impl Iterator<Item = Input<'_>> {
        self.plugins.iter().map(|plugin| Input { of: self, kind: kind(plugin), plugin })
    }
}

impl Input<'_> {
    /// The text for the plug-in's standard input (section 3): its part, name and version of the whole, and what was so far.
    pub fn with(&self, before: Option<&Value>) -> Vec<u8> {
        let mut text = self.plugin.clone();
        text.remove("capabilities");
        text.insert("cniVersion".into(), json!(self.of.cni_version));
        text.insert("name".into(), json!(self.of.name));
        text.extend(before.map(|before| ("prevResult".to_owned(), before.clone())));
        Value::Object(text).to_string().into_bytes()
    }
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// What can be the name of a file and nothing else.
fn is_name(text: &str) -> bool {
    let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.len() <= 255 && text.bytes().all(usable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn the_first_file_counts_and_each_plugin_hears_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let none = Configuration::first(dir.path()).unwrap_err().to_string();
        assert!(none.contains("has no network configuration"), "{none}");
        fs::write(dir.path().join("20-b.conf"), r#"{"cniVersion":"0.3.1","name":"b","type":"ptp"}"#).unwrap();
        fs::write(dir.path().join("10-a.txt"), "no configuration").unwrap();
        let single = Configuration::first(dir.path()).unwrap();
        assert_eq!((single.name(), single.kinds().collect::<Vec<_>>()), ("b", vec!["ptp"]));
        let list = r#"{"cniVersion":"1.0.0","name":"a","plugins":[
            {"type":"bridge","capabilities":{"ips":true}},{"type":"firewall"}]}"#;
        fs::write(dir.path().join("10-a.conflist"), list).unwrap();
        let list = Configuration::first(dir.path()).unwrap();
        let told: Vec<Value> = list
            .plugins()
            .map(|input| serde_json::from_slice(&input.with(Some(&json!({"ips": []})))).unwrap())
            .collect();
        assert_eq!(told[0], json!({"type": "bridge", "cniVersion": "1.0.0", "name": "a", "prevResult": {"ips": []}}));
        assert_eq!(told[1]["type"], "firewall");
    }

    #[test]
    fn what_is_no_configuration_is_refused_in_words() {
        let why = |text: &str| Configuration::parse(text.as_bytes()).unwrap_err();
        assert!(why(r#"{"name":"a","plugins":[{"type":"x"}]}"#).contains("needed 0.3.0 to 1.1.0"));
        assert!(why(r#"{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"x"}]}"#).contains("name is \"../a\""));
        assert!(
            why(r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"../../bin/sh"}]}"#)
                .contains("needed the name of")
        );
        assert!(why(r#"{"cniVersion":"1.0.0","name":"a","plugins":[]}"#).contains("it has 0 plug-ins"));
        assert!(why("[]").contains("expected a map"));
    }
}

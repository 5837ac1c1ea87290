//! `--config FILE`: the flags of `up` as YAML. A flag on the command line counts more than a `FLUIDOS_*` variable, and that
//! more than the file.

use std::ffi::OsString;

use anyhow::{Context, Result, anyhow, bail};
use clap::Command;
use serde_json::Value;

/// A configuration is a page of text.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The command with the file's values as defaults of `up`.
pub fn with_file(command: Command, arguments: &[OsString]) -> Result<Command> {
    let Some(path) = path(arguments) else { return Ok(command) };
    let shown = path.to_string_lossy().into_owned();
    let values = page(&shown).and_then(|text| read(&text)).with_context(|| format!("--config {shown}"))?;
    apply(command, values).with_context(|| format!("--config {shown}"))
}

/// `--scheduler-config FILE`.
pub fn scheduler(path: &str) -> Result<substrate_scheduler::Options> {
    Ok(substrate_scheduler::Options::configured(serde_saphyr::from_str(&page(path)?)?)?)
}

fn page(path: &str) -> Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_BYTES_MAX {
        bail!("{size} bytes, and at most {FILE_BYTES_MAX} are read");
    }
    Ok(std::fs::read_to_string(path)?)
}

/// Where the file is, as far as that can be told before the command line is understood.
fn path(arguments: &[OsString]) -> Option<OsString> {
    if arguments.get(1).is_none_or(|verb| verb != "up") {
        return None;
    }
    let mut rest = arguments.iter().skip(2);
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().cloned();
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("FLUIDOS_CONFIG")
}

fn read(text: &str) -> Result<Vec<(String, Vec<String>)>> {
    let value: Value = serde_saphyr::from_str(text)?;
    let map = value.as_object().ok_or_else(|| anyhow!("it is no map of flags to values"))?;
    let scalar = |key: &str, value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(anyhow!("{key}: needed a text, number, truth value or list of them")),
    };
    map.iter()
        .map(|(key, value)| {
            let values = match value {
                Value::Array(items) => items.iter().map(|item| scalar(key, item)).collect::<Result<_>>()?,
                other => vec![scalar(key, other)?],
            };
            Ok((key.clone(), values))
        })
        .collect()
}

fn apply(mut command: Command, values: Vec<(String, Vec<String>)>) -> Result<Command> {
    for (key, values) in values {
        let Some(up) = command.find_subcommand("up") else { bail!("there is no verb up") };
        let long = key.replace('_', "-");
        let Some(id) = up.get_arguments().find(|a| a.get_long() == Some(&long)).map(|a| a.get_id().clone()) else {
            let known: Vec<&str> = up.get_arguments().filter_map(clap::Arg::get_long).collect();
            bail!("{key} is no flag of `fluidos up`; there are: {}", known.join(", "));
        };
        command = command
            .mut_subcommand("up", |up| up.mut_arg(id, |argument| argument.default_values(values).required(false)));
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_scheduler_is_configured_by_a_file_or_told_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flt-scheduler.yaml");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let read = scheduler(path.to_str().unwrap());
            read.map(|options| options.profiles[0].name.clone()).map_err(|error| error.to_string())
        };
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        assert_eq!(of(&format!("{head}profiles:\n- schedulerName: flt-mine\n")), Ok("flt-mine".to_owned()));
        let refused = of(&format!("{head}profiles:\n- plugins: {{score: {{enabled: [{{name: Magic}}]}}}}\n"));
        assert_eq!(refused, Err("scheduler configuration: there is no plug-in \"Magic\"".to_owned()));
        assert!(of(&"#".repeat(70_000)).unwrap_err().contains("at most 65536 are read"));
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let values = read("name: farm\npeer: [10.0.0.1:7300, 10.0.0.2:7300]\nno-mdns: true\n").unwrap();
        let values: std::collections::BTreeMap<_, _> = values.into_iter().collect();
        assert_eq!(values["no-mdns"], ["true"]);
        assert_eq!(values["peer"].len(), 2);
        assert!(read("- a").is_err());
        assert!(read("name: {a: b}").unwrap_err().to_string().contains("name"));
        let command = Command::new("fluidos")
            .subcommand(Command::new("up").arg(clap::Arg::new("name").long("name").required(true)));
        let with = apply(command.clone(), vec![("name".into(), vec!["farm".into()])]).unwrap();
        let name = |arguments: &[&str]| {
            let matches = with.clone().get_matches_from(arguments);
            matches.subcommand_matches("up").unwrap().get_one::<String>("name").cloned()
        };
        assert_eq!(name(&["fluidos", "up"]).as_deref(), Some("farm"));
        assert_eq!(name(&["fluidos", "up", "--name", "grid"]).as_deref(), Some("grid"), "the command line counts more");
        assert!(apply(command, vec![("nmae".into(), vec![])]).unwrap_err().to_string().contains("there are: name"));
    }
}

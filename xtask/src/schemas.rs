//! `cargo xtask schemas`: the table of types of the built-in kinds, from upstream's declarations as Debian packs them.
//!
//! The packages come from Debian's moving suite into a scratch directory, with lists of their own: nothing is installed.

mod go;
mod proto;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use crate::machine::{quiet, root, target};

/// Where the table is.
const TABLE: &str = "kube/apiserver/src/schema/types.txt";
/// Where the messages of protobuf are, which are held against the same sources.
const MESSAGES: &str = "kube/apiserver/src/protobuf/messages.txt";
const PACKAGES: &[&str] =
    &["golang-k8s-api-dev", "golang-k8s-apimachinery-dev", "golang-k8s-apiextensions-apiserver-dev"];

/// Options of the task.
#[derive(clap::Args)]
pub struct Schemas {
    /// The version that the table says it is of: `v1.36.4` for packages 0.36.4.
    #[arg(long, value_name = "VERSION")]
    kubernetes: String,
    /// Sources that are there already, down to `k8s.io`, instead of Debian's packages.
    #[arg(long, value_name = "DIRECTORY")]
    sources: Option<PathBuf>,
}

impl Schemas {
    pub fn run(&self) -> Result<()> {
        let sources = match &self.sources {
            Some(given) => given.clone(),
            None => fetch()?,
        };
        let differences = proto::differences(&sources, &root().join(MESSAGES)).map_err(|why| anyhow!(why))?;
        differences.iter().for_each(|line| println!("{line}"));
        anyhow::ensure!(
            differences.is_empty(),
            "{MESSAGES} must say what upstream's tags say ({} lines above)",
            differences.len()
        );
        let table = go::table(&sources, &self.kubernetes).map_err(|why| anyhow!(why))?;
        std::fs::write(root().join(TABLE), &table).with_context(|| format!("cannot write {TABLE}"))?;
        println!("{TABLE}: {} lines, {} KiB", table.lines().count(), table.len() / 1024);
        Ok(())
    }
}

/// Downloads and unpacks the packages; returns where `k8s.io` is.
fn fetch() -> Result<PathBuf> {
    let scratch = target().join("schemas");
    let _ = std::fs::remove_dir_all(&scratch); // what an earlier run left
    for folder in ["lists/partial", "cache/archives/partial", "root", "debs"] {
        std::fs::create_dir_all(scratch.join(folder))?;
    }
    let at = scratch.display();
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    std::fs::write(scratch.join("sources.list"), format!("deb [signed-by={keys}] {} sid main\n", mirror()?))?;
    let options = [
        format!("Dir::Etc::SourceList={at}/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".into(),
        format!("Dir::State::Lists={at}/lists"),
        format!("Dir::Cache={at}/cache"),
        "APT::Sandbox::User=root".into(),
    ];
    let settings = || options.iter().flat_map(|option| ["-o", option.as_str()]);
    quiet("apt-get", &settings().chain(["update"]).collect::<Vec<_>>())?;
    // `apt-get download` writes where it stands, and all tasks stand at the root.
    let debs = scratch.join("debs");
    let download = format!("cd {} && exec apt-get \"$@\"", debs.display());
    let arguments = ["-c", &download, "sh"].into_iter().chain(settings()).chain(["download"]);
    quiet("sh", &arguments.chain(PACKAGES.iter().copied()).collect::<Vec<_>>())?;
    for deb in std::fs::read_dir(&debs)? {
        let deb = deb?.path();
        quiet("dpkg", &["-x", &deb.to_string_lossy(), &scratch.join("root").to_string_lossy()])?;
    }
    Ok(scratch.join("root/usr/share/gocode/src/k8s.io"))
}

/// The mirror that this machine uses.
fn mirror() -> Result<String> {
    let path = "/etc/apt/sources.list.d/debian.sources";
    let text = std::fs::read_to_string(path).with_context(|| format!("{path}: this task needs Debian"))?;
    let uri = text.lines().find_map(|line| line.strip_prefix("URIs:"));
    uri.map(|uri| uri.trim().to_owned()).with_context(|| format!("{path} names no mirror (URIs:)"))
}

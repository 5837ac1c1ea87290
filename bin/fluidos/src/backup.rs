//! `fluidos backup` and `fluidos restore FILE`: all that makes a node this node, in one file, taken while it runs.
//!
//! ```text
//! tar   backup.json          what it is: format, time, revision
//!       store.snapshot       every object, as of one moment; checked record by record
//!       identity/ pki/ log/  its key, its authority, what it has signed
//! ```
//!
//! Images, containers and the machine's network are not in it: they are made anew. **It holds the node's keys**, so it is written with
//! mode 0600; whoever has it is the node. Of what it brings nothing is believed: names, kinds and sizes are checked before a byte is written.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use futures::TryStreamExt;
use serde_json::{Value, json};
use substrate_store::{Error, Store};

use crate::connection::{self, with};
use crate::node::{directory, encryption};

const ABOUT: &str = "backup.json";
const SNAPSHOT: &str = "store.snapshot";
/// Folders of a node's directory that go along; the first has the key.
const FOLDERS: &[&str] = &["identity", "pki", "log"];
/// A file of these folders: a log of some million entries.
const FILE_BYTES_MAX: u64 = 1 << 30;
const FILES_MAX: usize = 10_000;

/// What is saved, and where.
#[derive(clap::Args, Clone, Debug)]
pub struct Backup {
    /// The file that is written; it must not exist.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Whose directory, and what opens its store.
#[derive(clap::Args, Clone, Debug)]
pub struct Place {
    /// The node's directory.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_parser = crate::cli::up::directory, default_value = "/var/lib/fluidos")]
    pub data_dir: PathBuf,
    /// The keys, where values are encrypted on the disk: as of `fluidos up`. A node that runs has them.
    #[arg(long, env = "FLUIDOS_ENCRYPTION_CONFIG", value_name = "FILE")]
    pub encryption_config: Option<PathBuf>,
}

/// Writes a backup.
pub fn run(backup: &Backup) -> Result<()> {
    let (revision, bytes) = write(&backup.file, &backup.place)?;
    let shown = backup.file.display();
    println!("{shown}: revision {revision}, {bytes} bytes. It holds the node's keys: whoever has it is the node.");
    Ok(())
}

/// Writes the backup of a directory; its revision, and its bytes.
pub fn write(file: &Path, place: &Place) -> Result<(u64, u64)> {
    let directory = &place.data_dir;
    if !directory.join("identity").exists() || !directory.join("store").exists() {
        bail!("--data-dir {}: no node has run there", directory.display());
    }
    if file.exists() {
        bail!("{} exists, and is not overwritten", file.display());
    }
    let part = |extension: &str| PathBuf::from(format!("{}.{extension}", file.display()));
    let (snapshot, archive) = (Scratch::new(part("snapshot"))?, Scratch::new(part("new"))?);
    let revision = snapshot_of(place, &snapshot)?;
    let bytes = pack(directory, revision, &snapshot, &archive)?;
    std::fs::rename(&archive.path, file).with_context(|| format!("write {}", file.display()))?;
    Ok((revision, bytes))
}

/// A file that goes unless it has got its name.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // renamed, or of no use
    }
}

/// The store as of one moment: of the node that runs, or of the directory if none does.
fn snapshot_of(place: &Place, target: &Scratch) -> Result<u64> {
    let mut file = &target.file;
    match Store::open_sealed(&place.data_dir.join("store"), encryption::sealing(place.encryption_config.as_deref())?) {
        Ok(store) => {
            store.snapshot(&mut file)?;
        }
        Err(Error::InUse { .. }) => with(of_running(&place.data_dir, file))?,
        Err(error) => return Err(error).with_context(|| format!("--data-dir {}", place.data_dir.display())),
    }
    // What was written is what can be read again; a stream that broke off is no backup.
    file.rewind()?;
    Store::verify(&mut file).context("the snapshot did not come whole")
}

async fn of_running(directory: &Path, mut file: &File) -> Result<()> {
    let path = directory.join("kubeconfig");
    let mut connection = connection::Connection::default();
    connection.kubeconfig = Some(path.clone());
    let client = connection.client().await?;
    let request = http::Request::get("/snapshot").body(kube::client::Body::empty())?;
    let response = client.send(request).await.with_context(|| format!("ask the node ({})", path.display()))?;
    if !response.status().is_success() {
        bail!("the node refuses: GET /snapshot is {}", response.status());
    }
    let mut chunks = http_body_util::BodyDataStream::new(response.into_body());
    while let Some(chunk) = chunks.try_next().await.map_err(|e| anyhow!("the snapshot broke off: {e}"))? {
        file.write_all(&chunk)?;
    }
    Ok(())
}

fn pack(directory: &Path, revision: u64, snapshot: &Scratch, archive: &Scratch) -> Result<u64> {
    let mut tar = tar::Builder::new(&archive.file);
    let about = json!({ "format": directory::FORMAT, "revision": revision, "time": jiff::Timestamp::now() });
    let about = serde_json::to_vec(&about)?;
    let mut entry = |path: &Path, size: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        tar.append_data(&mut header, path, content).with_context(|| format!("write {}", path.display()))
    };
    entry(Path::new(ABOUT), about.len() as u64, &mut &about[..])?;
    let mut file = &snapshot.file;
    file.rewind()?;
    entry(Path::new(SNAPSHOT), file.metadata()?.len(), &mut file)?;
    for folder in FOLDERS {
        for path in files(&directory.join(folder), 0)? {
            let mut file = File::open(&path).with_context(|| path.display().to_string())?;
            let size = file.metadata()?.len();
            // It may grow meanwhile: what was there when it was looked at is whole records.
            entry(path.strip_prefix(directory)?, size, &mut (&mut file).take(size))?;
        }
    }
    tar.into_inner()?;
    archive.file.sync_all()?;
    Ok(archive.file.metadata()?.len())
}

/// The files of a folder, which need not be there.
fn files(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() && depth < 3 => found.extend(files(&entry.path(), depth + 1)?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

/// Makes a node's directory of a backup. It must be empty, or absent.
pub fn restore(file: &Path, place: &Place) -> Result<()> {
    let directory = &place.data_dir;
    let shown = directory.display();
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("--data-dir {shown} is not empty, and nothing in it is overwritten; give another, or move it away");
    }
    let sealing = encryption::sealing(place.encryption_config.as_deref())?;
    let mut new = directory.clone().into_os_string();
    new.push(".restoring");
    let new = PathBuf::from(new);
    if new.exists() {
        bail!("{} exists: of a restoration that did not end; remove it", new.display());
    }
    directory::prepare(&new)?;
    let made = unpack(file, &new).and_then(|about| {
        let snapshot = new.join(SNAPSHOT);
        let mut source = File::open(&snapshot).with_context(|| format!("{} has no {SNAPSHOT}", file.display()))?;
        Store::restore(&new.join("store"), &mut source, &sealing).with_context(|| file.display().to_string())?;
        std::fs::remove_file(&snapshot)?;
        Ok(about)
    });
    let about = made.inspect_err(|_| drop(std::fs::remove_dir_all(&new)))?;
    let _ = std::fs::remove_dir(directory); // it is empty, or absent
    std::fs::rename(&new, directory).with_context(|| format!("make {shown}"))?;
    println!(
        "{shown}: as of {} (revision {}). Start it with fluidos up; never both it and the old one.",
        word(&about["time"]),
        about["revision"]
    );
    Ok(())
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn unpack(file: &Path, target: &Path) -> Result<Value> {
    let shown = file.display();
    let mut archive = tar::Archive::new(File::open(file).with_context(|| shown.to_string())?);
    let mut about = None;
    for (n, entry) in archive.entries().with_context(|| shown.to_string())?.enumerate() {
        let mut entry = entry.with_context(|| format!("{shown} is no backup"))?;
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let known = FOLDERS.iter().any(|folder| path.starts_with(folder) && path != Path::new(folder))
            || path == Path::new(ABOUT)
            || path == Path::new(SNAPSHOT);
        let small = entry.size() <= FILE_BYTES_MAX || path == Path::new(SNAPSHOT);
        if !(plain && known && small && entry.header().entry_type().is_file() && n < FILES_MAX) {
            bail!("{shown}: {} does not belong into a backup; nothing was made", path.display());
        }
        if path == Path::new(ABOUT) {
            let mut text = String::new();
            (&mut entry).take(4096).read_to_string(&mut text)?;
            let said: Value = serde_json::from_str(&text).with_context(|| format!("{shown}: {ABOUT}"))?;
            if said["format"] != json!(directory::FORMAT) {
                bail!("{shown} is of format {}; this version restores format {}", said["format"], directory::FORMAT);
            }
            about = Some(said);
            continue;
        }
        let path = target.join(path);
        path.parent().map(std::fs::create_dir_all).transpose()?;
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        std::io::copy(&mut entry, &mut out).with_context(|| format!("{shown}: {}", path.display()))?;
        out.sync_all()?;
    }
    about.ok_or_else(|| anyhow!("{shown} is no backup: it has no {ABOUT}"))
}

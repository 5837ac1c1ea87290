//! **Settling**: an unpacked layer is used at once, and is on the disk a while later. What was not there when the machine went down is unpacked
//! anew from its blob, which was.
//!
//! ```text
//! unpack ─▶ settling/LAYER: which boot ─▶ layers/LAYER ─▶ used
//!                 └─ syncfs, beside ─▶ gone
//! open   ─▶ settling/LAYER of this boot: syncfs, beside · of another: layers/LAYER goes
//! ```
//!
//! Were its files synced one by one before a pod starts, a large image would take a minute on the disk of a small device.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::FlockArg;
use nix::unistd::syncfs;

use super::Error;
use super::store::ImageStore;

/// Of each boot another one.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn boot() -> Result<String, Error> {
    fs::read_to_string(BOOT_ID).map_err(Error::io("read", BOOT_ID))
}

/// A layer is about to have its name.
///
/// # Errors
/// The disk does not take the note.
pub(crate) fn begin(root: &Path, layer: &str) -> Result<(), Error> {
    let note = root.join("settling").join(layer);
    engine_host::files::write_durably(&note, boot()?.as_bytes(), 0o600).map_err(Error::io("write", note))
}

/// Brings these layers to the disk in a thread of its own. What does not get there is looked at again when the store is opened.
pub(crate) fn beside(store: &ImageStore, layers: Vec<String>) {
    if layers.is_empty() {
        return;
    }
    let store = store.clone();
    std::thread::spawn(move || {
        if let Err(error) = settle(&store.0.root, &layers) {
            tracing::warn!(%error, "bring layers of images to the disk");
        }
    });
}

fn settle(root: &Path, layers: &[String]) -> io::Result<()> {
    syncfs(File::open(root.join("layers"))?)?;
    for layer in layers {
        absent(fs::remove_file(root.join("settling").join(layer)))?;
    }
    Ok(())
}

/// Removes the layers that an earlier boot may have left in parts, and brings those of this one to the disk.
///
/// # Errors
/// A file cannot be read or removed.
pub(crate) fn recover(store: &ImageStore) -> Result<(), Error> {
    let (settling, boot) = (store.0.root.join("settling"), boot()?);
    let notes = || -> Result<Vec<(String, bool)>, Error> {
        let mut notes = Vec::new();
        for entry in fs::read_dir(&settling).map_err(Error::io("list", &settling))? {
            let entry = entry.map_err(Error::io("list", &settling))?;
            // Another process may be done with it meanwhile.
            if let (Ok(name), Ok(of)) = (entry.file_name().into_string(), fs::read_to_string(entry.path())) {
                notes.push((name, of == boot));
            }
        }
        Ok(notes)
    };
    if notes()?.iter().any(|(_, is_of_this_boot)| !is_of_this_boot) {
        // Nobody unpacks meanwhile, so what is another boot's now is nobody's.
        let _all = store.lock(FlockArg::LockExclusive)?;
        for (layer, _) in notes()?.into_iter().filter(|(_, is_of_this_boot)| !is_of_this_boot) {
            let (path, note) = (store.layers_dir().join(&layer), settling.join(&layer));
            absent(fs::remove_dir_all(&path)).map_err(Error::io("remove", path))?;
            absent(fs::remove_file(&note)).map_err(Error::io("remove", note))?;
        }
    }
    beside(store, notes()?.into_iter().map(|(layer, _)| layer).collect());
    Ok(())
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

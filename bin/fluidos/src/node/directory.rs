//! The node's directory: only its owner may enter, and it says how it is laid out.
//!
//! ```text
//! DIR/format     the number of the layout: a newer version backs it up and migrates it, an older one refuses it
//! ```

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::backup::{self, Place};

/// The layout that this version writes.
pub const FORMAT: u32 = 1;

/// How a directory of one layout becomes one of the next; the first is from layout 1 to 2.
type Migration = fn(&Path) -> Result<()>;
const MIGRATIONS: &[Migration] = &[];

/// Makes the directory if it is absent, and refuses one that others can read.
pub fn prepare(path: &Path) -> Result<()> {
    let shown = path.display();
    if !path.exists() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).with_context(|| format!("--data-dir {shown}: cannot make it"))?;
    }
    let metadata = std::fs::metadata(path).with_context(|| format!("--data-dir {shown}"))?;
    if !metadata.is_dir() {
        bail!("--data-dir {shown} is not a directory");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("--data-dir {shown} has mode {mode:03o}, so others could read the node's key; run: chmod 700 {shown}");
    }
    Ok(())
}

/// Brings the directory to the layout of this version: backed up first, and each step noted when it is done.
pub fn migrate(place: &Place) -> Result<()> {
    to(place, FORMAT, MIGRATIONS)
}

fn to(place: &Place, known: u32, migrations: &[Migration]) -> Result<()> {
    let (path, shown) = (place.data_dir.join("format"), place.data_dir.display());
    let note = |format: u32| {
        substrate_apiserver::tls::write_private(&path, format!("{format}\n").as_bytes())
            .with_context(|| format!("write {}", path.display()))
    };
    let said = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return note(known),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let Ok(found) = said.trim().parse::<u32>() else { bail!("{}: {said:?} is no number of a layout", path.display()) };
    if found > known {
        bail!(
            "--data-dir {shown} is of format {found}, of a newer version; this one knows format {known}: use the newer one"
        );
    }
    if found == known {
        return Ok(());
    }
    let backup = place.data_dir.with_extension(format!("format-{found}.tar"));
    let (_, bytes) = backup::write(&backup, place).context("back it up before it is migrated")?;
    eprintln!("{shown} is of format {found}: backed up as {} ({bytes} bytes), and migrated", backup.display());
    for (from, migration) in (found..known).zip(migrations.iter().skip(found as usize - 1)) {
        migration(&place.data_dir).with_context(|| format!("migrate {shown} from format {from}"))?;
        note(from + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_directory_is_saved_before_it_is_migrated_step_by_step() {
        let home = tempfile::tempdir().unwrap();
        let data_dir = home.path().join("node");
        prepare(&data_dir).unwrap();
        let place = Place { data_dir: data_dir.clone(), encryption_config: None };
        let known =
            |known, migrations: &[Migration]| to(&place, known, migrations).map_err(|error| format!("{error:#}"));
        known(1, &[]).unwrap();
        fluidos_identity::NodeKey::load_or_create(&data_dir.join("identity")).unwrap();
        drop(substrate_store::Store::open(&data_dir.join("store")).unwrap());
        let first: Migration = |directory| Ok(std::fs::write(directory.join("first"), "")?);
        let fails: Migration = |directory| bail!("no: {}", directory.join("first").exists());
        let told = known(3, &[first, fails]).unwrap_err();
        assert!(told.contains("from format 2: no: true"), "{told}");
        let format = || std::fs::read_to_string(data_dir.join("format")).unwrap();
        assert_eq!(format(), "2\n", "what was done is not done again");
        assert!(home.path().join("node.format-1.tar").exists());
        let second: Migration = |directory| Ok(std::fs::rename(directory.join("first"), directory.join("second"))?);
        known(3, &[fails, second]).unwrap();
        assert!(data_dir.join("second").exists() && format() == "3\n");
        assert!(home.path().join("node.format-2.tar").exists());
        assert!(known(2, &[fails]).unwrap_err().contains("is of format 3, of a newer version"));
    }
}

//! Files of what was made, for who comes later.

use std::fs;
use std::io;
use std::path::Path;

use engine_runtime::Error;
use serde::Serialize;

pub(crate) fn remember(path: &Path, what: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(what).map_err(|e| io_error("write", path)(e.into()))?;
    engine_host::files::write_durably(path, &bytes, 0o600).map_err(io_error("write", path))
}

pub(crate) fn remembered<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

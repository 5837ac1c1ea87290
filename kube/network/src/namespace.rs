//! Network namespaces kept alive by a file.
//!
//! A thread belongs to exactly one network namespace, so entering another is done by a thread of our own that ends
//! afterwards: a thread of a pool would carry the namespace into whatever it runs next.
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::Error;

/// Whether the file holds a namespace. After a restart of the machine it is an empty file again.
pub(crate) fn exists(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Makes a new network namespace and binds it to the file.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    let file = |what, source| Error::file(what, path, source);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| file("create the folder of", error))?;
    }
    File::create(path).map_err(|error| file("create", error))?;
    let target = path.to_owned();
    on_thread("create a network namespace", move || {
        let failed = |what, error: nix::Error| Error::Namespace { path: target.clone(), what, source: error.into() };
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed("unshare", error))?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|error| failed("bind to its file", error))
    })
}

/// Runs `work` in the namespace of the file and answers its result.
pub(crate) fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let path: PathBuf = path.to_owned();
    on_thread("work in a network namespace", move || {
        let failed = |what, source| Error::Namespace { path: path.clone(), what, source };
        let file = File::open(&path).map_err(|error| failed("open", error))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| failed("enter", error.into()))?;
        work()
    })
}

/// Lets go of a namespace and removes its file. It lives on while a process is in it. Absence is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    while exists(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|error| Error::Namespace {
            path: path.to_owned(),
            what: "unmount",
            source: error.into(),
        })?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => Ok(()),
    }
}

fn on_thread<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let thread = std::thread::Builder::new().name("netns".into()).spawn(work);
    let thread = thread.map_err(|error| Error::file("start a thread to", what, error))?;
    thread.join().map_err(|_| Error::Thread(what))?
}

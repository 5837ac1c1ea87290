//! The machine's own programs as a container's root: an empty file system with a read-only view of what holds them, and nothing else.
//!
//! ```text
//! tmpfs   /usr /bin /sbin /lib* ─▶ the machine's, read-only (links stay links)
//!         /etc ─▶ SETTINGS, the machine's, read-only; passwd, group, nsswitch.conf written for the container
//! ```
//!
//! Each is bound by itself: a file system that the machine mounts below one of them stays out, as a view that is read-only at its top alone
//! would leave it writable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;

use super::{file_at, through};
use crate::oci::supervisor::Context;
use crate::oci::supervisor::identity::Identity;
use crate::process::PROGRAMS;
use engine_host::rooted::Rooted;

/// What of `/etc` programs need: libraries, certificates (never `private`, where their keys are), the zone, names of ports.
const SETTINGS: [&str; 15] = [
    "alternatives",
    "ca-certificates/extracted",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Only links, mount points and three small files are in it; who writes there is wrong.
const OPTIONS: &str = "mode=755,size=1m,nr_inodes=4096";
/// Where a user without a home is at home: the one place that is its own.
const HOME: &str = "/tmp";

/// Makes `root` such a root.
pub(super) fn build(root: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some(OPTIONS)).context(|| format!("mount {}", root.display()))?;
    let rooted = Rooted::open(root)?;
    let settings = SETTINGS.iter().map(|name| Path::new("/etc").join(name));
    for path in PROGRAMS.iter().map(|dir| Path::new(dir).to_owned()).chain(settings) {
        show(&rooted, &path).context(|| format!("show the machine's {}", path.display()))?;
    }
    Ok(())
}

/// Writes who is who, with the container's user as all there is beside root and nobody, and gives it a home.
pub(super) fn accounts(rooted: &Rooted, who: &mut Identity) -> io::Result<()> {
    let (uid, gid) = (who.uid, who.gid);
    HOME.clone_into(&mut who.home);
    let user = if uid == 0 { String::new() } else { format!("process:x:{uid}:{gid}::{HOME}:/bin/sh\n") };
    let group = if gid == 0 { String::new() } else { format!("process:x:{gid}:\n") };
    let files = [
        ("passwd", format!("root:x:0:0::{HOME}:/bin/sh\n{user}nobody:x:65534:65534::/:/bin/false\n")),
        ("group", format!("root:x:0:\n{group}nogroup:x:65534:\n")),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_owned(),
        ),
    ];
    let etc = rooted.create_dir_all(Path::new("/etc"))?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    for (name, text) in files {
        // A volume of the pod may be there instead.
        match openat(&etc, name, flags, Mode::from_bits_truncate(0o644)) {
            Err(nix::errno::Errno::EEXIST) => {}
            other => File::from(other?).write_all(text.as_bytes())?,
        }
    }
    Ok(())
}

/// Shows what the machine has at `path` there; nothing when it has nothing.
fn show(rooted: &Rooted, path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_symlink() {
        let (parent, name) = rooted.parent_of(path)?;
        return Ok(symlinkat(&fs::read_link(path)?, &parent, name.as_os_str())?);
    }
    let target = if found.is_dir() { rooted.create_dir_all(path)? } else { file_at(rooted, path)? };
    mount(Some(path), &through(&target), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    // The descriptor names what is now covered: look again, and find the mount.
    let mounted = rooted.open_in(path, OFlag::O_PATH)?;
    mount(None::<&str>, &through(&mounted), None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(None::<&str>, &through(&mounted), None::<&str>, flags | super::kept(&mounted)?, None::<&str>)?)
}

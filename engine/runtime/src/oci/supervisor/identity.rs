//! As whom a container runs: the image's words (`web`, `101`, `web:www`) looked up in the image's own files.
//!
//! Numbers of the pod's security context come first (KEP-127 is not built: no user namespaces). The image's files
//! are hostile; they are read below the root and only their first MiB.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::{User, process};
use engine_host::rooted::Rooted;

/// No honest passwd file is larger; a bound for a hostile one.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// A user in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// Finds out who `user` is in the image below `root`.
pub(super) fn resolve(root: &Rooted, user: &User) -> io::Result<Identity> {
    decide(user, &read(root, "etc/passwd"), &read(root, "etc/group"))
}

/// The same where nobody is root without saying so: who would be gets a number that owns nothing, and so does a group that nobody asked
/// for, with the memberships of the image's root. Pure.
pub(super) fn unprivileged(mut who: Identity, user: &User) -> Identity {
    if user.uid == Some(0) {
        return who;
    }
    if who.uid == 0 {
        let gid = user.gid.unwrap_or(process::USER);
        who = Identity { uid: process::USER, gid, groups: user.groups.clone(), home: "/".to_owned() };
    } else if who.gid == 0 && user.gid.is_none() {
        who.gid = process::USER;
        who.groups.retain(|g| *g != 0 || user.groups.contains(g));
    }
    who.groups.retain(|g| *g != who.gid);
    who.groups.insert(0, who.gid);
    who
}

/// Becomes that user. Needs the rights it gives up.
pub(super) fn become_user(identity: &Identity) -> io::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn decide(user: &User, passwd: &str, group: &str) -> io::Result<Identity> {
    let (name, group_name) = match user.image_user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.image_user.as_str(), None),
    };
    let uid = match (user.uid, name) {
        (Some(uid), _) => Some(uid),
        (None, "") => Some(0),
        (None, name) => name.parse().ok(),
    };
    let entries = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 6);
    let is_it = |f: &Vec<&str>| match uid {
        Some(uid) => f[2].parse() == Ok(uid),
        None => f[0] == name,
    };
    let entry = entries.into_iter().find(is_it);
    let uid = match (uid, &entry) {
        (Some(uid), _) => uid,
        (None, Some(f)) => number(f[2])?,
        (None, None) => {
            return Err(io::Error::other(format!("unable to find user {name}: no matching entries in passwd file")));
        }
    };
    let gid = match (user.gid, group_name, &entry) {
        (Some(gid), _, _) => gid,
        (None, Some(group_name), _) => group_number(group_name, group)?,
        (None, None, Some(f)) => number(f[3])?,
        (None, None, None) => 0,
    };
    let mut groups = user.groups.clone();
    // Membership by name counts only for the image's own user, as engines have it.
    if let Some(f) = entry.as_ref().filter(|_| !user.only_these_groups) {
        groups.extend(memberships(f[0], group));
    }
    groups.retain(|g| *g != gid);
    groups.sort_unstable();
    groups.dedup();
    groups.insert(0, gid);
    let home = entry.map(|f| f[5].to_owned()).filter(|h| h.starts_with('/')).unwrap_or_else(|| "/".to_owned());
    Ok(Identity { uid, gid, groups, home })
}

fn memberships(user: &str, group: &str) -> Vec<u32> {
    let fields = group.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    fields.filter(|f| f[3].split(',').any(|m| m == user)).filter_map(|f| f[2].parse().ok()).take(64).collect()
}

fn group_number(name: &str, group: &str) -> io::Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let mut fields = group.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 3);
    match fields.find(|f| f[0] == name) {
        Some(f) => number(f[2]),
        None => Err(io::Error::other(format!("unable to find group {name}: no matching entries in group file"))),
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| io::Error::other(format!("{text:?} in the image's passwd or group file is no id")))
}

/// A file of the image, or nothing when it has none.
fn read(root: &Rooted, path: &str) -> String {
    let mut text = Vec::new();
    // O_NONBLOCK: a FIFO in place of the file must not hold us up.
    if let Ok(fd) = root.open_in(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        let _ = File::from(fd).take(FILE_SIZE_MAX).read_to_end(&mut text); // a directory or device reads as nothing
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww:x:102:\nextra:x:103:web,other\n";

    fn check(user: &User) -> String {
        match decide(user, PASSWD, GROUP) {
            Ok(i) => format!("{}:{} {:?} {}", i.uid, i.gid, i.groups, i.home),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn names_and_numbers() {
        let image = |text: &str| User { image_user: text.to_owned(), ..User::default() };
        assert_eq!(check(&image("")), "0:0 [0] /root");
        assert_eq!(check(&image("web")), "101:102 [102, 103] /srv");
        assert_eq!(check(&image("101")), "101:102 [102, 103] /srv");
        assert_eq!(check(&image("7")), "7:0 [0] /");
        assert_eq!(check(&image("web:www")), "101:102 [102, 103] /srv");
        assert_eq!(check(&image("web:9")), "101:9 [9, 103] /srv");
        assert_eq!(check(&image("nobody")), "unable to find user nobody: no matching entries in passwd file");
    }

    #[test]
    fn nobody_is_root_unasked() {
        let check = |user: &User| {
            let i = unprivileged(decide(user, PASSWD, "disk:x:6:root\n").unwrap(), user);
            format!("{}:{} {:?}", i.uid, i.gid, i.groups)
        };
        let image = |text: &str| User { image_user: text.to_owned(), ..User::default() };
        assert_eq!(check(&image("")), "65532:65532 [65532]");
        assert_eq!(check(&image("root")), "65532:65532 [65532]");
        assert_eq!(check(&image("web")), "101:102 [102]");
        assert_eq!(check(&image("7")), "7:65532 [65532]", "whose group would be root's");
        assert_eq!(check(&User { uid: Some(0), ..image("web") }), "0:0 [0, 6]", "expressly");
        assert_eq!(check(&User { gid: Some(9), groups: vec![6], ..image("") }), "65532:9 [9, 6]");
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let user = User {
            image_user: "web".into(),
            uid: Some(1000),
            gid: Some(2000),
            groups: vec![3000, 2000],
            ..User::default()
        };
        assert_eq!(check(&user), "1000:2000 [2000, 3000] /");
        let strict = User { image_user: "web".into(), groups: vec![3000], only_these_groups: true, ..User::default() };
        assert_eq!(check(&strict), "101:102 [102, 3000] /srv");
    }
}

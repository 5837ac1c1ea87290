//! What of the machine is in a container.

use std::path::PathBuf;

use engine_runtime::{Mount, SandboxConfig};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Claim, World};

pub async fn mounts_stay_inside(world: &World) {
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("evil")).unwrap();
    let mount = |sub: Option<&str>, to: &str, read_only| Mount {
        sub_path: sub.map(PathBuf::from),
        read_only,
        ..Mount::new(&volume, to)
    };
    let mut config = world.container(
        "cat /data/file; echo; touch /data/new 2>/dev/null || echo refused; cat /one; echo; touch /rw/made; ls /rw",
    );
    config.user.uid = Some(0);
    config.mounts =
        vec![mount(None, "/data", true), mount(Some("file"), "/one", true), mount(Some("sub/dir"), "/rw", false)];
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("content\n") && text.contains("refused\ncontent\nmade\n"), "{text}");
    assert!(volume.join("sub/dir/made").exists());
    if world.claims(Claim::PrivateMounts) {
        let seen = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!seen.contains(world.dir.path().to_str().unwrap()), "{seen}");
    }

    let mut config = world.container("ls /stolen/shadow && echo escaped");
    config.mounts = vec![mount(Some("evil"), "/stolen", true)];
    let why = world.refused(&config).await;
    assert!(why.contains("mount /stolen"), "{why}");
}

/// A mount of the machine that goes with its test, whatever becomes of it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

pub async fn mounts_follow_the_host(world: &World) {
    let (none, volume) = (None::<&str>, world.dir.path().join("shared"));
    std::fs::create_dir(&volume).unwrap();
    mount(Some(&volume), &volume, none, MsFlags::MS_BIND, none).unwrap();
    let _shared = Mounted(volume.clone());
    mount(none, &volume, none, MsFlags::MS_SHARED, none).unwrap();
    for name in ["later", "closed"] {
        std::fs::create_dir(volume.join(name)).unwrap();
    }
    let closed = volume.join("closed");
    mount(Some(&closed), &closed, none, MsFlags::MS_BIND, none).unwrap();
    let _closed = Mounted(closed.clone());
    mount(none, &closed, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    // A new pod: the supervisor of the first one was there before this place was shared.
    let pod = SandboxConfig { pod_uid: "flt-follow".into(), ..world.sandbox_config() };
    world.runtime.sandbox(&pod).await.unwrap();
    let mut config = world.container("until [ -e /go/on ]; do sleep 0.05; done; ls /follows/later /stays/later; true");
    config.mounts = vec![
        Mount { follows_host: true, ..Mount::new(&volume, "/follows") },
        Mount::new(&volume, "/stays"),
        Mount::new(world.dir.path(), "/go"),
    ];
    world.runtime.start("flt-follow", &config).await.unwrap();
    mount(Some("tmpfs"), &volume.join("later"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let _later = Mounted(volume.join("later"));
    std::fs::write(volume.join("later/seen"), "").unwrap();
    std::fs::write(world.dir.path().join("on"), "").unwrap();
    world.ended_in("flt-follow", &config.id).await;
    assert_eq!(world.log(&config), "/follows/later:\nseen\n\n/stays/later:\n");

    // What the machine itself had mounted read-only is so inside.
    let mut config = world.container("touch /closed/x && echo wrote; true");
    config.mounts = vec![Mount::new(&closed, "/closed")];
    let (_, text) = world.output_in("flt-follow", &config).await;
    world.runtime.remove("flt-follow").await.unwrap();
    assert!(text.contains("Read-only file system") && !text.contains("wrote"), "{text}");
}

pub async fn volumes_in_memory(world: &World) {
    let volume = world.dir.path().join("memory");
    let config = SandboxConfig {
        pod_uid: "flt-memory".into(),
        memory_volumes: [(volume.clone(), 1 << 20)].into(),
        ..world.sandbox_config()
    };
    world.runtime.sandbox(&config).await.unwrap();
    let mut full =
        world.container("head -c 3000000 /dev/zero 2>/dev/null > /m/x || echo full; mount | grep -o 'tmpfs on /m'");
    (full.mounts, full.user.uid) = (vec![Mount::new(&volume, "/m")], Some(0));
    let (_, text) = world.output_in("flt-memory", &full).await;
    assert!(text.contains("full\ntmpfs on /m\n"), "{text}");
    world.runtime.remove("flt-memory").await.unwrap();
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(volume.to_str().unwrap()));
}

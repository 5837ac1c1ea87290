//! What a container sees, and what it may do.

use engine_runtime::{SandboxConfig, Seccomp, capabilities};
use serde_json::json;

use crate::{Netns, World};

pub async fn beside_another_container(world: &World) {
    let target = world.container("sleep 100");
    world.start(&target).await;
    let mut config = world.container("ps; exit 6");
    (config.name, config.beside) = ("debug".into(), Some("main".into()));
    let (code, out) = world.output(&config).await;
    assert!(code == 6 && out.contains("sleep 100"), "{code} {out}");
    let mut config = world.container("true");
    config.beside = Some("nobody".into());
    let why = world.refused(&config).await;
    assert!(why.ends_with("unable to find target container nobody"), "{why}");
}

pub async fn processes_are_shared(world: &World) {
    const SHARED: &str = "flt-shared";
    let config = SandboxConfig { pod_uid: SHARED.into(), share_processes: true, ..world.sandbox_config() };
    world.runtime.sandbox(&config).await.unwrap();
    let mut main = world.container("sleep 1000");
    main.name = "main".into();
    world.runtime.start(SHARED, &main).await.unwrap();
    let mut other = world.container("ps");
    other.name = "other".into();
    let (_, text) = world.output_in(SHARED, &other).await;
    assert!(text.contains("sleep 1000"), "{text}");
    world.runtime.remove(SHARED).await.unwrap();
    let (_, alone) = world.output(&world.container("ps")).await;
    assert!(!alone.contains("sleep 1000"), "only where it is asked for: {alone}");
}

pub async fn confined_by_default(world: &World) {
    let script = "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; cat /proc/kcore | head -c 1 | wc -c 2>/dev/null;
        echo x > /proc/sys/kernel/hostname && echo wrote sys; mount -t tmpfs t /tmp && echo mounted; unshare -m true && echo unshared;
        mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk && echo read a disk; touch /sys/x && echo wrote sysfs; ls /proc/1/root/work && echo escaped;
        ls /dev; true";
    let (code, text) = world.output(&world.container(script)).await;
    assert_eq!(code, 0, "{text}");
    for bad in ["wrote sys", "mounted", "unshared", "read a disk", "wrote sysfs", "escaped"] {
        assert!(!text.contains(bad), "{bad}: {text}");
    }
    assert!(text.contains("CapEff:\t00000000a80425fb") && text.contains("CapBnd:\t00000000a80425fb"), "{text}");
    assert!(text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t0"), "{text}");
    assert!(text.contains("null\n") && text.contains("urandom\n") && !text.contains("vda"), "{text}");
}

pub async fn users_and_privileges(world: &World) {
    let mut config = world.container(
        "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo $HOME; touch /tmp/mine && echo wrote",
    );
    config.user.image_user = "web".into();
    config.no_new_privs = true;
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("uid=101(web) gid=102(web) groups=102(web),103(extra)"), "{text}");
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"),
        "{text}"
    );
    assert!(text.ends_with("/\nwrote\n"), "{text}");

    let mut config = world.container("mount -t tmpfs t /tmp && echo mounted; grep Seccomp: /proc/self/status");
    (config.privileged, config.capabilities) = (true, capabilities::all());
    assert_eq!(world.output(&config).await.1, "mounted\nSeccomp:\t0\n");

    let mut config = world.container("touch /x 2>/dev/null || echo refused");
    config.read_only_root = true;
    assert!(world.output(&config).await.1.ends_with("refused\n"));
}

pub async fn profiles_of_others(world: &World) {
    let profile = |default: &str, rules: serde_json::Value| {
        Seccomp::Profile(json!({"defaultAction": default, "syscalls": rules}).to_string())
    };
    let names = ["mkdir", "mkdirat"];
    let no_user = [json!({"index": 1, "value": 0o777, "op": "SCMP_CMP_NE"})];
    for (seccomp, made, code) in [
        (profile("SCMP_ACT_ALLOW", json!([])), true, 0),
        (profile("SCMP_ACT_ALLOW", json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}])), false, 1),
        (
            profile("SCMP_ACT_ALLOW", json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": no_user}])),
            true,
            0,
        ),
        (profile("SCMP_ACT_ALLOW", json!([{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}])), false, 128 + 31),
    ] {
        for no_new_privs in [false, true] {
            let mut config = world.command(&["mkdir", "/tmp/made"]);
            (config.seccomp, config.no_new_privs) = (seccomp.clone(), no_new_privs);
            let (ended, text) = world.output(&config).await;
            assert_eq!(ended, code, "{seccomp:?}: {text}");
            assert_eq!(text.is_empty(), made || code > 128, "{text}");
            assert!(code != 1 || text.contains("No space left on device"), "{text}");
        }
    }
    let mut config = world.container("true");
    config.seccomp = Seccomp::Profile("nonsense".into());
    let why = world.refused(&config).await;
    assert!(why.contains("seccomp"), "{why}");
}

pub async fn settings_of_the_kernel(world: &World) {
    let mut config = SandboxConfig { pod_uid: "flt-sysctl".into(), ..world.sandbox_config() };
    config.sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    world.runtime.sandbox(&config).await.unwrap();
    let look = || world.container("cat /proc/sys/kernel/shm_rmid_forced");
    assert_eq!(world.output_in("flt-sysctl", &look()).await, (0, "1\n".into()));
    world.runtime.remove("flt-sysctl").await.unwrap();
    assert_eq!(world.output(&look()).await, (0, "0\n".into()), "not in another pod");
    config.sysctls = [("kernel.no_such".to_owned(), "1".to_owned())].into();
    let refused = world.runtime.sandbox(&config).await.unwrap_err().to_string();
    assert!(refused.contains("no_such"), "{refused}");
    world.runtime.remove("flt-sysctl").await.unwrap();
}

pub async fn the_pods_own_network(world: &World) {
    let netns = Netns::new();
    let config = SandboxConfig { pod_uid: "flt-net".into(), netns: Some(netns.path()), ..world.sandbox_config() };
    world.runtime.sandbox(&config).await.unwrap();
    let look = || world.container("ip -4 addr show eth0 | grep -o '10[0-9.]*/32'; hostname");
    let told = (0, format!("{}\nflt-host\n", Netns::ADDRESS));
    assert_eq!(world.output_in("flt-net", &look()).await, told);
    world.runtime.remove("flt-net").await.unwrap();
    // It is not the runtime's to take away: the next pod has it.
    let again = SandboxConfig { pod_uid: "flt-net-2".into(), ..config };
    world.runtime.sandbox(&again).await.unwrap();
    assert_eq!(world.output_in("flt-net-2", &look()).await, told);
    world.runtime.remove("flt-net-2").await.unwrap();
}

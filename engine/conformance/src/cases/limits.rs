//! What a container may use.

use engine_runtime::cgroups::Limits;

use crate::{POD, World, wait_for};

pub async fn memory_limit_kills(world: &World) {
    let limits = Limits {
        memory_limit_bytes: Some(16 << 20),
        cpu_limit_milli: Some(500),
        pids_max: Some(32),
        ..Limits::default()
    };
    let script = "head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null; yes | tr a b | sort | head -c 1; exec tail -c 90000000 /dev/zero";
    let mut config = world.container(script);
    config.cgroups = world.cgroups.create("pod/limited", &limits).unwrap();
    config.oom_file = Some(world.cgroups.oom_file("pod/limited"));
    world.start(&config).await;
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert!(finished.oom_killed && finished.exit_code == 137, "{finished:?}");
}

pub async fn limits_hold_what_the_runtime_makes(world: &World) {
    // A shell that cannot fork ends; the other one and what was started stay.
    let mut config = world.container("sh -c 'for i in $(seq 60); do sleep 100 & done'; sleep 100");
    config.cgroups = world.cgroups.create("pod/few", &Limits { pids_max: Some(40), ..Limits::default() }).unwrap();
    world.start(&config).await;
    wait_for(|| world.cgroups.processes("pod/few").is_some_and(|n| n >= 39)).await;
    assert!(world.cgroups.processes("pod/few").unwrap() <= 40);
    assert!(world.cgroups.usage("pod/few").unwrap().0 > 0, "and the account is kept");
    world.runtime.remove(POD).await.unwrap();
    wait_for(|| world.cgroups.processes("pod") == Some(0)).await;
}

pub async fn what_is_written_is_found(world: &World) {
    let config = world.container("head -c 300000 /dev/zero > /tmp/written; echo up; sleep 100");
    world.up(&config).await;
    let layer = world.runtime.writable_layer(POD, &config.id).await.unwrap();
    let written = layer.join("tmp/written");
    assert_eq!(std::fs::metadata(&written).map(|found| found.len()).ok(), Some(300_000), "{}", written.display());
    assert!(!layer.join("bin").exists(), "only what is its own: {}", layer.display());
}

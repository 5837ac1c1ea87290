//! What outlives whom.

use std::path::Path;
use std::time::Duration;

use engine_runtime::Error;

use crate::{POD, Program, World};

pub async fn survives_its_client(world: &World) {
    let config = world.program(Program::Runs);
    let started = world.up(&config).await;
    assert!(started.pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    // Another client, as after a restart, that knows only the directory.
    let again = world.handler.again(world.dir.path());
    assert_eq!(again.list().await.unwrap(), [POD]);
    again.sandbox(&world.sandbox_config()).await.unwrap();
    let mut seen = again.watch(POD).await;
    assert_eq!(seen.borrow().containers, [started]);
    assert!(seen.borrow().alive);
    again.signal(POD, &config.id, 15).await.unwrap();
    let wait = seen.wait_for(|o| o.containers[0].finished.is_some());
    let seen = tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap().containers[0].clone();
    assert_eq!(seen.finished.as_ref().unwrap().exit_code, 143);
    assert_eq!(world.ended(&config.id).await, seen, "both are told the same");
}

pub async fn speaks_on_without_its_client(world: &World) {
    let config = world.container("echo before; sleep 1; echo after; exit 9");
    world.start(&config).await;
    let again = world.handler.again(world.dir.path());
    let mut seen = again.watch(POD).await;
    let wait = seen.wait_for(|o| o.containers[0].finished.is_some());
    let seen = tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap().containers[0].clone();
    assert_eq!(seen.finished.unwrap().exit_code, 9);
    assert_eq!(world.log(&config), "before\nafter\n");
}

pub async fn forget_and_remove(world: &World) {
    let running = world.program(Program::Runs);
    let pid = world.up(&running).await.pid.unwrap();
    assert!(matches!(world.runtime.forget(POD, &running.id).await, Err(Error::Refused(_))));
    let ended = world.program(Program::Ends);
    world.output(&ended).await;
    world.runtime.forget(POD, &ended.id).await.unwrap();
    world.runtime.forget(POD, &ended.id).await.unwrap();
    let seen = world.runtime.watch(POD).await.borrow().clone();
    assert!(seen.containers.iter().all(|run| run.id != ended.id) && seen.containers.len() == 1, "{seen:?}");
    assert!(ended.log.exists(), "its log is not the runtime's to take");
    world.runtime.remove(POD).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    world.runtime.remove(POD).await.unwrap();
    assert!(world.runtime.list().await.unwrap().is_empty());
    assert!(!world.runtime.watch(POD).await.borrow().alive);
}

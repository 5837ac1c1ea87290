//! What a container says, and how it ends.

use engine_runtime::Error;

use crate::{Claim, POD, Program, World, wait_for};

pub async fn programs_say_and_end(world: &World) {
    let config = world.program(Program::Says);
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 0, "{text}");
    let raw = std::fs::read_to_string(&config.log).unwrap();
    assert!(raw.contains(" stdout F hello\n") && raw.contains(" stderr F to stderr\n"), "{raw}");
    assert_eq!(world.output(&world.program(Program::Ends)).await, (7, String::new()));
}

pub async fn what_is_missing_is_told(world: &World) {
    let config = world.program(Program::Missing);
    let why = world.refused(&config).await;
    let program = &config.args[0];
    assert!(why.contains(world.handler.words().missing) && why.contains(program), "{why}");
    let running = world.program(Program::Runs);
    world.up(&running).await;
    // A name is used once, and the first run goes on.
    world.runtime.start(POD, &running).await.expect_err("it was started before");
    let seen = world.runtime.watch(POD).await.borrow().clone();
    assert!(seen.containers.iter().any(|c| c.id == running.id && c.finished.is_none()), "{seen:?}");
    let nowhere = world.runtime.start("flt-none", &world.program(Program::Says)).await;
    assert!(matches!(nowhere, Err(Error::Gone { .. })), "{nowhere:?}");
}

pub async fn ends_when_told(world: &World) {
    let config = world.program(Program::Runs);
    world.up(&config).await;
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    let finished = world.ended(&config.id).await.finished.unwrap();
    assert_eq!((finished.exit_code, finished.signal, finished.oom_killed), (143, 0, false));
    world.runtime.signal(POD, &config.id, 15).await.unwrap(); // it has ended: fine
    let config = world.program(Program::Runs);
    world.up(&config).await;
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    let finished = world.ended(&config.id).await.finished.unwrap();
    let signal = if world.claims(Claim::SignalNumber) { 9 } else { 0 };
    assert_eq!((finished.exit_code, finished.signal, finished.oom_killed), (137, signal, false));
}

pub async fn exit_code_and_logs(world: &World) {
    let config = world.container("echo $GREETING; echo bad >&2; hostname; echo $$; echo -n end; exit 7");
    let (code, text) = world.output(&config).await;
    assert_eq!(code, 7);
    // Two streams are two pipes: their order between each other is not kept.
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1", "bad", "end", "flt-host", "hello"]);
    let raw = std::fs::read_to_string(&config.log).unwrap();
    assert!(raw.contains(" stderr F bad\n") && raw.contains(" stdout F hello\n"), "{raw}");
}

pub async fn what_cannot_start_says_why(world: &World) {
    let why = world.refused(&world.command(&["/etc"])).await;
    assert!(why.contains(world.handler.words().directory) && why.contains("/etc"), "{why}");
    let mut config = world.container("true");
    config.user.image_user = "ghost".into();
    let why = world.refused(&config).await;
    assert!(why.contains(world.handler.words().ghost), "{why}");
}

pub async fn signals_arrive(world: &World) {
    let config = world.container("trap 'echo got it; exit 3' TERM; echo up; while true; do sleep 0.05; done");
    world.up(&config).await;
    world.runtime.signal(POD, &config.id, 15).await.unwrap();
    assert_eq!(world.ended(&config.id).await.finished.unwrap().exit_code, 3);
    assert_eq!(world.log(&config), "up\ngot it\n");
}

pub async fn logs_are_set_aside(world: &World) {
    let script = "yes 0123456789012345678901234567890123456789 | head -c 13000000; echo; echo last; sleep 100";
    let config = world.container(script);
    world.start(&config).await;
    let _watched = world.runtime.watch(POD).await;
    let aside = config.log.with_file_name(format!("{}.1", config.log.file_name().unwrap().to_str().unwrap()));
    wait_for(|| aside.exists()).await;
    let ends = |path| std::fs::read_to_string(path).is_ok_and(|text| text.ends_with(" last\n"));
    wait_for(|| ends(&config.log) || ends(&aside)).await;
}

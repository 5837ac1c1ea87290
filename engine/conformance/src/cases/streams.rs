//! Commands in running containers, and who joins them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use engine_runtime::Error;
use engine_session::{ExecOptions, ExecOutput, ExecSession, TerminalSize};

use crate::{POD, World, last, words};

pub async fn exec_with_streams(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let (out, err, last) =
        world.exec(&config.id, words(&["sh", "-c", "echo out $GREETING; echo err >&2; exit 5"]), None).await;
    assert_eq!((out.as_str(), err.as_str(), last), ("out hello\n", "err\n", ExecOutput::Exit(5)));
    let cat = ExecOptions { stdin: true, ..words(&["cat"]) };
    let (out, _, last) = world.exec(&config.id, cat, Some("through")).await;
    assert_eq!((out.as_str(), last), ("through", ExecOutput::Exit(0)));
    let large = words(&["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]);
    let (out, _, last) = world.exec(&config.id, large, None).await;
    assert_eq!((out.len(), last), (3_000_000, ExecOutput::Exit(0)), "nothing is lost");
    let (out, _, _) = world.exec(&config.id, words(&["ps"]), None).await;
    assert!(out.contains("sleep 100") && out.lines().count() < 5, "sees only the container: {out}");
    // Some runtimes know it before there is a session, others when it has begun.
    let why = match world.runtime.exec(POD, &config.id, &words(&["nope"])).await {
        Err(Error::Refused(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(mut session) => match crate::last(&mut session).await {
            ExecOutput::Failed(why) => why,
            other => panic!("{other:?}"),
        },
    };
    assert!(why.contains("not found in $PATH"), "{why}");
    let gone = world.runtime.exec(POD, &"f".repeat(64), &words(&["ls"])).await;
    assert!(matches!(&gone, Err(Error::Refused(why)) if why.contains("is not running")));
}

pub async fn exec_with_terminal(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let options = ExecOptions { tty: true, stdin: true, stderr: false, ..words(&["sh"]) };
    let mut session = world.runtime.exec(POD, &config.id, &options).await.unwrap();
    session.resize.send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.stdin.send(Bytes::from_static(b"stty size; tty; exit 4\n")).await.unwrap();
    let mut out = String::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(10), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => out.push_str(&String::from_utf8_lossy(&b)),
            Ok(Some(last)) => {
                assert_eq!(last, ExecOutput::Exit(4), "{out}");
                break;
            }
            other => panic!("{other:?} after {out:?}"),
        }
    }
    assert!(out.contains("45 123") && out.contains("/dev/pts/0"), "{out}");

    let mut config = world.container("tty; echo to a terminal");
    config.tty = true;
    assert_eq!(world.output(&config).await, (0, "/dev/pts/0\nto a terminal\n".into()));
}

/// Reads what the container says, until it is `text`.
async fn hear(session: &mut ExecSession, text: &str) {
    let mut said = String::new();
    while !said.contains(text) {
        match tokio::time::timeout(Duration::from_secs(10), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => said.push_str(&String::from_utf8_lossy(&b)),
            Ok(Some(ExecOutput::Stderr(b))) => said.push_str(&format!("error: {}", String::from_utf8_lossy(&b))),
            other => panic!("{other:?} after {said:?}, needed {text:?}"),
        }
    }
}

pub async fn attached_to_pipes(world: &World) {
    let echo = "echo before; while read line; do echo got $line; echo no $line >&2; done; echo end; exit 3";
    let mut config = world.container(echo);
    config.stdin = true;
    world.start(&config).await;
    // Two at once; one goes, and the container stays.
    let (mut one, mut two) = (world.attach(&config.id, false).await, world.attach(&config.id, false).await);
    one.stdin.send(Bytes::from_static(b"a\n")).await.unwrap();
    hear(&mut one, "got a\n").await;
    hear(&mut two, "got a\n").await;
    drop((one, two));
    let mut three = world.attach(&config.id, false).await;
    three.stdin.send(Bytes::from_static(b"b\n")).await.unwrap();
    hear(&mut three, "error: no b\n").await;
    world.runtime.signal(POD, &config.id, 9).await.unwrap();
    assert_eq!(last(&mut three).await, ExecOutput::Exit(137));
    // Two streams are two pipes: their order between each other is not kept.
    let text = world.log(&config);
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["before", "got a", "got b", "no a", "no b"], "the log has it all");
    let gone = world.runtime.attach(POD, &config.id, &words(&[])).await;
    assert!(matches!(&gone, Err(Error::Refused(why)) if why.contains("is not running")));

    let mut config = world.container(echo);
    (config.stdin, config.stdin_once) = (true, true);
    world.start(&config).await;
    let ExecSession { stdin, resize, output } = world.attach(&config.id, false).await;
    stdin.send(Bytes::from_static(b"c\n")).await.unwrap();
    drop(stdin);
    let (stdin, _) = tokio::sync::mpsc::channel(1);
    let mut session = ExecSession { stdin, resize, output };
    hear(&mut session, "end\n").await;
    assert_eq!(last(&mut session).await, ExecOutput::Exit(3), "its input ended with who was attached");

    let (code, out) = world.output(&world.container("cat; echo none")).await;
    assert_eq!((code, out.as_str()), (0, "none\n"), "without standard input there is nothing to read");
}

pub async fn attached_to_a_terminal(world: &World) {
    let mut config = world.container("exec sh");
    (config.tty, config.stdin) = (true, true);
    world.start(&config).await;
    let mut session = world.attach(&config.id, true).await;
    session.resize.send(TerminalSize { width: 99, height: 33 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.stdin.send(Bytes::from_static(b"stty size\n")).await.unwrap();
    hear(&mut session, "33 99").await;
    drop(session);
    let mut again = world.attach(&config.id, true).await;
    again.stdin.send(Bytes::from_static(b"exit 4\n")).await.unwrap();
    assert_eq!(last(&mut again).await, ExecOutput::Exit(4));
}

/// Who does not read loses nothing, and costs the supervisor no memory.
pub async fn a_slow_reader_holds_up(world: &World) {
    let config = world.container("sleep 0.3; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end");
    world.start(&config).await;
    let mut session = world.attach(&config.id, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = world.runtime.watch(POD).await.borrow().containers.clone();
    assert!(now.iter().all(|c| c.finished.is_none()), "more than all buffers take: it waits");
    let (mut bytes, mut tail) = (0, Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(30), session.output.recv()).await {
            Ok(Some(ExecOutput::Stdout(b))) => {
                bytes += b.len();
                tail = b.to_vec();
            }
            Ok(Some(last)) => break assert_eq!(last, ExecOutput::Exit(0)),
            other => panic!("{other:?} after {bytes} bytes"),
        }
    }
    assert_eq!((bytes, tail.ends_with(b"end\n")), (3_000_005, true));
}

pub async fn dropping_a_session_ends_the_command(world: &World) {
    let config = world.container("sleep 100");
    world.start(&config).await;
    let session = world.runtime.exec(POD, &config.id, &words(&["sleep", "77"])).await.unwrap();
    let (out, ..) = world.exec(&config.id, words(&["ps"]), None).await;
    assert!(out.contains("sleep 77"), "{out}");
    drop(session);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (out, ..) = world.exec(&config.id, words(&["ps"]), None).await;
        if !out.contains("sleep 77") {
            break;
        }
        assert!(Instant::now() < deadline, "still there: {out}");
    }
}

//! Two runs of the stories on one machine do not take each other's namespaces away.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use fluidos_e2e::claim;
use fluidos_e2e::command::run;
use fluidos_e2e::stage::Stage;

/// Set in the second process, which is this test once more.
const SECOND: &str = "FLT_SECOND_RUN";

#[test]
fn a_second_run_waits_for_the_first_and_says_for_whom() {
    if std::env::var_os(SECOND).is_some() {
        let mut stage = Stage::new("excl").unwrap();
        stage.setup("b", &[]).unwrap();
        eprintln!("the second plays: {:?}", namespaces());
        return;
    }
    let mut first = Stage::new("excl").unwrap();
    first.setup("a", &[]).unwrap();
    let before = namespaces();
    assert_eq!(before, ["flt-excl", "flt-excl-a"], "what the first stage made");
    let mut second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_run_waits_for_the_first_and_says_for_whom", "--nocapture"])
        .env(SECOND, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let expected = format!("waiting for process {}, which has {}\n", std::process::id(), claim::path("excl").display());
    assert_eq!(line, expected, "the first line of the second run");
    assert_eq!(namespaces(), before, "the first stage's namespaces while the second run waits");
    drop(first);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let status = second.wait().unwrap();
    assert!(status.success() && rest.contains(r#"the second plays: ["flt-excl", "flt-excl-b"]"#), "{status}: {rest}");
    assert!(namespaces().is_empty(), "both are gone, and still there is {:?}", namespaces());
}

fn namespaces() -> Vec<String> {
    let listed = run("ip", &["netns", "list"]).unwrap();
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> = names.filter(|n| n.starts_with("flt-excl")).map(str::to_owned).collect();
    names.sort();
    names
}

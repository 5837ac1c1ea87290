//! `kubectl debug node/NAME -it`, as it comes: a terminal on the machine itself, in its namespaces, with its files below `/host`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::terminal::Terminal;

#[test]
fn a_terminal_on_the_machine() {
    let mut stage = Stage::new("ndbg").unwrap();
    let (node, _agents) = stage.machines(1, &Image::Busybox.layout().unwrap()).unwrap();
    std::fs::write(stage.directory().join("note"), "left on the machine\n").unwrap();
    let note = stage.directory().join("note").display().to_string();
    let command = node.setup.kubectl_command(&["debug", "node/farm", "-it", "--image=busybox:1"]);
    let mut terminal = Terminal::open(&command, 31, 97).unwrap();
    let screen = terminal.shows("Creating debugging pod node-debugger-farm-").unwrap();
    let pod = screen.split_whitespace().find(|word| word.starts_with("node-debugger-farm-")).unwrap().to_owned();
    terminal.shows("/ # ").unwrap();

    // What is typed is shown as well: each answer is something that was not typed.
    terminal.types("stty size").unwrap();
    terminal.shows("31 97").unwrap();
    terminal.types(&format!("cat /host{note}")).unwrap();
    terminal.shows("left on the machine").unwrap();
    terminal
        .types(&format!("chroot /host sh -c 'echo written from within >> {note}; wc -l < {note}; echo lines=$?'"))
        .unwrap();
    terminal.shows("lines=0").unwrap();
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "left on the machine\nwritten from within\n");
    for namespace in ["pid", "ipc"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().display().to_string();
        terminal.types(&format!("readlink /proc/self/ns/{namespace}")).unwrap();
        terminal.shows(&host).unwrap();
    }
    let network = std::fs::read_link(format!("/proc/{}/ns/net", node.pid())).unwrap().display().to_string();
    terminal.types("readlink /proc/self/ns/net").unwrap();
    terminal.shows(&network).unwrap();
    terminal.types("ip -4 addr show eth0").unwrap();
    terminal.shows(&format!("inet {}/24", node.setup.machine.as_ref().unwrap().address)).unwrap();

    terminal.types("exit 3").unwrap();
    terminal.ends().unwrap();
    node.kubectl(&["wait", "--for=jsonpath={.status.phase}=Failed", &format!("pod/{pod}"), "--timeout=60s"]).unwrap();
    let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(node.kubectl(&["get", "pod", &pod, "-o", code]).unwrap(), "3");
    node.kubectl(&["delete", "pod", &pod, "--timeout=60s"]).unwrap();
    assert!(std::path::Path::new(&note).exists(), "with the pod nothing of the machine goes");
}

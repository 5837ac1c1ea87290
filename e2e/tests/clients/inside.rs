//! kubectl inside pods: programs that are given input, containers that look at others, commands that do not start.

use fluidos_e2e::clients::Client;

use crate::kubectl::has;

pub fn play(kubectl: &Client<'_>) {
    kubectl.ok("run shown --image=busybox:1 --command -- sleep 1000").unwrap();
    kubectl.ok("wait --for=condition=Ready pod/shown --timeout=60s").unwrap();
    runs(kubectl);
    beside(kubectl);
    copied(kubectl);
    refused(kubectl);
    kubectl.ok("delete pod shown --now").unwrap();
}

/// Arguments between spaces, and a script as the last.
fn script<'a>(arguments: &'a str, script: &'a str) -> Vec<&'a str> {
    arguments.split(' ').chain(["--", "sh", "-c", script]).collect()
}

/// A pod for one question, which it is asked over a pipe: what it answers and how it ends come back, and it goes.
fn runs(kubectl: &Client<'_>) {
    let ask = "run ask --rm -i --image=busybox:1 --restart=Never --command";
    let told = kubectl.given("words\n", &script(ask, "read word; echo got $word; exit 3")).unwrap();
    has(&told.out, &["got words\n", "pod \"ask\" deleted"]);
    has(&told.error, &["pod default/ask terminated (Error)"]);
    assert_eq!(told.code, Some(3));
    has(&kubectl.refused("get pod ask").unwrap(), &["NotFound"]);
}

/// A container that is put beside a running one sees its processes, and its first one is theirs.
fn beside(kubectl: &Client<'_>) {
    let debug = "debug shown -i --image=busybox:1 --target=shown --container=look";
    let told =
        kubectl.given("heard\n", &script(debug, "read word; tr '\\0' ' ' < /proc/1/cmdline; echo $word")).unwrap();
    assert!(told.is_ok, "{told:?}");
    has(&told.out, &["sleep 1000 heard\n"]);
    let ended = "{.status.ephemeralContainerStatuses[?(@.name==\"look\")].state.terminated.exitCode}";
    kubectl.ok(&format!("wait --for=jsonpath={ended}=0 pod/shown --timeout=30s")).unwrap();
    has(&kubectl.ok("logs shown -c look").unwrap(), &["sleep 1000 heard\n"]);
}

/// A copy of a pod, with a container more. The pod stays as it was.
fn copied(kubectl: &Client<'_>) {
    let debug = "debug shown -i --copy-to=copy --share-processes=false --image=busybox:1 --container=look";
    let told = kubectl.given("heard\n", &script(debug, "read word; hostname; echo $word")).unwrap();
    assert!(told.is_ok, "{told:?}");
    has(&told.out, &["copy\nheard\n"]);
    let seen = "-o jsonpath={.spec.containers[*].name}/{.metadata.labels.run}";
    assert_eq!(kubectl.ok(&format!("get pod copy {seen}")).unwrap(), "shown look/");
    assert_eq!(kubectl.ok(&format!("get pod shown {seen}")).unwrap(), "shown/shown");
    assert_eq!(kubectl.ok("exec copy -c shown -- hostname").unwrap(), "copy\n");
    kubectl.ok("delete pod copy --now").unwrap();
}

/// A command that does not start says why, in the words of upstream's kubelet and runtime; one that fails, with which code.
fn refused(kubectl: &Client<'_>) {
    let failed = "error: Internal error occurred: error executing command in container: exec:";
    for (command, code, words) in [
        ("/no/such", 1, format!("{failed} \"/no/such\": stat /no/such: no such file or directory\n")),
        ("such", 1, format!("{failed} \"such\": executable file not found in $PATH\n")),
        ("false", 1, "command terminated with exit code 1\n".into()),
    ] {
        let told = kubectl.run(&format!("exec shown -c shown -- {command}")).unwrap();
        assert_eq!((told.code, told.error, told.out), (Some(code), words, String::new()), "{command}");
    }
    let told = kubectl.given("", &script("exec -i shown -c shown", "exit 7")).unwrap();
    assert_eq!(told.code, Some(7));
}

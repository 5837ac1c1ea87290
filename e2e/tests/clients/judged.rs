//! The owner's kubectl under the owner's rules: a policy judges commands and scales, and the audit log of a node that was stopped
//! has all of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use fluidos_e2e::stage::Stage;
use serde_json::Value;

const AUDIT: &str = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, users: [admin]}]}";

/// No shell in a pod of others, no more than three replicas.
const RULES: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: rules}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [''], apiVersions: [v1], operations: [CONNECT], resources: [pods/exec]}
    - {apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments/scale]}
  validations:
  - {expression: \"request.subResource != 'exec' || !('sh' in object.command)\", message: no shell}
  - {expression: \"request.subResource != 'scale' || object.spec.replicas <= 3\", message: too many}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: rules}
spec: {policyName: rules, validationActions: [Deny]}
";

#[test]
fn the_owners_rules_hold_for_commands_and_all_of_it_is_written_down() {
    let mut stage = Stage::new("judg").unwrap();
    let (policy, log) = (stage.directory().join("policy.yaml"), stage.directory().join("audit.json"));
    std::fs::write(&policy, AUDIT).unwrap();
    let audit = ["--audit-policy-file", policy.to_str().unwrap(), "--audit-log-path", log.to_str().unwrap()];
    let node = stage.start("farm", &[["--no-mdns", "--no-agent"].as_slice(), &audit].concat()).unwrap();
    node.apply(RULES).unwrap();
    node.kubectl(&["create", "deployment", "web", "--image=busybox:1"]).unwrap();
    node.kubectl(&["run", "shown", "--image=busybox:1"]).unwrap();
    let refused = |arguments: &[&str]| {
        let output = node.kubectl_with(arguments, "").unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (arguments, words) in [
        (&["exec", "shown", "--", "sh"][..], "denied request: no shell"),
        (&["exec", "shown", "--", "ls"], "pod shown does not have a host assigned"),
        (&["scale", "deploy/web", "--replicas=4"], "denied request: too many"),
    ] {
        let told = refused(arguments);
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    node.kubectl(&["scale", "deploy/web", "--replicas=3"]).unwrap();
    assert_eq!(node.get(&["deploy", "web"]).unwrap()["spec"]["replicas"], 3);

    // Somebody looks on when the node is stopped.
    let watch = ["get", "pods", "--watch", "--output=name"];
    let mut watch = node.setup.kubectl_command(&watch).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("pod/"));
    node.terminate().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.ends_with('\n'), "the last line is whole");
    watch.kill().unwrap();
    watch.wait().unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &Value| {
        events.iter().filter(|event| event["auditID"] == *id).map(|event| event["stage"].clone()).collect::<Vec<_>>()
    };
    let begun: Vec<&Value> = events.iter().filter(|event| event["stage"] == "ResponseStarted").collect();
    assert!(begun.iter().any(|event| event["verb"] == "watch"), "{text}");
    for event in begun {
        assert_eq!(of(&event["auditID"]), ["ResponseStarted", "ResponseComplete"], "{event}");
    }
    let judged = events.iter().filter(|event| event["objectRef"]["subresource"] == "exec");
    assert!(judged.into_iter().any(|event| event["responseStatus"]["code"] == 422), "{text}");
}

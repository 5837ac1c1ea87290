#![allow(clippy::unwrap_used, missing_docs)]
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{Level, check};

fn says(level: Level, spec: Value, expected: Expect) {
    let spec = serde_json::from_value(spec).unwrap();
    expected.assert_eq(&check(level, "latest", &spec).err().unwrap_or_default());
}

fn bad() -> Value {
    json!({
        "hostNetwork": true,
        "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }], "runAsUser": 0 },
        "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "nfs": { "server": "s", "path": "/" } }],
        "initContainers": [{ "name": "i", "securityContext": { "privileged": true, "seLinuxOptions": { "user": "u" } } }],
        "containers": [
            { "name": "a", "ports": [{ "containerPort": 1, "hostPort": 80 }],
              "livenessProbe": { "httpGet": { "port": 1, "host": "10.0.0.1" } },
              "securityContext": { "privileged": true, "capabilities": { "add": ["NET_ADMIN", "CHOWN"] }, "runAsNonRoot": false } },
            { "name": "b", "ports": [{ "containerPort": 1, "hostPort": 81 }],
              "securityContext": { "procMount": "Unmasked", "seccompProfile": { "type": "Unconfined" } } }],
        "ephemeralContainers": [{ "name": "e", "securityContext": { "appArmorProfile": { "type": "Unconfined" } } }]
    })
}

#[test]
fn each_level_says_everything_that_is_wrong() {
    says(Level::Privileged, bad(), expect![[""]]);
    says(
        Level::Baseline,
        bad(),
        expect![[
            r#"violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), hostPath volumes (volume "v"), hostPort (containers "a", "b" use hostPorts 80, 81), probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1"), privileged (containers "i", "a" must not set securityContext.privileged=true), non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add), forbidden sysctls (kernel.msgmax), procMount (container "b" must not set securityContext.procMount to "Unmasked"), seccompProfile (container "b" must not set securityContext.seccompProfile.type to "Unconfined"), forbidden AppArmor profile (container "e" must not set AppArmor profile type to "Unconfined"), seLinuxOptions (container "i" set forbidden securityContext.seLinuxOptions: user "u")"#
        ]],
    );
    says(
        Level::Restricted,
        bad(),
        expect![[
            r#"violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true), hostPort (containers "a", "b" use hostPorts 80, 81), probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1"), privileged (containers "i", "a" must not set securityContext.privileged=true), forbidden sysctls (kernel.msgmax), procMount (container "b" must not set securityContext.procMount to "Unmasked"), forbidden AppArmor profile (container "e" must not set AppArmor profile type to "Unconfined"), seLinuxOptions (container "i" set forbidden securityContext.seLinuxOptions: user "u"), restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs"), allowPrivilegeEscalation != false (containers "i", "a", "b", "e" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "i", "a", "b", "e" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN", "NET_ADMIN" in securityContext.capabilities.add), runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false; pod or containers "i", "b", "e" must set securityContext.runAsNonRoot=true), runAsUser=0 (pod must not set runAsUser=0), seccompProfile (container "b" must not set securityContext.seccompProfile.type to "Unconfined"; pod or containers "i", "a", "e" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
        ]],
    );
}

#[test]
fn what_is_hardened_passes_and_each_thing_that_it_says_counts() {
    let hardened = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "volumes": [{ "name": "c", "configMap": { "name": "c" } }, { "name": "e", "emptyDir": {} }],
        "containers": [{ "name": "a", "securityContext": { "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } } }]
    });
    says(Level::Restricted, hardened.clone(), expect![[""]]);
    let without = |path: &str| {
        let mut spec = hardened.clone();
        let (at, field) = path.rsplit_once('/').unwrap();
        spec.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(field);
        spec
    };
    says(
        Level::Restricted,
        without("/securityContext/runAsNonRoot"),
        expect![[
            r#"violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#
        ]],
    );
    says(
        Level::Restricted,
        without("/securityContext/seccompProfile"),
        expect![[
            r#"violates PodSecurity "restricted:latest": seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
        ]],
    );
    let context = "/containers/0/securityContext";
    says(
        Level::Restricted,
        without(&format!("{context}/allowPrivilegeEscalation")),
        expect![[
            r#"violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#
        ]],
    );
    says(
        Level::Restricted,
        without(&format!("{context}/capabilities")),
        expect![[
            r#"violates PodSecurity "restricted:latest": unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"])"#
        ]],
    );
    let mut windows = without(&format!("{context}/capabilities"));
    windows["os"] = json!({ "name": "windows" });
    says(Level::Restricted, windows, expect![[""]]);
}

//! What is inside a pod: volumes and shared namespaces.

use std::os::unix::fs::MetadataExt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use substrate_client::{Access, Caches};

use super::*;

fn with(volumes: Value, mounts: Value, script: &str) -> Value {
    let container = json!({"name": "main", "image": "busy:1", "args": [script], "volumeMounts": mounts});
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": volumes, "containers": [container]})
}

fn waits(pod: &Value, reason: &str) -> bool {
    main_status(pod)["state"]["waiting"]["reason"] == reason
}

async fn ends(world: &World, name: &str) -> String {
    let pod = world.wait(name, |p| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).await;
    let log = world.logs(&pod, LogOptions::default()).await;
    assert_eq!(pod["status"]["phase"], "Succeeded", "{log}");
    log
}

pub(super) async fn host_paths(world: &mut World) {
    let dir = world.dir.path().join("machine");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "of the machine\n").unwrap();
    let volumes = json!([
        {"name": "dir", "hostPath": {"path": dir, "type": "Directory"}},
        {"name": "file", "hostPath": {"path": dir.join("file"), "type": "File"}},
        {"name": "made", "hostPath": {"path": dir.join("made"), "type": "DirectoryOrCreate"}},
    ]);
    // containerd refuses what is to follow a mount that is not shared, which a test finds on no machine for sure.
    let follows = if world.handler.is_built_in() { "HostToContainer" } else { "None" };
    let mounts = json!([{"name": "dir", "mountPath": "/dir", "readOnly": true}, {"name": "file", "mountPath": "/file"},
        {"name": "made", "mountPath": "/made", "mountPropagation": follows}]);
    let script = "cat /dir/file /file; touch /dir/x 2>/dev/null || echo refused; echo said > /made/x";
    world.create("reads", with(volumes, mounts, script)).await;
    assert_eq!(ends(world, "reads").await, "of the machine\nof the machine\nrefused\n");
    assert_eq!(std::fs::read_to_string(dir.join("made/x")).unwrap(), "said\n");
    world.delete("reads").await;
    assert!(dir.join("made/x").exists(), "a pod's end takes nothing of the machine away");

    let volumes = json!([{"name": "v", "hostPath": {"path": dir.join("late"), "type": "Directory"}}]);
    world.create("waits", with(volumes, json!([{"name": "v", "mountPath": "/v"}]), "true")).await;
    world.wait("waits", |p| waits(p, "ContainerCreating")).await;
    let path = dir.join("late").display().to_string();
    let said = format!(
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {path} is not a directory"
    );
    world.wait_event("waits", &said).await;
    std::fs::create_dir(dir.join("late")).unwrap();
    ends(world, "waits").await;
    world.delete("waits").await;
}

pub(super) async fn a_guest_gets_no_files_of_the_machine(world: &mut World) {
    std::fs::write(world.dir.path().join("confirmed"), "").unwrap();
    let made = world.dir.path().join("made-by-guest");
    let volumes = json!([{"name": "v", "hostPath": {"path": made, "type": "DirectoryOrCreate"}}]);
    world.create("guest", with(volumes, json!([{"name": "v", "mountPath": "/v"}]), "true")).await;
    world.wait("guest", |p| waits(p, "NotSupported")).await;
    world.wait_event("guest", "FailedMount: volume \"v\": a guest gets no files of this machine").await;
    assert!(!made.exists());
    world.delete("guest").await;
}

pub(super) async fn sub_paths_are_expanded(world: &mut World) {
    let volumes = json!([{"name": "v", "hostPath": {"path": world.dir.path().join("v"), "type": "DirectoryOrCreate"}}]);
    let mut spec =
        with(volumes, json!([{"name": "v", "mountPath": "/v", "subPathExpr": "of-$(POD)/$$x"}]), "echo 1 > /v/one");
    spec["containers"][0]["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    world.create("expands", spec.clone()).await;
    ends(world, "expands").await;
    assert_eq!(std::fs::read_to_string(world.dir.path().join("v/of-expands/$x/one")).unwrap(), "1\n");
    world.delete("expands").await;

    spec["containers"][0]["volumeMounts"][0]["subPathExpr"] = json!("$(NOBODY)/$(ELSE)");
    world.create("missing", spec.clone()).await;
    let pod = world.wait("missing", |p| waits(p, "CreateContainerConfigError")).await;
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], "missing value for ELSE, NOBODY");
    world.delete("missing").await;

    spec["containers"][0]["env"] = json!([{"name": "UP", "value": "../.."}]);
    spec["containers"][0]["volumeMounts"][0]["subPathExpr"] = json!("$(UP)");
    world.create("leaves", spec).await;
    let pod = world.wait("leaves", |p| waits(p, "CreateContainerConfigError")).await;
    let said = "unable to provision SubPath `../..`: must not contain '..'";
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], said);
    world.delete("leaves").await;
}

pub(super) async fn containers_see_each_other(world: &mut World) {
    let container = |name: &str, script: &str| json!({"name": name, "image": "busy:1", "args": [script]});
    let main = container("main", "until ps | grep '[s]leep 1234'; do sleep 0.05; done");
    let other = container("other", "exec sleep 1234");
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "shareProcessNamespace": true,
        "containers": [main, other]});
    world.create("shares", spec).await;
    let ended = |p: &Value| {
        let all = p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["name"] == "main" && c["state"]["terminated"]["exitCode"] == 0)
    };
    let pod = world.wait("shares", ended).await;
    assert!(world.logs(&pod, LogOptions::default()).await.contains("sleep 1234"));
    world.delete("shares").await;
}

/// A claim of the default class, as the scheduler leaves it when it has chosen this node.
async fn claim(world: &World, name: &str, modes: &[&str]) -> PersistentVolumeClaim {
    let claim = json!({"metadata": {"name": name, "annotations": {"volume.kubernetes.io/selected-node": NODE}},
        "spec": {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}});
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(world.client.clone());
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap()
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not seen within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn claims_get_directories(world: &mut World) {
    let dir = world.dir.path().join("local");
    let caches = Caches::new(world.client.clone());
    let access = Access { client: world.client.clone(), caches };
    let provisioner = tokio::spawn(substrate_kubelet::local_path::run(access, NODE.into(), dir.clone()));
    let classes: Api<StorageClass> = Api::all(world.client.clone());
    eventually("the default class", async || classes.get_opt("local-path").await.unwrap()).await;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(world.client.clone());
    let all: Api<PersistentVolume> = Api::all(world.client.clone());

    // Not bound yet: the pod waits and says for what. Another machine's claim, and one that cannot be, get nothing.
    let made = claim(world, "data", &["ReadWriteOnce"]).await;
    assert_eq!(made.spec.as_ref().unwrap().storage_class_name.as_deref(), Some("local-path"));
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    let mounts = json!([{"name": "v", "mountPath": "/data"}]);
    let mut spec = with(volumes, mounts, "id -G; cat /data/kept 2>/dev/null; echo was here >> /data/kept");
    spec["securityContext"] = json!({"fsGroup": 4321, "runAsUser": 1000});
    world.create("first", spec.clone()).await;
    world.wait("first", |p| waits(p, "ContainerCreating")).await;
    let said = "FailedMount: Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC default/data: PVC is not bound";
    world.wait_event("first", said).await;
    let many = claim(world, "many", &["ReadWriteMany"]).await;
    let why = "ProvisioningFailed: failed to provision volume with StorageClass \"local-path\": a directory of one node is not ReadWriteMany";
    world.wait_event("many", why).await;

    let name = format!("pvc-{}", made.metadata.uid.clone().unwrap());
    let volume = eventually("the volume", async || all.get_opt(&name).await.unwrap()).await;
    let volume = serde_json::to_value(volume).unwrap();
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(
        volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"],
        json!([NODE])
    );
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 1, "and none for {:?}", many.metadata.name);

    // What the binder does.
    let parameters = PatchParams::default();
    claims.patch("data", &parameters, &Patch::Merge(json!({"spec": {"volumeName": name}}))).await.unwrap();
    let bound = json!({"status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    claims.patch_status("data", &parameters, &Patch::Merge(bound)).await.unwrap();
    assert!(ends(world, "first").await.contains("4321"));
    world.delete("first").await;
    let kept = dir.join(&name).join("kept");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "was here\n");
    assert_eq!((kept.metadata().unwrap().gid(), dir.metadata().unwrap().mode() & 0o777), (4321, 0o700));

    // Another pod finds what the first one left, also where it may only read.
    spec["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
    spec["containers"][0]["args"] = json!(["cat /data/kept; touch /data/x 2>/dev/null || echo refused"]);
    world.create("second", spec).await;
    assert_eq!(ends(world, "second").await, "was here\nrefused\n");
    world.delete("second").await;

    // It grows by being asked for.
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    claims.patch("data", &parameters, &Patch::Merge(more)).await.unwrap();
    let grown = async || {
        let status = claims.get("data").await.unwrap().status.unwrap_or_default();
        let size = status.capacity.and_then(|list| list.get("storage").map(|q| q.0.clone()));
        size.filter(|size| size == "2Gi")
    };
    eventually("more room", grown).await;
    let capacity = all.get(&name).await.unwrap().spec.unwrap().capacity.unwrap();
    assert_eq!(capacity["storage"].0, "2Gi");

    // A volume that only says that it is ours leads to no directory of ours or others.
    let victim = world.dir.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let mut forged = volume.clone();
    forged["metadata"] = json!({"name": "pvc-forged", "annotations": volume["metadata"]["annotations"]});
    forged["spec"]["local"]["path"] = json!(victim);
    forged["spec"]["claimRef"] = json!({"name": "gone", "namespace": "default", "uid": "gone"});
    all.create(&PostParams::default(), &serde_json::from_value(forged).unwrap()).await.unwrap();
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    all.patch_status("pvc-forged", &parameters, &released).await.unwrap();

    // The claim goes, and with it the directory.
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    all.patch_status(&name, &parameters, &released).await.unwrap();
    eventually("the end of the directory", async || (!dir.join(&name).exists()).then_some(())).await;
    eventually("the end of the volume", async || all.get_opt(&name).await.unwrap().is_none().then_some(())).await;
    assert!(victim.exists());
    provisioner.abort();
}

pub(super) async fn kernels_settings_and_profiles(world: &mut World) {
    let profiles = world.dir.path().join("node/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; mkdir /made 2>/dev/null || echo refused";
    let mut spec = with(json!([]), json!([]), script);
    spec["securityContext"] = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}],
        "seccompProfile": {"type": "Localhost", "localhostProfile": "no-mkdir.json"}});
    world.create("confined", spec.clone()).await;
    let pod = world.wait("confined", |p| waits(p, "CreateContainerConfigError")).await;
    let why = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(why.starts_with("cannot load seccomp profile") && why.contains("no-mkdir.json"), "{why}");
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}).to_string();
    std::fs::write(profiles.join("no-mkdir.json"), profile).unwrap();
    assert_eq!(ends(world, "confined").await, "80\nrefused\n");
    world.delete("confined").await;

    spec["securityContext"]["sysctls"][0]["name"] = json!("kernel.msgmax");
    world.create("unsafe", spec).await;
    world.wait("unsafe", |p| waits(p, "SysctlForbidden")).await;
    world.wait_event("unsafe", "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted").await;
    world.delete("unsafe").await;
}

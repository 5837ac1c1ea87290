"""The client of Python, as programs use it, against a node of ours. A failed assertion ends the story with what was seen."""

import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps, custom = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()
SPACE = "default"
LABELS = {"app": "py"}


def refused(status, call, *arguments, **named):
    """What the server says when it refuses with this status."""
    try:
        got = call(*arguments, **named)
    except ApiException as error:
        assert error.status == status, error
        return error.body.decode() if isinstance(error.body, bytes) else error.body
    raise AssertionError(f"not refused, but {got}")


def pods():
    container = client.V1Container(
        name="web", image="busybox:1",
        command=["sh", "-c", "mkdir /www; echo seen > /www/index.html; exec httpd -f -p 8080 -h /www"],
        readiness_probe=client.V1Probe(http_get=client.V1HTTPGetAction(port=8080), period_seconds=1))
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=LABELS), spec=spec)
    deployment = client.V1Deployment(
        metadata=client.V1ObjectMeta(name="py"),
        spec=client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=LABELS), template=template))
    before = core.list_namespaced_pod(SPACE).metadata.resource_version
    made = apps.create_namespaced_deployment(SPACE, deployment)
    assert made.metadata.creation_timestamp.tzinfo is not None and made.spec.strategy.type == "RollingUpdate", made
    # From a list on, nothing is missed: the pod is seen to come and to become ready.
    phases, name = [], None
    for event in watch.Watch().stream(core.list_namespaced_pod, SPACE, resource_version=before, label_selector="app=py",
                                      timeout_seconds=60):
        pod, name = event["object"], event["object"].metadata.name
        phases.append((event["type"], pod.status.phase))
        if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or []):
            break
    assert phases[0] == ("ADDED", "Pending") and phases[-1] == ("MODIFIED", "Running"), phases
    assert apps.read_namespaced_deployment_scale("py", SPACE).spec.replicas == 1
    return name


def watches():
    # A watch ends by itself when it was told to, and one from a revision that nobody knows is refused.
    seen = list(watch.Watch().stream(core.list_namespaced_config_map, SPACE, timeout_seconds=1))
    assert [event["object"].metadata.name for event in seen] == ["kube-root-ca.crt"], seen
    assert "Invalid value" in refused(400, core.list_namespaced_pod, SPACE, resource_version="x")
    # In parts, with bookmarks.
    for number in range(5):
        core.create_namespaced_config_map(SPACE, {"metadata": {"name": f"part-{number}", "labels": {"part": "yes"}}})
    names, following = [], None
    while True:
        page = core.list_namespaced_config_map(SPACE, label_selector="part=yes", limit=2, _continue=following)
        names += [item.metadata.name for item in page.items]
        following = page.metadata._continue
        if not following:
            break
    assert names == [f"part-{number}" for number in range(5)], names
    core.delete_collection_namespaced_config_map(SPACE, label_selector="part=yes")
    assert not core.list_namespaced_config_map(SPACE, label_selector="part=yes").items


def inside(name):
    out = stream(core.connect_get_namespaced_pod_exec, name, SPACE, command=["sh", "-c", "echo out; echo err >&2"],
                 stderr=True, stdin=False, stdout=True, tty=False)
    assert sorted(out.split()) == ["err", "out"], out
    session = stream(core.connect_get_namespaced_pod_exec, name, SPACE,
                     command=["sh", "-c", "read line; echo got $line; exit 3"],
                     stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
    session.write_stdin("words\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "got words\n" and session.returncode == 3, session.returncode
    log = core.read_namespaced_pod_log(name, SPACE, tail_lines=5)
    assert log in ("", None), log
    assert "is not valid for pod" in refused(400, core.read_namespaced_pod_log, name, SPACE, container="no")


def ports(name):
    forward = portforward(core.connect_get_namespaced_pod_portforward, name, SPACE, ports="8080,9")
    # Of a port that nobody listens on it is said why; the other one is there all the same.
    web = forward.socket(8080)
    web.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := web.recv(4096):
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"\r\n\r\nseen\n"), answer
    assert forward.error(8080) is None, forward.error(8080)
    assert forward.socket(9).recv(1) == b"", "nothing comes of what is refused"
    assert "error forwarding port 9 to pod " + name in forward.error(9), forward.error(9)


def changes():
    core.create_namespaced_config_map(SPACE, {"metadata": {"name": "m"}, "data": {"a": "1", "b": "1"}})
    # A dictionary is sent as a strategic merge patch, a list as a JSON patch.
    assert core.patch_namespaced_config_map("m", SPACE, {"data": {"a": None, "c": "2"}}).data == {"b": "1", "c": "2"}
    changed = core.patch_namespaced_config_map("m", SPACE, [{"op": "replace", "path": "/data/b", "value": "3"}])
    assert changed.data == {"b": "3", "c": "2"}, changed.data
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "b"}]}]}}}}
    deployment = apps.patch_namespaced_deployment("py", SPACE, patch, dry_run="All")
    assert [c.image for c in deployment.spec.template.spec.containers] == ["busybox:1"], deployment
    assert not apps.read_namespaced_deployment("py", SPACE).spec.template.spec.containers[0].env
    old = core.read_namespaced_config_map("m", SPACE)
    core.patch_namespaced_config_map("m", SPACE, {"data": {"d": "4"}})
    assert "the object has been modified" in refused(409, core.replace_namespaced_config_map, "m", SPACE, old)
    assert "AlreadyExists" in refused(409, core.create_namespaced_config_map, SPACE, {"metadata": {"name": "m"}})
    assert "NotFound" in refused(404, core.read_namespaced_config_map, "none", SPACE)


def applies():
    maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"a": "1"}}
    maps.server_side_apply(body=wanted, namespace=SPACE, field_manager="one")
    wanted["data"] = {"a": "2"}
    told = refused(409, maps.server_side_apply, body=wanted, namespace=SPACE, field_manager="two")
    assert 'conflict with \\"one\\": .data.a' in told, told
    got = maps.server_side_apply(body=wanted, namespace=SPACE, field_manager="two", force_conflicts=True)
    assert got.data.a == "2" and [m.manager for m in got.metadata.managedFields] == ["two"], got
    seen = [event["object"].metadata.name for event in maps.watch(namespace=SPACE, timeout=1)]
    assert "ssa" in seen, seen
    maps.delete(name="ssa", namespace=SPACE)


def own_kinds():
    definition = {
        "metadata": {"name": "robots.py.example"},
        "spec": {
            "group": "py.example", "scope": "Namespaced", "names": {"kind": "Robot", "plural": "robots"},
            "versions": [{
                "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "properties": {"legs": {"type": "integer", "maximum": 8}}},
                        "status": {"type": "object", "properties": {"walks": {"type": "boolean"}}}}}}}]}}
    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(definition)
    for event in watch.Watch().stream(extensions.list_custom_resource_definition, timeout_seconds=30):
        if any(c.type == "Established" and c.status == "True" for c in event["object"].status.conditions or []):
            break
    of = ("py.example", "v1", SPACE, "robots")
    body = {"apiVersion": "py.example/v1", "kind": "Robot", "metadata": {"name": "r"}, "spec": {"legs": 4}}
    custom.create_namespaced_custom_object(*of, body)
    assert "less than or equal to 8" in refused(422, custom.patch_namespaced_custom_object, *of, "r", {"spec": {"legs": 9}})
    walking = custom.patch_namespaced_custom_object_status(*of, "r", {"status": {"walks": True}})
    assert walking["status"] == {"walks": True} and walking["metadata"]["generation"] == 1, walking
    assert len(custom.list_namespaced_custom_object(*of)["items"]) == 1
    custom.delete_namespaced_custom_object(*of, "r")


def leads():
    from kubernetes.leaderelection import electionconfig, leaderelection
    from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

    led = threading.Event()
    lock = LeaseLock("leader", SPACE, "py-1")
    election = electionconfig.Config(lock, lease_duration=5, renew_deadline=4, retry_period=1,
                                     onstarted_leading=led.set, onstopped_leading=None)
    threading.Thread(target=leaderelection.LeaderElection(election).run, daemon=True).start()
    assert led.wait(30), "nobody leads"
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", SPACE)
    assert lease.spec.holder_identity == "py-1" and lease.spec.renew_time.tzinfo is not None, lease


watches()
name = pods()
inside(name)
ports(name)
changes()
applies()
own_kinds()
leads()
assert client.VersionApi().get_code().git_version.startswith("v1."), "version"
print("the story is told")

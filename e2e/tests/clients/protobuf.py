"""A client that speaks protobuf with messages and a runtime of others, against a node of ours. A failed assertion ends the story.

The messages are those that somebody generated from upstream's declarations in 2019: what came since is unknown to them, and must be kept.
"""

from k8s.io.api.core.v1 import generated_pb2 as core
from k8s.io.apimachinery.pkg.apis.meta.v1 import generated_pb2 as meta
from k8s.io.apimachinery.pkg.runtime import generated_pb2 as runtime
from kubernetes import client, config

config.load_kube_config()
API = client.ApiClient()
HTTP, HOST = API.rest_client.pool_manager, API.configuration.host
PROTOBUF, MAGIC = "application/vnd.kubernetes.protobuf", b"k8s\0"
MAPS, PODS, SERVICES = (f"/api/v1/namespaces/default/{kind}" for kind in ("configmaps", "pods", "services"))


def sealed(message, version="v1"):
    unknown = runtime.Unknown(raw=message.SerializeToString())
    unknown.typeMeta.apiVersion, unknown.typeMeta.kind = version, type(message).__name__
    return MAGIC + unknown.SerializeToString()


def opened(data, kind):
    """The message in an envelope, which must be of this kind."""
    assert data[:4] == MAGIC, data
    unknown = runtime.Unknown.FromString(data[4:])
    assert unknown.typeMeta.kind == kind.DESCRIPTOR.name, (unknown.typeMeta, data)
    return kind.FromString(unknown.raw)


def ask(method, path, kind, message=None, status=200, accept=PROTOBUF, of=PROTOBUF):
    body = None if message is None else sealed(message)
    response = HTTP.request(method, HOST + path, body=body, headers={"Accept": accept, "Content-Type": of})
    assert response.status == status, (method, path, response.status, response.data)
    assert response.headers["Content-Type"].startswith(PROTOBUF), response.headers
    return opened(response.data, kind)


def refused(status, reason, method, path, message=None, **more):
    """What the server says when it refuses so; it is a Status in protobuf, too."""
    told = ask(method, path, meta.Status, message, status, **more)
    assert (told.status, told.code, told.reason) == ("Failure", status, reason), told
    return told


def events(path, enough):
    """Events of a watch, each in a frame with its length before it, until one is enough."""
    response = HTTP.request("GET", HOST + path, headers={"Accept": PROTOBUF + ";stream=watch"}, preload_content=False)
    assert response.headers["Content-Type"] == PROTOBUF + ";stream=watch", response.headers
    seen = []
    try:
        while True:
            length = int.from_bytes(response.read(4), "big")
            assert length, seen
            event = meta.WatchEvent.FromString(response.read(length))
            seen.append((event.type, opened(event.object.raw, core.Pod)))
            if enough(*seen[-1]):
                return seen
    finally:
        response.close()


def maps():
    wanted = core.ConfigMap(metadata=meta.ObjectMeta(name="pb", labels={"pb": "yes"}), data={"a": "ä", "empty": ""},
                            binaryData={"b": bytes(range(256))})
    made = ask("POST", MAPS, core.ConfigMap, wanted, 201)
    assert (made.data, made.binaryData) == (wanted.data, wanted.binaryData), made
    assert made.metadata.uid and made.metadata.creationTimestamp.seconds > 1_700_000_000, made
    assert ask("GET", f"{MAPS}/pb", core.ConfigMap) == made
    # A client of JSON sees the same.
    seen = client.CoreV1Api().read_namespaced_config_map("pb", "default")
    assert (seen.metadata.uid, seen.data) == (made.metadata.uid, {"a": "ä", "empty": ""}), seen
    told = refused(409, "AlreadyExists", "POST", MAPS, wanted)
    assert (told.message, told.details.name) == ('configmaps "pb" already exists', "pb"), told
    refused(404, "NotFound", "GET", f"{MAPS}/none")
    # An update of what has changed since is refused, one of what is there is taken.
    old = core.ConfigMap.FromString(made.SerializeToString())
    made.data["a"] = "2"
    now = ask("PUT", f"{MAPS}/pb", core.ConfigMap, made)
    assert now.data["a"] == "2" and now.metadata.resourceVersion != old.metadata.resourceVersion, now
    assert "the object has been modified" in refused(409, "Conflict", "PUT", f"{MAPS}/pb", old).message
    refused(415, "UnsupportedMediaType", "PATCH", f"{MAPS}/pb", old)
    # In parts.
    for number in range(3):
        part = core.ConfigMap(metadata=meta.ObjectMeta(name=f"pb-{number}", labels={"pb": "yes"}))
        ask("POST", MAPS, core.ConfigMap, part, 201)
    names, following = [], ""
    while True:
        page = ask("GET", f"{MAPS}?labelSelector=pb%3Dyes&limit=3&continue={following}", core.ConfigMapList)
        names += [item.metadata.name for item in page.items]
        following = getattr(page.metadata, "continue")
        if not following:
            break
    assert names == ["pb", "pb-0", "pb-1", "pb-2"], names
    # Deletion with options: what is not meant stays.
    other = meta.DeleteOptions(preconditions=meta.Preconditions(uid="other"))
    assert "the UID in the precondition (other) does not match" in refused(409, "Conflict", "DELETE", f"{MAPS}/pb", other).message
    meant = meta.DeleteOptions(preconditions=meta.Preconditions(uid=now.metadata.uid))
    told = ask("DELETE", f"{MAPS}/pb", meta.Status, meant)
    assert (told.status, told.details.uid) == ("Success", now.metadata.uid), told
    gone = ask("DELETE", f"{MAPS}?labelSelector=pb%3Dyes", core.ConfigMapList)
    assert [item.metadata.name for item in gone.items] == names[1:], gone


def services():
    wanted = core.Service(metadata=meta.ObjectMeta(name="pb"), spec=core.ServiceSpec(selector={"app": "pb"}))
    port = wanted.spec.ports.add(name="web", port=80)
    port.targetPort.type, port.targetPort.strVal = 1, "http"
    wanted.spec.ports.add(name="raw", port=81).targetPort.intVal = 8081
    made = ask("POST", SERVICES, core.Service, wanted, 201)
    assert [port.targetPort.strVal for port in made.spec.ports] == ["http", ""], made
    assert [port.targetPort.intVal for port in made.spec.ports] == [0, 8081] and made.spec.clusterIP, made
    # What is read may be sent back, with the fields that these messages do not know.
    before = client.CoreV1Api().read_namespaced_service("pb", "default").spec
    assert (before.internal_traffic_policy, before.ip_families) == ("Cluster", ["IPv4"]), before
    made.metadata.annotations["pb"] = "was here"
    made = ask("PUT", f"{SERVICES}/pb", core.Service, made)
    assert made.metadata.annotations["pb"] == "was here", made
    assert client.CoreV1Api().read_namespaced_service("pb", "default").spec == before
    told = refused(422, "Invalid", "PUT", f"{SERVICES}/pb", core.Service(
        metadata=made.metadata, spec=core.ServiceSpec(clusterIP=made.spec.clusterIP, ports=[core.ServicePort(port=99999)])))
    assert "spec.ports[0].port" in [cause.field for cause in told.details.causes], told


def pods():
    """A real container, from the first event to the last."""
    wanted = core.Pod(metadata=meta.ObjectMeta(name="pb", labels={"app": "pb"}))
    wanted.spec.terminationGracePeriodSeconds = 1
    main = wanted.spec.containers.add(name="main", image="busybox:1")
    main.command.extend(["sh", "-c", "mkdir /www; echo seen > /www/index.html; exec httpd -f -p 8080 -h /www"])
    main.resources.requests["cpu"].string = "10m"
    main.ports.add(name="http", containerPort=8080)
    probe = main.readinessProbe
    probe.periodSeconds, probe.handler.httpGet.port.type, probe.handler.httpGet.port.strVal = 1, 1, "http"
    before = ask("GET", PODS, core.PodList).metadata.resourceVersion
    made = ask("POST", PODS, core.Pod, wanted, 201)
    assert made.spec.containers[0].resources.requests["cpu"].string == "10m" and made.status.qosClass == "Burstable", made
    watch = f"{PODS}?watch=true&fieldSelector=metadata.name%3Dpb&timeoutSeconds=60&resourceVersion="
    seen = events(watch + before, lambda _, pod: any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions))
    assert (seen[0][0], seen[0][1].status.phase) == ("ADDED", "Pending"), seen[0]
    ready = seen[-1][1]
    assert ready.status.phase == "Running" and ready.status.podIP and ready.spec.nodeName, ready
    assert ready.status.containerStatuses[0].state.running.startedAt.seconds > 1_700_000_000, ready
    ask("DELETE", f"{PODS}/pb", core.Pod, meta.DeleteOptions(gracePeriodSeconds=1))
    seen = events(watch + seen[-1][1].metadata.resourceVersion, lambda word, _: word == "DELETED")
    assert seen[-1][1].metadata.deletionGracePeriodSeconds == 1, seen[-1]
    refused(404, "NotFound", "GET", f"{PODS}/pb")


maps()
services()
pods()
print("the story is told")

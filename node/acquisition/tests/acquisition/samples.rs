//! Manifests as official users write them are accepted as they are: nothing of what they say is refused or dropped.

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use fluidos_model::kinds::{Allocation, Broker, KnownCluster, Reservation, ServiceBlueprint, Solver};

use crate::support::Node;

/// Creates an object as a user's tool does, which knows no types of ours, and compares what the API has made of it.
async fn accepted<K>(client: &Client, kind: &str, name: &str, spec: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let (group, version, plural) = (K::group(&()), K::version(&()), K::plural(&()));
    let of = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, &version, kind), &plural);
    let mut object = DynamicObject::new(name, &of);
    object.data = json!({"spec": spec});
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "fluidos", &of);
    let known = api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert_eq!(known.data["spec"], spec, "{kind}: all of it is kept as it was written");
}

#[tokio::test]
async fn official_manifests_are_accepted_as_they_are() {
    let node = Node::without_rooms(1, "grid", None).await;
    let client = &node.client;
    let party = |id: &str| json!({"domain": "fluidos.eu", "ip": "172.19.0.4:30001", "nodeID": id});
    let filters = json!({
        "architectureFilter": {"name": "Match", "data": {"value": "amd64"}},
        "cpuFilter": {"name": "Range", "data": {"min": "1000m"}},
        "memoryFilter": {"name": "Range", "data": {"min": "1Gi", "max": "100Gi"}},
        "podsFilter": {"name": "Match", "data": {"value": 110}},
    });
    let solver = json!({"selector": {"flavorType": "K8Slice", "filters": filters}, "intentID": "intent-sample",
        "findCandidate": true, "reserveAndBuy": true, "establishPeering": true});
    accepted::<Solver>(client, "Solver", "solver-sample", solver).await;
    let service = json!({"selector": {"flavorType": "Service", "filters": {
            "categoryFilter": {"name": "Match", "data": {"value": "database"}}, "tagsFilter": {"name": "Match", "data": {"value": "mysql"}}}},
        "intentID": "intent-sample", "findCandidate": true, "reserveAndBuy": false, "establishPeering": false});
    accepted::<Solver>(client, "Solver", "solver-service", service).await;
    let candidate = json!({"name": "peeringcandidate-fluidos.eu-k8slice-0e68", "namespace": "fluidos"});
    let slice = json!({"type": "K8Slice", "data": {"cpu": "1000m", "memory": "1Gi", "pods": "110"}});
    let configured = json!({"type": "Service", "data": {"configurationData": {"database": "mydb", "username": "admin", "password": "admin"}}});
    for (name, configuration) in [("reservation-sample", slice), ("reservation-service", configured)] {
        let reservation = json!({"solverID": "solver-sample", "configuration": configuration, "peeringCandidate": candidate,
            "reserve": true, "purchase": true, "seller": party("4ahrqttvng"), "buyer": party("rd5ks7x9yz")});
        accepted::<Reservation>(client, "Reservation", name, reservation).await;
    }
    let allocation = json!({"contract": {"name": "contract-fluidos.eu-k8slice-7413", "namespace": "fluidos"}});
    accepted::<Allocation>(client, "Allocation", "allocation-sample", allocation).await;
    accepted::<KnownCluster>(client, "KnownCluster", "knowncluster-sample", json!({"address": "172.8.0.2:30001"}))
        .await;
    let broker = json!({"name": "broker-sample", "address": "broker.example", "role": "both",
        "rule": "{\"MAXlatency\":1000,\"locations\":[\"K\"]}", "metric": "{\"latency\":10,\"location\":\"K\"}",
        "cacert": "broker-ca", "clcert": "broker-cl"});
    accepted::<Broker>(client, "Broker", "broker-sample", broker).await;
    let from = |key: &str| json!({"secretKeyRef": {"name": "db-credentials", "key": key}});
    let blueprint = json!({
        "name": "db", "description": "A database service blueprint", "category": "database", "tags": ["database", "mysql"],
        "hostingPolicies": ["Provider", "Consumer"],
        "templates": [
            {"name": "secret", "description": "credentials", "serviceData": {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-credentials"}, "type": "Opaque",
                "stringData": {"username": "{{ .username }}", "password": "{{ .password }}", "database": "{{ .database }}"}}},
            {"name": "service", "serviceData": {"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "db-service", "labels": {"nodecore.fluidos.eu/flavor-service-endpoint": "true"}},
                "spec": {"selector": {"app": "db"}, "ports": [{"protocol": "TCP", "port": 3306, "targetPort": 3306}]}}},
            {"name": "deployment", "serviceData": {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "db"},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "db"}}, "template": {"metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "db", "image": "mysql:8",
                        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}},
                        "env": [{"name": "MYSQL_PASSWORD", "valueFrom": from("password")}, {"name": "MYSQL_USER", "valueFrom": from("username")}]}]}}}}},
        ],
    });
    accepted::<ServiceBlueprint>(client, "ServiceBlueprint", "db-mysql", blueprint).await;
}

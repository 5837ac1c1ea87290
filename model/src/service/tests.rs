//! Blueprints in, what is sold and made of them out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::kinds::{ServiceBlueprintSpec, ServiceFlavor};

/// A blueprint as official ones are written: the fields of their kind and no others.
fn database() -> Value {
    let resources = json!({"requests": {"cpu": "250m", "memory": "128Mi"}});
    let from = |key: &str| json!({"secretKeyRef": {"name": "db-credentials", "key": key}});
    let env = [("POSTGRES_USER", "username"), ("POSTGRES_PASSWORD", "password"), ("POSTGRES_DB", "database")];
    let env: Vec<Value> = env.iter().map(|(name, key)| json!({"name": name, "valueFrom": from(key)})).collect();
    json!({
        "name": "db", "description": "A database of your own", "category": "database", "tags": ["database", "postgres"],
        "hostingPolicies": ["Provider", "Consumer"],
        "templates": [
            {"name": "secret", "description": "who may", "serviceData": {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-credentials"}, "type": "Opaque",
                "stringData": {"username": "{{ .username }}", "password": "{{ .password }}", "database": "{{ .database }}"}}},
            {"name": "service", "serviceData": {
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "db-service", "labels": {"nodecore.fluidos.eu/flavor-service-endpoint": "true"}},
                "spec": {"selector": {"app": "db"}, "ports": [{"protocol": "TCP", "port": 5432, "targetPort": 5432}]}}},
            {"name": "deployment", "serviceData": {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "db"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "db", "image": "postgres", "env": env, "resources": resources}]}}}}},
        ],
    })
}

fn recipe(spec: Value) -> Result<Recipe, BlueprintError> {
    let spec: ServiceBlueprintSpec = serde_json::from_value(spec).unwrap();
    Recipe::of("db", &spec)
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut spec = database();
    change(&mut spec);
    recipe(spec).unwrap_err().to_string()
}

#[test]
fn an_official_blueprint_is_sold_as_it_is() {
    let recipe = recipe(database()).unwrap();
    assert_eq!(recipe.plan.amounts.to_string(), "cpu 500m, memory 256Mi, pods 2");
    assert_eq!(recipe.credentials, [Credential { name: "password".into(), length: 24 }]);
    let properties = recipe.flavor.configuration_template["properties"].as_object().unwrap();
    assert_eq!(
        properties.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        ["database", "username"].into()
    );
    assert_eq!(recipe.flavor.hosting_policies, ["Provider"]);
}

#[test]
fn a_configuration_is_checked_and_a_buyer_told_what_is_wrong() {
    let recipe = recipe(database()).unwrap();
    let told = |configuration: Value| recipe.check(&configuration).err().unwrap_or_default();
    assert_eq!(told(json!({"username": "shop", "database": "orders"})), "");
    assert_eq!(
        told(json!({"username": "shop", "database": "orders", "password": "admin"})),
        "configurationData.password: needed none, it is made at purchase"
    );
    assert_eq!(
        told(json!({"username": "shop", "database": "orders", "image": "evil"})),
        "configurationData.image: needed none, the service has no such property"
    );
    assert!(told(json!({"username": "shop"})).contains("\"database\" is a required property"));
    let injected = told(json!({"username": "shop; rm -rf /", "database": "orders"}));
    assert!(injected.starts_with("configurationData.username: "), "{injected}");
    assert!(told(json!({"username": {"a": 1}, "database": "orders"})).starts_with("configurationData.username: "));
    assert_eq!(told(json!("shop")), "configurationData: needed an object");
    assert!(told(json!({"username": "x".repeat(5000)})).contains("needed at most 4096"));
}

#[test]
fn an_instance_has_the_values_in_their_places_and_nothing_else() {
    let recipe = recipe(database()).unwrap();
    let credentials = BTreeMap::from([("password".to_owned(), "s3cret".to_owned())]);
    let configuration = json!({"username": "shop", "database": "{{ .password }}"});
    let manifests = recipe.instance(&configuration, &credentials).unwrap();
    let secret = json!({"username": "shop", "password": "s3cret", "database": "{{ .password }}"});
    assert_eq!(manifests[0]["stringData"], secret, "a value that looks like a placeholder stays one");
    let spec: ServiceBlueprintSpec = serde_json::from_value(database()).unwrap();
    assert_eq!(manifests[1..], [spec.templates[1].service_data.clone(), spec.templates[2].service_data.clone()]);
    let missing = recipe.instance(&json!({"username": "shop"}), &credentials).unwrap_err();
    assert!(matches!(missing, BlueprintError::Unfilled(name) if name == "database"));
}

#[test]
fn numbers_and_defaults_keep_their_types() {
    let mut spec = database();
    spec["configurationTemplate"] = json!({"type": "object", "properties": {
        "username": {"type": "string", "default": "app"}, "database": {"type": "string"},
        "connections": {"type": "integer", "minimum": 1, "maximum": 100}}});
    spec["templates"][2]["serviceData"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] =
        json!("{{ .connections }}");
    let recipe = recipe(spec).unwrap();
    assert!(recipe.check(&json!({"database": "d", "connections": "7"})).unwrap_err().contains("connections"));
    recipe.check(&json!({"database": "d", "connections": 7})).unwrap();
    let credentials = BTreeMap::from([("password".to_owned(), "p".to_owned())]);
    let manifests = recipe.instance(&json!({"database": "d", "connections": 7}), &credentials).unwrap();
    let seconds = &manifests[2]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    assert_eq!((seconds, &manifests[0]["stringData"]["username"]), (&json!(7), &json!("app")));
}

#[test]
fn a_blueprint_that_cannot_be_sold_says_why() {
    let deployment = |spec: &mut Value, pointer: &str, value: Value| {
        *spec.pointer_mut(&format!("/templates/2/serviceData{pointer}")).unwrap() = value;
    };
    for (told, needed) in [
        (refused(|spec| spec["hostingPolicies"] = json!(["Consumer"])), "needed Provider among them"),
        (refused(|spec| spec["templates"] = json!([])), "templates: 0, needed 1 to 32"),
        (refused(|spec| deployment(spec, "/kind", json!("DaemonSet"))), "apps/v1 DaemonSet \"db\", needed one of"),
        (
            refused(|spec| spec["templates"][0]["serviceData"]["metadata"]["namespace"] = json!("kube-system")),
            "and no namespace",
        ),
        (
            refused(|spec| spec["templates"][0]["serviceData"]["stringData"]["url"] = json!("pg://{{ .username }}@db")),
            "a placeholder within \"pg://{{ .username }}@db\"",
        ),
        (refused(|spec| spec["templates"][1]["serviceData"]["metadata"]["labels"] = json!({})), "0 Services labelled"),
        (
            refused(|spec| {
                let containers = "/templates/2/serviceData/spec/template/spec/containers/0";
                spec.pointer_mut(containers).unwrap()["securityContext"] = json!({"privileged": true});
            }),
            "template deployment: violates PodSecurity \"baseline:latest\": privileged (container \"db\" must not set securityContext.privileged=true)",
        ),
        (
            refused(|spec| {
                let pod = "/templates/2/serviceData/spec/template/spec";
                spec.pointer_mut(pod).unwrap()["volumes"] =
                    json!([{"name": "{{ .username }}", "hostPath": {"path": "/"}}]);
            }),
            "hostPath volumes",
        ),
        (refused(|spec| deployment(spec, "/spec/replicas", json!(0))), "spec.replicas: needed 1 to 64"),
        (
            refused(|spec| deployment(spec, "/spec/template/spec/containers/0/resources", json!({}))),
            "container db: needed resources.requests.cpu",
        ),
        (
            refused(|spec| spec["credentials"] = json!([{"name": "password", "length": 8}])),
            "length 8, needed 22 to 128",
        ),
        (
            refused(|spec| {
                let containers = "/templates/2/serviceData/spec/template/spec/containers/0";
                spec.pointer_mut(containers).unwrap()["args"] = json!(["-p", "{{ .password }}"]);
            }),
            "template deployment: credential password, needed in a Secret only",
        ),
        (refused(|spec| spec["credentials"] = json!([{"name": "a b"}])), "name \"a b\", needed a letter"),
        (
            refused(|spec| spec["configurationTemplate"] = json!({"type": "object", "properties": {"username": {}}})),
            "placeholder database: neither a property",
        ),
        (
            refused(|spec| spec["configurationTemplate"] = json!({"type": "object", "properties": {"password": {}}})),
            "password: a property of configurationTemplate and a credential",
        ),
        (refused(|spec| spec["configurationTemplate"] = json!({"type": "string"})), "type is not object"),
        (
            refused(|spec| {
                spec["configurationTemplate"] = json!({"type": "object", "properties": {"username": {"type": 7}}})
            }),
            "it is no JSON Schema",
        ),
        (
            refused(|spec| {
                spec["configurationTemplate"] = json!({"type": "object", "$ref": "https://example.com/schema"})
            }),
            "it is no JSON Schema",
        ),
        (
            refused(|spec| spec["price"] = json!({"amount": "1", "currency": "EUR", "period": "hour", "unit": "cpu"})),
            "unit is cpu, needed none",
        ),
    ] {
        assert!(told.contains(needed), "{told}");
    }
    assert!(Recipe::of("Db", &serde_json::from_value(database()).unwrap()).is_err());
}

#[test]
fn a_buyer_finds_a_service_by_category_and_tag() {
    let service = ServiceFlavor {
        category: "database".into(),
        tags: vec!["database".into(), "postgres".into()],
        ..Default::default()
    };
    let asks = |filters: Value| ServiceSelector::from_json(&filters).map(|selector| selector.admits(&service));
    let is = |text: &str| json!({"name": "Match", "data": {"value": text}});
    assert_eq!(asks(json!({"categoryFilter": is("Database"), "tagsFilter": is("postgres")})), Ok(Ok(())));
    assert_eq!(asks(Value::Null), Ok(Ok(())));
    assert_eq!(
        asks(json!({"categoryFilter": is("cache")})),
        Ok(Err("category: database offered, needed cache".into()))
    );
    assert_eq!(
        asks(json!({"tagsFilter": is("mysql")})),
        Ok(Err("tags: database, postgres offered, needed mysql".into()))
    );
    assert!(asks(json!({"cpuFilter": is("1")})).unwrap_err().contains("cpuFilter"));
}

#[test]
fn a_buyer_does_not_fill_in_privileges() {
    let mut spec = database();
    spec["configurationTemplate"] = json!({"type": "object", "properties": {
        "username": {"type": "string"}, "database": {"type": "string"}, "mighty": {"type": "boolean"}}});
    let containers = "/templates/2/serviceData/spec/template/spec/containers/0";
    spec.pointer_mut(containers).unwrap()["securityContext"] = json!({"privileged": "{{ .mighty }}"});
    let recipe = recipe(spec).unwrap();
    let credentials = BTreeMap::from([("password".to_owned(), "s3cret".to_owned())]);
    let instance = |mighty: bool| {
        recipe.instance(&json!({"username": "u", "database": "d", "mighty": mighty}), &credentials).map(|all| all.len())
    };
    assert_eq!(instance(false).unwrap(), 3);
    let refused = instance(true).unwrap_err().to_string();
    assert!(refused.contains("privileged (container"), "{refused}");
}

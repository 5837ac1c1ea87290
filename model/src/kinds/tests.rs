#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use serde_json::{Value, json};

use super::*;
use crate::market::{Agreed, Amounts, BusinessModel, Conditions, Criterion, HoldRequest, Pool, Price};

/// Every rule of structural schemas that our schemas could break (CustomResourceDefinition, "Specifying a structural
/// schema"): a type everywhere, no `$ref`, nothing but `properties` decides what is kept.
fn check_structural(schema: &Value, path: &str) {
    let raw = schema["x-kubernetes-preserve-unknown-fields"] == json!(true);
    let int_or_string = schema["x-kubernetes-int-or-string"] == json!(true);
    assert!(schema["type"].is_string() || raw || int_or_string, "{path} has no type: {schema}");
    assert!(!int_or_string || schema.get("type").is_none(), "{path}: int-or-string with a type");
    for forbidden in [
        "$ref",
        "definitions",
        "$defs",
        "additionalItems",
        "patternProperties",
        "const",
        "default",
        "oneOf",
        "anyOf",
        "allOf",
    ] {
        assert!(schema.get(forbidden).is_none(), "{path} has {forbidden}: {schema}");
    }
    if schema["type"] == "object" {
        let known = schema["properties"].is_object() || schema["additionalProperties"].is_object();
        assert!(known || raw, "{path} keeps nothing: {schema}");
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_structural(property, &format!("{path}.{name}"));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner_schema @ Value::Object(_)) = schema.get(inner) {
            check_structural(inner_schema, &format!("{path}.{inner}"));
        }
    }
}

fn crd_json(kind: &str) -> Value {
    let crds = crds();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    serde_json::to_value(crd).unwrap()
}

#[test]
fn every_schema_is_structural() {
    for crd in crds() {
        let json = serde_json::to_value(&crd).unwrap();
        let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        // The root's metadata is the server's; kube leaves it out.
        for part in ["spec", "status"] {
            if let Some(part_schema) = schema["properties"].get(part) {
                check_structural(part_schema, &format!("{}.{part}", crd.spec.names.kind));
            }
        }
        assert_eq!(json["spec"]["scope"], "Namespaced");
    }
}

#[test]
fn kinds_have_the_official_names() {
    let observed: Vec<String> = crds()
        .iter()
        .map(|crd| {
            let spec = &crd.spec;
            let short = spec.names.short_names.clone().unwrap_or_default().join(",");
            format!("{} {}/{} {} [{short}]", spec.names.kind, spec.group, spec.versions[0].name, spec.names.plural)
        })
        .collect();
    let needed = [
        "Solver nodecore.fluidos.eu/v1alpha1 solvers [sol]",
        "Flavor nodecore.fluidos.eu/v1alpha1 flavors [fl]",
        "Allocation nodecore.fluidos.eu/v1alpha1 allocations [alloc,allocs]",
        "ServiceBlueprint nodecore.fluidos.eu/v1alpha1 serviceblueprints [sbp]",
        "Offer nodecore.fluidos.eu/v1alpha1 offers []",
        "SharingPolicy nodecore.fluidos.eu/v1alpha1 sharingpolicies [sharing]",
        "AcquisitionPolicy nodecore.fluidos.eu/v1alpha1 acquisitionpolicies [acquisition]",
        "Discovery advertisement.fluidos.eu/v1alpha1 discoveries [dis]",
        "PeeringCandidate advertisement.fluidos.eu/v1alpha1 peeringcandidates []",
        "Reservation reservation.fluidos.eu/v1alpha1 reservations [res]",
        "Contract reservation.fluidos.eu/v1alpha1 contracts [contr]",
        "Transaction reservation.fluidos.eu/v1alpha1 transactions [tr]",
        "Ledger reservation.fluidos.eu/v1alpha1 ledgers []",
        "LedgerPage reservation.fluidos.eu/v1alpha1 ledgerpages []",
        "KnownCluster network.fluidos.eu/v1alpha1 knownclusters [kclust,kclusts]",
        "DiscoveryPolicy network.fluidos.eu/v1alpha1 discoverypolicies [dpol]",
        "AccessPolicy security.fluidos.eu/v1alpha1 accesspolicies [apol]",
        "Acquaintance security.fluidos.eu/v1alpha1 acquaintances [acq]",
        "Rating security.fluidos.eu/v1alpha1 ratings []",
        "TransparencyLog security.fluidos.eu/v1alpha1 transparencylogs [tlog]",
        "Account accounting.fluidos.eu/v1alpha1 accounts [acct]",
        "Receipt accounting.fluidos.eu/v1alpha1 receipts []",
        "Invoice accounting.fluidos.eu/v1alpha1 invoices []",
        "Broker network.fluidos.eu/v1alpha1 brokers [broker,brokers]",
        "FLUIDOSDeployment fluidos.eu/v1 fluidosdeployments [fd]",
    ];
    assert_eq!(observed, needed);
}

#[test]
fn enumerations_are_in_the_schema() {
    let solver = crd_json("Solver");
    let schema = &solver["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let phase = &schema["properties"]["status"]["properties"]["solverPhase"]["properties"]["phase"];
    assert!(phase["enum"].as_array().unwrap().contains(&json!("Timed Out")), "{phase}");
    let types = &schema["properties"]["spec"]["properties"]["selector"]["properties"]["flavorType"];
    assert_eq!(types["enum"], json!(["K8Slice", "VM", "Service", "Sensor"]));
    let spec = &schema["properties"]["spec"];
    assert_eq!(spec["required"], json!(["intentID"]));
    assert!(spec["properties"]["enstablishPeering"].is_object(), "the old spelling must not be pruned");
    let columns: Vec<_> = solver["spec"]["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(columns.len(), 10, "{columns:?}");
}

#[test]
fn the_official_flavor_is_an_exact_offer() {
    let flavor: Flavor = serde_json::from_value(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Flavor",
        "metadata": {"name": "fluidos.eu-k8slice-2f16", "namespace": "fluidos"},
        "spec": {
            "availability": true,
            "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                "characteristics": {"architecture": "amd64", "cpu": "1947481697n", "memory": "3735836Ki", "pods": 110,
                    "storage": "0", "gpu": {"model": "", "cores": "0", "memory": "0"}},
                "policies": {"partitionability": {"cpuMin": "0", "cpuStep": "1", "memoryMin": "0", "memoryStep": "100Mi",
                    "podsMin": "0", "podsStep": "0", "gpuMin": "0", "gpuStep": "0"}},
                "properties": {"carbon-footprint": {"embodied": 1}, "additionalProperties": {"TEE": true}}}},
            "location": {"latitude": "10", "longitude": "58", "country": "Italy", "city": "Turin", "additionalNotes": "None"},
            "networkPropertyType": "networkProperty",
            "owner": {"domain": "fluidos.eu", "ip": "172.18.0.7:30000", "nodeID": "ekvjnuvsel"},
            "price": {"amount": "", "currency": "", "period": ""},
            "providerID": "ekvjnuvsel"}
    }))
    .unwrap();
    let offer = flavor.spec.offer("fluidos.eu-k8slice-2f16").unwrap();
    assert_eq!(offer.whole.to_string(), "cpu 1947m, memory 3735836Ki, pods 110");
    assert_eq!(offer.partition.step.to_string(), "cpu 1, memory 100Mi");
    assert_eq!(offer.location.city, "Turin");
    let service = FlavorTypeData { type_identifier: FlavorType::Service, type_data: json!({}) };
    let refused = FlavorSpec { flavor_type: service, ..flavor.spec }.offer("x").unwrap_err();
    assert_eq!(refused.to_string(), "type is Service, needed K8Slice; Service is not built");
}

#[test]
fn both_spellings_of_peering_are_read() {
    let spec = |json: Value| serde_json::from_value::<SolverSpec>(json).unwrap();
    assert!(spec(json!({"intentID": "i", "establishPeering": true})).wants_peering());
    assert!(spec(json!({"intentID": "i", "enstablishPeering": true})).wants_peering());
    assert!(!spec(json!({"intentID": "i"})).wants_peering());
}

#[test]
fn a_configuration_is_what_was_asked_for() {
    let amounts = Amounts { cpu_milli: 1500, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
    let configuration = Configuration::k8slice(&amounts).unwrap();
    assert_eq!(configuration.data, json!({"cpu": "1500m", "memory": "1Gi", "pods": "10"}));
    assert_eq!(configuration.amounts().unwrap(), amounts);
    let wrong = Configuration { data: json!({"cpu": "lots"}), ..configuration };
    assert!(wrong.amounts().unwrap_err().to_string().contains("K8Slice cpu: `lots` is not a quantity"));
}

#[test]
fn a_ledger_object_is_the_pool() {
    let amounts = |cpu_milli| Amounts { cpu_milli, memory_bytes: 3 << 20, ..Amounts::default() };
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let until = "2026-01-01T00:01:00Z".parse().unwrap();
    let hold = |transaction: &str| HoldRequest {
        transaction: transaction.into(),
        buyer: "did:key:z".into(),
        flavor: "f".into(),
        amounts: amounts(10),
        until,
        agreed: (transaction == "b").then(|| Agreed {
            policy: "p".into(),
            issued: now,
            hold_until: until,
            ends: None,
            price: Price::parse("0.02", "EUR", "hour").unwrap().unwrap(),
            conditions: Conditions {
                business_model: BusinessModel::Spot,
                notice_seconds: 120,
                ..Conditions::default()
            },
            service: Some(crate::market::AgreedService { digest: "ab".repeat(32), sized: true }),
        }),
    };
    let pool = Pool { capacity: amounts(1000), commitments: vec![] };
    let pool = Pool { capacity: Amounts { memory_bytes: 1 << 30, ..pool.capacity }, ..pool };
    let pool = pool.hold(&hold("a"), now).unwrap().hold(&hold("b"), now).unwrap().commit("b", "c", None, now).unwrap();
    let spec = LedgerSpec::from(&pool);
    let through_json: LedgerSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    assert_eq!(through_json.pool().unwrap(), pool);
    let mut broken = spec;
    let mut unpriced = broken.clone();
    unpriced.commitments[1].agreed.as_mut().unwrap().price.amount.clear();
    assert!(unpriced.pool().unwrap_err().to_string().contains("agreed price: observed none, needed an amount"));
    broken.commitments[0].until = None;
    assert!(broken.pool().unwrap_err().to_string().contains("needed an RFC 3339 time"));
}

#[test]
fn a_wrapped_manifest_is_found_in_both_shapes() {
    let plain = FLUIDOSDeploymentSpec(json!({"kind": "Pod"}));
    let nested = FLUIDOSDeploymentSpec(json!({"pod_manifest": {"kind": "Pod"}}));
    assert_eq!(plain.manifest(), nested.manifest());
}

#[test]
fn credentials_are_not_printed() {
    let credentials = LiqoCredentials { liqo_id: "x".into(), kubeconfig: "c2VjcmV0".into() };
    assert!(!format!("{credentials:?}").contains("c2VjcmV0"));
}

#[test]
fn a_sharing_policy_is_read_or_says_what_it_needs() {
    let rules = |spec: Value| {
        let spec: SharingPolicySpec = serde_json::from_value(spec).unwrap();
        spec.rules("p").map_err(|error| error.to_string())
    };
    let price = || json!({"amount": "0.02", "currency": "EUR", "period": "hour", "unit": "cpu"});
    let whole = rules(json!({
        "price": price(), "limits": {"cpu": 2, "gpu": "0"}, "buyers": {"allow": ["did:key:z"]}, "creditLimit": "10",
        "blocks": {"cpuMin": "500m", "cpuStep": "500m"}, "holdSeconds": 30, "termSeconds": 86400,
    }))
    .unwrap();
    assert_eq!(
        (whole.limit.cpu_milli, whole.limit.get(&crate::market::Resource::GPU), whole.limit.pods),
        (2000, 0, u64::MAX)
    );
    assert_eq!(whole.blocks.unwrap().step.to_string(), "cpu 500m");
    assert!(rules(json!({"price": {"amount": "0"}})).is_ok(), "0 is 0, whatever of");
    for (spec, expected) in [
        (json!({"price": {"amount": "1"}}), "price.currency: currency is ``"),
        (json!({"price": {"amount": "1", "currency": "EUR"}}), "price: period is ``"),
        (
            json!({"price": {"amount": "cheap", "currency": "EUR", "period": "hour"}}),
            "price.amount: price rule uses `cheap`",
        ),
        (json!({"price": {"amount": "1", "currency": "EUR", "period": "hour", "unit": "kg"}}), "price: unit is `kg`"),
        (json!({"price": price(), "holdSeconds": 1}), "holdSeconds is 1, needed 5 to 3600"),
        (json!({"price": price(), "termSeconds": 1}), "termSeconds is 1, needed 60 to"),
        (json!({"price": price(), "limits": {"cpu": "two"}}), "`two` is not a quantity"),
        (json!({"price": price(), "blocks": {"cpuStep": "x"}}), "blocks: K8Slice partitionability"),
        (json!({"price": price(), "creditLimit": "-1"}), "creditLimit: amount is `-1`"),
        (json!({"price": price(), "buyers": {"deny": vec!["d"; 300]}}), "buyers.deny is 300, needed 0 to 256"),
    ] {
        let refused = rules(spec.clone()).unwrap_err();
        assert!(refused.contains(expected), "{spec}: {refused}");
    }
}

#[test]
fn an_acquisition_policy_is_read_or_says_what_it_needs() {
    let rules = |spec: Value| {
        let spec: AcquisitionPolicySpec = serde_json::from_value(spec).unwrap();
        spec.rules("p").map_err(|error| error.to_string())
    };
    let euro = || json!({"currency": "EUR", "perHour": "1", "perMonth": "50"});
    let whole = rules(json!({"ceilings": [euro()], "ranking": ["latency", "price"], "deadlineSeconds": 5})).unwrap();
    assert_eq!(whole.ranking, [Criterion::Latency, Criterion::Price]);
    assert_eq!(
        rules(json!({})).unwrap().ranking,
        [Criterion::Price, Criterion::Surplus, Criterion::Rating, Criterion::Latency]
    );
    for (spec, expected) in [
        (json!({"ceilings": [euro(), {"currency": "EUR"}]}), "ceilings[1] has neither perHour nor perMonth"),
        (json!({"ceilings": [{"currency": "FUN", "perHour": "1"}]}), "ceilings[0].currency: currency is `FUN`"),
        (json!({"ceilings": [{"currency": "EUR", "perHour": "-1"}]}), "ceilings[0].perHour: amount is `-1`"),
        (json!({"ceilings": vec![euro(); 65]}), "ceilings is 65, needed 0 to 64"),
        (json!({"ranking": ["mood"]}), "ranking: `mood` is not known, needed price, rating, latency or surplus"),
        (json!({"deadlineSeconds": 31}), "deadlineSeconds is 31, needed 1 to 30"),
        (json!({"termSeconds": 1}), "termSeconds is 1, needed 60 to"),
        (json!({"shortlist": 0}), "shortlist is 0, needed 1 to 64"),
    ] {
        let refused = rules(spec.clone()).unwrap_err();
        assert!(refused.contains(expected), "{spec}: {refused}");
    }
}

#[test]
fn contracts_that_ended_are_counted_once_and_for_their_month() {
    let price = FlavorPrice { amount: "1".into(), currency: "EUR".into(), period: "hour".into(), unit: String::new() };
    let ended = |contract: &str, until: &str| EndedContract {
        contract: contract.into(),
        price: price.clone(),
        from: "2026-10-01T00:00:00Z".into(),
        until: until.into(),
        namespace: None,
    };
    let november = "2026-11-01T00:00:00Z".parse().unwrap();
    let old = AcquisitionPolicyStatus::default().with_ended(ended("a", "2026-10-31T00:00:00Z"), november);
    let new = old.with_ended(ended("b", "2026-11-02T00:00:00Z"), november);
    let again = new.with_ended(ended("b", "2026-11-03T00:00:00Z"), november);
    assert_eq!(again.ended.iter().map(|it| it.until.as_str()).collect::<Vec<_>>(), ["2026-11-02T00:00:00Z"]);
    let full =
        (0..2000).fold(new, |status, n| status.with_ended(ended(&n.to_string(), "2026-11-02T00:00:00Z"), november));
    assert_eq!(full.ended.len(), 1024);
    assert_eq!(full.ended[0].expense().unwrap().price.to_string(), "1 EUR/hour");
}

#[test]
fn what_is_sold_on_has_a_margin_and_an_end() {
    let rules = |reselling: serde_json::Value| {
        let reselling: SharingReselling = serde_json::from_value(reselling).unwrap();
        let price = serde_json::from_value(json!({"amount": "0"})).unwrap();
        let spec = SharingPolicySpec { price, reselling: Some(reselling), ..SharingPolicySpec::default() };
        spec.rules("standard").map(|rules| rules.reselling.unwrap()).map_err(|error| error.to_string())
    };
    let usual = rules(json!({"margin": "10%"})).unwrap();
    assert_eq!((usual.margin.to_string(), usual.hops_max, usual.allow), ("10%".into(), 2, None));
    assert_eq!(rules(json!({"margin": "0%", "hopsMax": 7})).unwrap().hops_max, 7);
    assert!(rules(json!({"margin": "a tenth"})).unwrap_err().starts_with("reselling.margin is `a tenth`, needed"));
    assert_eq!(rules(json!({"margin": "1%", "hopsMax": 0})).unwrap_err(), "reselling.hopsMax is 0, needed 1 to 7");
    assert_eq!(rules(json!({"margin": "1%", "hopsMax": 8})).unwrap_err(), "reselling.hopsMax is 8, needed 1 to 7");
    let many: Vec<String> = (0..257).map(|number| format!("did:key:z{number}")).collect();
    let refused = rules(json!({"margin": "1%", "sellers": {"deny": many}})).unwrap_err();
    assert_eq!(refused, "reselling.sellers.deny is 257, needed 0 to 256");
    let none = SharingPolicySpec {
        price: serde_json::from_value(json!({"amount": "0"})).unwrap(),
        ..SharingPolicySpec::default()
    };
    assert_eq!(none.rules("standard").unwrap().reselling, None, "without a word nothing is sold on");
}

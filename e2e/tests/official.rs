//! An official FLUIDOS node buys here: its own messages, without TLS and without a key, at the plain listener.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const PORT: u16 = 7301;
/// What buyers without a key may have: a little, and not for long.
const POLICIES: &str = r#"
apiVersion: security.fluidos.eu/v1alpha1
kind: AccessPolicy
metadata: {name: official, namespace: fluidos}
spec:
  cedar: |
    @id("small")
    permit (principal, action in [Action::"Reserve", Action::"Buy"], resource)
    when { !principal.proven && context.heldCpuMilli + resource.cpuMilli <= 500 };
---
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: SharingPolicy
metadata: {name: everybody, namespace: fluidos}
spec:
  price: {amount: "0"}
  termSeconds: 600
"#;

/// One request as a Go client sends it; the status and the body.
fn http(address: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} /api/v2{path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Go-http-client/1.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn reservation(flavor: &str, cpu: &str) -> Value {
    json!({
        "flavorID": flavor,
        "buyerID": {"ID": "43ndiidjov", "IP": "172.18.0.6:30000", "domain": "fluidos.eu",
                    "additionalInformation": {"liqoID": "fluidos-consumer-1", "kubeconfig": "c2VjcmV0LWt1YmVjb25maWc="}},
        "configuration": {"type": "k8slice", "data": {"cpu": cpu, "memory": "256Mi", "pods": "3"}}
    })
}

fn ledger(node: &Node) -> Value {
    node.get(&["ledgers", "-n", "fluidos"]).unwrap()["items"][0]["spec"]["commitments"].clone()
}

#[test]
fn an_official_node_buys_up_to_the_contract_where_its_owner_lets_it() {
    let mut stage = Stage::new("offi").unwrap();
    stage.lan().connect_host().unwrap();
    let plain = format!("0.0.0.0:{PORT}");
    let offer = ["--no-agent", "--offer", "cpu=2,memory=2Gi,pods=20", "--rear-plain", &plain];
    let setup = stage.setup("grid", &offer).unwrap();
    let address = SocketAddr::new(setup.machine.as_ref().unwrap().address.into(), PORT);
    let node = setup.start().unwrap();
    let flavors = until("a flavor is listed", LIMIT, || match http(address, "GET", "/flavors/k8slice", &Value::Null) {
        (200, flavors) if flavors[0]["flavorID"].is_string() => Ok(flavors),
        other => Err(format!("{other:?}")),
    });
    let flavors = flavors.unwrap();
    let flavor = flavors[0]["flavorID"].as_str().unwrap().to_owned();
    assert!(flavors[0]["type"]["data"]["charateristics"]["cpu"].is_string(), "{flavors}");

    // Deny by default: the flag opens a door, and sells nothing.
    let (status, refused) = http(address, "POST", "/reservations", &reservation(&flavor, "500m"));
    assert_eq!(status, 403, "{refused}");
    assert_eq!(refused["code"], "forbidden");
    node.apply(POLICIES).unwrap();
    let held = until("the policy permits it", LIMIT, || {
        match http(address, "POST", "/reservations", &reservation(&flavor, "400m")) {
            (200, transaction) => Ok(transaction),
            other => Err(format!("{other:?}")),
        }
    });
    let held = held.unwrap();
    assert_eq!(held["buyer"]["ID"], "43ndiidjov");
    assert_eq!(held["clusterID"], "fluidos-consumer-1");
    let transaction = held["transactionID"].as_str().unwrap();
    assert!(!held.to_string().contains("c2VjcmV0"), "no kubeconfig is echoed: {held}");
    let (status, refused) = http(address, "POST", "/reservations", &reservation(&flavor, "200m"));
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "the policy counts what is held: {refused}");

    let credentials =
        json!({"liqoCredentials": {"clusterID": "fluidos-consumer-1", "kubeconfig": "c2VjcmV0LWt1YmVjb25maWc="}});
    let path = format!("/transactions/{transaction}/purchase");
    let (status, contract) = http(address, "POST", &path, &credentials);
    assert_eq!(status, 200, "{contract}");
    let name = contract["contractID"].as_str().unwrap();
    assert_eq!(contract["buyerClusterID"], "fluidos-consumer-1");
    assert!(contract.get("peeringTargetCredentials").is_none() && contract.get("signedTerms").is_none(), "{contract}");
    let (status, again) = http(address, "POST", &path, &credentials);
    for field in ["contractID", "configuration", "expirationTime", "buyerID"] {
        assert_eq!((status, &again[field]), (200, &contract[field]), "again is the same contract: {field}");
    }
    let (status, _) = http(address, "POST", "/transactions/never-held/purchase", &credentials);
    assert_eq!(status, 408, "as official nodes answer");
    let (status, _) = http(address, "POST", "/requests", &json!({"type": "k8slice"}));
    assert_eq!(status, 401, "what official nodes do not know needs a key here, too");

    let object = node.get(&["contract", name, "-n", "fluidos"]).unwrap();
    assert_eq!(object["spec"]["buyer"]["additionalInformation"], json!({"liqoID": "fluidos-consumer-1"}));
    assert!(!object.to_string().contains("c2VjcmV0"), "{object}");
    let books = ledger(&node);
    assert_eq!(books[0]["contract"], name, "{books}");
    assert!(books[0]["buyer"].as_str().unwrap().starts_with("unproven:"), "{books}");
    let until_end: jiff::Timestamp = contract["expirationTime"].as_str().unwrap().parse().unwrap();
    let left = until_end.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((500..=600).contains(&left), "the policy says how long: {left} s");
    let shown = node.setup.fluidos(&["contracts", "--sold"]).unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("fluidos-consumer-1 (fluidos.eu)"), "{shown}");

    // Nobody has signed it: it ends when its owner says so, and what it kept is free again.
    node.kubectl(&["delete", "contract", name, "-n", "fluidos"]).unwrap();
    until("what was sold is free", LIMIT, || match ledger(&node).as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        count => Err(format!("{count} promises")),
    })
    .unwrap();
}

/// Manifests of six kinds in the spelling and with the oddities of official ones: integers for quantities, a status that is applied, an
/// old spelling, placeholders of templates.
const MANIFESTS: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Solver
metadata: {name: flt-slice, namespace: fluidos}
spec:
  selector:
    flavorType: K8Slice
    filters:
      architectureFilter: {name: Match, data: {value: "amd64"}}
      cpuFilter: {name: Range, data: {min: "1000m"}}
      memoryFilter: {name: Range, data: {min: "1Gi", max: "100Gi"}}
      podsFilter: {name: Match, data: {value: 110}}
  intentID: "flt-intent"
  findCandidate: true
  reserveAndBuy: false
  establishPeering: false
---
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Solver
metadata: {name: flt-service, namespace: fluidos}
spec:
  selector:
    flavorType: Service
    filters:
      categoryFilter: {name: Match, data: {value: "database"}}
      tagsFilter: {name: Match, data: {value: "mysql"}}
  intentID: "flt-intent-2"
  findCandidate: true
  reserveAndBuy: false
  enstablishPeering: false
---
apiVersion: reservation.fluidos.eu/v1alpha1
kind: Reservation
metadata: {name: flt-reservation, namespace: fluidos}
spec:
  solverID: flt-solver-of-nobody
  configuration: {type: K8Slice, data: {cpu: 1000m, memory: 1Gi, pods: "110"}}
  peeringCandidate: {name: peeringcandidate-flt-k8slice-0e682ec3133811bb0d52b6373c339f81, namespace: fluidos}
  reserve: true
  purchase: true
  seller: {domain: fluidos.eu, ip: "172.19.0.4:30001", nodeID: 4ahrqttvng}
  buyer: {domain: fluidos.eu, ip: "172.19.0.5:30000", nodeID: rd5ks7x9yz}
---
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Allocation
metadata: {name: flt-allocation, namespace: fluidos}
spec:
  contract: {name: contract-flt-k8slice-7413576d05fe8e93c719e13eab156c5c-ae7e, namespace: fluidos}
---
apiVersion: network.fluidos.eu/v1alpha1
kind: KnownCluster
metadata: {name: flt-known, namespace: fluidos}
spec: {address: "172.8.0.2:30001"}
status: {expirationTime: "2024-01-01T09:00:10Z", lastUpdateTime: "2024-01-01T09:00:00Z"}
---
apiVersion: network.fluidos.eu/v1alpha1
kind: Broker
metadata: {name: flt-broker, namespace: fluidos}
spec:
  name: flt-broker
  address: broker.example
  role: both
  rule: "{\"MAXlatency\":1000,\"MINbandwidth\":1,\"locations\":[\"K\",\"J\"],\"example\":\"aAbB12\"}"
  metric: "{\"bandwidth\":1,\"latency\":10,\"location\":\"K\",\"foo\":\"bar\"}"
  cacert: flt-ca
  clcert: flt-cl
---
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: ServiceBlueprint
metadata: {name: flt-mysql, namespace: fluidos}
spec:
  name: db
  description: A database
  category: database
  tags: [database, mysql]
  hostingPolicies: [Provider, Consumer]
  templates:
  - name: secret
    description: credentials
    serviceData:
      apiVersion: v1
      kind: Secret
      metadata: {name: db-credentials}
      type: Opaque
      stringData: {username: "{{ .username }}", password: "{{ .password }}", database: "{{ .database }}"}
  - name: service
    serviceData:
      apiVersion: v1
      kind: Service
      metadata: {name: db-service, labels: {nodecore.fluidos.eu/flavor-service-endpoint: "true"}}
      spec: {selector: {app: db}, ports: [{protocol: TCP, port: 3306, targetPort: 3306}]}
"#;

/// What of `wanted` is not in `there`: the first path.
fn missing(wanted: &Value, there: &Value, path: &str) -> Option<String> {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => wanted.iter().find_map(|(name, value)| {
            missing(value, there.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"))
        }),
        (wanted, there) if wanted == there => None,
        (wanted, there) => Some(format!("{path}: {wanted} became {there}")),
    }
}

#[test]
fn manifests_of_official_nodes_are_taken_as_they_are_and_nothing_of_them_is_lost() {
    let mut stage = Stage::new("ofma").unwrap();
    let node = stage.start("farm", &["--no-agent"]).unwrap();
    node.apply(MANIFESTS).unwrap();
    let read = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let read = node.kubectl_with(&read, MANIFESTS).unwrap().stdout;
    let listed: Vec<Value> = serde_json::Deserializer::from_slice(&read).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(listed.len(), 7);
    for wanted in &listed {
        let (kind, name) = (wanted["kind"].as_str().unwrap(), wanted["metadata"]["name"].as_str().unwrap());
        let there = node.get(&[kind, name, "-n", "fluidos"]).unwrap();
        assert_eq!(missing(&wanted["spec"], &there["spec"], kind), None);
    }

    // What cannot be done says so, in the object.
    let shown = until("the broker says that it is not built", LIMIT, || {
        let shown = node.kubectl(&["get", "broker", "flt-broker", "-n", "fluidos"]).unwrap();
        if shown.contains("NotBuilt") { Ok(shown) } else { Err(shown) }
    });
    assert!(shown.unwrap().contains("False"));
    // A search goes on: somebody may come.
    for solver in ["flt-slice", "flt-service"] {
        until("the Solver says what it lacks", LIMIT, || {
            let status = node.get(&["solver", solver, "-n", "fluidos"]).unwrap()["status"]["solverPhase"].clone();
            let told = status["message"].as_str().is_some_and(|message| message.contains("no trusted peer is known"));
            if told && status["phase"] == "Running" { Ok(()) } else { Err(status.to_string()) }
        })
        .unwrap();
    }
}

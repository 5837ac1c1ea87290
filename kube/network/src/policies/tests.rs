//! Policies in, what each pod may do out.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::*;

/// `namespace/name`, its address and its labels; `web` listens on 8080 by the name `http`.
fn pod(name: &str, last: u8, more: Value) -> Arc<Pod> {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut pod = json!({
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + u16::from(last)}]}]},
        "status": {"phase": "Running", "podIP": format!("10.1.0.{last}")},
    });
    for (part, fields) in more.as_object().unwrap() {
        pod[part].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn shown<A: Address>(isolated: &Isolated<A>) -> Vec<String> {
    let ports = |ports: &Ports| match ports.range {
        None => ports.protocol.name().to_owned(),
        Some((first, last)) if first == last => format!("{}/{first}", ports.protocol.name()),
        Some((first, last)) => format!("{}/{first}-{last}", ports.protocol.name()),
    };
    let one = |allowed: &Allowed<A>| {
        let peers = match &allowed.peers {
            Peers::Anybody => "anybody".to_owned(),
            Peers::Pods(pods) => pods.iter().map(|pod| pod.to_string()).collect::<Vec<_>>().join(","),
            Peers::Range { range, except } => {
                except.iter().fold(range.to_string(), |text, except| format!("{text} but {except}"))
            }
        };
        let ports: Vec<String> = allowed.ports.iter().map(ports).collect();
        format!("{peers} {}", ports.join(",")).trim_end().to_owned()
    };
    let way = |name: &str, allowed: &Option<Vec<Allowed<A>>>| {
        allowed
            .as_ref()
            .map(|all| format!("{} {name} [{}]", isolated.address, all.iter().map(one).collect::<Vec<_>>().join("; ")))
    };
    way("in", &isolated.ingress).into_iter().chain(way("out", &isolated.egress)).collect()
}

/// The pods `web` 10.1.0.2, `db` .3 and `old` .4 (ended) of `shop`, `web` .5 of `lab`, one of the machine's network, and one elsewhere.
fn check(specs: &[Value]) -> Vec<String> {
    let pods = [
        pod("shop/web", 2, json!({})),
        pod("shop/db", 3, json!({})),
        pod("shop/old", 4, json!({"status": {"phase": "Succeeded"}})),
        pod("lab/web", 5, json!({})),
        pod("shop/host", 6, json!({"spec": {"hostNetwork": true}})),
        pod("shop/far", 7, json!({"status": {"podIP": "10.2.0.7"}})),
    ];
    let namespaces = ["shop", "lab", "kube-system"].map(|name| {
        let labels = json!({"kubernetes.io/metadata.name": name, "team": if name == "lab" { "blue" } else { "red" }});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap())
    });
    let policies: Vec<Arc<NetworkPolicy>> = specs
        .iter()
        .map(|spec| {
            let policy = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
            Arc::new(serde_json::from_value(policy).unwrap())
        })
        .collect();
    let isolated = plan(
        &policies,
        &pods,
        &namespaces,
        &Here::of("10.1.0.0/24".parse().unwrap()),
        Some(Ipv4Addr::new(10, 1, 0, 1)),
    );
    isolated.iter().flat_map(shown).collect()
}

#[test]
fn who_is_selected_is_isolated_in_the_directions_of_the_policy() {
    assert!(check(&[]).is_empty());
    let all = json!({"podSelector": {}});
    assert_eq!(
        check(std::slice::from_ref(&all)),
        ["10.1.0.2 in []", "10.1.0.3 in []"],
        "not who ended, is elsewhere or the machine's"
    );
    let out = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]});
    assert_eq!(check(&[out]), ["10.1.0.3 out []"]);
    let implied = json!({"podSelector": {"matchLabels": {"app": "db"}}, "egress": [{}]});
    assert_eq!(check(&[implied]), ["10.1.0.3 in []", "10.1.0.3 out [anybody]"]);
}

#[test]
fn peers_are_pods_by_both_selectors_and_ranges() {
    let from =
        |from: Value| check(&[json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": from}]})]);
    assert_eq!(
        from(json!([{"podSelector": {"matchLabels": {"app": "web"}}}])),
        ["10.1.0.3 in [10.1.0.2]"],
        "of its namespace"
    );
    assert_eq!(from(json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}])), ["10.1.0.3 in [10.1.0.5]"]);
    let both = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]);
    assert_eq!(from(both), ["10.1.0.3 in [10.1.0.2,10.1.0.5]"]);
    assert_eq!(
        from(json!([{"podSelector": {}}])),
        ["10.1.0.3 in [10.1.0.2,10.1.0.3,10.2.0.7]"],
        "also who is elsewhere"
    );
    assert_eq!(
        from(json!([{"podSelector": {"matchLabels": {"app": "none"}}}])),
        ["10.1.0.3 in []"],
        "nobody is not anybody"
    );
    let range =
        json!([{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/30"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]);
    assert_eq!(from(range), ["10.1.0.3 in [192.0.2.0/24 but 192.0.2.8/30]"]);
    assert_eq!(from(json!([])), ["10.1.0.3 in [anybody]"]);
}

#[test]
fn ports_are_numbers_ranges_and_names_of_who_listens() {
    let ports = |ports: Value| {
        let rule = json!([{"ports": ports}]);
        check(&[json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rule})])
    };
    assert_eq!(ports(json!([{"port": 80}, {"protocol": "UDP", "port": 53}])), ["10.1.0.3 in [anybody tcp/80,udp/53]"]);
    assert_eq!(
        ports(json!([{"port": 80, "endPort": 90}, {"protocol": "UDP"}])),
        ["10.1.0.3 in [anybody tcp/80-90,udp]"]
    );
    assert_eq!(ports(json!([{"port": "http"}])), ["10.1.0.3 in [anybody tcp/8003]"]);
    assert_eq!(ports(json!([{"port": "other"}])), ["10.1.0.3 in []"]);
    assert_eq!(ports(json!([{"protocol": "SCTP", "port": 80}])), ["10.1.0.3 in []"]);
    let out = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}, {"port": 9}]}]});
    assert_eq!(check(&[out]), ["10.1.0.3 out [10.1.0.2,10.1.0.5 tcp/9; 10.1.0.2 tcp/8002; 10.1.0.5 tcp/8005]"]);
}

#[test]
fn policies_add_up_and_dns_is_known_by_its_usual_labels() {
    let web = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]});
    let lab =
        json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]});
    assert_eq!(check(&[web, lab]), ["10.1.0.2 in [10.1.0.5]", "10.1.0.3 in [10.1.0.2; 10.1.0.5]"]);
    let dns = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"], "egress": [{
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"port": "dns-tcp"}]}]});
    assert_eq!(check(&[dns]), ["10.1.0.3 out [10.1.0.1 udp/53; 10.1.0.1 tcp/53]"]);
}

#[test]
fn the_other_family_is_judged_by_its_own_addresses() {
    let both = |name: &str, last: u8| {
        let ips = json!([{"ip": format!("10.1.0.{last}")}, {"ip": format!("fd00:1::{last}")}]);
        pod(name, last, json!({"status": {"podIPs": ips}}))
    };
    let pods = [both("shop/web", 2), both("shop/db", 3), pod("shop/guest", 4, json!({}))];
    let plan = |spec: Value| -> Vec<String> {
        let policy = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
        let policies = [Arc::new(serde_json::from_value(policy).unwrap())];
        let range = &Here::of("fd00:1::/80".parse().unwrap());
        plan::<Ipv6Addr>(&policies, &pods, &[], range, None).iter().flat_map(shown).collect()
    };
    assert_eq!(plan(json!({"podSelector": {}})), ["fd00:1::2 in []", "fd00:1::3 in []"]);
    let db = |from: Value| plan(json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": from}]}));
    assert_eq!(db(json!([{"podSelector": {}}])), ["fd00:1::3 in [fd00:1::2,fd00:1::3]"]);
    assert_eq!(db(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}])), ["fd00:1::3 in []"], "which is nobody here");
    let block = json!([{"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48", "10.0.0.0/8"]}}]);
    assert_eq!(db(block), ["fd00:1::3 in [2001:db8::/32 but 2001:db8:1::/48]"]);
}

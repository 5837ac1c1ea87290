//! Policies and decisions as text.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use expect_test::{Expect, expect};
use fluidos_identity::NodeKey;
use fluidos_model::kinds::{
    AttributeEvidence, AttributeLevel, Flavor, KnownCluster, KnownClusterIdentity, KnownClusterSource,
    KnownClusterSpec, KnownClusterTrust, ProvenFact, names,
};
use fluidos_model::market::{Amounts, HoldRequest, Pool};
use jiff::Timestamp;

use super::*;

fn text<'a>(name: &'a str, text: &'a str) -> Text<'a> {
    Text { name, text, accepted: "" }
}

/// What becomes of one text.
fn fault(cedar: &str) -> String {
    let (_, verdicts) = compile(&[text("p", cedar)]);
    verdicts[0].fault.clone().unwrap_or_else(|| format!("{} statements", verdicts[0].statements))
}

fn peer() -> Peer {
    Peer {
        did: Some("did:key:z6MkGrid".into()),
        name: "grid".into(),
        domain: "grid.example".into(),
        source: Source::Multicast,
        features: ["country=Italy".to_owned()].into(),
        ..Peer::default()
    }
}

fn goods() -> Goods {
    let amounts = Amounts { cpu_milli: 1500, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
    Goods { name: "f".into(), kind: "K8Slice".into(), amounts: Asked::from(&amounts), ..Goods::default() }
}

fn buy(peer: Peer) -> Request {
    Request {
        action: Action::Buy,
        peer,
        resource: Resource::Flavor(Box::new(goods())),
        context: Circumstances::at("2026-11-25T03:30:10Z".parse().unwrap()),
    }
}

fn check(texts: &[(&str, &str)], request: &Request, expected: Expect) {
    let texts: Vec<_> = texts.iter().map(|(name, cedar)| text(name, cedar)).collect();
    let (policies, verdicts) = compile(&texts);
    for verdict in &verdicts {
        assert_eq!(verdict.fault, None, "{}", verdict.name);
    }
    let decision = decide(&policies, request);
    expected.assert_eq(&format!("{}: {}", if decision.allowed { "yes" } else { "no" }, decision.reason));
}

const SELL: &str =
    r#"permit (principal, action in [Action::"Reserve", Action::"Buy"], resource) when { principal.proven };"#;

#[test]
fn what_nothing_permits_is_denied_and_a_forbid_counts_more() {
    check(&[], &buy(peer()), expect!["no: no policy permits Buy"]);
    check(&[("offer", SELL)], &buy(peer()), expect!["yes: policy offer permits Buy"]);
    check(&[("offer", SELL)], &buy(Peer::default()), expect!["no: no policy permits Buy"]);
    let night =
        r#"@reason("closed until 6 o'clock UTC") forbid (principal, action, resource) when { context.hour < 6 };"#;
    check(
        &[("offer", SELL), ("night", night)],
        &buy(peer()),
        expect!["no: policy night forbids Buy: closed until 6 o'clock UTC"],
    );
    let two = r#"@id("big") forbid (principal, action == Action::"Buy", resource) when { resource.cpuMilli > 4000 };
        @id("full") forbid (principal, action == Action::"Buy", resource) when { context.heldCpuMilli + resource.cpuMilli > 2000 };"#;
    let mut held = buy(peer());
    check(&[("offer", SELL), ("mine", two)], &held, expect!["yes: policy offer permits Buy"]);
    held.context.held.cpu_milli = 600;
    check(&[("offer", SELL), ("mine", two)], &held, expect!["no: policy mine/full forbids Buy"]);
}

#[test]
fn devices_are_asked_for_as_tags() {
    let few = r#"permit (principal, action == Action::"Buy", resource) when {
        resource.hasTag("example.com/fpga") && resource.getTag("example.com/fpga") <= 2 };"#;
    let asked = |count: u64| {
        let fpga = fluidos_model::market::Resource::parse("example.com/fpga").unwrap();
        let mut amounts = Amounts { cpu_milli: 500, ..Amounts::default() };
        amounts.set(&fpga, count);
        let goods = Goods { amounts: (&amounts).into(), ..goods() };
        Request { resource: Resource::Flavor(Box::new(goods)), ..buy(peer()) }
    };
    check(&[("few", few)], &asked(2), expect!["yes: policy few permits Buy"]);
    check(&[("few", few)], &asked(3), expect!["no: no policy permits Buy"]);
    check(&[("few", few)], &asked(0), expect!["no: no policy permits Buy"]);
}

#[test]
fn every_attribute_can_be_asked() {
    let all = r#"permit (principal, action == Action::"Buy", resource) when {
        principal.proven && principal.did != "" && principal.name == "grid" && principal.domain == "grid.example"
        && !principal.domainProven && !(principal has owner) && principal.source == Source::"Multicast"
        && principal.trust == Trust::"Unknown" && principal.features.contains("country=Italy")
        && !principal.credentials.contains("x") && !(principal has rating) && principal.ratingWeight == 0
        && resource.name == "f" && resource.type == "K8Slice" && resource.architecture == "" && resource.city == ""
        && resource.country == "" && resource.cpuMilli == 1500 && resource.memoryBytes == 1073741824
        && resource.pods == 10 && resource.storageBytes == 0 && resource.gpu == 0 && !(resource has priceMilli)
        && resource.currency == "" && resource.period == "" && context.now == 1795577400 && context.hour == 3
        && context.weekday == 3 && context.heldCpuMilli == 0 && context.heldMemoryBytes == 0
        && context.heldPods == 0 && context.heldCount == 0 };"#;
    check(&[("all", all)], &buy(peer()), expect!["yes: policy all permits Buy"]);
    // Each alone: what is told follows from what is asked, however the name is written.
    let conditions = all.split_once("when {").unwrap().1.trim_end_matches("};");
    let spelt = [r#"resource["cpu\u{4d}illi"] == 1500"#, r#"context has hour && context["hour"] == 3"#];
    for condition in conditions.split("&&").chain(spelt) {
        let alone = format!(r#"permit (principal, action == Action::"Buy", resource) when {{ {condition} }};"#);
        let (policies, verdicts) = compile(&[text("alone", &alone)]);
        assert_eq!(verdicts[0].fault, None, "{condition}");
        assert!(decide(&policies, &buy(peer())).allowed, "{condition}");
    }
    let rated = r#"permit (principal, action, resource) when { principal has rating && principal.rating >= 60 };"#;
    check(&[("rated", rated)], &buy(peer()), expect!["no: no policy permits Buy"]);
    let good = Peer { rating: Some(60), ..peer() };
    check(&[("rated", rated)], &buy(good), expect!["yes: policy rated permits Buy"]);
    // Every action is known to the schema, with its resource.
    let workload = Resource::Workload { namespace: "shop".into() };
    for action in Action::ALL {
        let resource = match action {
            Action::Offload => workload.clone(),
            Action::Receive => Resource::Node,
            _ => Resource::Flavor(Box::new(goods())),
        };
        let request = Request { action, resource, ..buy(peer()) };
        let cedar = format!("permit (principal, action == Action::{:?}, resource);", action.as_str());
        let (policies, verdicts) = compile(&[text("p", &cedar)]);
        assert_eq!(verdicts[0].fault, None);
        assert!(decide(&policies, &request).allowed, "{action}");
        assert_eq!(action.as_str().to_lowercase().parse::<Action>().unwrap(), action);
    }
    assert!("sell".parse::<Action>().unwrap_err().contains("needed one of Discover"));
    let shop = r#"permit (principal, action == Action::"Offload", resource) when { resource.namespace == "shop" };"#;
    let offload = Request { action: Action::Offload, resource: workload, ..buy(peer()) };
    check(&[("shop", shop)], &offload, expect!["yes: policy shop permits Offload"]);
}

#[test]
fn a_fault_is_told_with_its_line_and_the_nearest_word() {
    let faults = [
        "permit (principal, action, resource);\npermit (principal, action resource);",
        "\n\npermit (principal, action, resource) when { principal.sorce == Source::\"Static\" };",
        "permit (principal, action == Action::\"By\", resource);",
        "permit (principal, action, resource) when { principal.source == Source::\"Statik\" };",
        "permit (principal is Per, action, resource);",
        "permit (principal, action, resource) when { principal.rating > 3 };",
        "permit (principal, action, resource) when { principal.name > 3 };",
        "permit (principal == ?principal, action, resource);",
        "permit (principal, action == Action::\"Receive\", resource is Flavor);",
        "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
    ];
    let told: Vec<String> = faults.iter().map(|cedar| fault(cedar)).collect();
    expect![[r#"
        line 2: unexpected token `resource`; expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`
        line 3: attribute `sorce` on entity type `Peer` not found; did you mean `source`?
        line 1: unrecognized action `Action::"By"`; did you mean `Action::"Buy"`?
        line 1: entity `Source::"Statik"` is of an enumerated entity type, but `"Statik"` is not declared as a valid eid; valid entity eids: "Static", "Multicast", "Inbound", "Broker", "Catalog", "Manual", "Unknown"
        line 1: unrecognized entity type `Per`; did you mean `Peer`?
        line 1: unable to guarantee safety of access to optional attribute `rating` on entity type `Peer`; try testing for the attribute's presence with `e has rating && ..`
        line 1: unexpected type: expected Long but saw String
        it has a template (?principal or ?resource), and nobody here fills it in
        line 1: unable to find an applicable action given the policy scope constraints
        two statements have the id p/a"#]].assert_eq(&told.join("\n"));
    assert!(fault(&format!("// {}", "x".repeat(70_000))).contains("needed at most 65536"));
    assert_eq!(fault("// nothing"), "0 statements");
}

#[test]
fn a_refused_text_opens_nothing_and_closes_nothing() {
    let forbid = r#"forbid (principal, action, resource) when { principal.name == "grid" };"#;
    let (policies, verdicts) = compile(&[
        text("offer", SELL),
        Text { name: "no", text: "forbid (principal, acton, resource);", accepted: forbid },
    ]);
    assert!(verdicts[0].fault.as_ref().unwrap().starts_with("line 1"), "{verdicts:?}");
    assert_eq!((verdicts[0].statements, verdicts[0].accepted.as_str()), (1, forbid));
    assert!(!decide(&policies, &buy(peer())).allowed, "what was accepted before is in force");
    assert!(decide(&policies, &buy(Peer { name: "farm".into(), ..peer() })).allowed);
    // A permit in a text with a fault elsewhere is not taken.
    let (policies, _) = compile(&[text("p", &format!("{SELL}\nforbid (principal"))]);
    assert!(!decide(&policies, &buy(peer())).allowed);
    // What guarded something and cannot be read any more might have forbidden anything.
    let lost = Text { name: "no", text: "x", accepted: "y" };
    let (policies, _) = compile(&[text("offer", SELL), lost]);
    assert!(policies.closed().is_some());
    assert_eq!(decide(&policies, &buy(peer())).reason, "policies here cannot be read, so nothing is permitted");
}

#[test]
fn a_forbid_that_fails_forbids() {
    let broken_permit = r#"permit (principal, action == Action::"Buy", resource) when { resource.cpuMilli * 9223372036854775807 > 0 };"#;
    let forbids = r#"forbid (principal, action == Action::"Buy", resource) when { resource.cpuMilli * 9223372036854775807 < 0 };"#;
    check(
        &[("offer", SELL), ("guard", forbids)],
        &buy(peer()),
        expect!["no: policy guard forbids Buy and could not be asked"],
    );
    check(&[("offer", SELL), ("p", broken_permit)], &buy(peer()), expect!["yes: policy offer permits Buy"]);
}

#[test]
fn there_is_an_end_of_policies_and_what_is_in_force_keeps_its_place() {
    let names: Vec<String> = (0..64).map(|i| format!("z{i:02}")).collect();
    let mut texts: Vec<Text<'_>> = names.iter().map(|name| Text { name, text: SELL, accepted: SELL }).collect();
    texts.push(text("a-new-one", SELL));
    let (policies, verdicts) = compile(&texts);
    assert_eq!(verdicts[0].fault.as_deref(), Some("64 AccessPolicies are in force already, which is the most"));
    assert!(verdicts[1..].iter().all(|verdict| verdict.fault.is_none()) && policies.closed().is_none());
    let many = SELL.repeat(513);
    assert!(fault(&many).contains("at most 512"), "{}", fault(&many));
}

#[test]
fn the_flags_are_the_first_two_policies() {
    let key = NodeKey::from_seed([7; 32]).unwrap().id();
    let flags = |known, lan, keys| Flags { offers: true, known, lan, keys };
    let receives = |flags: &Flags, peer: Peer| {
        let (offer, trust) = (offer(flags), trust(flags));
        let (policies, verdicts) = compile(&[text("offer", &offer), text("trust", &trust)]);
        assert!(verdicts.iter().all(|verdict| verdict.fault.is_none()), "{verdicts:?}");
        let request = Request { action: Action::Receive, resource: Resource::Node, ..buy(peer) };
        decide(&policies, &request).policies.join(",")
    };
    let from = |source| Peer { source, ..peer() };
    assert_eq!(receives(&flags(true, false, vec![]), from(Source::Static)), "trust/known");
    assert_eq!(receives(&flags(true, false, vec![]), from(Source::Multicast)), "");
    assert_eq!(receives(&flags(true, true, vec![]), from(Source::Multicast)), "trust/lan");
    assert_eq!(receives(&flags(true, true, vec![]), from(Source::Inbound)), "");
    let named = Peer { did: Some(key.to_string()), ..from(Source::Inbound) };
    assert_eq!(receives(&flags(false, false, vec![key]), named.clone()), "trust/key-1");
    assert_eq!(receives(&flags(false, false, vec![]), named), "");
    let by_hand = |trust| Peer { trust, ..from(Source::Manual) };
    assert_eq!(receives(&Flags::default(), by_hand(Trust::Trusted)), "trust/hand");
    assert_eq!(receives(&flags(true, true, vec![]), by_hand(Trust::Untrusted)), "trust/hand-not");
    let sells = |flags: &Flags, request: &Request| {
        let text_of = offer(flags);
        let (policies, _) = compile(&[text("offer", &text_of)]);
        decide(&policies, request).policies.join(",")
    };
    let discover = Request { action: Action::Discover, ..buy(Peer::default()) };
    let offload =
        Request { action: Action::Offload, resource: Resource::Workload { namespace: "a".into() }, ..buy(peer()) };
    assert_eq!(sells(&flags(true, false, vec![]), &discover), "offer/list");
    assert_eq!(sells(&flags(true, false, vec![]), &buy(peer())), "offer/sell");
    assert_eq!(sells(&flags(true, false, vec![]), &buy(Peer::default())), "");
    assert_eq!(sells(&Flags::default(), &buy(peer())), "");
    assert_eq!(sells(&Flags::default(), &offload), "offer/run", "what was sold is kept");
}

#[test]
fn what_is_known_of_a_peer_is_told_and_the_owners_word_is_its_own() {
    let mut known = KnownCluster::new(
        "k",
        KnownClusterSpec {
            name: Some("grid".into()),
            source: Some(KnownClusterSource::Multicast),
            trust: Some(KnownClusterTrust::Trusted),
            features: vec!["country=Italy".into()],
            ..KnownClusterSpec::default()
        },
    );
    let seen =
        |action, known: &KnownCluster| Peer::of(Some("did:key:z"), action, Some(known), None, Timestamp::UNIX_EPOCH);
    assert_eq!(seen(Action::Buy, &known).trust, Trust::Trusted);
    assert_eq!(seen(Action::Receive, &known).trust, Trust::Unknown, "a decision is no reason for itself");
    known.spec.source = None;
    assert_eq!(seen(Action::Receive, &known).trust, Trust::Trusted, "written by hand");
    assert_eq!(seen(Action::Receive, &known).source, Source::Manual);
    known.metadata.annotations = Some([(names::ANNOTATION_TRUST_POLICY.into(), "none".into())].into());
    assert_eq!(seen(Action::Receive, &known).trust, Trust::Unknown, "written by us");
    assert_eq!(Peer::of(None, Action::Discover, None, None, Timestamp::UNIX_EPOCH).shown(), "who has proven no key");
}

#[test]
fn what_a_buyer_has_is_counted_without_what_it_asks_for() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let amounts = Amounts { cpu_milli: 500, memory_bytes: 1 << 20, pods: 1, ..Amounts::default() };
    let mut pool = Pool {
        capacity: Amounts { cpu_milli: 9000, memory_bytes: 9 << 20, pods: 9, ..Amounts::default() },
        commitments: vec![],
    };
    for (transaction, buyer, seconds) in [("a", "x", 60), ("b", "x", 60), ("c", "y", 60), ("d", "x", 1)] {
        let until = Timestamp::from_second(1_000_000 + seconds).unwrap();
        let (transaction, buyer) = (transaction.to_owned(), buyer.to_owned());
        pool = pool
            .hold(
                &HoldRequest { transaction, buyer, flavor: "f".into(), amounts: amounts.clone(), until, agreed: None },
                now,
            )
            .unwrap();
    }
    let later = Timestamp::from_second(1_000_002).unwrap();
    let context = Circumstances::of(&pool, "x", Some("b"), later);
    assert_eq!((context.held.cpu_milli, context.held_count, context.minute), (500, 1, 999_960));
}

#[test]
fn a_price_is_counted_in_thousandths_and_none_is_not_0() {
    let price = |amount: &str| {
        let mut flavor = Flavor::new("f", Default::default());
        flavor.spec.price.amount = amount.into();
        Goods::of(&flavor, None).price_milli
    };
    for (text, milli) in
        [("0.1", Some(100)), ("2", Some(2000)), ("0.0001", Some(1)), ("", None), ("-1", None), ("1e3", None)]
    {
        assert_eq!(price(text), milli, "{text:?}");
    }
}

#[test]
fn a_decision_is_quick() {
    let flags = Flags { offers: true, known: true, ..Flags::default() };
    let (offer, trust) = (offer(&flags), trust(&flags));
    let (policies, _) = compile(&[text("offer", &offer), text("trust", &trust)]);
    let request = buy(peer());
    let start = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(decide(&policies, &request).allowed);
    }
    // Far above what it takes, even unoptimised on a busy machine: this finds a policy that is parsed for each decision.
    assert!(start.elapsed().as_millis() < 5000, "{:?} for 1,000", start.elapsed());
}

#[test]
fn what_is_proven_counts_until_its_time_is_over() {
    let at = |hour: i64| Timestamp::from_second(1_000_000 + hour * 3600).unwrap();
    let fact =
        |value: &str| Some(ProvenFact { value: value.into(), by: "did:key:zOwner".into(), until: at(2).to_string() });
    let attribute = |name: &str, level| AttributeEvidence {
        name: name.into(),
        value: "EU".into(),
        level,
        until: at(2).to_string(),
        ..AttributeEvidence::default()
    };
    let identity = KnownClusterIdentity {
        origin: Some("did:key:zBefore".into()),
        owner: fact("did:key:zOwner"),
        domain: fact("farm.example"),
        evidence: vec![
            attribute("region", Some(AttributeLevel::Audited)),
            attribute("city", Some(AttributeLevel::Claimed)),
            attribute("refuted", None),
        ],
        ..KnownClusterIdentity::default()
    };
    let peer_at = |identity: &KnownClusterIdentity, hour| {
        let spec = KnownClusterSpec { domain: Some("typed.example".into()), ..KnownClusterSpec::default() };
        let mut known = KnownCluster::new("k", spec);
        known.status = Some(Default::default());
        known.status.as_mut().unwrap().identity = Some(identity.clone());
        Peer::of(Some("did:key:zNow"), Action::Buy, Some(&known), None, at(hour))
    };
    let text = r#"permit (principal in Peer::"did:key:zBefore", action, resource) when {
        principal.domainProven && principal.domain == "farm.example" && principal has owner &&
        principal.credentials.containsAll(["NodeOwnership", "Feature"]) &&
        principal.evidence.contains("measured region=EU") && !principal.evidence.contains("attested region=EU") &&
        principal.evidence.contains("claimed city=EU") && !principal.evidence.contains("claimed refuted=EU") };"#;
    check(&[("farm", text)], &buy(peer_at(&identity, 1)), expect!["yes: policy farm permits Buy"]);
    check(&[("farm", text)], &buy(peer_at(&identity, 2)), expect!["no: no policy permits Buy"]);
    let over = peer_at(&identity, 2);
    assert_eq!((over.domain.as_str(), over.domain_proven, over.owner), ("typed.example", false, None));
    assert_eq!(over.evidence, ["claimed city=EU".to_owned()].into());
    // A key that counts no more may nothing, whatever is permitted.
    let refused = KnownClusterIdentity { refused: "it was revoked".into(), ..identity };
    let all = "permit (principal, action, resource);";
    check(&[("all", all)], &buy(peer_at(&refused, 1)), expect!["no: its key counts no more: it was revoked"]);
    check(&[("farm", text)], &buy(peer()), expect!["no: no policy permits Buy"]);
}

#[test]
fn a_policy_that_names_a_key_goes_on_with_the_one_that_speaks_now() {
    let id = |seed: u8| fluidos_identity::NodeKey::from_seed([seed; 32]).unwrap().id();
    let [k0, k1, k2, other] = [1, 2, 3, 4].map(id);
    let asks = |policies: &super::Policies, key: fluidos_identity::NodeId| {
        decide(policies, &buy(Peer { did: Some(key.to_string()), ..peer() })).allowed
    };
    for permit in [
        format!("permit (principal == Peer::\"{k0}\", action, resource);"),
        format!("permit (principal in Peer::\"{k0}\", action, resource);"),
        format!("permit (principal, action, resource) when {{ principal.did == \"{k0}\" }};"),
        format!("permit (principal, action, resource) when {{ [\"{other}\", \"{k0}\"].contains(principal.did) }};"),
        format!(
            "permit (principal, action, resource) when {{ [Peer::\"{k0}\", Peer::\"{other}\"].contains(principal) }};"
        ),
        format!("permit (principal, action, resource) unless {{ principal != Peer::\"{k0}\" }};"),
    ] {
        let (written, _) = compile(&[text("p", &permit)]);
        assert!(asks(&written, k0) && !asks(&written, k1), "{permit}");
        let follow =
            |policies: &super::Policies, to| policies.following(|named| if *named == k0 { to } else { *named });
        assert!(follow(&written, k0).is_none(), "nothing was handed over");
        let once = follow(&written, k1).unwrap();
        assert!(asks(&once, k1) && !asks(&once, k0) && !asks(&once, k2), "{permit}");
        assert_eq!(once.followed().len(), 1);
        assert!(follow(&once, k1).is_none(), "it follows already");
        // Again, from what was written, not from what was asked.
        let twice = follow(&once, k2).unwrap();
        assert!(asks(&twice, k2) && !asks(&twice, k1), "{permit}");
        let back = follow(&twice, k0).unwrap();
        assert!(asks(&back, k0) && !asks(&back, k2), "{permit}");
    }
    // Nobody shakes a forbid off, and whose policy decided is told as before.
    let forbid = format!(
        "permit (principal, action, resource);\n@id(\"no\") @reason(\"{other} says so\") forbid (principal == Peer::\"{k0}\", action, resource);"
    );
    let (written, _) = compile(&[text("p", &forbid)]);
    let followed = written.following(|named| if *named == k0 { k1 } else { *named }).unwrap();
    let decision = decide(&followed, &buy(Peer { did: Some(k1.to_string()), ..peer() }));
    assert_eq!((decision.allowed, decision.reason), (false, format!("policy p/no forbids Buy: {other} says so")));
    assert!(asks(&followed, other));
}

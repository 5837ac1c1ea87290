//! Nodes that find each other by a catalog, and what they say there.

use std::time::{Duration, Instant};

use fluidos_catalog::Feedback;
use fluidos_discovery::Trust;
use fluidos_identity::{NodeId, NodeKey};
use fluidos_model::kinds::KnownClusterOpinion;
use serde_json::json;

use crate::stage::{CATALOG, DEADLINE, Machine, PORT, ip, key, on_lan};

#[test]
fn nodes_find_each_other_by_a_catalog_alone_and_need_it_no_more() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog(Trust { keys: vec![key(2).id()], lan: true, ..Trust::default() }).await;
        let b = two.node_of_catalog(Trust { known: true, lan: true, ..Trust::default() }).await;
        // A looked before B was there; the second look is half a minute later, but B's call comes first.
        let at_b = "node1 grid.example 192.0.2.1:7300 Catalog Untrusted Up\n";
        b.tells("B finds A in the catalog, which gives no trust", at_b).await;
        a.tells("A is called", "node2 grid.example 192.0.2.2:7300 Inbound Trusted Up\n").await;
        // A policy drops who is listed, and takes it again when it is gone.
        b.policy("french", json!({"incoming": {"matchLabels": {"country": "France"}}})).await;
        b.tells("A is dropped", "").await;
        b.remove_policy("french").await;
        b.tells("A is taken again", at_b).await;
        // The catalog dies. Nobody is forgotten, and who is away is called until it answers.
        catalog.abort();
        ip("link set flt-lan-1 down");
        b.tells("A is down", &at_b.replace("Up", "Down")).await;
        ip("link set flt-lan-1 up");
        b.tells("A is back", at_b).await;
    });
}

#[test]
fn what_is_sold_is_told_in_catalogs_and_taken_back_and_killing_the_catalog_harms_nobody() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog_often().await;
        let b = two.node_of_catalog_often().await;
        let sold = async || {
            let known = b.known().await;
            let of_a = known.into_iter().find(|known| known.spec.did == Some(a.id.to_string()));
            let offers = of_a.as_ref().map(|known| known.spec.offers.clone()).unwrap_or_default();
            let labels = of_a.and_then(|known| known.metadata.labels).unwrap_or_default();
            let spot =
                labels.contains_key("billing.fluidos.eu/spot") && labels.contains_key("offer.fluidos.eu/K8Slice");
            let lines = offers.iter().map(|o| {
                format!("{} {} cpu={} {} {} from {}\n", o.type_, o.name, o.amounts["cpu"], o.price, o.billing, o.from)
            });
            (lines.collect::<String>(), spot)
        };
        let wait = async |what: &str, needed: &str| {
            let start = Instant::now();
            while sold().await != (needed.to_owned(), !needed.is_empty()) {
                let seen = sold().await;
                assert!(start.elapsed() < DEADLINE, "{what}; last seen: {seen:?}; needed: {needed:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let of_a = "K8Slice small/s cpu=1 2 EUR/hour spot from 192.0.2.3:7400/public\n";
        wait("B sees what A sells", of_a).await;

        // More of the same is no news; another price is.
        let sells = |price: &str, cpu: &str| {
            a.window.send_modify(|goods| {
                goods[0].price = price.into();
                goods[0].amounts.insert("cpu".into(), cpu.into());
            });
        };
        sells("3 EUR/hour", "7");
        wait("B sees the new price", &of_a.replace("2 EUR", "3 EUR").replace("cpu=1", "cpu=7")).await;

        // Its owner keeps the window shut.
        a.policy("discreet", json!({"outgoing": {"offers": false}})).await;
        wait("A says nothing any more", "").await;
        a.remove_policy("discreet").await;
        wait("and says it again", &of_a.replace("2 EUR", "3 EUR").replace("cpu=1", "cpu=7")).await;

        catalog.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sold().await.1, "what is known stays without the catalog");
    });
}

#[test]
fn a_good_sellers_name_travels_and_a_thousand_liars_do_not_change_it() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let liar = |number: u32| {
            let mut seed = [200; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            NodeKey::from_seed(seed).unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        // They have even bought places in the catalog.
        let _catalog = three.catalog_of(directory.path(), (0..1000).map(|number| liar(number).id()).collect()).await;
        let seller = key(40).id();
        let feedback = |author: &NodeKey, about: NodeId, value: u16| {
            let said = Feedback { version: 1, author: author.id(), about, value, observations: 1_000_000, sequence: 1 };
            fluidos_catalog::seal(author, said).unwrap()
        };
        three
            .here(async move {
                let mut client = fluidos_catalog::Client::new(&key(40), CATALOG, "public", None).unwrap();
                let announcement = fluidos_catalog::Announcement {
                    version: 1,
                    did: seller,
                    name: "mill".into(),
                    domain: "mill.example".into(),
                    addresses: vec!["192.0.2.3".into()],
                    rear_port: PORT,
                    link_port: PORT,
                    features: [("sells".to_owned(), "compute".to_owned())].into(),
                    offers: vec![],
                    sequence: 1,
                    lifetime_seconds: 3600,
                };
                client.announce(&fluidos_catalog::seal(&key(40), announcement).unwrap()).await.unwrap();
                // Nobody says anything in another's name, nor does the catalog take what was signed for something else.
                assert!(client.say(&feedback(&liar(0), seller, 1000)).await.is_err(), "it is sent by another");
                for number in 0..1000 {
                    let liar = liar(number);
                    let mut client = fluidos_catalog::Client::new(&liar, CATALOG, "public", None).unwrap();
                    let start = Instant::now();
                    while let Err(error) = client.say(&feedback(&liar, seller, 0)).await {
                        assert!(start.elapsed() < DEADLINE, "{error}"); // it counts requests of an address
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            })
            .await;

        let a = one.node_of_catalog_often().await;
        a.has_dealt_with(seller, 20).await;
        let authors = async || {
            three
                .here(async move {
                    let mut reader = fluidos_catalog::Client::new(&key(50), CATALOG, "public", None).unwrap();
                    let opinions = reader.opinions(seller).await.unwrap();
                    (opinions.len(), opinions.into_iter().find(|said| said.author == key(1).id()))
                })
                .await
        };
        tokio::time::sleep(Duration::from_secs(7)).await; // longer than discovery needs to look at ratings
        assert_eq!(authors().await, (1000, None), "whose customer it is is nobody's business");
        a.policy("frank", json!({"outgoing": {"opinions": true}})).await;
        let start = Instant::now();
        let said = loop {
            if let (1001, Some(said)) = authors().await {
                break said;
            }
            assert!(start.elapsed() < DEADLINE, "A says how it has fared; last seen: {:?}", authors().await.0);
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!((said.value, said.observations), (1000, 10), "not how often");

        let b = two.node_of_catalog_often().await;
        b.has_dealt_with(a.id, 20).await;
        let heard = async || {
            let known = b.known().await.into_iter().find(|known| known.spec.did == Some(seller.to_string()));
            known.and_then(|known| known.status).map(|status| status.opinions).unwrap_or_default()
        };
        let start = Instant::now();
        while heard().await.is_empty() {
            assert!(start.elapsed() < DEADLINE, "B hears of it");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let needed = KnownClusterOpinion {
            author: a.id.to_string(),
            value: 1000,
            observations: 10,
            from: format!("{CATALOG}/public"),
        };
        assert_eq!(heard().await, [needed], "of 1,001 one is known here");
    });
}

#[test]
fn a_node_that_stops_takes_itself_out_of_the_catalog() {
    on_lan(async || {
        let (one, three) = (Machine::new(1).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let _catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog(Trust::default()).await;
        let listed = async || {
            three
                .here(async {
                    let mut reader = fluidos_catalog::Client::new(&key(50), CATALOG, "public", None).unwrap();
                    reader.list(None).await.unwrap().unwrap().announcements.len()
                })
                .await
        };
        let wait = async |needed: usize| {
            let start = Instant::now();
            while listed().await != needed {
                assert!(start.elapsed() < DEADLINE, "needed {needed} announcements");
                tokio::time::sleep(Duration::from_millis(200)).await; // the catalog counts requests
            }
        };
        wait(1).await;
        a.handle.withdraw().await;
        wait(0).await;
    });
}

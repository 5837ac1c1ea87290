//! A catalog over real HTTPS: what strangers try, and a process that is killed while it is written to.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fluidos_catalog::{Access, Announcement, Catalog, Client, ClientError, Feedback, Options, Withdrawal, seal, serve};
use fluidos_identity::{NodeId, NodeKey};
use tokio::net::TcpListener;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn id(seed: u8) -> NodeId {
    key(seed).id()
}

fn announcement(seed: u8, sequence: u64) -> Announcement {
    Announcement {
        version: 1,
        did: id(seed),
        name: format!("node{seed}"),
        domain: "grid.example".into(),
        addresses: vec!["192.0.2.7".into()],
        rear_port: 7300,
        link_port: 7300,
        features: BTreeMap::new(),
        offers: vec![],
        sequence,
        lifetime_seconds: 3600,
    }
}

async fn start(directory: &Path) -> SocketAddr {
    let options = Options {
        directory: directory.into(),
        tenants: vec![("public".into(), Access::Open), ("club".into(), Access::Members)],
        members: vec![id(1)],
    };
    let catalog = Catalog::open(options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(listener, &key(99), catalog, std::future::pending()).await });
    address
}

fn client(seed: u8, at: SocketAddr, tenant: &str) -> Client {
    Client::new(&key(seed), &at.to_string(), tenant, Some(id(99))).unwrap()
}

fn status(result: Result<(), ClientError>) -> u16 {
    match result {
        Ok(()) => 204,
        Err(ClientError::Refused(_, status, _)) => status,
        Err(ClientError::Conflict(_)) => 409,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_announces_is_read_by_others_and_nobody_speaks_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let at = start(directory.path()).await;
    let (mut one, mut two) = (client(1, at, "public"), client(2, at, "public"));
    assert_eq!(one.connect().await.unwrap().0, id(99));
    let of_one = seal(&key(1), announcement(1, 5)).unwrap();
    one.announce(&of_one).await.unwrap();
    let listing = two.list(None).await.unwrap().unwrap();
    assert_eq!((listing.announcements, listing.refused.len()), (vec![announcement(1, 5)], 0));
    let tag = listing.tag.unwrap();
    assert!(two.list(Some(&tag)).await.unwrap().is_none(), "nothing has changed");
    one.announce(&of_one).await.unwrap();
    assert!(two.list(Some(&tag)).await.unwrap().is_none(), "a renewal is no change");
    assert_eq!(status(two.announce(&of_one).await), 403, "recorded and sent by another");
    assert_eq!(status(one.announce(&seal(&key(1), announcement(1, 4)).unwrap()).await), 409, "older");
    let withdrawal = seal(&key(1), Withdrawal { version: 1, did: id(1), sequence: 9 }).unwrap();
    assert_eq!(status(two.withdraw(&withdrawal).await), 403);
    let said = Feedback { version: 1, author: id(2), about: id(1), value: 1000, observations: 1, sequence: 1 };
    assert_eq!(status(two.say(&seal(&key(2), said.clone()).unwrap()).await), 403, "not announced here");
    two.announce(&seal(&key(2), announcement(2, 1)).unwrap()).await.unwrap();
    two.say(&seal(&key(2), said.clone()).unwrap()).await.unwrap();
    // What was said is read as it was signed, of whom it is about.
    assert_eq!(one.opinions(id(1)).await.unwrap(), [said]);
    assert_eq!(one.opinions(id(2)).await.unwrap(), []);
    let listing = two.list(Some(&tag)).await.unwrap().unwrap();
    assert_eq!(listing.announcements.len(), 2);
    one.withdraw(&withdrawal).await.unwrap();
    assert_eq!(two.list(listing.tag.as_deref()).await.unwrap().unwrap().announcements, [announcement(2, 1)]);
    // Members only.
    assert!(client(1, at, "club").list(None).await.is_ok());
    assert!(matches!(client(2, at, "club").list(None).await, Err(ClientError::Refused(_, 403, _))));
    assert!(matches!(client(2, at, "none").list(None).await, Err(ClientError::Refused(_, 404, _))));
    // Another catalog than was named.
    let mut other = Client::new(&key(2), &at.to_string(), "public", Some(id(98))).unwrap();
    assert!(matches!(other.list(None).await, Err(ClientError::Unreachable(..))));
}

#[tokio::test]
async fn a_catalog_that_flooding_keys_ask_says_so_and_a_huge_body_is_not_read() {
    use http_body_util::{BodyExt as _, Full};
    let directory = tempfile::tempdir().unwrap();
    let options =
        Options { directory: directory.path().into(), tenants: vec![("public".into(), Access::Open)], members: vec![] };
    let catalog = Catalog::open(options).unwrap();
    let from = "192.0.2.1".parse().unwrap();
    let ask = async |method: &str, path: &str, body: Vec<u8>, seed: u8| {
        let request =
            http::Request::builder().method(method).uri(path).body(Full::new(bytes::Bytes::from(body))).unwrap();
        let answer = catalog.handle(request, Some(id(seed)), from).await;
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let put = format!("/v1/public/announcements/{}", id(1));
    assert_eq!(ask("PUT", &put, vec![b'x'; 33 * 1024], 1).await.0, 413);
    assert_eq!(ask("PUT", &put, b"{".to_vec(), 1).await.0, 400);
    assert_eq!(ask("POST", &put, vec![], 1).await.0, 405);
    assert_eq!(ask("GET", "/v2", vec![], 1).await.0, 404);
    for query in ["limit=0", "limit=x", "continue=x", "feature=x", "feature=%1b=x", "other=1"] {
        let (status, body) = ask("GET", &format!("/v1/public/announcements?{query}"), vec![], 1).await;
        assert!(status == 400 && body.contains(r#""code":"malformed""#), "{query}: {status} {body}");
    }
    let of_two = serde_json::to_vec(&seal(&key(2), announcement(2, 1)).unwrap().envelope()).unwrap();
    assert_eq!(ask("PUT", &put, of_two, 1).await.0, 400, "the path of another");
    let (status, body) = ask("GET", &format!("/v1/public/reputation/{}", id(3)), vec![], 1).await;
    assert_eq!((status, body.as_str()), (200, r#"{"unweightedMean":null,"authors":0,"feedback":[]}"#));
    let mut last = 0;
    for _ in 0..100 {
        last = ask("GET", "/v1/public/announcements", vec![], 4).await.0;
    }
    assert_eq!(last, 429);
    assert_eq!(ask("GET", "/v1/public/announcements", vec![], 5).await.0, 200, "another key is heard");
}

const CHILD: &str = "FLT_CATALOG_DIRECTORY";

/// Not a test by itself: the process that the next one kills.
#[test]
fn a_process_that_serves() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let address = start(Path::new(&directory)).await;
        println!("\nlistening {address}");
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
    });
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(directory: &Path) -> (Process, SocketAddr) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_serves", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ")?.parse().ok());
    (process, said.expect("the process says where it listens"))
}

#[tokio::test]
async fn a_killed_process_has_lost_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u8, u64> = BTreeMap::new();
    for round in 0..8u64 {
        let (process, at) = process(directory.path());
        let mut reader = client(200, at, "public");
        let listing = reader.list(None).await.unwrap().unwrap();
        for (seed, sequence) in &acknowledged {
            let found = listing.announcements.iter().find(|a| a.did == id(*seed)).map(|a| a.sequence);
            assert!(found >= Some(*sequence), "round {round}: {seed} has {found:?}, acknowledged was {sequence}");
        }
        // Killed in the midst of writes: after a time that differs from round to round.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20 + 13 * round));
            drop(process);
        });
        'writing: for sequence in 1.. {
            for seed in 1..=20u8 {
                let sequence = round * 10_000 + sequence;
                let signed = seal(&key(seed), announcement(seed, sequence)).unwrap();
                match client(seed, at, "public").announce(&signed).await {
                    Ok(()) => drop(acknowledged.insert(seed, sequence)),
                    Err(_) => break 'writing,
                }
            }
        }
        killer.join().unwrap();
    }
    println!("{} announcements, last {:?}", acknowledged.len(), acknowledged.values().max());
    assert!(!acknowledged.is_empty());
}

#[tokio::test]
async fn what_many_authors_say_of_a_node_is_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let at = start(directory.path()).await;
    let said = |author: u8| Feedback {
        version: 1,
        author: id(author),
        about: id(1),
        value: u16::from(author),
        observations: 1,
        sequence: 1,
    };
    // Places of one address are few.
    for author in (91..=120).rev() {
        let mut node = client(author, at, "public");
        node.announce(&seal(&key(author), announcement(author, 1)).unwrap())
            .await
            .unwrap_or_else(|e| panic!("{author}: {e}"));
        node.say(&seal(&key(author), said(author)).unwrap()).await.unwrap();
    }
    let read = client(1, at, "public").opinions(id(1)).await.unwrap();
    let mut needed: Vec<NodeId> = (91..=120).map(id).collect();
    needed.sort();
    assert_eq!(read.iter().map(|said| said.author).collect::<Vec<_>>(), needed);
    assert!(read.iter().all(|said| said.about == id(1) && said.value > 90));
}

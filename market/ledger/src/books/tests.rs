#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use fluidos_model::kinds::crds;
use fluidos_model::market::HoldRequest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options};
use substrate_store::Store;

use super::*;
use crate::View;

/// How the API answers writes of the Ledger.
#[derive(Default)]
struct Counted {
    /// How many there were.
    writes: AtomicU32,
    /// So many are answered with 500 although they are done.
    unanswered: AtomicU32,
    /// So many are answered with 500 and not done.
    refused: AtomicU32,
}

/// An API with a Ledger of 100 pods, and what is counted of it.
async fn api() -> (Access, Access, Arc<Counted>) {
    let server = ApiServer::new(Options {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client = substrate_client::in_process(server.as_user(User::new("system:flt", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let seen: Arc<Counted> = Arc::default();
    let counted = {
        let (client, seen) = (client.clone(), seen.clone());
        substrate_client::in_process(tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                let writes = request.method() == http::Method::PUT;
                let one_less = |left: u32| left.checked_sub(1);
                if writes && seen.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                    let mut answer = http::Response::new(kube::client::Body::empty());
                    *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                    return Ok(answer);
                }
                let answer = client.send(request).await;
                if writes {
                    seen.writes.fetch_add(1, Ordering::SeqCst);
                    // So that others come while it is written.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    if seen.unanswered.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                        let mut answer = answer?;
                        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                        return Ok(answer);
                    }
                }
                answer
            }
        }))
    };
    let ours = Access::from(counted);
    Books::shared(&ours).open(Some(pods(100))).await.unwrap();
    ours.caches.namespaced::<Ledger>(names::NAMESPACE).synced().await;
    (ours, Access::from(client), seen)
}

fn pods(pods: u64) -> Amounts {
    Amounts { pods, ..Amounts::default() }
}

fn hold(pool: &Pool, transaction: &str, size: u64) -> Result<Pool, BooksError> {
    let request = HoldRequest {
        transaction: transaction.into(),
        buyer: format!("flt-{transaction}"),
        flavor: "flt".into(),
        amounts: pods(size),
        until: Timestamp::MAX,
        agreed: None,
    };
    Ok(pool.hold(&request, Timestamp::UNIX_EPOCH)?)
}

fn sizes(pool: &Pool) -> u64 {
    pool.commitments.iter().map(|known| known.amounts.pods).sum()
}

#[tokio::test]
async fn plans_that_come_while_one_is_written_are_written_together_and_none_is_lost() {
    let (ours, theirs, seen) = api().await;
    let books = Books::shared(&ours);
    let mut buyers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let books = books.clone();
        buyers.spawn(async move {
            let name = format!("t{number}");
            let pool = books.change(|pool| hold(pool, &name, 1)).await.unwrap();
            // What is acknowledged stands in the books.
            assert!(pool.commitment(&name).is_some());
            assert!(books.read().await.unwrap().unwrap().commitment(&name).is_some());
        });
    }
    while let Some(done) = buyers.join_next().await {
        done.unwrap();
    }
    assert_eq!(sizes(&Books::shared(&theirs).read().await.unwrap().unwrap()), 100);
    let writes = seen.writes.load(Ordering::SeqCst);
    assert!(writes < 50, "{writes} writes for 100 changes that came at once");
    // The next does not fit, and is refused for what stands there.
    assert!(matches!(books.change(|pool| hold(pool, "more", 1)).await, Err(BooksError::Refused(_))));
}

#[tokio::test]
async fn others_write_between_and_nothing_is_promised_twice() {
    let (ours, theirs, _) = api().await;
    let (books, others) = (Books::shared(&ours), Books::new(&theirs.client));
    books.open(Some(pods(150))).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..60 {
        let books = if number % 3 == 0 { others.clone() } else { books.clone() };
        writers.spawn(async move {
            match books.change(|pool| hold(pool, &format!("t{number}"), 3)).await {
                Ok(_) => 3,
                Err(BooksError::Refused(_) | BooksError::Contended) => 0,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let mut promised = 0;
    while let Some(done) = writers.join_next().await {
        promised += done.unwrap();
    }
    let pool = Books::new(&theirs.client).read().await.unwrap().unwrap();
    assert_eq!((promised, sizes(&pool)), (promised, promised), "what was acknowledged is what stands there");
    assert!(sizes(&pool) <= 150 && pool.commitments.len() > 32);
    all_are_named(&ours).await;
}

#[tokio::test]
async fn what_was_refused_or_changed_nothing_is_asked_again_when_others_have_written() {
    let (ours, theirs, seen) = api().await;
    let (books, others) = (Books::shared(&ours), Books::new(&theirs.client));
    books.change(|pool| hold(pool, "first", 100)).await.unwrap();
    // This process has not heard of it yet, or has.
    others.free("first").await.unwrap();
    books.change(|pool| hold(pool, "second", 100)).await.unwrap();
    others.change(|pool| Ok::<_, BooksError>(pool.release("second"))).await.unwrap();
    others.change(|pool| hold(pool, "third", 1)).await.unwrap();
    // To this process there is nothing to free.
    books.free("third").await.unwrap();
    assert_eq!(sizes(&others.read().await.unwrap().unwrap()), 0);
    let before = seen.writes.load(Ordering::SeqCst);
    books.free("nobody").await.unwrap();
    assert_eq!(seen.writes.load(Ordering::SeqCst), before, "what changes nothing writes nothing");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_seen_by_who_comes_next() {
    let (ours, theirs, seen) = api().await;
    let books = Books::shared(&ours);
    seen.unanswered.store(1, Ordering::SeqCst);
    assert!(matches!(books.change(|pool| hold(pool, "lost", 60)).await, Err(BooksError::Api(_))));
    // It was written: what is left is what stands there, and who asks again has it.
    assert!(matches!(books.change(|pool| hold(pool, "next", 60)).await, Err(BooksError::Refused(_))));
    books.change(|pool| hold(pool, "lost", 60)).await.unwrap();
    assert_eq!(sizes(&Books::shared(&theirs).read().await.unwrap().unwrap()), 60);
}

#[tokio::test]
async fn a_write_that_failed_is_not_made_by_who_comes_next() {
    let (ours, theirs, seen) = api().await;
    let books = Books::shared(&ours);
    seen.refused.store(1, Ordering::SeqCst);
    assert!(matches!(books.change(|pool| hold(pool, "failed", 60)).await, Err(BooksError::Api(_))));
    books.change(|pool| hold(pool, "next", 60)).await.unwrap();
    let pool = Books::shared(&theirs).read().await.unwrap().unwrap();
    assert!(pool.commitment("next").is_some() && pool.commitment("failed").is_none());
}

async fn named(access: &Access) -> (Ledger, Vec<String>) {
    let ledger = Api::<Ledger>::namespaced(access.client.clone(), names::NAMESPACE).get(names::LEDGER).await.unwrap();
    let pages = ledger.spec.pages.iter().map(|page| page.name.clone()).collect();
    (ledger, pages)
}

async fn there(access: &Access) -> Vec<String> {
    let pages = Api::<LedgerPage>::namespaced(access.client.clone(), names::NAMESPACE);
    pages.list(&Default::default()).await.unwrap().items.iter().map(|page| page.name_any()).collect()
}

/// Until nothing is there that the Ledger does not name.
async fn all_are_named(access: &Access) {
    let settled = async {
        loop {
            let (mut named, mut there) = (named(access).await.1, there(access).await);
            named.sort();
            there.sort();
            if named == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
}

fn transactions(pool: &Pool) -> Vec<&str> {
    let mut all: Vec<&str> = pool.commitments.iter().map(|known| known.transaction.as_str()).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn two_who_turn_pages_lose_nothing_and_everybody_reads_the_same() {
    let (ours, theirs, _) = api().await;
    let (books, others, view) = (Books::shared(&ours), Books::new(&theirs.client), View::shared(&ours.caches));
    books.open(Some(pods(300))).await.unwrap();
    view.synced().await;
    assert!(view.pool().unwrap().unwrap().commitments.is_empty());
    let mut promised = Vec::new();
    for number in 0..200 {
        // Each has something else in mind of what the other has moved.
        let books = if number % 3 == 0 { &others } else { &books };
        let name = format!("t{number}");
        books.change(|pool| hold(pool, &name, 1)).await.unwrap();
        books.change(|pool| Ok::<_, BooksError>(pool.commit(&name, "c", None, Timestamp::UNIX_EPOCH)?)).await.unwrap();
        promised.push(name);
        if number % 4 == 3 {
            let ended = promised.remove(promised.len() / 2);
            others.free(&ended).await.unwrap();
        }
    }
    promised.sort_unstable();
    let (ledger, pages) = named(&ours).await;
    assert!(ledger.spec.commitments.len() <= 32 && pages.len() >= 3, "{} {pages:?}", ledger.spec.commitments.len());
    for read in [books.read().await, others.read().await, crate::read(&theirs.client, names::NAMESPACE).await] {
        assert_eq!(transactions(&read.unwrap().unwrap()), promised);
    }
    let seen = async {
        let [mut ledger, mut pages] = view.changes();
        while view.pool().unwrap().is_none_or(|pool| transactions(&pool) != promised) {
            tokio::select! { _ = ledger.changed() => {}, _ = pages.changed() => {} }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    all_are_named(&ours).await;
    for name in &promised {
        books.free(name).await.unwrap();
    }
    assert_eq!(transactions(&others.read().await.unwrap().unwrap()), [""; 0]);
    all_are_named(&ours).await;
    assert_eq!(there(&ours).await, [""; 0]);
}

#[tokio::test]
async fn a_page_that_nobody_names_goes_and_one_that_is_missing_stops_all_sales() {
    let (ours, _, seen) = api().await;
    let books = Books::shared(&ours);
    // The one that turned the page is killed before the Ledger names it, or so it seems to it.
    for number in 0..32 {
        books.change(|pool| hold(pool, &format!("t{number}"), 1)).await.unwrap();
    }
    seen.refused.store(1, Ordering::SeqCst);
    assert!(matches!(books.change(|pool| hold(pool, "more", 1)).await, Err(BooksError::Api(_))));
    let left = there(&ours).await;
    assert_eq!((left.len(), named(&ours).await.1.len()), (1, 0));
    books.change(|pool| hold(pool, "more", 1)).await.unwrap();
    books.sweep(FORGOTTEN).await.unwrap();
    assert!(there(&ours).await.contains(&left[0]), "its writer may be about to name it");
    books.sweep(Duration::ZERO).await.unwrap();
    all_are_named(&ours).await;
    let counting = named(&ours).await.1;
    assert_eq!(counting.len(), 1);

    let pages = Api::<LedgerPage>::namespaced(ours.client.clone(), names::NAMESPACE);
    pages.delete(&counting[0], &DeleteParams::default()).await.unwrap();
    let fresh = Books::new(&ours.client);
    let error = fresh.change(|pool| hold(pool, "next", 1)).await.unwrap_err();
    assert!(matches!(error, BooksError::Unreadable(StandingError::Missing { .. })), "{error}");
}

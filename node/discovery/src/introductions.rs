//! Introductions: nodes show each other who they are, and this one remembers whom it deals with.
//!
//! A **presentation** is what a node shows of itself once a link is up: credentials about its key, the status lists they name, and
//! statements about keys, its own and those of nodes that both may know. Each side sends one as soon as the link is up, and again
//! whenever it has something new to show.
//!
//! ```text
//!   DIR/identity ──▶ Shown ──▶ presentation/1 ──────────────────────▶ peer        every 5 s, if it has changed
//!   peer ──▶ presentation/1 ──▶ Acquaintances::meet ─┬─▶ KnownCluster.status.identity   owner, domain, evidence
//!                                    │  hear          ├─▶ Acquaintance                   what was accepted, kept
//!   Contracts, --peer ───────────────┘                ├─▶ Speakers                       who speaks for whom now
//!                                                     └─▶ Links::refuse                  keys that count no more
//! ```
//! Who is remembered: the parties of contracts, and nodes that the owner named; what was accepted of one that has changed its key
//! stays when its contract is over. What is accepted is told on to every acquaintance with a link, so a revocation reaches all
//! who can be reached through acquaintances within [`TICK`] for each step, and those that are away when they call again.
//!
//! Watches KnownClusters, Contracts, Acquaintances and links; the only writer of Acquaintances and of `status.identity` (`written.rs`).
//!
//! A domain that an owner claims is proven by its `did:web` document ([`web`]), or because the owner of *this* node was told so.
//! Deleting an Acquaintance forgets it.

mod act;
mod plan;
mod show;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod way_tests;
pub mod web;
mod wire;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{
    Acquaintances, Met, NodeId, Presentation, Shown, Speakers, Standing, StatusList, TrustedIssuers, first_key,
};
use fluidos_link::{Event, Links};
use fluidos_model::kinds::{Acquaintance, AcquaintanceSpec, AcquaintanceStatus, Contract, KnownCluster, names};
use jiff::Timestamp;
use kube::{Api, Client};
use substrate_client::{Cache, Caches, Pace};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use self::show::{Delivered, Showing};
use self::web::{Fetched, Web};

pub use self::plan::position_word;
pub use self::wire::{KIND, present};

/// How often the identity directory is read, and what could not be shown or written is tried again.
const TICK: Duration = Duration::from_secs(5);
/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(20);
/// Presentations that wait to be looked at; more wait in their streams.
const HEARD_MAX: usize = 64;
/// Nodes that are remembered: as many as a pool has commitments, each a few KiB.
pub const ACQUAINTANCES_MAX: usize = 1024;
/// Strangers that are turned away by their own statements: that many links there can be.
const TURNED_AWAY_MAX: usize = 1024;
/// Status lists of trusted issuers that are kept beside those that peers show: up to 64 KiB each.
const LISTS_MAX: usize = 64;
/// An Acquaintance that is not seen so long after it was written was deleted by the owner.
const WRITTEN: Duration = Duration::from_secs(10);
/// Copies of a key are told this often: a copy calls again and again.
const COPIES_EVERY: Duration = Duration::from_secs(60);
/// Keys of which it is remembered when that was told.
const COPIES_MAX: usize = 256;

/// What introductions are told.
#[derive(Clone)]
pub struct Options {
    /// Reads and writes.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: Caches,
    /// Carry the presentations.
    pub links: Links,
    /// This node.
    pub own: NodeId,
    /// What this node has to show: its identity directory.
    pub directory: PathBuf,
    /// Whose word is believed, and for what.
    pub trusted: TrustedIssuers,
    /// Is told who speaks for whom.
    pub speakers: Speakers,
    /// How the `did:web` documents of owners are fetched; `None`: they are not.
    pub web: Option<web::Options>,
    /// Where this node is (latitude, longitude), to measure what others say of where they are.
    pub position: Option<(f64, f64)>,
}

/// Everything that is known of one peer since it showed itself.
struct Person {
    met: Met,
    shown: Presentation,
}

/// Introductions of a node, with what was kept restored and in force.
pub struct Introductions {
    options: Options,
    acquaintances: Acquaintances,
    shown: Shown,
    lists: Vec<StatusList>,
    people: BTreeMap<NodeId, Person>,
    turned_away: BTreeMap<NodeId, String>,
    /// What stands in the API, and since when.
    written: BTreeMap<NodeId, (AcquaintanceSpec, AcquaintanceStatus, Instant)>,
    delivered: BTreeMap<NodeId, Delivered>,
    told_copies: BTreeMap<NodeId, Instant>,
    web: Option<Web>,
    heard: mpsc::Receiver<(NodeId, Presentation)>,
    known: Cache<KnownCluster>,
    contracts: Cache<Contract>,
    objects: Cache<Acquaintance>,
}

/// Reads what was kept and puts it in force: nothing that asks who speaks for whom may start before.
///
/// # Errors
/// The API's; or somebody else answers presentations on these links.
pub async fn open(options: Options) -> Result<Introductions, Error> {
    let (sender, heard) = mpsc::channel(HEARD_MAX);
    options.links.handle(KIND, Arc::new(wire::Door::new(sender)))?;
    let caches = options.caches.clone();
    let kept = Api::<Acquaintance>::namespaced(options.client.clone(), names::NAMESPACE);
    let objects: Vec<Acquaintance> = kept.list(&Default::default()).await.map_err(Box::new)?.items;
    let mut written = BTreeMap::new();
    for object in &objects {
        if let Ok(did) = object.spec.did.parse::<NodeId>() {
            let status = object.status.clone().unwrap_or_default();
            written.insert(did, (object.spec.clone(), status, Instant::now()));
        }
    }
    let mut introductions = Introductions {
        acquaintances: store::restore(objects.iter().map(|object| &object.spec)),
        shown: Shown::default(),
        lists: Vec::new(),
        people: BTreeMap::new(),
        turned_away: BTreeMap::new(),
        written,
        delivered: BTreeMap::new(),
        told_copies: BTreeMap::new(),
        web: options.web.clone().map(Web::new),
        heard,
        known: caches.namespaced(names::NAMESPACE),
        contracts: caches.namespaced(names::NAMESPACE),
        objects: caches.namespaced(names::NAMESPACE),
        options,
    };
    introductions.read_directory().await;
    introductions.put_in_force();
    Ok(introductions)
}

/// Why there are no introductions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was kept cannot be read.
    #[error("list acquaintances: {0}")]
    Api(#[from] Box<kube::Error>),
    /// Somebody else answers presentations.
    #[error(transparent)]
    Link(#[from] fluidos_link::LinkError),
}

impl Introductions {
    /// Introduces for ever.
    pub async fn run(mut self) {
        tokio::join!(self.known.synced(), self.contracts.synced(), self.objects.synced());
        let mut changes = [self.known.changes(), self.contracts.changes(), self.objects.changes()];
        let mut events = self.options.links.events();
        let mut tick = tokio::time::interval(TICK);
        let mut showing: JoinSet<Showing> = JoinSet::new();
        let mut pace = Pace::default();
        loop {
            pace.begin().await;
            changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
            self.settle(&mut showing).await;
            pace.end();
            let [known, contracts, objects] = &mut changes;
            // Each arm only waits, or takes one whole thing that is kept here: losing the race loses nothing.
            tokio::select! {
                Some((peer, shown)) = self.heard.recv() => self.meet(peer, shown),
                event = events.recv() => match event {
                    Ok(Event::Copies { key, witness, younger }) => self.copies(key, witness, &younger).await,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(done) = showing.join_next() => self.was_shown(done),
                fetched = next_document(&mut self.web) => self.read_document(fetched),
                _ = known.changed() => tokio::time::sleep(GATHER).await,
                _ = contracts.changed() => tokio::time::sleep(GATHER).await,
                _ = objects.changed() => tokio::time::sleep(GATHER).await,
                _ = tick.tick() => self.read_directory().await,
            }
        }
    }

    async fn read_directory(&mut self) {
        let (directory, own) = (self.options.directory.clone(), self.options.own);
        let Ok(shown) = tokio::task::spawn_blocking(move || Shown::read(&directory, &own)).await else { return };
        if shown == self.shown {
            return;
        }
        for problem in &shown.problems {
            tracing::warn!(problem, "this is not shown to peers");
        }
        let told = shown.told.clone();
        self.shown = shown;
        self.hear(&told);
    }

    /// A peer has shown itself.
    fn meet(&mut self, peer: NodeId, shown: Presentation) {
        let now = Timestamp::now();
        // Whoever has a contract is known from now on, also if it came in this moment.
        self.make_acquaintances();
        let trusted = &self.options.trusted;
        let met = self.acquaintances.meet(peer, &shown, &self.lists, trusted, now);
        tracing::debug!(%peer, admission = ?met.admission, origin = ?met.origin, notes = ?met.notes, "a peer has shown itself");
        let kept = met.lists.iter().filter(|list| plan::keep_list(&mut self.lists, list, trusted)).count();
        if let Err(reason) = &met.admission
            && met.origin.is_none()
            && self.turned_away.len() < TURNED_AWAY_MAX
        {
            self.turned_away.insert(peer, reason.clone());
        }
        let statements = plan::statements(&shown);
        self.hear(&statements);
        // Who its owner is may have been shown only now, and with it whose word about its key counts.
        let told = self.shown.told.clone();
        self.hear(&told);
        self.people.insert(peer, Person { met, shown });
        if kept > 0 {
            // Somebody else may have shown a list from which its credential has been taken since.
            self.meet_again(now);
        }
    }

    fn meet_again(&mut self, now: Timestamp) {
        let (trusted, lists) = (&self.options.trusted, &self.lists);
        for (peer, person) in &mut self.people {
            person.met = self.acquaintances.meet(*peer, &person.shown, lists, trusted, now);
        }
    }

    /// Has the documents of those domains fetched that owners of peers claim.
    fn ask_domains(&mut self) {
        let Some(web) = &mut self.web else { return };
        let claims = self.people.values().filter_map(|person| person.met.proven.asks_web.clone()).collect();
        web.want(&claims, Instant::now());
    }

    fn read_document(&mut self, Fetched { claim, document }: Fetched) {
        let (owner, now) = (claim.0, Timestamp::now());
        let outcome = document.and_then(|(domain, bytes)| {
            let learned = self.options.trusted.learn_document(&domain, &bytes, owner, Web::until(now));
            learned.map_err(|error| error.to_string())
        });
        match &outcome {
            Ok(()) => tracing::info!(%owner, domain = claim.1, "the domain of an owner says that it is the owner's"),
            Err(reason) => tracing::warn!(%owner, domain = claim.1, reason, "the domain of an owner does not prove it"),
        }
        if let Some(web) = &mut self.web {
            web.noted(&claim, outcome, Instant::now());
        }
        self.meet_again(now);
    }

    /// Takes note of statements, from whomever.
    fn hear(&mut self, statements: &[fluidos_identity::Statement]) {
        for (origin, standing) in self.acquaintances.hear(statements, Timestamp::now()) {
            tracing::warn!(%origin, %standing, "a node stands otherwise than before");
        }
    }

    /// Makes everything as it should be.
    async fn settle(&mut self, showing: &mut JoinSet<Showing>) {
        self.make_acquaintances();
        self.put_in_force();
        self.ask_domains();
        self.write_acquaintances().await;
        self.write_identities().await;
        self.succeed().await;
        self.show(showing);
    }

    fn make_acquaintances(&mut self) {
        let (contracts, known) = (self.contracts.list(), self.known.list());
        let wanted = plan::wanted(contracts.iter().map(AsRef::as_ref), known.iter().map(AsRef::as_ref));
        let own = self.own_keys();
        let changes = plan::acquaint(&self.acquaintances, &wanted, &own);
        for origin in changes.forget {
            self.acquaintances.remove(&origin);
        }
        let is_new = !changes.add.is_empty();
        for origin in changes.add {
            self.acquaintances.add(origin);
            // It may have shown itself as a stranger before.
            if let Some(person) = self.people.get_mut(&origin) {
                let (trusted, lists) = (&self.options.trusted, &self.lists);
                person.met = self.acquaintances.meet(origin, &person.shown, lists, trusted, Timestamp::now());
            }
        }
        if is_new {
            let told = self.shown.told.clone();
            self.hear(&told);
        }
    }

    fn own_keys(&self) -> BTreeSet<NodeId> {
        plan::own_keys(self.options.own, &self.shown.history)
    }

    /// Tells everybody in this process who speaks for whom, and ends the links of those who do not.
    fn put_in_force(&mut self) {
        let own = self.options.own;
        let mut standings = self.acquaintances.standings(Timestamp::now());
        standings.extend(self.own_keys().into_iter().map(|key| (key, Standing::Current(own))));
        let mut refused = plan::refused(&standings);
        refused.remove(&own);
        refused.extend(self.turned_away.clone());
        let mut first: BTreeMap<NodeId, NodeId> =
            self.people.iter().map(|(peer, person)| (*peer, person.met.first)).collect();
        for history in self.acquaintances.histories() {
            if let Some(Standing::Current(key)) = standings.get(&history.origin()) {
                first.entry(*key).or_insert_with(|| first_key(*key, history.accepted()));
            }
        }
        first.insert(own, first_key(own, &self.shown.history));
        first.retain(|key, first| key != first);
        if self.options.speakers.set(standings, first) {
            tracing::debug!("who speaks for whom has changed");
        }
        self.options.links.refuse(refused);
    }
}

/// The next document that is fetched; none if nothing is fetched at all.
async fn next_document(web: &mut Option<Web>) -> Fetched {
    match web {
        Some(web) => web.done().await,
        None => std::future::pending().await,
    }
}

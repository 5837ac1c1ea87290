//! Catalogs: this node announces itself in those that the owner named, and reads who else is there.
//!
//! ```text
//!   every 30 s, jittered ─▶ announce (changed, or a third of the lifetime is over) ─▶ list (304 while nothing changes)
//!   told anew ───────────▶ at once                                                     └─▶ Listing ─▶ sightings
//!                                                     opinions: said and heard ([`crate::words`]) ─▶ KnownCluster.status.opinions
//! ```
//! What a catalog lists is a hint where to dial, as on the LAN; it gives trust to nobody. A catalog that is away changes nothing:
//! only a list that was read to its end tells that somebody has gone.
//!
//! Limits: names of hosts in announcements are not looked up (strangers would choose what this node asks its DNS); one address is
//! announced, the one by which this node reaches the catalog, or that of `--rear`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_catalog::{Announcement, Client, ClientError, Feedback, Withdrawal, seal};
use fluidos_identity::{NodeId, NodeKey, Signed};
use fluidos_model::kinds::KnownClusterOffer;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::words::Words;
use crate::{Features, Sighting, Source, offers, plan};

/// Each is asked twice a minute.
pub const CATALOGS_MAX: usize = 8;
/// A node that died is listed so long; a third of it is the time in which one renewal is sent.
const LIFETIME: Duration = Duration::from_secs(900);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// The longest wait for a catalog that is away.
const AWAY_MAX: Duration = Duration::from_secs(240);
/// The tenant of a catalog that was told nothing about tenants.
const TENANT: &str = "public";

/// One tenant of one catalog, as the owner writes it: `[did:key:…@]HOST:PORT[/TENANT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The key that it must prove. Without, any catalog at the address is taken: what it lists is verified all the same.
    pub expected: Option<NodeId>,
    /// `HOST:PORT`.
    pub address: String,
    /// Which board.
    pub tenant: String,
}

/// What discovery is told about catalogs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which; at most [`CATALOGS_MAX`].
    pub targets: Vec<Target>,
    /// The address to announce, if not the one by which the catalog is reached.
    pub address: Option<IpAddr>,
    /// The address to announce if the catalog is reached by one that nobody else reaches, as on the same machine.
    pub fallback: Option<IpAddr>,
    /// The time between two looks, if not 30 s: a catalog answers ten requests a second of one key.
    pub look: Option<Duration>,
}

/// What is to be told of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub announce: bool,
    pub features: Features,
    pub offers: Vec<KnownClusterOffer>,
    /// How those have fared of whom this node has bought: of 1000, and observations. Not told anew for this alone.
    pub opinions: BTreeMap<NodeId, (u16, u32)>,
    /// About whom others are to be heard.
    pub subjects: BTreeSet<NodeId>,
}

/// What one catalog has brought.
pub(crate) enum News {
    Listed(Listing),
    /// What is said there of some nodes.
    Said(usize, BTreeMap<NodeId, Vec<Feedback>>),
}

/// All that one catalog lists.
pub(crate) struct Listing {
    /// Which, by its place among the targets.
    pub catalog: usize,
    pub sightings: BTreeMap<NodeId, Sighting>,
    pub refused: Vec<String>,
}

/// What every announcement of this node says.
pub(crate) struct Card {
    pub key: Arc<NodeKey>,
    pub name: String,
    pub domain: String,
    pub rear_port: u16,
    pub link_port: u16,
    pub options: Options,
}

pub(crate) struct Follower {
    index: usize,
    target: Target,
    client: Client,
    card: Arc<Card>,
    told: watch::Receiver<Told>,
    heard: mpsc::Sender<News>,
    /// What stands there, and since when it was renewed.
    announced: Option<(Signed<Announcement>, Instant)>,
    /// The last that was used.
    sequence: u64,
    tag: Option<String>,
    words: Words,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (expected, rest) = match text.split_once('@') {
            Some((did, rest)) => (Some(did.parse::<NodeId>().map_err(|error| error.to_string())?), rest),
            None => (None, text),
        };
        let (address, tenant) = rest.split_once('/').unwrap_or((rest, TENANT));
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if port.is_none() || tenant.is_empty() || !tenant.chars().all(plain) {
            return Err(format!("{text}: needed [did:key:...@]HOST:PORT[/TENANT]"));
        }
        Ok(Self { expected, address: address.into(), tenant: tenant.into() })
    }
}

impl Target {
    /// `HOST:PORT/TENANT`.
    pub fn board(&self) -> String {
        format!("{}/{}", self.address, self.tenant)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog {}", self.board())
    }
}

impl Follower {
    pub(crate) fn new(
        (index, target): (usize, Target),
        card: Arc<Card>,
        told: watch::Receiver<Told>,
        heard: mpsc::Sender<News>,
    ) -> Result<Self, fluidos_identity::TlsError> {
        let client = Client::new(&card.key, &target.address, &target.tenant, target.expected)?;
        Ok(Self {
            index,
            target,
            client,
            card,
            told,
            heard,
            announced: None,
            sequence: 0,
            tag: None,
            words: Words::default(),
        })
    }

    /// Follows its catalog until told to stop, and takes back what it has announced.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let stopped = tokio::select! {
            stop = stop.wait_for(|stop| *stop) => stop.is_ok(),
            () = self.follow() => false,
        };
        if stopped && let Err(error) = self.withdraw().await {
            tracing::debug!(%error, "the announcement stays in the catalog until its lifetime is over");
        }
    }

    async fn follow(&mut self) {
        let mut failures = 0u32;
        for round in 0usize.. {
            let told = self.told.borrow_and_update().clone();
            match self.look(&told).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "a catalog is away; what is known stays");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            let chance = self.card.key.id().public_key()[round % 32];
            tokio::select! {
                () = tokio::time::sleep(wait(failures, chance, self.card.options.look.unwrap_or(LOOK))) => {}
                changed = self.told.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&mut self, told: &Told) -> Result<(), ClientError> {
        let (_, local) = self.client.connect().await?;
        let stands = if told.announce { self.announce(told, local).await } else { self.withdraw().await };
        if let Err(error) = stands {
            // To read there may be allowed all the same.
            tracing::warn!(%error, "this node cannot be announced in a catalog; it is tried again");
        }
        if let Some(listing) = self.client.list(self.tag.as_deref()).await? {
            self.listed(listing).await;
        }
        if told.announce {
            self.words.say(&mut self.client, &self.card.key, &told.opinions).await?;
        }
        let said = self.words.ask(&mut self.client, &told.subjects).await?;
        if !said.is_empty() {
            let _ = self.heard.send(News::Said(self.index, said)).await;
        }
        Ok(())
    }

    async fn listed(&mut self, listing: fluidos_catalog::Listing) {
        let mut heard = Listing { catalog: self.index, sightings: BTreeMap::new(), refused: listing.refused };
        for announcement in &listing.announcements {
            match sighting(announcement, &self.target) {
                Ok(sighting) => drop(heard.sightings.insert(sighting.id, sighting)),
                Err(why) if heard.refused.len() < 8 => heard.refused.push(format!("{}: {why}", announcement.did)),
                Err(_) => {}
            }
        }
        self.tag = listing.tag;
        // With nobody to hear it discovery has ended, and so does this.
        let _ = self.heard.send(News::Listed(heard)).await;
    }

    async fn announce(&mut self, told: &Told, local: IpAddr) -> Result<(), ClientError> {
        let address = address(&self.card.options, local);
        let fresh = announcement(&self.card, told, address);
        let (signed, since) = match &self.announced {
            Some((signed, since)) if says_the_same(signed.value(), &fresh) => (Some(signed.clone()), Some(*since)),
            _ => (None, None),
        };
        if since.is_some_and(|since| since.elapsed() < LIFETIME / 3) {
            return Ok(());
        }
        let lately = self.announced.as_ref().filter(|(_, since)| since.elapsed() < LIFETIME / 3);
        if lately.is_some_and(|(signed, _)| only_amounts_differ(signed.value(), &fresh)) {
            return Ok(());
        }
        let sign = |sequence| seal(&self.card.key, Announcement { sequence, ..fresh.clone() });
        let refused = |reason| ClientError::Malformed(self.target.address.clone(), reason);
        self.sequence = signed.as_ref().map_or_else(|| next(self.sequence, Timestamp::now()), |s| s.value().sequence);
        let mut signed = match signed {
            Some(signed) => signed,
            None => sign(self.sequence).map_err(refused)?,
        };
        // A clock that was set back: what stands there was said by this key, later by its own count.
        if let Err(error) = self.client.announce(&signed).await {
            let ClientError::Conflict(held) = error else { return Err(error) };
            self.sequence = held.saturating_add(1);
            signed = sign(self.sequence).map_err(refused)?;
            self.client.announce(&signed).await?;
        }
        self.announced = Some((signed, Instant::now()));
        Ok(())
    }

    async fn withdraw(&mut self) -> Result<(), ClientError> {
        let Some((signed, _)) = &self.announced else { return Ok(()) };
        let withdrawal = Withdrawal { version: 1, did: self.card.key.id(), sequence: signed.value().sequence };
        let withdrawal = seal(&self.card.key, withdrawal)
            .map_err(|reason| ClientError::Malformed(self.target.address.clone(), reason))?;
        self.client.withdraw(&withdrawal).await?;
        self.announced = None;
        Ok(())
    }
}

/// How long to wait after so many failures in a row; `chance` spreads nodes that were started together.
fn wait(failures: u32, chance: u8, look: Duration) -> Duration {
    let plain = match failures {
        0 => look,
        n => Duration::from_secs(1 << (n - 1).min(8)).min(AWAY_MAX),
    };
    plain.mul_f64(0.8 + 0.4 * f64::from(chance) / 255.0)
}

/// Milliseconds, as long as the clock goes forward.
pub(crate) fn next(last: u64, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or_default().max(last.saturating_add(1))
}

fn address(options: &Options, local: IpAddr) -> IpAddr {
    let reached = plan::addresses(std::iter::once(local)).first().copied();
    options.address.or(reached).or(options.fallback).unwrap_or(local)
}

fn announcement(card: &Card, told: &Told, address: IpAddr) -> Announcement {
    Announcement {
        version: fluidos_catalog::VERSION,
        did: card.key.id(),
        name: card.name.clone(),
        domain: card.domain.clone(),
        addresses: vec![address.to_string()],
        rear_port: card.rear_port,
        link_port: card.link_port,
        features: told.features.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        offers: offers::to_catalog(&told.offers),
        sequence: 0,
        lifetime_seconds: LIFETIME.as_secs() as u32,
    }
}

fn says_the_same(stands: &Announcement, fresh: &Announcement) -> bool {
    *stands == Announcement { sequence: stands.sequence, ..fresh.clone() }
}

/// Whether a shop window shows the same goods at the same prices, more or less of them. Each announcement makes all readers read all of a
/// board again, and tells how fast this node sells: that is told with the next renewal.
fn only_amounts_differ(stands: &Announcement, fresh: &Announcement) -> bool {
    let plain = |offers: &[fluidos_catalog::Offer]| {
        offers
            .iter()
            .map(|offer| fluidos_catalog::Offer { amounts: BTreeMap::new(), ..offer.clone() })
            .collect::<Vec<_>>()
    };
    let same_goods = plain(&stands.offers) == plain(&fresh.offers);
    same_goods && says_the_same(stands, &Announcement { offers: stands.offers.clone(), ..fresh.clone() })
}

/// Where an announced node may be.
fn sighting(announcement: &Announcement, target: &Target) -> Result<Sighting, String> {
    let ips = announcement.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let mut ips = plan::addresses(ips).into_iter();
    let ip = ips.next().ok_or("it has no IP address that others reach")?;
    Ok(Sighting {
        source: Source::Catalog,
        id: announcement.did,
        name: announcement.name.clone(),
        domain: announcement.domain.clone(),
        rear: SocketAddr::new(ip, announcement.rear_port),
        link: Some(SocketAddr::new(ip, announcement.link_port)),
        further: ips.collect(),
        features: Some(Features::new(announcement.features.clone())?),
        offers: Some(offers::of_catalog(&announcement.offers, &target.board())),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_target_is_read_or_refused() {
        let target: Target = "192.0.2.1:7400".parse().unwrap();
        assert_eq!(
            (target.address.as_str(), target.tenant.as_str(), target.expected),
            ("192.0.2.1:7400", "public", None)
        );
        let did = NodeKey::from_seed([1; 32]).unwrap().id();
        let target: Target = format!("{did}@[2001:db8::1]:7400/club").parse().unwrap();
        assert_eq!((target.address.as_str(), target.tenant.as_str()), ("[2001:db8::1]:7400", "club"));
        assert_eq!(target.expected, Some(did));
        for bad in ["host", ":7400", "host:0", "host:7400/", "host:7400/a b", "x@host:7400"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_sequences_only_grow() {
        let seconds = |failures| wait(failures, 127, LOOK).as_secs_f64().round() as u64;
        assert_eq!([0, 1, 2, 3, 8, 9, 99].map(seconds), [30, 1, 2, 4, 128, 240, 240]);
        assert!(wait(0, 0, LOOK) < wait(0, 255, LOOK));
        assert_eq!(next(0, "1970-01-01T00:00:05Z".parse().unwrap()), 5000);
        assert_eq!(next(9000, "1970-01-01T00:00:05Z".parse().unwrap()), 9001, "a clock that was set back");
    }
}

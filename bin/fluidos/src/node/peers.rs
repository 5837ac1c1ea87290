//! The way to other nodes: links, and who is found at the other end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use fluidos_discovery::catalog::CATALOGS_MAX;
use fluidos_discovery::features::word;
use fluidos_discovery::introductions::{self, Introductions};
use fluidos_discovery::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, position_word};
use fluidos_identity::{NodeKey, Speakers};
use fluidos_link::Links;
use fluidos_model::kinds::KnownClusterOffer;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::api::Api;
use super::machine;
use super::parts::Parts;
use crate::cli::issuer::trusted;
use crate::cli::{DidWeb, Up};

/// The doors to peers, open.
pub struct Doors {
    /// UDP: the links.
    pub links: Links,
    /// TCP: REAR.
    pub rear: TcpListener,
    /// TCP: REAR for official nodes, if the owner opened it.
    pub plain: Option<TcpListener>,
}

impl Doors {
    /// Opens both at `--rear`.
    pub async fn open(up: &Up, key: &NodeKey) -> Result<Self> {
        let taken = || format!("--rear {}: cannot listen; free the port or choose another", up.rear);
        let rear = TcpListener::bind(up.rear).await.with_context(taken)?;
        let plain =
            match up.rear_plain {
                Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                    format!("--rear-plain {address}: cannot listen; free the port or choose another")
                })?),
                None => None,
            };
        // The port that TCP was given, when it was left to the kernel.
        let address = SocketAddr::new(up.rear.ip(), rear.local_addr()?.port());
        let mut options = fluidos_link::Options::new(address, up.name.clone(), incarnation());
        options.domain.clone_from(&up.domain);
        // A machine that died is noticed after three unanswered words: that time is the beginning of every fail-over.
        (options.keep_alive, options.idle_timeout) = (Duration::from_secs(2), Duration::from_secs(6));
        for attribute in [ATTRIBUTE_REAR_PORT, ATTRIBUTE_LINK_PORT] {
            options.attributes.insert(attribute.to_owned(), address.port().to_string());
        }
        let links = Links::start(key.clone(), options).with_context(taken)?;
        Ok(Self { links, rear, plain })
    }

    /// Where peers reach this node.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.rear.local_addr()?)
    }
}

/// Grows with every start.
fn incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Reads whom this node knows, and whose word it believes: nothing that asks who speaks for whom may start before.
pub async fn introduce(up: &Up, key: &NodeKey, api: &Api, links: &Links, speakers: Speakers) -> Result<Introductions> {
    let options = introductions::Options {
        client: api.client("fluidos-introductions"),
        caches: api.access("fluidos-introductions").caches,
        links: links.clone(),
        own: key.id(),
        directory: up.data_dir.join("identity"),
        trusted: trusted(&up.trust_issuer),
        speakers,
        web: match up.did_web {
            DidWeb::Off => None,
            DidWeb::Public => Some(introductions::web::Options::default()),
            DidWeb::Private => Some(introductions::web::Options { private: true, ..Default::default() }),
        },
        position: position(up),
    };
    introductions::open(options).await.context("introductions")
}

/// Where this node is, if its owner has said so.
fn position(up: &Up) -> Option<(f64, f64)> {
    let place = up.location.as_ref()?;
    Some((place.latitude.parse().ok()?, place.longitude.parse().ok()?))
}

/// Looks for nodes, for ever. What is returned takes the node out of catalogs again.
pub fn discover(
    up: &Up,
    key: Arc<NodeKey>,
    api: &Api,
    doors: &Doors,
    (speakers, offers): (Speakers, watch::Receiver<Vec<KnownClusterOffer>>),
    parts: &mut Parts,
) -> Result<fluidos_discovery::Handle> {
    let port = doors.address()?.port();
    if up.catalog.len() > CATALOGS_MAX {
        bail!("--catalog: {} are given, at most {CATALOGS_MAX}", up.catalog.len());
    }
    let handle = fluidos_discovery::Handle::default();
    let options = fluidos_discovery::Options {
        client: api.client("fluidos-discovery"),
        caches: api.access("fluidos-discovery").caches,
        key,
        name: up.name.clone(),
        domain: up.domain.clone(),
        links: doors.links.clone(),
        rear_port: port,
        link_port: port,
        peers: up.peer.clone(),
        mdns: !up.no_mdns,
        catalogs: fluidos_discovery::catalog::Options {
            targets: up.catalog.clone(),
            address: Some(up.rear.ip()).filter(|ip| !ip.is_unspecified()),
            fallback: machine::address().map(IpAddr::V4),
            look: None,
        },
        // The policies say who is trusted; the flag is one of them.
        trust: fluidos_discovery::Trust { decided_elsewhere: true, ..up.trust.0.clone() },
        features: features(up),
        offers,
        speakers,
    };
    let running = handle.clone();
    parts.spawn(async move {
        if let Err(error) = fluidos_discovery::run(options, running).await {
            // The rest of the node is of use without; the operator is told.
            tracing::error!(%error, "discovery has ended");
        }
    });
    Ok(handle)
}

/// What the node says of itself: where it is, what it sells, what it is.
fn features(up: &Up) -> Features {
    let place = up.location.clone().unwrap_or_default();
    let sells = up.offer.as_ref().is_some_and(|offer| *offer != Default::default());
    let words = [
        ("arch", word(super::market::architecture())),
        ("city", word(&place.city)),
        ("country", word(&place.country)),
        ("position", position(up).map(|(lat, lon)| position_word(lat, lon)).unwrap_or_default()),
        ("sells", if sells { "compute".into() } else { String::new() }),
    ];
    let told = words.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value));
    // Five short words are within every bound.
    Features::new(told).unwrap_or_default()
}

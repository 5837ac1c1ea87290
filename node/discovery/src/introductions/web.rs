//! `did:web` documents of owners, fetched: a domain that a trusted owner claims for its nodes is proven if the domain says so, too.
//!
//! ```text
//!  a peer's owner claims farm.example ─▶ https://farm.example/.well-known/did.json ─▶ TrustedIssuers::learn_document, for a day
//!        (and nobody told us whose it is)      names, addresses, time and size looked at
//! ```
//! Only domains that owners claim who are trusted as such are fetched, so a stranger cannot make this node ask anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{DID_DOCUMENT_BYTES_MAX, DidWeb, NodeId};
use jiff::{SignedDuration, Timestamp};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::task::JoinSet;

/// A document is believed so long.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24);
/// It is fetched again while it is still believed.
const AGAIN: Duration = Duration::from_secs(18 * 3600);
/// After the first failure; it doubles up to an hour.
const RETRY: Duration = Duration::from_secs(600);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A web server that answers does so within a second or two.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Each may take ten seconds.
const AT_ONCE: usize = 4;
/// Owners and domains that are remembered: as many as a node trusts owners, and far beyond.
const DOMAINS_MAX: usize = 256;

/// Finds the addresses of a name; port 0 is that of HTTPS.
pub type Names =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync>;

/// How documents are fetched.
#[derive(Clone, Default)]
pub struct Options {
    /// Whether a domain may lead to loopback or into a private network.
    pub private: bool,
    /// Certificates that are believed beside those of this machine, DER.
    pub roots: Vec<Vec<u8>>,
    /// What is asked for addresses, if not the DNS of this machine.
    pub names: Option<Names>,
}

/// A domain that an owner claims.
pub(super) type Claim = (NodeId, String);

/// A document that was fetched, or why not.
pub(super) struct Fetched {
    pub claim: Claim,
    pub document: Result<(DidWeb, Vec<u8>), String>,
}

/// Fetches, a few at a time.
pub(super) struct Web {
    options: Options,
    /// Made for the first document: it reads the certificates of this machine, some hundred files, and most nodes hear of no domain. Or why
    /// there is none: a machine without certificates, as a small device may be, believes no web server.
    client: Option<Result<reqwest::Client, String>>,
    looked: BTreeMap<Claim, Looked>,
    tasks: JoinSet<Fetched>,
}

struct Looked {
    /// When it is looked at again; `None`: it is under way.
    next: Option<Instant>,
    failures: u32,
    /// Why there is none.
    reason: Option<String>,
}

impl Web {
    pub(super) fn new(options: Options) -> Self {
        Self { options, client: None, looked: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Fetches those of what is claimed whose time has come, and forgets what is claimed no more.
    pub(super) fn want(&mut self, claims: &BTreeSet<Claim>, now: Instant) {
        self.looked.retain(|claim, looked| claims.contains(claim) || looked.next.is_none());
        for claim in claims {
            if self.tasks.len() >= AT_ONCE {
                return;
            }
            let known = self.looked.get(claim);
            let due =
                known.map_or(self.looked.len() < DOMAINS_MAX, |looked| looked.next.is_some_and(|next| next <= now));
            if !due {
                continue;
            }
            let failures = known.map_or(0, |looked| looked.failures);
            let reason = known.and_then(|looked| looked.reason.clone());
            self.looked.insert(claim.clone(), Looked { next: None, failures, reason });
            let client = self.client.get_or_insert_with(|| client(&self.options)).clone();
            self.tasks.spawn(fetch(client, claim.clone()));
        }
    }

    /// Returns the next that is done; waits for ever while none is under way.
    pub(super) async fn done(&mut self) -> Fetched {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(fetched)) => return fetched,
                // A task that panics has a bug, and its domain stays unproven.
                Some(Err(error)) => tracing::error!(%error, "a did:web document was not fetched"),
                None => return std::future::pending().await,
            }
        }
    }

    /// Takes note of what became of one: `Err` is why its domain is not proven by it.
    pub(super) fn noted(&mut self, claim: &Claim, outcome: Result<(), String>, now: Instant) {
        let Some(looked) = self.looked.get_mut(claim) else { return };
        match outcome {
            Ok(()) => *looked = Looked { next: Some(now + AGAIN), failures: 0, reason: None },
            Err(reason) => {
                let wait = RETRY.saturating_mul(1 << looked.failures.min(8)).min(RETRY_MAX);
                let failures = looked.failures.saturating_add(1);
                *looked = Looked { next: Some(now + wait), failures, reason: Some(reason) };
            }
        }
    }

    /// Why the document of a domain does not prove it, if it was asked for and does not.
    pub(super) fn reason(&self, claim: &Claim) -> Option<&str> {
        self.looked.get(claim)?.reason.as_deref()
    }

    /// Until when a document that is fetched now is believed.
    pub(super) fn until(now: Timestamp) -> Timestamp {
        now.saturating_add(BELIEVED).unwrap_or(now)
    }
}

/// What asks web servers, or why this machine has nothing to ask them with: told once.
fn client(options: &Options) -> Result<reqwest::Client, String> {
    // reqwest takes the provider of the process and panics without one; another may have set it, to the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let names = options.names.clone().unwrap_or_else(|| Arc::new(|name| Box::pin(system(name))));
    let mut client = reqwest::Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .dns_resolver(Arc::new(Guarded { names, private: options.private }))
        .pool_max_idle_per_host(0);
    for root in &options.roots {
        let certificate = reqwest::Certificate::from_der(root).map_err(|error| error.to_string())?;
        client = client.add_root_certificate(certificate);
    }
    let client = client.build().map_err(|error| chain(&error));
    if let Err(reason) = &client {
        tracing::warn!(reason, "did:web documents cannot be fetched; what the owner gives by hand still counts");
    }
    client
}

async fn fetch(client: Result<reqwest::Client, String>, claim: Claim) -> Fetched {
    let document = match (format!("did:web:{}", claim.1).parse::<DidWeb>(), &client) {
        (Ok(web), Ok(client)) => get(client, &web).await.map(|document| (web, document)),
        (Err(error), _) => Err(error.to_string()),
        (_, Err(reason)) => Err(reason.clone()),
    };
    Fetched { claim, document }
}

async fn get(client: &reqwest::Client, web: &DidWeb) -> Result<Vec<u8>, String> {
    let url = web.document_url();
    let mut response = client.get(&url).send().await.map_err(|error| chain(&error))?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(format!("{url} answers {}, needed 200 (redirects are not followed)", response.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| chain(&error))? {
        if document.len() + part.len() > DID_DOCUMENT_BYTES_MAX {
            return Err(format!("{url} is larger than {DID_DOCUMENT_BYTES_MAX} bytes"));
        }
        document.extend_from_slice(&part);
    }
    Ok(document)
}

async fn system(name: String) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

/// Looks at addresses where they are used: a name that leads elsewhere a moment later leads there with them.
struct Guarded {
    names: Names,
    private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, private) = (self.names.clone(), self.private);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = names(name.clone()).await?;
            let usable: Vec<SocketAddr> = found.iter().filter(|a| private || is_public(a.ip())).copied().collect();
            if usable.is_empty() {
                let reason = match found.first() {
                    Some(address) => format!("{name} leads to {}, which is no public address", address.ip()),
                    None => format!("{name} leads nowhere"),
                };
                return Err(Box::<dyn StdError + Send + Sync>::from(reason));
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public Internet (IANA special-purpose registries).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public_v4(ip),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        // this network; shared, of which the fabric has its addresses; protocol assignments; benchmarks; reserved
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..)
    );
    !(special
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Global unicast, without what leads to an IPv4 address of somebody's choice (Teredo, 6to4), and documentation.
    (0x2000..=0x3fff).contains(&a) && !(a == 0x2001 && (b == 0 || b == 0x0db8)) && a != 0x2002 && a != 0x3fff
}

/// An error with its causes, of which the last says what it was.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

#[cfg(test)]
#[path = "web_tests.rs"]
pub(super) mod tests;

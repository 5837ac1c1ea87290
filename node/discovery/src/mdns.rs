//! Multicast DNS (RFC 6762, RFC 6763): nodes on one LAN find each other with no configuration (D3).
//!
//! A node announces the service `_fluidos._udp.local.` with its key, name, domain, ports and features as TXT, signed. It answers the
//! query of a newcomer at once, so nobody waits for the next announcement.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fluidos_identity::{NodeId, NodeKey};
use mdns_sd::{Receiver, RecvTimeoutError, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;

use crate::{Features, Sighting, Source, plan, signature};

const SERVICE: &str = "_fluidos._udp.local.";
/// How often the daemon is asked for all that it knows: often enough that a node which answers does not expire ([`crate::plan::EXPIRY`]).
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Each so many of those looks asks the LAN, too, and each that comes after something new: of a thousand answers at once many are lost. A
/// question names all the answers that are known, so with a thousand nodes it is some dozen packets; and who is new announces itself.
const ROUNDS_OF_ASKING: usize = 10;
/// Until it is seen that nobody listens any more.
const IDLE: Duration = Duration::from_millis(500);
/// Until there is room again for what waits.
const FULL: Duration = Duration::from_millis(10);
/// Who floods this node is not asked again at once.
const OVERFLOWN: Duration = Duration::from_secs(1);
/// Instances that are kept, about 1 KiB each: as many as nodes, and some that are none.
const INSTANCES_MAX: usize = 2 * plan::KNOWN_MAX;
/// The only form of the announcement that is understood.
const VERSION: &str = "1";

/// Why there is no multicast DNS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket, or an announcement that does not fit.
    #[error("multicast DNS: {0}; --no-mdns does without")]
    Mdns(#[from] mdns_sd::Error),
    /// No thread.
    #[error("multicast DNS: a thread that listens: {0}; --no-mdns does without")]
    Thread(#[from] std::io::Error),
}

/// Something that was heard on the LAN: a node, or what was not one and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A signed announcement.
    Node(Sighting),
    /// An announcement that is refused: its instance and the reason.
    Refused(String, String),
    /// The node with this tag said good-bye, or did not answer any more. Anybody can forge it.
    Gone(String),
}

/// What this node says of itself.
pub struct Announcement<'a> {
    /// Signs it.
    pub key: &'a NodeKey,
    /// The node's name.
    pub name: &'a str,
    /// The owner's domain.
    pub domain: &'a str,
    /// Port of REAR.
    pub rear_port: u16,
    /// Port of the link.
    pub link_port: u16,
    /// What is told about it.
    pub features: &'a Features,
}

/// Announces and listens. Dropping it says good-bye.
pub struct Mdns {
    daemon: ServiceDaemon,
    /// What is announced now.
    instance: Option<String>,
}

impl Mdns {
    /// Listens, and passes on what it hears. Nothing is announced yet.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn start(heard: mpsc::Sender<Heard>) -> Result<Self, Error> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        let own = daemon.clone();
        std::thread::Builder::new().name("mdns-listen".into()).spawn(move || listen(&own, events, &heard))?;
        Ok(Self { daemon, instance: None })
    }

    /// Announces this node, in place of what was announced before; `None` says good-bye.
    ///
    /// # Errors
    /// When the announcement is refused.
    pub fn announce(&mut self, announcement: Option<&Announcement<'_>>) -> Result<(), Error> {
        let Some(announcement) = announcement else {
            if let Some(instance) = self.instance.take() {
                self.daemon.unregister(&instance)?;
            }
            return Ok(());
        };
        let service = service(announcement)?;
        self.instance = Some(service.get_fullname().to_owned());
        Ok(self.daemon.register(service)?)
    }
}

/// Returns the service that announces a node, at whatever addresses its machine has.
///
/// # Errors
/// When it cannot be announced: a field is too long.
pub fn service(announcement: &Announcement<'_>) -> Result<ServiceInfo, Error> {
    let tag = announcement.key.id().tag();
    let fields = fields(announcement);
    let properties: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut service =
        ServiceInfo::new(SERVICE, &tag, &format!("{tag}.local."), (), announcement.link_port, &properties[..])?
            .enable_addr_auto();
    // The instance is named by the key's hash, so it is ours alone: probing for it would cost 750 ms.
    service.set_requires_probe(false);
    Ok(service)
}

/// Passes on what is heard until nobody wants it or the daemon ends. A node that goes on as before is no event for the daemon: looking again
/// tells of all that it still knows, and it asks for each before its time is over. A thread of its own: the daemon ends the subscription of
/// who does not keep up, and tells of all in one go.
fn listen(daemon: &ServiceDaemon, mut events: Receiver<ServiceEvent>, heard: &mpsc::Sender<Heard>) {
    let (mut inbox, mut round, mut again) = (Inbox::default(), 0usize, Instant::now() + LOOK_AGAIN);
    while !heard.is_closed() {
        let wait = if inbox.waiting.is_empty() { IDLE } else { FULL };
        match events.recv_timeout(wait.min(again.saturating_duration_since(Instant::now()))) {
            Ok(event) => {
                for event in std::iter::once(event).chain(events.try_iter()) {
                    if matches!(event, ServiceEvent::ServiceRemoved(..)) {
                        // Anybody can say so of anybody: who is there still answers when it is asked.
                        round = 0;
                    }
                    inbox.take(event);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // It told more than was taken, or it has ended: which of both, asking again says.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(OVERFLOWN);
                again = Instant::now();
                round = 0;
            }
        }
        if again <= Instant::now() {
            let asks = std::mem::take(&mut inbox.is_news) || round.is_multiple_of(ROUNDS_OF_ASKING);
            match if asks { daemon.browse(SERVICE) } else { daemon.browse_cache(SERVICE) } {
                Ok(fresh) => events = fresh,
                Err(mdns_sd::Error::DaemonShutdown) => return,
                Err(error) => tracing::debug!(%error, "the LAN cannot be asked; it is tried again"),
            }
            (round, again) = (round + 1, Instant::now() + LOOK_AGAIN);
        }
        inbox.pass_on(heard);
    }
}

/// What the daemon has told, the last of each instance, until there is room for it elsewhere.
#[derive(Default)]
pub(crate) struct Inbox {
    /// What waits. Bounded, as `read` is.
    pub(crate) waiting: BTreeMap<String, Heard>,
    /// What was read of each instance: the same is not verified again.
    pub(crate) read: HashMap<String, Read>,
    /// Whether an instance was heard that was not known before.
    is_news: bool,
}

/// One announcement, and what it says.
pub(crate) struct Read {
    fields: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    pub(crate) heard: Heard,
}

impl Inbox {
    pub(crate) fn take(&mut self, event: ServiceEvent) {
        let (instance, heard) = match event {
            ServiceEvent::ServiceResolved(service) => (service.fullname.clone(), self.read(&service)),
            ServiceEvent::ServiceRemoved(_, instance) => {
                self.read.remove(&instance);
                let tag = instance.split('.').next().unwrap_or_default().to_owned();
                (instance, Heard::Gone(tag))
            }
            _ => return,
        };
        if self.waiting.len() < INSTANCES_MAX || self.waiting.contains_key(&instance) {
            self.waiting.insert(instance, heard);
        }
    }

    fn read(&mut self, service: &ResolvedService) -> Heard {
        let fields: BTreeMap<String, String> =
            service.txt_properties.iter().map(|p| (p.key().to_owned(), p.val_str().to_owned())).collect();
        let addresses = plan::addresses(service.addresses.iter().map(ScopedIp::to_ip_addr));
        let known = self.read.get(&service.fullname);
        self.is_news |= known.is_none();
        if let Some(read) = known.filter(|read| (&read.fields, &read.addresses) == (&fields, &addresses)) {
            return read.heard.clone();
        }
        let heard = match sighting(&fields, addresses.iter().copied()) {
            Ok(sighting) => Heard::Node(sighting),
            Err(why) => Heard::Refused(service.fullname.chars().take(80).collect(), why),
        };
        if self.read.len() >= INSTANCES_MAX {
            self.read.clear();
        }
        self.read.insert(service.fullname.clone(), Read { fields, addresses, heard: heard.clone() });
        heard
    }

    /// As much as there is room for.
    pub(crate) fn pass_on(&mut self, heard: &mpsc::Sender<Heard>) {
        while !self.waiting.is_empty() {
            let Ok(place) = heard.try_reserve() else { return };
            if let Some((_, news)) = self.waiting.pop_first() {
                place.send(news);
            }
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        // Peers forget us at once; a crash is noticed by the link.
        if let Some(instance) = &self.instance {
            let _ = self.daemon.unregister(instance);
        }
        let _ = self.daemon.shutdown();
    }
}

/// The full name under which a node is announced.
pub(crate) fn instance(tag: &str) -> String {
    format!("{tag}.{SERVICE}")
}

fn fields(announcement: &Announcement<'_>) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = [
        ("v", VERSION.to_owned()),
        ("did", announcement.key.id().to_string()),
        ("name", announcement.name.to_owned()),
        ("domain", announcement.domain.to_owned()),
        ("rear", announcement.rear_port.to_string()),
        ("link", announcement.link_port.to_string()),
        ("features", announcement.features.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let signature = signature::sign(announcement.key, &fields);
    fields.insert(signature::FIELD.to_owned(), signature);
    fields
}

/// Reads an announcement.
///
/// # Errors
/// Why it is none.
pub(crate) fn sighting(
    fields: &BTreeMap<String, String>,
    addresses: impl Iterator<Item = IpAddr>,
) -> Result<Sighting, String> {
    let field = |name: &str| fields.get(name).map(String::as_str).ok_or_else(|| format!("it has no field {name}"));
    let port = |name: &str| match field(name)?.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("its field {name} is no port")),
    };
    if field("v")? != VERSION {
        return Err(format!("it has version {:.8}, needed {VERSION}", field("v")?));
    }
    let id: NodeId = field("did")?.parse().map_err(|e| format!("its did: {e}"))?;
    if !signature::holds(&id, fields) {
        return Err(format!("it is not signed by {id}"));
    }
    let mut addresses = plan::addresses(addresses).into_iter();
    let address = addresses.next().ok_or("it has no address that others reach")?;
    // A node of before there were features says nothing about them.
    let features = fields.get("features").map(|text| Features::parse(text)).transpose()?;
    Ok(Sighting {
        source: Source::Multicast,
        id,
        name: field("name")?.to_owned(),
        domain: field("domain")?.to_owned(),
        rear: SocketAddr::new(address, port("rear")?),
        link: Some(SocketAddr::new(address, port("link")?)),
        further: addresses.collect(),
        features,
        offers: None,
    })
}

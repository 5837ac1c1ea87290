//! Multicast DNS (RFC 6762, RFC 6763): nodes on one LAN find each other with no configuration (D3).
//!
//! A node announces the service `_fluidos._udp.local.` with its key, name, domain, ports and features as TXT, signed. It answers the
//! query of a newcomer at once, so nobody waits for the next announcement.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fluidos_identity::{NodeId, NodeKey};
use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;

use crate::{Features, Sighting, Source, plan, signature};

const SERVICE: &str = "_fluidos._udp.local.";
/// How often what is known is asked for again: often enough that a node which answers does not expire ([`crate::plan::EXPIRY`]).
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// The only form of the announcement that is understood.
const VERSION: &str = "1";

/// Why there is no multicast DNS.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS: {0}; --no-mdns does without")]
pub struct Error(#[from] mdns_sd::Error);

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
        tokio::spawn(listen(daemon.clone(), events, heard));
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

/// Passes on what is heard until nobody wants it or the daemon ends. A node that goes on as before is no event for the daemon:
/// asking again tells of all that it still knows.
async fn listen(daemon: ServiceDaemon, mut events: Receiver<ServiceEvent>, heard: mpsc::Sender<Heard>) {
    let mut again = tokio::time::interval(ASK_AGAIN);
    again.reset();
    loop {
        // Losing the race loses nothing: an event stays in its channel.
        let news = tokio::select! {
            event = events.recv_async() => match event {
                Ok(ServiceEvent::ServiceResolved(service)) => read(&service),
                Ok(ServiceEvent::ServiceRemoved(_, instance)) => {
                    Heard::Gone(instance.split('.').next().unwrap_or_default().to_owned())
                }
                Ok(_) => continue,
                Err(_) => return,
            },
            _ = again.tick() => match daemon.browse(SERVICE) {
                Ok(fresh) => {
                    events = fresh;
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "the LAN cannot be asked; it is tried again");
                    continue;
                }
            },
        };
        if heard.send(news).await.is_err() {
            return;
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

fn read(service: &ResolvedService) -> Heard {
    let fields: BTreeMap<String, String> =
        service.txt_properties.iter().map(|p| (p.key().to_owned(), p.val_str().to_owned())).collect();
    let addresses = service.addresses.iter().map(|a| a.to_ip_addr());
    match sighting(&fields, addresses) {
        Ok(sighting) => Heard::Node(sighting),
        Err(why) => Heard::Refused(service.fullname.chars().take(80).collect(), why),
    }
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
    })
}

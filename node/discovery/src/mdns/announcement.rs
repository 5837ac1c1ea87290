//! What a node says of itself on the LAN: the fields of its TXT record, signed, and how they are read. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fluidos_identity::{NodeId, NodeKey};

use crate::{Features, Sighting, Source, plan, signature};

/// The only form of the announcement that is understood.
const VERSION: &str = "1";

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

/// Returns what is announced, with its signature.
pub(crate) fn fields(announcement: &Announcement<'_>) -> BTreeMap<String, String> {
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

/// Fields that their node has signed. Where it is, is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The node's key.
    pub(crate) id: NodeId,
    name: String,
    domain: String,
    rear: u16,
    link: u16,
    features: Option<Features>,
}

/// Reads an announcement.
///
/// # Errors
/// Why it is none.
pub(crate) fn read(fields: &BTreeMap<String, String>) -> Result<Signed, String> {
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
    Ok(Signed {
        id,
        name: field("name")?.to_owned(),
        domain: field("domain")?.to_owned(),
        rear: port("rear")?,
        link: port("link")?,
        // A node of before there were features says nothing about them.
        features: fields.get("features").map(|text| Features::parse(text)).transpose()?,
    })
}

impl Signed {
    /// The sighting of this node at these addresses.
    ///
    /// # Errors
    /// None of them can be reached from elsewhere.
    pub(crate) fn at(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<Sighting, String> {
        let mut addresses = plan::addresses(addresses).into_iter();
        let address = addresses.next().ok_or("it has no address that others reach")?;
        Ok(Sighting {
            source: Source::Multicast,
            id: self.id,
            name: self.name.clone(),
            domain: self.domain.clone(),
            rear: SocketAddr::new(address, self.rear),
            link: Some(SocketAddr::new(address, self.link)),
            further: addresses.collect(),
            features: self.features.clone(),
            offers: None,
        })
    }
}

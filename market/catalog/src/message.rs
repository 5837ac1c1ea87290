//! What is signed: announcements, withdrawals, opinions; and what each may hold.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fluidos_identity::{Envelope, NodeId, NodeKey, Signed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The only form that is understood.
pub const VERSION: u32 = 1;
/// With every field full; one of ours is about 500 bytes.
pub const STATEMENT_BYTES_MAX: usize = 4096;
/// Shorter would be renewed more often than it is read.
pub const LIFETIME_SECONDS_MIN: u32 = 60;
/// Who is silent for a day is gone.
pub const LIFETIME_SECONDS_MAX: u32 = 86_400;
/// Four networks, each with both versions of IP.
const ADDRESSES_MAX: usize = 8;
/// As many as a node tells on the LAN.
const FEATURES_MAX: usize = 16;
/// Keys and values of Kubernetes labels.
const WORD_MAX: usize = 63;
/// A shop window, not the shop: REAR lists the rest.
pub const OFFERS_MAX: usize = 16;
const TEXT_MAX: usize = 64;
/// The longest domain name.
const DOMAIN_MAX: usize = 253;
/// Beyond it a JSON number is not exact everywhere (RFC 7493 §2.2).
const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// Something that a node signs about itself, or in its own name.
pub trait Statement: Serialize + DeserializeOwned {
    /// What the signature is for; one for something else does not fit.
    const PURPOSE: &'static str;
    /// Who must have signed, alone.
    fn author(&self) -> NodeId;
    /// Grows from one statement of an author to the next.
    fn sequence(&self) -> u64;
    /// Says what is wrong with it, if anything.
    ///
    /// # Errors
    /// The observed and the needed.
    fn check(&self) -> Result<(), String>;
}

/// "I am here", for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// [`VERSION`].
    pub version: u32,
    /// Whose.
    pub did: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Whose it says it is.
    pub domain: String,
    /// Where it is: IPs or names of hosts, best first.
    pub addresses: Vec<String>,
    /// Port of REAR, TCP, at each address.
    pub rear_port: u16,
    /// Port of the link, UDP, at each address.
    pub link_port: u16,
    /// What it says of itself, as keys and values of labels.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// What it sells, in short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// Grows with every announcement that says something else.
    pub sequence: u64,
    /// Seconds for which it stands, from its receipt.
    pub lifetime_seconds: u32,
}

/// One kind of goods, as an advertisement. What counts is what REAR lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Type of flavor, such as `K8Slice`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The package and its plan, `OFFER/PLAN`; empty for what is cut as it is wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Quantities as Kubernetes writes them, by resource.
    #[serde(default)]
    pub amounts: BTreeMap<String, String>,
    /// In words, such as `0.02 EUR/hour per cpu`; empty: not told.
    #[serde(default)]
    pub price: String,
    /// The business model: `reserved`, `pay-per-use` or `spot`; empty: not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub billing: String,
    /// Where; empty: not told.
    #[serde(default)]
    pub location: String,
}

/// "I am here no more."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// [`VERSION`].
    pub version: u32,
    /// Whose announcement goes.
    pub did: NodeId,
    /// That of the announcement, or higher.
    pub sequence: u64,
}

/// How one node has fared with another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// [`VERSION`].
    pub version: u32,
    /// Who says so.
    pub author: NodeId,
    /// About whom.
    pub about: NodeId,
    /// 0: nothing was kept; 1000: everything.
    pub value: u16,
    /// How many observations stand behind it.
    pub observations: u32,
    /// Grows with every opinion of this author about this node.
    pub sequence: u64,
}

/// Signs a statement.
///
/// # Errors
/// What is wrong with it.
pub fn seal<T: Statement>(key: &NodeKey, statement: T) -> Result<Signed<T>, String> {
    statement.check()?;
    let mut signed = Signed::new(T::PURPOSE, statement).map_err(|error| error.to_string())?;
    signed.sign(key).map_err(|error| error.to_string())?;
    accept(signed)
}

/// Returns a statement that somebody sent, if its author has signed it and it is sound.
///
/// # Errors
/// What is wrong with it, in words that hold nothing unprintable.
pub fn open<T: Statement>(envelope: &Envelope) -> Result<Signed<T>, String> {
    let refused = |error: fluidos_identity::SignedError| error.to_string().escape_debug().to_string();
    let signed = Signed::<T>::open(envelope, T::PURPOSE).map_err(refused)?;
    signed.value().check()?;
    accept(signed)
}

fn accept<T: Statement>(signed: Signed<T>) -> Result<Signed<T>, String> {
    at_most("bytes", signed.bytes().len(), STATEMENT_BYTES_MAX)?;
    at_most("signatures", signed.signers().count(), 1)?;
    signed.require(&[signed.value().author()]).map_err(|error| error.to_string())?;
    if signed.value().sequence() > SEQUENCE_MAX {
        return Err(format!("sequence {}, needed at most {SEQUENCE_MAX}", signed.value().sequence()));
    }
    Ok(signed)
}

impl Statement for Announcement {
    const PURPOSE: &'static str = "fluidos-catalog-announcement+jws";

    fn author(&self) -> NodeId {
        self.did
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn check(&self) -> Result<(), String> {
        version(self.version)?;
        if self.name.is_empty() || !is_word(&self.name) {
            return Err(format!("name {}: needed a word of at most {WORD_MAX} characters", shown(&self.name)));
        }
        at_most("characters of domain", self.domain.len(), DOMAIN_MAX)?;
        if !self.domain.is_empty() && !is_host(&self.domain) {
            return Err(format!("domain {}: needed a domain", shown(&self.domain)));
        }
        at_most("addresses", self.addresses.len(), ADDRESSES_MAX)?;
        if self.addresses.is_empty() || self.rear_port == 0 || self.link_port == 0 {
            return Err("it has no address or no port, needed one at least".into());
        }
        let odd = |address: &&String| address.parse::<IpAddr>().is_err() && !is_host(address);
        if let Some(address) = self.addresses.iter().find(odd) {
            return Err(format!("address {}: needed an IP or the name of a host", shown(address)));
        }
        at_most("features", self.features.len(), FEATURES_MAX)?;
        if let Some((key, value)) = self.features.iter().find(|(k, v)| k.is_empty() || !is_word(k) || !is_word(v)) {
            return Err(format!("feature {}={}: needed words of labels", shown(key), shown(value)));
        }
        at_most("offers", self.offers.len(), OFFERS_MAX)?;
        self.offers.iter().try_for_each(Offer::check)?;
        if !(LIFETIME_SECONDS_MIN..=LIFETIME_SECONDS_MAX).contains(&self.lifetime_seconds) {
            return Err(format!(
                "lifetimeSeconds {}, needed {LIFETIME_SECONDS_MIN} to {LIFETIME_SECONDS_MAX}",
                self.lifetime_seconds
            ));
        }
        Ok(())
    }
}

impl Offer {
    fn check(&self) -> Result<(), String> {
        at_most("amounts of an offer", self.amounts.len(), FEATURES_MAX)?;
        let texts = self.amounts.iter().flat_map(|(key, value)| [key, value]);
        let mut texts = texts.chain([&self.type_, &self.name, &self.price, &self.billing, &self.location]);
        match texts.find(|text| text.chars().count() > TEXT_MAX || text.chars().any(char::is_control)) {
            Some(text) => Err(format!("text of an offer {}: needed at most {TEXT_MAX} characters", shown(text))),
            None => Ok(()),
        }
    }
}

impl Statement for Withdrawal {
    const PURPOSE: &'static str = "fluidos-catalog-withdrawal+jws";

    fn author(&self) -> NodeId {
        self.did
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn check(&self) -> Result<(), String> {
        version(self.version)
    }
}

impl Statement for Feedback {
    const PURPOSE: &'static str = "fluidos-catalog-feedback+jws";

    fn author(&self) -> NodeId {
        self.author
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn check(&self) -> Result<(), String> {
        version(self.version)?;
        if self.author == self.about {
            return Err("the author speaks about itself, needed another node".into());
        }
        at_most("of 1000", self.value.into(), 1000)?;
        if self.observations == 0 {
            return Err("0 observations, needed one at least".into());
        }
        Ok(())
    }
}

fn version(observed: u32) -> Result<(), String> {
    if observed == VERSION { Ok(()) } else { Err(format!("version {observed}, needed {VERSION}")) }
}

fn at_most(what: &str, observed: usize, max: usize) -> Result<(), String> {
    if observed > max { Err(format!("{observed} {what}, at most {max}")) } else { Ok(()) }
}

/// Whether it can be the value of a label: empty, or letters and digits at both ends.
pub(crate) fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= WORD_MAX
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_host(text: &str) -> bool {
    text.len() <= DOMAIN_MAX && text.split('.').all(|label| !label.is_empty() && !label.contains('_') && is_word(label))
}

/// The beginning of a stranger's text, harmless.
fn shown(text: &str) -> String {
    text.chars().take(WORD_MAX).collect::<String>().escape_debug().to_string()
}

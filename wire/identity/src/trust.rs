//! From credentials to what is proven *for us*: owner, domain and features of a peer, each with its reason.
//!
//! ```text
//!   peer's key (TLS) ─┐
//!   credentials ──────┼── proven(…, now) ──▶ owner    a trusted owner says "it is mine"
//!   trusted issuers ──┘                      domain   that owner has this domain: we were told, or its did:web says so
//!                                            features a trusted certifier or attester says so
//! ```
//! A peer may type any domain and show credentials of anybody, itself included: they prove nothing until the issuer is one
//! whom *this* owner trusts, for this. Nothing here gives a right; a policy decides with it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{CredentialKind, DidWeb, DidWebError, EvidenceLevel, NodeId, VerifiedCredential};

/// Credentials of one peer that are looked at: one of its owner and a few of certifiers. Those beyond are passed over.
pub const PEER_CREDENTIALS_MAX: usize = 32;

/// Whom this owner trusts, and for what.
#[derive(Clone, Default, Debug)]
pub struct TrustedIssuers {
    owners: BTreeMap<NodeId, BTreeSet<String>>,
    certifiers: BTreeSet<NodeId>,
    attesters: BTreeSet<NodeId>,
    documents: BTreeMap<(NodeId, String), Timestamp>,
}

/// One proven thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact<T> {
    /// What is proven.
    pub value: T,
    /// Whose word it is.
    pub by: NodeId,
    /// When it must be proven anew.
    pub until: Timestamp,
    /// Why it is believed, in words.
    pub reason: String,
}

/// A feature that somebody whom we trust vouches for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Feature {
    /// Such as `certification`.
    pub name: String,
    /// Such as `ISO 27001`.
    pub value: String,
    /// How well it is known.
    pub level: EvidenceLevel,
}

/// What is known about a peer beyond its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// Whose node it is.
    pub owner: Option<Fact<NodeId>>,
    /// The domain of that owner; without an owner there is none.
    pub domain: Option<Fact<String>>,
    /// Its features, in order of name, value and level.
    pub features: Vec<Fact<Feature>>,
    /// The domain that its owner claims, of which nobody has told us whose it is: that domain's `did:web` document would say.
    pub asks_web: Option<(NodeId, String)>,
    /// Why the rest counts for nothing, in words.
    pub passed_over: Vec<String>,
}

impl TrustedIssuers {
    /// Trusts an owner to say which nodes are its own. Its domains are another matter.
    pub fn trust_owner(&mut self, owner: NodeId) {
        self.owners.entry(owner).or_default();
    }

    /// Trusts an owner and knows that this domain is its own.
    pub fn trust_owner_of(&mut self, owner: NodeId, domain: impl Into<String>) {
        self.owners.entry(owner).or_default().insert(domain.into());
    }

    /// Trusts somebody to certify features.
    pub fn trust_certifier(&mut self, certifier: NodeId) {
        self.certifiers.insert(certifier);
    }

    /// Trusts somebody to verify what hardware attests, and to say so in a credential (RFC 9334 §5.1: the verifier of the
    /// passport model).
    pub fn trust_attester(&mut self, attester: NodeId) {
        self.attesters.insert(attester);
    }

    /// Takes note of a domain's `did:web` document that names a key. It was fetched over HTTPS from
    /// [`DidWeb::document_url`] by the caller, who says how long it is good for.
    ///
    /// # Errors
    /// [`DidWebError`] if the document does not name the key; then nothing is noted.
    pub fn learn_document(
        &mut self,
        web: &DidWeb,
        document: &[u8],
        key: NodeId,
        until: Timestamp,
    ) -> Result<(), DidWebError> {
        web.check_document(document, &key)?;
        self.documents.insert((key, web.domain().to_owned()), until);
        Ok(())
    }

    /// Says whether this owner is trusted.
    pub fn is_owner(&self, did: &NodeId) -> bool {
        self.owners.contains_key(did)
    }

    /// Returns what somebody's word about a feature is worth, if anything.
    pub fn level_of(&self, issuer: &NodeId) -> Option<EvidenceLevel> {
        if self.attesters.contains(issuer) {
            return Some(EvidenceLevel::Attested);
        }
        self.certifiers.contains(issuer).then_some(EvidenceLevel::Audited)
    }

    /// Returns why a domain is an owner's, and until when that is known.
    fn domain_of(&self, owner: &NodeId, domain: &str, now: Timestamp) -> Option<(String, Timestamp)> {
        if self.owners.get(owner).is_some_and(|domains| domains.contains(domain)) {
            return Some((format!("{owner} is trusted for {domain} here"), Timestamp::MAX));
        }
        let until = self.documents.get(&(*owner, domain.to_owned())).copied().filter(|until| *until > now)?;
        Some((format!("the document of did:web:{domain} names {owner}"), until))
    }
}

/// Returns what is proven about the peer that has shown this key and these credentials.
///
/// *Guarantees*: the order of the credentials does not matter, as long as there are no more than [`PEER_CREDENTIALS_MAX`].
pub fn proven(peer: &NodeId, credentials: &[VerifiedCredential], trusted: &TrustedIssuers, now: Timestamp) -> Proven {
    let mut passed_over = Vec::new();
    let mut pass = |reason: String| passed_over.push(reason);
    if credentials.len() > PEER_CREDENTIALS_MAX {
        pass(format!(
            "{} credentials beyond the first {PEER_CREDENTIALS_MAX}",
            credentials.len() - PEER_CREDENTIALS_MAX
        ));
    }
    let (mut owned, mut features) = (Vec::new(), BTreeMap::new());
    for credential in credentials.iter().take(PEER_CREDENTIALS_MAX) {
        let said = format!("{} of {}", credential.kind(), credential.issuer());
        if credential.subject() != *peer {
            pass(format!("{said}: about {}, not about this peer", credential.subject()));
            continue;
        }
        if let Err(error) = credential.counts_at(now) {
            pass(format!("{said}: {error}"));
            continue;
        }
        match (credential.kind(), trusted.level_of(&credential.issuer())) {
            (CredentialKind::NodeOwnership, _) if trusted.is_owner(&credential.issuer()) => owned.push(credential),
            (CredentialKind::Feature, Some(level)) => collect(credential, level, &mut features),
            _ => pass(format!("{said}: its issuer is not trusted for this")),
        }
    }
    let (owner, domain, asks_web) = owner_and_domain(&owned, trusted, now, &mut pass);
    let mut features: Vec<Fact<Feature>> = features.into_values().collect();
    features.sort_by(|a, b| a.value.cmp(&b.value));
    passed_over.sort();
    Proven { owner, domain, features, asks_web, passed_over }
}

/// Notes what one credential says; of several about one thing the best, and then the one that lasts longest, is kept.
fn collect(
    credential: &VerifiedCredential,
    level: EvidenceLevel,
    features: &mut BTreeMap<(String, String), Fact<Feature>>,
) {
    let (by, until) = (credential.issuer(), credential.counts_until());
    for (name, value) in credential.claims() {
        let reason = format!("{level} by {by}, who is trusted for it here");
        let feature = Feature { name: name.clone(), value: value.clone(), level };
        let fact = Fact { value: feature, by, until, reason };
        let rank = |fact: &Fact<Feature>| (fact.value.level, fact.until, fact.by);
        match features.get(&(name.clone(), value.clone())) {
            Some(known) if rank(known) >= rank(&fact) => {}
            _ => drop(features.insert((name.clone(), value.clone()), fact)),
        }
    }
}

/// The owner, its domain, and the domain that is still to be asked.
type Ownership = (Option<Fact<NodeId>>, Option<Fact<String>>, Option<(NodeId, String)>);

/// One owner, or none: a node that two owners call their own is nobody's until they agree.
fn owner_and_domain(
    owned: &[&VerifiedCredential],
    trusted: &TrustedIssuers,
    now: Timestamp,
    pass: &mut dyn FnMut(String),
) -> Ownership {
    let owners: BTreeSet<NodeId> = owned.iter().map(|credential| credential.issuer()).collect();
    let Some(owner) = owners.first().copied() else { return (None, None, None) };
    if owners.len() > 1 {
        let names: Vec<String> = owners.iter().map(NodeId::to_string).collect();
        pass(format!("NodeOwnership: {} trusted owners claim it: {}", owners.len(), names.join(", ")));
        return (None, None, None);
    }
    let until = owned.iter().map(|credential| credential.counts_until()).max().unwrap_or(now);
    let reason = format!("{owner}, who is trusted as an owner here, vouches for it");
    let fact = Fact { value: owner, by: owner, until, reason };
    // The newest word of the owner counts for the domain.
    let newest = owned.iter().max_by_key(|credential| (credential.valid_from(), credential.text()));
    let claimed = newest.and_then(|credential| Some((credential, credential.claims().get("domain")?)));
    let domain = claimed.and_then(|(credential, domain)| match trusted.domain_of(&owner, domain, now) {
        Some((reason, known_until)) => {
            let until = known_until.min(credential.counts_until());
            Some(Fact { value: domain.clone(), by: owner, until, reason })
        }
        None => {
            pass(format!("domain {domain}: nothing says that it is {owner}'s"));
            None
        }
    });
    let told = |domain: &String| trusted.owners.get(&owner).is_some_and(|domains| domains.contains(domain));
    let asks_web =
        claimed.map(|(_, domain)| domain).filter(|domain| !told(domain)).map(|domain| (owner, domain.clone()));
    (Some(fact), domain, asks_web)
}

//! The books of all contracts: opened, loaded, brought forward by a receipt, written.
//!
//! One account is changed by one task at a time (a lock each); nobody holds it while a peer is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{Envelope, NodeId, Signed, Speakers};
use fluidos_model::kinds::{
    Account, AccountPhase, AccountSpec, AccountStatus, Configuration, Contract, Direction, FlavorType, SignedTerms,
    names,
};
use fluidos_model::market::{Amounts, Conditions};
use fluidos_model::receipt::{Basis, Closed, Meter};
use fluidos_model::service::size_of;
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::{Mutex, Notify};

use crate::parties::{self, Parties};
use crate::{Error, Options, Traffic, events, keeper};

/// Live contracts are at most 1,024 of a pool at each side; the others wait for their last receipts.
pub(crate) const ACCOUNTS_MAX: usize = 4096;
/// A killed process loses so much of its own measure: less than one per cent of an hour.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// Accounts of contracts that are over are changed by this room alone; one more try is for a person's edit.
const TRIES_MAX: u32 = 4;
/// Who sells writes the terms, and who buys has the contract within the minute of a hold. More is a clock.
const CLOCK_APART: SignedDuration = SignedDuration::from_secs(120);

/// The accounts of a node.
pub struct Accounts {
    pub(crate) options: Options,
    pub(crate) kept: Mutex<BTreeMap<String, Arc<Mutex<Kept>>>>,
    /// Something is due.
    pub(crate) due: Notify,
}

/// One account.
pub(crate) struct Kept {
    pub object: Account,
    pub terms: Signed<rear::ContractTerms>,
    pub meter: Meter,
    /// Without what changes with each receipt.
    basis: Basis,
    speakers: Speakers,
    written: Instant,
    /// Counters at the last look of this process; `None` before the first.
    pub traffic: Option<Traffic>,
    /// CPU of each pod at the last look; `None` before the first.
    pub cpu: Option<BTreeMap<String, u64>>,
    /// Words about payments that the other party has not taken yet.
    pub tell: bool,
    /// An invoice may be missing: when it is tried again.
    pub uninvoiced: Option<Instant>,
}

impl Kept {
    pub fn name(&self) -> &str {
        &self.object.spec.contract
    }

    pub fn status(&self) -> AccountStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// Where it stands.
    pub fn phase(&self) -> AccountPhase {
        self.object.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    pub fn sells(&self) -> bool {
        self.object.spec.direction == Direction::Sold
    }

    /// The keys of both parties.
    pub fn parties(&self) -> Parties {
        Parties::of(self.terms.value(), self.object.status.as_ref())
    }

    /// The key that speaks for the other party now.
    pub fn peer(&self) -> NodeId {
        let terms = self.terms.value();
        let named = if self.sells() { terms.buyer } else { terms.seller };
        let parties = self.parties();
        parties.keys(!self.sells()).last().map_or(named, |last| self.speakers.current(last))
    }

    /// Notes whose keys were handed over to whom; returns whether that is new.
    pub fn note_keys(&mut self, options: &Options) -> bool {
        let own = (&options.keys, options.key.id());
        let status = self.object.status.get_or_insert_default();
        parties::note(status, self.terms.value(), &options.speakers, own)
    }

    /// Says whether it is of a service, which has no node.
    pub fn is_service(&self) -> bool {
        self.terms.value().flavor_type == rear::FlavorType::Service.as_str()
    }

    /// The contract, and where its chain stands.
    pub fn basis(&self) -> Basis {
        match &self.object.status {
            Some(status) => basis_of(&self.basis, status),
            None => basis_of(&self.basis, &AccountStatus::default()),
        }
    }

    /// What was bought, and on which conditions.
    pub fn bought(&self) -> (&Amounts, &Conditions) {
        (&self.basis.amounts, &self.basis.conditions)
    }

    /// When the contract ends by itself.
    pub fn until(&self) -> Option<Timestamp> {
        self.basis.until
    }

    /// The interval whose receipt comes next, if this party has measured it to its end.
    pub fn next(&self) -> Option<&Closed> {
        let from = self.basis().from;
        self.meter.closed.iter().find(|closed| closed.from == from)
    }

    /// Whether something is to be settled with the other party.
    pub fn is_due(&self) -> bool {
        match self.phase() {
            AccountPhase::Open | AccountPhase::Closing => {
                self.meter.ended || !self.meter.closed.is_empty() || self.tell
            }
            AccountPhase::Settled => self.tell,
            AccountPhase::Unsettled => false,
        }
    }

    /// This node's clock, as the seller's was when the contract was made.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        let ahead = self.object.status.as_ref().map_or(0, |status| status.clock_ahead_seconds);
        let ahead = SignedDuration::from_secs(ahead);
        now.checked_add(ahead).unwrap_or(now)
    }

    /// Takes note of a renewal of the contract, which ends later then; says whether it is new. What is not signed as it must be
    /// changes nothing.
    pub fn renew(&mut self, renewal: &SignedTerms) -> bool {
        let known = self.object.status.as_ref().and_then(|status| status.renewal.as_ref());
        if known == Some(renewal) {
            return false;
        }
        let until = renewed_until(&self.terms, self.sells(), &self.parties(), Some(renewal));
        if until.is_none() || until <= self.basis.until {
            return false;
        }
        self.basis.until = until;
        self.object.status.get_or_insert_default().renewal = Some(renewal.clone());
        true
    }

    pub fn must_write(&self) -> bool {
        self.written.elapsed() >= WRITE_EVERY
    }
}

impl Accounts {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, kept: Mutex::default(), due: Notify::new() }
    }

    /// Says whether a key is one that this node has, or had.
    pub(crate) fn is_own(&self, key: &NodeId) -> bool {
        self.options.keys.contains(key)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.options.client.clone(), names::NAMESPACE)
    }

    /// Returns the account of a contract.
    pub(crate) async fn get(&self, contract: &str) -> Option<Arc<Mutex<Kept>>> {
        self.kept.lock().await.get(contract).cloned()
    }

    /// Returns all accounts, by name.
    pub(crate) async fn all(&self) -> Vec<(String, Arc<Mutex<Kept>>)> {
        self.kept.lock().await.iter().map(|(name, kept)| (name.clone(), kept.clone())).collect()
    }

    /// Loads what an earlier process has written.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        let objects = self.api::<Account>().list(&ListParams::default()).await.map_err(Error::api("list accounts"))?;
        for object in objects.items {
            let name = object.name_any();
            match self.kept_of(object) {
                Ok(mut kept) => {
                    // One object that cannot be read is the matter of its account: all others go on, and so does its meter.
                    if let Err(error) = self.catch_up(&mut kept).await {
                        tracing::warn!(account = name, %error, "an account stands behind its receipts");
                        keeper::complain(self, &mut kept, &error).await;
                    }
                    self.kept.lock().await.insert(name, Arc::new(Mutex::new(kept)));
                }
                Err(error) => {
                    tracing::warn!(account = name, %error, "an account that cannot be read is left as it is");
                    let told = format!("its account cannot be read, and is left as it is: {error}");
                    events::warn(&self.options.client, &name, "AccountWrong", Some("account-unread"), &told).await;
                }
            }
        }
        Ok(())
    }

    /// Makes up what a killed process may have left undone.
    async fn catch_up(&self, kept: &mut Kept) -> Result<(), Error> {
        kept.tell = true;
        // A receipt is written before it is counted: what was written last is counted now.
        while let Some(receipt) = self.receipt(kept, kept.status().number + 1).await? {
            self.count(kept, &receipt).await?;
        }
        kept.uninvoiced = Some(Instant::now());
        self.try_invoice(kept).await;
        kept.tell = self.has_told(kept.name()).await?;
        Ok(())
    }

    /// Opens the account of a contract that both have signed; one that is there stays.
    pub(crate) async fn open(&self, contract: &Contract, now: Timestamp) -> Result<(), Error> {
        let name = contract.name_any();
        let mut all = self.kept.lock().await;
        if all.contains_key(&name) {
            return Ok(());
        }
        let refused = |reason: String| Error::Contract { contract: name.clone(), reason };
        if all.len() >= ACCOUNTS_MAX {
            return Err(refused(format!("there are {ACCOUNTS_MAX} accounts, which is the most that are kept")));
        }
        let signed_terms = contract.spec.signed_terms.clone().ok_or_else(|| refused("nobody has signed it".into()))?;
        let terms = opened(&signed_terms)?;
        let (buyer, seller) = (terms.value().buyer, terms.value().seller);
        let (direction, peer, said) = match &self.options.keys {
            own if own.contains(&seller) => (Direction::Sold, buyer, &contract.spec.buyer.ip),
            own if own.contains(&buyer) => (Direction::Bought, seller, &contract.spec.seller.ip),
            _ => return Err(refused("it is between others".into())),
        };
        let spec = AccountSpec {
            contract: name.clone(),
            direction,
            peer: peer.to_string(),
            peer_address: said.chars().take(64).collect(),
            signed_terms,
        };
        let mut object = Account::new(&name, spec);
        object.metadata.namespace = Some(names::NAMESPACE.into());
        object.labels_mut().insert(names::LABEL_CONTRACT.into(), name.clone());
        let api = self.api::<Account>();
        let object = match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await,
            other => other,
        };
        let mut kept = self.kept_of(object.map_err(Error::api(format!("open account {name}")))?)?;
        if kept.object.status.is_none() {
            let made = contract.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0);
            let apart = kept.basis.issued.duration_since(made);
            // Terms of long ago are no sign of a slow clock: the contract may have been taken back.
            if direction == Direction::Bought && apart > CLOCK_APART {
                let status = AccountStatus { clock_ahead_seconds: apart.as_secs(), ..AccountStatus::default() };
                kept.object.status = Some(status);
                self.write(&mut kept).await?;
            }
            // Of what begins now nothing is measured yet: its meter is written with the first thing that it measures.
        }
        all.insert(name, Arc::new(Mutex::new(kept)));
        Ok(())
    }

    fn kept_of(&self, object: Account) -> Result<Kept, Error> {
        let (terms, mut basis) = contract(&object)?;
        let sells = object.spec.direction == Direction::Sold;
        let renewal = object.status.as_ref().and_then(|status| status.renewal.as_ref());
        let parties = Parties::of(terms.value(), object.status.as_ref());
        basis.until = renewed_until(&terms, sells, &parties, renewal).or(basis.until);
        let meter = object.status.as_ref().and_then(|status| status.meter.clone()).unwrap_or(Meter::new(basis.issued));
        let written = Instant::now();
        let speakers = self.options.speakers.clone();
        let (traffic, cpu, tell, uninvoiced) = (None, None, false, None);
        Ok(Kept { object, terms, meter, basis, speakers, written, traffic, cpu, tell, uninvoiced })
    }

    /// Writes the account with its meter.
    pub(crate) async fn write(&self, kept: &mut Kept) -> Result<(), Error> {
        let api = self.api::<Account>();
        let name = kept.name().to_owned();
        kept.object.status.get_or_insert_default().meter = Some(kept.meter.clone());
        for _ in 0..TRIES_MAX {
            match api.replace_status(&name, &PostParams::default(), &kept.object).await {
                Ok(object) => {
                    kept.object.metadata = object.metadata;
                    kept.written = Instant::now();
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let known = api.get(&name).await.map_err(Error::api(format!("read account {name}")))?;
                    kept.object.metadata = known.metadata;
                }
                Err(error) => return Err(Error::api(format!("write account {name}"))(error)),
            }
        }
        Err(Error::Contract { contract: name, reason: "others keep changing its account".into() })
    }
}

/// The contract as it was before its first receipt, brought to where the chain of its account stands.
pub(crate) fn basis_of(first: &Basis, status: &AccountStatus) -> Basis {
    let previous = if status.number == 0 { first.terms_digest.clone() } else { status.digest.clone() };
    let from = status.until.as_ref().and_then(|until| until.parse().ok()).unwrap_or(first.issued);
    Basis { number: status.number, previous, from, ..first.clone() }
}

/// Returns the terms of an account, and what is known of its contract before the first receipt.
pub(crate) fn contract(account: &Account) -> Result<(Signed<rear::ContractTerms>, Basis), Error> {
    let refused = |reason: String| Error::Contract { contract: account.spec.contract.clone(), reason };
    let terms = opened(&account.spec.signed_terms)?;
    let value = terms.value();
    // Older terms of a service do not say its size: what is counted of it is how long it was there.
    let amounts = match value.flavor_type == rear::FlavorType::Service.as_str() {
        true => {
            let service = rear::ServiceTerms::of(value).map_err(|error| refused(error.to_string()))?;
            service.size.as_ref().map(size_of).transpose().map_err(refused)?.unwrap_or_default()
        }
        false => {
            let configuration = Configuration { flavor_type: FlavorType::K8Slice, data: value.configuration.clone() };
            configuration.amounts().map_err(|error| refused(error.to_string()))?
        }
    };
    let time = |text: &str| text.parse::<Timestamp>().map_err(|error| refused(format!("{text:?}: {error}")));
    let issued = whole(time(&value.issued)?);
    let basis = Basis {
        contract_id: value.contract_id.clone(),
        terms_digest: terms.digest(),
        buyer: value.buyer.to_string(),
        seller: value.seller.to_string(),
        amounts,
        conditions: Conditions::read(value.conditions.as_ref()).map_err(|error| refused(error.to_string()))?,
        issued,
        until: value.until.as_deref().map(time).transpose()?.map(whole),
        number: 0,
        previous: terms.digest(),
        from: issued,
    };
    Ok((terms, basis))
}

/// When a contract ends after a renewal. A seller needs both signatures to it; what a buyer has signed may have been signed by its
/// seller, and it owes what was served until then.
fn renewed_until(
    terms: &Signed<rear::ContractTerms>,
    sells: bool,
    parties: &Parties,
    renewal: Option<&SignedTerms>,
) -> Option<Timestamp> {
    let renewal = rear::open_renewal(&envelope(renewal?)).ok()?;
    rear::check_renewal(&renewal, terms, &[]).ok()?;
    parties::require_one(&renewal, parties.keys(false)).ok()?;
    if sells {
        parties::require_one(&renewal, parties.keys(true)).ok()?;
    }
    renewal.value().times().ok().map(|(_, until)| whole(until))
}

/// Terms that both have signed.
fn opened(signed: &SignedTerms) -> Result<Signed<rear::ContractTerms>, Error> {
    let terms = Signed::<rear::ContractTerms>::open(&envelope(signed), rear::CONTRACT_PURPOSE)?;
    terms.require(&[terms.value().buyer, terms.value().seller])?;
    Ok(terms)
}

pub(crate) fn envelope(signed: &SignedTerms) -> Envelope {
    let SignedTerms { purpose, payload, signatures } = signed.clone();
    Envelope { purpose, payload, signatures }
}

pub(crate) fn signed_terms(envelope: &Envelope) -> SignedTerms {
    let Envelope { purpose, payload, signatures } = envelope.clone();
    SignedTerms { purpose, payload, signatures }
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

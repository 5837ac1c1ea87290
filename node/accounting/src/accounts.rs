//! The books of all contracts: opened, loaded, brought forward by a receipt, written.
//!
//! One account is changed by one task at a time (a lock each); nobody holds it while a peer is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::{Envelope, NodeId, Signed};
use fluidos_model::kinds::{
    Account, AccountPhase, AccountSpec, AccountStatus, Configuration, Contract, Direction, FlavorType, Receipt,
    ReceiptSpec, SignedTerms, names,
};
use fluidos_model::market::{Amounts, Conditions, MeasuredBy};
use fluidos_model::receipt::{self, Basis, Bill, Closed, Meter, RECEIPT_PURPOSE};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::{Mutex, Notify};

use crate::{Error, Options, Traffic, keeper};

/// Live contracts are at most 1,024 of a pool at each side; the others wait for their last receipts.
pub(crate) const ACCOUNTS_MAX: usize = 4096;
/// Beyond so many, the oldest that are settled go with their receipts; their invoices stay. The other half is for what runs.
const FORGET_BEYOND: usize = ACCOUNTS_MAX / 2;
/// A killed process loses so much of its own measure: less than one per cent of an hour.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// Accounts of contracts that are over are changed by this room alone; one more try is for a person's edit.
const TRIES_MAX: u32 = 4;
/// Who sells writes the terms, and who buys has the contract within the minute of a hold. More is a clock.
const CLOCK_APART: SignedDuration = SignedDuration::from_secs(120);

/// The accounts of a node.
pub struct Accounts {
    pub(crate) options: Options,
    kept: Mutex<BTreeMap<String, Arc<Mutex<Kept>>>>,
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

    pub fn sells(&self) -> bool {
        self.object.spec.direction == Direction::Sold
    }

    pub fn peer(&self) -> NodeId {
        let terms = self.terms.value();
        if self.sells() { terms.buyer } else { terms.seller }
    }

    /// Says whether it is of a service, which has no node.
    pub fn is_service(&self) -> bool {
        self.terms.value().flavor_type == rear::FlavorType::Service.as_str()
    }

    /// The contract, and where its chain stands.
    pub fn basis(&self) -> Basis {
        let status = self.status();
        let previous = if status.number == 0 { self.basis.terms_digest.clone() } else { status.digest };
        let from = status.until.as_ref().and_then(|until| until.parse().ok()).unwrap_or(self.basis.issued);
        Basis { number: status.number, previous, from, ..self.basis.clone() }
    }

    /// The interval whose receipt comes next, if this party has measured it to its end.
    pub fn next(&self) -> Option<&Closed> {
        let from = self.basis().from;
        self.meter.closed.iter().find(|closed| closed.from == from)
    }

    /// Whether something is to be settled with the other party.
    pub fn is_due(&self) -> bool {
        match self.status().phase {
            AccountPhase::Open | AccountPhase::Closing => {
                self.meter.ended || !self.meter.closed.is_empty() || self.tell
            }
            AccountPhase::Settled => self.tell,
            AccountPhase::Unsettled => false,
        }
    }

    /// This node's clock, as the seller's was when the contract was made.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.status().clock_ahead_seconds);
        now.checked_add(ahead).unwrap_or(now)
    }

    pub fn must_write(&self) -> bool {
        self.written.elapsed() >= WRITE_EVERY
    }
}

impl Accounts {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, kept: Mutex::default(), due: Notify::new() }
    }

    /// Lets the oldest accounts go that are settled and have nothing more to say, if there are many.
    pub(crate) async fn forget_oldest(&self) -> Result<(), Error> {
        let mut all = self.kept.lock().await;
        if all.len() <= FORGET_BEYOND {
            return Ok(());
        }
        let mut over = Vec::new();
        for (name, kept) in all.iter() {
            // One that is in use is not the oldest.
            let Ok(kept) = kept.try_lock() else { continue };
            if matches!(kept.status().phase, AccountPhase::Settled | AccountPhase::Unsettled)
                && !kept.tell
                && kept.uninvoiced.is_none()
            {
                over.push((kept.object.metadata.creation_timestamp.as_ref().map(|at| at.0), name.clone()));
            }
        }
        over.sort();
        let many = all.len() - FORGET_BEYOND;
        for (_, name) in over.into_iter().take(many) {
            let of_contract = ListParams::default().labels(&format!("{}={name}", names::LABEL_CONTRACT));
            let receipts = self.api::<Receipt>().delete_collection(&DeleteParams::default(), &of_contract).await;
            drop(receipts.map_err(Error::api(format!("delete the receipts of {name}")))?);
            match self.api::<Account>().delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.map_err(Error::api(format!("delete account {name}")))?),
            }
            all.remove(&name);
        }
        Ok(())
    }

    pub(crate) fn own(&self) -> NodeId {
        self.options.key.id()
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
            match Self::kept_of(object) {
                Ok(mut kept) => {
                    // One object that cannot be read is the matter of its account: all others go on, and so does its meter.
                    if let Err(error) = self.catch_up(&mut kept).await {
                        tracing::warn!(account = name, %error, "an account stands behind its receipts");
                        keeper::complain(self, &mut kept, &error).await;
                    }
                    self.kept.lock().await.insert(name, Arc::new(Mutex::new(kept)));
                }
                Err(error) => tracing::warn!(account = name, %error, "an account that cannot be read is left as it is"),
            }
        }
        Ok(())
    }

    /// Makes up what a killed process may have left undone.
    async fn catch_up(&self, kept: &mut Kept) -> Result<(), Error> {
        kept.tell = true;
        // A receipt is written before it is counted: what was written last is counted now.
        while let Some(receipt) = self.receipt(kept.name(), kept.status().number + 1).await? {
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
        let (direction, peer, said) = match self.own() {
            own if own == seller => (Direction::Sold, buyer, &contract.spec.buyer.ip),
            own if own == buyer => (Direction::Bought, seller, &contract.spec.seller.ip),
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
        let mut kept = Self::kept_of(object.map_err(Error::api(format!("open account {name}")))?)?;
        if kept.object.status.is_none() {
            let mut status = AccountStatus::default();
            let made = contract.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0);
            let apart = kept.basis.issued.duration_since(made);
            // Terms of long ago are no sign of a slow clock: the contract may have been taken back.
            if direction == Direction::Bought && apart > CLOCK_APART {
                status.clock_ahead_seconds = apart.as_secs();
            }
            kept.object.status = Some(status);
            self.write(&mut kept).await?;
        }
        all.insert(name, Arc::new(Mutex::new(kept)));
        Ok(())
    }

    fn kept_of(object: Account) -> Result<Kept, Error> {
        let (terms, basis) = contract(&object)?;
        let meter = object.status.as_ref().and_then(|status| status.meter.clone()).unwrap_or(Meter::new(basis.issued));
        let written = Instant::now();
        Ok(Kept { object, terms, meter, basis, written, traffic: None, cpu: None, tell: false, uninvoiced: None })
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

    /// Returns a receipt that is kept, with its signatures verified.
    pub(crate) async fn receipt(&self, contract: &str, number: u64) -> Result<Option<Signed<receipt::Receipt>>, Error> {
        let name = names::receipt(contract, number);
        let object = self.api::<Receipt>().get_opt(&name).await.map_err(Error::api(format!("read {name}")))?;
        object.map(|object| signed_receipt(&object)).transpose()
    }

    /// Returns the receipts of a contract that are kept, with their digests, in the order of the chain.
    pub(crate) async fn receipts_of(&self, contract: &str) -> Result<Vec<(receipt::Receipt, String)>, Error> {
        let selected = ListParams::default().labels(&format!("{}={contract}", names::LABEL_CONTRACT));
        let objects = self.api::<Receipt>().list(&selected).await.map_err(Error::api("list receipts"))?;
        let read = |object: Receipt| -> Result<_, Error> {
            let signed = signed_receipt(&object)?;
            Ok((signed.value().clone(), signed.digest()))
        };
        let mut receipts = objects.items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        receipts.sort_by_key(|(receipt, _)| receipt.number);
        Ok(receipts)
    }

    /// Keeps a receipt that both have signed: the next of the chain. The same again changes nothing.
    pub(crate) async fn keep(&self, kept: &mut Kept, signed: &Signed<receipt::Receipt>) -> Result<(), Error> {
        let terms = kept.terms.value();
        signed.require(&[terms.buyer, terms.seller])?;
        receipt::check_next(&kept.basis(), signed.value())?;
        let object = object_of(kept.name(), signed);
        let name = object.name_any();
        match self.api::<Receipt>().create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let number = signed.value().number;
                let known = self.receipt(kept.name(), number).await?;
                if known.as_ref().map(Signed::digest) != Some(signed.digest()) {
                    let reason = format!("another receipt {number} is signed by both already");
                    return Err(Error::Fork { contract: kept.name().into(), reason });
                }
            }
            other => drop(other.map_err(Error::api(format!("write {name}")))?),
        }
        self.count(kept, signed).await?;
        self.try_invoice(kept).await;
        Ok(())
    }

    /// Counts a receipt that is written.
    async fn count(&self, kept: &mut Kept, signed: &Signed<receipt::Receipt>) -> Result<(), Error> {
        let receipt = signed.value();
        receipt::check_next(&kept.basis(), receipt)?;
        let status = kept.object.status.get_or_insert_default();
        (status.number, status.digest) = (receipt.number, signed.digest());
        status.until = Some(receipt.until.to_string());
        status.served_seconds += receipt.served(MeasuredBy::Both);
        status.disputed += u64::from(receipt.is_disputed());
        (status.message, status.waiting_since) = (String::new(), None);
        if receipt.end.is_some() {
            status.phase = AccountPhase::Settled;
        }
        kept.meter.settled(receipt.until, receipt.end.is_some());
        self.write(kept).await
    }
}

/// Returns the terms of an account, and what is known of its contract before the first receipt.
fn contract(account: &Account) -> Result<(Signed<rear::ContractTerms>, Basis), Error> {
    let refused = |reason: String| Error::Contract { contract: account.spec.contract.clone(), reason };
    let terms = opened(&account.spec.signed_terms)?;
    let value = terms.value();
    // The terms of a service do not say its size: what is counted of it is how long it was there.
    let amounts = match value.flavor_type == rear::FlavorType::Service.as_str() {
        true => Amounts::default(),
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

/// Returns what a month of an account comes to, from the receipts that are kept: of a month that runs, an estimate.
///
/// # Errors
/// [`Error`] if a receipt or the contract cannot be read, or a receipt is missing.
pub fn bill(account: &Account, receipts: &[Receipt], month: Timestamp) -> Result<Bill, Error> {
    let (terms, basis) = contract(account)?;
    let mut of_contract = Vec::new();
    for object in receipts.iter().filter(|object| object.spec.contract == account.spec.contract) {
        let signed = signed_receipt(object)?;
        signed.require(&[terms.value().buyer, terms.value().seller])?;
        of_contract.push((signed.value().clone(), signed.digest()));
    }
    of_contract.sort_by_key(|(receipt, _)| receipt.number);
    Ok(receipt::invoice(&basis, &terms.value().price, month, &of_contract)?)
}

/// Returns a receipt with its signatures, which hold.
///
/// # Errors
/// [`Error::Signed`].
pub fn signed_receipt(object: &Receipt) -> Result<Signed<receipt::Receipt>, Error> {
    Ok(Signed::open(&envelope(&object.spec.signed), RECEIPT_PURPOSE)?)
}

fn object_of(contract: &str, signed: &Signed<receipt::Receipt>) -> Receipt {
    let receipt = signed.value();
    let spec = ReceiptSpec {
        contract: contract.into(),
        number: receipt.number,
        from: receipt.from.to_string(),
        until: receipt.until.to_string(),
        served_seconds: receipt.served(MeasuredBy::Both),
        state: if receipt.is_disputed() { "Disputed" } else { "Agreed" }.into(),
        digest: signed.digest(),
        signed: signed_terms(&signed.envelope()),
    };
    let mut object = Receipt::new(&names::receipt(contract, receipt.number), spec);
    object.metadata.namespace = Some(names::NAMESPACE.into());
    object.labels_mut().insert(names::LABEL_CONTRACT.into(), contract.into());
    object
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

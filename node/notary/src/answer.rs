//! What peers are answered: [`rear::Notary`].

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Instant;

use async_trait::async_trait;
use fluidos_identity::NodeId;
use fluidos_log::{Hash, open_head};
use fluidos_model::kinds::{
    Account, AdditionalInformation, Contract, ContractSpec, EmbeddedFlavor, EmbeddedMeta, Invoice, NodeIdentity,
    Receipt, names,
};
use fluidos_rear as rear;
use fluidos_rear::{BOOKS_MAX, CONTRACTS_MAX, ENTRIES_MAX, Refusal, RefusalCode};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::ask::signed;
use crate::shelf::ShelfError;
use crate::witness::Decision;
use crate::{Notary, events, records};

/// Of the 1 MiB of an answer; the rest is for invoices.
const RECEIPTS_BYTES_MAX: usize = 512 * 1024;

#[async_trait]
impl rear::Notary for Notary {
    async fn submit(&self, submission: rear::HeadSubmission, peer: NodeId) -> Result<rear::KeptHead, Refusal> {
        let malformed = |error: &dyn std::fmt::Display| Refusal::new(RefusalCode::Malformed, error.to_string());
        let head = open_head(&submission.head).map_err(|error| malformed(&error))?;
        self.counts(&peer)?;
        let origin = head.value().origin;
        if !head.signed_by(&peer) || self.options.speakers.first(&peer) != origin {
            let detail = format!("the head is of {origin}, needed one of {peer}, signed by it");
            return Err(Refusal::new(RefusalCode::Forbidden, detail));
        }
        let key = &self.options.key;
        let sign = |head: &mut fluidos_log::SignedHead| head.sign(key).map_err(|error| error.to_string());
        let shown =
            self.shelf.lock().await.show(&head, &submission, |node| self.is_party(node), sign, Timestamp::now());
        let shown = shown.map_err(|error| match error {
            ShelfError::Leaves => Refusal::new(RefusalCode::Conflict, error.to_string()),
            error => {
                tracing::warn!(%error, "a head is not kept");
                Refusal::new(RefusalCode::Unavailable, "there is no room for this head")
            }
        })?;
        match shown.decision {
            Decision::Rewritten(how) => {
                if shown.first {
                    let message = format!("{origin} has rewritten its history: {how}; both heads are kept");
                    tracing::warn!(%origin, how, "a node has rewritten its history");
                    events::write(&self.options.client, true, "HistoryRewritten", &message).await;
                    self.due.notify_one();
                }
                let detail = format!("it does not continue what is kept here: {how}");
                Err(Refusal::new(RefusalCode::Conflict, detail))
            }
            Decision::BeginAnew => {
                let message = format!("{origin} has begun its log anew, in epoch {}", head.value().epoch);
                events::write(&self.options.client, true, "LogBegunAnew", &message).await;
                Ok(shown.kept)
            }
            Decision::Keep | Decision::Stand => Ok(shown.kept),
        }
    }

    async fn kept(&self, origin: NodeId) -> Result<rear::KeptHead, Refusal> {
        Ok(self.shelf.lock().await.of(&origin))
    }

    async fn leaves(&self, from: u64, peer: NodeId) -> Result<rear::KeptLeaves, Refusal> {
        self.counts(&peer)?;
        let origin = self.options.speakers.first(&peer);
        let leaves = self.shelf.lock().await.leaves(&origin, from).map_err(|error| internal(&error))?;
        Ok(rear::KeptLeaves { leaves })
    }

    async fn consistency(&self, origin: NodeId, from: u64, to: u64) -> Result<rear::Consistency, Refusal> {
        let none =
            || Refusal::new(RefusalCode::NotFound, format!("no {from} of {to} leaves of {origin} are kept here"));
        if origin == self.options.origin {
            let book = self.own.lock().await.book.clone();
            let shown = book.tree().root_at(from).zip(book.tree().consistency(from, to));
            return shown.map(|(root, consistency)| rear::Consistency { root, consistency }).ok_or_else(none);
        }
        if !self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return Err(Refusal::new(RefusalCode::TooMany, "too much is asked about the logs of others"));
        }
        let shown = self.shelf.lock().await.consistency(&origin, from, to).map_err(|error| internal(&error))?;
        shown.ok_or_else(none)
    }

    async fn inclusion(&self, leaf: Hash, peer: NodeId) -> Result<rear::Inclusion, Refusal> {
        self.counts(&peer)?;
        let book = self.own.lock().await.book.clone();
        let Some(index) = book.place(&leaf) else {
            // What is not here yet may be missing.
            return Err(match self.closed() {
                Some(why) => Refusal::new(RefusalCode::Unavailable, why),
                None => {
                    let detail = format!("this node's log has {} entries, and not this one", book.tree().size());
                    Refusal::new(RefusalCode::NotFound, detail)
                }
            });
        };
        let head = signed(&self.options.key, &book, self.options.origin).map_err(|error| internal(&error))?;
        let inclusion = book.tree().inclusion(index, book.tree().size()).unwrap_or_default();
        Ok(rear::Inclusion { head: head.envelope(), index, inclusion })
    }

    async fn contracts(&self, after: &str, peer: NodeId) -> Result<rear::KeptContracts, Refusal> {
        self.counts(&peer)?;
        let mut found: BTreeMap<String, (Contract, bool)> = BTreeMap::new();
        for account in self.list::<Account>(&ListParams::default()).await? {
            let over = of_account(&account);
            found.insert(account.spec.contract.clone(), (over, true));
        }
        for contract in self.list::<Contract>(&ListParams::default()).await? {
            let ended = contract.metadata.deletion_timestamp.is_some();
            found.insert(contract.name_any(), (contract, ended));
        }
        let behind = found.into_iter().filter(|(name, _)| name.as_str() > after);
        let book = self.own.lock().await.book.clone();
        let theirs = behind.filter(|(_, (contract, _))| self.is_of(contract, &peer));
        let told = theirs.map(|(name, (contract, ended))| rear::KeptContract {
            contract: self.options.records.told(&contract),
            ended,
            renewal: contract.spec.renewal.as_ref().map(records::envelope),
            entries: book.renewals(&name).take(ENTRIES_MAX).cloned().collect(),
        });
        Ok(rear::KeptContracts { contracts: told.take(CONTRACTS_MAX).collect() })
    }

    async fn books(&self, contract_id: &str, after: u64, peer: NodeId) -> Result<rear::KeptBooks, Refusal> {
        self.counts(&peer)?;
        let none = || Refusal::new(RefusalCode::NotFound, format!("no account of contract {contract_id} is kept here"));
        // A name that no object can have is not asked for.
        let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !contract_id.chars().all(may) {
            return Err(none());
        }
        let api = Api::<Account>::namespaced(self.options.client.clone(), names::NAMESPACE);
        let account = api.get_opt(contract_id).await.map_err(|error| internal(&error))?;
        let account = account.filter(|account| self.is_of(&of_account(account), &peer)).ok_or_else(none)?;
        let selected = ListParams::default().labels(&format!("{}={}", names::LABEL_CONTRACT, account.spec.contract));
        let mut receipts = self.list::<Receipt>(&selected).await?;
        receipts.retain(|receipt| receipt.spec.number > after);
        receipts.sort_by_key(|receipt| receipt.spec.number);
        let mut bytes = 0;
        let receipts = receipts.iter().map(|receipt| records::envelope(&receipt.spec.signed)).take(BOOKS_MAX);
        // Those that list many pods are larger; what does not fit is asked for behind the last of these.
        let fits = |receipt: &fluidos_identity::Envelope| {
            bytes += receipt.payload.len() + receipt.signatures.iter().map(String::len).sum::<usize>();
            bytes <= RECEIPTS_BYTES_MAX
        };
        let receipts = receipts.take_while(fits).collect();
        let mut invoices = Vec::new();
        if after == 0 {
            let mut all = self.list::<Invoice>(&selected).await?;
            all.sort_by(|a, b| b.spec.month.cmp(&a.spec.month));
            invoices = all.into_iter().take(BOOKS_MAX).map(|invoice| invoice.spec.document).collect();
        }
        Ok(rear::KeptBooks { receipts, invoices })
    }
}

impl Notary {
    fn counts(&self, peer: &NodeId) -> Result<(), Refusal> {
        self.options.speakers.counts(peer).map_err(|why| Refusal::new(RefusalCode::Forbidden, why))
    }

    /// Whether a contract, as both have signed it, is of this peer.
    fn is_of(&self, contract: &Contract, peer: &NodeId) -> bool {
        let Some(signed) = contract.spec.signed_terms.as_ref() else { return false };
        let Ok(terms) = records::terms(&records::envelope(signed)) else { return false };
        [terms.value().buyer, terms.value().seller].iter().any(|party| self.options.speakers.current(party) == *peer)
    }

    async fn list<K>(&self, params: &ListParams) -> Result<Vec<K>, Refusal>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.options.client.clone(), names::NAMESPACE);
        Ok(api.list(params).await.map_err(|error| internal(&error))?.items)
    }
}

/// The contract of an account whose Contract is gone: what both have signed is all that is known of it.
fn of_account(account: &Account) -> Contract {
    let name = &account.spec.contract;
    let terms = records::terms(&records::envelope(&account.spec.signed_terms)).ok();
    let party = |did: Option<NodeId>| NodeIdentity {
        additional_information: Some(AdditionalInformation {
            did: did.map(|did| did.to_string()),
            ..AdditionalInformation::default()
        }),
        ..NodeIdentity::default()
    };
    let value = terms.as_ref().map(fluidos_identity::Signed::value);
    let mut flavor = EmbeddedFlavor {
        metadata: EmbeddedMeta {
            name: value.map(|terms| terms.flavor_id.clone()).unwrap_or_default(),
            namespace: names::NAMESPACE.into(),
        },
        ..EmbeddedFlavor::default()
    };
    flavor.spec.flavor_type.type_data = json!({});
    let mut contract = Contract::new(
        name,
        ContractSpec {
            flavor,
            transaction_id: value.map(|terms| terms.transaction_id.clone()).unwrap_or_default(),
            buyer: party(value.map(|terms| terms.buyer)),
            seller: party(value.map(|terms| terms.seller)),
            expiration_time: value.and_then(|terms| terms.until.clone()),
            signed_terms: Some(account.spec.signed_terms.clone()),
            ..ContractSpec::default()
        },
    );
    contract.metadata.namespace = Some(names::NAMESPACE.into());
    contract
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(%error, "notary");
    Refusal::new(RefusalCode::Internal, "the node's own records could not be read")
}

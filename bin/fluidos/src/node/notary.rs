//! The notary, introduced to those who keep what its log is about.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use fluidos_accounting::Accounts;
use fluidos_acquisition::{Options, restore};
use fluidos_identity::{Envelope, IdentityDirectory, NodeId, NodeKey};
use fluidos_model::kinds::Contract;
use fluidos_model::market::Ended;
use fluidos_notary::{LOG_DIRECTORY, Notary, Records};
use fluidos_rear as rear;
use jiff::Timestamp;
use serde_json::Value;

use super::api::Api;
use super::parts::Parts;
use crate::cli::Up;

/// A node whose key is made now is new: an empty log is all there was.
pub fn begin(up: &Up) -> Result<()> {
    if up.data_dir.join("identity").join(fluidos_identity::NODE_KEY_FILE).exists() {
        return Ok(());
    }
    fluidos_notary::begin(&up.data_dir.join(LOG_DIRECTORY)).context("the log cannot be begun")
}

/// Opens the log and keeps it. What is returned answers peers, and says whether anything is sold.
pub fn open(
    up: &Up,
    (key, first): (&NodeKey, NodeId),
    api: &Api,
    acquisition: Options,
    accounts: Arc<Accounts>,
    parts: &mut Parts,
) -> Result<Arc<Notary>> {
    let dialling = key.clone();
    let identity = up.data_dir.join("identity");
    let client = api.client(fluidos_notary::MANAGER);
    let options = fluidos_notary::Options {
        client: client.clone(),
        caches: api.access(fluidos_notary::MANAGER).caches,
        key: key.clone(),
        origin: first,
        keys: keys(&identity, key)?,
        directory: up.data_dir.join(LOG_DIRECTORY),
        identity,
        dial: Arc::new(move |target| rear::Client::new(&dialling, target).map_err(|error| error.to_string())),
        speakers: acquisition.speakers.clone(),
        records: Arc::new(OfNode { client: api.client("fluidos-exporter"), acquisition, accounts }),
        wait: fluidos_notary::Options::usual_wait(),
    };
    let (notary, keep) = fluidos_notary::start(options).context("the log cannot be kept")?;
    parts.spawn_room(keep);
    Ok(notary)
}

/// Every key that the node in an identity directory has had.
pub fn keys(identity: &Path, key: &NodeKey) -> Result<BTreeSet<NodeId>> {
    let directory = IdentityDirectory::open(identity, false)?;
    let before = directory.predecessors().into_iter().map(fluidos_identity::Handover::from);
    Ok(before.chain([key.id()]).collect())
}

/// Contracts are the contract manager's to write, books the accounts'.
struct OfNode {
    client: kube::Client,
    acquisition: Options,
    accounts: Arc<Accounts>,
}

#[async_trait]
impl Records for OfNode {
    fn told(&self, contract: &Contract) -> rear::Contract {
        restore::told(contract)
    }

    async fn contract(
        &self,
        contract: &rear::Contract,
        renewal: Option<&Envelope>,
        ended: Ended,
    ) -> Result<(Contract, bool), String> {
        let taken =
            restore::take_back(&self.client, &self.acquisition, (contract, renewal), ended, Timestamp::now()).await;
        taken.map_err(|error| error.to_string())
    }

    async fn number(&self, contract: &str) -> u64 {
        self.accounts.number(contract).await
    }

    async fn books(
        &self,
        contract: &Contract,
        receipts: &[Envelope],
        invoices: &[Value],
    ) -> Result<(u64, u64), String> {
        let taken = self.accounts.take_back(contract, receipts, invoices, Timestamp::now()).await;
        taken.map_err(|error| error.to_string())
    }
}

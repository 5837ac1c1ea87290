//! Brings what is sold on and what is bought for it together again, whoever was killed or has ended what.

use std::sync::Arc;

use fluidos_model::kinds::{Contract, Solver, names};
use fluidos_model::market::{Commitment, Pool};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::plan::{self, Reunion};
use crate::exporter::{Exporter, act};
use crate::importer::resale;
use crate::{contracts, events};
use fluidos_ledger::BooksError;

impl Exporter {
    /// Brings what is sold on and what is bought for it together again.
    pub(in crate::exporter) async fn settle(&self, pool: &Pool, now: Timestamp) -> Result<(), act::Error> {
        let of_resale = ListParams::default().labels(names::LABEL_RESALE);
        // What is in somebody's hands is looked at first: an anchor that is made meanwhile is not listed without its holder.
        let before = self.resell.busy().clone();
        let anchors = Api::<Solver>::namespaced(self.client.clone(), names::NAMESPACE).list(&of_resale).await?.items;
        let known = pool.commitments.iter().any(|known| known.served_by.is_some());
        let contracts = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        if anchors.is_empty() && !known && contracts.list(&of_resale).await?.items.is_empty() {
            return Ok(());
        }
        // And the promises after the anchors: one without a promise has lost it, or is in somebody's hands.
        let busy = before.union(&self.resell.busy()).cloned().collect();
        let pool = self.books.read().await?.unwrap_or_default();
        let listed = contracts.list(&Default::default()).await?.items;
        let restoring = self.open_now().is_err();
        let settling = plan::settle(&pool, &anchors, &listed, (&busy, restoring), now);
        for anchor in anchors.iter().filter(|anchor| settling.abandon.contains(&anchor.name_any())) {
            tracing::info!(solver = anchor.name_any(), "what was bought to be sold on is not needed: it is given back");
            if let Err(error) = resale::abandon(&self.client, &self.options, anchor).await {
                tracing::warn!(%error, solver = anchor.name_any(), "what is not needed is given back later");
            }
        }
        for reunion in &settling.reunite {
            self.reunite(reunion, &listed).await?;
        }
        let named = |name: &String| listed.iter().find(|known| known.name_any() == *name);
        for (contract, reason) in settling.notice.iter().filter_map(|(name, reason)| Some((named(name)?, reason))) {
            contracts::annotate(&self.client, contract, names::ANNOTATION_END_REASON, reason).await?;
        }
        for (contract, reason) in settling.end.iter().filter_map(|(name, reason)| Some((named(name)?, reason))) {
            tracing::info!(contract = contract.name_any(), reason, "a contract that was sold ends");
            events::warn(&self.client, contract, "NotServed", reason).await;
            contracts::annotate(&self.client, contract, names::ANNOTATION_END_REASON, reason).await?;
            contracts::delete(&self.client, contract).await?;
        }
        for contract in settling.unneeded.iter().filter_map(named) {
            tracing::info!(
                contract = contract.name_any(),
                "a contract that was bought to be sold on serves nobody: it ends"
            );
            let reason = "what it was bought for has ended";
            contracts::annotate(&self.client, contract, names::ANNOTATION_END_REASON, reason).await?;
            contracts::delete(&self.client, contract).await?;
        }
        Ok(())
    }

    /// Writes what serves what: the contract that was sold last, by which it is known that all is written.
    async fn reunite(&self, reunion: &Reunion, listed: &[Contract]) -> Result<(), act::Error> {
        let named = |name: &str| listed.iter().find(|known| known.name_any() == name);
        let (Some(sold), Some(bought)) = (named(&reunion.sold), named(&reunion.bought)) else { return Ok(()) };
        tracing::info!(contract = reunion.sold, by = reunion.bought, "what serves a contract is found again");
        contracts::label(&self.client, bought, names::LABEL_RESALE, &reunion.hex).await?;
        let served = |pool: &Pool| {
            let mut pool = pool.clone();
            let of_sale = |known: &&mut Arc<Commitment>| known.transaction == reunion.transaction;
            if let Some(known) = pool.commitments.iter_mut().find(of_sale) {
                Arc::make_mut(known).served_by = Some(reunion.bought.clone());
            }
            Ok::<_, BooksError>(pool)
        };
        self.books.change(served).await?;
        Ok(contracts::serve(&self.client, sold, &reunion.bought).await?)
    }
}

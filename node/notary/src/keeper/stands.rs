//! Whether the node may sell, and the owner's word that what is missing is lost.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{LogState, RestoredRecords, TransparencyLog, TransparencyLogSpec, names};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Keeper;
use crate::book::Record;
use crate::restore::anew;
use crate::standing::{View, Word, standing};
use crate::{events, records};

impl Keeper {
    /// Decides whether the node may sell.
    pub(super) async fn stand(&mut self, policy: &TransparencyLogSpec) -> (LogState, String) {
        let mut own = self.notary.own.lock().await;
        let (_, gone) = self.without_contract(&own.book);
        let words: BTreeMap<NodeId, Option<Word>> =
            self.asked.iter().map(|(did, asked)| (*did, asked.word.clone())).collect();
        let decided = standing(&View {
            book: &own.book,
            lost: own.lost.as_deref(),
            words: &words,
            witnesses: &self.remembered.keys().copied().collect(),
            gone: &gone,
            unfinished: self.unfinished,
            note: &self.note,
            waited: self.started.elapsed(),
            wait: self.notary.options.wait,
            opened: self.opened,
            when_unreachable: policy.when_unreachable.unwrap_or_default(),
        });
        if decided.0 == LogState::Complete {
            if own.lost.is_some() {
                match own.journal.compared() {
                    Ok(()) => own.lost = None,
                    Err(error) => tracing::warn!(%error, "that the log was compared is not kept"),
                }
            }
            self.opened = true;
        }
        drop(own);
        let before = {
            let mut standing = self.notary.standing.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *standing, decided.clone())
        };
        if before != decided {
            match decided.0 {
                LogState::Restoring => {
                    tracing::warn!(why = decided.1, "nothing is sold: this node has lost records");
                    events::write(&self.notary.options.client, true, "Restoring", &decided.1).await;
                }
                LogState::Complete if before.0 == LogState::Restoring => {
                    let RestoredRecords { contracts, receipts, invoices, .. } = &self.restored;
                    let message =
                        format!("{contracts} contracts, {receipts} receipts and {invoices} invoices are back");
                    tracing::info!(message, "restored: this node sells again");
                    events::write(&self.notary.options.client, false, "Restored", &message).await;
                }
                LogState::Complete | LogState::Comparing => {}
            }
        }
        decided
    }

    /// The owner has said that what is missing is lost.
    pub(super) async fn accept_loss(&mut self, reason: &str, state: LogState) {
        let at = Timestamp::now().to_string();
        let mut own = self.notary.own.lock().await;
        let (_, gone) = self.without_contract(&own.book);
        let missing = own.book.missing().len();
        let words: BTreeMap<NodeId, Option<Word>> =
            self.asked.iter().map(|(did, asked)| (*did, asked.word.clone())).collect();
        let done = if self.somebody_keeps_more(&own.book) {
            anew(&own.book, &words, &at).and_then(|book| own.replace(book))
        } else if missing > 0 {
            let loss = own.book.loss(&at);
            own.keep(&[Record::Entry(loss)])
        } else {
            Ok(())
        };
        let ends: Vec<Record> = own
            .book
            .running()
            .filter(|entry| gone.contains(&entry.of))
            .filter_map(|entry| own.book.needed(&records::ended(entry)))
            .collect();
        let done = done.and_then(|()| if ends.is_empty() { Ok(()) } else { own.keep(&ends) });
        if done.is_ok() && own.lost.is_some() && own.journal.compared().is_ok() {
            own.lost = None;
        }
        drop(own);
        if let Err(reason) = done {
            tracing::warn!(reason, "the loss is not noted yet");
            return;
        }
        if state != LogState::Complete {
            let message = format!("{missing} entries and {} contracts are given up: {reason}", gone.len());
            tracing::warn!(message, "the owner accepts what is lost");
            events::write(&self.notary.options.client, true, "LossAccepted", &message).await;
        }
        let api = Api::<TransparencyLog>::namespaced(self.notary.options.client.clone(), names::NAMESPACE);
        let patch = json!({"metadata": {"annotations": {names::ANNOTATION_ACCEPT_LOSS: null}}});
        if let Err(error) = api.patch(names::LOG, &PatchParams::default(), &Patch::Merge(patch)).await {
            tracing::warn!(%error, "the loss is accepted, and its annotation is still there");
        }
    }
}

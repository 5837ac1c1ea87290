//! The TransparencyLog: the owner's word is read, and how the log stands is written.

use std::collections::BTreeSet;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    LogState, RestoredRecords, TransparencyLog, TransparencyLogSpec, TransparencyLogStatus, names,
};
use kube::Api;
use kube::api::{Patch, PostParams};
use serde_json::json;
use substrate_client::Brief;

use super::Keeper;
use crate::standing::told;

/// What the status has room for.
const TOLD_MAX: usize = 64;

impl Keeper {
    /// The one object, made if it is not there.
    pub(super) async fn policy(&self) -> TransparencyLog {
        if let Some(known) = self.caches.logs.get(names::NAMESPACE, names::LOG) {
            return known.as_ref().clone();
        }
        let mut log = TransparencyLog::new(names::LOG, TransparencyLogSpec::default());
        log.metadata.namespace = Some(names::NAMESPACE.into());
        let api = Api::<TransparencyLog>::namespaced(self.notary.options.client.clone(), names::NAMESPACE);
        match api.create(&PostParams::default(), &log).await {
            Ok(made) => made,
            Err(error) => {
                if !matches!(&error, kube::Error::Api(status) if status.code == 409) {
                    tracing::warn!(%error, "the TransparencyLog is not written");
                }
                log
            }
        }
    }

    pub(super) async fn tell(
        &self,
        state: LogState,
        message: String,
        chosen: &BTreeSet<NodeId>,
        before: &TransparencyLog,
    ) {
        let rewritten: Vec<String> = {
            let shelf = self.notary.shelf.lock().await;
            let words = |(did, how): (NodeId, &str)| format!("{did} has rewritten its history: {how}");
            shelf.rewritten().into_iter().take(TOLD_MAX).map(words).collect()
        };
        let unproven = self.unproven.iter().take(TOLD_MAX).map(|((did, _), how)| format!("{did}: {how}")).collect();
        let own = self.notary.own.lock().await;
        let mut asked: Vec<_> = self.asked.iter().map(|(did, asked)| (*did, asked.word.as_ref())).collect();
        // Those that matter first.
        asked.sort_by_key(|(did, _)| (!chosen.contains(did), *did));
        let status = TransparencyLogStatus {
            state,
            message,
            origin: self.notary.options.origin.to_string(),
            epoch: own.book.epoch(),
            size: own.book.tree().size(),
            root: own.book.tree().root().to_string(),
            missing: own.book.missing().len() as u64,
            restored: (self.restored != RestoredRecords::default()).then(|| self.restored.clone()),
            witnesses: asked
                .into_iter()
                .take(TOLD_MAX)
                .map(|(did, word)| told(&own.book, did, word, chosen.contains(&did)))
                .collect(),
            rewritten,
            unproven,
        };
        drop(own);
        if before.status.as_ref() == Some(&status) {
            return;
        }
        let api = Brief::namespaced::<TransparencyLog>(&self.notary.options.client, names::NAMESPACE);
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(names::LOG, &patch).await {
            Err(error) if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) => {
                tracing::warn!(%error, "how the log stands is not written");
            }
            _ => {}
        }
    }
}

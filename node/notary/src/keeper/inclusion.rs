//! Asks the other party of each contract to show that it is in its log, and writes what came of it into the Contract.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{Contract, names};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::Patch;
use serde_json::json;
use substrate_client::Brief;

use super::exchanges::EXCHANGES_MAX;
use super::{Addresses, Brought, Keeper};
use crate::Notary;
use crate::ask::reach;
use crate::compare::{Agreement, agreement};
use crate::included::{Answer, CONTRACTS_IN_ONE, LOGGED, Question, check, condition, leaves, refused};

impl Keeper {
    /// Begins exchanges about contracts that are not shown to be included yet, one with each party.
    pub(super) fn ask_inclusion(&mut self, addresses: &Arc<Addresses>) {
        let (now, contracts) = (Instant::now(), self.caches.contracts.list());
        self.inclusion.retain(|name| self.caches.contracts.get(names::NAMESPACE, name).is_some(), now);
        let options = &self.notary.options;
        let mut asked: BTreeMap<NodeId, Vec<(String, Question)>> = BTreeMap::new();
        for contract in contracts.iter().filter(|contract| contract.metadata.deletion_timestamp.is_none()) {
            // Signatures are checked once for each version of what was signed.
            let (name, mark) = (contract.name_any(), signed_mark(contract));
            let known = self.questions.get(&name).filter(|(of, _)| *of == mark).map(|(_, found)| found.clone());
            let found = known.unwrap_or_else(|| {
                let found = leaves(contract, |party| options.keys.contains(party));
                self.questions.insert(name.clone(), (mark, found.clone()));
                found
            });
            let Some((named, leaves)) = found else { continue };
            let other = options.speakers.current(&named);
            if self.inclusion.due(&name, &leaves, now) {
                let origin = options.speakers.first(&other);
                asked.entry(other).or_default().push((name, Question { other, origin, leaves }));
            }
        }
        self.questions.retain(|name, _| self.caches.contracts.get(names::NAMESPACE, name).is_some());
        for (other, mut questions) in asked {
            if self.exchanges.len() >= EXCHANGES_MAX {
                return;
            }
            if !self.inclusion.may_ask(&other, now) {
                continue;
            }
            questions.truncate(CONTRACTS_IN_ONE);
            let (notary, addresses) = (self.notary.clone(), addresses.clone());
            self.exchanges
                .spawn(async move { Brought::Asked(other, ask_all(&notary, other, questions, &addresses).await) });
        }
    }

    pub(super) async fn answered_inclusion(&mut self, other: NodeId, answers: Vec<(String, Answer)>) {
        self.inclusion.asked(&other, Instant::now());
        let api = Brief::namespaced::<Contract>(&self.notary.options.client, names::NAMESPACE);
        for (name, answer) in answers {
            let failures = self.inclusion.answered(&name, &answer, Instant::now());
            let Some(contract) = self.caches.contracts.get(names::NAMESPACE, &name) else { continue };
            let Some(told) = condition(contract.condition(LOGGED), &answer, failures, Timestamp::now()) else {
                continue;
            };
            // A list is written as a whole: what others have said of it stays.
            let mut conditions = contract.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            conditions.retain(|condition| condition.kind != LOGGED);
            conditions.push(told);
            let patch = json!({"metadata": {"uid": contract.uid()}, "status": {"conditions": conditions}});
            match api.patch_status(&name, &Patch::Merge(patch)).await {
                Err(error) if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) => {
                    tracing::warn!(contract = name, %error, "whether it is in the other party's log is not written");
                }
                _ => {}
            }
        }
    }
}

/// What tells one version of what was signed from the next.
fn signed_mark(contract: &Contract) -> String {
    let renewal = contract.spec.renewal.as_ref().map(crate::records::renewal_mark).unwrap_or_default();
    format!("{}/{renewal}", contract.uid().unwrap_or_default())
}

/// Asks one party about contracts. What could not be asked is not answered here.
async fn ask_all(
    notary: &Arc<Notary>,
    other: NodeId,
    questions: Vec<(String, Question)>,
    addresses: &Addresses,
) -> Vec<(String, Answer)> {
    let at = addresses.get(&other).map_or(&[][..], Vec::as_slice);
    let client = match reach(&notary.options.dial, other, at).await {
        Ok((client, _)) => client,
        Err(reason) => {
            let unreachable = |(name, _)| (name, Answer::Unreachable(reason.clone()));
            return questions.into_iter().map(unreachable).collect();
        }
    };
    let mut answers = Vec::new();
    for (name, question) in questions {
        answers.push((name, ask(notary, &client, &question, addresses).await));
    }
    answers
}

async fn ask(
    notary: &Arc<Notary>,
    client: &fluidos_rear::Client,
    question: &Question,
    addresses: &Addresses,
) -> Answer {
    let (mut places, mut size) = (Vec::new(), 0);
    for leaf in &question.leaves {
        let shown = match client.inclusion(leaf).await {
            Ok(shown) => shown,
            Err(error) => return refused(&error),
        };
        let (place, head) = match check(&shown, leaf, question) {
            Ok(proven) => proven,
            Err(reason) => return Answer::NotProven(reason),
        };
        // A head that was made for this node alone proves nothing.
        match agreement(notary, &head, (question.other, client), addresses).await {
            Ok(Agreement::Fits) => {}
            Ok(Agreement::Split) => return Answer::NotProven("it has shown two histories of its log".into()),
            Ok(Agreement::Unproven) => {
                return Answer::NotProven("its head is not shown to fit the log that is kept here".into());
            }
            Err(reason) => return Answer::Unreachable(reason),
        }
        (size, places) = (head.value().size, [places, vec![place]].concat());
    }
    Answer::Included { places, size }
}

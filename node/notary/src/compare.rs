//! One exchange with another witness: what does it keep of the logs that are kept here, and does that fit?
//!
//! Nobody is believed: a head counts by the signature of its origin, and what is said about its leaves by where it leads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fluidos_identity::{Envelope, NodeId};
use fluidos_log::{SignedHead, open_head};
use fluidos_rear as rear;

use crate::ask::reach;
use crate::rounds::Mark;
use crate::shelf::Seen;
use crate::{Notary, events};

/// What was found about one log.
#[derive(Debug)]
pub(crate) struct Compared {
    pub origin: NodeId,
    pub mark: Mark,
    /// What nobody has shown to fit, in words; empty if nothing is open.
    pub unproven: String,
}

/// What a head is to what is kept here of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Agreement {
    /// One continues the other.
    Fits,
    /// It is kept as a proof that the node has shown two histories.
    Split,
    /// Nobody has shown which of both it is.
    Unproven,
}

/// Asks a witness about logs, each as it is kept here. `addresses` is where nodes are.
///
/// # Errors
/// Why it could not be asked about any, in words.
pub(crate) async fn compare(
    notary: &Arc<Notary>,
    witness: NodeId,
    logs: &[(NodeId, Mark)],
    addresses: &BTreeMap<NodeId, Vec<SocketAddr>>,
) -> Result<Vec<Compared>, String> {
    let at = addresses.get(&witness).map_or(&[][..], Vec::as_slice);
    let (client, _) = reach(&notary.options.dial, witness, at).await?;
    let mut all = Vec::new();
    for (origin, mark) in logs {
        let kept = match client.kept_head(*origin).await {
            Ok(kept) => kept,
            // What was asked stands; the others are asked about the next time.
            Err(_) if !all.is_empty() => break,
            Err(error) => return Err(error.to_string()),
        };
        let mut unproven = String::new();
        for envelope in kept.head.iter().chain(kept.rewritten.iter().flatten()) {
            let Some(head) = notary.of_origin(*origin, envelope).await else { continue };
            if agreement(notary, &head, (witness, &client), addresses).await? == Agreement::Unproven {
                unproven = format!("{witness} keeps a head of {} entries that is not shown to fit", head.value().size);
            }
        }
        all.push(Compared { origin: *origin, mark: *mark, unproven });
    }
    Ok(all)
}

/// Compares a head with what is kept here of its log; one that does not fit is kept. Who showed it is asked about the leaves first, then
/// the node whose log it is.
///
/// # Errors
/// What is kept cannot be read or written.
pub(crate) async fn agreement(
    notary: &Arc<Notary>,
    head: &SignedHead,
    (witness, client): (NodeId, &rear::Client),
    addresses: &BTreeMap<NodeId, Vec<SocketAddr>>,
) -> Result<Agreement, String> {
    let (from, to) = match notary.seen(head, None, witness).await? {
        Ok(agreement) => return Ok(agreement),
        Err(open) => open,
    };
    let origin = head.value().origin;
    if let Ok(shown) = client.consistency(origin, from, to).await
        && let Ok(agreement) = notary.seen(head, Some(&shown), witness).await?
    {
        return Ok(agreement);
    }
    let itself = notary.options.speakers.current(&origin);
    let at = addresses.get(&itself).map_or(&[][..], Vec::as_slice);
    if itself != witness
        && let Ok((client, _)) = reach(&notary.options.dial, itself, at).await
        && let Ok(shown) = client.consistency(origin, from, to).await
        && let Ok(agreement) = notary.seen(head, Some(&shown), witness).await?
    {
        return Ok(agreement);
    }
    Ok(Agreement::Unproven)
}

impl Notary {
    /// A head of a log, if it is signed by the key that speaks for it, or by one that has signed what is kept here: what another key of
    /// before has signed may be its thief's.
    async fn of_origin(&self, origin: NodeId, envelope: &Envelope) -> Option<SignedHead> {
        let head = open_head(envelope).ok().filter(|head| head.value().origin == origin)?;
        let current = self.options.speakers.current(&origin);
        let known = self.shelf.lock().await.signers(&origin);
        let of_node = |signer: &NodeId| self.options.speakers.first(signer) == origin;
        let counts = head.signers().any(|signer| signer == current || known.contains(&signer) && of_node(&signer));
        counts.then_some(head)
    }

    /// Compares a head with what is kept; the error is of how many leaves somebody has to show whether they are the first of how many.
    async fn seen(
        &self,
        head: &SignedHead,
        shown: Option<&rear::Consistency>,
        witness: NodeId,
    ) -> Result<Result<Agreement, (u64, u64)>, String> {
        let seen = self.shelf.lock().await.compare(head, shown, &witness).map_err(|error| error.to_string())?;
        let origin = head.value().origin;
        Ok(match seen {
            Seen::Fits => Ok(Agreement::Fits),
            Seen::KnownSplit => Ok(Agreement::Split),
            Seen::Open { from, to } => Err((from, to)),
            Seen::Split(how) => {
                tracing::warn!(%origin, how, "a node has shown two histories");
                let message = format!("{origin} has rewritten its history: {how}; both heads are kept");
                events::write(&self.options.client, true, "HistoryRewritten", &message).await;
                self.due.notify_one();
                Ok(Agreement::Split)
            }
        })
    }
}

//! The side that asks: brings the books of both to the same page, one receipt after the other.

use std::net::SocketAddr;
use std::sync::Arc;

use fluidos_identity::Signed;
use fluidos_model::kinds::KnownCluster;
use fluidos_model::receipt::{self, End, RECEIPT_PURPOSE, Receipt};
use fluidos_rear as rear;
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::Error;
use crate::accounts::{Accounts, Kept};

/// Receipts of one turn: a day and more; then others have theirs.
const STEPS_MAX: usize = 64;

/// Brings one account forward as far as it goes now.
pub(crate) async fn settle(
    accounts: &Accounts,
    kept: &Arc<Mutex<Kept>>,
    peers: &[Arc<KnownCluster>],
) -> Result<(), Error> {
    let client = client(accounts, &*kept.lock().await, peers).await?;
    let mut send: Option<fluidos_identity::Envelope> = None;
    for _ in 0..STEPS_MAX {
        let (name, request) = {
            let kept = kept.lock().await;
            let basis = kept.basis();
            let payments = accounts.told(kept.name()).await?;
            let receipt = send.take();
            (
                kept.name().to_owned(),
                rear::ReceiptRequest { after: basis.number, digest: basis.previous, receipt, payments },
            )
        };
        let answer = client.receipts(&name, &request).await?;
        let mut kept = kept.lock().await;
        accounts.take_payments(&kept, &answer.payments).await?;
        // Who stands elsewhere may not have the invoices that were spoken of: they are spoken of again.
        if answer.number == kept.basis().number {
            kept.tell = false;
        }
        if kept.sells() || kept.basis().number != request.after {
            return Ok(());
        }
        match step(accounts, &mut kept, &answer).await? {
            Step::Done => return Ok(()),
            Step::On => {}
            Step::Send(envelope) => send = Some(*envelope),
        }
    }
    accounts.due.notify_one();
    Ok(())
}

enum Step {
    Done,
    On,
    Send(Box<fluidos_identity::Envelope>),
}

/// Buyer: takes what the seller has answered.
async fn step(accounts: &Accounts, kept: &mut Kept, answer: &rear::ReceiptAnswer) -> Result<Step, Error> {
    let basis = kept.basis();
    if let Some(envelope) = &answer.receipt {
        let signed = Signed::<Receipt>::open(envelope, RECEIPT_PURPOSE)?;
        accounts.keep(kept, &signed).await?;
        return Ok(Step::On);
    }
    if answer.number < basis.number {
        // The seller has lost what it had signed: it gets it back.
        let number = answer.number + 1;
        let receipt = accounts.receipt(kept, number).await?;
        let missing = || Error::Fork {
            contract: kept.name().into(),
            reason: format!(
                "the seller has {} receipts, and receipt {number} is not kept here any more",
                answer.number
            ),
        };
        return Ok(Step::Send(Box::new(receipt.ok_or_else(missing)?.envelope())));
    }
    if (answer.number, &answer.digest) != (basis.number, &basis.previous) {
        let reason = format!("the seller's receipt {} has digest {}", answer.number, answer.digest);
        return Err(Error::Fork { contract: kept.name().into(), reason });
    }
    let Some(proposal) = &answer.proposal else { return Ok(Step::Done) };
    let unread = |error: serde_json::Error| Error::Fork {
        contract: kept.name().into(),
        reason: format!("the seller's proposal cannot be read: {error}"),
    };
    let proposal: Receipt = serde_json::from_value(proposal.clone()).map_err(unread)?;
    let now = kept.clock(Timestamp::now());
    receipt::check_proposal(&basis, &proposal, now)?;
    if let (Some(end), false) = (proposal.end, kept.meter.ended) {
        // The seller serves no longer: what was measured until now is all.
        tracing::info!(contract = kept.name(), "the seller has closed the account");
        kept.meter.end(expired(&basis, now, end), end);
    }
    let Some(measures) = kept.meter.measured(proposal.from, proposal.until) else { return Ok(Step::Done) };
    let pods = kept.meter.pods_within(proposal.from, proposal.until);
    let completed = receipt::list_pods(receipt::complete(&basis, &proposal, &measures), &pods);
    let mut signed = Signed::new(RECEIPT_PURPOSE, completed)?;
    signed.sign(&accounts.options.key)?;
    // What was measured must not change once it is signed.
    accounts.write(kept).await?;
    Ok(Step::Send(Box::new(signed.envelope())))
}

fn expired(basis: &receipt::Basis, now: Timestamp, end: End) -> Timestamp {
    match (end, basis.until) {
        (End::Expired, Some(until)) => until,
        _ => now,
    }
}

/// The other party at the first of its addresses: where it is known to be, then where it said it was.
async fn client(accounts: &Accounts, kept: &Kept, peers: &[Arc<KnownCluster>]) -> Result<rear::Client, Error> {
    let peer = kept.peer();
    // An entry may be of the key that it had before.
    let is_peer = |did: &String| did.parse().is_ok_and(|did| accounts.options.speakers.current(&did) == peer);
    let known = peers.iter().filter(|known| known.spec.did.as_ref().is_some_and(is_peer));
    let known = known.map(|known| &known.spec.address);
    let mut last = format!("no address of {peer} is known");
    for text in known.chain([&kept.object.spec.peer_address]) {
        let Ok(address) = text.parse::<SocketAddr>() else { continue };
        match (accounts.options.dial)(rear::Target { address, expected: Some(peer) }) {
            Ok(client) => match client.seller().await {
                Ok(_) => return Ok(client),
                Err(error) => last = error.to_string(),
            },
            Err(error) => last = error,
        }
    }
    Err(Error::Unreachable(last))
}

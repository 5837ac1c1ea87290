//! The four steps of a receipt: proposed by the seller, completed by the buyer, and what each checks before it signs.

use jiff::Timestamp;

use super::pods::list_pods;
use super::{
    Basis, CLOCK_LEEWAY_SECONDS, Closed, GRACE_SECONDS, ITEMS, Item, Line, LineState, Measures, PodsLeftOut,
    RECEIPT_VERSION, Receipt, ReceiptError,
};
use super::{meter, pods};
use crate::market::{BusinessModel, Conditions, SHARE_MOST};

/// Seller: returns the next receipt with its own measures; the buyer's are missing.
pub fn propose(basis: &Basis, interval: &Closed) -> Receipt {
    let mut receipt = Receipt {
        version: RECEIPT_VERSION,
        contract_id: basis.contract_id.clone(),
        terms_digest: basis.terms_digest.clone(),
        number: basis.number + 1,
        previous: basis.previous.clone(),
        from: interval.from,
        until: interval.until,
        end: interval.end,
        buyer: basis.buyer.clone(),
        seller: basis.seller.clone(),
        lines: Vec::new(),
        pods: Vec::new(),
        pods_left_out: PodsLeftOut::default(),
    };
    pods::propose(&mut receipt, &interval.pods);
    receipt.version = receipt.version_needed();
    let seconds = receipt.seconds();
    let measures = of_model(basis, &interval.measures);
    receipt.lines = ITEMS
        .into_iter()
        .filter_map(|item| {
            let seller = measures.of(item, item.most(&basis.amounts, seconds))?;
            Some(Line {
                line: item,
                unit: item.unit().into(),
                buyer: None,
                seller: Some(seller),
                state: LineState::Claimed,
            })
        })
        .collect();
    receipt
}

/// The measures that go with how it is sold. Who has not looked at all has seen no use.
fn of_model(basis: &Basis, measures: &Measures) -> Measures {
    let mut measures = *measures;
    match basis.conditions.business_model {
        BusinessModel::PayPerUse => measures.used_ppm_ms = measures.used_ppm_ms.or(Some(0)),
        BusinessModel::Reserved | BusinessModel::Spot => (measures.used_ppm_ms, measures.yielded_ms) = (None, None),
    }
    measures
}

/// Returns a receipt with the buyer's measures beside the seller's. The same of both always give the same receipt.
pub fn complete(basis: &Basis, proposal: &Receipt, buyer: &Measures) -> Receipt {
    let mut receipt = Receipt { lines: Vec::new(), ..proposal.clone() };
    let seconds = receipt.seconds();
    let buyer = of_model(basis, buyer);
    let away = |of: Option<u64>| of.unwrap_or(0);
    let buyer_away = away(buyer.of(Item::Away, seconds));
    let seller_away = away(proposal.line(Item::Away).and_then(|line| line.seller));
    for item in ITEMS {
        let seller = proposal.line(item).and_then(|line| line.seller);
        // CPU and memory are seen at the seller only.
        let by_both = !matches!(item, Item::Cpu | Item::Memory);
        let buyer = buyer.of(item, item.most(&basis.amounts, seconds)).filter(|_| by_both);
        let state = match (buyer, seller) {
            (None, None) => continue,
            (Some(buyer), Some(seller)) if matches!(item, Item::Reserved | Item::Used) => {
                // What it did not see may all have been so.
                let unseen = if item == Item::Used { buyer_away.saturating_mul(1000) } else { buyer_away };
                judge(item, buyer, buyer.saturating_add(unseen), seller, &basis.conditions)
            }
            (Some(_), Some(_)) if item == Item::Away => LineState::Claimed,
            (Some(buyer), Some(seller)) => match judge(item, buyer, buyer, seller, &basis.conditions) {
                LineState::Disputed if buyer_away.max(seller_away) > GRACE_SECONDS => LineState::Claimed,
                state => state,
            },
            _ => LineState::Claimed,
        };
        receipt.lines.push(Line { line: item, unit: item.unit().into(), buyer, seller, state });
    }
    receipt
}

/// Whether the seller's measure is near enough to what the buyer's may have been: from `least` to `most`.
fn judge(item: Item, least: u64, most: u64, seller: u64, conditions: &Conditions) -> LineState {
    let apart = least.saturating_sub(seller).max(seller.saturating_sub(most));
    let larger = u128::from(most.max(seller));
    let tolerated = larger * u128::from(conditions.tolerance_per_mille) / 1000;
    if u128::from(apart) <= tolerated.max(u128::from(item.grace())) { LineState::Agreed } else { LineState::Disputed }
}

/// Buyer: checks that a proposal is the next of this contract and claims nothing that cannot be. Then it may be completed.
///
/// # Errors
/// [`ReceiptError`] names the first thing that is wrong.
pub fn check_proposal(basis: &Basis, proposal: &Receipt, now: Timestamp) -> Result<(), ReceiptError> {
    check_place(basis, proposal)?;
    let leeway = now.as_second().saturating_add(CLOCK_LEEWAY_SECONDS);
    if proposal.until.as_second() > leeway {
        return Err(ReceiptError::Early { number: proposal.number, until: proposal.until, now });
    }
    if let Some(line) = proposal.lines.iter().find(|line| line.buyer.is_some()) {
        return proposal.wrong(line.line.as_str(), "measured by the buyer", "the seller's measures only");
    }
    if let Some(line) = proposal.pods.iter().find(|line| line.buyer.is_some()) {
        return proposal.wrong("pods", format!("{} seen by the buyer", line.pod), "what the seller saw only");
    }
    check_lines(basis, proposal)
}

/// Seller: checks that a receipt is its proposal, completed as it must be. Then it may be signed.
///
/// # Errors
/// [`ReceiptError`] names the first thing that is wrong.
pub fn check_completed(basis: &Basis, proposal: &Receipt, completed: &Receipt) -> Result<(), ReceiptError> {
    check_lines(basis, completed)?;
    let said = |item| completed.line(item).and_then(|line| line.buyer);
    let ms = |item| said(item).unwrap_or(0).saturating_mul(1000);
    let buyer = Measures {
        reserved_ms: ms(Item::Reserved),
        away_ms: ms(Item::Away),
        pods_ms: ms(Item::Pods),
        used_ppm_ms: said(Item::Used).map(|used| used.saturating_mul(SHARE_MOST)),
        yielded_ms: said(Item::Yielded).map(|yielded| yielded.saturating_mul(1000)),
        bytes_to_seller: said(Item::BytesToSeller),
        bytes_to_buyer: said(Item::BytesToBuyer),
        cpu_ms: None,
        memory_mib_ms: None,
    };
    if buyer.reserved_ms / 1000 + buyer.away_ms / 1000 > completed.seconds() + GRACE_SECONDS {
        return completed.wrong("away", buyer.away_ms / 1000, "no more than what was not reserved");
    }
    let needed = list_pods(complete(basis, proposal, &buyer), &pods::of_buyer(completed));
    if *completed == needed {
        return Ok(());
    }
    for (line, needed) in completed.lines.iter().zip(&needed.lines) {
        if line != needed {
            return completed.wrong(needed.line.as_str(), format!("{line:?}"), format!("{needed:?}"));
        }
    }
    if let Some((line, needed)) = completed.pods.iter().zip(&needed.pods).find(|(line, needed)| line != needed) {
        return completed.wrong("pods", format!("{line:?}"), format!("{needed:?}"));
    }
    completed.wrong("receipt", "other than the proposal", "the proposal with the buyer's measures")
}

/// Either party: checks that a receipt that both have signed is the next of this chain.
///
/// # Errors
/// [`ReceiptError`] names the first thing that is wrong.
pub fn check_next(basis: &Basis, receipt: &Receipt) -> Result<(), ReceiptError> {
    check_place(basis, receipt)?;
    check_lines(basis, receipt)
}

fn check_place(basis: &Basis, receipt: &Receipt) -> Result<(), ReceiptError> {
    if receipt.version != receipt.version_needed() {
        return receipt.wrong("version", receipt.version, receipt.version_needed());
    }
    if receipt.number != basis.number + 1 {
        return receipt.wrong("number", receipt.number, basis.number + 1);
    }
    for (field, observed, needed) in [
        ("contractID", &receipt.contract_id, &basis.contract_id),
        ("termsDigest", &receipt.terms_digest, &basis.terms_digest),
        ("previous", &receipt.previous, &basis.previous),
        ("buyer", &receipt.buyer, &basis.buyer),
        ("seller", &receipt.seller, &basis.seller),
    ] {
        if observed != needed {
            return receipt.wrong(field, observed, needed);
        }
    }
    if receipt.from != basis.from {
        return receipt.wrong("from", receipt.from, basis.from);
    }
    let hour = meter::next_hour(receipt.from);
    let whole = receipt.until.subsec_nanosecond() == 0;
    if !whole
        || receipt.until < receipt.from
        || receipt.until > hour
        || (receipt.end.is_none() && receipt.until != hour)
    {
        return receipt.wrong("until", receipt.until, format!("{hour}, or before it at the end of the contract"));
    }
    match basis.until {
        Some(until) if receipt.until > until => receipt.wrong("until", receipt.until, format!("at most {until}")),
        _ => Ok(()),
    }
}

fn check_lines(basis: &Basis, receipt: &Receipt) -> Result<(), ReceiptError> {
    pods::check(receipt)?;
    let mut order = ITEMS.iter();
    for line in &receipt.lines {
        let name = line.line.as_str();
        if !order.any(|item| *item == line.line) {
            return receipt.wrong("lines", name, "each thing once, in the order of the version");
        }
        if line.unit != line.line.unit() {
            return receipt.wrong(name, &line.unit, line.line.unit());
        }
        let most = line.line.most(&basis.amounts, receipt.seconds());
        if let Some(measure) = [line.buyer, line.seller].into_iter().flatten().find(|measure| *measure > most) {
            return receipt.wrong(name, measure, format!("at most {most} {} in {} s", line.unit, receipt.seconds()));
        }
    }
    if receipt.line(Item::Reserved).is_none() {
        return receipt.wrong("lines", "without reserved", "reserved");
    }
    // Without it the whole contract would be charged, or with it something that is not: each model has its own measure.
    let per_use = basis.conditions.business_model == BusinessModel::PayPerUse;
    if let Some(line) = [Item::Used, Item::Yielded].into_iter().find(|item| !per_use && receipt.line(*item).is_some()) {
        return receipt.wrong("lines", line.as_str(), "it only of what is paid per use");
    }
    if per_use && receipt.line(Item::Used).is_none() {
        return receipt.wrong("lines", "without used", "used: it is paid per use");
    }
    Ok(())
}

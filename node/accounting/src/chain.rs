//! The chain of an account: receipts that both have signed, kept, found and counted.

use fluidos_identity::Signed;
use fluidos_model::kinds::{Account, AccountPhase, Receipt, ReceiptSpec, names};
use fluidos_model::receipt::{self, Bill, RECEIPT_PURPOSE};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams};

use crate::accounts::{Accounts, Kept, basis_of, contract, envelope, signed_terms};
use crate::parties::Parties;
use crate::{Error, events};

impl Accounts {
    /// Returns a receipt that is kept. What both have not signed is none, whoever has written it there.
    ///
    /// # Errors
    /// The API's; [`Error::Signed`] if one of the two has not signed what is kept.
    pub(crate) async fn receipt(&self, kept: &Kept, number: u64) -> Result<Option<Signed<receipt::Receipt>>, Error> {
        let name = names::receipt(kept.name(), number);
        let object = self.api::<Receipt>().get_opt(&name).await.map_err(Error::api(format!("read {name}")))?;
        object.map(|object| signed_by_both(&kept.parties(), &object)).transpose()
    }

    /// Returns the receipts of a contract that are kept, with their digests, in the order of the chain.
    ///
    /// # Errors
    /// As [`Accounts::receipt`].
    pub(crate) async fn receipts_of(&self, kept: &Kept) -> Result<Vec<(receipt::Receipt, String)>, Error> {
        let selected = ListParams::default().labels(&format!("{}={}", names::LABEL_CONTRACT, kept.name()));
        let objects = self.api::<Receipt>().list(&selected).await.map_err(Error::api("list receipts"))?;
        let read = |object: Receipt| -> Result<_, Error> {
            let signed = signed_by_both(&kept.parties(), &object)?;
            Ok((signed.value().clone(), signed.digest()))
        };
        let mut receipts = objects.items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        receipts.sort_by_key(|(receipt, _)| receipt.number);
        Ok(receipts)
    }

    /// Keeps a receipt that both have signed: the next of the chain. The same again changes nothing.
    pub(crate) async fn keep(&self, kept: &mut Kept, signed: &Signed<receipt::Receipt>) -> Result<(), Error> {
        kept.note_keys(&self.options);
        kept.parties().require_both(signed)?;
        receipt::check_next(&kept.basis(), signed.value())?;
        let object = object_of(kept, signed);
        let name = object.name_any();
        match self.api::<Receipt>().create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let number = signed.value().number;
                let known = self.receipt(kept, number).await?;
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
    pub(crate) async fn count(&self, kept: &mut Kept, signed: &Signed<receipt::Receipt>) -> Result<(), Error> {
        let receipt = signed.value();
        receipt::check_next(&kept.basis(), receipt)?;
        let model = kept.basis().conditions.business_model;
        let status = kept.object.status.get_or_insert_default();
        (status.number, status.digest) = (receipt.number, signed.digest());
        status.until = Some(receipt.until.to_string());
        status.served_seconds += receipt.charged_ms(model) / 1000;
        status.disputed += u64::from(receipt.is_disputed());
        (status.message, status.waiting_since) = (String::new(), None);
        if receipt.end.is_some() {
            status.phase = AccountPhase::Settled;
        }
        kept.meter.settled(receipt.until, receipt.end.is_some());
        self.write(kept).await?;
        if receipt.is_disputed() {
            let once = format!("receipt-{}-disputed", receipt.number);
            let told = events::disputed(receipt);
            events::warn(&self.options.client, kept.name(), "ReceiptDisputed", Some(&once), &told).await;
        }
        Ok(())
    }
}

/// Returns what a month of an account comes to, from the receipts that are kept: of a month that runs, an estimate.
///
/// # Errors
/// [`Error`] if a receipt or the contract cannot be read, or a receipt is missing.
pub fn bill(account: &Account, receipts: &[Receipt], month: Timestamp) -> Result<Bill, Error> {
    let (terms, first) = contract(account)?;
    let basis = basis_of(&first, &account.status.clone().unwrap_or_default());
    let parties = Parties::of(terms.value(), account.status.as_ref());
    let mut of_contract = Vec::new();
    for object in receipts.iter().filter(|object| object.spec.contract == account.spec.contract) {
        let signed = signed_by_both(&parties, object)?;
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

fn signed_by_both(parties: &Parties, object: &Receipt) -> Result<Signed<receipt::Receipt>, Error> {
    let signed = signed_receipt(object)?;
    parties.require_both(&signed)?;
    Ok(signed)
}

fn object_of(kept: &Kept, signed: &Signed<receipt::Receipt>) -> Receipt {
    let (contract, model) = (kept.name(), kept.basis().conditions.business_model);
    let receipt = signed.value();
    let spec = ReceiptSpec {
        contract: contract.into(),
        number: receipt.number,
        from: receipt.from.to_string(),
        until: receipt.until.to_string(),
        served_seconds: receipt.charged_ms(model) / 1000,
        state: if receipt.is_disputed() { "Disputed" } else { "Agreed" }.into(),
        digest: signed.digest(),
        signed: signed_terms(&signed.envelope()),
    };
    let mut object = Receipt::new(&names::receipt(contract, receipt.number), spec);
    object.metadata.namespace = Some(names::NAMESPACE.into());
    object.labels_mut().insert(names::LABEL_CONTRACT.into(), contract.into());
    object
}

//! Taking back the books of a contract that this node has lost, from the other party: receipts that both have signed, and invoices.

use fluidos_identity::{Envelope, Signed};
use fluidos_model::kinds::{Contract, Invoice, names};
use fluidos_model::receipt::{self, RECEIPT_PURPOSE};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::Error;
use crate::accounts::Accounts;

impl Accounts {
    /// Returns the number of the last receipt of a contract; 0 before the first, or without an account.
    pub async fn number(&self, contract: &str) -> u64 {
        match self.get(contract).await {
            Some(kept) => kept.lock().await.status().number,
            None => 0,
        }
    }

    /// Takes books back: opens the account if there is none, and keeps the receipts that continue its chain. Where the first of them is
    /// not the next, those before are in invoices, and the chain goes on from what it says of them. Returns how many receipts and
    /// invoices were not here. The same again changes nothing.
    ///
    /// Whoever calls has checked that the invoices are this node's own.
    ///
    /// # Errors
    /// [`Error`]: a receipt is not signed by both, or continues nothing; or the API. What came before it is kept.
    pub async fn take_back(
        &self,
        contract: &Contract,
        receipts: &[Envelope],
        invoices: &[Value],
        now: Timestamp,
    ) -> Result<(u64, u64), Error> {
        self.open(contract, now).await?;
        let name = contract.name_any();
        let refused = |reason: String| Error::Contract { contract: name.clone(), reason };
        let kept = self.get(&name).await.ok_or_else(|| refused("it has no account".into()))?;
        let mut kept = kept.lock().await;
        let (mut taken, mut made) = (0, 0);
        for envelope in receipts {
            let signed = Signed::<receipt::Receipt>::open(envelope, RECEIPT_PURPOSE)?;
            kept.note_keys(&self.options);
            kept.parties().require_both(&signed)?;
            let (value, number) = (signed.value(), kept.status().number);
            if value.contract_id != kept.terms.value().contract_id {
                return Err(refused(format!("receipt {} is of another contract", value.number)));
            }
            if value.number <= number {
                continue;
            }
            if number == 0 && value.number > 1 {
                let status = kept.object.status.get_or_insert_default();
                (status.number, status.digest) = (value.number - 1, value.previous.clone());
                status.until = Some(value.from.to_string());
                kept.meter.settled(value.from, false);
            }
            self.keep(&mut kept, &signed).await?;
            taken += 1;
        }
        for document in invoices {
            let invoice: receipt::Invoice =
                serde_json::from_value(document.clone()).map_err(|error| refused(format!("invoice: {error}")))?;
            if (&invoice.contract_id, &invoice.terms_digest) != (&name, &kept.terms.digest()) {
                return Err(refused(format!("invoice {} is of another contract", invoice.number)));
            }
            let object = names::invoice(&name, &invoice.month);
            let known = self.api::<Invoice>().get_opt(&object).await.map_err(Error::api(format!("read {object}")))?;
            if known.is_none() {
                self.write_invoice(&kept, invoice).await?;
                made += 1;
            }
        }
        Ok((taken, made))
    }
}

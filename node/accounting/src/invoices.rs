//! Invoices, made when a month or a contract is over, and what the parties say about their payment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fluidos_identity::{Envelope, Signed, SignedError, canonical_json};
use fluidos_model::kinds::{Invoice, InvoiceSpec, InvoiceStatus, PaymentState, Receipt, names};
use fluidos_model::market::month_of;
use fluidos_model::receipt::{self, Bill, PAYMENT_PURPOSE, Payment};
use fluidos_rear::PAYMENTS_MAX;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};

use crate::accounts::{Accounts, Kept, envelope, signed_terms};
use crate::parties::require_one;
use crate::{Error, keeper};

/// Version of a word about a payment.
const VERSION: u32 = 1;
/// The word of a buyer and of a seller.
const WORDS_MAX: usize = 2;
/// After an invoice that could not be made; all receipts of the contract are read each time.
const AGAIN: Duration = Duration::from_secs(60);

impl Accounts {
    /// Makes what is due of invoices. What cannot be made is told in the account and tried again: no receipt waits for it.
    pub(crate) async fn try_invoice(&self, kept: &mut Kept) {
        match self.invoice(kept).await {
            Ok(()) => {
                let status = kept.object.status.get_or_insert_default();
                if kept.uninvoiced.take().is_some() && !status.message.is_empty() {
                    // Whatever else is wrong is said again when it is met again.
                    (status.message, status.waiting_since) = (String::new(), None);
                    if let Err(error) = self.write(kept).await {
                        tracing::warn!(%error, "an account could not be written");
                    }
                }
            }
            Err(error) => {
                if kept.uninvoiced.is_none() {
                    tracing::warn!(contract = kept.name(), %error, "an invoice is not made yet");
                }
                kept.uninvoiced = Some(Instant::now() + AGAIN);
                keeper::complain(self, kept, &error).await;
            }
        }
    }

    /// Makes the invoices of all months that are over and of which receipts are kept, once the last month of them or the contract is
    /// over or `uninvoiced` says that one may be missing; then receipts of the months before the last, which have theirs, go.
    async fn invoice(&self, kept: &Kept) -> Result<(), Error> {
        let name = kept.name().to_owned();
        let number = kept.status().number;
        let last = if number == 0 { None } else { self.receipt(kept, number).await? };
        let over = |receipt: &receipt::Receipt| receipt.end.is_some() || receipt.until >= month_of(receipt.from).1;
        if kept.uninvoiced.is_none() && last.is_none_or(|last| !over(last.value())) {
            return Ok(());
        }
        let receipts = self.receipts_of(kept).await?;
        let Some((last, _)) = receipts.last() else { return Ok(()) };
        let mut months: Vec<_> = receipts.iter().map(|(receipt, _)| month_of(receipt.from).0).collect();
        months.dedup();
        let (start, _) = month_of(last.from);
        if !over(last) {
            months.pop();
        }
        let made: BTreeSet<String> = self.invoices_of(&name).await?.into_iter().map(|made| made.spec.month).collect();
        for month in months.iter().filter(|month| !made.contains(&receipt::month_text(**month))) {
            let bill = receipt::invoice(&kept.basis(), &kept.terms.value().price, *month, &receipts)?;
            if let Bill::Invoice(invoice) = bill {
                self.write_invoice(kept, *invoice).await?;
            }
        }
        if !over(last) {
            return Ok(());
        }
        for (old, _) in receipts.iter().filter(|(receipt, _)| receipt.until <= start) {
            let name = names::receipt(&name, old.number);
            match self.api::<Receipt>().delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.map_err(Error::api(format!("delete {name}")))?),
            }
        }
        Ok(())
    }

    pub(crate) async fn write_invoice(&self, kept: &Kept, invoice: receipt::Invoice) -> Result<(), Error> {
        let bytes = canonical_json(&invoice)?;
        let spec = InvoiceSpec {
            contract: kept.name().into(),
            month: invoice.month.clone(),
            direction: kept.object.spec.direction,
            due: invoice.due.clone(),
            digest: fluidos_identity::sha256_hex(&bytes),
            document: serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let name = names::invoice(kept.name(), &invoice.month);
        let mut object = Invoice::new(&name, spec);
        object.metadata.namespace = Some(names::NAMESPACE.into());
        object.labels_mut().insert(names::LABEL_CONTRACT.into(), kept.name().into());
        match self.api::<Invoice>().create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => {
                other.map_err(Error::api(format!("write {name}")))?;
                tracing::info!(invoice = invoice.number, due = invoice.due, "an invoice was made");
                Ok(())
            }
        }
    }

    async fn invoices_of(&self, contract: &str) -> Result<Vec<Invoice>, Error> {
        let selected = ListParams::default().labels(&format!("{}={contract}", names::LABEL_CONTRACT));
        Ok(self.api::<Invoice>().list(&selected).await.map_err(Error::api("list invoices"))?.items)
    }

    /// Signs what the owner has said: that an invoice is paid. The same again changes nothing.
    pub(crate) async fn say_paid(&self, invoice: &Invoice) -> Result<(), Error> {
        let Some(kept) = self.get(&invoice.spec.contract).await else { return Ok(()) };
        let mut kept = kept.lock().await;
        let number = invoice.spec.document["number"].as_str().unwrap_or_default();
        let word = Payment {
            version: VERSION,
            invoice: number.into(),
            invoice_digest: invoice.spec.digest.clone(),
            contract_id: invoice.spec.contract.clone(),
            amount: invoice.spec.due.clone(),
            at: Timestamp::now().to_string(),
        };
        let mut signed = Signed::new(PAYMENT_PURPOSE, word)?;
        signed.sign(&self.options.key)?;
        if self.add_payment(invoice, &signed, kept.sells()).await? {
            kept.tell = true;
            self.due.notify_one();
        }
        Ok(())
    }

    /// Says whether this node has signed that an invoice is paid.
    pub(crate) fn has_said(&self, invoice: &Invoice) -> bool {
        words(invoice).iter().any(|word| self.is_word_of_own(word))
    }

    fn is_word_of_own(&self, word: &Signed<Payment>) -> bool {
        word.signers().any(|signer| self.is_own(&signer))
    }

    /// Says whether there are words of this node about the payments of a contract.
    pub(crate) async fn has_told(&self, contract: &str) -> Result<bool, Error> {
        Ok(!self.told(contract).await?.is_empty())
    }

    /// What this node says about payments of a contract: the newest first, as many as one message takes.
    pub(crate) async fn told(&self, contract: &str) -> Result<Vec<Envelope>, Error> {
        let mut invoices = self.invoices_of(contract).await?;
        invoices.sort_by(|a, b| b.spec.month.cmp(&a.spec.month));
        let own = |invoice: &Invoice| words(invoice).into_iter().find(|word| self.is_word_of_own(word));
        Ok(invoices.iter().filter_map(own).map(|word| word.envelope()).take(PAYMENTS_MAX).collect())
    }

    /// Takes what the other party says about payments; returns what this one says. Words about an invoice that is not made here yet
    /// are not taken: they come again.
    pub(crate) async fn take_payments(&self, kept: &Kept, sent: &[Envelope]) -> Result<Vec<Envelope>, Error> {
        if !sent.is_empty() {
            let invoices = self.invoices_of(kept.name()).await?;
            for envelope in sent {
                // What cannot be read is no word, and no reason to leave receipts unsigned.
                let word = match read_word(envelope, kept) {
                    Ok(word) => word,
                    Err(error) => {
                        tracing::debug!(contract = kept.name(), %error, "a word about a payment does not count");
                        continue;
                    }
                };
                let of = |invoice: &&Invoice| {
                    invoice.spec.digest == word.value().invoice_digest
                        && invoice.spec.document["number"].as_str() == Some(word.value().invoice.as_str())
                };
                let Some(invoice) = invoices.iter().find(of) else {
                    tracing::debug!(
                        contract = kept.name(),
                        invoice = bounded(&word.value().invoice),
                        "no such invoice here"
                    );
                    continue;
                };
                self.add_payment(invoice, &word, !kept.sells()).await?;
            }
        }
        self.told(kept.name()).await
    }

    /// Adds a word to an invoice; returns whether it was new.
    async fn add_payment(&self, invoice: &Invoice, word: &Signed<Payment>, by_seller: bool) -> Result<bool, Error> {
        let name = invoice.name_any();
        let api = self.api::<Invoice>();
        let mut object = api.get(&name).await.map_err(Error::api(format!("read {name}")))?;
        let said = words(&object);
        let again = word.signers().next().is_none_or(|signer| said.iter().any(|known| known.signed_by(&signer)));
        let status: &mut InvoiceStatus = object.status.get_or_insert_default();
        if again || status.payments.len() >= WORDS_MAX {
            return Ok(false);
        }
        status.payments.push(signed_terms(&word.envelope()));
        status.payment = status.payment.max(if by_seller { PaymentState::Acknowledged } else { PaymentState::Claimed });
        api.replace_status(&name, &PostParams::default(), &object)
            .await
            .map_err(Error::api(format!("write {name}")))?;
        Ok(true)
    }
}

/// A word of the other party.
fn read_word(envelope: &Envelope, kept: &Kept) -> Result<Signed<Payment>, SignedError> {
    let word = Signed::<Payment>::open(envelope, PAYMENT_PURPOSE)?;
    require_one(&word, kept.parties().keys(!kept.sells()))?;
    Ok(word)
}

fn words(invoice: &Invoice) -> Vec<Signed<Payment>> {
    let payments = invoice.status.iter().flat_map(|status| &status.payments);
    payments.filter_map(|word| Signed::open(&envelope(word), PAYMENT_PURPOSE).ok()).collect()
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

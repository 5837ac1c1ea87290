//! What the other party of a contract is answered: [`rear::Accountant`].

use async_trait::async_trait;
use fluidos_identity::{Envelope, NodeId, Signed};
use fluidos_model::receipt::{self, RECEIPT_PURPOSE, Receipt};
use fluidos_rear::{Accountant, ReceiptAnswer, ReceiptRequest, Refusal, RefusalCode};

use crate::accounts::{Accounts, Kept};
use crate::{Error, keeper};

#[async_trait]
impl Accountant for Accounts {
    async fn receipts(&self, contract: &str, request: ReceiptRequest, party: NodeId) -> Result<ReceiptAnswer, Refusal> {
        let none = || Refusal::new(RefusalCode::NotFound, format!("no account of contract {contract} is kept here"));
        let kept = self.get(contract).await.ok_or_else(none)?;
        let mut kept = kept.lock().await;
        kept.note_keys(&self.options);
        if kept.peer() != party {
            return Err(none());
        }
        let answered = match kept.sells() {
            true => self.sell(&mut kept, &request).await,
            // A seller that asks its buyer has something to say; the buyer asks for receipts itself.
            false => Ok((None, None)),
        };
        let (receipt, proposal) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                if matches!(error, Error::Fork { .. } | Error::Receipt(_) | Error::Signed(_)) {
                    keeper::complain(self, &mut kept, &error).await;
                }
                return Err(error.into_refusal());
            }
        };
        // After receipts: they may bring the invoice that is spoken of.
        let payments = self.take_payments(&kept, &request.payments).await.map_err(Error::into_refusal)?;
        let basis = kept.basis();
        drop(kept);
        self.due.notify_one();
        let proposal = proposal.map(|proposal| serde_json::to_value(proposal).unwrap_or_default());
        Ok(ReceiptAnswer { number: basis.number, digest: basis.previous, receipt, proposal, payments })
    }
}

impl Accounts {
    /// The receipt after the one that the buyer has, or a proposal of it.
    async fn sell(
        &self,
        kept: &mut Kept,
        request: &ReceiptRequest,
    ) -> Result<(Option<Envelope>, Option<Receipt>), Error> {
        let basis = kept.basis();
        let name = kept.name().to_owned();
        let fork = |reason: String| Error::Fork { contract: name.clone(), reason };
        if request.after < basis.number {
            let number = request.after + 1;
            let receipt = self.receipt(kept, number).await?;
            let receipt =
                receipt.ok_or_else(|| fork(format!("receipt {number} is in an invoice and not kept any more")))?;
            if receipt.value().previous != request.digest {
                return Err(fork(format!("receipt {} has digest {}", request.after, receipt.value().previous)));
            }
            return Ok((Some(receipt.envelope()), None));
        }
        let sent =
            request.receipt.as_ref().map(|envelope| Signed::<Receipt>::open(envelope, RECEIPT_PURPOSE)).transpose()?;
        if request.after > basis.number {
            // This node has lost what it had signed; the buyer has it.
            let both = sent.filter(|sent| {
                sent.signers().any(|signer| self.is_own(&signer)) && sent.value().number == basis.number + 1
            });
            if let Some(both) = both {
                self.keep(kept, &both).await?;
                tracing::info!(
                    contract = name,
                    number = both.value().number,
                    "a receipt was taken back from the buyer"
                );
            }
            return Ok((None, None));
        }
        if request.digest != basis.previous {
            return Err(fork(format!("receipt {} has digest {}", basis.number, basis.previous)));
        }
        let Some(proposal) = kept.next().map(|closed| receipt::propose(&basis, closed)) else {
            return Ok((None, None));
        };
        let Some(mut sent) = sent else { return Ok((None, Some(proposal))) };
        sent.require(&[kept.peer()])?;
        receipt::check_completed(&basis, &proposal, sent.value())?;
        // The bytes are those of the value: nothing rides in them that was not compared.
        if Signed::new(RECEIPT_PURPOSE, sent.value().clone())?.bytes() != sent.bytes() {
            return Err(fork(format!("receipt {} is written otherwise than it reads", proposal.number)));
        }
        sent.sign(&self.options.key)?;
        self.keep(kept, &sent).await?;
        Ok((Some(sent.envelope()), None))
    }
}

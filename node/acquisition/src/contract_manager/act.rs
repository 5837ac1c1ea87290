//! Carries a plan out. Every effect of the contract manager is here.

use std::net::SocketAddr;

use fluidos_identity::{NodeId, Signed, SignedError};
use fluidos_model::kinds::{Contract, Phase, names};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::{Client, ResourceExt as _};

use super::plan::Action;
use crate::terms::TermsProblem;
use crate::{Options, bounded, contracts, events, renewals, terms};
use fluidos_ledger::{Books, BooksError};

/// A reason is a sentence.
const REASON_LENGTH_MAX: usize = 256;

/// Why a contract has not ended yet. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("contract: {0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Terms(#[from] TermsProblem),
    #[error("release: {0}")]
    Release(#[from] SignedError),
    #[error("{other} cannot be told of the end of contract {contract}: {reason}")]
    Untold { contract: String, other: NodeId, reason: String },
}

/// Does one thing of a plan.
pub(super) async fn act(client: &Client, options: &Options, books: &Books, action: &Action) -> Result<(), Error> {
    match action {
        Action::Expire { contract } => Ok(contracts::delete(client, contract).await?),
        Action::Void { contract, reason } => {
            let message = format!("it ends: {reason}");
            events::warn(client, contract.as_ref(), "KeyRevoked", &message).await;
            contracts::annotate(client, contract, names::ANNOTATION_END_REASON, reason).await?;
            Ok(contracts::delete(client, contract).await?)
        }
        Action::Tell { contract, other, addresses, sells } => {
            end_here(client, books, contract, *sells).await?;
            // A buyer that goes at once pays until the notice is over; one of whose notice the other side knows has given it.
            let told = contract.status.as_ref().is_some_and(|status| status.ends.is_some());
            let notice = terms::of_contract(contract).map(|signed| terms::notice(signed.value())).unwrap_or_default();
            let ends = terms::shifted(Timestamp::now(), notice, 1).filter(|_| !told && !*sells && !notice.is_zero());
            match tell(options, contract, *other, addresses, ends).await? {
                Told::Yes => {}
                Told::No(refusal) => {
                    let message = format!("{other} does not accept the end of this contract: {refusal}");
                    events::warn(client, contract.as_ref(), "ReleaseRefused", &message).await;
                }
            }
            Ok(contracts::forget(client, contract).await?)
        }
        Action::Notice { contract, other, addresses, ends, buys } => {
            if let Told::No(refusal) = tell(options, contract, *other, addresses, Some(*ends)).await? {
                let message = format!("{other} does not accept the end of this contract: {refusal}");
                events::warn(client, contract.as_ref(), "ReleaseRefused", &message).await;
            }
            let reason = contract.annotations().get(names::ANNOTATION_END_REASON).cloned().unwrap_or_default();
            Ok(contracts::ends(client, contract, *ends, &bounded(&reason, REASON_LENGTH_MAX), *buys).await?)
        }
        Action::Suspend { contract, reason } => {
            contracts::unallocate(client, &contract.name_any()).await?;
            let message = format!("suspended: {}", bounded(reason, REASON_LENGTH_MAX));
            Ok(contracts::stands(client, contract, Phase::Inactive, &message).await?)
        }
        Action::Renew { contract, other, addresses, renewal } => {
            renew(client, options, contract, *other, addresses, renewal.as_ref().clone()).await
        }
        Action::Stay { contract, reason } => stay(client, contract, None, reason).await,
        Action::Resume { contract } => {
            contracts::allocate(client, contract).await?;
            Ok(contracts::stands(client, contract, Phase::Active, "").await?)
        }
        Action::Forget { contract, sells, warning } => {
            end_here(client, books, contract, *sells).await?;
            if let Some(warning) = warning {
                events::warn(client, contract.as_ref(), "ReleaseGivenUp", warning).await;
            }
            Ok(contracts::forget(client, contract).await?)
        }
    }
}

/// Whether the other side hears it or not, nothing is used here and nothing promised any more.
async fn end_here(client: &Client, books: &Books, contract: &Contract, sells: bool) -> Result<(), Error> {
    contracts::unallocate(client, &contract.name_any()).await?;
    if sells {
        books.free(&contract.spec.transaction_id).await?;
    }
    Ok(())
}

/// Asks the seller for the contract to go on.
async fn renew(
    client: &Client,
    options: &Options,
    contract: &Contract,
    other: NodeId,
    addresses: &[SocketAddr],
    mut renewal: Signed<rear::RenewalTerms>,
) -> Result<(), Error> {
    let own = options.key.id();
    let signed = terms::of_contract(contract)?;
    let before = renewals::of(contract, &signed, [own, other]).last;
    if !renewal.signed_by(&own) {
        renewal.sign(&options.key)?;
        contracts::renewing(client, contract, &renewal).await?;
    }
    let untold = |reason: String| Error::Untold { contract: contract.name_any(), other, reason };
    let mut last = "no address of it is known".to_owned();
    for address in addresses {
        let peer = match (options.dial)(rear::Target { address: *address, expected: Some(other) }) {
            Ok(peer) => peer,
            Err(error) => {
                last = error;
                continue;
            }
        };
        match peer.renew(&renewal, &[own, other]).await {
            Ok(both) => {
                let Ok((_, until)) = both.value().times() else { return Err(untold("it has no times".into())) };
                contracts::renewed(client, contract, &both, until).await?;
                let message = format!("renewal {}: it goes on until {until}", both.value().number);
                events::tell(client, contract, "Renewed", &message).await;
                return Ok(());
            }
            Err(rear::ClientError::Refused { refusal, .. }) if !refusal.is_retryable() => {
                stay(client, contract, before.as_ref(), &bounded(&refusal.detail, REASON_LENGTH_MAX)).await?;
                // Its policies may change until the end.
                return Err(untold(refusal.to_string()));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(untold(last))
}

/// Says that a contract does not go on, once for each reason.
async fn stay(
    client: &Client,
    contract: &Contract,
    last: Option<&Signed<rear::RenewalTerms>>,
    reason: &str,
) -> Result<(), Error> {
    contracts::not_renewed(client, contract, last, reason).await?;
    if contract.status.as_ref().is_none_or(|status| !status.renewal.ends_with(reason)) {
        events::warn(client, contract, "NotRenewed", reason).await;
    }
    Ok(())
}

enum Told {
    Yes,
    No(rear::Refusal),
}

async fn tell(
    options: &Options,
    contract: &Contract,
    other: NodeId,
    addresses: &[SocketAddr],
    ends: Option<Timestamp>,
) -> Result<Told, Error> {
    let signed = terms::of_contract(contract)?;
    let reason =
        contract.annotations().get(names::ANNOTATION_END_REASON).map(|reason| bounded(reason, REASON_LENGTH_MAX));
    let reason = reason.unwrap_or_else(|| "the contract was deleted".into());
    let mut release = rear::ReleaseTerms::of(&signed, &reason, Timestamp::now(), ends)?;
    release.sign(&options.key)?;
    let name = || signed.value().contract_id.clone();
    let untold = |reason: String| Error::Untold { contract: name(), other, reason };
    let mut last = "no address of it is known".to_owned();
    for address in addresses {
        let target = rear::Target { address: *address, expected: Some(other) };
        let peer = match (options.dial)(target) {
            Ok(peer) => peer,
            Err(error) => {
                last = error;
                continue;
            }
        };
        match peer.release(&release).await {
            Ok(()) => return Ok(Told::Yes),
            Err(rear::ClientError::Refused { refusal, .. }) if !refusal.is_retryable() => {
                return Ok(Told::No(refusal));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(untold(last))
}

//! One purchase at a price at a time: what a Solver buys and what is bought to be sold on are paid from the same purse, and of two that
//! would take the last of a ceiling the second is refused.
//!
//! ```text
//!  importer ─┐                  ┌─▶ ceilings, by what stands among the contracts now ─▶ pay ─▶ contract
//!            ├─▶ turn (a lock) ─┤
//!  exporter ─┘                  └─▶ the other waits
//! ```

use std::sync::Arc;

use fluidos_model::kinds::{AcquisitionPolicy, Contract, Solver, names};
use fluidos_model::market::{BuyingRefusal, Expense, Purchase, may_buy};
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::importer::purse::{Purse, purse};

/// Whose turn it is. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Paying {
    /// How often something was bought to be sold on.
    resales: Arc<Mutex<u64>>,
}

/// The right to pay, until it is dropped.
pub(crate) struct Turn {
    resales: OwnedMutexGuard<u64>,
}

impl Paying {
    /// Waits for the turn.
    pub(crate) async fn turn(&self) -> Turn {
        Turn { resales: self.resales.clone().lock_owned().await }
    }
}

impl Turn {
    /// Something is bought to be sold on: what others decided on before is looked at again.
    pub(crate) fn resells(&mut self) {
        *self.resales = self.resales.wrapping_add(1);
    }

    /// Says whether somebody else has paid since the process began, whose contracts a decision by a cache may not have seen.
    pub(crate) fn others_paid(&self) -> bool {
        *self.resales != 0
    }
}

/// Returns the purse as it is now, and not as a cache has it.
pub(crate) async fn now(client: &Client) -> kube::Result<Purse> {
    let policies = Api::<AcquisitionPolicy>::namespaced(client.clone(), names::NAMESPACE);
    let contracts = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let (policies, contracts) = (policies.list(&Default::default()).await?, contracts.list(&Default::default()).await?);
    let shared = |contracts: Vec<Contract>| contracts.into_iter().map(Arc::new).collect::<Vec<_>>();
    Ok(purse(&policies.items.into_iter().map(Arc::new).collect::<Vec<_>>(), &shared(contracts.items)))
}

/// Decides whether these prices may be paid together, beside what is promised and stands in no contract yet.
pub(crate) fn afford(
    purse: &Purse,
    prices: &[Option<fluidos_model::market::Price>],
    namespace: Option<&str>,
    promised: &[Expense],
    now: Timestamp,
) -> Result<(), BuyingRefusal> {
    let mut expenses = [purse.expenses.as_slice(), promised].concat();
    for price in prices {
        let purchase = Purchase { price: *price, namespace };
        may_buy(purse.policy.as_ref(), &purchase, &expenses, now)?;
        let namespace = namespace.map(str::to_owned);
        expenses.extend(price.map(|price| Expense { price, from: now, until: None, namespace }));
    }
    Ok(())
}

/// The namespace whose ceilings count for what a Solver buys.
pub(crate) fn namespace(solver: &Solver) -> Option<&str> {
    solver.annotations().get(names::ANNOTATION_NAMESPACE).map(String::as_str)
}

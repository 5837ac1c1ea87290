//! Which accounts go, so that there is room for new ones: the oldest that have nothing more to say.

use std::collections::BTreeSet;

use fluidos_model::kinds::{Account, AccountPhase, Receipt, names};
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};

use crate::Error;
use crate::accounts::{ACCOUNTS_MAX, Accounts};

/// Beyond so many, the oldest that are settled go with their receipts; their invoices stay. The other half is for what runs.
const FORGET_BEYOND: usize = ACCOUNTS_MAX / 2;

/// What matters of an account here.
struct Entry {
    created: Option<Timestamp>,
    name: String,
    /// It is settled or given up, told, and has its invoices.
    is_over: bool,
}

/// Returns the names of those that go. One whose contract is still there stays: it would be opened anew, and its hours be charged
/// a second time.
fn plan(accounts: Vec<Entry>, contracts: &BTreeSet<String>, beyond: usize) -> Vec<String> {
    let many = accounts.len().saturating_sub(beyond);
    let mut over: Vec<Entry> =
        accounts.into_iter().filter(|entry| entry.is_over && !contracts.contains(&entry.name)).collect();
    over.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    over.into_iter().take(many).map(|entry| entry.name).collect()
}

impl Accounts {
    /// Lets the oldest accounts go that are over, if there are many. `contracts` are those that are there.
    ///
    /// # Errors
    /// The API's: then they stay.
    pub(crate) async fn forget_oldest(&self, contracts: &BTreeSet<String>) -> Result<(), Error> {
        let mut all = self.kept.lock().await;
        if all.len() <= FORGET_BEYOND {
            return Ok(());
        }
        let entry = |(name, kept): (&String, &std::sync::Arc<tokio::sync::Mutex<crate::accounts::Kept>>)| {
            // One that is in use is not over.
            let (created, is_over) = kept.try_lock().map_or((None, false), |kept| {
                let done = matches!(kept.phase(), AccountPhase::Settled | AccountPhase::Unsettled);
                let created = kept.object.metadata.creation_timestamp.as_ref().map(|at| at.0);
                (created, done && !kept.tell && kept.uninvoiced.is_none())
            });
            Entry { created, name: name.clone(), is_over }
        };
        for name in plan(all.iter().map(entry).collect(), contracts, FORGET_BEYOND) {
            let of_contract = ListParams::default().labels(&format!("{}={name}", names::LABEL_CONTRACT));
            let receipts = self.api::<Receipt>().delete_collection(&DeleteParams::default(), &of_contract).await;
            drop(receipts.map_err(Error::api(format!("delete the receipts of {name}")))?);
            match self.api::<Account>().delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.map_err(Error::api(format!("delete account {name}")))?),
            }
            all.remove(&name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_are_over_go_and_none_whose_contract_is_there() {
        let entry = |name: &str, second, is_over| Entry {
            created: Timestamp::from_second(second).ok(),
            name: name.into(),
            is_over,
        };
        let all = || vec![entry("c", 3, true), entry("a", 1, true), entry("b", 2, true), entry("open", 0, false)];
        let contracts = BTreeSet::from(["a".to_owned()]);
        assert_eq!(plan(all(), &contracts, 3), ["b"]);
        assert_eq!(plan(all(), &contracts, 0), ["b", "c"], "what is not over stays, however many there are");
        assert!(plan(all(), &contracts, 4).is_empty());
    }
}

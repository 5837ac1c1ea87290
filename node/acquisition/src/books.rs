//! The books: the one Ledger object, changed by compare-and-swap.
//!
//! ```text
//!  read ─▶ plan on the Pool (pure) ─▶ replace with the version that was read ─▶ done
//!    ▲                                            │ somebody else was faster
//!    └────────────────────────────────────────────┘
//! ```
//! Writers of this process take turns, so they do not make one another try again; others (another replica, a person) are seen
//! by the version.

use std::sync::Arc;
use std::time::Duration;

use fluidos_model::kinds::{Ledger, LedgerError, LedgerSpec, names};
use fluidos_model::market::{Amounts, LedgerRefusal, Pool};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Mutex;

/// Each try loses only to a writer that has got on; with this many others at once the node is overloaded.
const TRIES_MAX: u32 = 16;
/// Between tries, so that the others finish.
const PAUSE: Duration = Duration::from_millis(5);

/// Why the books were not changed.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// Nothing is sold here: there is no Ledger.
    #[error("ledger {name}: not there; nothing is offered", name = names::LEDGER)]
    Missing,
    /// The API did not do it. Later.
    #[error("ledger {name}: {0}", name = names::LEDGER)]
    Api(#[from] kube::Error),
    /// Somebody has written nonsense into it. The owner must mend it; nothing is sold until then.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
    /// Others kept changing it. Later.
    #[error("ledger {name}: changed by others {TRIES_MAX} times in a row", name = names::LEDGER)]
    Contended,
    /// The plan does not fit.
    #[error(transparent)]
    Refused(#[from] LedgerRefusal),
}

/// The books of this node. Clones take turns with one another.
#[derive(Clone)]
pub(crate) struct Books {
    api: Api<Ledger>,
    turn: Arc<Mutex<()>>,
}

impl Books {
    pub fn new(client: &Client) -> Self {
        Self { api: Api::namespaced(client.clone(), names::NAMESPACE), turn: Arc::default() }
    }

    /// Opens the books with the capacity that the owner offers. Promises stay, whatever the capacity. Without an offer and
    /// without promises of an earlier one there are no books.
    pub async fn open(&self, offer: Option<Amounts>) -> Result<(), BooksError> {
        let capacity = offer.clone().unwrap_or_default();
        let lowered = |pool: &Pool| Ok::<_, BooksError>(Pool { capacity: capacity.clone(), ..pool.clone() });
        match self.change(lowered).await {
            Err(BooksError::Missing) if offer.is_none() => Ok(()),
            Err(BooksError::Missing) => {
                let pool = Pool { capacity: capacity.clone(), commitments: Vec::new() };
                let mut ledger = Ledger::new(names::LEDGER, LedgerSpec::from(&pool));
                ledger.metadata.namespace = Some(names::NAMESPACE.into());
                match self.api.create(&PostParams::default(), &ledger).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => self.change(lowered).await.map(|_| ()),
                    other => Ok(other.map(|_| ())?),
                }
            }
            other => other.map(|_| ()),
        }
    }

    /// Returns what stands in the books, `None` if there are none.
    pub async fn read(&self) -> Result<Option<Pool>, BooksError> {
        let ledger = self.api.get_opt(names::LEDGER).await?;
        Ok(ledger.map(|ledger| ledger.spec.pool()).transpose()?)
    }

    /// Changes the books as `plan` says and returns what stands in them then. `plan` is asked again when somebody else was
    /// faster; a plan that changes nothing writes nothing.
    pub async fn change<E: From<BooksError>>(&self, plan: impl Fn(&Pool) -> Result<Pool, E>) -> Result<Pool, E> {
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES_MAX {
            let ledger = self.api.get_opt(names::LEDGER).await.map_err(BooksError::Api)?;
            let mut ledger = ledger.ok_or(BooksError::Missing)?;
            let pool = ledger.spec.pool().map_err(BooksError::Unreadable)?;
            let planned = plan(&pool)?;
            if planned == pool {
                return Ok(pool);
            }
            ledger.spec = LedgerSpec::from(&planned);
            match self.api.replace(names::LEDGER, &PostParams::default(), &ledger).await {
                Ok(_) => return Ok(planned),
                Err(kube::Error::Api(status)) if status.code == 409 => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(BooksError::Api(error).into()),
            }
        }
        Err(BooksError::Contended.into())
    }

    /// Frees what a transaction took. It need not have taken anything.
    pub async fn free(&self, transaction: &str) -> Result<(), BooksError> {
        match self.change(|pool| Ok::<_, BooksError>(pool.release(transaction))).await {
            Err(BooksError::Missing) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

//! View: the pool as the copies of a process have it, read once for all its rooms.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fluidos_model::kinds::{Ledger, LedgerPage, commitments, names};
use fluidos_model::market::Pool;
use kube::{Api, Client, ResourceExt as _};
use substrate_client::{Cache, Caches};
use tokio::sync::watch;

use crate::books::BooksError;
use crate::layout::{Leaf, Standing, StandingError};

/// What is promised, as this process knows it. Clones are the same view.
#[derive(Clone)]
pub struct View {
    ledgers: Cache<Ledger>,
    pages: Cache<LedgerPage>,
    made: Arc<Mutex<Made>>,
}

/// What was read already.
#[derive(Default)]
struct Made {
    /// Pages by name, each with its version.
    leaves: HashMap<String, (Option<String>, Leaf)>,
    /// The pool, of which version of the Ledger it is.
    pool: Option<(Option<String>, Arc<Pool>)>,
}

impl View {
    /// The view that all rooms of a process share.
    pub fn shared(caches: &Caches) -> Self {
        let (ledgers, pages) = (caches.namespaced(names::NAMESPACE), caches.namespaced(names::NAMESPACE));
        caches.share(|| Self { ledgers, pages, made: Arc::default() })
    }

    /// Returns after the first complete lists.
    pub async fn synced(&self) {
        tokio::join!(self.ledgers.synced(), self.pages.synced());
    }

    /// Counters that grow when the pool may be another: what is heard of a page may come after the Ledger that names it.
    pub fn changes(&self) -> [watch::Receiver<u64>; 2] {
        [self.ledgers.changes(), self.pages.changes()]
    }

    /// Returns the pool, `None` without a Ledger.
    ///
    /// # Errors
    /// [`StandingError`] if it cannot be read. While a page that the Ledger names has not been heard of, the pool is what it was before; if
    /// there was none, it is [`StandingError::Missing`].
    pub fn pool(&self) -> Result<Option<Arc<Pool>>, StandingError> {
        // Nothing panics between two states of it.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ledger) = self.ledgers.get(names::NAMESPACE, names::LEDGER) else {
            *made = Made::default();
            return Ok(None);
        };
        let version = ledger.resource_version();
        if let Some((known, pool)) = &made.pool
            && *known == version
        {
            return Ok(Some(pool.clone()));
        }
        match self.standing(&ledger, &mut made) {
            Ok(standing) => {
                let counts = |name: &String, _: &mut _| standing.sheets.iter().any(|sheet| sheet.name == *name);
                made.leaves.retain(counts);
                made.pool = Some((version, standing.pool.clone()));
                Ok(Some(standing.pool))
            }
            Err(StandingError::Missing { name }) => match &made.pool {
                Some((_, pool)) => Ok(Some(pool.clone())),
                None => Err(StandingError::Missing { name }),
            },
            Err(error) => Err(error),
        }
    }

    fn standing(&self, ledger: &Ledger, made: &mut Made) -> Result<Standing, StandingError> {
        Standing::read(&ledger.spec, |name| {
            let Some(page) = self.pages.get(names::NAMESPACE, name) else { return Ok(None) };
            let version = page.resource_version();
            if let Some((known, leaf)) = made.leaves.get(name)
                && *known == version
            {
                return Ok(Some(leaf.clone()));
            }
            let leaf: Leaf = Arc::new(commitments(&page.spec.commitments)?);
            made.leaves.insert(name.to_owned(), (version, leaf.clone()));
            Ok(Some(leaf))
        })
    }
}

/// Asks the API for the pool of the Ledger in a namespace, `None` if there is none.
///
/// # Errors
/// [`BooksError`] if it cannot be read.
pub async fn read(client: &Client, namespace: &str) -> Result<Option<Arc<Pool>>, BooksError> {
    let (ledgers, pages) =
        (Api::<Ledger>::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    crate::books::load(&ledgers, &pages, &[]).await.map(|read| read.map(|(standing, _)| standing.pool))
}

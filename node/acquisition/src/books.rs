//! The books: the one Ledger object, changed by compare-and-swap.
//!
//! ```text
//!  what stands in it ─▶ plan (pure) ─▶ plans of others on top ─▶ one write, with the version it was made from ─▶ done, all of them
//!    ▲                                                            │ somebody else was faster: read it, plan again
//!    └────────────────────────────────────────────────────────────┘
//! ```
//! What was written last is remembered, so a change costs no read, and plans that come while one is written go into the next write
//! together (group commit, as in a store). Others (another replica, a person) are seen by the version, and a plan that was refused, or found
//! nothing to do, is asked again if what it was made from is not what stands there now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluidos_model::kinds::{Ledger, LedgerError, LedgerSpec, names};
use fluidos_model::market::{Amounts, LedgerRefusal, Pool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, Resource as _};
use serde::Deserialize;
use substrate_client::{Access, Cache};

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

/// The books of this node. Clones share what they remember.
#[derive(Clone)]
pub(crate) struct Books {
    client: Client,
    api: Api<Ledger>,
    state: Arc<Mutex<State>>,
    /// Held by who writes.
    pen: Arc<tokio::sync::Mutex<()>>,
    /// What others write is seen in it.
    seen: Option<Cache<Ledger>>,
}

/// What stands in the Ledger, as it was read or written last.
#[derive(Clone)]
struct Page {
    pool: Arc<Pool>,
    metadata: ObjectMeta,
}

/// *Guarantees*: `planned` was made from `written`, by the plans numbered up to `plans`, of which those up to `done` are in `written`.
#[derive(Default)]
struct State {
    written: Option<Page>,
    planned: Option<Arc<Pool>>,
    plans: u64,
    done: u64,
    /// Grows when plans are thrown away: what they were made from was not what stood there.
    era: u64,
}

impl State {
    /// Takes what was read. Plans that were made from something else are thrown away.
    fn take(&mut self, page: Page) {
        if self.version() != page.metadata.resource_version.as_deref() {
            self.forget();
            self.written = Some(page);
        }
    }

    fn version(&self) -> Option<&str> {
        self.written.as_ref()?.metadata.resource_version.as_deref()
    }

    fn forget(&mut self) {
        (self.written, self.planned) = (None, None);
        self.era += 1;
    }
}

/// One plan on its way: its number, and what stands in the books with it.
struct Planned {
    era: u64,
    number: u64,
    pool: Arc<Pool>,
}

/// What a write answers; the rest is what was sent.
#[derive(Deserialize)]
struct Written {
    metadata: ObjectMeta,
}

impl Books {
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            api: Api::namespaced(client.clone(), names::NAMESPACE),
            state: Arc::default(),
            pen: Arc::default(),
            seen: None,
        }
    }

    /// The books that all rooms of a process share.
    pub fn shared(access: &Access) -> Self {
        let seen = access.caches.namespaced(names::NAMESPACE);
        access.caches.share(|| Self { seen: Some(seen), ..Self::new(&access.client) })
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
    pub async fn read(&self) -> Result<Option<Arc<Pool>>, BooksError> {
        match self.load().await {
            Ok(page) => Ok(Some(page.pool)),
            Err(BooksError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what this process knows to stand in the books without asking: all that it has written, and what others wrote as soon as its
    /// copies have it. Enough for an answer that promises nothing, and to find what was promised here.
    pub async fn glance(&self) -> Result<Option<Arc<Pool>>, BooksError> {
        if self.seen.is_some()
            && let Some(page) = self.remembered()?
        {
            return Ok(Some(page.pool));
        }
        self.read().await
    }

    /// Changes the books as `plan` says and returns what stands in them then. `plan` is asked again when somebody else was
    /// faster; a plan that changes nothing writes nothing.
    pub async fn change<E: From<BooksError>>(&self, plan: impl Fn(&Pool) -> Result<Pool, E>) -> Result<Arc<Pool>, E> {
        for _ in 0..TRIES_MAX {
            let planned = self.plan(&plan).await?;
            match self.write(planned).await {
                Ok(pool) => return Ok(pool),
                Err(BooksError::Contended) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
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

    /// Plans on top of what others have planned.
    async fn plan<E: From<BooksError>>(&self, plan: &impl Fn(&Pool) -> Result<Pool, E>) -> Result<Planned, E> {
        let before = match self.remembered()? {
            Some(page) => page,
            None => self.load().await?,
        };
        let refused = {
            let mut state = self.state();
            match self.plan_now(&mut state, &before, plan) {
                Ok(Some(planned)) => return Ok(planned),
                Ok(None) => None,
                Err(refusal) => Some(refusal),
            }
        };
        // Nothing comes of it: is that so of what stands there now?
        let now = self.load().await?;
        if let Some(refusal) = refused.filter(|_| now.metadata.resource_version == before.metadata.resource_version) {
            return Err(refusal);
        }
        let mut state = self.state();
        let nothing =
            Planned { era: state.era, number: state.plans, pool: state.planned.clone().unwrap_or(now.pool.clone()) };
        Ok(self.plan_now(&mut state, &now, plan)?.unwrap_or(nothing))
    }

    /// `None` if it changes nothing.
    fn plan_now<E>(
        &self,
        state: &mut State,
        page: &Page,
        plan: &impl Fn(&Pool) -> Result<Pool, E>,
    ) -> Result<Option<Planned>, E> {
        // Somebody may have written since it was looked at; then nobody has planned on top of it.
        let base = state.planned.clone().or_else(|| state.written.as_ref().map(|page| page.pool.clone()));
        let base = base.unwrap_or_else(|| page.pool.clone());
        let pool = plan(&base)?;
        if pool == *base {
            return Ok(None);
        }
        if state.written.is_none() {
            state.written = Some(page.clone());
        }
        let pool = Arc::new(pool);
        state.plans += 1;
        state.planned = Some(pool.clone());
        Ok(Some(Planned { era: state.era, number: state.plans, pool }))
    }

    /// Returns when a plan is in the books: whoever has the pen writes what all have planned until then.
    async fn write(&self, planned: Planned) -> Result<Arc<Pool>, BooksError> {
        let _pen = self.pen.lock().await;
        let (number, pool, mut metadata) = {
            let state = self.state();
            if state.era != planned.era {
                return Err(BooksError::Contended);
            }
            let (Some(pool), Some(page)) = (&state.planned, &state.written) else { return Ok(planned.pool) };
            if state.done >= planned.number {
                return Ok(planned.pool);
            }
            (state.plans, pool.clone(), page.metadata.clone())
        };
        metadata.managed_fields = None;
        let mut ledger = Ledger::new(names::LEDGER, LedgerSpec::from(&*pool));
        ledger.metadata = metadata;
        let written = self.replace(&ledger).await;
        let mut state = self.state();
        match written {
            Ok(written) => {
                state.written = Some(Page { pool: pool.clone(), metadata: written.metadata });
                state.done = number;
                if state.plans == number {
                    state.planned = None;
                }
                Ok(planned.pool)
            }
            Err(error) => {
                // It may have been written all the same: what stands there is read again, and all plan again.
                state.forget();
                match error {
                    kube::Error::Api(status) if matches!(status.code, 404 | 409) => Err(BooksError::Contended),
                    error => Err(BooksError::Api(error)),
                }
            }
        }
    }

    /// As [`Api::replace`], without reading again what was sent.
    async fn replace(&self, ledger: &Ledger) -> kube::Result<Written> {
        let request = kube::api::Request::new(Ledger::url_path(&(), Some(names::NAMESPACE)));
        let body = serde_json::to_vec(ledger).map_err(kube::Error::SerdeError)?;
        let request =
            request.replace(names::LEDGER, &PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// What stands in the books as far as this process knows.
    fn remembered(&self) -> Result<Option<Page>, BooksError> {
        let Some(copies) = &self.seen else { return Ok(self.state().written.clone()) };
        // None yet, or none any more.
        let Some(seen) = copies.get(names::NAMESPACE, names::LEDGER) else { return Ok(None) };
        // While it is written here, what is seen may be that.
        let pen = self.pen.try_lock();
        let mut state = self.state();
        if pen.is_ok() && is_newer(seen.metadata.resource_version.as_deref(), state.version()) {
            state.take(page(&seen)?);
        }
        Ok(state.written.clone())
    }

    /// Reads what stands in the books.
    async fn load(&self) -> Result<Page, BooksError> {
        let _pen = self.pen.lock().await;
        let ledger = self.api.get_opt(names::LEDGER).await?;
        let page = ledger.map(|ledger| page(&ledger)).transpose()?;
        let mut state = self.state();
        match page {
            Some(page) => {
                state.take(page.clone());
                Ok(page)
            }
            None => {
                state.forget();
                Err(BooksError::Missing)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Between two states of it nothing can panic but a plan, which has changed nothing then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn page(ledger: &Ledger) -> Result<Page, BooksError> {
    Ok(Page { pool: Arc::new(ledger.spec.pool()?), metadata: ledger.metadata.clone() })
}

/// Whether a version is known to come after another (KEP-5504: versions of one kind can be compared as numbers). One comes after none.
fn is_newer(version: Option<&str>, than: Option<&str>) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    match (version, than) {
        (Some(_), None) => true,
        (Some(version), Some(than)) => number(version).zip(number(than)).is_some_and(|(a, b)| a > b),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests;

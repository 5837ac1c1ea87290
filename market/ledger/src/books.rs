//! The books: the Ledger, changed by compare-and-swap.
//!
//! ```text
//!  what stands in it ─▶ plan (pure) ─▶ plans of others on top ─▶ one write, with the version it was made from ─▶ done, all of them
//!    ▲                                                            │ somebody else was faster: read it, plan again
//!    └────────────────────────────────────────────────────────────┘
//! ```
//! What is written is what [`Layout`] makes of the plan: new pages first, then the Ledger, which names them.
//! What was written last is remembered, so a change costs no read, and plans that come while one is written go into the next write
//! together (group commit, as in a store). Others (another replica, a person) are seen by the version, and a plan that was refused, or found
//! nothing to do, is asked again if what it was made from is not what stands there now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluidos_model::kinds::{Ledger, LedgerPage, LedgerSpec, commitments, names};
use fluidos_model::market::{Amounts, LedgerRefusal, Pool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use substrate_client::{Access, Brief, Cache};

use crate::layout::{Layout, Leaf, Sheet, Standing, StandingError};

/// Each try loses only to a writer that has got on; with this many others at once the node is overloaded.
const TRIES_MAX: u32 = 16;
/// A Ledger whose pages went while it was read has been written anew.
const READS_MAX: u32 = 3;
/// Between tries, so that the others finish.
const PAUSE: Duration = Duration::from_millis(5);
/// A page that the Ledger does not name may be about to be named: whoever wrote it so long ago has been killed.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Why the books were not changed.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// Nothing is sold here: there is no Ledger.
    #[error("ledger {name}: not there; nothing is offered", name = names::LEDGER)]
    Missing,
    /// The API did not do it. Later.
    #[error("ledger {name}: {0}", name = names::LEDGER)]
    Api(#[from] kube::Error),
    /// Somebody has written nonsense into it, or taken a page away. The owner must mend it; nothing is sold until then.
    #[error(transparent)]
    Unreadable(#[from] StandingError),
    /// Others kept changing it. Later.
    #[error("ledger {name}: changed by others {TRIES_MAX} times in a row", name = names::LEDGER)]
    Contended,
    /// The plan does not fit.
    #[error(transparent)]
    Refused(#[from] LedgerRefusal),
}

/// The books of this node. Clones share what they remember.
#[derive(Clone)]
pub struct Books {
    brief: Brief,
    api: Api<Ledger>,
    pages: Api<LedgerPage>,
    state: Arc<Mutex<State>>,
    /// Held by who writes.
    pen: Arc<tokio::sync::Mutex<()>>,
    /// What others write is seen in it.
    seen: Option<Cache<Ledger>>,
}

/// What stands in the Ledger, as it was read or written last.
#[derive(Clone)]
struct Written {
    standing: Standing,
    metadata: ObjectMeta,
}

/// *Guarantees*: `planned` was made from `written`, by the plans numbered up to `plans`, of which those up to `done` are in `written`.
#[derive(Default)]
struct State {
    written: Option<Written>,
    planned: Option<Arc<Pool>>,
    plans: u64,
    done: u64,
    /// Grows when plans are thrown away: what they were made from was not what stood there.
    era: u64,
}

impl State {
    /// Takes what was read. Plans that were made from something else are thrown away.
    fn take(&mut self, written: Written) {
        if self.version() != written.metadata.resource_version.as_deref() {
            self.forget();
            self.written = Some(written);
        }
    }

    fn sheets(&self) -> Vec<Sheet> {
        self.written.as_ref().map(|written| written.standing.sheets.clone()).unwrap_or_default()
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

impl Books {
    /// Returns books that ask for what others have written.
    pub fn new(client: &Client) -> Self {
        Self {
            brief: Brief::namespaced::<Ledger>(client, names::NAMESPACE),
            api: Api::namespaced(client.clone(), names::NAMESPACE),
            pages: Api::namespaced(client.clone(), names::NAMESPACE),
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

    /// Deletes what whoever was killed has left.
    ///
    /// # Errors
    /// [`BooksError`] if it cannot be read.
    pub async fn tidy(&self) -> Result<(), BooksError> {
        self.sweep(FORGOTTEN).await
    }

    /// Opens the books with the capacity that the owner offers. Promises stay, whatever the capacity. Without an offer and
    /// without promises of an earlier one there are no books.
    ///
    /// # Errors
    /// [`BooksError`] if they cannot be read or written.
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
    ///
    /// # Errors
    /// [`BooksError`] if they cannot be read.
    pub async fn read(&self) -> Result<Option<Arc<Pool>>, BooksError> {
        match self.load().await {
            Ok(written) => Ok(Some(written.standing.pool)),
            Err(BooksError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what this process knows to stand in the books without asking: all that it has written, and what others wrote as soon as its
    /// copies have it. Enough for an answer that promises nothing, and to find what was promised here.
    ///
    /// # Errors
    /// As of [`Books::read`].
    pub async fn glance(&self) -> Result<Option<Arc<Pool>>, BooksError> {
        if self.seen.is_some()
            && let Some(written) = self.remembered()?
        {
            return Ok(Some(written.standing.pool));
        }
        self.read().await
    }

    /// Changes the books as `plan` says and returns what stands in them then. `plan` is asked again when somebody else was
    /// faster; a plan that changes nothing writes nothing.
    ///
    /// # Errors
    /// What `plan` refuses, and [`BooksError`] if it cannot be read or written.
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
    ///
    /// # Errors
    /// [`BooksError`] if it cannot be read or written.
    pub async fn free(&self, transaction: &str) -> Result<(), BooksError> {
        match self.change(|pool| Ok::<_, BooksError>(pool.release(transaction))).await {
            Err(BooksError::Missing) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Plans on top of what others have planned.
    async fn plan<E: From<BooksError>>(&self, plan: &impl Fn(&Pool) -> Result<Pool, E>) -> Result<Planned, E> {
        let before = match self.remembered()? {
            Some(written) => written,
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
        let nothing = Planned {
            era: state.era,
            number: state.plans,
            pool: state.planned.clone().unwrap_or(now.standing.pool.clone()),
        };
        Ok(self.plan_now(&mut state, &now, plan)?.unwrap_or(nothing))
    }

    /// `None` if it changes nothing.
    fn plan_now<E>(
        &self,
        state: &mut State,
        written: &Written,
        plan: &impl Fn(&Pool) -> Result<Pool, E>,
    ) -> Result<Option<Planned>, E> {
        // Somebody may have written since it was looked at; then nobody has planned on top of it.
        let base = state.planned.clone().or_else(|| state.written.as_ref().map(|known| known.standing.pool.clone()));
        let base = base.unwrap_or_else(|| written.standing.pool.clone());
        let pool = plan(&base)?;
        if pool == *base {
            return Ok(None);
        }
        if state.written.is_none() {
            state.written = Some(written.clone());
        }
        let pool = Arc::new(pool);
        state.plans += 1;
        state.planned = Some(pool.clone());
        Ok(Some(Planned { era: state.era, number: state.plans, pool }))
    }

    /// Returns when a plan is in the books: whoever has the pen writes what all have planned until then.
    async fn write(&self, planned: Planned) -> Result<Arc<Pool>, BooksError> {
        let _pen = self.pen.lock().await;
        let (number, pool, before) = {
            let state = self.state();
            if state.era != planned.era {
                return Err(BooksError::Contended);
            }
            let (Some(pool), Some(before)) = (&state.planned, &state.written) else { return Ok(planned.pool) };
            if state.done >= planned.number {
                return Ok(planned.pool);
            }
            (state.plans, pool.clone(), before.clone())
        };
        let mut layout = Layout::of(&pool, &before.standing.sheets, || {
            format!("{}-{}", names::LEDGER, uuid::Uuid::new_v4().simple())
        });
        let written = match self.turn(&before.metadata, layout.fresh()).await {
            Ok(()) => self.replace(before.metadata, layout.spec(&pool.capacity)).await,
            Err(error) => Err(error),
        };
        let mut state = self.state();
        match written {
            Ok(metadata) => {
                self.discard(layout.dropped);
                let standing = Standing { pool, sheets: layout.sheets };
                state.written = Some(Written { standing, metadata });
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
                    kube::Error::Api(status) if matches!(status.code, 404 | 409) => {
                        // It was not, so nothing names its pages.
                        self.discard(
                            layout.sheets.split_off(layout.kept).into_iter().map(|sheet| sheet.name).collect(),
                        );
                        Err(BooksError::Contended)
                    }
                    error => Err(BooksError::Api(error)),
                }
            }
        }
    }

    /// Writes new pages. Nothing counts on them before the Ledger names them.
    async fn turn(&self, ledger: &ObjectMeta, fresh: &[Sheet]) -> kube::Result<()> {
        let owner = Ledger { metadata: ledger.clone(), spec: LedgerSpec::default() }.owner_ref(&());
        for sheet in fresh {
            let mut page = LedgerPage::new(&sheet.name, sheet.spec());
            page.metadata.namespace = Some(names::NAMESPACE.into());
            page.metadata.owner_references = owner.clone().map(|owner| vec![owner]);
            self.pages.create(&PostParams::default(), &page).await?;
        }
        Ok(())
    }

    /// Deletes pages that count no more, while others go on. One that stays is swept when the books are opened.
    fn discard(&self, dropped: Vec<String>) {
        if dropped.is_empty() {
            return;
        }
        let pages = self.pages.clone();
        tokio::spawn(async move {
            for name in dropped {
                if let Err(error) = pages.delete(&name, &DeleteParams::default()).await {
                    tracing::debug!(%error, page = name, "a page that does not count stays for now");
                }
            }
        });
    }

    /// Deletes pages that somebody has written so long ago who was killed before the Ledger named them.
    async fn sweep(&self, ago: Duration) -> Result<(), BooksError> {
        let pages = self.pages.list(&Default::default()).await?.items;
        if pages.is_empty() {
            return Ok(());
        }
        let ledger = self.api.get_opt(names::LEDGER).await?;
        let counts = |name: &str| ledger.iter().flat_map(|ledger| &ledger.spec.pages).any(|page| page.name == name);
        let old = jiff::Timestamp::now() - ago;
        let is_old = |page: &LedgerPage| page.creation_timestamp().is_some_and(|made| made.0 < old);
        let forgotten = pages.iter().filter(|page| is_old(page) && !counts(&page.name_any()));
        self.discard(forgotten.map(|page| page.name_any()).collect());
        Ok(())
    }

    async fn replace(&self, mut metadata: ObjectMeta, spec: LedgerSpec) -> kube::Result<ObjectMeta> {
        metadata.managed_fields = None;
        let mut ledger = Ledger::new(names::LEDGER, spec);
        ledger.metadata = metadata;
        self.brief.replace(names::LEDGER, &ledger).await
    }

    /// What stands in the books as far as this process knows.
    fn remembered(&self) -> Result<Option<Written>, BooksError> {
        let Some(copies) = &self.seen else { return Ok(self.state().written.clone()) };
        // None yet, or none any more.
        let Some(seen) = copies.get(names::NAMESPACE, names::LEDGER) else { return Ok(None) };
        // While it is written here, what is seen may be that.
        let pen = self.pen.try_lock();
        let mut state = self.state();
        if pen.is_ok() && is_newer(seen.metadata.resource_version.as_deref(), state.version()) {
            let known = state.sheets();
            match Standing::read(&seen.spec, |name| Ok(leaf(&known, name))) {
                Ok(standing) => state.take(Written { standing, metadata: seen.metadata.clone() }),
                // Somebody else has turned over: it is asked for.
                Err(StandingError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(state.written.clone())
    }

    /// Reads what stands in the books.
    async fn load(&self) -> Result<Written, BooksError> {
        let _pen = self.pen.lock().await;
        let known = self.state().sheets();
        let read = load(&self.api, &self.pages, &known).await?;
        let mut state = self.state();
        match read {
            Some((standing, metadata)) => {
                let written = Written { standing, metadata };
                state.take(written.clone());
                Ok(written)
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

fn leaf(known: &[Sheet], name: &str) -> Option<Leaf> {
    known.iter().find(|sheet| sheet.name == name).map(|sheet| sheet.leaf.clone())
}

/// Asks the API for the Ledger and those of its pages that are not `known`.
pub(crate) async fn load(
    ledgers: &Api<Ledger>,
    pages: &Api<LedgerPage>,
    known: &[Sheet],
) -> Result<Option<(Standing, ObjectMeta)>, BooksError> {
    let mut tries = 0;
    loop {
        let Some(ledger) = ledgers.get_opt(names::LEDGER).await? else { return Ok(None) };
        let mut leaves: Vec<(&str, Option<Leaf>)> = Vec::with_capacity(ledger.spec.pages.len());
        for reference in &ledger.spec.pages {
            let found = match leaf(known, &reference.name) {
                Some(leaf) => Some(leaf),
                None => pages.get_opt(&reference.name).await?.map(read_leaf).transpose()?,
            };
            leaves.push((&reference.name, found));
        }
        let found = |name: &str| Ok(leaves.iter().find(|(known, _)| *known == name).and_then(|(_, leaf)| leaf.clone()));
        match Standing::read(&ledger.spec, found) {
            Ok(standing) => return Ok(Some((standing, ledger.metadata))),
            // It may have been turned over since it was read.
            Err(StandingError::Missing { .. }) if tries < READS_MAX => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
        tries += 1;
    }
}

fn read_leaf(page: LedgerPage) -> Result<Leaf, StandingError> {
    Ok(Arc::new(commitments(&page.spec.commitments)?))
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

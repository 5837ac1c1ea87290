//! Exporter: sells what the owner offers. It is the [`rear::Seller`] behind every transport.
//!
//! ```text
//! list ──────▶ own Flavors that match
//! request ───▶ what comes nearest to what is needed, or why nothing does; what others sell, if it is sold on ([`resell`])
//! reserve ───▶ may this be cut from the offer? ─▶ hold in the Ledger ─▶ terms
//! cancel ────▶ held for this buyer? ─▶ free the Ledger
//! subscribe ─▶ the list again, when Flavors, policies or the Ledger change
//! purchase ──▶ the same bytes, signed by the buyer? ─▶ sign ─▶ commit in the Ledger ─▶ Contract ─▶ Allocation
//! renew ─────▶ the next one, in time, and sold so today? ─▶ Ledger, Contract
//! release ───▶ signed by a party? ─▶ free the Ledger ─▶ Contract goes
//! ```
//! Consent is the offer: without a `SharingPolicy` whoever proves a key may buy what is free, at a price of 0. With some they are
//! asked at every request: the first by name that admits the buyer says what is sold to it and for what. [`Decide`] has the last
//! word before each of the first four, giving a hold back excepted. A killed seller loses nothing: terms are made from the Ledger,
//! a sale that was not finished is finished when its buyer asks again, and given up when it does not.

mod act;
mod machines;
mod news;
mod plan;
mod renew;
mod renewal;
mod resell;
mod service;
#[cfg(test)]
mod tests;
mod unproven;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Configuration, Contract, Flavor, KnownCluster, names};
use fluidos_model::market::{Amounts, Asker, COMMITMENTS_MAX, Commitment, Pool, Sale, SharingRefusal, sale};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode, Seller};
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt as _};
use substrate_client::{Access, Caches, Pace};
use tokio::sync::watch;

use crate::{Options, bounded, contracts, convert, events, renewals, terms};
use fluidos_ledger::{Books, BooksError};

/// What is about to be done for a peer.
pub struct Ask<'a> {
    /// What.
    pub act: Act,
    /// The key that it has proven.
    pub peer: Option<NodeId>,
    /// Under which name the Ledger has it: its DID, or where it comes from.
    pub holder: Option<&'a str>,
    /// With which flavor.
    pub flavor: &'a Flavor,
    /// How much of it; `None` is what is left.
    pub amounts: Option<Amounts>,
    /// What is promised to whom; `None` for the first two, which promise nothing.
    pub pool: Option<&'a Pool>,
    /// The transaction, which is not counted among what the peer has.
    pub transaction: Option<&'a str>,
}

/// What a peer can have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// See a flavor.
    List,
    /// Be answered what of it comes nearest to a need.
    Request,
    /// Have some of it held.
    Reserve,
    /// Buy what is held.
    Buy,
}

/// Says whether it may be done, or why not in words that the peer may read. It is asked once for each new hold and
/// sale, not again for a message that is repeated.
pub type Decide = Arc<dyn Fn(&Ask<'_>) -> Result<(), String> + Send + Sync>;

/// Why a peer may have nothing.
enum Unsold {
    /// The policies sell nothing to it.
    Sharing(SharingRefusal),
    /// It may not, or it could not be seen.
    Other(Refusal),
}

impl From<Unsold> for Refusal {
    fn from(unsold: Unsold) -> Self {
        match unsold {
            Unsold::Sharing(refusal) => plan::not_sold(refusal),
            Unsold::Other(refusal) => refusal,
        }
    }
}

impl From<Refusal> for Unsold {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

impl From<act::Error> for Unsold {
    fn from(error: act::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Holds end by the second; looking more often finds nothing.
const SWEEP_LEAST: Duration = Duration::from_millis(250);
/// Contracts and Ledger are compared at least this often.
const SWEEP_MOST: Duration = Duration::from_secs(10);

/// What they are called.
fn named(contracts: &[Arc<Contract>]) -> BTreeSet<&str> {
    contracts.iter().filter_map(|contract| contract.metadata.name.as_deref()).collect()
}

/// The seller of this node.
pub struct Exporter {
    client: Client,
    caches: Caches,
    copies: act::Copies,
    options: Options,
    books: Books,
    /// What buyers said about themselves when they reserved, by transaction: at most one per promise.
    buyers: Mutex<BTreeMap<String, rear::Party>>,
    /// Grows when what is said to anybody may have changed.
    news: watch::Sender<u64>,
    /// What is sold on that others sell.
    resell: resell::Resell,
}

impl Exporter {
    /// Returns the seller. Nothing is sold before [`Exporter::open`].
    pub fn new(access: impl Into<Access>, options: Options) -> Self {
        let access = access.into();
        let books = Books::shared(&access);
        let Access { client, caches } = access;
        Self {
            client,
            copies: act::Copies::new(&caches),
            caches,
            options,
            books,
            buyers: Mutex::default(),
            news: watch::Sender::new(0),
            resell: Default::default(),
        }
    }

    /// Opens the Ledger with the capacity of the offer, or what the machines have of it. A lower one than before keeps every promise.
    ///
    /// # Errors
    /// [`BooksError`] if the Ledger cannot be written or read.
    pub async fn open(&self) -> Result<(), BooksError> {
        self.books.open(self.capacity().await).await
    }

    /// Opens the Ledger and keeps it and the contracts in order, and who subscribes current, for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.keep(), self.follow_machines(), news::watch(&self.caches, &self.news));
    }

    async fn keep(&self) {
        while let Err(error) = self.open().await {
            tracing::warn!(%error, "the books cannot be opened yet");
            tokio::time::sleep(SWEEP_MOST).await;
        }
        if let Err(error) = self.books.tidy().await {
            tracing::warn!(%error, "what nobody counts on stays in the books until the next start");
        }
        let mut pace = Pace::default();
        loop {
            pace.begin().await;
            let next = match self.sweep(Timestamp::now()).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "books and contracts were not compared");
                    None
                }
            };
            pace.end();
            let until_next = next.and_then(|next| Duration::try_from(next.duration_since(Timestamp::now())).ok());
            let pause = until_next.unwrap_or(SWEEP_MOST).clamp(SWEEP_LEAST, SWEEP_MOST);
            // Both only wait: losing the race loses nothing.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.resell.wake.notified() => {}
            }
        }
    }

    /// Ends what is over and mends what was interrupted; returns when the next promise ends.
    async fn sweep(&self, now: Timestamp) -> Result<Option<Timestamp>, act::Error> {
        act::judge(&self.client).await?;
        // Contracts first: one that is there was committed before, so what has no promise afterwards has lost it.
        let mut sold = self.copies.sold(self.options.key.id(), &self.options.speakers).await;
        let Some(pool) = self.books.read().await? else {
            // Who only sells on has no books before its first promise.
            self.settle(&Pool::default(), now).await?;
            return Ok(None);
        };
        let mut mending = plan::mend(&pool, &named(&sold), self.options.hold, now);
        if mending != plan::Mending::default() {
            // Copies may be behind, and what is ended here does not come back: the API is asked, again before the books.
            sold = act::sold(&self.client, self.options.key.id(), &self.options.speakers).await?;
            let pool = self.books.read().await?.unwrap_or_default();
            mending = plan::mend(&pool, &named(&sold), self.options.hold, now);
        }
        for (transaction, why) in &mending.free {
            tracing::info!(transaction, why, "a promise ends");
        }
        let freed = |pool: &Pool| {
            let pool = mending.free.iter().fold(pool.clone(), |pool, (transaction, _)| pool.release(transaction));
            Ok::<_, BooksError>(pool.expire(now))
        };
        let pool = self.books.change(freed).await?;
        // One that ends already is the contract manager's: it has freed its promise and tells the buyer.
        sold.retain(|known| known.metadata.deletion_timestamp.is_none());
        for contract in
            sold.iter().filter(|known| known.metadata.name.as_ref().is_some_and(|n| mending.end.contains(n)))
        {
            tracing::info!(contract = contract.metadata.name, "a contract ends: nothing is promised for it any more");
            contracts::forget(&self.client, contract).await?;
        }
        self.buyers().retain(|transaction, _| pool.commitment(transaction).is_some());
        self.settle(&pool, now).await?;
        Ok(pool.next_expiry())
    }

    fn buyers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, rear::Party>> {
        // A map of what others said about themselves is never half written.
        self.buyers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the buyer of a transaction said about itself; after a restart, what is known of it from elsewhere.
    async fn buyer(&self, transaction: &str, buyer: NodeId) -> Result<rear::Party, act::Error> {
        let told = self.buyers().get(transaction).cloned();
        if let Some(told) = told {
            return Ok(told);
        }
        let api = Api::<KnownCluster>::namespaced(self.client.clone(), names::NAMESPACE);
        let known = api.list(&Default::default()).await?.items;
        let known = known.into_iter().find(|known| known.spec.did.as_deref() == Some(&buyer.to_string()));
        Ok(known.map_or_else(
            || rear::Party { node_id: buyer.tag(), ..rear::Party::default() },
            |known| rear::Party {
                node_id: buyer.tag(),
                address: known.spec.address,
                domain: known.spec.domain.unwrap_or_default(),
                name: known.spec.name,
                ..rear::Party::default()
            },
        ))
    }

    /// A release is signed by the key that speaks for a party now.
    fn check_release(
        &self,
        release: &Signed<rear::ReleaseTerms>,
        contract: &Signed<rear::ContractTerms>,
    ) -> Result<NodeId, rear::TermsError> {
        rear::check_release(release, contract, |named| self.options.speakers.current(named))
    }

    /// What is held to become a contract of this name.
    fn held_as<'a>(&self, pool: &'a Pool, name: &str) -> Option<&'a Commitment> {
        let held = pool.commitments.iter().find(|known| known.is_held() && terms::contract_name(known) == name);
        held.map(AsRef::as_ref)
    }

    /// Whether anything is sold at all for now.
    fn open_now(&self) -> Result<(), Refusal> {
        let closed = self.options.closed.as_ref().and_then(|closed| closed());
        closed.map_or(Ok(()), |why| Err(Refusal::new(RefusalCode::Unavailable, why)))
    }

    fn decide(&self, ask: &Ask<'_>) -> Result<(), Refusal> {
        self.open_now()?;
        let Some(decide) = &self.options.decide else { return Ok(()) };
        decide(ask).map_err(|why| Refusal::new(RefusalCode::Forbidden, why))
    }

    /// The flavors that a peer may have. If there are some, and none is for it, it is told why.
    fn permitted(&self, act: Act, flavors: Vec<Flavor>, peer: Option<NodeId>) -> Result<Vec<Flavor>, Refusal> {
        let (mut shown, mut refused) = (Vec::new(), None);
        for flavor in flavors {
            match self.decide(&Ask {
                act,
                peer,
                holder: None,
                flavor: &flavor,
                amounts: None,
                pool: None,
                transaction: None,
            }) {
                Ok(()) => shown.push(flavor),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            Some(refusal) if shown.is_empty() => Err(refusal),
            _ => Ok(shown),
        }
    }

    /// The flavors that a peer may have now, each with what of it is sold to it: what is cut as it is wanted first, then the plans.
    async fn priced(&self, act: Act, peer: Option<NodeId>) -> Result<Vec<(Flavor, Sale)>, Unsold> {
        let policies = self.copies.policies(&self.options.speakers).await;
        let pool = self.books.glance().await.map_err(act::Error::from)?.unwrap_or_default();
        let shop = self.copies.shop(&self.options).await;
        let flavors = self.copies.flavors(self.options.key.id()).await;
        let (buyer, now) = (peer.map(|node| node.to_string()), Timestamp::now());
        let rating = match &buyer {
            Some(buyer) => self.copies.rating(buyer).await,
            None => None,
        };
        let asker = Asker { did: buyer.as_deref(), rating };
        let (mut sold, mut refused) = (Vec::new(), None);
        for flavor in flavors {
            let name = flavor.metadata.name.as_deref().unwrap_or_default();
            let of_plan = shop.plans.get(name);
            // A flavor of a plan or service that is not sold any more: it goes in a moment.
            if of_plan.is_none() && service::is_fixed(&flavor) {
                continue;
            }
            match plan::sold_now(of_plan, &policies, &pool, asker, now) {
                Ok(sale) => sold.push((flavor, sale)),
                // Why what is cut as it is wanted is not sold says more than why a plan is not.
                Err(refusal) if of_plan.is_none() || refused.is_none() => refused = Some(refusal),
                Err(_) => {}
            }
        }
        if let Some(refusal) = refused.filter(|_| sold.is_empty()) {
            return Err(Unsold::Sharing(refusal));
        }
        if sold.is_empty() {
            sale(&policies, &pool, asker, now).map_err(Unsold::Sharing)?;
        }
        sold.sort_by_key(|(_, sale)| sale.plan.is_some());
        let flavors = self.permitted(act, sold.iter().map(|(flavor, _)| flavor.clone()).collect(), peer)?;
        sold.retain(|(flavor, _)| flavors.iter().any(|permitted| permitted.metadata.name == flavor.metadata.name));
        Ok(sold)
    }

    fn terms(&self, commitment: &Commitment) -> Result<Signed<rear::ContractTerms>, Refusal> {
        terms::of_commitment(commitment, self.options.key.id(), self.options.hold).map_err(|error| {
            tracing::warn!(%error, "a promise has no terms");
            Refusal::new(RefusalCode::Internal, "the terms of this transaction cannot be written")
        })
    }

    /// Holds what is asked for, under the name by which the Ledger has the buyer.
    async fn hold(
        &self,
        request: &rear::ReserveRequest,
        buyer: &str,
        peer: Option<NodeId>,
    ) -> Result<Commitment, Refusal> {
        let flavor = self.copies.flavor(&request.flavor_id, self.options.key.id()).await;
        let flavor = flavor.ok_or_else(|| act::Error::NoFlavor { name: request.flavor_id.clone() })?;
        let policies = self.copies.policies(&self.options.speakers).await;
        let shop = self.copies.shop(&self.options).await;
        let of_plan = shop.plans.get(&request.flavor_id);
        if of_plan.is_none() && service::is_fixed(&flavor) {
            return Err(act::Error::NoFlavor { name: request.flavor_id.clone() }.into());
        }
        let (asked, digest) = match shop.recipes.get(&request.flavor_id) {
            Some(_) if peer.is_none() => {
                return Err(Refusal::new(RefusalCode::Unauthenticated, "services are sold to who proves a key"));
            }
            Some(recipe) => (None, Some(service::ordered(recipe, request.configuration.as_ref())?)),
            None => (request.configuration.as_ref().map(plan::asked).transpose()?, None),
        };
        let transaction = request.transaction_id.clone();
        let rating = self.copies.rating(buyer).await;
        let transaction = transaction.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let held = self.books.change(|pool| {
            // The time of the try that counts, or a hold would begin in the past.
            let now = Timestamp::now();
            let term = request.term_seconds.map(Duration::from_secs);
            let (hold, service) = (self.options.hold, digest.as_deref());
            let wish = plan::Wish {
                transaction: &transaction,
                buyer,
                rating,
                amounts: asked.clone(),
                term,
                hold,
                plan: of_plan,
                service,
            };
            let hold = plan::admit(&flavor, &policies, pool, &wish, now)?;
            if pool.commitment(&transaction).is_none_or(|known| known.is_over(now)) {
                self.decide(&Ask {
                    act: Act::Reserve,
                    peer,
                    holder: Some(buyer),
                    flavor: &flavor,
                    amounts: Some(hold.amounts.clone()),
                    pool: Some(pool),
                    transaction: Some(&transaction),
                })?;
            }
            pool.hold(&hold, now).map_err(plan::refusal)
        });
        let pool = held.await.map_err(|error: act::Error| Refusal::from(error))?;
        let gone = || Refusal::new(RefusalCode::Internal, "what was held is gone");
        self.remember(&transaction, &request.buyer);
        pool.commitment(&transaction).cloned().ok_or_else(gone)
    }

    /// Remembers what a buyer said about itself.
    fn remember(&self, transaction: &str, buyer: &rear::Party) {
        let mut buyers = self.buyers();
        if buyers.len() < COMMITMENTS_MAX || buyers.contains_key(transaction) {
            buyers.insert(transaction.to_owned(), buyer.clone());
        }
    }

    /// The contract of a promise that has been sold, written if it is not there.
    async fn contract(
        &self,
        commitment: &Commitment,
        signed: &Signed<rear::ContractTerms>,
        (request, configuration): (&rear::PurchaseRequest, Configuration),
        buyer: NodeId,
    ) -> Result<rear::Contract, act::Error> {
        let flavor = self.flavor_of(commitment).await?;
        let party = self.buyer(&commitment.transaction, buyer).await?;
        let bought = plan::Bought { flavor: &flavor, signed, configuration };
        let mut spec = plan::contract_spec(bought, request, &party, &self.options.identity)?;
        spec.served_by.clone_from(&commitment.served_by);
        let object = contracts::contract(&signed.value().contract_id, spec, buyer, None);
        let written = contracts::sell(&self.client, &object).await?;
        Ok(plan::sold(&written, &flavor))
    }
}

#[async_trait]
impl Seller for Exporter {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        let (slices, services) = (plan::selector(selector)?, service::selector(selector));
        if slices.is_none() && services.is_none() {
            return Ok(Vec::new());
        }
        self.open_now()?;
        let priced = match self.priced(Act::List, peer.node).await {
            Ok(priced) => priced,
            // Official nodes ask without a key: what is not for them is not there.
            Err(Unsold::Sharing(_)) if peer.node.is_none() => return Ok(Vec::new()),
            Err(unsold) => return Err(unsold.into()),
        };
        let listed = priced.iter().flat_map(|(flavor, sale)| {
            let slice = slices.as_ref().map(|wanted| plan::listed(std::slice::from_ref(flavor), sale, wanted));
            let of_services = services.as_ref().and_then(|wanted| service::listed(flavor, sale, wanted));
            slice.into_iter().flatten().chain(of_services)
        });
        let asked_for =
            |flavor: &Flavor| if service::is_service(flavor) { services.is_some() } else { slices.is_some() };
        let resold = self.resell.listed(peer.node).into_iter().filter(asked_for);
        let resold = resold.map(|flavor| convert::wire_flavor(&flavor.name_any(), &flavor.spec));
        Ok(listed.chain(resold).collect())
    }

    async fn list_offers(&self, query: &rear::OffersQuery, peer: &rear::Peer) -> Result<rear::OffersPage, Refusal> {
        let shop = self.copies.shop(&self.options).await;
        let priced = match self.priced(Act::List, peer.node).await {
            Ok(priced) => priced,
            Err(Unsold::Sharing(_)) if peer.node.is_none() => return Ok(rear::OffersPage::default()),
            Err(unsold) => return Err(unsold.into()),
        };
        Ok(plan::page(&shop.shelves, &priced, query))
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.news.subscribe())
    }

    async fn request(&self, request: rear::ResourceRequest, buyer: NodeId) -> Result<rear::ResourceAnswer, Refusal> {
        self.open_now()?;
        let path = self.path(request.path.as_ref(), buyer)?;
        let priced = self.priced(Act::Request, Some(buyer)).await?;
        if request.flavor_type == rear::FlavorType::Service {
            let answer = service::answered(&priced, &request);
            return self.with_resold(answer, &request, &path, buyer).await;
        }
        let slices = priced.iter().filter(|(flavor, _)| !service::is_service(flavor));
        let answers = slices.map(|(flavor, sale)| plan::answered(std::slice::from_ref(flavor), sale, &request));
        let answer = plan::together(answers.collect::<Result<Vec<_>, _>>()?);
        self.with_resold(answer, &request, &path, buyer).await
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        let path = self.path(request.path.as_ref(), buyer)?;
        let commitment = match self.hold_resold(&request, &path, buyer).await? {
            Some(resold) => resold,
            None => self.hold(&request, &buyer.to_string(), Some(buyer)).await?,
        };
        let terms = self.terms(&commitment)?;
        Ok(rear::Transaction {
            cluster_id: buyer.to_string(),
            terms: Some(terms.envelope()),
            ..plan::transaction(&commitment, request)?
        })
    }

    async fn reserve_unproven(
        &self,
        request: rear::ReserveRequest,
        origin: IpAddr,
    ) -> Result<rear::Transaction, Refusal> {
        let commitment = self.hold(&request, &unproven::holder(origin), None).await?;
        plan::transaction(&commitment, request)
    }

    async fn purchase_unproven(
        &self,
        transaction_id: &str,
        _request: rear::PurchaseRequest,
        origin: IpAddr,
    ) -> Result<rear::Contract, Refusal> {
        self.sell_unproven(transaction_id, origin).await
    }

    async fn cancel(&self, transaction_id: &str, buyer: NodeId) -> Result<(), Refusal> {
        let buyer = buyer.to_string();
        let given_back = |pool: &Pool| match pool.commitment(transaction_id).filter(|known| known.buyer == buyer) {
            Some(known) if known.is_held() => Ok(pool.release(transaction_id)),
            Some(_) => {
                let detail = format!("transaction {transaction_id} is sold: release its contract");
                Err(act::Error::Refused(Refusal::new(RefusalCode::Conflict, detail)))
            }
            // Whether somebody else holds something under this name is not this buyer's business.
            None => Ok(pool.clone()),
        };
        let changed = self.books.change(given_back).await;
        self.resell.wake.notify_one();
        match changed {
            Err(act::Error::Books(BooksError::Missing)) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    async fn purchase(
        &self,
        transaction_id: &str,
        request: rear::PurchaseRequest,
        mut signed: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        let mut pool = self.books.glance().await.map_err(act::Error::from)?.unwrap_or_default();
        if pool.commitment(transaction_id).is_none() {
            pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
        }
        let commitment = pool.commitment(transaction_id).filter(|known| known.buyer == buyer.to_string());
        let commitment = commitment.ok_or_else(|| {
            let detail =
                format!("transaction {transaction_id} is not held for {buyer}: it never was, or its time is over");
            Refusal::new(RefusalCode::Expired, detail)
        })?;
        let offered = self.terms(commitment)?;
        let differs = |error: rear::TermsError| Refusal::new(RefusalCode::Conflict, error.to_string());
        rear::check_purchase(&offered.envelope(), &signed, buyer).map_err(differs)?;
        let configuration = service::configured(commitment, signed.value(), &request)?;
        if commitment.is_held() {
            let flavor = self.flavor_of(commitment).await?;
            self.decide(&Ask {
                act: Act::Buy,
                peer: Some(buyer),
                holder: Some(&commitment.buyer),
                flavor: &flavor,
                amounts: Some(commitment.amounts.clone()),
                pool: Some(&pool),
                transaction: Some(transaction_id),
            })?;
        }
        signed.sign(&self.options.key).map_err(|error| {
            tracing::warn!(%error, "a contract could not be signed");
            Refusal::new(RefusalCode::Internal, "the contract cannot be signed")
        })?;
        self.buy_behind(commitment).await?;
        let until = signed.value().until.as_ref().and_then(|until| until.parse::<Timestamp>().ok());
        let contract = &signed.value().contract_id;
        let sold = |pool: &Pool| pool.commit(transaction_id, contract, until, Timestamp::now()).map_err(plan::refusal);
        self.books.change(sold).await.map_err(|error: act::Error| Refusal::from(error))?;
        Ok(self.contract(commitment, &signed, (&request, configuration), buyer).await?)
    }

    async fn renew(
        &self,
        contract_id: &str,
        renewal: Signed<rear::RenewalTerms>,
        party: NodeId,
    ) -> Result<Signed<rear::RenewalTerms>, Refusal> {
        self.renewed(contract_id, renewal, party).await
    }

    async fn release(
        &self,
        contract_id: &str,
        release: Signed<rear::ReleaseTerms>,
        party: NodeId,
    ) -> Result<(), Refusal> {
        let forbidden = |error: rear::TermsError| Refusal::new(RefusalCode::Forbidden, error.to_string());
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        let known = api.get_opt(contract_id).await.map_err(act::Error::from)?;
        let Some(known) = known else {
            // Sold, but its contract was never written: only the ledger knows, and its terms are made from it.
            let pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
            if let Some(commitment) = plan::sold_as(&pool, contract_id) {
                self.check_release(&release, &self.terms(commitment)?).map_err(forbidden)?;
                self.books.free(&commitment.transaction).await.map_err(act::Error::from)?;
            } else if let Some(held) = self.held_as(&pool, contract_id) {
                // Its buyer does not wait for the sale any more, which may be under way: it finds nothing held then.
                self.check_release(&release, &self.terms(held)?).map_err(forbidden)?;
                self.books.free(&held.transaction).await.map_err(act::Error::from)?;
            }
            self.resell.wake.notify_one();
            return Ok(());
        };
        let signed = terms::of_contract(&known).map_err(|error| {
            tracing::warn!(%error, "a release of a contract that holds no terms");
            Refusal::new(RefusalCode::Conflict, format!("contract {contract_id} has no terms that could be released"))
        })?;
        self.check_release(&release, &signed).map_err(forbidden)?;
        let sells = self.options.speakers.current(&signed.value().seller) == self.options.key.id();
        let said = known.status.as_ref().and_then(|status| status.ends.as_ref()).and_then(|ends| ends.parse().ok());
        let end = plan::end(&signed, &release, sells, (said, renewals::until(&known)), Timestamp::now());
        if let Some(warning) = end.warning {
            contracts::cut_short(&self.client, &known).await.map_err(act::Error::from)?;
            events::warn(&self.client, &known, "ReleasedWithoutNotice", &format!("{party} {warning}")).await;
        }
        if let Some(ends) = end.later {
            let reason = bounded(&release.value().reason, 256);
            let message = format!("{party} ends this contract at {ends}: {reason}");
            events::warn(&self.client, &known, "NoticeByPeer", &message).await;
            contracts::ends(&self.client, &known, ends, &reason, !sells).await.map_err(act::Error::from)?;
            self.resell.wake.notify_one();
            return Ok(());
        }
        tracing::info!(contract = contract_id, %party, reason = release.value().reason, "released by the other side");
        let message = format!("{party} has ended this contract: {}", bounded(&release.value().reason, 256));
        events::warn(&self.client, &known, "ReleasedByPeer", &message).await;
        if sells {
            self.books.free(&signed.value().transaction_id).await.map_err(act::Error::from)?;
        }
        contracts::forget(&self.client, &known).await.map_err(act::Error::from)?;
        self.resell.wake.notify_one();
        Ok(())
    }
}

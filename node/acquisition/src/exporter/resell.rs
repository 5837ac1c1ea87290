//! Sells on what others sell, where the own offer does not suffice and a SharingPolicy says so (`reselling`).
//!
//! A **resale** is one contract that is sold here (to A) and one that is bought for it (from P). The sold one names the other in
//! `spec.servedBy`, and so does its promise in the Ledger, which takes nothing of the own capacity.
//!
//! ```text
//!      A                         R (here)                                          P
//!  request ──▶ path, policy, decision point ──▶ quote, in memory ◀── request ─────▶
//!  reserve ──▶ Solver, Reservation ──────────────────────────────── reserve ──────▶ held
//!              what is signed for P ─▶ Ledger: held for A, servedBy
//!  purchase ─▶ A has signed? decision point ─────────────────────── purchase ─────▶ sold
//!              Contract with P, Allocation ─▶ Ledger: sold to A ─▶ Contract with A
//!  release ──▶ Ledger ─▶ [settle] the Solver goes ───────────────── release ──────▶
//! ```
//! What is sold here is promised by the Ledger, so whoever was killed anywhere finds in it what is needed: a purchase that no promise
//! names is given back, a contract that nothing serves ends with its reason. Nothing is sold before what serves it is bought.
//!
//! A service is configured by A: R checks that by the schema that P has told, and hands it on; P checks it again. How large it is stands in what
//! P signs, and so in what R signs. The rest of a service, credentials and packets, is of other rooms (node/services, node/fabric).
//!
//! It is renewed when its buyer asks, if what serves it is ([`renew`]). After the loss of a disk what serves what is known again by the transaction of
//! the purchase behind, which begins with the digest of what it was bought for.
//!
//! Limits: whole as it was asked for, from one seller.

mod hold;
mod plan;
mod quotes;
mod renew;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::intent::parse;
use fluidos_model::kinds::{Configuration, Flavor, FlavorSpec};
use fluidos_model::market::{Amounts, Asker, Pool, Reselling, Sale, credit, sale, sold_on};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::{Notify, Semaphore};

use self::quotes::{Quote, Quotes, Said};
use super::{Act, Ask, Exporter, act, plan as own, service};
use crate::convert;
use crate::importer::resale;

/// Others are asked for so many buyers at the same time; each is a shortlist of connections.
const ASKING_MAX: usize = 4;
/// Where a buyer does not say how long it waits: as long as our own buyers do.
const WAIT_USUAL: Duration = Duration::from_secs(2);
/// What a buyer waits at most is what our own may be told to.
const WAIT_MOST: Duration = Duration::from_secs(9);
/// Of what a buyer waits, others have three quarters: the rest is the way back.
const WAIT_PARTS: (u32, u32) = (3, 4);

/// Holds and purchases behind that are under way at the same time: each is some connections.
const BUSY_MAX: usize = 16;

/// What an exporter remembers of what it sells on.
pub(super) struct Resell {
    quotes: Mutex<Quotes>,
    asking: Semaphore,
    /// Purchases that somebody is at, by their digest.
    busy: Mutex<BTreeSet<String>>,
    /// Rung when something may have to be settled.
    pub wake: Notify,
}

impl Default for Resell {
    fn default() -> Self {
        let asking = Semaphore::new(ASKING_MAX);
        Self { quotes: Mutex::default(), asking, busy: Mutex::default(), wake: Notify::new() }
    }
}

/// One at a time works on a purchase; dropped, it is anybody's again.
struct Busy<'a> {
    resell: &'a Resell,
    hex: String,
    /// Nothing is left to be settled.
    done: bool,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.resell.busy().remove(&self.hex);
        if !self.done {
            self.resell.wake.notify_one();
        }
    }
}

impl Resell {
    fn quotes(&self) -> MutexGuard<'_, Quotes> {
        // Quotes promise nothing: half of them are quotes, too.
        self.quotes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of names is never half written.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, hex: &str) -> Result<Busy<'_>, Refusal> {
        let mut busy = self.busy();
        if busy.len() >= BUSY_MAX {
            return Err(Refusal::new(RefusalCode::Unavailable, "resale: others are being bought for: ask again"));
        }
        if busy.insert(hex.to_owned()) {
            return Ok(Busy { resell: self, hex: hex.to_owned(), done: false });
        }
        Err(Refusal::new(RefusalCode::Unavailable, "resale: this transaction is being worked on: ask again"))
    }

    /// What was offered to a peer and still is: a list says what can be bought.
    pub fn listed(&self, peer: Option<NodeId>) -> Vec<Flavor> {
        peer.map(|peer| self.quotes().of(peer, Timestamp::now())).unwrap_or_default()
    }
}

/// By which rules something is sold on to a buyer.
struct Rules {
    pool: Arc<Pool>,
    sale: Sale,
    reselling: Reselling,
}

impl Exporter {
    /// Who stands behind a request of a peer. A node that stands there itself refuses: it would buy from itself.
    pub(super) fn path(&self, path: Option<&rear::Envelope>, peer: NodeId) -> Result<rear::Path, Refusal> {
        let Some(envelope) = path else { return Ok(rear::Path::default()) };
        let read = rear::Path::read(envelope, peer, &self.options.key, Timestamp::now());
        read.map_err(|error| error.refusal())
    }

    /// By which rules something is sold on to a buyer; `None` is not. Nothing is, where a policy cannot be read.
    async fn rules(&self, buyer: &str) -> Result<Option<Rules>, Refusal> {
        let policies = self.copies.policies(&self.options.speakers).await;
        if policies.iter().flatten().all(|policy| policy.reselling.is_none()) {
            return Ok(None);
        }
        let pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
        let (rating, now) = (self.copies.rating(buyer).await, Timestamp::now());
        let sale = sale(&policies, &pool, Asker { did: Some(buyer), rating }, now).map_err(own::not_sold)?;
        credit(&policies, &sale, &pool, buyer, now).map_err(own::not_sold)?;
        Ok(sale.reselling.clone().map(|reselling| Rules { pool, sale, reselling }))
    }

    /// Adds to an answer what others would sell for what a buyer needs, if the own offer does not suffice.
    pub(super) async fn with_resold(
        &self,
        answer: rear::ResourceAnswer,
        request: &rear::ResourceRequest,
        path: &rear::Path,
        buyer: NodeId,
    ) -> Result<rear::ResourceAnswer, Refusal> {
        let suffices = |offer: &rear::ResourceOffer| offer.fit != rear::Fit::Less;
        if answer.offers.iter().any(suffices) {
            return Ok(answer);
        }
        let Some(rules) = self.rules(&buyer.to_string()).await? else { return Ok(answer) };
        let said = match rules.reselling.admits(path.len()) {
            Ok(()) => self.ask_behind(&rules, request, path, buyer).await?,
            Err(reason) => Said::Denied(reason),
        };
        let quote = match said {
            Said::Offered(quote) => quote,
            Said::Denied(reason) => {
                let reasons = answer.denial.into_iter().chain([reason]).collect::<Vec<_>>().join("; ");
                // Beside an offer of less it says why there is no more.
                return Ok(rear::ResourceAnswer { denial: Some(crate::bounded(&reasons, 512)), ..answer });
            }
        };
        let offer = self.offer(&quote, request, &rules.sale)?;
        Ok(rear::ResourceAnswer { offers: answer.offers.into_iter().chain([offer]).collect(), ..Default::default() })
    }

    fn offer(
        &self,
        quote: &Quote,
        request: &rear::ResourceRequest,
        sale: &Sale,
    ) -> Result<rear::ResourceOffer, Refusal> {
        let name = quote.flavor.name_any();
        let term = own::term(sale, request.term_seconds.map(Duration::from_secs));
        if service::is_service(&quote.flavor) {
            return Ok(service::offer(convert::wire_flavor(&name, &quote.flavor.spec), term.as_secs()));
        }
        let asked = rear::Selector { flavor_type: Some(request.flavor_type), filters: request.filters.clone() };
        let nearest = |wanted| quote.flavor.spec.offer(&name).ok()?.nearest(&wanted).ok();
        let fit = own::selector(&asked)?.and_then(nearest).map_or(rear::Fit::More, |(fit, _)| own::fit(fit));
        let configuration = Configuration::k8slice(&quote.amounts);
        let configuration = configuration.map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string()))?;
        let price = fluidos_model::kinds::FlavorPrice::from(&quote.price);
        Ok(rear::ResourceOffer {
            fit,
            flavor: convert::wire_flavor(&name, &quote.flavor.spec),
            configuration: convert::wire_configuration(&configuration),
            price: rear::Price {
                amount: price.amount,
                currency: price.currency,
                period: price.period,
                unit: price.unit,
            },
            term_seconds: Some(term.as_secs()),
        })
    }

    /// Asks others, unless they have been asked a moment ago. The decision point is asked first, with a flavor of which only the kind is
    /// known, and again with what was found.
    async fn ask_behind(
        &self,
        rules: &Rules,
        request: &rear::ResourceRequest,
        path: &rear::Path,
        buyer: NodeId,
    ) -> Result<Said, Refusal> {
        let (identity, tag) = (&self.options.identity, self.options.key.id().tag());
        let name = plan::flavor_name(identity, &tag, &buyer.to_string(), request);
        let asked = rear::Selector { flavor_type: Some(request.flavor_type), filters: request.filters.clone() };
        let sought = match own::selector(&asked)? {
            Some(selector) => Some(resale::Sought::Slice(selector)),
            None => service::selector(&asked).map(resale::Sought::Service),
        };
        let Some(sought) = sought else {
            return Ok(Said::Denied("resale: only k8slice and service are sold on".into()));
        };
        let intents = parse(request.intents.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if !intents.is_clear() {
            return Ok(Said::Denied(intents.warnings().join("; ")));
        }
        let mut unknown = Flavor::new(&name, FlavorSpec { owner: identity.clone(), ..FlavorSpec::default() });
        unknown.spec.flavor_type.type_identifier = convert::flavor_type(request.flavor_type);
        self.may(Act::Request, &unknown, buyer, None)?;
        let now = Timestamp::now();
        if let Some(said) = self.resell.quotes().fresh(&name, buyer, now) {
            return Ok(said);
        }
        let Ok(_asking) = self.resell.asking.try_acquire() else {
            return Ok(Said::Denied(format!("resale: others are being asked for {ASKING_MAX} buyers, ask again")));
        };
        if let Err(reason) = self.resell.quotes().admit(buyer, now) {
            return Ok(Said::Denied(reason));
        }
        let wait = request.wait_millis.map_or(WAIT_USUAL, Duration::from_millis).min(WAIT_MOST);
        let asked = resale::Asked {
            request,
            sought: &sought,
            intents: &intents,
            behind: path,
            buyer,
            reselling: &rules.reselling,
            deadline: wait * WAIT_PARTS.0 / WAIT_PARTS.1,
            promised: &plan::promised(&rules.pool, now),
        };
        let found = resale::offers(&self.client, &self.options, &asked).await.map_err(act::Error::from)?;
        let said = self.quote(&name, rules, found, buyer);
        self.resell.quotes().keep(name, buyer, said.clone(), Timestamp::now());
        Ok(said)
    }

    /// What a buyer is told of what was found. Who was asked, and what they said, is not its business.
    fn quote(&self, name: &str, rules: &Rules, found: resale::Found, buyer: NodeId) -> Said {
        let resale::Found { offers, asked, too_dear, circle } = found;
        let Some((price, offers)) = plan::quoted(&rules.reselling, offers) else {
            let why = match (asked, too_dear, circle) {
                (0, ..) => "nobody is known who may be asked",
                (_, Some(_), _) => "ceiling: the seller may not pay what it costs elsewhere (its AcquisitionPolicy)",
                (_, None, true) => {
                    "loop: others were asked, and stand behind this request themselves or sell nothing that fits"
                }
                (_, None, false) => "others were asked, and sell nothing that fits",
            };
            return Said::Denied(format!("resale: {why}"));
        };
        let made = offers.first().and_then(|best| {
            let conditions = sold_on(&resale::conditions(best).ok()?);
            let told = (&best.buys, &price);
            let flavor = plan::flavor(name, &best.flavor.spec, told, &conditions, &self.options.identity).ok()?;
            Some((flavor, best.buys.clone()))
        });
        let Some((flavor, amounts)) = made else {
            return Said::Denied("resale: what others offer cannot be read".into());
        };
        match self.may(Act::Request, &flavor, buyer, None) {
            Ok(()) => Said::Offered(Box::new(Quote { flavor, amounts, price, offers })),
            Err(refusal) => Said::Denied(refusal.detail),
        }
    }

    fn may(&self, act: Act, flavor: &Flavor, buyer: NodeId, of: Option<(&Pool, &str, Amounts)>) -> Result<(), Refusal> {
        self.decide(&Ask {
            act,
            peer: Some(buyer),
            holder: of.is_some().then(|| buyer.to_string()).as_deref(),
            flavor,
            amounts: of.clone().map(|(_, _, amounts)| amounts),
            pool: of.clone().map(|(pool, _, _)| pool),
            transaction: of.map(|(_, transaction, _)| transaction),
        })
    }
}

//! Holds and buys what is sold on: behind first, then here.

use std::time::Instant;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{Flavor, FlavorType, Selector, Solver, SolverSpec, names};
use fluidos_model::market::{Commitment, HoldRequest, Pool};
use fluidos_rear as rear;
use fluidos_rear::{Refusal, RefusalCode};
use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use super::plan::Order;
use super::quotes::Quote;
use super::{Rules, plan};
use crate::exporter::{Act, Exporter, act, plan as own, service};
use crate::importer::view::Offered;
use crate::importer::{Stop, resale};
use fluidos_ledger::BooksError;

/// What a buyer wants held of what was quoted to it: all of a slice, or a service as it is configured.
fn ordered(quote: &Quote, request: &rear::ReserveRequest) -> Result<Order, Refusal> {
    let configuration = request.configuration.as_ref();
    if service::is_service(&quote.flavor) {
        let (configuration, digest) = service::ordered_behind(&quote.flavor, configuration)?;
        return Ok(Order::Service(Box::new(configuration), digest));
    }
    match configuration.map(own::asked).transpose()?.filter(|asked| *asked != quote.amounts) {
        Some(asked) => {
            let detail = format!("resale: {asked} asked for, needed all of what was offered: {}", quote.amounts);
            Err(Refusal::new(RefusalCode::Conflict, detail))
        }
        None => Ok(Order::Slice(quote.amounts.clone())),
    }
}

impl Exporter {
    /// Holds what was quoted to a buyer, there first and then here; `None` is about what is not sold on.
    pub(in crate::exporter) async fn hold_resold(
        &self,
        request: &rear::ReserveRequest,
        path: &rear::Path,
        buyer: NodeId,
    ) -> Result<Option<Commitment>, Refusal> {
        let (identity, tag) = (&self.options.identity, self.options.key.id().tag());
        if !plan::is_resale(&request.flavor_id, identity, &tag) {
            return Ok(None);
        }
        let holder = buyer.to_string();
        let transaction = request.transaction_id.clone();
        let transaction = transaction.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let conflict = |reason: String| Refusal::new(RefusalCode::Conflict, reason);
        let other = || conflict(format!("transaction {transaction} exists with other content"));
        let pool = self.books.read().await.map_err(act::Error::from)?.unwrap_or_default();
        let live = pool.commitment(&transaction).filter(|known| !known.is_over(Timestamp::now()));
        if let Some(known) = live.filter(|known| known.served_by.is_some()) {
            let same = plan::is_again(known, request, &holder)?;
            return if same { Ok(Some(known.clone())) } else { Err(other()) };
        }
        let quote = self.resell.quotes().find(&request.flavor_id, buyer, Timestamp::now());
        let quote = quote.ok_or_else(|| {
            // It may be offered again: its time is over, or this process has not offered it.
            let detail = "resale: what was offered is not known any more: ask again what is offered";
            Refusal::new(RefusalCode::Unavailable, detail)
        })?;
        if live.is_some() {
            return Err(other());
        }
        self.open_now()?;
        let order = ordered(&quote, request)?;
        let rules = self.rules(&holder).await?;
        let rules =
            rules.ok_or_else(|| conflict("resale: the seller's sharing policy sells nothing on any more".into()))?;
        rules.reselling.admits(path.len()).map_err(conflict)?;
        // Others are not asked to hold what would not be held here.
        plan::room(&rules.pool, (&transaction, &holder), &request.flavor_id, &order, Timestamp::now())?;
        self.may(Act::Reserve, &quote.flavor, buyer, Some((&rules.pool, &transaction, quote.amounts.clone())))?;
        let hex = plan::anchor(&transaction, &holder);
        let mut busy = self.resell.take(&hex)?;
        let anchor = self.anchor(&hex, request, (&order, buyer)).await?;
        let commitment =
            self.hold_behind(request, (&transaction, &holder), (&quote, &order), &rules, (&anchor, path)).await;
        busy.done = commitment.is_ok();
        if commitment.is_err()
            && let Err(error) = resale::abandon(&self.client, &self.options, &anchor).await
        {
            tracing::debug!(%error, solver = anchor.name_any(), "a purchase that is not needed is given up later");
        }
        commitment.map(Some)
    }

    /// The Solver that all of a purchase belongs to. One that is there is of a try that broke off: it is given up first.
    async fn anchor(
        &self,
        hex: &str,
        request: &rear::ReserveRequest,
        (order, buyer): (&Order, NodeId),
    ) -> Result<Solver, Refusal> {
        let api = Api::<Solver>::namespaced(self.client.clone(), names::NAMESPACE);
        let name = names::resale(hex);
        let (flavor_type, configuration) = match order {
            Order::Slice(_) => (FlavorType::K8Slice, None),
            Order::Service(configuration, _) => (FlavorType::Service, Some(configuration.as_ref().clone())),
        };
        let spec = SolverSpec {
            selector: Some(Selector { flavor_type, filters: serde_json::json!({}) }),
            configuration,
            intent_id: crate::bounded(&request.flavor_id, 253),
            find_candidate: true,
            reserve_and_buy: true,
            establish_peering: true,
            ..SolverSpec::default()
        };
        let mut solver = Solver::new(&name, spec);
        solver.metadata.namespace = Some(names::NAMESPACE.into());
        solver.labels_mut().insert(names::LABEL_RESALE.into(), hex.to_owned());
        solver.labels_mut().insert(names::LABEL_PEER.into(), buyer.tag());
        solver.annotations_mut().insert(names::ANNOTATION_PEER_DID.into(), buyer.to_string());
        match api.create(&PostParams::default(), &solver).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let known = api.get_opt(&name).await.map_err(act::Error::from)?;
                if let Some(known) = known.filter(|known| known.labels().contains_key(names::LABEL_RESALE)) {
                    let given_up = resale::abandon(&self.client, &self.options, &known).await;
                    given_up.map_err(|error| Refusal::new(RefusalCode::Unavailable, error))?;
                }
                let detail = "resale: an earlier try of this transaction is being given up: ask again";
                Err(Refusal::new(RefusalCode::Unavailable, detail))
            }
            other => Ok(other.map_err(act::Error::from)?),
        }
    }

    async fn hold_behind(
        &self,
        request: &rear::ReserveRequest,
        (transaction, holder): (&str, &str),
        (quote, order): (&Quote, &Order),
        rules: &Rules,
        (anchor, path): (&Solver, &rear::Path),
    ) -> Result<Commitment, Refusal> {
        let (mut refused, mut away) = (0, 0);
        let last = Instant::now() + resale::step(path);
        let configuration = match order {
            Order::Slice(_) => None,
            Order::Service(configuration, _) => Some(configuration.as_ref().clone()),
        };
        let offers = quote.offers.iter();
        for offered in offers.map(|offered| Offered { configuration: configuration.clone(), ..offered.clone() }) {
            // The next is asked in what is left of the time that the buyer waits.
            let most = last.saturating_duration_since(Instant::now());
            if most.is_zero() {
                break;
            }
            let behind = match resale::hold(&self.client, &self.options, anchor, &offered, (path, most)).await {
                Ok(behind) => behind,
                Err(Stop::Own(error)) => {
                    tracing::warn!(%error, "what is sold on could not be written");
                    return Err(Refusal::new(RefusalCode::Internal, "the seller's own records could not be written"));
                }
                Err(Stop::Refused { reason, .. }) => {
                    tracing::info!(peer = offered.peer, reason, "not held to be sold on");
                    refused += 1;
                    continue;
                }
                Err(Stop::Away { reason, .. }) => {
                    tracing::info!(peer = offered.peer, reason, "not held to be sold on");
                    away += 1;
                    continue;
                }
            };
            let (of, told, by) = ((transaction, holder), (order, quote.price), (&rules.sale, &rules.reselling));
            let times = (self.options.hold, Timestamp::now());
            let hold = plan::held(request, of, told, by, &behind, times).map_err(|reason| {
                tracing::info!(peer = offered.peer, reason, "not held to be sold on");
                Refusal::new(RefusalCode::Conflict, "resale: it cannot be sold on as it was offered: ask again")
            })?;
            return self.promise(&hold, &behind.contract, request).await;
        }
        let detail = format!("resale: nobody holds it any more: {refused} refused, {away} did not answer");
        let code = if away > 0 { RefusalCode::Unavailable } else { RefusalCode::Conflict };
        Err(Refusal::new(code, detail))
    }

    /// Writes the promise into the Ledger. Who sells on only, and offers nothing of its own, has one of nothing.
    async fn promise(
        &self,
        hold: &HoldRequest,
        behind: &str,
        request: &rear::ReserveRequest,
    ) -> Result<Commitment, Refusal> {
        let held = |pool: &Pool| pool.hold_served(hold, behind, Timestamp::now()).map_err(own::refusal);
        let pool = match self.books.change(held).await {
            Err(act::Error::Books(BooksError::Missing)) => {
                self.books.open(Some(self.capacity().await.unwrap_or_default())).await.map_err(act::Error::from)?;
                self.books.change(held).await
            }
            other => other,
        };
        let pool = pool.map_err(Refusal::from)?;
        self.remember(&hold.transaction, &request.buyer);
        let gone = || Refusal::new(RefusalCode::Internal, "what was held is gone");
        pool.commitment(&hold.transaction).cloned().ok_or_else(gone)
    }

    /// Buys what serves a promise, before the promise becomes a sale.
    pub(in crate::exporter) async fn buy_behind(&self, commitment: &Commitment) -> Result<(), Refusal> {
        let Some(behind) = &commitment.served_by else { return Ok(()) };
        let hex = plan::anchor(&commitment.transaction, &commitment.buyer);
        if commitment.is_over(Timestamp::now()) {
            let detail = format!("transaction {}: its time is over", commitment.transaction);
            return Err(Refusal::new(RefusalCode::Expired, detail));
        }
        let mut busy = self.resell.take(&hex)?;
        match resale::pay(&self.client, &self.options, &names::resale(&hex)).await {
            Ok(bought) if bought.name_any() == *behind => {
                busy.done = true;
                Ok(())
            }
            Ok(_) => Err(Refusal::new(RefusalCode::Internal, "resale: another contract was bought than was held")),
            Err(Stop::Refused { reason, .. }) => {
                tracing::info!(transaction = commitment.transaction, reason, "not bought to be sold on");
                // It will not be sold later either; what is sold already is ended by who settles.
                if commitment.is_held() {
                    self.books.free(&commitment.transaction).await.map_err(act::Error::from)?;
                }
                let detail = "resale: what was held elsewhere is not sold any more, or may not be paid: ask again";
                Err(Refusal::new(RefusalCode::Conflict, detail))
            }
            Err(Stop::Away { reason, .. }) => {
                tracing::info!(transaction = commitment.transaction, reason, "not bought to be sold on yet");
                Err(Refusal::new(RefusalCode::Unavailable, "resale: who sells it does not answer: ask again"))
            }
            Err(Stop::Own(error)) => {
                tracing::warn!(%error, "what is sold on could not be written");
                Err(Refusal::new(RefusalCode::Internal, "the seller's own records could not be written"))
            }
        }
    }

    /// The flavor that a promise was cut from: one of this owner's, or what it was told of somebody else's.
    pub(in crate::exporter) async fn flavor_of(&self, commitment: &Commitment) -> Result<Flavor, act::Error> {
        let none = || act::Error::NoFlavor { name: commitment.flavor.clone() };
        if commitment.served_by.is_none() {
            let flavor = self.copies.flavor(&commitment.flavor, self.options.key.id()).await;
            return flavor.ok_or_else(none);
        }
        let anchor = names::resale(&plan::anchor(&commitment.transaction, &commitment.buyer));
        let behind = resale::bought_of(&self.client, &anchor).await?.ok_or_else(none)?;
        let agreed = commitment.agreed.as_ref().ok_or_else(none)?;
        let told = (&commitment.amounts, &agreed.price);
        let own = &self.options.identity;
        plan::flavor(&commitment.flavor, &behind.spec, told, &agreed.conditions, own).map_err(|_| none())
    }
}

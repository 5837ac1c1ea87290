//! Carries a purchase from a plain seller out.

use fluidos_model::kinds::{
    Configuration, Contract, ContractSpec, Flavor, FlavorPrice, NodeIdentity, Phase, Reservation, ReservationStatus,
    Solver, Transaction, TransactionSpec, names,
};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::super::act::{Done, Error, Unsold, ensure, owner};
use super::super::view::{Offered, Refused};
use super::super::{buy as lots, trade};
use super::{check_held, check_sold, client as way, condition};
use crate::importer::Stop;
use crate::{Options, bounded, contracts, convert, terms};

/// Reasons are put together into one message.
const REASON_LENGTH_MAX: usize = 256;
/// As long as the name of an object.
const TRANSACTION_LENGTH_MAX: usize = 63;

/// Reserves and buys from a plain seller.
pub(in crate::importer) async fn buy(
    client: &Client,
    options: &Options,
    solver: &Solver,
    offered: &Offered,
) -> Result<Done, Error> {
    let begun = match lots::reservation(client, options, solver, offered, 1, None).await? {
        Ok(begun) => begun,
        Err(reason) => return Ok(unsold(offered, None, "reserve", &reason, false)),
    };
    lots::patch(client, &begun.name, &begun.status).await?;
    let deal = Deal { client, options, solver, offered, configuration: &begun.configuration };
    deal.go_on(&begun.name, begun.status).await
}

/// Goes on with what an earlier process has begun.
pub(in crate::importer) async fn resume(
    client: &Client,
    options: &Options,
    solver: &Solver,
    reservation: &Reservation,
) -> Result<Done, Error> {
    let (name, status) = (reservation.name_any(), reservation.status.clone().unwrap_or_default());
    let Some((offered, configuration)) = lots::recall(client, reservation).await? else {
        let reason = "the reservation that was begun names no address, amounts or transaction";
        lots::patch(client, &name, &lots::failed(&status, "reserve", reason)).await?;
        let candidate = reservation.spec.peering_candidate.clone().unwrap_or_default().name;
        return Ok(Done::Unsold(vec![Unsold { candidate, transaction: Some(status.transaction_id), why: None }]));
    };
    let deal = Deal { client, options, solver, offered: &offered, configuration: &configuration };
    deal.go_on(&name, status).await
}

struct Deal<'a> {
    client: &'a Client,
    options: &'a Options,
    solver: &'a Solver,
    offered: &'a Offered,
    configuration: &'a Configuration,
}

impl Deal<'_> {
    async fn go_on(&self, name: &str, mut status: ReservationStatus) -> Result<Done, Error> {
        match self.deal(name, &mut status).await {
            Ok(contract) => {
                lots::patch(self.client, name, &lots::solved(&status, &contract)).await?;
                Ok(Done::Bought { contracts: vec![contract] })
            }
            Err(Stop::Own(error)) => Err(error),
            Err(Stop::Refused { step, reason }) => self.stop(name, &status, (step, &reason), false).await,
            Err(Stop::Away { step, reason }) => self.stop(name, &status, (step, &reason), true).await,
        }
    }

    async fn stop(
        &self,
        name: &str,
        status: &ReservationStatus,
        (step, reason): (&'static str, &str),
        away: bool,
    ) -> Result<Done, Error> {
        lots::patch(self.client, name, &lots::failed(status, step, reason)).await?;
        Ok(unsold(self.offered, Some(status.transaction_id.clone()), step, reason, away))
    }

    /// From the hold to the Contract. `status` is what stands in the Reservation.
    async fn deal(&self, name: &str, status: &mut ReservationStatus) -> Result<String, Stop> {
        let (id, now) = (&self.offered.flavor.metadata.name, Timestamp::now());
        let flavor = Flavor::new(id, self.offered.flavor.spec.clone());
        let denied = |reason: String| Stop::Refused { step: "acquire", reason };
        let acquire =
            self.options.acquire.as_ref().ok_or_else(|| denied("nothing is bought here without a key".into()))?;
        acquire(self.offered.address, &flavor, &self.offered.buys).map_err(denied)?;
        let peer = way(self.offered.address);
        let held = if status.reserve_phase == Phase::Solved {
            // An earlier process had it held under this name.
            rear::Transaction {
                id: status.transaction_id.clone(),
                flavor_id: id.clone(),
                configuration: None,
                buyer: rear::Party::default(),
                cluster_id: String::new(),
                expiration: None,
                terms: None,
            }
        } else {
            let held = peer.reserve(&self.request()).await.map_err(|error| trade::stopped("reserve", error))?;
            let refused = |reason: String| Stop::Refused { step: "reserve", reason };
            check_held(id, &self.offered.buys, &held, now).map_err(refused)?;
            let named = held.id.len() <= TRANSACTION_LENGTH_MAX && terms::is_label(&held.id);
            named
                .then_some(())
                .ok_or_else(|| refused(format!("transaction `{}` can be no name", bounded(&held.id, 64))))?;
            self.record(&held).await?;
            status.transaction_id.clone_from(&held.id);
            (status.reserve_phase, status.purchase_phase) = (Phase::Solved, Phase::Running);
            // Before anything is bought: who goes on after a crash buys what is held, and holds no more.
            lots::patch(self.client, name, status).await?;
            held
        };
        let sold = trade::purchase(&peer, &held.id, &rear::PurchaseRequest::default()).await;
        let sold = sold.map_err(|(error, open)| {
            let left =
                if open { "; it may have sold all the same, and cannot be told that it is not wanted" } else { "" };
            Stop::Refused { step: "purchase", reason: format!("{}{left}", trade::told(error)) }
        })?;
        let refused = |reason: String| {
            let reason = format!("{reason}; what it has sold cannot be given back to an official node");
            Stop::Refused { step: "purchase", reason }
        };
        check_sold(&held, &self.offered.buys, &sold, now).map_err(refused)?;
        self.untaken(&sold).await.and_then(|free| free.map_err(refused))?;
        self.write(&sold).await?;
        Ok(sold.id)
    }

    /// In the official dialect, with nothing of ours in it.
    fn request(&self) -> rear::ReserveRequest {
        let own = convert::party(&self.options.identity);
        rear::ReserveRequest {
            flavor_id: self.offered.flavor.metadata.name.clone(),
            buyer: rear::Party { did: None, name: None, ..own },
            configuration: Some(convert::wire_configuration(self.configuration)),
            transaction_id: None,
            term_seconds: None,
            path: None,
        }
    }

    async fn record(&self, held: &rear::Transaction) -> Result<(), Error> {
        let spec = TransactionSpec {
            flavor_id: held.flavor_id.clone(),
            buyer: self.options.identity.clone(),
            cluster_id: self.options.key.id().to_string(),
            configuration: Some(self.configuration.clone()),
            expiration_time: held.expiration.map(|time| time.to_string()),
        };
        ensure(self.client, self.solver, Transaction::new(&held.id, spec)).await.map(|_| ())
    }

    /// Official sellers name contracts by their flavor and four digits: two of them may choose the same.
    async fn untaken(&self, sold: &rear::Contract) -> Result<Result<(), String>, Stop> {
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        let known = api.get_opt(&sold.id).await?;
        let same = |known: &Contract| {
            super::is_plain(known)
                && known.spec.transaction_id == sold.transaction_id
                && known.spec.seller.ip == self.offered.address.to_string()
        };
        let taken = known.is_some_and(|known| !same(&known));
        Ok(if taken { Err(format!("contract name {} is in use here", sold.id)) } else { Ok(()) })
    }

    async fn write(&self, sold: &rear::Contract) -> Result<(), Error> {
        let mut flavor = self.offered.flavor.clone();
        if let Some(price) = &self.offered.price {
            flavor.spec.price = FlavorPrice::from(price);
        }
        let spec = ContractSpec {
            seller: NodeIdentity { ip: self.offered.address.to_string(), ..flavor.spec.owner.clone() },
            flavor,
            transaction_id: sold.transaction_id.clone(),
            configuration: Some(self.configuration.clone()),
            buyer: self.options.identity.clone(),
            buyer_cluster_id: self.options.key.id().to_string(),
            expiration_time: sold.expiration.map(|time| time.to_string()),
            ..ContractSpec::default()
        };
        let mut contract = contracts::unproven(&sold.id, spec);
        contract.metadata.owner_references = owner(self.solver).map(|owner| vec![owner]);
        if let Some(namespace) = self.solver.annotations().get(names::ANNOTATION_NAMESPACE) {
            contract.annotations_mut().insert(names::ANNOTATION_NAMESPACE.into(), bounded(namespace, 63));
        }
        contracts::write(self.client, &contract).await?;
        let condition = condition(sold.credentials_dropped, Timestamp::now());
        let status = json!({"status": {"message": condition.message, "conditions": [condition]}});
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        api.patch_status(&sold.id, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

fn unsold(offered: &Offered, transaction: Option<String>, step: &'static str, reason: &str, away: bool) -> Done {
    let refused = Refused { peer: offered.peer.clone(), step, reason: bounded(reason, REASON_LENGTH_MAX) };
    Done::Unsold(vec![Unsold { candidate: offered.candidate.clone(), transaction, why: Some((refused, away)) }])
}

//! Writes Ratings.

use fluidos_model::kinds::{Rating, RatingSpec, names};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::plan::Action;

/// Does one thing of a plan.
pub async fn act(client: &Client, action: &Action) -> kube::Result<()> {
    let api = Api::<Rating>::namespaced(client.clone(), names::NAMESPACE);
    match action {
        Action::Write { name, did, peer, create, status } => {
            if *create {
                let mut rating = Rating::new(name, RatingSpec { did: did.clone(), name: peer.clone() });
                rating.metadata.namespace = Some(names::NAMESPACE.to_owned());
                match api.create(&PostParams::default(), &rating).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    other => drop(other?),
                }
            }
            // A merge keeps what is not named: what there is no more is named as nothing.
            let change = json!({ "status": {
                "value": status.value,
                "shown": status.shown,
                "global": status.global,
                "globalShown": status.global_shown,
                "opinions": status.opinions,
                "weight": status.weight,
                "count": status.count,
                "halfLifeDays": status.half_life_days,
                "roundTripMicros": status.round_trip_micros,
                "last": status.last,
                "observations": status.observations,
                "folded": status.folded,
            }});
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(change)).await.map(|_| ())
        }
        Action::Forget { name } => match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        },
    }
}

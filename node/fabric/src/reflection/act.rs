//! Carries the plan of reflection out. Every effect is here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use tokio::io::AsyncWrite;

use super::plan::{Action, State};
use crate::Error;
use crate::deal::Deal;
use crate::fabric::Shared;
use crate::frames::Change;
use crate::virtual_node::absent_is_well;

/// Where it went wrong.
pub(super) enum Failure {
    /// On the stream, which is of no use any more.
    Stream(Error),
    /// With one object here.
    Here(Error),
}

/// Does one thing. What is said needs a stream; without one it is said when there is one.
pub(super) async fn act<W: AsyncWrite + Unpin>(
    shared: &Shared,
    deal: &Deal,
    state: &mut State,
    to: Option<&mut W>,
    action: Action,
) -> Result<(), Failure> {
    match action {
        Action::Put { uid, put, digest } => {
            let Some(to) = to else { return Ok(()) };
            match super::send(shared, deal, to, Change::Put(put)).await {
                Ok(()) => {
                    state.put.insert(uid.clone(), digest);
                    // It is being asked again: the next answer counts from now.
                    if let Some((_, at)) = state.refused.get_mut(&uid) {
                        *at = Timestamp::now();
                    }
                    Ok(())
                }
                Err(error @ Error::TooLarge { .. }) => {
                    // The stream has taken nothing of it; it is the same as long as the objects are.
                    state.put.insert(uid.clone(), digest);
                    state.refused.insert(uid, (error.to_string(), Timestamp::now()));
                    Ok(())
                }
                Err(error) => Err(Failure::Stream(error)),
            }
        }
        Action::Delete { uid, grace_seconds } => {
            let Some(to) = to else { return Ok(()) };
            let change = Change::Delete { uid: uid.clone(), grace_seconds };
            super::send(shared, deal, to, change).await.map_err(Failure::Stream)?;
            state.deleted.insert(uid);
            Ok(())
        }
        Action::Status { namespace, name, uid, mut patch } => {
            patch["metadata"]["uid"] = uid.into();
            let api = Api::<Pod>::namespaced(shared.client.clone(), &namespace);
            let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            written
                .map(drop)
                .map_err(Error::api(format!("write the status of pod {namespace}/{name}")))
                .map_err(Failure::Here)
        }
        Action::Remove { namespace, name, uid } => {
            let api = Api::<Pod>::namespaced(shared.client.clone(), &namespace);
            let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let params =
                DeleteParams { grace_period_seconds: Some(0), preconditions: Some(same), ..DeleteParams::default() };
            let removed = absent_is_well(api.delete(&name, &params).await.map(drop));
            removed.map_err(Error::api(format!("remove pod {namespace}/{name}"))).map_err(Failure::Here)?;
            Ok(())
        }
    }
}

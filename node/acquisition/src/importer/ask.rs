//! Asks peers what they offer, all at once.
//!
//! They are asked for all K8Slices and judged here, not with the filters of the Solver: a peer that filters says nothing
//! about why it has nothing, and official ones filter wrongly.

use std::time::Duration;

use fluidos_rear as rear;
use futures::future::join_all;

use super::view::Peer;
use super::weigh::{Answer, Silence};
use crate::{Options, bounded};

/// A peer on the same continent answers within two tenths of a second; a dead one must not hold up the others. A policy may say
/// otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Reasons are put together into one message.
const REASON_LENGTH_MAX: usize = 256;

/// Returns what each peer answered before the deadline.
pub(super) async fn ask(options: &Options, peers: &[Peer], deadline: Duration) -> Vec<(Peer, Answer)> {
    let asked = peers.iter().map(|peer| async move {
        let answer = match tokio::time::timeout(deadline, ask_one(options, peer)).await {
            Ok(answer) => answer,
            Err(_) => Err(Silence::from(format!("no answer within {} s", deadline.as_secs()))),
        };
        let cut = |silence: Silence| Silence { reason: bounded(&silence.reason, REASON_LENGTH_MAX), ..silence };
        (peer.clone(), answer.map_err(cut))
    });
    join_all(asked).await
}

async fn ask_one(options: &Options, peer: &Peer) -> Answer {
    let target = rear::Target { address: peer.address, expected: peer.did };
    let seller = (options.dial)(target)?;
    let proven = seller.seller().await.map_err(|error| error.to_string())?;
    let proven = proven.or(peer.did).ok_or_else(|| "it proves no key, and none is known of it".to_owned())?;
    if proven == options.key.id() {
        return Err(Silence::from("it is this node itself".to_owned()));
    }
    let all = rear::Selector { flavor_type: Some(rear::FlavorType::K8Slice), filters: Vec::new() };
    let flavors = seller.list_flavors(&all).await.map_err(|error| match error {
        rear::ClientError::Refused { refusal, .. } => {
            Silence { refused: !refusal.is_retryable(), reason: refusal.detail }
        }
        other => Silence::from(other.to_string()),
    })?;
    Ok((proven, flavors))
}

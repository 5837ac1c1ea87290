//! Asks peers what they offer, all at once.
//!
//! They are told what is needed (a resource request), and answer with what they could sell or why they do not. A peer without that
//! route, such as an official one, is asked for all its K8Slices, not with the filters of the Solver: a peer that filters says
//! nothing about why it has nothing, and official ones filter wrongly. Either way what is offered is judged here.

use std::time::Duration;

use fluidos_model::intent::{INTENT_PREFIX, SOFT_INTENTS};
use fluidos_model::kinds::Solver;
use fluidos_model::market::{Buying, FilterText};
use fluidos_rear as rear;
use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::plain;
use super::view::{Peer, SellerId};
use super::wanted::Wanted;
use super::weigh::{Answer, Said, Silence};
use crate::{Options, bounded};

/// A peer on the same continent answers within two tenths of a second; a dead one must not hold up the others. A policy may say
/// otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Reasons are put together into one message.
const REASON_LENGTH_MAX: usize = 256;

/// Returns what each peer answered before the deadline. `behind` are those in whose name it is asked: nobody, or who buys from here.
pub(super) async fn ask(
    options: &Options,
    peers: &[Peer],
    (request, behind): (&rear::ResourceRequest, &rear::Path),
    buying: Option<&Buying>,
    deadline: Duration,
) -> Vec<(Peer, Answer)> {
    let wait_millis = u64::try_from(deadline.as_millis()).ok();
    let request = &rear::ResourceRequest { wait_millis, ..request.clone() };
    let asked = peers.iter().map(|peer| async move {
        // Who is not bought from is not told what is needed either.
        let rated = buying.map_or(Ok(()), |buying| buying.rating.admits(peer.rating));
        if let (Err(reason), Some(buying)) = (rated, buying) {
            let reason = format!("{reason} (AcquisitionPolicy {})", buying.name);
            return (peer.clone(), Err(Silence { reason, refused: true }));
        }
        let answer = match tokio::time::timeout(deadline, ask_one(options, peer, (request, behind))).await {
            Ok(answer) => answer,
            Err(_) => Err(Silence::from(format!("no answer within {} s", deadline.as_secs_f32()))),
        };
        let cut = |silence: Silence| Silence { reason: bounded(&silence.reason, REASON_LENGTH_MAX), ..silence };
        (peer.clone(), answer.map_err(cut))
    });
    join_all(asked).await
}

/// Returns the request of a Solver: its filters and intents, for as long as the owner's policy buys.
pub(super) fn request(wanted: &Wanted, solver: &Solver, buying: Option<&Buying>) -> rear::ResourceRequest {
    let (flavor_type, filters) = match wanted {
        Wanted::Slice(selector) => (rear::FlavorType::K8Slice, selector.to_texts()),
        Wanted::Service(selector, _) => (rear::FlavorType::Service, selector.to_texts()),
    };
    let filters = filters.into_iter().map(|filter| match filter {
        FilterText::Match { name, value } => rear::SelectorFilter::Match { name, value },
        FilterText::Range { name, min, max } => rear::SelectorFilter::Range { name, min, max },
    });
    let of_intents = |name: &str| name.starts_with(INTENT_PREFIX) || name == SOFT_INTENTS;
    let intents = solver.annotations().iter().filter(|(name, _)| of_intents(name));
    rear::ResourceRequest {
        flavor_type,
        filters: filters.collect(),
        intents: intents.map(|(name, value)| (name.clone(), value.clone())).collect(),
        term_seconds: buying.and_then(|buying| buying.term).map(|term| term.as_secs()),
        wait_millis: None,
        path: None,
    }
}

async fn ask_one(options: &Options, peer: &Peer, (request, behind): (&rear::ResourceRequest, &rear::Path)) -> Answer {
    let refused = |error: rear::ClientError| match error {
        rear::ClientError::Refused { refusal, .. } => {
            Silence { refused: !refusal.is_retryable(), reason: refusal.detail }
        }
        other => Silence::from(other.to_string()),
    };
    let all = rear::Selector { flavor_type: Some(request.flavor_type), filters: Vec::new() };
    if peer.plain {
        // It is told nothing of what is needed: whoever is on the way reads it.
        let flavors = plain::client(peer.address).list_flavors(&all).await.map_err(refused)?;
        return Ok(Said::of(SellerId::Plain(peer.address), &flavors, None));
    }
    let target = rear::Target { address: peer.address, expected: peer.did };
    let seller = (options.dial)(target)?;
    let proven = seller.seller().await.map_err(|error| error.to_string())?;
    let proven = proven.or(peer.did).ok_or_else(|| "it proves no key, and none is known of it".to_owned())?;
    if proven == options.key.id() {
        return Err(Silence::from("it is this node itself".to_owned()));
    }
    let path = behind.signed(&options.key, proven, Timestamp::now()).map_err(|error| error.to_string())?;
    let composed =
        seller.request(&rear::ResourceRequest { path: Some(path), ..request.clone() }).await.map_err(refused)?;
    let denial = match composed {
        // Services are sold as they are: who has none that fits is asked for all that it has, to be told why not.
        Some(answer) if request.flavor_type == rear::FlavorType::Service && answer.offers.is_empty() => answer.denial,
        Some(answer) => {
            let flavors: Vec<rear::Flavor> = answer.offers.into_iter().map(|offer| offer.flavor).collect();
            let denial = answer.denial.map(|denial| bounded(&denial, REASON_LENGTH_MAX));
            return Ok(Said { open: answer.open, ..Said::of(proven.into(), &flavors, denial) });
        }
        None => None,
    };
    let flavors = seller.list_flavors(&all).await.map_err(refused)?;
    Ok(Said::of(proven.into(), &flavors, denial.map(|denial| bounded(&denial, REASON_LENGTH_MAX))))
}

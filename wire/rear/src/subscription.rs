//! A **subscription**: the stream of changes of what a peer may see of what is offered (SUBSCRIBE, REFRESH and WITHDRAW are one).
//!
//! ```text
//!  GET /api/v2/subscription?filter…   200, application/x-ndjson
//!   REFRESH_FLAVOR for each flavor there is ─▶ HEARTBEAT ─▶ … REFRESH_FLAVOR, WITHDRAW_FLAVOR, HEARTBEAT …
//! ```
//! Lines of JSON, as in a watch of Kubernetes, and not server-sent events: the clients are programs, which have a reader for lines, and
//! there is nothing to be resumed: whoever subscribes again is told everything there is.
//!
//! The stream is the difference between what the seller's list says to this peer now and what it was told before. So it says nothing that
//! the list does not say, a policy that shuts a peer out withdraws everything from it, and however much happens while a reader is slow,
//! what waits for it is one list. The seller says when to look; what it cannot see coming (a price by the hour) is seen at the next
//! heartbeat.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::guard::Who;
use crate::{Change, Flavor, Peer, Refusal, RefusalCode, Selector, Seller};

/// Three are missed before a reader takes the seller for dead; also the longest that a change nobody announced stays unseen.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// Changes come in bursts (a hold, its sale, the flavor that follows); also bounds what one subscription costs: five lists a second.
const GATHER: Duration = Duration::from_millis(200);
/// Who subscribes again is decided about anew, with the key that it has then.
const LONGEST: Duration = Duration::from_secs(3600);
/// So long a reader has for what it was told; the door cuts it at about the same time.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// One that is used and one that a node that was killed has left behind.
const OF_ONE: usize = 2;
/// A list is at most 1 MiB: 64 MiB if all of them are slow. Peers beyond that ask again and again.
const ALTOGETHER: usize = 64;
/// Of those who prove no key, so that they leave places to those who do.
const UNPROVEN: usize = 16;

/// Places of subscribers. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Subscribers(Arc<Mutex<HashMap<Who, usize>>>);

/// A place, given back when dropped.
struct Place {
    of: Subscribers,
    who: Who,
}

impl Subscribers {
    /// Takes a place for a peer.
    fn take(&self, who: Who) -> Result<Place, Refusal> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner); // counts are never half written
        let unproven = |who: &Who| !matches!(who, Who::Node(_));
        let of_unproven: usize = taken.iter().filter(|(who, _)| unproven(who)).map(|(_, count)| count).sum();
        let of_one = taken.get(&who).copied().unwrap_or(0);
        let full = |what: &str| Err(Refusal::new(RefusalCode::TooMany, format!("{what} subscriptions are open")));
        if of_one >= OF_ONE {
            return full(&format!("{OF_ONE} of your"));
        }
        if taken.values().sum::<usize>() >= ALTOGETHER || (unproven(&who) && of_unproven >= UNPROVEN) {
            return full("all");
        }
        taken.insert(who, of_one + 1);
        Ok(Place { of: self.clone(), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

/// The body of an answer: lines, until the subscription ends.
pub struct Lines(mpsc::Receiver<Bytes>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|lines| lines.map(|lines| Ok(Frame::data(lines))))
    }
}

/// Opens the subscription of a peer.
///
/// # Errors
/// The seller's no to a list, or that there is no place.
pub(crate) async fn open(
    seller: Arc<dyn Seller>,
    subscribers: &Subscribers,
    selector: Selector,
    peer: Peer,
    who: Who,
) -> Result<Lines, Refusal> {
    let none = || Refusal::new(RefusalCode::NotBuilt, "changes are not told here: list the flavors");
    let mut news = seller.changes().ok_or_else(none)?;
    let place = subscribers.take(who)?;
    news.mark_unchanged();
    let now = seller.list_flavors(&selector, &peer).await?;
    // One list waits here, and one is on its way.
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        tell(seller.as_ref(), &selector, &peer, now, news, lines).await;
    });
    Ok(Lines(body))
}

/// Tells a peer what changes, until it is gone, does not listen, or its time is over.
async fn tell(
    seller: &dyn Seller,
    selector: &Selector,
    peer: &Peer,
    first: Vec<Flavor>,
    mut news: watch::Receiver<u64>,
    lines: mpsc::Sender<Bytes>,
) {
    let (mut told, mut now, end) = (BTreeMap::new(), Some(first), Instant::now() + LONGEST);
    while Instant::now() < end {
        let changes = now.take().map(|now| changes(&mut told, now)).unwrap_or_default();
        let mut text = Vec::new();
        for change in changes.iter().chain([&Change::Heartbeat]) {
            if let Err(error) = change.write(&mut text) {
                return tracing::warn!(error, "a flavor cannot be told");
            }
        }
        if tokio::time::timeout(TAKEN_WITHIN, lines.send(text.into())).await.is_err() {
            return tracing::debug!(?peer, "a subscriber that does not listen is cut");
        }
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            () = lines.closed() => return,
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        tokio::time::sleep(GATHER).await;
        news.mark_unchanged();
        now = match seller.list_flavors(selector, peer).await {
            Ok(now) => Some(now),
            // What was told stands until the seller can look again.
            Err(refusal) if refusal.is_retryable() => None,
            // It may see nothing any more.
            Err(_) => Some(Vec::new()),
        };
    }
}

/// Returns what has changed, and remembers it as told. What cannot be bought now is not on offer.
fn changes(told: &mut BTreeMap<String, Flavor>, now: Vec<Flavor>) -> Vec<Change> {
    let now: BTreeMap<String, Flavor> =
        now.into_iter().filter(|flavor| flavor.availability).map(|flavor| (flavor.id.clone(), flavor)).collect();
    let gone = told.keys().filter(|id| !now.contains_key(*id));
    let mut changes: Vec<Change> = gone.map(|id| Change::Withdraw { flavor_id: id.clone() }).collect();
    let fresh = now.iter().filter(|(id, flavor)| told.get(*id) != Some(flavor));
    changes.extend(fresh.map(|(_, flavor)| Change::Refresh(Box::new(flavor.clone()))));
    *told = now;
    changes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::net::IpAddr;

    use fluidos_identity::NodeKey;

    use super::*;

    fn node(seed: u8) -> Who {
        Who::Node(NodeKey::from_seed([seed; 32]).unwrap().id())
    }

    #[test]
    fn one_peer_and_those_without_a_key_leave_places_to_others() {
        let subscribers = Subscribers::default();
        let _one = subscribers.take(node(1)).unwrap();
        let two = subscribers.take(node(1)).unwrap();
        assert_eq!(subscribers.take(node(1)).err().unwrap().detail, "2 of your subscriptions are open");
        drop(two);
        let _two = subscribers.take(node(1)).unwrap();
        let address = |last: u8| Who::Address(IpAddr::from([192, 0, 2, last]));
        let unproven: Vec<Place> = (0..16).map(|last| subscribers.take(address(last)).unwrap()).collect();
        assert!(subscribers.take(address(99)).is_err(), "sixteen without a key");
        let proven: Vec<Place> = (2..48).map(|seed| subscribers.take(node(seed)).unwrap()).collect();
        assert!(subscribers.take(node(99)).is_err(), "sixty-four altogether");
        drop((unproven, proven));
        assert_eq!(subscribers.0.lock().unwrap().len(), 1, "who left is not remembered");
    }
}

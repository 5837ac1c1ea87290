//! A second process with the key of a peer that is up: is the older one alive? Whoever is asked and answers is; who stays is
//! [`who_stays`]'s to say.
//!
//! ```text
//!   older ◀── request `alive/1` {address of the newcomer} ── this node ◀── hello of another incarnation ── newcomer
//!         ─── any answer within COPY_PROBE ──▶ it stays, the newcomer is refused, both owners are told
//!         ─── silence, or a reset of its restarted machine ──▶ the newcomer stays
//! ```
//! An older version does not know the kind and says so, which is an answer.

use std::net::SocketAddr;
use std::time::Duration;

use fluidos_identity::{COPY_PROBE, Incarnation, WhoStays, who_stays};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LinkError, Session};

/// The kind of the question. The link itself answers it.
pub(crate) const ALIVE: &str = "alive/1";

/// What is asked: why, for the owner of who is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Where the newcomer calls from, as the asker sees it.
    pub(crate) newcomer: SocketAddr,
}

/// Says whether the older process of a peer stays, beside which a newcomer has come.
pub(crate) async fn older_stays(older: &Session, newcomer: &Session) -> bool {
    let now = Timestamp::now();
    let before = |age: Duration| {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        now.checked_sub(age).unwrap_or(Timestamp::MIN)
    };
    let first = Incarnation { number: older.peer().incarnation, first_seen: before(older.age()), answered: None };
    let second = Incarnation { number: newcomer.peer().incarnation, first_seen: now, answered: None };
    let answered = answers(older, newcomer.peer().address).await.then(|| later(now));
    let over = now.checked_add(COPY_PROBE).unwrap_or(Timestamp::MAX);
    let judged = who_stays(&[Incarnation { answered, ..first }, second], over);
    matches!(judged, Some(WhoStays::Copies { stays, .. }) if stays == first.number)
}

/// It answered after the newcomer was seen, whatever the clock did meanwhile.
fn later(than: Timestamp) -> Timestamp {
    than.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX)
}

async fn answers(older: &Session, newcomer: SocketAddr) -> bool {
    let patience = Duration::try_from(COPY_PROBE).unwrap_or_default();
    match older.request::<_, Value>(ALIVE, &Question { newcomer }, patience).await {
        Ok(_) | Err(LinkError::Refused { .. } | LinkError::Malformed { .. } | LinkError::TooLarge { .. }) => true,
        Err(_) => false,
    }
}

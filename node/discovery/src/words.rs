//! Opinions: how nodes have fared with each other, said and heard in one catalog.
//!
//! An *opinion* is what one node has seen of a seller it has bought from, signed by it ([`Feedback`]). It is said only if a DiscoveryPolicy
//! asks for it, as it tells whose customer this node is. What others say is heard about every known node that sells, in turn, so that
//! nobody sees in whom this node is interested; of that only the words of those are kept whom this node has dealt with itself.
//!
//! ```text
//! Ratings ─ rating::opinion ─▶ say (changed, once an hour at most) ─▶ POST feedback
//! known sellers ─ 16 in a look ─▶ GET reputation ─ verified ─▶ authors that are rated here ─▶ KnownCluster.status.opinions
//! ```
//! Limits: an opinion stands in a catalog for 90 days, also after its policy has gone; one that a node has said under an older key is not
//! counted as its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fluidos_catalog::{Client, ClientError, Feedback, VERSION, seal};
use fluidos_identity::{NodeId, NodeKey};
use fluidos_model::kinds::{KnownClusterOpinion, Rating, RatingStatus};
use fluidos_model::rating;
use jiff::Timestamp;

use crate::catalog::next;

/// A catalog keeps as many of one author.
const SAID_MAX: usize = 64;
/// One that changes with each purchase would tell of each purchase.
const SAY_EVERY: Duration = Duration::from_secs(3600);
/// It stands for 90 days.
const SAY_AGAIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// Questions in one look: with the list they are well within what a catalog answers one key.
const ASK_AT_ONCE: usize = 16;
/// About the same node.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// Words about one node that are kept: more weigh no more ([`rating::combine`]).
const KEPT_MAX: usize = 16;

/// What one follower of a catalog has said and asked.
#[derive(Default)]
pub(crate) struct Words {
    said: BTreeMap<NodeId, Said>,
    asked: BTreeMap<NodeId, Instant>,
    sequence: u64,
}

struct Said {
    opinion: (u16, u32),
    at: Instant,
}

impl Words {
    /// Says what has changed since it was said. What a catalog does not take of one is no reason not to say the next.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: the rest waits for the next look.
    pub(crate) async fn say(
        &mut self,
        client: &mut Client,
        key: &NodeKey,
        opinions: &BTreeMap<NodeId, (u16, u32)>,
    ) -> Result<(), ClientError> {
        self.said.retain(|about, _| opinions.contains_key(about));
        let due: Vec<(NodeId, (u16, u32))> = opinions
            .iter()
            .take(SAID_MAX)
            .filter(|(about, now)| self.is_due(about, **now))
            .map(|(a, o)| (*a, *o))
            .collect();
        for (about, opinion) in due {
            self.sequence = next(self.sequence, Timestamp::now());
            let mut result = say(client, key, about, opinion, self.sequence).await;
            if let Err(ClientError::Conflict(held)) = result {
                // A clock that was set back: what stands there was said by this key, later by its own count.
                self.sequence = held.saturating_add(1);
                result = say(client, key, about, opinion, self.sequence).await;
            }
            match result {
                Err(error @ ClientError::Unreachable(..)) => return Err(error),
                Err(error) => tracing::warn!(%error, %about, "an opinion is not taken; it is tried again"),
                Ok(()) => drop(self.said.insert(about, Said { opinion, at: Instant::now() })),
            }
        }
        Ok(())
    }

    fn is_due(&self, about: &NodeId, now: (u16, u32)) -> bool {
        self.said.get(about).is_none_or(|said| {
            let age = said.at.elapsed();
            age >= SAY_AGAIN || (age >= SAY_EVERY && said.opinion != now)
        })
    }

    /// Returns what is said of those whose turn it is.
    ///
    /// # Errors
    /// [`ClientError`]: it is asked again in the next look.
    pub(crate) async fn ask(
        &mut self,
        client: &mut Client,
        subjects: &BTreeSet<NodeId>,
    ) -> Result<BTreeMap<NodeId, Vec<Feedback>>, ClientError> {
        self.asked.retain(|about, _| subjects.contains(about));
        let mut due: Vec<NodeId> = subjects
            .iter()
            .filter(|about| self.asked.get(about).is_none_or(|at| at.elapsed() >= ASK_AGAIN))
            .copied()
            .collect();
        // Who was never asked about first, then who was longest ago.
        due.sort_by_key(|about| self.asked.get(about).copied());
        let mut heard = BTreeMap::new();
        for about in due.into_iter().take(ASK_AT_ONCE) {
            heard.insert(about, client.opinions(about).await?);
            self.asked.insert(about, Instant::now());
        }
        Ok(heard)
    }
}

async fn say(
    client: &mut Client,
    key: &NodeKey,
    about: NodeId,
    (value, observations): (u16, u32),
    sequence: u64,
) -> Result<(), ClientError> {
    let said = Feedback { version: VERSION, author: key.id(), about, value, observations, sequence };
    let signed = seal(key, said).map_err(|reason| ClientError::Malformed(about.to_string(), reason))?;
    client.say(&signed).await
}

/// What this node could say of those it has bought from.
pub(crate) fn own<'a>(ratings: impl IntoIterator<Item = &'a Rating>, now: Timestamp) -> BTreeMap<NodeId, (u16, u32)> {
    let said = ratings.into_iter().filter_map(|rating| {
        let about = rating.spec.did.parse::<NodeId>().ok()?;
        Some((about, rating::opinion(rating.status.as_ref()?, now)?))
    });
    said.take(SAID_MAX).collect()
}

/// What is kept of what a catalog gave about a node, beside what others have: the words of those who are rated here for what they did
/// for this node, those of the best known first. Whom to believe how much is for ratings to say.
pub(crate) fn kept<'a>(
    before: &[KnownClusterOpinion],
    said: &[Feedback],
    from: &str,
    rated: impl Fn(&str) -> Option<&'a RatingStatus>,
    now: Timestamp,
) -> Vec<KnownClusterOpinion> {
    let fresh = said.iter().map(|said| KnownClusterOpinion {
        author: said.author.to_string(),
        value: said.value,
        observations: said.observations,
        from: from.to_owned(),
    });
    let elsewhere = before.iter().filter(|opinion| opinion.from != from).cloned();
    let good = |author: &str| rated(author).map_or(0.0, |status| rating::evidence(status, now).good_deals);
    let mut all: Vec<(f64, KnownClusterOpinion)> = fresh
        .chain(elsewhere)
        .map(|opinion| (good(&opinion.author), opinion))
        .filter(|(good, _)| *good > 0.0)
        .collect();
    // One author is kept once, though it speaks in several catalogs.
    all.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.author.cmp(&y.author)));
    all.dedup_by(|(_, x), (_, y)| x.author == y.author);
    all.into_iter().take(KEPT_MAX).map(|(_, opinion)| opinion).collect()
}

/// What this node has seen of others, by their DID.
pub(crate) fn by_did(ratings: &[std::sync::Arc<Rating>]) -> BTreeMap<&str, &RatingStatus> {
    ratings.iter().filter_map(|rating| Some((rating.spec.did.as_str(), rating.status.as_ref()?))).collect()
}

//! What follows from what was seen of a peer. Pure: time is an argument.
//!
//! An observation is good or bad and has a weight, which halves every [`HALF_LIFE_DAYS`]. The *value* is the share of the good
//! among all that was seen and one good and one bad that were not, so that little evidence stays near the middle. A peer of
//! which nothing was seen has no value: neither 0 nor 1.
//!
//! ```text
//! value = (good + 1) / (good + bad + 2)        good, bad: sums of weight · 2^(−age / 14 days)
//! ```
//! What others say is weighed by how much their authors have proven to us, and never counts more than what we have seen
//! ourselves: see [`combine`].

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::kinds::{FoldedObservations, KnownClusterOpinion, ObservationKind, Rating, RatingObservation, RatingStatus};

/// An observation counts half after so many days: a peer that was bad a season ago may be good now.
pub const HALF_LIFE_DAYS: u32 = 14;
/// Observations that are kept one by one, some 100 bytes each.
pub const OBSERVATIONS_MAX: usize = 64;
/// Below this weight nothing is known any more: one observation after some 90 days.
const WEIGHT_LEAST: f64 = 0.01;
/// An author counts after so much good that it did for us: what can be had for nothing proves nothing.
const AUTHOR_DEALS_LEAST: f64 = 5.0;
/// The most that one author's word weighs.
const AUTHOR_WEIGHT_MAX: f64 = 2.0;
/// The most that all words together weigh where we have seen little ourselves.
const OTHERS_WEIGHT_LEAST: f64 = 4.0;

/// Whether an observation speaks for a peer, and how much it weighs.
pub fn weight(kind: ObservationKind) -> (bool, f64) {
    match kind {
        ObservationKind::OfferHonoured | ObservationKind::Delivered => (true, 1.0),
        // Somebody else may have been faster.
        ObservationKind::OfferRefused => (false, 0.5),
        ObservationKind::NotDelivered => (false, 2.0),
        // What costs nothing proves nothing: signed receipts alone do not count.
        ObservationKind::Paid => (true, 1.0),
        ObservationKind::ReceiptsWithheld => (false, 2.0),
        // What was relied on: it takes some deals to make up for one.
        ObservationKind::ContractBroken => (false, 4.0),
        // Whoever denies what it has signed may deny anything: nothing that it did well before makes up for it soon.
        ObservationKind::HistoryRewritten => (false, 8.0),
        // To be there is cheap: a month of it weighs as two deals.
        ObservationKind::LinkUp => (true, 0.1),
        ObservationKind::LinkLost => (false, 0.1),
    }
}

/// Whether it is about a deal, which costs something, and not about the link.
fn is_deal(kind: ObservationKind) -> bool {
    !matches!(kind, ObservationKind::LinkUp | ObservationKind::LinkLost)
}

/// Sums of weights, as of one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// For the peer.
    pub good: f64,
    /// Against it.
    pub bad: f64,
    /// For the peer, from deals alone.
    pub good_deals: f64,
}

impl Evidence {
    /// How much was seen.
    pub fn weight(&self) -> f64 {
        self.good + self.bad
    }

    /// The value from 0 to 1; `None` if nothing was seen.
    pub fn value(&self) -> Option<f64> {
        (self.weight() >= WEIGHT_LEAST).then(|| (self.good + 1.0) / (self.weight() + 2.0))
    }

    fn add(&mut self, kind: ObservationKind, share: f64) {
        let (good, weight) = weight(kind);
        *(if good { &mut self.good } else { &mut self.bad }) += weight * share;
        if good && is_deal(kind) {
            self.good_deals += weight * share;
        }
    }
}

/// What is left of a weight after the time between. A time in the future has lost nothing.
fn decay(from: Timestamp, now: Timestamp) -> f64 {
    let seconds = (now.as_second() - from.as_second()).max(0) as f64;
    0.5_f64.powf(seconds / (f64::from(HALF_LIFE_DAYS) * 86_400.0))
}

/// What was seen of a peer, as it weighs now. Times that are none count as long ago.
pub fn evidence(status: &RatingStatus, now: Timestamp) -> Evidence {
    let share = |at: &str| at.parse().map_or(0.0, |at| decay(at, now));
    let mut evidence = Evidence::default();
    if let Some(folded) = &status.folded {
        let share = share(&folded.at) / 1000.0;
        evidence.good = folded.good_milli as f64 * share;
        evidence.bad = folded.bad_milli as f64 * share;
        evidence.good_deals = folded.good_deals_milli as f64 * share;
    }
    for seen in &status.observations {
        evidence.add(seen.kind, share(&seen.at));
    }
    evidence
}

/// Adds what is new to what was seen: each id once, and nothing as old as what is folded already. Then everything that
/// follows is computed anew.
pub fn observe(mut status: RatingStatus, new: &[RatingObservation], now: Timestamp) -> RatingStatus {
    let time = |seen: &RatingObservation| seen.at.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
    let folded_at = status.folded.as_ref().and_then(|folded| folded.at.parse::<Timestamp>().ok());
    for seen in new {
        let known = status.observations.iter().any(|known| known.id == seen.id && known.kind == seen.kind);
        if !known && folded_at.is_none_or(|folded| time(seen) > folded) {
            status.observations.push(seen.clone());
            status.count += 1;
        }
    }
    status.observations.sort_by_key(|seen| std::cmp::Reverse(time(seen)));
    while status.observations.len() > OBSERVATIONS_MAX {
        let Some(oldest) = status.observations.pop() else { break };
        status.folded = Some(fold(status.folded.take(), &oldest));
    }
    restate(status, now)
}

/// Computes what follows from the observations, as of now.
pub fn restate(mut status: RatingStatus, now: Timestamp) -> RatingStatus {
    let evidence = evidence(&status, now);
    status.value = evidence.value().map(percent);
    status.shown = shown(status.value);
    status.weight = format!("{:.2}", evidence.weight());
    status.half_life_days = HALF_LIFE_DAYS;
    status.last = status.observations.first().map(|seen| format!("{:?} {}", seen.kind, seen.at)).unwrap_or_default();
    status
}

fn fold(folded: Option<FoldedObservations>, oldest: &RatingObservation) -> FoldedObservations {
    let before = folded.unwrap_or_default();
    let at = oldest.at.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
    let share = before.at.parse().map_or(0.0, |from| decay(from, at));
    let mut sum = Evidence {
        good: before.good_milli as f64 * share,
        bad: before.bad_milli as f64 * share,
        good_deals: before.good_deals_milli as f64 * share,
    };
    sum.add(oldest.kind, 1000.0);
    FoldedObservations {
        at: oldest.at.clone(),
        good_milli: sum.good.round() as u64,
        bad_milli: sum.bad.round() as u64,
        good_deals_milli: sum.good_deals.round() as u64,
        count: before.count + 1,
    }
}

fn percent(value: f64) -> u8 {
    (value * 100.0).round().clamp(0.0, 100.0) as u8
}

/// A value as people read it.
pub fn shown(value: Option<u8>) -> String {
    value.map_or_else(|| "?".into(), |value| value.to_string())
}

/// The word of another about a peer, and what we know of its author.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Word {
    /// What we have seen of the author ourselves.
    pub author: Evidence,
    /// What it says is for the peer.
    pub good: f64,
    /// What it says is against it.
    pub bad: f64,
}

/// What others say of a peer in catalogs, as words of those whom this node has a rating of; `rated` gives it, by DID. Nobody is heard about
/// itself, and nobody twice.
pub fn words<'a>(
    about: &str,
    opinions: &'a [KnownClusterOpinion],
    rated: impl Fn(&str) -> Option<&'a RatingStatus>,
    now: Timestamp,
) -> Vec<Word> {
    let mut heard = BTreeSet::new();
    let said = opinions.iter().filter(|opinion| opinion.author != about && heard.insert(opinion.author.as_str()));
    said.filter_map(|opinion| {
        let author = evidence(rated(&opinion.author)?, now);
        let weight = f64::from(opinion.observations);
        let good = weight * f64::from(opinion.value.min(1000)) / 1000.0;
        (credibility(&author) > 0.0).then_some(Word { author, good, bad: weight - good })
    })
    .collect()
}

/// Returns what was seen of a peer together with these words, 0 to 100; `None` if nobody whose word counts has said anything.
pub fn global(own: &RatingStatus, words: &[Word], now: Timestamp) -> Option<u8> {
    if words.is_empty() {
        return None;
    }
    combine(evidence(own, now), words).value().map(percent)
}

/// How a node that was dealt with is spoken of in catalogs: of 1000, and how many observations stand behind it. Coarse, so that neither a
/// single purchase nor how many there were can be read from it. `None`: nothing was bought of it, or too little to say anything.
pub fn opinion(status: &RatingStatus, now: Timestamp) -> Option<(u16, u32)> {
    let is_of_seller = |kind| {
        use ObservationKind::{ContractBroken, Delivered, NotDelivered, OfferHonoured};
        matches!(kind, ContractBroken | Delivered | NotDelivered | OfferHonoured)
    };
    if !status.observations.iter().any(|seen| is_of_seller(seen.kind)) {
        return None;
    }
    let evidence = evidence(status, now);
    let observations = evidence.weight().round().clamp(0.0, 10.0) as u32;
    let share = evidence.good / evidence.weight().max(WEIGHT_LEAST);
    (observations > 0).then_some(((share * 100.0).round().clamp(0.0, 100.0) as u16 * 10, observations))
}

/// Returns own evidence with what others say.
///
/// *Guarantees*: who has done nothing for us counts nothing, so any number of new keys moves nothing. One author weighs at
/// most 2, less the less it kept its word; all together weigh at most what we have seen ourselves, or 4 if that is more.
pub fn combine(own: Evidence, words: &[Word]) -> Evidence {
    let (mut good, mut bad) = (0.0, 0.0);
    for word in words {
        let said = word.good.max(0.0) + word.bad.max(0.0);
        if !said.is_finite() || said <= 0.0 {
            continue;
        }
        let share = credibility(&word.author) * (AUTHOR_WEIGHT_MAX / said).min(1.0);
        good += word.good.max(0.0) * share;
        bad += word.bad.max(0.0) * share;
    }
    let most = own.weight().max(OTHERS_WEIGHT_LEAST);
    let scale = if good + bad > most { most / (good + bad) } else { 1.0 };
    Evidence { good: own.good + good * scale, bad: own.bad + bad * scale, ..own }
}

/// From 0 for who has not done enough for us, or was as often bad as good, to 1 for who always did as it said.
fn credibility(author: &Evidence) -> f64 {
    if author.good_deals < AUTHOR_DEALS_LEAST {
        return 0.0;
    }
    author.value().map_or(0.0, |value| (2.0 * value - 1.0).max(0.0))
}

/// Whether a peer has the least rating that somebody wants. Who is not known passes if `unknown` may.
///
/// # Errors
/// The observed and the needed, in words.
pub fn meets(rating: Option<&Rating>, minimum: u8, unknown: bool) -> Result<(), String> {
    match rating.and_then(|rating| rating.status.as_ref()).and_then(RatingStatus::judged) {
        Some(value) if value >= minimum => Ok(()),
        None if unknown => Ok(()),
        value => Err(format!("its rating is {}, needed at least {minimum}", shown(value))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use crate::kinds::RatingSpec;

    const DAY: i64 = 86_400;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + day * DAY).unwrap()
    }

    fn seen(kind: ObservationKind, on: i64, id: usize) -> RatingObservation {
        RatingObservation { kind, at: day(on).to_string(), id: id.to_string() }
    }

    fn after(seen: &[RatingObservation], on: i64) -> RatingStatus {
        observe(RatingStatus::default(), seen, day(on))
    }

    #[test]
    fn nothing_seen_is_neither_0_nor_1_and_little_stays_near_the_middle() {
        use ObservationKind::*;
        assert_eq!((after(&[], 0).value, after(&[], 0).shown.as_str()), (None, "?"));
        assert_eq!(after(&[seen(OfferHonoured, 0, 1)], 0).value, Some(67));
        assert_eq!(after(&[seen(ContractBroken, 0, 1)], 0).value, Some(17));
        let many: Vec<_> = (0..20).map(|i| seen(Delivered, 0, i)).collect();
        assert_eq!(after(&many, 0).value, Some(95));
        // A month of being there is less than what two deals say.
        let there: Vec<_> = (0..30).map(|i| seen(LinkUp, i, i as usize)).collect();
        assert!(after(&there, 30).value < after(&many[..2], 0).value);
    }

    #[test]
    fn what_was_seen_counts_half_after_two_weeks_and_is_forgotten_in_the_end() {
        let broken = after(&[seen(ObservationKind::ContractBroken, 0, 1)], 0);
        let on = |on: i64| restate(broken.clone(), day(on));
        assert_eq!((broken.weight.as_str(), on(14).weight.as_str(), on(28).weight.as_str()), ("4.00", "2.00", "1.00"));
        assert_eq!((on(14).value, on(200).value), (Some(25), None));
        assert_eq!(on(-3).weight, "4.00", "a clock that was set back adds nothing");
    }

    #[test]
    fn the_same_is_seen_once_and_what_is_folded_still_counts() {
        let twice = after(&[seen(ObservationKind::Delivered, 0, 1), seen(ObservationKind::Delivered, 0, 1)], 0);
        assert_eq!((twice.count, twice.observations.len()), (1, 1));
        let all: Vec<_> = (0..200).map(|i| seen(ObservationKind::Delivered, i / 10, i as usize)).collect();
        let at_once = after(&all, 20);
        let mut one_by_one = RatingStatus::default();
        for seen in &all {
            one_by_one = observe(one_by_one, std::slice::from_ref(seen), day(20));
        }
        assert_eq!((at_once.observations.len(), at_once.count), (OBSERVATIONS_MAX, 200));
        assert_eq!(at_once.folded.as_ref().unwrap().count, 136);
        let exact: f64 = all.iter().map(|s| decay(s.at.parse().unwrap(), day(20))).sum();
        assert!((evidence(&at_once, day(20)).good - exact).abs() < 0.5, "{:?} {exact}", evidence(&at_once, day(20)));
        // After a restart everything is seen again.
        assert_eq!(observe(at_once.clone(), &all, day(20)).count, 200);
    }

    #[test]
    fn a_thousand_lying_newcomers_do_not_move_a_good_peers_rank() {
        let experience = |good: f64, bad: f64| Evidence { good, bad, good_deals: good };
        // Own experience: a good peer, a fair one, and one that we have not met.
        let peers = [experience(20.0, 1.0), experience(12.0, 4.0), Evidence::default()];
        let rank = |lies: &dyn Fn(usize) -> Vec<Word>| {
            let mut values: Vec<(usize, f64)> =
                peers.iter().enumerate().map(|(i, own)| (i, combine(*own, &lies(i)).value().unwrap_or(0.5))).collect();
            values.sort_by(|a, b| b.1.total_cmp(&a.1));
            values
        };
        let honest = rank(&|_| Vec::new());
        assert_eq!(honest.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [0, 1, 2]);
        // They say that the good one breaks everything and that the others are perfect; some have bought one thing of us.
        for author in [Evidence::default(), experience(1.0, 0.0), Evidence { good: 9.0, bad: 0.0, good_deals: 1.0 }] {
            let lies = |peer: usize| {
                let (good, bad) = if peer == 0 { (0.0, 1e9) } else { (1e9, 0.0) };
                vec![Word { author, good, bad }; 1000]
            };
            assert_eq!(rank(&lies), honest, "{author:?}");
        }
    }

    #[test]
    fn who_kept_its_word_is_heard_and_is_not_everything() {
        let friend = Evidence { good: 30.0, bad: 0.0, good_deals: 30.0 };
        let word = Word { author: friend, good: 10.0, bad: 0.0 };
        let stranger = combine(Evidence::default(), &[word]);
        assert!(stranger.value().unwrap() > 0.7 && stranger.weight() <= AUTHOR_WEIGHT_MAX);
        // However many and however sure they are: not more than we have seen.
        let own = Evidence { good: 20.0, bad: 0.0, good_deals: 20.0 };
        let against = Word { author: friend, good: 0.0, bad: f64::MAX };
        let heard = combine(own, &vec![against; 1000]);
        assert!((heard.bad - 20.0).abs() < 1e-6, "{heard:?}");
        for nonsense in [f64::NAN, f64::INFINITY, -5.0] {
            assert_eq!(combine(own, &[Word { author: friend, good: nonsense, bad: 0.0 }]), own);
        }
        let liar = Evidence { good: 10.0, bad: 10.0, good_deals: 10.0 };
        assert_eq!(combine(own, &[Word { author: liar, ..against }]), own, "as often bad as good is no authority");
    }

    #[test]
    fn words_are_of_those_who_have_proven_something_and_an_opinion_is_coarse() {
        use ObservationKind::{Delivered, LinkUp, NotDelivered, Paid};
        let many = |kind, n: usize| (0..n).map(|i| seen(kind, 0, i)).collect::<Vec<_>>();
        let (friend, stranger) = (after(&many(Delivered, 20), 0), after(&many(Delivered, 4), 0));
        let said = |author: &str, value| KnownClusterOpinion {
            author: author.into(),
            value,
            observations: 10,
            from: String::new(),
        };
        let opinions =
            [said("friend", 900), said("friend", 0), said("stranger", 0), said("unknown", 0), said("subject", 1000)];
        let rated = |did: &str| match did {
            "friend" | "subject" => Some(&friend),
            "stranger" => Some(&stranger),
            _ => None,
        };
        let words = words("subject", &opinions, rated, day(0));
        assert_eq!(words.iter().map(|word| (word.good, word.bad)).collect::<Vec<_>>(), [(9.0, 1.0)]);

        assert_eq!(opinion(&after(&[], 0), day(0)), None);
        assert_eq!(opinion(&after(&many(Paid, 5), 0), day(0)), None, "it has bought: it is no seller");
        assert_eq!(opinion(&after(&many(LinkUp, 50), 0), day(0)), None);
        assert_eq!(opinion(&friend, day(0)), Some((1000, 10)), "20 are said to be 10");
        let mixed = after(&[many(Delivered, 7), many(NotDelivered, 1)].concat(), 0);
        assert_eq!(opinion(&mixed, day(0)), Some((780, 9)));
        assert_eq!(opinion(&stranger, day(90)), None, "long ago");
    }

    #[test]
    fn a_minimum_says_what_it_saw() {
        let mut rating = Rating::new("r", RatingSpec::default());
        assert_eq!(meets(None, 50, false).unwrap_err(), "its rating is ?, needed at least 50");
        assert!(meets(Some(&rating), 50, true).is_ok());
        rating.status = Some(after(&[seen(ObservationKind::ContractBroken, 0, 1)], 0));
        assert_eq!(meets(Some(&rating), 50, true).unwrap_err(), "its rating is 17, needed at least 50");
        assert!(meets(Some(&rating), 17, false).is_ok());
    }
}

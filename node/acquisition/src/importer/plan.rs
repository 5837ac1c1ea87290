//! Every choice of the importer: a pure function from the view to a plan.

use std::collections::HashSet;
use std::time::Duration;

use fluidos_model::intent::{Intents, parse};
use fluidos_model::kinds::{AllocationPhase, Phase, Solver, SolverContract, SolverSplit, SolverStatus, names};
use fluidos_model::market::{Buying, Split};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::combine;
use super::plain;
use super::status::{self, Step};
use super::view::{Findings, Offered, Peer, Refused, SHORTLIST, Search, View};
use super::wanted::Wanted;
use crate::terms;

/// The official time-out of a Solver.
const TIMED_OUT: Duration = Duration::from_secs(5 * 60);
/// Somebody may offer something in a moment while all others have refused: so long it is waited for. A Solver fails within 10 s of the last refusal.
const PENDING_GRACE: Duration = Duration::from_secs(5);
/// Peers that do not answer are asked again this often, sooner when something is heard of them.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASK_PENDING_AGAIN: Duration = Duration::from_secs(1);
/// What is measured of peers changes all the time: they are not asked more often for that.
const NEWS_PAUSE: Duration = Duration::from_millis(200);
/// Somebody else is paying, which takes some tens of milliseconds.
const PAYING_PAUSE: Duration = Duration::from_millis(100);
/// Caches of several kinds are not current at the same moment: a contract that is missing is missed after this time.
const MISSING_GRACE: Duration = Duration::from_secs(2);

/// What is to be done for one Solver.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Write how it stands. `over` says that nothing follows by itself, and why is told in an event if it failed.
    Write { status: Box<SolverStatus> },
    /// Ask these peers.
    Ask {
        peers: Vec<Peer>,
        selector: Box<Wanted>,
        /// How it may be bought in parts.
        split: Option<Split>,
        intents: Box<Intents>,
        /// By what they are ranked, and how long they are waited for.
        buying: Option<Box<Buying>>,
        /// Who was asked before, in this round, and what came of it.
        earlier: Option<Box<(Vec<Peer>, Findings)>>,
    },
    /// Reserve and buy from one of them, or a part from each of several.
    Buy { offers: Vec<Offered> },
    /// Go on with a reservation that was interrupted.
    Resume,
    /// Make the contract usable.
    Allocate { contract: String },
    /// These contracts seem to be gone: look, and say so.
    Ended { contracts: Vec<String>, status: Box<SolverStatus> },
}

impl Action {
    /// Says whether this may cost something. What was begun by an earlier process is taken for it.
    pub fn pays(&self) -> bool {
        match self {
            Self::Buy { offers } => offers.iter().any(|offered| offered.owes().is_none_or(|price| !price.is_zero())),
            Self::Resume => true,
            _ => false,
        }
    }
}

/// What to do now, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Uid, the Solver as it was looked at, and what to do.
    pub actions: Vec<(String, Solver, Action)>,
    pub look_again: Option<Timestamp>,
}

pub(super) enum Next {
    Now(Action),
    At(Timestamp),
    Wait,
}

/// Decides about every Solver.
pub(super) fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let nothing = Search::default();
    for solver in view.solvers.iter().filter(|solver| solver.metadata.deletion_timestamp.is_none()) {
        let Some(uid) = solver.uid() else { continue };
        let search = view.searches.get(&uid).unwrap_or(&nothing);
        let later = match next(view, solver, search, now) {
            Next::Now(action) => {
                plan.actions.push((uid, (*solver).clone(), action));
                None
            }
            Next::At(at) => Some(at),
            Next::Wait => None,
        };
        plan.look_again = [plan.look_again, later].into_iter().flatten().min();
    }
    one_pays(view, &mut plan, now);
    plan
}

/// One purchase at a price at a time: the next is decided when this one stands among the contracts.
fn one_pays(view: &View, plan: &mut Plan, now: Timestamp) {
    let resumes = plan.actions.iter().any(|(_, _, action)| matches!(action, Action::Resume));
    let mut paying = resumes || view.searches.is_paying();
    let before = plan.actions.len();
    plan.actions.retain(|(_, _, action)| {
        let waits = matches!(action, Action::Buy { .. }) && action.pays();
        !waits || !std::mem::replace(&mut paying, true)
    });
    if plan.actions.len() < before {
        let soon = terms::shifted(now, PAYING_PAUSE, 1);
        plan.look_again = [plan.look_again, soon].into_iter().flatten().min();
    }
}

fn next(view: &View, solver: &Solver, search: &Search, now: Timestamp) -> Next {
    if let Some(at) = search.not_before.filter(|at| *at > now) {
        return Next::At(at);
    }
    if search.outdated.is_some() && search.outdated == solver.metadata.resource_version {
        return Next::Wait;
    }
    let (spec, old) = (&solver.spec, solver.status.clone().unwrap_or_default());
    let write = |status: SolverStatus| Next::Now(Action::Write { status: Box::new(status) });
    let fail = |step, reason: String| write(status::ended(&old, Phase::Failed, step, &reason, now));
    let unfinished = spec.reserve_and_buy && old.reserve_and_buy != Phase::Solved;
    match old.solver_phase.phase {
        Phase::Failed | Phase::TimedOut => return Next::Wait,
        // Somebody asks for more than was done: the search goes on with a new clock.
        Phase::Solved
            if unfinished || (spec.reserve_and_buy && spec.wants_peering() && old.peering != Phase::Solved) =>
        {
            return write(status::resumed(&old, now));
        }
        Phase::Solved if spec.reserve_and_buy => return ended(view, solver, search, &old, now),
        Phase::Solved => return Next::Wait,
        _ => {}
    }
    if !spec.find_candidate && !spec.reserve_and_buy {
        let idle = status::waiting(&old, "nothing is asked for: set findCandidate or reserveAndBuy", now);
        return idle.map_or(Next::Wait, write);
    }
    let selector = match Wanted::of(solver) {
        Ok(selector) => selector,
        Err(reason) => return fail(Step::Find, reason),
    };
    let split = match solver.spec.split.as_ref().map(|split| rule(split, &selector)).transpose() {
        Ok(split) => split,
        Err(reason) => return fail(Step::Find, reason),
    };
    let intents = parse(solver.annotations().iter().map(|(key, value)| (key.as_str(), value.as_str())));
    if !intents.is_clear() {
        return fail(Step::Find, intents.warnings().join("; "));
    }
    let Some(started) = status::started(&old) else {
        return write(status::begun(&old, now));
    };
    let over = terms::shifted(started, TIMED_OUT, 1).unwrap_or(now);
    let reservation = view.reservation(solver).and_then(|reservation| reservation.status.as_ref());
    let contracts = named(view, solver, search);
    if !contracts.is_empty() {
        return bought(view, solver, contracts, &old, over, now);
    }
    // Before any time-out: what was begun may have been sold, and somebody must take it.
    if reservation
        .is_some_and(|status| status.phase.phase == Phase::Running && !search.ended.contains(&status.transaction_id))
    {
        return Next::Now(Action::Resume);
    }
    if over <= now {
        return write(status::ended(&old, Phase::TimedOut, Step::of(spec, &old), &outlook(view, search, &[]), now));
    }
    let buying = view.purse.policy.as_ref().and_then(|policy| policy.as_ref().ok());
    let shortlist = buying.map_or(SHORTLIST, |buying| buying.shortlist);
    let ask_some = |peers: Vec<Peer>, earlier: Option<(Vec<Peer>, Findings)>| {
        let (selector, intents) = (Box::new(selector.clone()), Box::new(intents.clone()));
        let (buying, earlier) = (buying.cloned().map(Box::new), earlier.map(Box::new));
        Next::Now(Action::Ask { peers, selector, split: split.clone(), intents, buying, earlier })
    };
    let ask = || ask_some(view.peers.iter().take(shortlist).cloned().collect(), None);
    let Some((asked_at, asked)) = &search.asked else {
        return if view.peers.is_empty() { nobody(view, search, &old, over, now) } else { ask() };
    };
    if !spec.reserve_and_buy && !search.findings.offered.is_empty() {
        return write(status::found(&old, &super::weigh::told(&search.findings), now));
    }
    let mut too_dear = Vec::new();
    for offered in search.findings.offered.iter().filter(|offered| search.may_try(&offered.candidate, now)) {
        match view.may_buy(solver, offered, &[], now) {
            Ok(()) => return Next::Now(Action::Buy { offers: vec![offered.clone()] }),
            Err(refused) => too_dear.push(refused),
        }
    }
    // Nobody of this shortlist sells now: the next, until all were asked.
    let known: HashSet<_> = asked.iter().map(|peer| (&peer.name, peer.did)).collect();
    let others = view.peers.iter().filter(|peer| !known.contains(&(&peer.name, peer.did)));
    let next: Vec<Peer> = others.take(shortlist).cloned().collect();
    if !next.is_empty() {
        return ask_some(next, Some((asked.clone(), search.findings.clone())));
    }
    if let (Some(split), Wanted::Slice(slice)) = (&split, &selector) {
        match combine::combine(view, solver, search, (split, slice), now) {
            Ok(offers) => return Next::Now(Action::Buy { offers }),
            Err(refused) => too_dear.extend(refused),
        }
    }
    let refused = !search.findings.refused.is_empty() || !search.tried.is_empty() || !too_dear.is_empty();
    let open = search.findings.open || search.back(now).is_some();
    let outlook = || outlook(view, search, &too_dear);
    // Somebody is heard of, or is heard to offer what could serve.
    let offered = solver.annotations().get(names::ANNOTATION_OFFERED).and_then(|text| names::offered_at(text));
    let news = *asked != view.peers || offered.is_some_and(|offered| offered > *asked_at);
    let again = |pause: Duration| {
        let at = terms::shifted(*asked_at, if news { NEWS_PAUSE } else { pause }, 1);
        let at = [at, search.back(now)].into_iter().flatten().min();
        at.filter(|at| *at > now).map_or_else(ask, |at| Next::At(at.min(over)))
    };
    if !refused {
        if view.peers.is_empty() {
            return nobody(view, search, &old, over, now);
        }
        if let Some(told) = status::waiting(&old, &outlook(), now) {
            return write(told);
        }
        return again(ASK_AGAIN);
    }
    let patience = search.last_refusal.and_then(|last| terms::shifted(last, PENDING_GRACE, 1));
    if open && patience.is_some_and(|until| until > now) {
        return again(ASK_PENDING_AGAIN);
    }
    let step = if search.tried.is_empty() && too_dear.is_empty() { Step::Find } else { Step::Buy };
    fail(step, outlook())
}

/// Nobody may be asked: waits, and says so once.
fn nobody(view: &View, search: &Search, old: &SolverStatus, over: Timestamp, now: Timestamp) -> Next {
    let told = status::waiting(old, &outlook(view, search, &[]), now);
    told.map_or(Next::At(over), |status| Next::Now(Action::Write { status: Box::new(status) }))
}

/// Why nothing is bought yet, or was not: peer, step, rule.
fn outlook(view: &View, search: &Search, too_dear: &[Refused]) -> String {
    let findings = &search.findings;
    let out = search.tried.values().chain(too_dear).chain(search.away.values().map(|away| &away.why));
    let reasons = out.chain(&findings.refused).chain(&findings.pending).map(ToString::to_string);
    let reasons: Vec<String> = reasons.collect();
    match reasons.is_empty() {
        true if view.peers.is_empty() => "no trusted peer is known, needed at least one".into(),
        true => "no peer has answered yet".into(),
        false => reasons.join("; "),
    }
}

/// What was bought: what the reservations say, or what this process has just done.
fn named(view: &View, solver: &Solver, search: &Search) -> Vec<SolverContract> {
    let known = view.bought(solver);
    if !known.is_empty() {
        return known;
    }
    search.bought.iter().map(|name| SolverContract { name: name.clone(), ..SolverContract::default() }).collect()
}

/// What follows the purchase.
fn bought(
    view: &View,
    solver: &Solver,
    contracts: Vec<SolverContract>,
    old: &SolverStatus,
    over: Timestamp,
    now: Timestamp,
) -> Next {
    let write = |status: SolverStatus| Next::Now(Action::Write { status: Box::new(status) });
    let told = listed(&contracts);
    let old = &SolverStatus { contracts, ..old.clone() };
    if !solver.spec.wants_peering() {
        let are = if old.contracts.len() == 1 { "is" } else { "are" };
        return write(status::bought(old, &format!("{told} {are} bought; no peering is asked for"), now));
    }
    let mut waits = None;
    for contract in &old.contracts {
        let name = &contract.name;
        if view.contracts.get(name).is_some_and(|known| plain::is_plain(known)) {
            let reason = format!("contract {name}: {}", plain::NO_PEERING);
            return write(status::ended(old, Phase::Failed, Step::Peer, &reason, now));
        }
        let Some(allocation) = view.allocations.get(&names::allocation(name)) else {
            if over <= now {
                let reason = format!("contract {name} is bought, but its allocation is not there");
                return write(status::ended(old, Phase::TimedOut, Step::Peer, &reason, now));
            }
            return Next::Now(Action::Allocate { contract: name.clone() });
        };
        let status = allocation.status.clone().unwrap_or_default();
        match status.status {
            AllocationPhase::Active => {}
            AllocationPhase::Error => {
                let reason = format!("allocation of {name}: {}", status.message);
                return write(status::ended(old, Phase::Failed, Step::Peer, &reason, now));
            }
            phase => {
                let message = if status.message.is_empty() { "not in use yet" } else { &status.message };
                waits = Some(format!("allocation of {name} is {phase:?}, needed Active: {message}"));
            }
        }
    }
    match waits {
        None => write(status::solved(old, now)),
        Some(reason) if over <= now => write(status::ended(old, Phase::TimedOut, Step::Peer, &reason, now)),
        Some(_) => {
            let (are, its) =
                if old.contracts.len() == 1 { ("is", "its allocation is") } else { ("are", "their allocations are") };
            let peering = status::peering(old, &format!("{told} {are} bought; {its} awaited"), now);
            peering.map_or(Next::At(over), write)
        }
    }
}

fn listed(contracts: &[SolverContract]) -> String {
    let names: Vec<&str> = contracts.iter().map(|contract| contract.name.as_str()).collect();
    let noun = if names.len() == 1 { "contract" } else { "contracts" };
    format!("{noun} {}", names.join(", "))
}

/// A Solver that is solved: is what it bought still there? While some of its parts are, it says which are not; with the last it
/// has failed.
fn ended(view: &View, solver: &Solver, search: &Search, old: &SolverStatus, now: Timestamp) -> Next {
    let bought = if old.contracts.is_empty() { named(view, solver, search) } else { old.contracts.clone() };
    let lives = |contract: &SolverContract| {
        view.contracts.get(&contract.name).is_some_and(|known| known.metadata.deletion_timestamp.is_none())
    };
    let (left, gone): (Vec<SolverContract>, Vec<SolverContract>) = bought.into_iter().partition(lives);
    if gone.is_empty() {
        return Next::Wait;
    }
    let since = old.solver_phase.end_time.as_ref().and_then(|time| time.parse::<Timestamp>().ok());
    if let Some(at) = since.and_then(|since| terms::shifted(since, MISSING_GRACE, 1)).filter(|at| *at > now) {
        return Next::At(at);
    }
    let has = if gone.len() == 1 { "has" } else { "have" };
    let reason = format!("{} {has} ended: released by the other side, deleted, or its time was over", listed(&gone));
    let names = gone.into_iter().map(|contract| contract.name).collect();
    let status = if left.is_empty() {
        status::ended(old, Phase::Failed, Step::Buy, &reason, now)
    } else {
        status::fewer(old, left, &reason, now)
    };
    Next::Now(Action::Ended { contracts: names, status: Box::new(status) })
}

/// How a purchase may be split, or why it cannot.
fn rule(split: &SolverSplit, selector: &Wanted) -> Result<Split, String> {
    let Wanted::Slice(selector) = selector else { return Err("split: a service is not bought in parts".into()) };
    let rule = split.rule().map_err(|error| error.to_string())?;
    rule.check(selector).map_err(|error| error.to_string())?;
    Ok(rule)
}

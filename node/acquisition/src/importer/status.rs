//! Phases and messages of Solvers in the official spellings. Pure.

use fluidos_model::kinds::{Phase, PhaseStatus, SolverContract, SolverSpec, SolverStatus};
use jiff::Timestamp;

use crate::bounded;

/// Longer messages are cut: a status is read in a terminal.
const MESSAGE_LENGTH_MAX: usize = 2048;

/// The steps of a Solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Find,
    Buy,
    Peer,
}

impl Step {
    /// The step that a Solver is at.
    pub fn of(spec: &SolverSpec, status: &SolverStatus) -> Self {
        match (status.find_candidate, status.reserve_and_buy) {
            (_, Phase::Solved) if spec.wants_peering() => Self::Peer,
            (Phase::Solved, _) => Self::Buy,
            _ => Self::Find,
        }
    }
}

/// When a Solver was begun, if it was.
pub(super) fn started(status: &SolverStatus) -> Option<Timestamp> {
    status.solver_phase.start_time.as_ref()?.parse().ok()
}

/// The search begins.
pub(super) fn begun(old: &SolverStatus, now: Timestamp) -> SolverStatus {
    let begun = SolverStatus { find_candidate: Phase::Running, discovery_phase: Phase::Running, ..old.clone() };
    told(begun, Phase::Running, "Solver is looking for peers", now)
}

/// A search that was done goes on, because more is asked for.
pub(super) fn resumed(old: &SolverStatus, now: Timestamp) -> SolverStatus {
    let mut resumed = old.clone();
    resumed.solver_phase.start_time = None;
    told(resumed, Phase::Running, "Solver goes on: more is asked for", now)
}

/// Nothing can be done but wait; `None` if that is what it says already.
pub(super) fn waiting(old: &SolverStatus, message: &str, now: Timestamp) -> Option<SolverStatus> {
    let message = bounded(message, MESSAGE_LENGTH_MAX);
    (old.solver_phase.message != message).then(|| told(old.clone(), old.solver_phase.phase, &message, now))
}

/// Candidates are found, and nothing more is asked for.
pub(super) fn found(old: &SolverStatus, message: &str, now: Timestamp) -> SolverStatus {
    let found = SolverStatus { find_candidate: Phase::Solved, discovery_phase: Phase::Solved, ..old.clone() };
    told(found, Phase::Solved, &format!("No need to reserve and buy the resources: {message}"), now)
}

/// It is reserved and bought, and no peering is asked for.
pub(super) fn bought(old: &SolverStatus, message: &str, now: Timestamp) -> SolverStatus {
    told(with_contract(old), Phase::Solved, message, now)
}

/// It is bought; the peering is awaited. `None` if that is what it says already.
pub(super) fn peering(old: &SolverStatus, message: &str, now: Timestamp) -> Option<SolverStatus> {
    let peering = SolverStatus { peering: Phase::Running, consume_phase: Phase::Allocating, ..with_contract(old) };
    let told = told(peering, Phase::Running, message, now);
    // The contracts of `old` are those that are bought; what stands in the object follows with the next word.
    let said = |status: &SolverStatus| (status.solver_phase.message.clone(), status.peering, status.reserve_and_buy);
    (said(old) != said(&told)).then_some(told)
}

/// All is done.
pub(super) fn solved(old: &SolverStatus, now: Timestamp) -> SolverStatus {
    let solved = SolverStatus { peering: Phase::Solved, consume_phase: Phase::Active, ..with_contract(old) };
    let message = match solved.contracts.len() {
        0 | 1 => "Solver has completed all the phases".to_owned(),
        parts => {
            let peers: Vec<&str> = solved.contracts.iter().map(|contract| contract.peer.as_str()).collect();
            format!("Solver has completed all the phases: {parts} contracts, with {}", peers.join(", "))
        }
    };
    told(solved, Phase::Solved, &message, now)
}

/// Some of what it bought is over, and the rest goes on.
pub(super) fn fewer(old: &SolverStatus, left: Vec<SolverContract>, reason: &str, now: Timestamp) -> SolverStatus {
    let fewer = SolverStatus { contracts: left, ..old.clone() };
    told(fewer, Phase::Solved, reason, now)
}

/// It has failed, or its time is over, at a step.
pub(super) fn ended(old: &SolverStatus, phase: Phase, step: Step, reason: &str, now: Timestamp) -> SolverStatus {
    let mut ended = old.clone();
    match step {
        Step::Find => (ended.find_candidate, ended.discovery_phase) = (phase, phase),
        Step::Buy => {
            (ended.find_candidate, ended.discovery_phase) = (Phase::Solved, Phase::Solved);
            (ended.reserve_and_buy, ended.reservation_phase) = (phase, phase);
        }
        Step::Peer => {
            ended = with_contract(&ended);
            (ended.peering, ended.consume_phase) = (phase, phase);
        }
    }
    told(ended, phase, reason, now)
}

fn with_contract(old: &SolverStatus) -> SolverStatus {
    SolverStatus {
        find_candidate: Phase::Solved,
        discovery_phase: Phase::Solved,
        reserve_and_buy: Phase::Solved,
        reservation_phase: Phase::Solved,
        ..old.clone()
    }
}

fn told(mut status: SolverStatus, phase: Phase, message: &str, now: Timestamp) -> SolverStatus {
    status.solver_phase = phase_status(&status.solver_phase, phase, message, now);
    status
}

/// A phase with its times: the first start stays, a change is stamped, an end too.
pub(super) fn phase_status(old: &PhaseStatus, phase: Phase, message: &str, now: Timestamp) -> PhaseStatus {
    let now = now.to_string();
    let changed = old.phase != phase || old.last_change_time.is_none();
    PhaseStatus {
        phase,
        message: bounded(message, MESSAGE_LENGTH_MAX),
        start_time: old.start_time.clone().or_else(|| (phase != Phase::Idle).then(|| now.clone())),
        last_change_time: if changed { Some(now.clone()) } else { old.last_change_time.clone() },
        end_time: phase.is_final().then_some(now),
    }
}

//! Parts of several offers, put together: a pure function from what each has room for to what is bought of each.
//!
//! Best first, until all units have a place. If the best have too little room for the number of parts that are allowed, the largest
//! are taken first.

use fluidos_model::kinds::Solver;
use fluidos_model::market::{K8SliceSelector, Split};
use jiff::Timestamp;

use super::view::{Offered, Part, Refused, Search, View};
use super::weigh;

/// Returns what is bought of each, or why that is not enough.
pub(super) fn combine(
    view: &View,
    solver: &Solver,
    search: &Search,
    (split, selector): (&Split, &K8SliceSelector),
    now: Timestamp,
) -> Result<Vec<Offered>, Vec<Refused>> {
    let may_try = |part: &&Part| search.may_try(&part.offered.candidate, now);
    let ranked: Vec<&Part> = search.findings.parts.iter().filter(may_try).collect();
    let mut largest = ranked.clone();
    largest.sort_by_key(|part| std::cmp::Reverse(part.units)); // stable: the rank decides among equals
    let mut out = Vec::new();
    for order in [&ranked, &largest] {
        match of_order(view, solver, order, (split, selector), now) {
            Ok(offers) => return Ok(offers),
            Err(refused) => out = refused,
        }
    }
    Err(out)
}

fn of_order(
    view: &View,
    solver: &Solver,
    order: &[&Part],
    (split, selector): (&Split, &K8SliceSelector),
    now: Timestamp,
) -> Result<Vec<Offered>, Vec<Refused>> {
    let needed = split.units(selector);
    let (mut left, mut offers, mut out): (u64, Vec<Offered>, Vec<Refused>) = (needed, Vec::new(), Vec::new());
    for part in order {
        if left == 0 || offers.len() >= split.most {
            break;
        }
        let units = part.units.min(left);
        let cut = match weigh::cut(&part.offered, split, selector, units) {
            Ok(cut) => cut,
            Err(reason) => {
                out.push(Refused { peer: part.offered.peer.clone(), step: "list", reason });
                continue;
            }
        };
        match view.may_buy(solver, &cut, &offers.iter().collect::<Vec<_>>(), now) {
            Ok(()) => {
                left -= units;
                offers.push(cut);
            }
            Err(refused) => out.push(refused),
        }
    }
    if left == 0 {
        let of = offers.len();
        for (number, offered) in (1..).zip(&mut offers) {
            offered.why = format!("part {number} of {of}: {}; nobody sells all of it; {}", offered.buys, offered.why);
        }
        return Ok(offers);
    }
    if !order.is_empty() {
        let reason = format!(
            "{} of {needed} units ({}) offered in at most {} parts, needed all",
            needed - left,
            split.unit,
            split.most
        );
        out.push(Refused { peer: "together".into(), step: "list", reason });
    }
    Err(out)
}

//! The order in which candidates are asked: exact first, then the smallest surplus, then the name.
//!
//! The *surplus* of a resource is what would be bought beyond what was asked for, in thousandths of what was asked for; that
//! of a candidate is the sum over the resources that were asked for. It is money spent for nothing once prices exist.

use super::{Amounts, Resource};

/// A seller's flavor that matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Name that is the same on every look: what breaks a tie.
    pub name: String,
    /// What would be bought from it.
    pub buys: Amounts,
}

/// A candidate with its place and the reason for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranked {
    /// Index into the candidates given.
    pub index: usize,
    /// Thousandths, 0 is exact.
    pub surplus_milli: u64,
    /// Why it has this place, in words.
    pub reason: String,
}

/// Returns the candidates in the order in which to ask them. `wanted` is what filters ask for at least, 0 where they do not.
pub fn rank(wanted: &Amounts, candidates: &[Candidate]) -> Vec<Ranked> {
    let ranked = |(index, candidate): (usize, &Candidate)| {
        let surplus_milli = surplus_milli(wanted, &candidate.buys);
        let reason = match surplus_milli {
            0 => format!("{}: exactly what was asked for", candidate.name),
            surplus => format!(
                "{}: {} for {wanted}, {}.{} % more than asked for",
                candidate.name,
                candidate.buys,
                surplus / 10,
                surplus % 10
            ),
        };
        Ranked { index, surplus_milli, reason }
    };
    let mut order: Vec<Ranked> = candidates.iter().enumerate().map(ranked).collect();
    order.sort_by(|a, b| {
        let key =
            |ranked: &Ranked| (ranked.surplus_milli, candidates.get(ranked.index).map(|candidate| &candidate.name));
        key(a).cmp(&key(b)).then(a.index.cmp(&b.index))
    });
    order
}

fn surplus_milli(wanted: &Amounts, buys: &Amounts) -> u64 {
    let asked_for = Resource::ALL.iter().filter(|resource| wanted.get(**resource) != 0);
    let parts = asked_for.map(|resource| {
        let (wanted, buys) = (u128::from(wanted.get(*resource)), u128::from(buys.get(*resource)));
        u64::try_from(buys.saturating_sub(wanted) * 1000 / wanted).unwrap_or(u64::MAX)
    });
    parts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn exact_first_then_the_smallest_surplus_then_the_name() {
        let candidate = |name: &str, cpu_milli, pods| Candidate {
            name: name.into(),
            buys: Amounts { cpu_milli, pods, ..Amounts::default() },
        };
        let candidates =
            [candidate("d", 2000, 5), candidate("c", 1500, 9), candidate("b", 1000, 110), candidate("a", 1500, 1)];
        let wanted = Amounts { cpu_milli: 1000, ..Amounts::default() };
        let ranked = rank(&wanted, &candidates);
        let names: Vec<_> = ranked.iter().map(|ranked| candidates[ranked.index].name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c", "d"]);
        assert_eq!(ranked[0].reason, "b: exactly what was asked for");
        assert_eq!(ranked[1].reason, "a: cpu 1500m, pods 1 for cpu 1, 50.0 % more than asked for");
    }
}

//! Sets of completion indexes, as statuses write them: `1,3-5,7`. No effects.
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

/// Says which index a pod completes.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The index that a pod is to complete, if it is one of the Job's.
pub(crate) fn index_of(pod: &Pod, completions: i32) -> Option<i32> {
    let index: i32 = pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()?;
    (0..completions).contains(&index).then_some(index)
}

/// Indexes as intervals that neither touch nor overlap, in order: what a status says costs what it is long, not what it
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// What a status or a policy says. What is beyond the completions, or cannot be read, is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut parts: Vec<(i32, i32)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                let last = last.min(completions - 1);
                if (0..=last).contains(&first) {
                    parts.push((first, last));
                }
            }
        }
        Self::merged(parts)
    }

    fn merged(mut parts: Vec<(i32, i32)>) -> Self {
        parts.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::new();
        for (first, last) in parts {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// These and others.
    pub fn with(&self, others: impl IntoIterator<Item = i32>) -> Self {
        let mut parts = self.0.clone();
        parts.extend(others.into_iter().map(|index| (index, index)));
        Self::merged(parts)
    }

    pub fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && self.0.get(after - 1).is_some_and(|(_, last)| index <= *last)
    }

    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> i32 {
        let shared = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        self.0.iter().map(|a| other.0.iter().map(|b| shared(a, b)).sum::<i32>()).sum()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_upstream_writes_them() {
        let of = |text: &str| Indexes::parse(text, 10);
        assert_eq!(of("").with([4, 3, 7, 5, 1]).to_string(), "1,3-5,7");
        assert_eq!(of("0,1").to_string(), "0,1");
        assert_eq!(of("0-1,2").to_string(), "0-2");
        assert_eq!(of("8-99,3-2,x,-4,10").to_string(), "8,9");
        assert_eq!(
            (of("1,3-5").total(), of("1,3-5").has(4), of("1,3-5").has(2), of("").has(0)),
            (4, true, false, false)
        );
        assert_eq!(of("0-4,8").common(&of("3-8")), 3);
    }
}

//! The names of intents that anybody uses (official `KnownIntent`), and the nearest one to a name that is not.

/// Longer names are not compared: no known one is near.
const COMPARED_LENGTH_MAX: usize = 40;

macro_rules! intent_names {
    ($($variant:ident $name:literal $enforced:literal),* $(,)?) => {
        /// Name of an intent.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs)] // the variants are their own words
        pub enum IntentName { $($variant),* }

        impl IntentName {
            /// Every known name.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the suffix of the annotation.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Says whether placement obeys it. What is not enforced is told to the user.
            pub fn is_enforced(self) -> bool {
                match self { $(Self::$variant => $enforced),* }
            }
        }
    };
}

intent_names! {
    Location "location" true,
    Latency "latency" true,
    Architecture "architecture" true,
    Cpu "cpu" true,
    Memory "memory" true,
    Gpu "gpu" false,
    VmType "vm-type" false,
    Throughput "throughput" false,
    Compliance "compliance" true,
    Energy "energy" false,
    RobotPreferred "robot-preferred" false,
    Battery "battery" false,
    RobotStatus "robot-status" false,
    MaxDelay "max-delay" false,
    CarbonAware "carbon-aware" false,
    BandwidthAgainst "bandwidth-against" false,
    TeeReadiness "tee-readiness" true,
    Service "service" false,
    Mspl "mspl" false,
    Sensor "sensor" false,
    Hardware "hardware" true,
    CyberDeception "cyber-deception" false,
    Magi "magi" false,
}

impl IntentName {
    /// Says whether somebody else may vouch that a place is what is asked for. What is free or near is measured by who asks.
    pub fn can_be_vouched(self) -> bool {
        matches!(self, Self::Location | Self::Architecture | Self::TeeReadiness | Self::Hardware | Self::Compliance)
    }

    /// Returns the intent of this name; upper and lower case, and `_` for `-`, are the same.
    pub fn from_name(name: &str) -> Option<Self> {
        let same =
            |known: &str| known.len() == name.len() && known.bytes().zip(name.bytes()).all(|(a, b)| a == fold(b));
        Self::ALL.iter().copied().find(|known| same(known.as_str()))
    }
}

fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// Returns the known name that was probably meant: at most two slips away, and fewer than half of the name.
pub fn nearest_known(name: &str) -> Option<&'static str> {
    let name: Vec<u8> = name.bytes().take(COMPARED_LENGTH_MAX + 1).map(fold).collect();
    if name.len() > COMPARED_LENGTH_MAX {
        return None;
    }
    let distances = IntentName::ALL.iter().map(|known| (distance(&name, known.as_str().as_bytes()), known.as_str()));
    let (distance, known) = distances.min()?;
    (distance <= 2 && distance * 2 < name.len()).then_some(known)
}

/// Returns how many insertions, deletions, replacements and swaps of neighbours lead from one to the other (optimal string
/// alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(IntentName::from_name("Latency"), Some(IntentName::Latency));
        assert_eq!(IntentName::from_name("cyber_deception"), Some(IntentName::CyberDeception));
        assert_eq!(IntentName::from_name("latncy"), None);
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        for (name, nearest) in [
            ("latncy", Some("latency")),
            ("loaction", Some("location")),
            ("memmory", Some("memory")),
            ("cpus", Some("cpu")),
            ("resource", None),
            ("x", None),
            ("", None),
            (&*"l".repeat(100), None),
        ] {
            assert_eq!(nearest_known(name), nearest, "{name}");
        }
    }
}

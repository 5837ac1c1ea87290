//! The addresses by which a reseller's buyer knows a service that runs elsewhere, as they stand in an annotation: `100.64.0.7=100.96.30.1,…`, each
//! that of its pod and then its *stand-in*.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Stand-ins by the addresses for which they stand.
pub type StandIns = BTreeMap<Ipv4Addr, Ipv4Addr>;

/// Returns them as they are written.
pub fn stand_ins_text(stand_ins: &StandIns) -> String {
    stand_ins.iter().map(|(pod, stand_in)| format!("{pod}={stand_in}")).collect::<Vec<_>>().join(",")
}

/// Returns what was written. What cannot be read is left out: to that nothing is carried.
pub fn stand_ins(text: &str) -> StandIns {
    let pair = |text: &str| {
        let (pod, stand_in) = text.split_once('=')?;
        Some((pod.parse().ok()?, stand_in.parse().ok()?))
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let both: StandIns = [("100.64.0.7", "100.96.30.1"), ("100.64.0.8", "100.96.30.2")]
            .map(|(pod, stand_in)| (pod.parse().unwrap(), stand_in.parse().unwrap()))
            .into();
        assert_eq!(stand_ins_text(&both), "100.64.0.7=100.96.30.1,100.64.0.8=100.96.30.2");
        assert_eq!(stand_ins(&stand_ins_text(&both)), both);
        assert_eq!(stand_ins("x,1.2.3.4,=,100.64.0.7=y"), StandIns::new());
    }
}

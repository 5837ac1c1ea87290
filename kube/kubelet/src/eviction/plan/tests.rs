#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use super::*;

const MI: u64 = 1 << 20;

#[test]
fn thresholds_are_read_or_refused() {
    let read: Thresholds = "memory.available<200Mi, nodefs.available<12.5%,pid.available<1k".parse().unwrap();
    let wanted = [
        (Signal::Memory, Least::Amount(200 * MI)),
        (Signal::NodeFs, Least::Share(125_000)),
        (Signal::Pid, Least::Amount(1000)),
    ];
    assert_eq!(read.0, BTreeMap::from(wanted));
    assert!("".parse::<Thresholds>().unwrap().0.is_empty());
    let refused = |text: &str| text.parse::<Thresholds>().unwrap_err();
    assert!(refused("memory<1").starts_with("\"memory\": needed one of memory.available, nodefs.available"));
    assert!(refused("memory.available=1").contains("needed SIGNAL<QUANTITY"));
    for wrong in ["memory.available<x", "nodefs.available<101%", "nodefs.available<-1%", "memory.available<-5"] {
        assert!(refused(wrong).contains("needed a quantity"), "{wrong}");
    }
}

#[test]
fn what_is_short_comes_by_urgency() {
    let room = |free, total| Room { free, total };
    let mut observed = Observed::from([
        (Signal::Memory, room(100 * MI, 1000 * MI)),
        (Signal::NodeFs, room(99, 1000)),
        (Signal::NodeInodes, room(0, 0)),
        (Signal::ImageFs, room(150, 1000)),
    ]);
    let thresholds = Thresholds::default();
    assert_eq!(met(&thresholds, &observed), [(Signal::NodeFs, 100, 99)]);
    observed.insert(Signal::Memory, room(100 * MI - 1, 1000 * MI));
    assert_eq!(met(&thresholds, &observed)[0], (Signal::Memory, 100 * MI, 100 * MI - 1));
}

#[test]
fn a_condition_stays_for_a_while() {
    let (mut last, short) = (BTreeMap::new(), [(Signal::NodeFs, 1, 0)]);
    let mut at = |met: &[_], now: u64| {
        conditions(met, &mut last, Duration::from_secs(now), Duration::from_secs(30)).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(at(&[], 0), [""; 0]);
    assert_eq!(at(&short, 10), ["DiskPressure"]);
    assert_eq!(at(&[], 39), ["DiskPressure"]);
    assert_eq!(at(&[], 40), [""; 0]);
    let none = conditions(&short, &mut BTreeMap::new(), Duration::ZERO, Duration::ZERO);
    assert_eq!(none.len(), 1, "what is met holds in any case");
}

#[test]
fn who_is_refused() {
    let check =
        |all: &[&'static str], best_effort, tolerates| refusal(&all.iter().copied().collect(), best_effort, tolerates);
    assert_eq!(check(&[], true, false), None);
    assert_eq!(check(&["MemoryPressure"], false, false), None);
    assert_eq!(check(&["MemoryPressure"], true, true), None);
    let memory = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(check(&["MemoryPressure"], true, false).unwrap(), memory);
    let both = "Pod was rejected: The node had condition: [DiskPressure MemoryPressure]. ";
    assert_eq!(check(&["MemoryPressure", "DiskPressure"], false, true).unwrap(), both);
}

#[test]
fn who_goes_first() {
    let c = |uid: &str, priority, used, requested| Candidate { uid: uid.into(), priority, used, requested };
    let check = |signal| {
        let mut all = [
            c("within", 0, 90, 100),
            c("bit", 5, 110, 100),
            c("much", 5, 300, 100),
            c("low", -1, 101, 100),
            c("best", 5, 250, 0),
        ];
        order(signal, &mut all);
        all.map(|c| c.uid).join(" ")
    };
    assert_eq!(check(Signal::Memory), "low best much bit within");
    assert_eq!(check(Signal::Pid), "low within much best bit");
}

#[test]
fn words() {
    let containers = [("a".to_owned(), 300 * MI, 100 * MI), ("b".to_owned(), 1, 2)];
    let told = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 97Ki. \
        Container a was using 300Mi, request is 100Mi, has larger consumption of memory. ";
    assert_eq!(message((Signal::Memory, 100 * MI, 97 << 10), &containers), told);
    let inodes = "The node was low on resource: inodes. Threshold quantity: 1024, available: 7. ";
    assert_eq!(message((Signal::NodeInodes, 1024, 7), &[]), inodes);
}

#[test]
fn limits_on_the_disk() {
    let limit = |mi: u64| Some((format!("{mi}Mi"), mi * MI));
    let disk = |volume: (u64, Option<u64>), a: (u64, Option<u64>), b: (u64, Option<u64>)| Disk {
        volumes: vec![("v".into(), volume.0 * MI, volume.1.and_then(limit))],
        containers: vec![("a".into(), a.0 * MI, a.1.and_then(limit)), ("b".into(), b.0 * MI, b.1.and_then(limit))],
    };
    let check = |volume, a, b| disk(volume, a, b).exceeded().unwrap_or_default();
    assert_eq!(check((1, Some(1)), (1, Some(1)), (9, None)), "");
    assert_eq!(
        check((2, Some(1)), (2, Some(1)), (9, None)),
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
    );
    assert_eq!(
        check((2, None), (2, Some(1)), (9, None)),
        "Container a exceeded its local ephemeral storage limit \"1Mi\". "
    );
    let pod = "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ";
    assert_eq!(check((2, None), (1, Some(1)), (1, Some(2))), pod, "volumes are the pod's");
    assert_eq!(check((9, None), (1, Some(1)), (1, None)), "", "one without a limit makes the pod boundless");
}

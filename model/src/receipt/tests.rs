#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::market::{BusinessModel, Objective, SHARE_MOST, ServiceLevel};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn basis() -> Basis {
    Basis {
        contract_id: "contract-a".into(),
        terms_digest: "ab".repeat(32),
        buyer: "did:key:buyer".into(),
        seller: "did:key:seller".into(),
        amounts: Amounts { cpu_milli: 500, memory_bytes: 1 << 30, pods: 3, ..Amounts::default() },
        conditions: Conditions::default(),
        issued: at("2026-11-27T17:30:00Z"),
        until: None,
        number: 0,
        previous: "ab".repeat(32),
        from: at("2026-11-27T17:30:00Z"),
    }
}

fn served(seconds: u64) -> Measures {
    Measures { reserved_ms: seconds * 1000, ..Measures::default() }
}

fn closed(from: &str, until: &str, measures: Measures) -> Closed {
    Closed { from: at(from), until: at(until), end: None, measures, pods: PodTimes::default() }
}

fn half_hour(measures: Measures) -> Closed {
    closed("2026-11-27T17:30:00Z", "2026-11-27T18:00:00Z", measures)
}

fn state(buyer: Measures, seller: Measures, item: Item) -> LineState {
    let basis = basis();
    let receipt = complete(&basis, &propose(&basis, &half_hour(seller)), &buyer);
    check_completed(&basis, &propose(&basis, &half_hour(seller)), &receipt).unwrap();
    receipt.line(item).unwrap().state
}

/// Pods that ran from one second to another of the half hour.
fn ran(pods: &[(&str, i64, i64)]) -> PodTimes {
    let begin = at("2026-11-27T17:30:00Z");
    let mut times = PodTimes::default();
    for (pod, from, until) in pods {
        let moment = |seconds: i64| begin + SignedDuration::from_secs(seconds);
        times.ran(&[(*pod).to_owned()], moment(*from), moment(*until));
    }
    times
}

#[test]
fn pods_are_listed_by_interval_with_both_measures_and_bounded() {
    let basis = basis();
    let seller = ran(&[("b", 0, 60), ("b", 120, 180), ("a", 10, 20)]);
    let proposal = propose(&basis, &Closed { pods: seller, ..half_hour(served(1800)) });
    check_proposal(&basis, &proposal, at("2026-11-27T18:00:00Z")).unwrap();
    let bought = ran(&[("b", 2, 58), ("c", 0, 1800)]);
    let good = list_pods(complete(&basis, &proposal, &served(1800)), &bought);
    check_completed(&basis, &proposal, &good).unwrap();
    check_next(&basis, &good).unwrap();
    let told = |line: &PodLine| {
        let of = |ran: &Option<PodInterval>| {
            ran.as_ref().map(|ran| (ran.from.as_second() % 1800, ran.until.as_second() % 1800, ran.ms))
        };
        (line.pod.clone(), of(&line.buyer), of(&line.seller))
    };
    let lines: Vec<_> = good.pods.iter().map(told).collect();
    // One that stopped and came back is one interval, with how long it ran in it.
    assert_eq!(
        lines,
        [
            ("a".into(), None, Some((10, 20, 10_000))),
            ("b".into(), Some((2, 58, 56_000)), Some((0, 180, 120_000))),
            ("c".into(), Some((0, 0, 1_800_000)), None),
        ]
    );
    assert_eq!(good.version, 2);
    assert_eq!(propose(&basis, &half_hour(served(1800))).version, 1, "without pods it is read by everybody");
    // Neither changes the other's, claims more than there was, or lists without end.
    let bad = |change: &dyn Fn(&mut Receipt)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_completed(&basis, &proposal, &bad).unwrap_err().to_string()
    };
    let needed = |error: String, needed: &str| assert!(error.contains(needed), "{error}");
    needed(bad(&|bad| bad.pods[0].seller = None), "who saw it");
    needed(bad(&|bad| bad.pods[1].seller.as_mut().unwrap().ms = 1), "pods is PodLine");
    needed(bad(&|bad| bad.pods[1].buyer.as_mut().unwrap().ms = 56_001), "a part of");
    needed(
        bad(&|bad| bad.pods[1].buyer.as_mut().unwrap().from = basis.issued - SignedDuration::from_secs(1)),
        "a part of",
    );
    needed(bad(&|bad| bad.pods[2].pod = "b".into()), "each UID once");
    needed(bad(&|bad| bad.pods[2].pod = "c\n".into()), "each UID once");
    needed(bad(&|bad| bad.pods.swap(0, 2)), "pods is");
    needed(bad(&|bad| bad.pods_left_out.seller = 7), "the proposal");
    needed(bad(&|bad| bad.version = 1), "the proposal");
    needed(bad(&|bad| bad.pods = vec![bad.pods[0].clone(); 17]), "at most 16");
    let mut ahead = proposal.clone();
    ahead.pods[0].buyer = ahead.pods[0].seller.clone();
    needed(
        check_proposal(&basis, &ahead, at("2026-11-27T18:00:00Z")).unwrap_err().to_string(),
        "what the seller saw only",
    );
    // A crowd: as many as there is room for, and how many more.
    let names: Vec<String> = (0..300).map(|pod| format!("pod-{pod:03}")).collect();
    let crowd: Vec<_> = names.iter().map(|name| (name.as_str(), 0, 60)).collect();
    let proposal = propose(&basis, &Closed { pods: ran(&crowd[..20]), ..half_hour(served(1800)) });
    assert_eq!((proposal.pods.len(), proposal.pods_left_out.seller), (16, 4));
    let full = list_pods(complete(&basis, &proposal, &served(1800)), &ran(&crowd[..20]).bounded(16));
    assert!(full.pods.iter().all(|line| line.buyer.is_some()), "both choose the same");
    let full = list_pods(complete(&basis, &proposal, &served(1800)), &ran(&crowd[10..18]));
    assert_eq!((full.pods.len(), full.pods_left_out), (16, PodsLeftOut { buyer: 2, seller: 4 }));
    check_completed(&basis, &proposal, &full).unwrap();
    let mut times = PodTimes::default();
    times.ran(&names, basis.issued, basis.issued + SignedDuration::from_secs(1));
    assert_eq!((times.pods.len(), times.left_out), (256, 44));
}

#[test]
fn a_meter_knows_which_pods_ran_in_which_interval() {
    let mut meter = Meter::new(at("2026-11-27T17:30:00Z"));
    let reading = |serving, pods: &[&str]| Reading {
        serving,
        pods: pods.len() as u64,
        running: pods.iter().map(|pod| (*pod).to_owned()).collect(),
        ..Reading::default()
    };
    meter.look(at("2026-11-27T17:30:00Z"), &reading(true, &["a"]));
    meter.look(at("2026-11-27T17:30:10Z"), &reading(true, &["a", "b"]));
    meter.look(at("2026-11-27T17:30:20Z"), &reading(false, &["b"]));
    meter.look(at("2026-11-27T17:30:25Z"), &reading(true, &[]));
    let (from, hour) = (at("2026-11-27T17:30:00Z"), at("2026-11-27T18:00:00Z"));
    meter.end(at("2026-11-27T17:30:30Z"), End::Released);
    let seen = meter.pods_within(from, hour);
    let told: Vec<_> = seen.pods.iter().map(|(pod, ran)| (pod.as_str(), ran.from, ran.until, ran.ms)).collect();
    let moment = |seconds| from + SignedDuration::from_secs(seconds);
    assert_eq!(told, [("a", moment(0), moment(20), 20_000), ("b", moment(10), moment(20), 10_000)]);
    assert_eq!(meter.measured(from, hour).unwrap().pods_ms, 30_000, "the line is their sum");
    // An interval ends at a whole second, and so does what ran in it.
    let mut meter = Meter::new(from);
    meter.look(at("2026-11-27T17:30:01.25Z"), &reading(true, &["a"]));
    meter.look(at("2026-11-27T17:30:02.1Z"), &reading(true, &["a", "b"]));
    meter.end(at("2026-11-27T17:30:02.9Z"), End::Released);
    let seen = meter.pods_within(from, hour);
    let told: Vec<_> = seen.pods.iter().map(|(pod, ran)| (pod.as_str(), ran.from, ran.until, ran.ms)).collect();
    assert_eq!(told, [("a", moment(1), moment(2), 1000)], "b ran behind its end");
    let proposal = propose(&basis(), &meter.closed[0]);
    check_proposal(&basis(), &proposal, hour).unwrap();
}

#[test]
fn measures_that_differ_beyond_the_tolerance_are_disputed_with_both_numbers() {
    assert_eq!(state(served(1800), served(1800), Item::Reserved), LineState::Agreed);
    // 1 % of 1800 s is 18 s.
    assert_eq!(state(served(1782), served(1800), Item::Reserved), LineState::Agreed);
    assert_eq!(state(served(1781), served(1800), Item::Reserved), LineState::Disputed);
    assert_eq!(state(served(1800), served(1781), Item::Reserved), LineState::Disputed, "whoever measured less");
    let basis = basis();
    let receipt = complete(&basis, &propose(&basis, &half_hour(served(1800))), &served(900));
    let line = receipt.line(Item::Reserved).unwrap();
    assert_eq!((line.buyer, line.seller), (Some(900), Some(1800)));
    assert!(receipt.is_disputed());
    assert_eq!(receipt.served(MeasuredBy::Both), 900, "what nobody contests");
}

#[test]
fn what_one_party_cannot_see_is_a_claim() {
    let seller =
        Measures { cpu_ms: Some(90_000), memory_mib_ms: Some(5_000), bytes_to_seller: Some(1), ..served(1800) };
    assert_eq!(state(served(1800), seller, Item::Cpu), LineState::Claimed);
    assert_eq!(state(served(1800), seller, Item::Memory), LineState::Claimed);
    assert_eq!(state(served(1800), seller, Item::BytesToSeller), LineState::Claimed);
    // A buyer that says it has seen the seller's CPU changes nothing.
    let buyer = Measures { cpu_ms: Some(1), ..served(1800) };
    let basis = basis();
    let receipt = complete(&basis, &propose(&basis, &half_hour(seller)), &buyer);
    assert_eq!(receipt.line(Item::Cpu).unwrap().buyer, None);
}

#[test]
fn who_did_not_look_takes_the_others_word_and_no_more() {
    let buyer = Measures { away_ms: 600_000, ..served(1200) };
    assert_eq!(state(buyer, served(1800), Item::Reserved), LineState::Agreed);
    assert_eq!(state(buyer, served(1300), Item::Reserved), LineState::Agreed);
    assert_eq!(state(buyer, served(1100), Item::Reserved), LineState::Disputed, "it has seen more");
    let basis = basis();
    let receipt = complete(&basis, &propose(&basis, &half_hour(served(1700))), &buyer);
    assert_eq!(receipt.served(MeasuredBy::Both), 1700);
    // Pods that ran while nobody looked are no dispute.
    let seller = Measures { pods_ms: 1_800_000, ..served(1800) };
    assert_eq!(state(Measures { pods_ms: 1_200_000, ..buyer }, seller, Item::Pods), LineState::Claimed);
    assert_eq!(state(Measures { pods_ms: 1_200_000, ..served(1800) }, seller, Item::Pods), LineState::Disputed);
}

#[test]
fn a_seller_cannot_claim_what_cannot_be() {
    let (basis, now) = (basis(), at("2026-11-27T18:00:01Z"));
    let good = propose(&basis, &half_hour(Measures { cpu_ms: Some(900_000), memory_mib_ms: Some(1), ..served(1800) }));
    check_proposal(&basis, &good, now).unwrap();
    let refused = |change: &dyn Fn(&mut Receipt)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_proposal(&basis, &bad, now).unwrap_err().to_string()
    };
    let line = |bad: &mut Receipt, item, measure| {
        bad.lines.iter_mut().find(|line| line.line == item).unwrap().seller = Some(measure);
    };
    for (told, refusal) in [
        ("reserved is 1801", refused(&|bad| line(bad, Item::Reserved, 1801))),
        // Half a CPU for half an hour.
        ("cpu is 901", refused(&|bad| line(bad, Item::Cpu, 901))),
        ("memory is 1843201", refused(&|bad| line(bad, Item::Memory, 1800 * 1024 + 1))),
        ("number is 2", refused(&|bad| bad.number = 2)),
        ("previous is x", refused(&|bad| bad.previous = "x".into())),
        ("buyer is did:key:other", refused(&|bad| bad.buyer = "did:key:other".into())),
        ("from is 2026-11-27T17:29:00Z", refused(&|bad| bad.from = at("2026-11-27T17:29:00Z"))),
        ("until is 2026-11-27T17:59:00Z", refused(&|bad| bad.until = at("2026-11-27T17:59:00Z"))),
        ("until is 2026-11-27T19:00:00Z", refused(&|bad| bad.until = at("2026-11-27T19:00:00Z"))),
        ("lines is without reserved", refused(&|bad| bad.lines.clear())),
        ("lines is reserved", refused(&|bad| bad.lines.push(bad.lines[0].clone()))),
        ("reserved is h", refused(&|bad| bad.lines[0].unit = "h".into())),
        ("version is 2", refused(&|bad| bad.version = 2)),
        ("reserved is measured by the buyer", refused(&|bad| bad.lines[0].buyer = Some(1))),
    ] {
        assert!(refusal.contains(told), "{refusal}, needed {told}");
    }
    assert!(matches!(check_proposal(&basis, &good, at("2026-11-27T17:54:59Z")), Err(ReceiptError::Early { .. })));
    let mut ends = basis.clone();
    ends.until = Some(at("2026-11-27T17:45:00Z"));
    assert!(check_proposal(&ends, &good, now).unwrap_err().to_string().contains("at most 2026-11-27T17:45:00Z"));
}

#[test]
fn a_buyer_can_change_nothing_but_its_own_measures() {
    let basis = basis();
    let proposal = propose(&basis, &half_hour(Measures { cpu_ms: Some(1000), ..served(1800) }));
    let good = complete(&basis, &proposal, &served(900));
    check_completed(&basis, &proposal, &good).unwrap();
    let refused = |change: &dyn Fn(&mut Receipt)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_completed(&basis, &proposal, &bad).unwrap_err().to_string()
    };
    assert!(refused(&|bad| bad.lines[0].state = LineState::Agreed).contains("Disputed"));
    assert!(refused(&|bad| bad.lines[0].seller = Some(900)).contains("1800"));
    assert!(refused(&|bad| bad.until = at("2026-11-27T17:45:00Z")).contains("receipt"));
    assert!(refused(&|bad| drop(bad.lines.pop())).contains("proposal"));
    assert!(refused(&|bad| bad.lines[1].buyer = Some(1800)).contains("away is 1800"), "away and there at once");
}

#[test]
fn a_meter_closes_at_whole_hours_and_at_the_end() {
    let mut meter = Meter::new(at("2026-11-30T22:59:50.7Z"));
    let serving = Reading { serving: true, pods: 2, bytes_to_seller: Some(5), ..Reading::default() };
    meter.look(at("2026-11-30T22:59:55Z"), &serving);
    meter.look(at("2026-11-30T23:00:05Z"), &serving);
    assert_eq!(meter.closed.len(), 1);
    assert_eq!((meter.closed[0].from, meter.closed[0].until), (at("2026-11-30T22:59:50Z"), at("2026-11-30T23:00:00Z")));
    assert_eq!(
        meter.closed[0].measures,
        Measures { reserved_ms: 5000, pods_ms: 10_000, bytes_to_seller: Some(5), ..Measures::default() }
    );
    // The capacity goes away for 20 s.
    meter.look(at("2026-11-30T23:00:25Z"), &Reading::default());
    meter.look(at("2026-11-30T23:00:45Z"), &serving);
    // And the process for an hour: over the end of the month.
    meter.look(at("2026-12-01T00:00:45Z"), &serving);
    meter.end(at("2026-12-01T00:00:50Z"), End::Released);
    meter.look(at("2026-12-01T00:30:00Z"), &serving);
    let told: Vec<_> =
        meter.closed.iter().map(|c| (c.until.to_string(), c.measures.reserved_ms, c.measures.away_ms)).collect();
    assert_eq!(
        told,
        [
            ("2026-11-30T23:00:00Z".to_owned(), 5000, 0),
            ("2026-12-01T00:00:00Z".to_owned(), 25_000, 3_555_000),
            ("2026-12-01T00:00:50Z".to_owned(), 5000, 45_000),
        ]
    );
    assert_eq!(meter.closed[2].end, Some(End::Released));
}

#[test]
fn a_clock_that_jumps_is_time_that_nobody_saw() {
    let mut meter = Meter::new(at("2026-11-27T17:00:00Z"));
    let serving = Reading { serving: true, ..Reading::default() };
    meter.look(at("2026-11-27T17:00:00Z"), &serving);
    meter.look(at("2026-11-27T17:00:10Z"), &serving);
    meter.look(at("2026-11-27T16:00:10Z"), &serving); // an hour back
    meter.look(at("2026-11-27T16:00:20Z"), &serving);
    assert_eq!((meter.open.reserved_ms, meter.from), (10_000, at("2026-11-27T17:00:00Z")));
    meter.look(at("2026-11-27T17:00:20Z"), &serving); // and forward again
    assert_eq!((meter.open.reserved_ms, meter.open.away_ms), (20_000, 0), "no second counts twice");
}

#[test]
fn a_meter_that_is_full_waits_and_goes_on_when_receipts_make_room() {
    let serving = Reading { serving: true, bytes_to_seller: Some(7), ..Reading::default() };
    let mut meter = Meter::new(at("2026-01-01T00:00:00Z"));
    meter.look(at("2026-06-01T00:00:00Z"), &serving);
    assert_eq!((meter.closed.len(), meter.ended), (PENDING_MAX, false), "the contract runs");
    assert_eq!(meter.open, Measures::default(), "what is counted while it waits is of no interval");
    // A day gets its receipts; the hours behind the full ones are nobody's measure.
    meter.settled(at("2026-01-02T00:00:00Z"), false);
    meter.look(at("2026-06-01T00:00:05Z"), &serving);
    assert_eq!(meter.closed.len(), PENDING_MAX);
    let last = meter.closed.last().unwrap();
    assert_eq!((last.until, last.measures.away_ms), (at("2026-02-02T00:00:00Z"), 3_600_000));
    assert!(meter.closed.windows(2).all(|pair| pair[0].until == pair[1].from), "no hour is left out");
    meter.end(at("2026-06-01T00:00:10Z"), End::Released);
    assert_eq!(meter.closed.last().unwrap().end, Some(End::Released));
}

#[test]
fn what_has_its_receipt_is_dropped() {
    let mut meter = Meter::new(at("2026-11-27T17:30:00Z"));
    let serving = Reading { serving: true, ..Reading::default() };
    for minute in 0..100 {
        let now = at("2026-11-27T17:30:00Z").checked_add(jiff::SignedDuration::from_mins(minute)).unwrap();
        // Every half minute: nobody is away.
        meter.look(now, &serving);
        meter.look(now.checked_add(jiff::SignedDuration::from_secs(30)).unwrap(), &serving);
    }
    let (from, until) = (at("2026-11-27T17:30:00Z"), at("2026-11-27T18:00:00Z"));
    assert_eq!(meter.measured(from, until).unwrap().reserved_ms, 1_800_000);
    assert_eq!(meter.measured(until, at("2026-11-27T20:00:00Z")), None, "it is still open");
    meter.settled(until, false);
    assert_eq!(meter.closed[0].from, until);
    // A receipt that the other side has, of a time that this meter lost: it goes on behind it.
    meter.settled(at("2026-11-27T20:00:00Z"), false);
    assert_eq!((meter.closed.len(), meter.from, meter.open), (0, at("2026-11-27T20:00:00Z"), Measures::default()));
}

fn chain(basis: &Basis, served_seconds: &[u64]) -> Vec<(Receipt, String)> {
    let mut basis = basis.clone();
    let mut receipts = Vec::new();
    for seconds in served_seconds {
        let until = meter::next_hour(basis.from);
        let closed =
            Closed { from: basis.from, until, end: None, measures: served(*seconds), pods: PodTimes::default() };
        let receipt = complete(&basis, &propose(&basis, &closed), &served(*seconds));
        (basis.number, basis.from, basis.previous) =
            (receipt.number, receipt.until, format!("digest-{}", receipt.number));
        receipts.push((receipt, basis.previous.clone()));
    }
    receipts
}

fn price(amount: &str, currency: &str, period: &str) -> [String; 3] {
    [amount.into(), currency.into(), period.into()]
}

fn billed(basis: &Basis, price: &[String; 3], receipts: &[(Receipt, String)]) -> Invoice {
    match invoice(basis, price, at("2026-11-01T00:00:00Z"), receipts).unwrap() {
        Bill::Invoice(invoice) => *invoice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_month_costs_what_was_served_and_is_rounded_once() {
    let mut basis = basis();
    (basis.issued, basis.from) = (at("2026-11-30T21:00:00Z"), at("2026-11-30T21:00:00Z"));
    let receipts = chain(&basis, &[1800, 1800, 1800, 3600]);
    // Three times a third of a cent is a cent, not 0: 0.00666… EUR an hour.
    let invoice = billed(&basis, &price("0.006666666", "EUR", "hour"), &receipts);
    assert_eq!((invoice.due.as_str(), invoice.lines[0].quantity), ("0.01 EUR", 5400));
    assert_eq!((invoice.receipts, invoice.last_receipt.as_str()), ([1, 3], "digest-3"), "the fourth is December's");
    assert!(invoice.complete, "the month is over");
    assert_eq!(invoice.number, "abababababab-2026-11");
    let open = billed(&basis, &price("1", "EUR", "hour"), &receipts[..2]);
    assert!(!open.complete);
    assert_eq!(open.due, "1.00 EUR");
}

#[test]
fn nothing_costs_nothing_and_says_so() {
    let basis = basis();
    let receipts = chain(&basis, &[1800]);
    let november = at("2026-11-15T00:00:00Z");
    assert_eq!(invoice(&basis, &price("", "", ""), november, &receipts), Ok(Bill::Nothing));
    assert_eq!(invoice(&basis, &price("0", "", ""), november, &receipts), Ok(Bill::Nothing));
    assert_eq!(billed(&basis, &price("0", "EUR", "hour"), &receipts).due, "0.00 EUR");
    assert_eq!(
        invoice(&basis, &price("1", "EUR", "hour"), at("2026-12-01T00:00:00Z"), &receipts),
        Ok(Bill::NoReceipts)
    );
    let gap = [chain(&basis, &[1, 2, 3])[0].clone(), chain(&basis, &[1, 2, 3])[2].clone()];
    let error = invoice(&basis, &price("1", "EUR", "hour"), november, &gap).unwrap_err();
    assert_eq!(error.to_string(), "receipt 2 of contract contract-a is missing: found 3 after 1");
}

#[test]
fn a_month_without_its_first_or_last_receipts_is_not_invoiced() {
    let mut basis = basis();
    (basis.issued, basis.from) = (at("2026-10-31T22:30:00Z"), at("2026-10-31T22:30:00Z"));
    let all = chain(&basis, &[1800, 3600, 3600, 3600, 3600]); // 22:30, 23:00 and three hours of November
    let price = price("1", "EUR", "hour");
    let billed = |basis: &Basis, month: &str, receipts: &[(Receipt, String)]| {
        invoice(basis, &price, at(month), receipts).map_err(|error| error.to_string())
    };
    let missing = |needed: u64, observed: u64| {
        Err(format!("receipt {needed} of contract contract-a is missing: found {observed} after {}", needed - 1))
    };
    let (october, november) = ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z");
    assert!(billed(&basis, october, &all).is_ok() && billed(&basis, november, &all).is_ok());
    assert_eq!(billed(&basis, october, &all[1..]), missing(1, 2));
    assert_eq!(billed(&basis, november, &all[4..]), missing(3, 5));
    // Receipts of the month before may be gone: they have their invoice.
    assert!(billed(&basis, november, &all[2..]).is_ok());
    // The books stand behind what is there.
    (basis.number, basis.from) = (5, all[4].0.until);
    assert_eq!(billed(&basis, november, &all[..4]), missing(5, 6));
    assert_eq!(billed(&basis, october, &all[..1]), missing(2, 6));
    assert_eq!(billed(&basis, october, &[]), missing(1, 6));
    assert_eq!(billed(&basis, november, &all[..2]), missing(3, 6), "none of the month is there any more");
    assert_eq!(billed(&basis, "2026-12-01T00:00:00Z", &all), Ok(Bill::NoReceipts), "it has not come");
    assert!(billed(&basis, october, &all).is_ok() && billed(&basis, november, &all).is_ok());
}

/// Of a contract that is paid per use, half an hour in which so many milliseconds of it were used.
fn per_use(used_ms: u64) -> Measures {
    Measures { used_ppm_ms: Some(used_ms * SHARE_MOST), yielded_ms: Some(0), ..served(1800) }
}

#[test]
fn what_is_paid_per_use_costs_what_both_have_seen_used() {
    let mut basis = basis();
    basis.conditions.business_model = BusinessModel::PayPerUse;
    let receipt = |seller: Measures, buyer: Measures| {
        let proposal = propose(&basis, &half_hour(seller));
        check_proposal(&basis, &proposal, at("2026-11-27T18:00:01Z")).unwrap();
        let receipt = complete(&basis, &proposal, &buyer);
        check_completed(&basis, &proposal, &receipt).unwrap();
        receipt
    };
    let charged = |receipt: &Receipt| receipt.charged_ms(BusinessModel::PayPerUse);
    let alike = receipt(per_use(450_500), per_use(450_500));
    assert_eq!((charged(&alike), alike.line(Item::Used).unwrap().state), (450_500, LineState::Agreed));
    assert_eq!(alike.served(MeasuredBy::Both), 1800, "ready all the time, and that costs nothing");
    let apart = receipt(per_use(900_000), per_use(400_000));
    assert_eq!((charged(&apart), apart.is_disputed()), (400_000, true), "what nobody contests");
    // Who did not look for ten minutes takes the seller's word for them.
    let away = Measures { away_ms: 600_000, reserved_ms: 1_200_000, ..per_use(300_000) };
    let unseen = receipt(per_use(800_000), away);
    assert_eq!((charged(&unseen), unseen.is_disputed()), (800_000, false));
    assert_eq!(charged(&receipt(per_use(1_000_000), away)), 900_000);
    // One that had to yield is told, and costs nothing.
    let yielded = Measures { yielded_ms: Some(1_800_000), ..per_use(0) };
    let told = receipt(yielded, yielded);
    assert_eq!((charged(&told), told.line(Item::Yielded).unwrap().seller), (0, Some(1800)));
    // A quarter of an hour of all of it, at 36 EUR an hour.
    let quarter = receipt(per_use(900_000), per_use(900_000));
    let bill = invoice(&basis, &price("36", "EUR", "hour"), at("2026-11-01T00:00:00Z"), &[(quarter, "d".into())]);
    let Ok(Bill::Invoice(invoice)) = bill else { panic!("{bill:?}") };
    let line = &invoice.lines[0];
    assert_eq!((line.item.as_str(), line.quantity, line.unit.as_str()), ("used", 900_000, "ms"));
    assert_eq!((invoice.due_minor, invoice.due.as_str()), (900, "9.00 EUR"));
}

#[test]
fn each_business_model_has_its_own_measure() {
    let (reserved, now) = (basis(), at("2026-11-27T18:00:01Z"));
    let mut per_use_basis = basis();
    per_use_basis.conditions.business_model = BusinessModel::PayPerUse;
    let of_use = propose(&per_use_basis, &half_hour(per_use(1)));
    let of_time = propose(&reserved, &half_hour(per_use(1)));
    assert!(of_time.line(Item::Used).is_none(), "whoever has measured it: nobody pays for it");
    let told = |basis: &Basis, proposal: &Receipt| check_proposal(basis, proposal, now).unwrap_err().to_string();
    assert!(told(&reserved, &of_use).contains("lines is used, needed it only of what is paid per use"));
    assert!(told(&per_use_basis, &of_time).contains("lines is without used"));
    let mut too_much = of_use.clone();
    too_much.lines.iter_mut().find(|line| line.line == Item::Used).unwrap().seller = Some(1_800_001);
    assert!(told(&per_use_basis, &too_much).contains("used is 1800001, needed at most 1800000"));
    // A party that has seen nothing at all says 0, and not that nobody measures it.
    let nothing = propose(&per_use_basis, &half_hour(served(0)));
    assert_eq!(nothing.line(Item::Used).unwrap().seller, Some(0));
}

#[test]
fn a_meter_counts_use_only_while_it_is_ready() {
    let mut meter = Meter::new(at("2026-11-27T17:30:00Z"));
    let look = |meter: &mut Meter, time: &str, serving, used_ppm| {
        meter.look(at(time), &Reading { serving, used_ppm, yielding: Some(1), ..Reading::default() });
    };
    look(&mut meter, "2026-11-27T17:30:00Z", true, Some(500_000));
    look(&mut meter, "2026-11-27T17:30:10Z", false, Some(500_000));
    look(&mut meter, "2026-11-27T17:30:20Z", true, Some(250_000));
    look(&mut meter, "2026-11-27T17:30:30Z", true, Some(0));
    assert_eq!(meter.open.used_ppm_ms, Some(10_000 * 500_000 + 10_000 * 250_000));
    assert_eq!(meter.open.yielded_ms, Some(20_000));
    // After more than half a minute nobody has looked.
    look(&mut meter, "2026-11-27T17:32:00Z", true, Some(0));
    assert_eq!((meter.open.away_ms, meter.open.yielded_ms), (90_000, Some(20_000)));
}

#[test]
fn a_broken_level_gives_back_what_it_says_and_never_more_than_the_charge() {
    let mut basis = basis();
    (basis.issued, basis.from) = (at("2026-11-27T18:00:00Z"), at("2026-11-27T18:00:00Z"));
    let level = |credit_per_mille| ServiceLevel {
        objective: Objective::Availability,
        per_mille: 990,
        measured_by: MeasuredBy::Both,
        credit_per_mille,
    };
    // 3240 s of 3600 s are 900 per mille: 90 are missing.
    let receipts = chain(&basis, &[3240]);
    for (credit_per_mille, credit, due) in [(5, 405, "4.95 EUR"), (100, 900, "0.00 EUR")] {
        basis.conditions.service_levels = vec![level(credit_per_mille)];
        let invoice = billed(&basis, &price("10", "EUR", "hour"), &receipts);
        assert_eq!(invoice.lines[0].amount, "9.00 EUR");
        assert_eq!((invoice.credit_notes[0].amount_minor, invoice.due.as_str()), (credit, due));
    }
    basis.conditions.service_levels = vec![level(100), level(100)];
    let invoice = billed(&basis, &price("10", "EUR", "hour"), &receipts);
    assert_eq!(invoice.due_minor, 0, "two levels give the charge back once");
    basis.conditions.service_levels = vec![level(5)];
    let kept = chain(&basis, &[3564]);
    assert!(billed(&basis, &price("10", "EUR", "hour"), &kept).credit_notes.is_empty(), "990 of 1000 is kept");
}

#[test]
fn months_are_named_and_read() {
    assert_eq!(month_text(at("2026-11-30T23:59:59Z")), "2026-11");
    assert_eq!(month_named("2026-11"), Some(at("2026-11-01T00:00:00Z")));
    for text in ["2026-13", "2026-1", "11-2026", "2026", "2026-11-01", "٢٠٢٦-11"] {
        assert_eq!(month_named(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_both_measure_the_charge_is_no_more_than_either_says(
        (buyer, buyer_away, seller) in (0u64..=1800, 0u64..=1800, 0u64..=1800)
    ) {
        let basis = basis();
        let proposal = propose(&basis, &half_hour(served(seller)));
        let buyer_away = buyer_away.min(1800 - buyer);
        let measures = Measures { away_ms: buyer_away * 1000, ..served(buyer) };
        let receipt = complete(&basis, &proposal, &measures);
        prop_assert!(check_completed(&basis, &proposal, &receipt).is_ok());
        let charged = receipt.served(MeasuredBy::Both);
        prop_assert!(charged <= seller && charged <= buyer + buyer_away);
        prop_assert!(charged == seller.min(buyer + buyer_away));
    }

    #[test]
    fn a_meter_never_sees_more_time_than_passed(steps in prop::collection::vec((0i64..4000, any::<bool>()), 1..40)) {
        let mut meter = Meter::new(at("2026-11-27T17:30:00Z"));
        let mut now = at("2026-11-27T17:30:00Z");
        for (seconds, serving) in steps {
            now = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
            meter.look(now, &Reading { serving, pods: 1, ..Reading::default() });
        }
        meter.end(now, End::Expired);
        let mut from = at("2026-11-27T17:30:00Z");
        for closed in &meter.closed {
            prop_assert_eq!(closed.from, from);
            from = closed.until;
            let length = closed.until.duration_since(closed.from).as_millis();
            prop_assert!(i128::from(closed.measures.reserved_ms + closed.measures.away_ms) <= length);
        }
        prop_assert_eq!(from, now);
    }
}

#![allow(clippy::unwrap_used, missing_docs)]
use std::collections::BTreeMap;

use fluidos_model::market::CommitmentState;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// What is done to the pool, by the number of a transaction.
#[derive(Clone, Debug)]
enum Change {
    Hold(u16),
    Sell(u16),
    Release(u16),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = (0..3_u8, 0..300_u16).prop_map(|(what, number)| match what {
        0 => Change::Hold(number),
        1 => Change::Sell(number),
        _ => Change::Release(number),
    });
    prop::collection::vec(one, 0..40)
}

fn held(number: u16) -> Arc<Commitment> {
    Arc::new(Commitment {
        transaction: format!("t{number}"),
        buyer: "did:key:z".into(),
        flavor: "f".into(),
        amounts: Amounts { pods: 1, ..Amounts::default() },
        state: CommitmentState::Held { until: Timestamp::from_second(60).unwrap() },
        agreed: None,
        served_by: None,
    })
}

fn apply(pool: &mut Pool, change: &Change) {
    let at = |number: u16| pool.commitments.iter().position(|known| known.transaction == format!("t{number}"));
    match change {
        Change::Hold(number) if at(*number).is_none() => pool.commitments.push(held(*number)),
        Change::Hold(_) => {}
        Change::Sell(number) => {
            if let Some(known) = at(*number).and_then(|at| pool.commitments.get_mut(at)) {
                let contract = format!("contract-{number}");
                Arc::make_mut(known).state = CommitmentState::Committed { contract, until: None };
            }
        }
        Change::Release(number) => {
            if let Some(at) = at(*number) {
                pool.commitments.remove(at);
            }
        }
    }
}

fn by_transaction(pool: &Pool) -> BTreeMap<String, Arc<Commitment>> {
    let all = pool.commitments.iter().map(|known| (known.transaction.clone(), known.clone()));
    let by: BTreeMap<_, _> = all.collect();
    assert_eq!(by.len(), pool.commitments.len(), "a promise stands twice");
    by
}

/// The API: a Ledger and its pages, written as `Books` does.
#[derive(Default)]
struct Written {
    ledger: LedgerSpec,
    pages: BTreeMap<String, LedgerPageSpec>,
    names: u32,
    /// Promises written on pages altogether.
    turned: usize,
}

impl Written {
    fn standing(&self) -> Standing {
        let leaf =
            |name: &str| self.pages.get(name).map(|page| commitments(&page.commitments).map(Arc::new)).transpose();
        Standing::read(&self.ledger, leaf).unwrap()
    }

    fn write(&mut self, pool: &Pool) {
        let sheets = self.standing().sheets;
        let layout = Layout::of(pool, &sheets, || {
            self.names += 1;
            format!("pool-{}", self.names)
        });
        for sheet in layout.fresh() {
            let spec = sheet.spec();
            self.turned += spec.commitments.len();
            assert!(spec.commitments.len() <= PAGE_MAX);
            assert!(self.pages.insert(sheet.name.clone(), spec).is_none(), "a page is never written again");
        }
        let small = layout.sheets.iter().filter(|sheet| sheet.is_small()).count();
        assert!(layout.fresh().is_empty() || small <= 1, "{small} small pages");
        self.ledger = layout.spec(&pool.capacity);
        for name in &layout.dropped {
            assert!(self.pages.remove(name).is_some());
        }
        assert!(self.ledger.commitments.len() <= HEAD_MAX, "{}", self.ledger.commitments.len());
        assert!(self.ledger.pages.iter().map(|page| page.gone.len()).sum::<usize>() <= GONE_MAX);
        let named: BTreeSet<&String> = self.ledger.pages.iter().map(|page| &page.name).collect();
        assert_eq!(named, self.pages.keys().collect(), "every page is named, and every name a page");
    }
}

#[test]
fn too_many_holds_do_not_stay_in_the_ledger() {
    let (mut pool, mut written) = (Pool::default(), Written::default());
    let many = HEAD_MAX as u16;
    // As many as a group commit may bring at once: holds enough to fill it, and as many sold as let holds stay.
    (0..many + many / 2 + 1).for_each(|number| apply(&mut pool, &Change::Hold(number)));
    (0..many / 2).for_each(|number| apply(&mut pool, &Change::Sell(number)));
    written.write(&pool);
    assert_eq!(by_transaction(&written.standing().pool), by_transaction(&pool));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Several changes are written at once, as group commit does; what is read back is what was planned.
    #[test]
    fn what_is_written_reads_back(groups in prop::collection::vec(changes(), 1..40)) {
        let (mut pool, mut written) = (Pool::default(), Written::default());
        for changes in groups {
            changes.iter().for_each(|change| apply(&mut pool, change));
            written.write(&pool);
            let read = written.standing().pool;
            prop_assert_eq!(by_transaction(&read), by_transaction(&pool));
            if pool.commitments.len() % 2 == 0 {
                // Another process goes on with what it reads.
                pool = Pool::clone(&read);
            }
        }
    }
}

/// Sold one by one until many are in force, then each sale ends an old one.
#[test]
fn a_change_writes_little_however_much_is_promised() {
    let (mut pool, mut written) = (Pool::default(), Written::default());
    const MANY: u16 = 1000;
    let mut sell = |pool: &mut Pool, number: u16| {
        apply(pool, &Change::Hold(number));
        written.write(pool);
        apply(pool, &Change::Sell(number));
        written.write(pool);
        (written.turned, written.pages.len())
    };
    let mut last = (0, 0);
    for number in 0..MANY {
        last = sell(&mut pool, number);
    }
    let (turned, pages) = last;
    assert!(turned <= usize::from(MANY) * 2, "{turned} promises written on pages for {MANY} sales");
    assert!(pages <= usize::from(MANY) / (PAGE_MAX / 2) + 1, "{pages} pages");
    for number in 0..MANY {
        // Neither the oldest nor the newest.
        apply(&mut pool, &Change::Release(number.wrapping_mul(7) % MANY));
        last = sell(&mut pool, MANY + number);
    }
    let more = last.0 - turned;
    assert!(more <= usize::from(MANY) * 12, "{more} promises written on pages for {MANY} sales and ends");
    assert!(last.1 <= usize::from(MANY) / (PAGE_MAX / 2) + 8, "{} pages", last.1);
}

#[test]
fn holds_without_end_do_not_turn_a_page_each_time() {
    let (mut pool, mut written) = (Pool::default(), Written::default());
    for number in 0..200 {
        apply(&mut pool, &Change::Hold(number));
        written.write(&pool);
    }
    assert!(written.turned <= 800, "{}", written.turned);
}

#[test]
fn a_page_that_is_not_there_is_named() {
    let page = LedgerPageReference { name: "pool-1".into(), gone: Vec::new() };
    let ledger = LedgerSpec { pages: vec![page], ..LedgerSpec::default() };
    let error = Standing::read(&ledger, |_| Ok(None)).unwrap_err().to_string();
    assert!(error.starts_with("ledger page pool-1: not there, needed what is promised on it"), "{error}");
    assert!(ledger.pool().unwrap_err().to_string().contains("1 pages belong to it"));
}

//! What decodes the bytes of strangers, with any bytes, any JSON, and good ones that were changed: no panic, a reason that is short, and
//! what is read says the same when it is written and read again.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use fluidos_identity::{NodeKey, Signed};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::messages::wire::Message;
use crate::*;

/// A body that a message of ours could have, of each kind.
fn good() -> Vec<Value> {
    let digest = "ab".repeat(32);
    let party =
        json!({"ID": "n1", "IP": "192.0.2.1:7300", "domain": "grid.example", "additionalInformation": {"liqoID": "l"}});
    let slice = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    let configuration = json!({"type": "k8slice", "data": slice});
    let flavor = json!({"flavorID": "f", "providerID": "n1", "type": {"name": "k8slice", "data": {"charateristics": slice}},
                        "owner": party, "price": {"amount": "1", "currency": "EUR", "period": "hour"}, "availability": true});
    let envelope = json!({"purpose": "p", "payload": "e30", "signatures": ["a.b.c"]});
    vec![
        json!({"flavorID": "f", "buyerID": party, "configuration": configuration, "transactionID": "t", "termSeconds": 60,
               "path": envelope}),
        json!({"transactionID": "t", "flavorID": "f", "configuration": configuration, "buyer": party, "clusterID": "c",
               "expirationTime": "2026-11-01T10:00:00Z", "terms": envelope}),
        json!({"contractID": "c", "transactionID": "t", "flavor": flavor, "configuration": configuration, "buyerID": party, "sellerID": party,
               "expirationTime": "2026-11-01T10:00:00Z", "signedTerms": envelope}),
        json!([flavor]),
        json!({"type": "k8slice", "selector": {"filter[cpu][range][min]": "1"}, "intents": {"fluidos-intent-location": "Milan"},
               "waitMillis": 1500, "path": envelope}),
        json!({"after": 7, "digest": digest, "payments": [envelope]}),
        json!({"number": 7, "digest": digest, "receipt": envelope}),
        envelope,
    ]
}

/// Reads a body as each kind of message; what is read is written and read again as the same.
fn read_as_each(body: &[u8]) -> Result<(), TestCaseError> {
    fn one<M: Message + PartialEq + std::fmt::Debug>(body: &[u8]) -> Result<(), TestCaseError> {
        match M::read(body) {
            Err(reason) => prop_assert!(reason.len() < 4096, "{} bytes of reason", reason.len()),
            // What cannot be written (a number that JSON has not) is not sent on.
            Ok(message) => {
                if let Ok(written) = message.write() {
                    prop_assert_eq!(M::read(&written), Ok(message));
                }
            }
        }
        Ok(())
    }
    one::<ReserveRequest>(body)?;
    one::<Transaction>(body)?;
    one::<PurchaseRequest>(body)?;
    one::<Contract>(body)?;
    one::<Vec<Flavor>>(body)?;
    one::<ResourceRequest>(body)?;
    one::<ResourceAnswer>(body)?;
    one::<ReceiptRequest>(body)?;
    one::<ReceiptAnswer>(body)?;
    one::<Envelope>(body)
}

/// Any JSON, with names that our messages have.
fn any_json() -> impl Strategy<Value = Value> {
    let names = "flavorID|buyerID|configuration|type|data|transactionID|termSeconds|expirationTime|price|amount|owner|digest|after|selector|path|waitMillis|asker|asked|at|marks|version";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,30}".prop_map(Value::from),
        "(k8slice|1Gi|-1|1e400|2026-11-01T10:00:00Z|9{40})".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(names, inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// One part of a good body is something else.
fn changed(value: &mut Value, at: usize, with: Value) {
    let mut paths: Vec<String> = vec![String::new()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        match value.pointer(&path) {
            Some(Value::Object(map)) => {
                paths.extend(map.keys().map(|name| format!("{path}/{}", name.replace('/', "~1"))))
            }
            Some(Value::Array(list)) => paths.extend((0..list.len()).map(|index| format!("{path}/{index}"))),
            _ => {}
        }
    }
    if let Some(place) = paths.get(at % paths.len()).and_then(|path| value.pointer_mut(path)) {
        *place = with;
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_as_each(&body)?;
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        read_as_each(value.to_string().as_bytes())?;
    }

    #[test]
    fn a_good_message_with_one_part_changed_is_read_or_refused(which in 0usize..8, at in 0usize..64, with in any_json()) {
        let mut value = good().swap_remove(which);
        changed(&mut value, at, with);
        read_as_each(value.to_string().as_bytes())?;
    }

    #[test]
    fn any_path_is_read_or_refused(value in any_json(), at in 0usize..16, with in any_json()) {
        let (asker, asked) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([2; 32]).unwrap());
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let read = |value: Value| {
            // What has no canonical form cannot be signed.
            let Ok(mut signed) = Signed::new(PATH_PURPOSE, value) else { return Ok(()) };
            signed.sign(&asker).unwrap();
            match Path::read(&signed.envelope(), asker.id(), &asked, now) {
                Ok(path) => prop_assert!((1..=PATH_MARKS_MAX).contains(&path.len())),
                Err(error) => prop_assert!(error.to_string().len() < 4096),
            }
            Ok(())
        };
        read(value)?;
        let good = Path::default().signed(&asker, asked.id(), now).unwrap();
        let mut good = Signed::<Value>::open(&good, PATH_PURPOSE).unwrap().value().clone();
        changed(&mut good, at, with);
        read(good)?;
    }

    #[test]
    fn any_query_is_a_selector_or_refused(query in "(filter(\\[[a-z]{0,8}\\]){0,3}=[%0-9a-zA-Z]{0,8}&?){0,6}|\\PC{0,200}") {
        if let Ok(selector) = Selector::from_query(Some(FlavorType::K8Slice), &query) {
            let written = selector.path_and_query();
            let again = written.split_once('?').map_or("", |(_, query)| query);
            prop_assert_eq!(Selector::from_query(Some(FlavorType::K8Slice), again), Ok(selector));
        }
    }

    #[test]
    fn any_file_is_no_contract(text in "\\PC{0,300}", value in any_json()) {
        prop_assert!(verify_contract(&text).is_err());
        let signature = json!({"by": "x", "protected": "e30", "signature": "AA"});
        let file = json!({"contract": value, "signatures": [signature]}).to_string();
        prop_assert!(verify_contract(&file).is_err());
    }
}

#[test]
fn the_good_ones_are_read() {
    let bodies: Vec<Vec<u8>> = good().into_iter().map(|value| value.to_string().into_bytes()).collect();
    ReserveRequest::read(&bodies[0]).unwrap();
    Transaction::read(&bodies[1]).unwrap();
    Contract::read(&bodies[2]).unwrap();
    Vec::<Flavor>::read(&bodies[3]).unwrap();
    ResourceRequest::read(&bodies[4]).unwrap();
    ReceiptRequest::read(&bodies[5]).unwrap();
    ReceiptAnswer::read(&bodies[6]).unwrap();
    Envelope::read(&bodies[7]).unwrap();
}

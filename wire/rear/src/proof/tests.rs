#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use fluidos_identity::{Handover, NodeKey};
use serde_json::json;

use super::*;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

fn signed(signers: &[u8]) -> Envelope {
    let terms = ContractTerms {
        version: 1,
        contract_id: "contract-1".into(),
        transaction_id: "t1".into(),
        flavor_id: "f".into(),
        flavor_type: "k8slice".into(),
        configuration: json!({"cpu": "1", "memory": "1Gi"}),
        buyer: key(1).id(),
        seller: key(2).id(),
        price: ["0.02", "EUR", "hour"].map(Into::into),
        conditions: None,
        issued: "2026-01-01T00:00:00Z".into(),
        until: None,
    };
    let mut signed = terms.into_signed().unwrap();
    signers.iter().for_each(|seed| signed.sign(&key(*seed)).unwrap());
    signed.envelope()
}

fn file() -> String {
    export_contract(&signed(&[1, 2])).unwrap()
}

fn changed(change: impl Fn(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(&file()).unwrap();
    change(&mut file);
    verify_contract(&file.to_string()).unwrap_err().to_string()
}

#[test]
fn what_was_exported_proves_itself() {
    let proof = verify_contract(&file()).unwrap();
    assert_eq!(proof.terms.price, ["0.02", "EUR", "hour"]);
    assert_eq!(proof.signers, [key(1).id(), key(2).id()]);
    let one = export_contract(&signed(&[1])).unwrap_err().to_string();
    assert_eq!(one, format!("not signed by {}", key(2).id()));
}

#[test]
fn a_change_is_named() {
    for (path, value, expected) in [
        ("/contract/price/0", json!("0.01"), r#"contract.price[0] is "0.01", "0.02" was signed"#),
        ("/contract/configuration/cpu", json!("8"), r#"contract.configuration.cpu is "8", "1" was signed"#),
        ("/contract/version", json!(2), "contract.version is 2, 1 was signed"),
        ("/contract/price", json!([]), r#"contract.price is [], ["0.02","EUR","hour"] was signed"#),
    ] {
        let told = changed(|file| *file.pointer_mut(path).unwrap() = value.clone());
        assert_eq!(told, format!("changed after it was signed: {expected}"));
    }
    let added = changed(|file| file["contract"]["until"] = json!("2030-01-01T00:00:00Z"));
    assert!(added.contains(r#"contract.until is "2030-01-01T00:00:00Z", null was signed"#), "{added}");
    let removed = changed(|file| drop(file["contract"].as_object_mut().unwrap().remove("seller")));
    assert!(removed.contains("contract.seller is null, "), "{removed}");
}

#[test]
fn what_is_forged_or_odd_proves_nothing() {
    let both = |file: &mut Value| {
        file["contract"]["price"][0] = json!("0.01");
        file["payload"] = file["payload"].as_str().unwrap().replace("0.02", "0.01").into();
    };
    assert!(changed(both).contains("does not hold for these bytes"));
    let swapped = changed(|file| file["signatures"][0]["by"] = json!(key(3).id().to_string()));
    assert!(swapped.starts_with("signatures[0].by is did:key:"), "{swapped}");
    let one = changed(|file| drop(file["signatures"].as_array_mut().unwrap().pop()));
    assert_eq!(one, format!("not signed by {}", key(2).id()));
    let twice = changed(|file| {
        let first = file["signatures"][0].clone();
        file["signatures"].as_array_mut().unwrap().push(first);
    });
    assert!(twice.contains("signed twice by"), "{twice}");
    assert!(changed(|file| file["note"] = json!("paid")).contains("unknown field `note`"));
    assert!(changed(|file| file["signatures"][0]["alg"] = json!("none")).contains("unknown field `alg`"));
    assert!(changed(|file| file["contract"]["price"] = json!(0.02)).contains("contract.price is 0.02"));
    let spaced = changed(|file| file["payload"] = format!(" {}", file["payload"].as_str().unwrap()).into());
    assert!(spaced.contains("not canonical JSON"), "{spaced}");
    for (from, to) in
        [(r#""cpu": "1","#, r#""cpu": "1", "cpu": "8","#), (r#""contract": {"#, r#""contract": {}, "contract": {"#)]
    {
        let text = file().replacen(from, to, 1);
        assert!(verify_contract(&text).unwrap_err().to_string().contains("twice"), "{text}");
    }
    for text in ["", "[]", "{}", "null", &"[".repeat(1000), &"x".repeat(PROOF_BYTES_MAX + 1)] {
        assert!(matches!(verify_contract(text), Err(ProofError::Malformed(_))), "{}", text.len());
    }
}

/// What the party with this key is proven to have signed as, by these statements.
fn seller(signers: &[u8], statements: &[Statement]) -> Result<NodeId, String> {
    let signed: Signed<ContractTerms> = Signed::open(&signed(signers), CONTRACT_PURPOSE).unwrap();
    let text = export_with_handovers(&signed, MEMBER, statements).unwrap();
    let (signed, statements) = verify_with_handovers::<ContractTerms>(&text, MEMBER, CONTRACT_PURPOSE).unwrap();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    require_party(&signed, "seller", key(2).id(), &statements, now).map_err(|error| error.to_string())
}

fn handover(from: u8, to: u8) -> Statement {
    Handover::by_key(&key(from), &key(to), "2026-02-01T00:00:00Z".parse().unwrap()).unwrap().into()
}

#[test]
fn the_keys_that_follow_the_named_one_have_signed_for_the_party() {
    let [first, second] = [handover(2, 12), handover(12, 22)];
    assert_eq!(seller(&[1, 2], &[]), Ok(key(2).id()));
    assert_eq!(seller(&[1, 12], std::slice::from_ref(&first)), Ok(key(12).id()));
    assert_eq!(seller(&[1, 22], &[second.clone(), first.clone()]), Ok(key(22).id()), "in any order");
    assert_eq!(seller(&[1, 12], &[first.clone(), second.clone()]), Ok(key(12).id()), "each key of its time");
    // What is missing, or not the party's own word, proves nothing, and the key is named.
    let missing = seller(&[1, 22], &[second]).unwrap_err();
    assert!(missing.contains(&format!("not signed by the seller {}", key(2).id())), "{missing}");
    assert!(missing.contains(&key(22).id().to_string()) && missing.contains("history.json"), "{missing}");
    let elsewhere = seller(&[1, 9], std::slice::from_ref(&first)).unwrap_err();
    assert!(elsewhere.contains(&format!("lead to {}", key(12).id())), "{elsewhere}");
    let date = "2026-02-01T00:00:00Z".parse().unwrap();
    let by_owner = Handover::by_owner(&key(7), key(2).id(), &key(12), date).unwrap();
    assert!(seller(&[1, 12], &[by_owner.into()]).is_err(), "nobody has shown that 7 may say so");
    let late = Handover::by_key(&key(2), &key(12), "2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert!(seller(&[1, 12], &[late.into()]).is_err(), "dated in the future");
    let fork = seller(&[1, 12], &[first, handover(2, 13)]).unwrap_err();
    assert!(fork.contains("was handed over to 2 keys"), "{fork}");
}

#[test]
fn a_forged_hand_over_is_refused_before_it_is_followed() {
    let signed: Signed<ContractTerms> = Signed::open(&signed(&[1, 9]), CONTRACT_PURPOSE).unwrap();
    let verify =
        |text: &str| verify_with_handovers::<ContractTerms>(text, MEMBER, CONTRACT_PURPOSE).unwrap_err().to_string();
    let file = |change: &dyn Fn(&mut Value)| {
        let text = export_with_handovers(&signed, MEMBER, &[handover(8, 9)]).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        change(&mut file["handovers"][0]);
        file.to_string()
    };
    // The thief writes that the seller's key has handed over to his; he cannot sign it.
    let forged = verify(&file(&|handover| {
        let payload = URL_SAFE_NO_PAD.decode(handover["payload"].as_str().unwrap()).unwrap();
        let text = String::from_utf8(payload).unwrap().replace(&key(8).id().to_string(), &key(2).id().to_string());
        handover["payload"] = URL_SAFE_NO_PAD.encode(text).into();
    }));
    assert!(forged.starts_with("handovers: "), "{forged}");
    let unsigned = verify(&file(&|handover| handover["signatures"] = json!([])));
    assert!(unsigned.starts_with("handovers: "), "{unsigned}");
    let many: Vec<Statement> = (0..=STATEMENTS_MAX).map(|_| handover(8, 9)).collect();
    assert!(export_with_handovers(&signed, MEMBER, &many).is_err(), "more than are looked at");
    // A contract is signed by the keys that it names, so its file brings none.
    let text = export_with_handovers(&signed, MEMBER, &[handover(8, 9)]).unwrap();
    assert!(verify_contract(&text).unwrap_err().to_string().contains("unknown field `handovers`"));
}

//! What decodes the bytes of strangers, with any bytes and with good ones that were changed: no panic, and nothing forged is
//! believed. Credentials, documents and statements have theirs beside them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use crate::*;

fn key() -> NodeKey {
    NodeKey::from_seed([1; 32]).unwrap()
}

/// The bytes with one of them replaced; `None` if that changes nothing.
fn changed(bytes: &[u8], at: prop::sample::Index, to: u8) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    let before = std::mem::replace(&mut bytes[at], to);
    (before != to).then_some(bytes)
}

proptest! {
    #[test]
    fn a_did_has_one_text(text in "(did:key:z)?[1-9A-Za-z]{0,60}", bytes in any::<[u8; 32]>()) {
        if let Ok(id) = text.parse::<NodeId>() {
            prop_assert_eq!(id.to_string(), text);
        }
        if let Ok(id) = NodeId::from_public_key(bytes) {
            prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        }
    }

    #[test]
    fn a_changed_signature_or_text_is_no_signature(
        text in "\\PC{0,300}", at in any::<prop::sample::Index>(), to in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        prop_assert!(jws_verify(&text, "test+jws", &payload).is_err());
        let jws = jws_sign(&key(), "test+jws", &payload).unwrap();
        if let Some(text) = changed(jws.as_bytes(), at, to).and_then(|bytes| String::from_utf8(bytes).ok()) {
            prop_assert!(jws_verify(&text, "test+jws", &payload).is_err());
        }
        if let Some(payload) = changed(&payload, at, to) {
            prop_assert!(jws_verify(&jws, "test+jws", &payload).is_err());
        }
    }

    #[test]
    fn a_changed_envelope_does_not_open(payload in "\\PC{0,200}", signatures in proptest::collection::vec("\\PC{0,80}", 0..10), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let envelope = Envelope { purpose: "test+jws".into(), payload, signatures: signatures.clone() };
        let opened = Signed::<serde_json::Value>::open(&envelope, "test+jws");
        prop_assert!(opened.is_err() || signatures.is_empty());
        let mut signed = Signed::new("test+jws", serde_json::json!({"cpu": "1"})).unwrap();
        signed.sign(&key()).unwrap();
        let good = signed.envelope();
        if let Some(payload) = changed(good.payload.as_bytes(), at, to).and_then(|bytes| String::from_utf8(bytes).ok()) {
            let opened = Signed::<serde_json::Value>::open(&Envelope { payload, ..good }, "test+jws");
            prop_assert!(opened.is_err());
        }
    }

    #[test]
    fn any_certificate_names_a_node_or_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(certificate_node_id(&CertificateDer::from(bytes)).is_err());
    }
}

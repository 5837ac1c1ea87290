//! What decodes the bytes of strangers, with any bytes and with good ones that were changed: no panic, one text for each value, and
//! nothing forged is believed. Proofs have theirs beside them.
#![allow(clippy::unwrap_used)]

use fluidos_identity::{Envelope, NodeKey, Signed};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::*;

/// Canonical JSON has no others (RFC 8785, section 3.2.2.3).
const NUMBERS: u64 = 1 << 53;

fn key() -> NodeKey {
    NodeKey::from_seed([1; 32]).unwrap()
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn head(epoch: u64, size: u64, root: Hash) -> TreeHead {
    TreeHead { version: 1, origin: key().id(), epoch, size, root, at: Timestamp::UNIX_EPOCH }
}

fn signed(head: TreeHead) -> Envelope {
    let mut signed = Signed::new(HEAD_PURPOSE, head).unwrap();
    signed.sign(&key()).unwrap();
    signed.envelope()
}

/// The text with one of its bytes replaced; `None` if that changes nothing or is no text.
fn changed(text: &str, at: Index, to: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at.index(bytes.len());
    let before = std::mem::replace(&mut bytes[at], to);
    (before != to).then(|| String::from_utf8(bytes).ok()).flatten()
}

#[test]
fn no_entries_have_one_root() {
    let (kept, new) = (head(0, 0, Tree::default().root()), head(0, 0, Hash([1; 32])));
    assert_eq!(compare_heads(&kept, &kept, &[]), Verdict::Continues);
    assert!(matches!(compare_heads(&kept, &new, &[]), Verdict::Rewritten { .. }));
}

proptest! {
    #[test]
    fn a_hash_has_one_text(text in "[0-9a-f]{62,66}|[0-9a-fA-F]{64}|\\PC{0,80}", bytes in any::<[u8; 32]>()) {
        if let Ok(hash) = text.parse::<Hash>() {
            prop_assert_eq!(hash.to_string(), text);
        }
        prop_assert_eq!(Hash(bytes).to_string().parse(), Ok(Hash(bytes)));
    }

    /// Who gets a document back knows its leaf by the hash only: two entries must not be one leaf.
    #[test]
    fn an_entry_is_one_leaf(of in "\\PC{0,40}", month in prop::option::of("\\PC{0,20}"), digest in hash(), at in any::<Index>(), to in any::<u8>()) {
        let entry = Entry { kind: EntryKind::InvoiceMade, of, digest, at: month };
        let leaf = String::from_utf8(entry.leaf().unwrap()).unwrap();
        let again = serde_json::from_str::<Entry>(&leaf).ok();
        prop_assert_eq!(again.as_ref(), Some(&entry));
        let other = changed(&leaf, at, to).and_then(|text| serde_json::from_str::<Entry>(&text).ok());
        if let Some(other) = other {
            prop_assert_eq!(other == entry, other.hash().unwrap() == entry.hash().unwrap());
        }
    }

    #[test]
    fn an_entry_says_nothing_beside(name in "[a-z]{1,8}", value in "[a-z]{0,8}", digest in hash()) {
        prop_assume!(!["kind", "of", "digest", "at"].contains(&name.as_str()));
        let mut value_of = serde_json::json!({"kind": "invoice-made", "of": "contract-1", "digest": digest.to_string()});
        prop_assert!(serde_json::from_value::<Entry>(value_of.clone()).is_ok());
        value_of[name.as_str()] = value.into();
        prop_assert!(serde_json::from_value::<Entry>(value_of).is_err());
    }

    #[test]
    fn any_texts_are_no_head(purpose in select(vec![HEAD_PURPOSE, "", "fluidos-contract+jws"]), payload in "\\PC{0,300}", signatures in prop::collection::vec("\\PC{0,80}", 0..10)) {
        let opened = open_head(&Envelope { purpose: purpose.into(), payload, signatures });
        prop_assert!(opened.is_err());
    }

    #[test]
    fn a_changed_head_does_not_open(epoch in 0..NUMBERS, size in 0..=TREE_SIZE_MAX, root in hash(), at in any::<Index>(), to in any::<u8>()) {
        let good = signed(head(epoch, size, root));
        prop_assert!(open_head(&good).unwrap().signed_by(&key().id()));
        if let Some(payload) = changed(&good.payload, at, to) {
            let opened = open_head(&Envelope { payload, ..good.clone() });
            prop_assert!(opened.is_err());
        }
        if let Some(signature) = changed(&good.signatures[0], at, to) {
            let opened = open_head(&Envelope { signatures: vec![signature], ..good });
            prop_assert!(opened.is_err());
        }
    }

    /// Signed as it must be, but with numbers that its node has made up.
    #[test]
    fn a_head_that_cannot_be_does_not_open(version in prop_oneof![0u32..4, any::<u32>()], size in prop_oneof![TREE_SIZE_MAX - 2..TREE_SIZE_MAX + 3, 0..NUMBERS], root in hash()) {
        let opened = open_head(&signed(TreeHead { version, ..head(0, size, root) }));
        prop_assert_eq!(opened.is_ok(), version == 1 && size <= TREE_SIZE_MAX);
    }

    /// Roots that nobody has computed, with any proof: only no entries at all go on with anything.
    #[test]
    fn made_up_heads_do_not_fit(epochs in (0u64..3, 0u64..3), sizes in (0u64..40, 0u64..40), roots in (hash(), hash()), proof in prop::collection::vec(hash(), 0..8)) {
        prop_assume!(roots.0 != roots.1);
        let (kept, new) = (head(epochs.0, sizes.0, roots.0), head(epochs.1, sizes.1, roots.1));
        let verdict = compare_heads(&kept, &new, &proof);
        match epochs.1.cmp(&epochs.0) {
            std::cmp::Ordering::Greater => prop_assert_eq!(verdict, Verdict::BegunAnew),
            std::cmp::Ordering::Less => prop_assert_eq!(verdict, Verdict::Older),
            std::cmp::Ordering::Equal => {
                let fits = proof.is_empty() && sizes.0 != sizes.1 && sizes.0.min(sizes.1) == 0;
                prop_assert_eq!(!matches!(verdict, Verdict::Rewritten { .. }), fits, "{:?}", verdict);
            }
        }
    }

    /// Two histories that part at some entry, with the best proofs that their node could make and with one of their nodes changed.
    #[test]
    fn a_split_view_is_seen(part in 0u64..60, more in (1u64..20, 1u64..20), bend in any::<(Index, bool)>()) {
        let leaves = |word: &'static str, more: u64| {
            let shared = (0..part).map(|leaf| leaf_hash(&leaf.to_be_bytes()));
            shared.chain((0..more).map(move |leaf| leaf_hash(format!("{word} {leaf}").as_bytes()))).collect::<Tree>()
        };
        let (one, two) = (leaves("one", more.0), leaves("two", more.1));
        let (from, to) = (one.size().min(two.size()), one.size().max(two.size()));
        let longer = if one.size() >= two.size() { &one } else { &two };
        let mut proof = longer.consistency(from, to).unwrap();
        if bend.1 && !proof.is_empty() {
            let at = bend.0.index(proof.len());
            proof[at].0[0] ^= 1;
        }
        let (kept, new) = (head(0, one.size(), one.root()), head(0, two.size(), two.root()));
        let seen = |verdict| matches!(verdict, Verdict::Rewritten { .. });
        prop_assert!(seen(compare_heads(&kept, &new, &proof)) && seen(compare_heads(&new, &kept, &proof)));
    }
}

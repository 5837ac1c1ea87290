//! Receipts on the wire: one request with which either party of a contract brings the books of both to the same page.
//!
//! ```text
//!   buyer                                                     seller
//!     │ after 7, digest ──────────────────────────────────────►│  nothing is due, or
//!     │◄───────────────────────── proposal of 8: its measures ─┤
//!     │ after 7, receipt 8 with both measures, signed ─────────►│  compares, signs, keeps
//!     │◄──────────────────────────── receipt 8, signed by both ─┤  the same bytes, however often it is asked for
//! ```
//! What a receipt says is not known here: it is a signed text, and a proposal one that is not signed yet. The buyer asks, because a
//! buyer always reaches its seller. Either party may add its signed words about payments, and is answered those of the other.

use async_trait::async_trait;
use fluidos_identity::{Envelope, NodeId, strict_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::messages::wire::Message;
use crate::{BODY_BYTES_MAX, Refusal};

/// Words about payments in one message: one for each month since the last, and a year of them is late enough.
pub const PAYMENTS_MAX: usize = 12;
/// A SHA-256 in hexadecimal.
const DIGEST_LENGTH: usize = 64;

/// Where the books of a party stand, and what it adds to them.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptRequest {
    /// Number of its last receipt; 0 before the first.
    pub after: u64,
    /// Digest of it; of the contract before the first.
    pub digest: String,
    /// The next one: signed by the buyer, or by both if the other party has lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Envelope>,
    /// What it says about payments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<Envelope>,
}

/// Where the books of the other party stand, and what comes next.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptAnswer {
    /// Number of its last receipt.
    pub number: u64,
    /// Digest of it; of the contract before the first.
    pub digest: String,
    /// The receipt after the one that was named, signed by both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Envelope>,
    /// The next receipt with the seller's measures, if one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Value>,
    /// What it says about payments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<Envelope>,
}

/// Who keeps the books behind the protocol. Everything that arrives has been bounded; who asks has proven its key, and nothing else.
///
/// It is *idempotent*: a receipt that there is is answered as it is, whatever was sent.
#[async_trait]
pub trait Accountant: Send + Sync + 'static {
    /// Brings the books of a contract forward. Somebody who is no party is told that there is no such contract.
    async fn receipts(
        &self,
        contract_id: &str,
        request: ReceiptRequest,
        party: NodeId,
    ) -> Result<ReceiptAnswer, Refusal>;
}

impl Message for ReceiptRequest {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self =
            serde_json::from_value(strict_json(body, BODY_BYTES_MAX)?).map_err(|error| error.to_string())?;
        check(&read.digest, &read.payments)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Message for ReceiptAnswer {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self =
            serde_json::from_value(strict_json(body, BODY_BYTES_MAX)?).map_err(|error| error.to_string())?;
        check(&read.digest, &read.payments)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

fn check(digest: &str, payments: &[Envelope]) -> Result<(), String> {
    if digest.len() != DIGEST_LENGTH || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("digest of {} characters, needed {DIGEST_LENGTH} hexadecimal digits", digest.len()));
    }
    if payments.len() > PAYMENTS_MAX {
        return Err(format!("{} payments, at most {PAYMENTS_MAX}", payments.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_read_is_bounded_and_has_one_meaning() {
        let digest = "ab".repeat(32);
        let good = format!(r#"{{"after":7,"digest":"{digest}"}}"#);
        assert_eq!(ReceiptRequest::read(good.as_bytes()).unwrap().after, 7);
        let written = ReceiptRequest::read(good.as_bytes()).unwrap().write().unwrap();
        assert_eq!(written, good.as_bytes());
        let refused = |body: String| ReceiptRequest::read(body.as_bytes()).unwrap_err();
        assert!(refused(r#"{"after":7,"digest":"ab"}"#.into()).contains("64 hexadecimal"));
        assert!(refused(format!(r#"{{"after":7,"after":8,"digest":"{digest}"}}"#)).contains("twice"));
        assert!(refused(format!(r#"{{"after":-1,"digest":"{digest}"}}"#)).contains("invalid value"));
        assert!(refused(format!(r#"{{"after":7,"digest":"{digest}","more":1}}"#)).contains("unknown field"));
        let payment = r#"{"purpose":"p","payload":"","signatures":[]}"#;
        let many = vec![payment; PAYMENTS_MAX + 1].join(",");
        assert!(refused(format!(r#"{{"after":7,"digest":"{digest}","payments":[{many}]}}"#)).contains("at most 12"));
    }
}

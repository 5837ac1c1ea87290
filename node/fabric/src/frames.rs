//! What the two sides say to each other about pods: the stream `desired/1`.
//!
//! ```text
//! consumer ─▶ provider   Envelope { purpose, payload = bytes of Desired, signature of the consumer over these bytes }
//! provider ─▶ consumer   Reported, plain: the stream is the provider's by the link
//! ```
//! Each frame is four bytes of length, big endian, and that many bytes of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluidos_identity::{Envelope, NodeId, NodeKey, jws_sign, jws_verify};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use substrate_network::Cidr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::Error;

/// The kind of the stream.
pub(crate) const DESIRED: &str = "desired/1";
const PURPOSE: &str = "fluidos-desired-1";
/// A pod with one ConfigMap of 1 MiB, the largest there is, in base64.
pub(crate) const FRAME_BYTES_MAX: usize = 2 << 20;
/// What base64 makes of this fits into a frame with room for the signature.
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX / 4 * 3 - 4096;
/// Pods of one contract in one `Begin`; a uid is 36 characters.
pub(crate) const PODS_MAX: usize = 4096;
/// A uid is 36 characters; others' may be longer.
const UID_LENGTH_MAX: usize = 64;

/// What the stream is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub contract: String,
}

/// What the consumer wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Desired {
    pub contract: String,
    pub consumer: NodeId,
    pub provider: NodeId,
    /// When the consumer's process started, in milliseconds since 1970.
    pub epoch: u64,
    /// Counts within the epoch.
    pub sequence: u64,
    pub change: Change,
}

/// One change of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Change {
    /// The uids of all that shall exist.
    Begin { pods: Vec<String> },
    /// This pod shall exist, with what goes with it. Of a known one only what goes with it is looked at.
    Put(Box<Put>),
    /// This one shall not.
    Delete {
        uid: String,
        /// How long it may take to stop; absent: as its spec says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_seconds: Option<u32>,
    },
    /// All that shall exist has been said.
    Synced,
}

/// A pod as its consumer has it, and the objects that it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Put {
    pub pod: Pod,
    #[serde(default)]
    pub config_maps: Vec<ConfigMap>,
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Where the addresses of its owner are, if the consumer has sold the place on: the pod reaches them, through the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Cidr>,
}

/// What the provider says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reported {
    /// How a twin stands.
    Observed { uid: String, status: Box<PodStatus> },
    /// Why there is no twin.
    Refused {
        uid: String,
        reason: String,
        /// There is no room for what is paid per use, and others come first, as the contract says.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        yields: bool,
    },
    /// There is no twin any more, and nothing of it runs.
    Gone {
        uid: String,
        /// Why the provider has ended it, if it was not asked to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What was not named in `Begin` has stopped; the rest is confirmed.
    Ready,
    /// Whether what was sold is there; nothing said is that it is.
    Capacity {
        /// Why it is not, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<String>,
    },
    /// Why the stream ends now.
    Closing {
        reason: String,
        /// The newest epoch that was accepted, if what was sent is older: a consumer whose clock went back goes on from it.
        #[serde(default, rename = "newestEpoch", skip_serializing_if = "Option::is_none")]
        newest_epoch: Option<u64>,
    },
}

/// Returns what is wanted with the consumer's signature over the bytes that are sent.
pub(crate) fn seal(key: &NodeKey, desired: &Desired) -> Result<Envelope, Error> {
    let bytes = serde_json::to_vec(desired).map_err(malformed("desired state"))?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "a pod with what it names",
            observed: bytes.len(),
            max: PAYLOAD_BYTES_MAX,
        });
    }
    let signature = jws_sign(key, PURPOSE, &bytes)?;
    Ok(Envelope { purpose: PURPOSE.into(), payload: URL_SAFE_NO_PAD.encode(bytes), signatures: vec![signature] })
}

/// Whose word about what a stream carries, and what was said last on it.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub contract: String,
    pub consumer: NodeId,
    pub provider: NodeId,
    pub last: Option<(u64, u64)>,
}

impl Expected {
    /// Returns what was sent if all of it is as it should be, and takes note of its sequence.
    ///
    /// # Errors
    /// The envelope is not signed by the consumer, is about something else, or is not newer than the last.
    pub(crate) fn open(&mut self, envelope: &Envelope) -> Result<Desired, Error> {
        let [signature] = envelope.signatures.as_slice() else {
            let reason = format!("{} signatures, needed 1", envelope.signatures.len());
            return Err(Error::Malformed { what: "desired state", reason });
        };
        if envelope.purpose != PURPOSE {
            let reason = format!("it is for {:?}, needed {PURPOSE}", cut(&envelope.purpose, 80));
            return Err(Error::Malformed { what: "desired state", reason });
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(&envelope.payload)
            .map_err(|error| Error::Malformed { what: "desired state", reason: error.to_string() })?;
        let signer = jws_verify(signature, PURPOSE, &bytes)?;
        if signer != self.consumer {
            return Err(Error::Signer { observed: signer, needed: self.consumer });
        }
        let desired: Desired = serde_json::from_slice(&bytes).map_err(malformed("desired state"))?;
        let names = [
            ("contract", desired.contract.clone(), self.contract.clone()),
            ("consumer", desired.consumer.to_string(), self.consumer.to_string()),
            ("provider", desired.provider.to_string(), self.provider.to_string()),
        ];
        for (what, observed, needed) in names {
            if observed != needed {
                return Err(Error::Misdirected { what, observed: cut(&observed, 80), needed });
            }
        }
        let at = (desired.epoch, desired.sequence);
        if let Some(last) = self.last.filter(|last| at <= *last) {
            return Err(Error::Replayed { observed: at, last });
        }
        self.last = Some(at);
        check(&desired.change)?;
        Ok(desired)
    }
}

fn check(change: &Change) -> Result<(), Error> {
    let uids: Vec<&str> = match change {
        Change::Begin { pods } if pods.len() > PODS_MAX => {
            return Err(Error::TooLarge { what: "the list of pods", observed: pods.len(), max: PODS_MAX });
        }
        Change::Begin { pods } => pods.iter().map(String::as_str).collect(),
        Change::Put(put) => vec![put.pod.metadata.uid.as_deref().unwrap_or_default()],
        Change::Delete { uid, .. } => vec![uid],
        Change::Synced => vec![],
    };
    let is_uid = |uid: &str| {
        (1..=UID_LENGTH_MAX).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match uids.into_iter().find(|uid| !is_uid(uid)) {
        Some(uid) => Err(Error::Malformed { what: "a pod's uid", reason: format!("{:?}", cut(uid, UID_LENGTH_MAX)) }),
        None => Ok(()),
    }
}

/// Writes one frame.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    what: &'static str,
    value: &impl Serialize,
) -> Result<(), Error> {
    let json = serde_json::to_vec(value).map_err(malformed(what))?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(Error::TooLarge { what, observed: json.len(), max: FRAME_BYTES_MAX })?;
    to.write_all(&[&length.to_be_bytes()[..], &json].concat()).await.map_err(Error::stream(what))
}

/// Reads one frame of at most `max` bytes. Nothing is allocated before its length has been checked. Not safe to cancel.
pub(crate) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    max: usize,
) -> Result<T, Error> {
    let length = from.read_u32().await.map_err(Error::stream(what))? as usize;
    if length > max {
        return Err(Error::TooLarge { what, observed: length, max });
    }
    let mut json = vec![0; length];
    from.read_exact(&mut json).await.map_err(Error::stream(what))?;
    serde_json::from_slice(&json).map_err(malformed(what))
}

fn malformed(what: &'static str) -> impl FnOnce(serde_json::Error) -> Error {
    move |error| Error::Malformed { what, reason: error.to_string() }
}

/// A text of somebody else, cut to size and without control characters: it ends up in terminals.
pub(crate) fn cut(text: &str, length: usize) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(length).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32]).unwrap()
    }

    fn desired(sequence: u64) -> Desired {
        Desired {
            contract: "c".into(),
            consumer: key(1).id(),
            provider: key(2).id(),
            epoch: 5,
            sequence,
            change: Change::Synced,
        }
    }

    fn expected() -> Expected {
        Expected { contract: "c".into(), consumer: key(1).id(), provider: key(2).id(), last: None }
    }

    #[test]
    fn only_the_consumers_own_and_newer_words_count() {
        let mut stream = expected();
        let first = seal(&key(1), &desired(1)).unwrap();
        stream.open(&first).unwrap();
        assert!(matches!(stream.open(&first), Err(Error::Replayed { .. })), "replayed");
        assert!(matches!(stream.open(&seal(&key(1), &desired(0)).unwrap()), Err(Error::Replayed { .. })), "back");
        let older = Desired { epoch: 4, ..desired(9) };
        assert!(matches!(stream.open(&seal(&key(1), &older).unwrap()), Err(Error::Replayed { .. })), "older epoch");
        assert!(matches!(stream.open(&seal(&key(3), &desired(2)).unwrap()), Err(Error::Signer { .. })), "another's");
        let other = Desired { contract: "d".into(), ..desired(2) };
        assert!(matches!(stream.open(&seal(&key(1), &other).unwrap()), Err(Error::Misdirected { .. })));
        let mut forged = seal(&key(1), &desired(2)).unwrap();
        forged.payload = seal(&key(1), &desired(3)).unwrap().payload;
        assert!(matches!(stream.open(&forged), Err(Error::Signature(_))), "other bytes");
        let unsigned = Envelope { signatures: vec![], ..seal(&key(1), &desired(2)).unwrap() };
        assert!(matches!(stream.open(&unsigned), Err(Error::Malformed { .. })));
        stream.open(&seal(&key(1), &desired(2)).unwrap()).unwrap();
    }

    #[test]
    fn uids_and_lists_are_bounded() {
        let say = |change| expected().open(&seal(&key(1), &Desired { change, ..desired(1) }).unwrap()).map(|_| ());
        assert!(say(Change::Delete { uid: "../x".into(), grace_seconds: None }).is_err());
        assert!(say(Change::Begin { pods: vec!["u".into(); PODS_MAX + 1] }).is_err());
        assert!(
            say(Change::Put(Box::new(Put { pod: Pod::default(), config_maps: vec![], secrets: vec![], home: None })))
                .is_err()
        );
        say(Change::Begin { pods: vec!["u".into()] }).unwrap();
    }

    proptest::proptest! {
        /// No panic; and what was changed after it was signed is not opened.
        #[test]
        fn any_frame_is_read_or_refused_and_a_changed_one_is_not_opened(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), at in 0usize..2000, to: u8,
        ) {
            let envelope = seal(&key(1), &desired(7)).unwrap();
            let mut json = serde_json::to_vec(&envelope).unwrap();
            let length = json.len();
            let before = std::mem::replace(&mut json[at % length], to);
            if before != to && let Ok(changed) = serde_json::from_slice::<Envelope>(&json) && changed != envelope {
                proptest::prop_assert!(expected().open(&changed).is_err(), "{changed:?}");
            }
            let payload = URL_SAFE_NO_PAD.encode(&bytes);
            // Signed by the consumer itself, whatever it is.
            let signature = jws_sign(&key(1), PURPOSE, &bytes).unwrap();
            let signed = Envelope { purpose: PURPOSE.into(), payload, signatures: vec![signature] };
            proptest::prop_assert!(expected().open(&signed).is_err());
            let mut plain = serde_json::to_vec(&desired(7)).unwrap();
            let length = plain.len();
            plain[at % length] = to;
            let signature = jws_sign(&key(1), PURPOSE, &plain).unwrap();
            let signed = Envelope { purpose: PURPOSE.into(), payload: URL_SAFE_NO_PAD.encode(&plain), signatures: vec![signature] };
            if let Ok(opened) = expected().open(&signed) {
                proptest::prop_assert_eq!((opened.contract.as_str(), opened.consumer, opened.provider), ("c", key(1).id(), key(2).id()));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let framed = [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
            for wire in [bytes.as_slice(), framed.as_slice()] {
                let _ = runtime.block_on(read::<Reported>(&mut { wire }, "report", 1024));
            }
        }
    }
}

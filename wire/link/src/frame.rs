//! JSON with its length in front: four bytes, big-endian, then that many bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::LinkError;

/// A hello within its own bounds is under 14 KiB.
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;
/// A header may carry a small desired state; what is larger goes through the stream.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// The answer to a request: some hundred objects. What is larger goes through a stream.
pub(crate) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Writes a value.
///
/// # Errors
/// [`LinkError::TooLarge`] before anything is sent, or what the stream says.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    what: &'static str,
    value: &impl Serialize,
    max: usize,
) -> Result<(), LinkError> {
    let failed = |reason: String| LinkError::Malformed { what, reason };
    let json = serde_json::to_vec(value).map_err(|error| failed(error.to_string()))?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= max);
    let length = length.ok_or(LinkError::TooLarge { what, observed: json.len(), max })?;
    // One write: a header and its length never make two packets.
    let frame = [&length.to_be_bytes()[..], &json].concat();
    stream.write_all(&frame).await.map_err(|error| broken(what, &error))
}

/// Reads a value. Nothing is allocated before the length has been checked.
///
/// # Errors
/// [`LinkError::TooLarge`] or [`LinkError::Malformed`] is the peer's fault; a stream that broke is not.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    max: usize,
) -> Result<T, LinkError> {
    let length = stream.read_u32().await.map_err(|error| broken(what, &error))? as usize;
    if length > max {
        return Err(LinkError::TooLarge { what, observed: length, max });
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json).await.map_err(|error| broken(what, &error))?;
    serde_json::from_slice(&json).map_err(|error| LinkError::Malformed { what, reason: error.to_string() })
}

/// A stream that broke, which says nothing about the peer's manners.
fn broken(what: &'static str, error: &std::io::Error) -> LinkError {
    LinkError::Dropped { what, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_what_is_too_large_is_neither() {
        let mut wire = Vec::new();
        write(&mut wire, "test", &"hello", 10).await.unwrap();
        assert_eq!(wire, b"\0\0\0\x07\"hello\"");
        assert_eq!(read::<String>(&mut wire.as_slice(), "test", 10).await.unwrap(), "hello");
        assert!(matches!(read::<String>(&mut wire.as_slice(), "test", 6).await, Err(LinkError::TooLarge { .. })));
        assert!(matches!(write(&mut wire, "test", &"hello", 6).await, Err(LinkError::TooLarge { .. })));
        assert_eq!(wire.len(), 11, "nothing was sent");
        let half = &wire[..6];
        assert!(matches!(read::<String>(&mut { half }, "test", 10).await, Err(LinkError::Dropped { .. })));
        let huge = [0xff; 8];
        assert!(matches!(read::<String>(&mut huge.as_slice(), "test", 10).await, Err(LinkError::TooLarge { .. })));
    }

    proptest::proptest! {
        /// No panic, nothing is taken that is too long, and a hello that is taken keeps its bounds.
        #[test]
        fn any_bytes_are_a_hello_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), at in 0usize..200, to: u8, cut in 0usize..300) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let hello = crate::Hello {
                version_min: 1, version_max: 2, name: "farm".into(), features: vec!["pods".into()],
                attributes: [("rear-port".to_owned(), "7300".to_owned())].into(), ..Default::default()
            };
            runtime.block_on(async {
                let mut good = Vec::new();
                write(&mut good, "hello", &hello, HELLO_BYTES_MAX).await.unwrap();
                let length = good.len();
                good[at % length] = to;
                good.truncate(length.max(cut) - cut.min(length));
                for wire in [bytes.as_slice(), good.as_slice()] {
                    for max in [16, HELLO_BYTES_MAX] {
                        let read = read::<crate::Hello>(&mut { wire }, "hello", max).await;
                        if let Ok(hello) = read && hello.check().is_ok() {
                            proptest::prop_assert!((1..64).contains(&hello.name.len()), "{hello:?}");
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
}

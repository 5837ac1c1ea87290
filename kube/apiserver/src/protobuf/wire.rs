//! The protobuf encoding itself: a message is a row of (number, wire type, value).

use super::Problem;

/// A value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, octets, messages, packed lists.
    Bytes(&'a [u8]),
    /// Wire type 5. No message of ours has one; it is read to be skipped.
    Fixed32,
}

/// Reads fields one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of one message.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; `None` at the end.
    ///
    /// # Errors
    /// When what is left is no field.
    pub fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        // Numbers have 29 bits (protobuf encoding, "Message Structure").
        let number =
            u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n)).ok_or(Problem::Number(tag >> 3))?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| Problem::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.array::<4>()?;
                Wire::Fixed32
            }
            other => return Err(Problem::WireType(other as u8)),
        };
        Ok(Some((number, value)))
    }

    /// The next varint of a packed list; `None` at the end.
    ///
    /// # Errors
    /// When what is left is no varint.
    pub fn next_packed(&mut self) -> Result<Option<u64>, Problem> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Problem::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.take(N)?.try_into().map_err(|_| Problem::Truncated)
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0u64;
        // 64 bits in groups of seven: ten octets, the tenth at most 1.
        for shift in (0..64).step_by(7) {
            let [octet] = self.array()?;
            let bits = u64::from(octet & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Problem::Varint);
            }
            value |= bits << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Problem::Varint)
    }
}

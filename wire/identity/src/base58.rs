//! Base58 with the Bitcoin alphabet, as multibase `z` means it. Only for short inputs: the work grows with the square.

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// As many digits as a limb of 32 bits has, and how many values they have.
const DIGITS: u32 = 5;
const LIMB: u64 = 58_u64.pow(DIGITS);

/// Returns the base58 text of the bytes. Four bytes and five digits at a time: every object that names a node has one of these.
pub(crate) fn encode(bytes: &[u8]) -> String {
    // The least first.
    let mut limbs: Vec<u32> = Vec::with_capacity(bytes.len() / 3 + 1);
    let (first, words) = bytes.split_at(bytes.len() % 4);
    for word in std::iter::once(first).chain(words.chunks_exact(4)) {
        let mut carry = word.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        for limb in &mut limbs {
            carry += u64::from(*limb) << (8 * word.len());
            *limb = (carry % LIMB) as u32;
            carry /= LIMB;
        }
        // Of what four bytes can carry at most seven parts of 2³² are left over.
        if carry > 0 {
            limbs.push((carry % LIMB) as u32);
            carry /= LIMB;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut text: Vec<u8> = Vec::with_capacity(limbs.len() * DIGITS as usize + bytes.len());
    for limb in limbs {
        let mut limb = limb;
        for _ in 0..DIGITS {
            text.push(ALPHABET[(limb % 58) as usize]);
            limb /= 58;
        }
    }
    let digits = text.iter().rposition(|digit| *digit != ALPHABET[0]).map_or(0, |last| last + 1);
    text.truncate(digits);
    text.extend(bytes.iter().take_while(|byte| **byte == 0).map(|_| ALPHABET[0]));
    text.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// Returns the bytes of a base58 text, or `None` if a character is not of the alphabet.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for character in text.bytes() {
        let mut carry = ALPHABET.iter().position(|letter| *letter == character)? as u32;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push((carry & 0xff) as u8);
            carry >>= 8;
        }
    }
    let zeros = text.bytes().take_while(|character| *character == b'1').count();
    bytes.resize(bytes.len() + zeros, 0);
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts() {
        for (bytes, text) in [
            (&b""[..], ""),
            (&[0], "1"),
            (&[0, 0, 0, 1], "1112"),
            (&[57], "z"),
            (&[58], "21"),
            (b"Hello World!", "2NEpo7TZRRrLZSi2U"),
            (&[0xff; 8], "jpXCZedGfVQ"),
        ] {
            assert_eq!(encode(bytes), text, "{bytes:?}");
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(decode("0"), None);
    }

    #[test]
    fn bytes_of_every_length_come_back() {
        let mut state = 1_u32;
        for length in 0..70 {
            for zeros in [0, 1, 5] {
                let random = std::iter::repeat_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                });
                let bytes: Vec<u8> = std::iter::repeat_n(0, zeros).chain(random.take(length)).collect();
                assert_eq!(decode(&encode(&bytes)), Some(bytes));
            }
        }
    }
}

//! JSON from strangers: bounded, and read in one way only.
//!
//! Two members of one name are two meanings in one text: one reader takes the first, another the last (RFC 8259 §4).
//! serde_json takes the last in silence, so a signed text could mean one thing to its signer and another to us.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What we read has at most four levels; sixteen leave room for what others put beside it.
const DEPTH_MAX: usize = 16;

/// Returns the value of a JSON text.
///
/// # Errors
/// What is wrong, in words: too long, too deep, a member twice, no JSON, or something after it.
pub fn strict_json(bytes: &[u8], bytes_max: usize) -> Result<Value, String> {
    if bytes.len() > bytes_max {
        return Err(format!("{} bytes, at most {bytes_max}", bytes.len()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { levels: DEPTH_MAX }.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// Reads one value that may have so many levels more.
#[derive(Clone, Copy)]
struct Strict {
    levels: usize,
}

impl Strict {
    fn below<E: Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        levels.map(|levels| Self { levels }).ok_or_else(|| E::custom(format!("more than {DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(below)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(below)?;
            if values.contains_key(&name) {
                let name: String = name.chars().take(64).collect();
                // A name of a stranger, which ends on a terminal and in logs.
                return Err(A::Error::custom(format!("member `{}` twice", name.escape_debug())));
            }
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn what_has_one_meaning_is_read() {
        let text = r#" {"a": [1, -2, 1.5, true, null, "x"], "b": {"a": {}}} "#;
        assert_eq!(strict_json(text.as_bytes(), 100).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_has_two_meanings_or_no_end_is_refused() {
        let refused = |text: &str| strict_json(text.as_bytes(), 4096).unwrap_err();
        assert!(refused(r#"{"a":1,"b":{"c":1,"c":1}}"#).contains("member `c` twice"));
        assert!(refused(r#"{"a":1,"\u0061":2}"#).contains("member `a` twice"), "escapes do not hide a name");
        assert!(
            refused("{\"\\u001b\":1,\"\\u001b\":2}").contains("member `\\u{1b}` twice"),
            "nothing reaches a terminal"
        );
        assert!(refused(&format!("{}{}", "[".repeat(17), "]".repeat(17))).contains("more than 16 levels"));
        assert!(strict_json(format!("{}{}", "[".repeat(16), "]".repeat(16)).as_bytes(), 100).is_ok());
        assert!(refused("{} {}").contains("trailing"));
        assert!(refused(&"1".repeat(5000)).contains("at most 4096"));
        for text in ["", "{", "{'a':1}", "nul", "\u{feff}{}", "1e999"] {
            assert!(strict_json(text.as_bytes(), 100).is_err(), "{text}");
        }
    }
}

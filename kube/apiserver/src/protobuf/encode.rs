//! Objects as protobuf: what decoding reads, written by the same tables.
//!
//! ```text
//! JSON text ─▶ kind ─▶ message ─▶ each field as it is read ─▶ put in the order of their numbers ─▶ "k8s\0" Unknown{typeMeta, raw}
//! a list is a message, too: ListMeta and its items
//! a watch   ─▶ length (4 bytes, big endian) ‖ WatchEvent{type, object{raw: the envelope above}}
//! ```
//!
//! The text is read once, from its begin to its end, and nothing is made of it but what is written. What Go could not tell apart is not
//! written: nulls, empty lists and maps, zeros of what is no pointer. A name that is given twice in one object is written twice.

use std::fmt::{self, Formatter};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::table::{How, Message, PATH_MAX, Place, Type};
use super::{Error, MAGIC, Problem, message};
use crate::object::text_at;

/// `apiVersion` and `kind` of a text. It is read up to where they stand, which is its begin.
pub fn kind_of(json: &[u8]) -> (String, String) {
    let json = std::str::from_utf8(json).unwrap_or_default();
    let read = |name| text_at(json, name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    (read("apiVersion"), read("kind"))
}

/// The message of a kind, or of its list.
fn known(api_version: &str, kind: &str) -> Option<&'static Message> {
    message(api_version, kind).or_else(|| Some(message(api_version, kind.strip_suffix("List")?)?.list()))
}

/// Whether objects of a kind, and lists of them, can be written.
pub fn is_known(api_version: &str, kind: &str) -> bool {
    known(api_version, kind).is_some()
}

/// The object or list whose JSON text is `json`, in its envelope; none for a kind that has no protobuf.
///
/// # Errors
/// A value that does not fit its field.
pub fn encode(json: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let (api_version, kind) = kind_of(json);
    let Some(of) = known(&api_version, &kind) else { return Ok(None) };
    let mut writer = Writer { out: Vec::with_capacity(json.len()), ..Writer::default() };
    // Judged as a whole, or each text in it would be by itself.
    let mut text = serde_json::Deserializer::from_str(std::str::from_utf8(json).map_err(|_| Problem::Text)?);
    let whole = Fields { to: &mut writer, of };
    if let Err(error) = text.deserialize_map(whole).and_then(|()| text.end()) {
        let problem = if error.is_data() { Problem::Shape } else { Problem::Json(error) };
        return Err(Error { path: writer.path, problem });
    }
    let mut out = Vec::with_capacity(writer.out.len() + 64);
    out.extend_from_slice(MAGIC);
    let begin = open(1, &mut out);
    octets(1, api_version.as_bytes(), &mut out);
    octets(2, kind.as_bytes(), &mut out);
    close(begin, &mut out);
    octets(2, &writer.out, &mut out);
    Ok(Some(out))
}

/// An event of a watch, of which `object` is an envelope.
pub fn event(word: &str, object: &[u8]) -> Vec<u8> {
    let mut raw_extension = Vec::with_capacity(object.len() + 8);
    octets(1, object, &mut raw_extension);
    let mut out = vec![0; 4];
    octets(1, word.as_bytes(), &mut out);
    octets(2, &raw_extension, &mut out);
    let length = (out.len() - 4) as u32; // an object is at most 1.5 MiB
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// What is written so far.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    /// Of each message that is open, the fields that are there.
    parts: Vec<Part>,
    /// Where fields are put in order.
    aside: Vec<u8>,
    /// Where it went wrong, innermost first.
    path: Vec<&'static str>,
}

/// A field of a message as it stands in what is written.
struct Part {
    path: [u32; PATH_MAX],
    from: usize,
    to: usize,
}

impl Writer {
    fn message<'de, A: MapAccess<'de>>(&mut self, of: &'static Message, mut fields: A) -> Result<(), A::Error> {
        let (begin, first) = (self.out.len(), self.parts.len());
        while let Some(place) = fields.next_key_seed(Name(of))? {
            let Some(Place { name, path, field }) = place else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let from = self.out.len();
            let put = Put { to: self, number: field.number, kind: &field.kind, how: Some(field.how) };
            if let Err(error) = fields.next_value_seed(put) {
                self.path.push(name);
                return Err(error);
            }
            self.parts.push(Part { path: *path, from, to: self.out.len() });
        }
        let parts = &mut self.parts[first..];
        if of.is_nested() || !parts.is_sorted_by_key(|part| part.path) {
            parts.sort_by_key(|part| part.path);
            self.aside.clear();
            in_order(of, 0, parts, &self.out, &mut self.aside);
            self.out.truncate(begin);
            self.out.extend_from_slice(&self.aside);
        }
        self.parts.truncate(first);
        Ok(())
    }

    /// A map's entries, in the order of their keys.
    fn map<'de, A: MapAccess<'de>>(&mut self, number: u32, kind: &Type, mut entries: A) -> Result<(), A::Error> {
        let (begin, mut parts) = (self.out.len(), Vec::new());
        while let Some(key) = entries.next_key::<String>()? {
            let from = self.out.len();
            let entry = open(number, &mut self.out);
            octets(1, key.as_bytes(), &mut self.out);
            entries.next_value_seed(Put { to: self, number: 2, kind, how: None })?;
            close(entry, &mut self.out);
            parts.push((key, from, self.out.len()));
        }
        if !parts.is_sorted() {
            parts.sort();
            self.aside.clear();
            parts.iter().for_each(|(_, from, to)| self.aside.extend_from_slice(&self.out[*from..*to]));
            self.out.truncate(begin);
            self.out.extend_from_slice(&self.aside);
        }
        Ok(())
    }
}

/// Writes the parts of a message by their numbers; those of one that JSON does not show stand in it.
fn in_order(of: &'static Message, depth: usize, mut parts: &[Part], from: &[u8], out: &mut Vec<u8>) {
    for field in of.fields() {
        let count = parts.iter().take_while(|part| part.path[depth] == field.number).count();
        let (own, rest) = parts.split_at(count);
        parts = rest;
        match (field.how, &field.kind) {
            (How::Inline, Type::Message(inner)) => {
                let begin = open(field.number, out);
                in_order(inner, depth + 1, own, from, out);
                close(begin, out);
            }
            _ => own.iter().for_each(|part| out.extend_from_slice(&from[part.from..part.to])),
        }
    }
}

/// Reads a name in JSON as a place on the wire.
struct Name(&'static Message);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Place>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Place>;
    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.place(name))
    }
}

/// Writes an object as the fields of a message.
struct Fields<'w> {
    to: &'w mut Writer,
    of: &'static Message,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();
    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.to.message(self.of, fields)
    }
}

/// Writes a value as a field; without `how` as one item of a list, or the value of a map's entry.
struct Put<'w, 'k> {
    to: &'w mut Writer,
    number: u32,
    kind: &'k Type,
    how: Option<How>,
}

impl Put<'_, '_> {
    fn is_many(&self) -> bool {
        matches!(self.how, Some(How::List | How::Map))
    }

    /// Writes a scalar that has a zero.
    fn scalar<E>(self, is_zero: bool, write: impl FnOnce(u32, &mut Vec<u8>)) -> Result<(), E> {
        if !is_zero || self.how != Some(How::One) {
            write(self.number, &mut self.to.out);
        }
        Ok(())
    }

    /// Writes a message of the wire that is one value in JSON.
    fn wrapped<E>(self, fill: impl FnOnce(&mut Writer) -> Result<(), E>) -> Result<(), E> {
        let begin = open(self.number, &mut self.to.out);
        fill(self.to)?;
        close(begin, &mut self.to.out);
        Ok(())
    }

    fn text<E>(self, text: &str) -> Result<(), E> {
        self.wrapped(|to| {
            octets(1, text.as_bytes(), &mut to.out);
            Ok(())
        })
    }

    fn items<'de, A: SeqAccess<'de>>(to: &mut Writer, number: u32, kind: &Type, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Put { to: &mut *to, number, kind, how: None })?.is_some() {}
        Ok(())
    }
}

/// A value that does not fit; where, the path says.
fn misfit<E: serde::de::Error>() -> E {
    E::custom("it does not fit")
}

impl<'de> DeserializeSeed<'de> for Put<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if !matches!(self.kind, Type::Json) || self.is_many() {
            return from.deserialize_any(self);
        }
        let text = <&RawValue>::deserialize(from)?.get();
        if text == "null" && self.how.is_some() { Ok(()) } else { self.text(text) }
    }
}

impl<'de> Visitor<'de> for Put<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a value that fits")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.how.is_some() { Ok(()) } else { Err(misfit()) }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.kind {
            _ if self.is_many() => Err(misfit()),
            Type::Bool => self.scalar(!value, |number, out| varint(number, u64::from(value), out)),
            Type::SchemaOrBool(of) => self.wrapped(|to| {
                let allows = of.place("allows").filter(|_| value);
                allows.into_iter().for_each(|allows| varint(allows.field.number, 1, &mut to.out));
                Ok(())
            }),
            _ => Err(misfit()),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self.kind {
            _ if self.is_many() => Err(misfit()),
            Type::Int32 | Type::Int64 => self.scalar(value == 0, |number, out| varint(number, value as u64, out)),
            // A number is kept as it came; its text means the same.
            Type::Quantity => self.text(&value.to_string()),
            Type::IntOrString => self.wrapped(|to| {
                varint(1, 0, &mut to.out);
                varint(2, value as u64, &mut to.out);
                Ok(())
            }),
            _ => self.visit_f64(value as f64),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            _ if self.is_many() => Err(misfit()),
            Type::Double => self.scalar(value == 0.0, |number, out| {
                tag(number, 1, out);
                out.extend_from_slice(&value.to_le_bytes());
            }),
            Type::Quantity => self.text(&serde_json::Value::from(value).to_string()),
            _ => Err(misfit()),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            _ if self.is_many() => Err(misfit()),
            Type::Text => self.scalar(text.is_empty(), |number, out| octets(number, text.as_bytes(), out)),
            Type::Bytes => {
                let bytes = BASE64_STANDARD.decode(text).map_err(|_| misfit())?;
                self.scalar(bytes.is_empty(), |number, out| octets(number, &bytes, out))
            }
            Type::Quantity => self.text(text),
            Type::Time | Type::MicroTime => {
                let at: jiff::Timestamp = text.parse().map_err(|_| misfit())?;
                let nanoseconds = i64::from(at.subsec_nanosecond()) as u64;
                let nanoseconds = matches!(self.kind, Type::MicroTime).then_some(nanoseconds);
                self.wrapped(|to| {
                    varint(1, at.as_second() as u64, &mut to.out);
                    nanoseconds.into_iter().for_each(|nanoseconds| varint(2, nanoseconds, &mut to.out));
                    Ok(())
                })
            }
            Type::IntOrString => self.wrapped(|to| {
                varint(1, 1, &mut to.out);
                octets(3, text.as_bytes(), &mut to.out);
                Ok(())
            }),
            _ => Err(misfit()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        match (self.how, self.kind) {
            (Some(How::List), kind) => Put::items(self.to, self.number, kind, items),
            (Some(How::Map), _) => Err(misfit()),
            (_, Type::Strings) => self.wrapped(|to| Put::items(to, 1, &Type::Text, items)),
            (_, Type::SchemaOrArray(of) | Type::SchemaOrStrings(of)) => {
                let field = of.place("array").ok_or_else(misfit)?.field;
                self.wrapped(|to| Put::items(to, field.number, &field.kind, items))
            }
            _ => Err(misfit()),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        match (self.how, self.kind) {
            (Some(How::List), _) => Err(misfit()),
            (Some(How::Map), kind) => self.to.map(self.number, kind, fields),
            (_, Type::Message(of)) => self.wrapped(|to| to.message(of, fields)),
            (_, kind @ (Type::SchemaOrArray(of) | Type::SchemaOrBool(of) | Type::SchemaOrStrings(of))) => {
                let number = |name| of.place(name).map(|place| place.field);
                let Some((field, Type::Message(inner))) = number("schema").map(|field| (field.number, &field.kind))
                else {
                    return Err(misfit());
                };
                let allows = number("allows").filter(|_| matches!(kind, Type::SchemaOrBool(_)));
                self.wrapped(|to| {
                    allows.into_iter().for_each(|allows| varint(allows.number, 1, &mut to.out));
                    let begin = open(field, &mut to.out);
                    to.message(inner, fields)?;
                    close(begin, &mut to.out);
                    Ok(())
                })
            }
            _ => Err(misfit()),
        }
    }
}

/// Begins a field that has a length, which is known when it is written: [`close`] puts it behind it and turns it to its front then.
fn open(number: u32, out: &mut Vec<u8>) -> usize {
    tag(number, 2, out);
    out.len()
}

fn close(begin: usize, out: &mut Vec<u8>) {
    let end = out.len();
    put((end - begin) as u64, out);
    let length = out.len() - end;
    out[begin..].rotate_right(length);
}

/// Appends a field of bytes, or of a message.
pub fn octets(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    tag(number, 2, out);
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a field of a number.
pub fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    tag(number, 0, out);
    put(value, out);
}

fn tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    put(u64::from(number) << 3 | u64::from(wire_type), out);
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

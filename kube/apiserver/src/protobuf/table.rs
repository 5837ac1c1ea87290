//! How messages are described: one line of facts per message, so that a new field or kind is one more fact.
//!
//! ```text
//! Message:  number "jsonName" how type, …;
//!                             │   └ string bool int32 int64 double bytes, the special ones below, or a message
//!                             ├ one      a Go value: a scalar's zero on the wire says "not set"
//!                             ├ opt      a Go pointer: on the wire only when set, so its zero is meant
//!                             ├ list     repeated
//!                             ├ map      a map from strings
//!                             └ inline   its fields stand among those of the message around it
//! ```

/// One message.
pub struct Message {
    /// Its fields, by number.
    pub fields: &'static [Field],
}

/// One field of a message.
pub struct Field {
    /// On the wire.
    pub number: u32,
    /// In JSON.
    pub name: &'static str,
    /// How often, and what its zero means.
    pub how: How,
    /// What it carries.
    pub kind: Type,
}

/// How often a field occurs, and what its zero means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Once; a scalar's zero is the same as absence.
    One,
    /// Once or not at all; zero is a value.
    Opt,
    /// Any number of times, in order.
    List,
    /// Entries of key and value.
    Map,
    /// Once, and JSON does not show the nesting.
    Inline,
}

/// What a field carries.
pub enum Type {
    /// UTF-8.
    Text,
    /// Truth.
    Bool,
    /// A signed integer.
    Int32,
    /// A signed integer.
    Int64,
    /// IEEE 754.
    Double,
    /// Octets; base64 in JSON.
    Bytes,
    /// `FieldsV1`, `RawExtension`, `JSON`: a message whose field 1 is JSON text.
    Json,
    /// `Time`: seconds; RFC 3339 in JSON.
    Time,
    /// `MicroTime`: seconds and nanoseconds; RFC 3339 with six decimals in JSON.
    MicroTime,
    /// `Quantity`: a message whose field 1 is its text.
    Quantity,
    /// `IntOrString`.
    IntOrString,
    /// Lists of text that are messages, as values of maps must be (`ExtraValue`).
    Strings,
    /// A schema, or several: whichever is set stands for the whole.
    SchemaOrArray,
    /// A schema, or whether anything is allowed.
    SchemaOrBool,
    /// A schema, or names of properties.
    SchemaOrStrings,
    /// Another message.
    Message(&'static Message),
}

impl Message {
    /// The field of a number; unknown numbers are somebody's newer fields.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.binary_search_by_key(&number, |f| f.number).ok().map(|at| &self.fields[at])
    }
}

/// Describes messages; see the module.
macro_rules! messages {
    ($($message:ident: $($number:literal $name:literal $how:ident $kind:ident),*;)*) => {
        $(
            #[allow(non_upper_case_globals, missing_docs)] // named as the message is
            pub static $message: super::table::Message = super::table::Message { fields: &[$(
                super::table::Field {
                    number: $number,
                    name: $name,
                    how: super::table::how!($how),
                    kind: super::table::kind!($kind),
                },
            )*] };
        )*
        #[cfg(test)]
        pub static ALL: &[(&str, &super::table::Message)] = &[$((stringify!($message), &$message)),*];
    };
}

macro_rules! how {
    (one) => {
        super::table::How::One
    };
    (opt) => {
        super::table::How::Opt
    };
    (list) => {
        super::table::How::List
    };
    (map) => {
        super::table::How::Map
    };
    (inline) => {
        super::table::How::Inline
    };
}

#[rustfmt::skip] // one type per line reads as the table it is
macro_rules! kind {
    (string) => { super::table::Type::Text };
    (bool) => { super::table::Type::Bool };
    (int32) => { super::table::Type::Int32 };
    (int64) => { super::table::Type::Int64 };
    (double) => { super::table::Type::Double };
    (bytes) => { super::table::Type::Bytes };
    (json) => { super::table::Type::Json };
    (time) => { super::table::Type::Time };
    (micro_time) => { super::table::Type::MicroTime };
    (quantity) => { super::table::Type::Quantity };
    (int_or_string) => { super::table::Type::IntOrString };
    (strings) => { super::table::Type::Strings };
    (schema_or_array) => { super::table::Type::SchemaOrArray };
    (schema_or_bool) => { super::table::Type::SchemaOrBool };
    (schema_or_strings) => { super::table::Type::SchemaOrStrings };
    ($message:ident) => { super::table::Type::Message(&$message) };
}

pub(super) use {how, kind, messages};

//! How messages are described: a few facts for each, read from their text (`messages.txt`) when something asks.
//!
//! ```text
//! apps.v1.DeploymentSpec            a message
//!  1 replicas opt int32             a field: number, name in JSON, how, type
//!              │   └ string bool int32 int64 double bytes, the special ones below, or a message: `.` one of the same package
//!              ├ one      a Go value: a scalar's zero on the wire says "not set"
//!              ├ opt      a Go pointer: on the wire only when set, so its zero is meant
//!              ├ list     repeated
//!              ├ map      a map from strings
//!              └ inline   its fields stand among those of the message around it
//! ```

use std::sync::{LazyLock, OnceLock};

use crate::schema::sections;

/// One message.
pub struct Message {
    /// As `core.v1.PodSpec`.
    pub name: &'static str,
    text: &'static str,
    fields: OnceLock<Vec<Field>>,
    places: OnceLock<Vec<Place>>,
    list: OnceLock<Box<Message>>,
}

/// Numbers from a message to a field that JSON shows as its own: those of messages in messages that it does not show, and that of the field.
pub const PATH_MAX: usize = 3;

/// Where a name of JSON stands on the wire.
pub struct Place {
    /// In JSON.
    pub name: &'static str,
    /// The way to it; zeros at its end.
    pub path: [u32; PATH_MAX],
    /// What stands there.
    pub field: &'static Field,
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
    SchemaOrArray(&'static Message),
    /// A schema, or whether anything is allowed.
    SchemaOrBool(&'static Message),
    /// A schema, or names of properties.
    SchemaOrStrings(&'static Message),
    /// Another message.
    Message(&'static Message),
}

static TABLE: LazyLock<Vec<Message>> = LazyLock::new(|| {
    let all = sections(include_str!("messages.txt"));
    all.map(|(name, text)| Message::new(name, text)).collect()
});

/// All messages, in the order of their names.
pub fn messages() -> &'static [Message] {
    &TABLE
}

/// The message of this name, as `core.v1.Pod`.
pub fn named(name: &str) -> Option<&'static Message> {
    let all = messages();
    all.get(all.binary_search_by(|message| message.name.cmp(name)).ok()?)
}

impl Message {
    fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, fields: OnceLock::new(), places: OnceLock::new(), list: OnceLock::new() }
    }

    /// A list of it: `ListMeta` and items.
    pub fn list(&'static self) -> &'static Self {
        self.list.get_or_init(|| {
            let meta = named("meta.v1.ListMeta").map(|meta| (1, "metadata", How::One, meta));
            let fields = meta.into_iter().chain([(2, "items", How::List, self)]);
            let fields = fields.map(|(number, name, how, of)| Field { number, name, how, kind: Type::Message(of) });
            Box::new(Self { fields: OnceLock::from(fields.collect::<Vec<_>>()), ..Self::new(self.name, "") })
        })
    }

    /// Where a name of JSON stands.
    pub fn place(&'static self, name: &str) -> Option<&'static Place> {
        let all = self.places();
        all.get(all.binary_search_by(|place| place.name.cmp(name)).ok()?)
    }

    /// Every name of JSON, in order.
    pub fn places(&'static self) -> &'static [Place] {
        self.places.get_or_init(|| {
            let mut all = Vec::new();
            self.add_places([0; PATH_MAX], 0, &mut all);
            all.sort_unstable_by_key(|place| place.name);
            all
        })
    }

    fn add_places(&'static self, above: [u32; PATH_MAX], depth: usize, all: &mut Vec<Place>) {
        for field in self.fields() {
            let mut path = above;
            let Some(own) = path.get_mut(depth) else { return };
            *own = field.number;
            match (field.how, &field.kind) {
                (How::Inline, Type::Message(inner)) => inner.add_places(path, depth + 1, all),
                _ => all.push(Place { name: field.name, path, field }),
            }
        }
    }

    /// Whether JSON shows fields as its own that are not.
    pub fn is_nested(&'static self) -> bool {
        self.fields().iter().any(|field| field.how == How::Inline)
    }

    /// Its fields, in the order of their numbers.
    pub fn fields(&'static self) -> &'static [Field] {
        self.fields.get_or_init(|| {
            let package = self.name.rsplit_once('.').map_or("", |(package, _)| package);
            self.text.lines().filter_map(|line| Field::read(line, package)).collect()
        })
    }

    /// The field of a number; unknown numbers are somebody's newer fields.
    pub fn field(&'static self, number: u32) -> Option<&'static Field> {
        let fields = self.fields();
        fields.get(fields.binary_search_by_key(&number, |field| field.number).ok()?)
    }
}

impl Field {
    fn read(line: &'static str, package: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let name = words.next()?;
        let how = match words.next()? {
            "one" => How::One,
            "opt" => How::Opt,
            "list" => How::List,
            "map" => How::Map,
            "inline" => How::Inline,
            _ => return None,
        };
        Some(Self { number, name, how, kind: Type::read(words.next()?, package)? })
    }
}

impl Type {
    fn read(text: &str, package: &str) -> Option<Self> {
        Some(match text {
            "string" => Self::Text,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "json" => Self::Json,
            "time" => Self::Time,
            "micro_time" => Self::MicroTime,
            "quantity" => Self::Quantity,
            "int_or_string" => Self::IntOrString,
            "strings" => Self::Strings,
            "schema_or_array" => Self::SchemaOrArray(named("apiextensions.v1.SchemaOrArray")?),
            "schema_or_bool" => Self::SchemaOrBool(named("apiextensions.v1.SchemaOrBool")?),
            "schema_or_strings" => Self::SchemaOrStrings(named("apiextensions.v1.SchemaOrStrings")?),
            own if own.starts_with('.') => Self::Message(named(&format!("{package}{own}"))?),
            other => Self::Message(named(other)?),
        })
    }
}

//! The table of types, read from its text when something asks.
//!
//! ```text
//! core.v1.Container            a type; ` a` after it: a whole, never merged
//!  env [.EnvVar k=name m=name  a field and its shape: `[` list of, `{` map to, `.` type of the same package
//! ```
//!
//! Flags of fields: `k=` keys of a list that is a map, `s` a set, `a` a whole; `m=` patches merge by this key (none: a list of primitives),
//! `r` patches may say which fields stay; `!` always written; `d=` the default, as JSON.

use std::sync::{LazyLock, OnceLock};

/// What one value may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Int32,
    Int64,
    Float,
    Bool,
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Base64.
    Bytes,
    Any,
    Object(&'static Type),
    List(Box<Shape>),
    Map(Box<Shape>),
    /// An object of this type, several of them, or something else altogether (`JSONSchemaPropsOrBool` …).
    Or(&'static Type),
}

/// Which items of a list are the same.
#[derive(Debug, PartialEq, Eq)]
pub enum List {
    /// None: the list is one whole.
    Whole,
    /// Equal ones.
    Set,
    /// Those with the same value of this field.
    Keyed(&'static str),
}

/// A field of a type.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// How strategic merge patches merge it.
    pub patch: List,
    /// Whether it is written even when it is empty.
    pub required: bool,
    /// The keys of a list that is a map, as `containerPort,protocol`; else empty.
    pub keys: &'static str,
    /// Whether it is a list of which appliers share the items.
    pub set: bool,
    /// Whether appliers do not share it.
    pub whole: bool,
    /// What stands for it when it is a key that nobody gives, as JSON.
    pub default: Option<&'static str>,
}

/// A type.
pub struct Type {
    /// As `core.v1.Pod`.
    pub name: &'static str,
    /// Whether appliers do not share what is in it.
    pub whole: bool,
    text: &'static str,
    fields: OnceLock<Vec<Field>>,
}

static TABLE: LazyLock<Vec<Type>> = LazyLock::new(|| {
    let mut all: Vec<Type> =
        [include_str!("types.txt"), include_str!("by_hand.txt")].into_iter().flat_map(read).collect();
    all.sort_by_key(|of| of.name);
    all
});

fn read(text: &'static str) -> impl Iterator<Item = Type> {
    sections(text).map(|(head, text)| {
        let (name, flags) = head.split_once(' ').unwrap_or((head, ""));
        Type { name, whole: flags == "a", text, fields: OnceLock::new() }
    })
}

/// The parts of a table: a line that begins with a letter, and those up to the next one.
pub fn sections(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    starts.retain(|at| text[*at..].starts_with(|c: char| c.is_ascii_lowercase()));
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| text[start..end].split_once('\n').unwrap_or_default())
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name) // types hold each other
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Type {}

/// All types, in the order of their names.
pub fn types() -> &'static [Type] {
    &TABLE
}

/// The type of this name, as `core.v1.Pod`.
pub fn type_named(name: &str) -> Option<&'static Type> {
    let types = types();
    types.get(types.binary_search_by(|of| of.name.cmp(name)).ok()?)
}

/// What the type and the message of a built-in kind are named: packages by the first label of their group.
pub fn name_of(group: &str, version: &str, kind: &str) -> String {
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    format!("{package}.{version}.{kind}")
}

/// The type of a built-in kind.
pub fn lookup(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    type_named(&name_of(group, version, kind))
}

impl Type {
    /// Its fields, in the order of their names.
    pub fn fields(&'static self) -> &'static [Field] {
        self.fields.get_or_init(|| {
            self.text.lines().filter_map(|line| Field::read(line.trim_start(), self.package())).collect()
        })
    }

    /// The field of this name.
    pub fn field(&'static self, name: &str) -> Option<&'static Field> {
        let fields = self.fields();
        fields.get(fields.binary_search_by(|field| field.name.cmp(name)).ok()?)
    }

    /// As `core.v1`.
    pub fn package(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(package, _)| package)
    }

    /// As `Pod`.
    pub fn short(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }
}

impl Field {
    fn read(line: &'static str, package: &'static str) -> Option<Self> {
        let (name, rest) = line.split_once(' ')?;
        let (shape, flags) = rest.split_once(' ').unwrap_or((rest, ""));
        // The default is the last one, because it may hold spaces.
        let (flags, default) = flags.split_once("d=").map_or((flags, None), |(before, text)| (before, Some(text)));
        let mut field = Self {
            name,
            shape: Shape::read(shape, package)?,
            patch: List::Whole,
            required: false,
            keys: "",
            set: false,
            whole: false,
            default,
        };
        for flag in flags.split_whitespace() {
            match flag.split_once('=') {
                Some(("m", "")) => field.patch = List::Set,
                Some(("m", key)) => field.patch = List::Keyed(key),
                Some(("k", keys)) => field.keys = keys,
                _ if flag == "!" => field.required = true,
                _ if flag == "s" => field.set = true,
                _ if flag == "a" => field.whole = true,
                _ => {} // what patches may say stays
            }
        }
        Some(field)
    }
}

impl Shape {
    fn read(text: &'static str, package: &'static str) -> Option<Self> {
        let named = |name: &str| match name.starts_with('.') {
            true => type_named(&format!("{package}{name}")),
            false => type_named(name),
        };
        if let Some(of) = text.strip_prefix('[') {
            return Some(Self::List(Box::new(Self::read(of, package)?)));
        }
        if let Some(of) = text.strip_prefix('{') {
            return Some(Self::Map(Box::new(Self::read(of, package)?)));
        }
        if let Some(of) = text.strip_prefix('?') {
            return named(of).map(Self::Or);
        }
        Some(match text {
            "str" => Self::Text,
            "i32" => Self::Int32,
            "i64" => Self::Int64,
            "f64" => Self::Float,
            "bool" => Self::Bool,
            "quantity" => Self::Quantity,
            "intorstr" => Self::IntOrString,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "bytes" => Self::Bytes,
            "any" => Self::Any,
            name => return named(name).map(Self::Object),
        })
    }

    /// As Go names it in its words about wrong values.
    pub fn go(&self) -> String {
        match self {
            Self::Text | Self::Bytes => "string".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Float => "float64".into(),
            Self::Bool => "bool".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::IntOrString => "intstr.IntOrString".into(),
            Self::Time => "v1.Time".into(),
            Self::MicroTime => "v1.MicroTime".into(),
            Self::Any => "runtime.RawExtension".into(),
            Self::Object(of) | Self::Or(of) => of.name.split_once('.').map_or(of.name, |(_, name)| name).into(),
            Self::List(of) => format!("[]{}", of.go()),
            Self::Map(of) => format!("map[string]{}", of.go()),
        }
    }
}

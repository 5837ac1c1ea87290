//! An object held against its type: what it does not know goes, what is wrong is said as Go's decoder says it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use substrate_client::quantity::Quantity;

use super::table::{Shape, Type};

/// Unknown fields that are told; more would not help the reader.
const TOLD_MAX: usize = 16;
/// Nesting that is followed. Schemas of definitions are the only types that hold themselves.
const DEPTH_MAX: usize = 128;

/// Reads `object` as one of type `of`: the object without unknown fields and nulls, and the paths of what was unknown.
///
/// # Errors
/// A value of the wrong shape, in the words of upstream's decoder.
pub fn decode(of: &'static Type, mut object: Value) -> Result<(Value, Vec<String>), String> {
    let mut walk = Walk { unknown: Vec::new() };
    walk.object(of, &mut object, &At { up: None, step: Step::Root(of) }, 0)?;
    walk.unknown.sort(); // told in this order, whatever the order in which they were written
    Ok((object, walk.unknown))
}

/// Where in the object we are; the way up is on the stack, and nothing is written down until it is asked for.
struct At<'a> {
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root(&'static Type),
    Field(&'static Type, &'a str),
    Key(&'a str),
    Item(usize),
}

impl<'a> At<'a> {
    fn down(&'a self, step: Step<'a>) -> At<'a> {
        At { up: Some(self), step }
    }

    /// As `spec.containers[0].name`.
    fn path(&self) -> String {
        let mut path = self.up.map(At::path).unwrap_or_default();
        match self.step {
            Step::Root(_) => {}
            Step::Field(_, name) | Step::Key(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Item(i) => path.push_str(&format!("[{i}]")),
        }
        path
    }

    /// As Go has it: the names of fields alone.
    fn fields(&self) -> String {
        let mut path = self.up.map(At::fields).unwrap_or_default();
        if let Step::Field(_, name) = self.step {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
        path
    }

    /// The type that the nearest field belongs to.
    fn owner(&self) -> &'static Type {
        match (&self.step, self.up) {
            (Step::Root(of) | Step::Field(of, _), _) => of,
            (_, Some(up)) => up.owner(),
            // Cannot happen: every way begins at a root. The first type of the table is as good as any.
            (_, None) => &super::table::types()[0],
        }
    }
}

struct Walk {
    unknown: Vec<String>,
}

impl Walk {
    fn object(&mut self, of: &'static Type, value: &mut Value, at: &At<'_>, depth: usize) -> Result<(), String> {
        let Value::Object(map) = value else { return Err(wrong(value, &Shape::Object(of), at)) };
        if depth > DEPTH_MAX {
            return Err(format!("{}: is nested deeper than {DEPTH_MAX}", at.path()));
        }
        let mut error = None;
        map.retain(|name, value| {
            if error.is_some() {
                return true;
            }
            let Some(field) = of.field(name) else {
                if !value.is_null() && self.unknown.len() < TOLD_MAX {
                    self.unknown.push(at.down(Step::Key(name)).path());
                }
                return false;
            };
            if value.is_null() {
                return false; // says nothing
            }
            if let Err(why) = self.value(&field.shape, value, &at.down(Step::Field(of, name)), depth + 1) {
                error = Some(why);
            }
            true
        });
        // What was not said stays unsaid, or no rule could find it missing.
        error.map_or(Ok(()), Err)
    }

    fn value(&mut self, shape: &Shape, value: &mut Value, at: &At<'_>, depth: usize) -> Result<(), String> {
        match (shape, &mut *value) {
            (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) | (Shape::Any, _) => Ok(()),
            (Shape::Object(of), _) => self.object(of, value, at, depth),
            (Shape::Or(of), Value::Object(_)) => self.object(of, value, at, depth),
            (Shape::Or(_), Value::Array(items)) => {
                let mut items = items.iter_mut().enumerate();
                items.try_for_each(|(i, item)| self.value(shape, item, &at.down(Step::Item(i)), depth + 1))
            }
            (Shape::Or(_), _) => Ok(()),
            (Shape::List(of), Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.inner(of, item, &at.down(Step::Item(i)), depth + 1)?;
                }
                Ok(())
            }
            (Shape::Map(of), Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    self.inner(of, item, &at.down(Step::Key(key)), depth + 1)?;
                }
                Ok(())
            }
            (Shape::Int32 | Shape::Int64 | Shape::Float, Value::Number(number)) => match whole(shape, number) {
                true => Ok(()),
                false => Err(wrong(value, shape, at)),
            },
            (Shape::IntOrString, _) => int_or_string(value),
            (Shape::Quantity, _) => quantity(value),
            (Shape::Time | Shape::MicroTime, _) => time(shape, value),
            (Shape::Bytes, Value::String(text)) => match BASE64_STANDARD.decode(&*text) {
                Ok(_) => Ok(()),
                Err(_) => bytes(text),
            },
            _ => Err(wrong(value, shape, at)),
        }
    }

    /// An item or an entry: there a null stands for what is empty.
    fn inner(&mut self, shape: &Shape, value: &mut Value, at: &At<'_>, depth: usize) -> Result<(), String> {
        if value.is_null()
            && let Some(empty) = empty(shape)
        {
            *value = empty;
        }
        self.value(shape, value, at, depth)
    }
}

/// What stands for nothing in a field that is always written.
fn empty(shape: &Shape) -> Option<Value> {
    Some(match shape {
        Shape::Text | Shape::Bytes => "".into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
        Shape::Float => 0.0.into(),
        Shape::Bool => false.into(),
        Shape::Quantity => "0".into(),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Map(_) => Value::Object(Map::new()),
        Shape::Object(of) => {
            let required = of.fields().iter().filter(|field| field.required);
            Value::Object(required.filter_map(|f| Some((f.name.to_owned(), empty(&f.shape)?))).collect())
        }
        Shape::Time | Shape::MicroTime | Shape::Any | Shape::Or(_) => return None,
    })
}

fn whole(shape: &Shape, number: &Number) -> bool {
    match shape {
        Shape::Int32 => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Shape::Int64 => number.as_i64().is_some(),
        _ => true,
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn wrong(value: &Value, shape: &Shape, at: &At<'_>) -> String {
    let number = matches!(shape, Shape::Int32 | Shape::Int64 | Shape::Float);
    let word = if value.is_number() && !number { "number".into() } else { word(value) };
    let path = at.fields();
    if path.is_empty() {
        return format!("json: cannot unmarshal {word} into Go value of type {}", shape.go());
    }
    format!("json: cannot unmarshal {word} into Go struct field {}.{path} of type {}", at.owner().short(), shape.go())
}

fn int_or_string(value: &Value) -> Result<(), String> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) if whole(&Shape::Int32, number) => Ok(()),
        _ => Err(format!("json: cannot unmarshal {} into Go value of type int32", word(value))),
    }
}

/// A quantity keeps the words in which it was given; a number is taken as its text.
fn quantity(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            return text.parse::<Quantity>().map(|_| ()).map_err(|_| UNREADABLE.to_owned());
        }
        _ => return Err(UNREADABLE.into()),
    };
    text.parse::<Quantity>().map_err(|_| UNREADABLE.to_owned())?;
    *value = text.into();
    Ok(())
}

const UNREADABLE: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Times are kept in UTC and in the precision of their shape.
fn time(shape: &Shape, value: &mut Value) -> Result<(), String> {
    let Value::String(text) = &*value else {
        return Err(format!("json: cannot unmarshal {} into Go value of type string", word(value)));
    };
    let format = if *shape == Shape::Time { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
    let read: Timestamp =
        text.parse().map_err(|_| format!("parsing time {text:?} as {format:?}: cannot parse {text:?} as \"2006\""))?;
    let written = match shape {
        Shape::Time => read.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => read.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    };
    if *text != written {
        *value = written.into();
    }
    Ok(())
}

/// Go passes over line ends in base64; what is kept has none.
fn bytes(text: &mut String) -> Result<(), String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match BASE64_STANDARD.decode(&joined) {
        Ok(_) => {
            *text = joined;
            Ok(())
        }
        Err(error) => Err(match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
                format!("illegal base64 data at input byte {at}")
            }
            _ => format!("illegal base64 data at input byte {}", joined.len()),
        }),
    }
}

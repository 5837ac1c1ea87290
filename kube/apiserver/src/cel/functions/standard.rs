//! Conversions, sizes, and values that may be absent.

use super::super::evaluate::no_overload;
use super::super::fail;
use super::super::value::{TYPES, Value};
use super::{Row, some, time};

pub(super) const TABLE: &[Row] = &[
    ("size", 1, 1, |_, a| size(&a[0])),
    (".size", 0, 0, |_, a| size(&a[0])),
    ("dyn", 1, 1, |_, a| Ok(a[0].clone())),
    ("type", 1, 1, |_, a| {
        let name = a[0].type_name();
        Ok(Value::Type(TYPES.iter().find(|known| **known == name).copied().unwrap_or(name)))
    }),
    ("bool", 1, 1, |_, a| match &a[0] {
        Value::Bool(truth) => Ok(Value::Bool(*truth)),
        Value::Text(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => fail("type conversion error from 'string' to 'bool'"),
        },
        _ => no_overload(),
    }),
    ("int", 1, 1, |_, a| {
        let whole = match &a[0] {
            Value::Int(whole) => Some(*whole),
            Value::UInt(whole) => i64::try_from(*whole).ok(),
            Value::Double(fraction) if fraction.abs() < 9.2e18 => Some(*fraction as i64),
            Value::Double(_) => None,
            Value::Text(text) => text.parse().ok(),
            Value::Time(at) => Some(at.as_second()),
            _ => return no_overload(),
        };
        whole.map_or_else(
            || fail(format!("type conversion error from '{}' to 'int'", a[0].type_name())),
            |n| Ok(Value::Int(n)),
        )
    }),
    ("uint", 1, 1, |_, a| {
        let whole = match &a[0] {
            Value::UInt(whole) => Some(*whole),
            Value::Int(whole) => u64::try_from(*whole).ok(),
            Value::Double(fraction) if (0.0..1.8e19).contains(fraction) => Some(*fraction as u64),
            Value::Double(_) => None,
            Value::Text(text) => text.parse().ok(),
            _ => return no_overload(),
        };
        whole.map_or_else(
            || fail(format!("type conversion error from '{}' to 'uint'", a[0].type_name())),
            |n| Ok(Value::UInt(n)),
        )
    }),
    ("double", 1, 1, |_, a| match &a[0] {
        Value::Double(fraction) => Ok(Value::Double(*fraction)),
        Value::Int(whole) => Ok(Value::Double(*whole as f64)),
        Value::UInt(whole) => Ok(Value::Double(*whole as f64)),
        Value::Text(text) => match text.parse() {
            Ok(fraction) => Ok(Value::Double(fraction)),
            Err(_) => fail("type conversion error from 'string' to 'double'"),
        },
        _ => no_overload(),
    }),
    ("string", 1, 1, |_, a| match &a[0] {
        Value::Text(_) => Ok(a[0].clone()),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Double(_) => Ok(Value::text(super::shown(&a[0]))),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Time(at) => Ok(Value::text(at.to_string())),
        Value::Duration(length) => Ok(Value::text(time::seconds(*length))),
        Value::Url(url) => Ok(Value::text(url.as_str())),
        Value::Ip(ip) => Ok(Value::text(ip.to_string())),
        Value::Cidr(ip, bits) => Ok(Value::text(format!("{ip}/{bits}"))),
        _ => no_overload(),
    }),
    ("bytes", 1, 1, |_, a| match &a[0] {
        Value::Bytes(_) => Ok(a[0].clone()),
        Value::Text(text) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => no_overload(),
    }),
    ("optional.of", 1, 1, |_, a| Ok(some(a[0].clone()))),
    ("optional.none", 0, 0, |_, _| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue", 1, 1, |_, a| {
        Ok(if is_zero(&a[0]) { Value::Optional(None) } else { some(a[0].clone()) })
    }),
    (".hasValue", 0, 0, |_, a| match &a[0] {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => no_overload(),
    }),
    (".value", 0, 0, |_, a| match &a[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => fail("optional.none() dereference"),
        _ => no_overload(),
    }),
    (".orValue", 1, 1, |_, a| match &a[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Ok(a[1].clone()),
        _ => no_overload(),
    }),
    (".or", 1, 1, |_, a| match (&a[0], &a[1]) {
        (Value::Optional(Some(_)), Value::Optional(_)) => Ok(a[0].clone()),
        (Value::Optional(None), Value::Optional(_)) => Ok(a[1].clone()),
        _ => no_overload(),
    }),
];

fn size<'a>(of: &Value<'a>) -> super::Answer<'a> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        other => match (other.items(), other.fields()) {
            (Some(items), _) => items.len(),
            (None, Some(fields)) => fields.len(),
            (None, None) => return no_overload(),
        },
    };
    Ok(Value::Int(size as i64))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Int(whole) => *whole == 0,
        Value::UInt(whole) => *whole == 0,
        Value::Double(fraction) => *fraction == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        other => {
            other.items().is_some_and(|items| items.len() == 0)
                || other.fields().is_some_and(|fields| fields.len() == 0)
        }
    }
}

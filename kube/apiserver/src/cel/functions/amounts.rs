//! Quantities of resources.

use substrate_client::quantity::Quantity;

use super::super::evaluate::no_overload;
use super::super::fail;
use super::super::value::Value;
use super::{Answer, Row};

pub(super) const TABLE: &[Row] = &[
    ("quantity", 1, 1, |_, a| match &a[0] {
        Value::Text(text) => match text.parse::<Quantity>() {
            Ok(amount) => Ok(Value::Quantity(amount)),
            Err(why) => fail(why.to_string()),
        },
        _ => no_overload(),
    }),
    ("isQuantity", 1, 1, |_, a| match &a[0] {
        Value::Text(text) => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        _ => no_overload(),
    }),
    (".sign", 0, 0, |_, a| of(a, |amount| Ok(Value::Int(amount.nano_value().signum() as i64)))),
    (".isInteger", 0, 0, |_, a| of(a, |amount| Ok(Value::Bool(amount.nano_value() % 1_000_000_000 == 0)))),
    (".asInteger", 0, 0, |_, a| {
        of(a, |amount| match amount.nano_value() % 1_000_000_000 {
            0 => Ok(Value::Int(amount.value())),
            _ => fail("cannot convert value to integer"),
        })
    }),
    (".asApproximateFloat", 0, 0, |_, a| of(a, |amount| Ok(Value::Double(amount.as_f64())))),
    (".add", 1, 1, |_, a| both(a, |a, b| Value::Quantity(a + b))),
    (".sub", 1, 1, |_, a| both(a, |a, b| Value::Quantity(a - b))),
    (".isGreaterThan", 1, 1, |_, a| both(a, |a, b| Value::Bool(a.nano_value() > b.nano_value()))),
    (".isLessThan", 1, 1, |_, a| both(a, |a, b| Value::Bool(a.nano_value() < b.nano_value()))),
    (".compareTo", 1, 1, |_, a| both(a, |a, b| Value::Int(a.nano_value().cmp(&b.nano_value()) as i64))),
];

fn of<'a>(a: &[Value<'a>], make: impl Fn(Quantity) -> Answer<'a>) -> Answer<'a> {
    match a {
        [Value::Quantity(amount)] => make(*amount),
        _ => no_overload(),
    }
}

fn both<'a>(a: &[Value<'a>], make: impl Fn(Quantity, Quantity) -> Value<'a>) -> Answer<'a> {
    match a {
        [Value::Quantity(first), Value::Quantity(second)] => Ok(make(*first, *second)),
        [Value::Quantity(first), Value::Int(second)] => Ok(make(*first, Quantity::whole(*second))),
        _ => no_overload(),
    }
}

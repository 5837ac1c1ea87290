//! The functions that expressions may call: those of CEL and those that Kubernetes adds, in one table. What is not in it is
//! refused by its name before anything runs.
//!
//! A key that begins with a dot is called on a value (`x.size()`), one with a dot in it in a room (`sets.contains(a, b)`).

mod amounts;
mod collections;
mod formats;
mod net;
pub mod rights;
mod standard;
mod text;
pub mod time;

use std::collections::HashMap;
use std::sync::LazyLock;

use cel::common::ast::{CallExpr, Expr};
use cel::parser::Expression;

use super::evaluate::{Run, no_overload, operate};
use super::value::Value;
use super::{Fail, fail};

/// What functions return.
type Answer<'a> = Result<Value<'a>, Fail>;
/// A function; the value on which it is called is its first argument.
type Function = for<'a, 'b, 'c> fn(&'b mut Run<'a, 'c>, &'b [Value<'a>]) -> Answer<'a>;
/// Key, least and most arguments (without the value on which it is called), function.
type Row = (&'static str, usize, usize, Function);

static TABLE: LazyLock<HashMap<&'static str, (usize, usize, Function)>> = LazyLock::new(|| {
    let rooms = [
        standard::TABLE,
        text::TABLE,
        collections::TABLE,
        amounts::TABLE,
        net::TABLE,
        formats::TABLE,
        rights::TABLE,
        time::TABLE,
    ];
    rooms.iter().flat_map(|rows| rows.iter()).map(|(key, least, most, of)| (*key, (*least, *most, *of))).collect()
});

/// Names before a dot that are no values.
const SPACES: [&str; 5] = ["sets", "optional", "format", "strings", "ip"];

/// The room in which a function is called.
pub fn space(call: &CallExpr) -> Option<&str> {
    match &call.target.as_ref()?.expr {
        Expr::Ident(name) if SPACES.contains(&name.as_str()) => Some(name),
        _ => None,
    }
}

/// The names that a call gives to what it passes on, and what is computed with them.
pub fn binding(call: &CallExpr) -> Option<(Vec<&str>, &[Expression])> {
    call.target.as_ref()?;
    let names = match (call.func_name.as_str(), call.args.len()) {
        ("optMap" | "optFlatMap", 2) => 1,
        ("all" | "exists" | "existsOne" | "exists_one", 3) => 2,
        _ => return None,
    };
    let (first, body) = call.args.split_at(names);
    let name = |at: &'_ Expression| matches!(&at.expr, Expr::Ident(_));
    if !first.iter().all(name) {
        return None;
    }
    let names = first.iter().filter_map(|at| match &at.expr {
        Expr::Ident(name) => Some(name.as_str()),
        _ => None,
    });
    Some((names.collect(), body))
}

fn key(call: &CallExpr) -> String {
    match (space(call), &call.target) {
        (Some(space), _) => format!("{space}.{}", call.func_name),
        (None, Some(_)) => format!(".{}", call.func_name),
        (None, None) => call.func_name.clone(),
    }
}

fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '@', '!', '-'])
}

/// That a function is known, with so many arguments.
pub fn check(call: &CallExpr) -> Result<(), String> {
    if is_operator(&call.func_name) && call.target.is_none() {
        return Ok(());
    }
    match TABLE.get(key(call).as_str()) {
        Some((least, most, _)) if (*least..=*most).contains(&call.args.len()) => Ok(()),
        Some(_) => {
            Err(format!("found no matching overload for '{}' applied to {} arguments", call.func_name, call.args.len()))
        }
        None => Err(format!("undeclared reference to '{}' (in container '')", key(call).trim_start_matches('.'))),
    }
}

/// Calls an operator or a function.
pub fn call<'a>(run: &mut Run<'a, '_>, call: &CallExpr, arguments: &[Value<'a>]) -> Answer<'a> {
    match (call.func_name.as_str(), arguments) {
        ("!_", [Value::Bool(truth)]) => Ok(Value::Bool(!truth)),
        ("-_", [Value::Int(whole)]) => {
            whole.checked_neg().map_or_else(|| fail("integer overflow"), |n| Ok(Value::Int(n)))
        }
        ("-_", [Value::Double(fraction)]) => Ok(Value::Double(-fraction)),
        ("-_", [Value::Duration(length)]) => Ok(Value::Duration(-*length)),
        ("@in", [item, range]) => collections::contains(run, range, item),
        (name, [left, right]) if name.starts_with('_') => operate(run, name, left, right),
        (name, _) if is_operator(name) => no_overload(),
        _ => match TABLE.get(key(call).as_str()) {
            Some((_, _, function)) => {
                let weight =
                    arguments.iter().map(|argument| if argument.items().is_some() { 1 } else { shallow(argument) });
                run.budget.spend(weight.sum())?;
                function(run, arguments)
            }
            None => no_overload(),
        },
    }
}

/// What passing over a value's own bytes costs.
fn shallow(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(_) | Value::Bytes(_) => value.weight(),
        _ => 1,
    }
}

/// A value as it stands in messages.
pub fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Int(whole) => whole.to_string(),
        Value::UInt(whole) => whole.to_string(),
        Value::Double(fraction) => fraction.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => other.type_name().to_owned(),
    }
}

fn some(value: Value<'_>) -> Value<'_> {
    Value::Optional(Some(std::sync::Arc::new(value)))
}

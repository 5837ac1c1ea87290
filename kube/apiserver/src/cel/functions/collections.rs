//! Lists and sets.

use super::super::evaluate::{Run, no_overload, operate};
use super::super::fail;
use super::super::value::{Items, Value};
use super::{Answer, Row};

pub(super) const TABLE: &[Row] = &[
    (".isSorted", 0, 0, |run, a| {
        let items = list(a, 0)?;
        run.budget.spend(a[0].weight())?;
        for i in 1..items.len() {
            let (Some(before), Some(after)) = (items.get(i - 1), items.get(i)) else { break };
            match before.compare(&after) {
                Some(order) if order.is_gt() => return Ok(Value::Bool(false)),
                Some(_) => {}
                None => return no_overload(),
            }
        }
        Ok(Value::Bool(true))
    }),
    (".sum", 0, 0, |run, a| {
        let mut items = list(a, 0)?.iter().collect::<Vec<_>>().into_iter();
        let Some(mut sum) = items.next() else { return Ok(Value::Int(0)) };
        for item in items {
            run.budget.spend(1)?;
            sum = operate(run, "_+_", &sum, &item)?;
        }
        Ok(sum)
    }),
    (".min", 0, 0, |run, a| extreme(run, a, "min")),
    (".max", 0, 0, |run, a| extreme(run, a, "max")),
    (".indexOf", 1, 2, |run, a| place(run, a, false)),
    (".lastIndexOf", 1, 2, |run, a| place(run, a, true)),
    ("sets.contains", 2, 2, |run, a| {
        for item in list(a, 1)?.iter() {
            if let Value::Bool(false) = contains(run, &a[0], &item)? {
                return Ok(Value::Bool(false));
            }
        }
        Ok(Value::Bool(true))
    }),
    ("sets.intersects", 2, 2, |run, a| {
        for item in list(a, 1)?.iter() {
            if let Value::Bool(true) = contains(run, &a[0], &item)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    ("sets.equivalent", 2, 2, |run, a| {
        for (of, within) in [(0, 1), (1, 0)] {
            for item in list(a, of)?.iter() {
                if let Value::Bool(false) = contains(run, &a[within], &item)? {
                    return Ok(Value::Bool(false));
                }
            }
        }
        Ok(Value::Bool(true))
    }),
];

fn list<'a>(a: &[Value<'a>], which: usize) -> Result<Items<'a>, super::Fail> {
    a.get(which).and_then(Value::items).map_or_else(no_overload, Ok)
}

/// Whether something is an item of a list or a key of a map.
pub(super) fn contains<'a>(run: &mut Run<'a, '_>, range: &Value<'a>, item: &Value<'a>) -> Answer<'a> {
    if let Some(fields) = range.fields() {
        run.budget.spend(item.weight() + if let Value::Map(own) = range { own.len() as u64 } else { 1 })?;
        return Ok(Value::Bool(fields.get(item).is_some()));
    }
    let Some(items) = range.items() else { return no_overload() };
    for other in items.iter() {
        run.budget.spend(item.weight().min(other.weight()))?;
        if other.equals(item) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn extreme<'a>(run: &mut Run<'a, '_>, a: &[Value<'a>], which: &str) -> Answer<'a> {
    let items = list(a, 0)?;
    run.budget.spend(a[0].weight())?;
    let mut best: Option<Value<'a>> = None;
    for item in items.iter() {
        let Some(so_far) = &best else {
            best = Some(item);
            continue;
        };
        match item.compare(so_far) {
            Some(order) if (which == "min" && order.is_lt()) || (which == "max" && order.is_gt()) => best = Some(item),
            Some(_) => {}
            None => return no_overload(),
        }
    }
    best.map_or_else(|| fail(format!("{which} called on empty list")), Ok)
}

/// Where something is in a list or a text; -1 if nowhere.
fn place<'a>(run: &mut Run<'a, '_>, a: &[Value<'a>], last: bool) -> Answer<'a> {
    if let [Value::Text(text), Value::Text(part), ..] = a {
        let length = text.chars().count();
        let from = match a.get(2) {
            None => {
                if last {
                    length as i64
                } else {
                    0
                }
            }
            Some(Value::Int(from)) => *from,
            Some(_) => return no_overload(),
        };
        if from < 0 || from as usize > length {
            return fail(format!("index out of range: {from}"));
        }
        let byte = text.char_indices().nth(from as usize).map_or(text.len(), |(byte, _)| byte);
        let found = match last {
            true => text.get(..(byte + part.len()).min(text.len())).unwrap_or(text).rfind(&**part),
            false => text[byte..].find(&**part).map(|at| at + byte),
        };
        return Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)));
    }
    let [range, item] = a else { return no_overload() };
    let Some(items) = range.items() else { return no_overload() };
    run.budget.spend(range.weight())?;
    let mut found = -1;
    for (i, other) in items.iter().enumerate() {
        if other.equals(item) {
            found = i as i64;
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

//! Evaluation: one step for each node of the tree, each of them paid.

use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};
use cel::parser::Expression;

use super::functions::{self, time};
use super::value::{Str, TYPES, Value};
use super::{Budget, Fail, Program, fail};

/// One evaluation.
pub struct Run<'a, 'b> {
    pub program: &'a Program,
    /// What names mean, the innermost last.
    pub names: Vec<(&'a str, Value<'a>)>,
    pub budget: &'b mut Budget,
}

type Answer<'a> = Result<Value<'a>, Fail>;

pub fn no_overload<T>() -> Result<T, Fail> {
    fail("no such overload")
}

impl<'a> Run<'a, '_> {
    /// The value of an expression.
    pub fn value(&mut self, at: &'a Expression) -> Answer<'a> {
        self.budget.spend(1)?;
        match &at.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.named(name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (i, element) in list.elements.iter().enumerate() {
                    let value = self.value(element)?;
                    match value {
                        Value::Optional(inner) if list.optional_indices.contains(&i) => {
                            items.extend(inner.map(|inner| (*inner).clone()));
                        }
                        value => items.push(value),
                    }
                }
                Ok(Value::list(items))
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Struct(_) | Expr::Unspecified => fail("the expression is none"),
        }
    }

    fn named(&self, name: &str) -> Answer<'a> {
        if let Some((_, value)) = self.names.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match TYPES.iter().find(|known| **known == name) {
            Some(known) => Ok(Value::Type(known)),
            None => fail(format!("no such attribute(s): {name}")),
        }
    }

    fn map(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Answer<'a> {
        let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::new();
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { return fail("messages cannot be made") };
            let key = self.value(&entry.key)?;
            if !matches!(key, Value::Text(_) | Value::Int(_) | Value::UInt(_) | Value::Bool(_)) {
                return fail("unsupported key type");
            }
            self.budget.spend(made.len() as u64)?;
            if made.iter().any(|(known, _)| known.equals(&key)) {
                return fail("Failed with repeated key");
            }
            match self.value(&entry.value)? {
                Value::Optional(inner) if entry.optional => {
                    made.extend(inner.map(|inner| (key, (*inner).clone())));
                }
                value => made.push((key, value)),
            }
        }
        Ok(Value::Map(Arc::new(made)))
    }

    fn select(&mut self, select: &'a SelectExpr) -> Answer<'a> {
        let operand = self.value(&select.operand)?;
        let key = Value::Text(Str::Lent(select.field.as_str()));
        if select.test {
            let found = match operand {
                Value::Optional(None) => None,
                Value::Optional(Some(inner)) => lookup(&inner, &key)?,
                other => lookup(&other, &key)?,
            };
            return Ok(Value::Bool(found.is_some()));
        }
        self.at(operand, &key)
    }

    /// The value of a key or index; of an optional, an optional.
    fn at(&mut self, operand: Value<'a>, key: &Value<'a>) -> Answer<'a> {
        if let Value::Optional(inner) = operand {
            let found = match inner {
                Some(inner) => lookup(&inner, key)?,
                None => None,
            };
            return Ok(Value::Optional(found.map(Arc::new)));
        }
        if let Value::Map(entries) = &operand {
            self.budget.spend(entries.len() as u64 / 4)?;
        }
        match lookup(&operand, key)? {
            Some(Value::Failed(why)) => fail(&*why),
            Some(value) => Ok(value),
            None => fail(match key {
                Value::Text(name) => format!("no such key: {}", &**name),
                other => format!("index out of bounds: {}", functions::shown(other)),
            }),
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Answer<'a> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("_&&_", [left, right]) => return self.either(left, right, false),
            ("_||_", [left, right]) => return self.either(left, right, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => no_overload(),
                };
            }
            ("@not_strictly_false", [of]) => {
                return match self.value(of) {
                    Err(Fail::Over) => Err(Fail::Over),
                    other => Ok(Value::Bool(!matches!(other, Ok(Value::Bool(false))))),
                };
            }
            _ => {}
        }
        if let Some((binds, body)) = functions::binding(call) {
            let Some(target) = &call.target else { return no_overload() };
            let target = self.value(target)?;
            return self.bound(call.func_name.as_str(), target, &binds, body);
        }
        let space = functions::space(call);
        let mut arguments = Vec::with_capacity(call.args.len() + 1);
        if let Some(target) = call.target.as_ref().filter(|_| space.is_none()) {
            arguments.push(self.value(target)?);
        }
        for argument in &call.args {
            arguments.push(self.value(argument)?);
        }
        match (call.func_name.as_str(), arguments.as_slice()) {
            ("_[_]", [operand, key]) => return self.at(operand.clone(), key),
            ("_[?_]" | "_?._", [operand, key]) => {
                let operand = match operand {
                    Value::Optional(_) => operand.clone(),
                    other => Value::Optional(Some(Arc::new(other.clone()))),
                };
                return self.at(operand, key);
            }
            _ => {}
        }
        functions::call(self, call, &arguments)
    }

    /// `&&` (of which one `false` is enough) and `||` (one `true`): an error on one side does not matter then.
    fn either(&mut self, left: &'a Expression, right: &'a Expression, enough: bool) -> Answer<'a> {
        let mut failed = None;
        for side in [left, right] {
            match self.value(side) {
                Ok(Value::Bool(truth)) if truth == enough => return Ok(Value::Bool(enough)),
                Ok(Value::Bool(_)) => {}
                Err(Fail::Over) => return Err(Fail::Over),
                Ok(Value::Failed(why)) => failed = failed.or(Some(Fail::Error(why.to_string()))),
                Ok(_) => failed = failed.or(Some(Fail::Error("no such overload".into()))),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!enough)), Err)
    }

    /// What the loops of macros are made of.
    fn comprehension(&mut self, loops: &'a ComprehensionExpr) -> Answer<'a> {
        let range = self.value(&loops.iter_range)?;
        let pairs = self.pairs(&range)?;
        let first = self.value(&loops.accu_init)?;
        let place = self.names.len();
        self.names.push((&loops.accu_var, first));
        for (key, value) in pairs {
            match self.value(&loops.loop_cond)? {
                Value::Bool(true) => {}
                _ => break,
            }
            match &loops.iter_var2 {
                Some(second) => self.names.extend([(loops.iter_var.as_str(), key), (second.as_str(), value)]),
                // One name is the item of a list, the key of a map.
                None => {
                    let one = if range.items().is_some() { value } else { key };
                    self.names.push((&loops.iter_var, one));
                }
            }
            let stepped = self.step(&loops.accu_var, place, &loops.loop_step);
            self.names.truncate(place + 1);
            if let Err(Fail::Over) = stepped {
                return Err(Fail::Over);
            }
            if let Err(error) = stepped {
                // Truths wait for one that settles it; anything else ends here.
                match self.settles(loops) {
                    true => self.names[place].1 = Value::Failed(error.to_string().into()),
                    false => return Err(error),
                }
            }
        }
        let result = self.value(&loops.result);
        self.names.truncate(place);
        match result? {
            Value::Failed(why) => fail(&*why),
            value => Ok(value),
        }
    }

    /// Whether a loop is `all` or `exists`, in which an error may be outweighed.
    fn settles(&self, loops: &ComprehensionExpr) -> bool {
        matches!(&loops.loop_step.expr, Expr::Call(call) if matches!(call.func_name.as_str(), "_&&_" | "_||_"))
    }

    /// One step of a loop: what grows by one item is not copied for it.
    fn step(&mut self, name: &'a str, place: usize, step: &'a Expression) -> Result<(), Fail> {
        let is_accu = |at: &Expression| matches!(&at.expr, Expr::Ident(known) if known == name);
        match &step.expr {
            Expr::Ident(known) if known == name => return Ok(()),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                ("_?_:_", [condition, yes, no]) if is_accu(no) => {
                    return match self.value(condition)? {
                        Value::Bool(true) => self.step(name, place, yes),
                        Value::Bool(false) => Ok(()),
                        _ => no_overload(),
                    };
                }
                ("_+_", [accu, more]) if is_accu(accu) && matches!(more.expr, Expr::List(_)) => {
                    let Value::List(more) = self.value(more)? else { return no_overload() };
                    let Value::List(items) = &mut self.names[place].1 else { return no_overload() };
                    Arc::make_mut(items).extend(more.iter().cloned());
                    return Ok(());
                }
                _ => {}
            },
            _ => {}
        }
        self.names[place].1 = self.value(step)?;
        Ok(())
    }

    /// Indexes and items of a list, keys and values of a map.
    fn pairs(&mut self, range: &Value<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>, Fail> {
        if let Some(items) = range.items() {
            self.budget.spend(items.len() as u64)?;
            return Ok(items.iter().enumerate().map(|(i, item)| (Value::Int(i as i64), item)).collect());
        }
        let Some(fields) = range.fields() else { return no_overload() };
        self.budget.spend(fields.len() as u64)?;
        let pair = |key: Value<'a>| fields.get(&key).map(|value| (key, value));
        Ok(fields.keys().into_iter().filter_map(pair).collect())
    }

    /// Functions that give names to what they pass on.
    fn bound(&mut self, function: &str, target: Value<'a>, binds: &[&'a str], body: &'a [Expression]) -> Answer<'a> {
        let place = self.names.len();
        if let ("optMap" | "optFlatMap", Value::Optional(inner), [name], [body]) = (function, &target, binds, body) {
            let Some(inner) = inner else { return Ok(Value::Optional(None)) };
            self.names.push((name, (**inner).clone()));
            let value = self.value(body);
            self.names.truncate(place);
            return match (function, value?) {
                ("optMap", value) => Ok(Value::Optional(Some(Arc::new(value)))),
                (_, value @ Value::Optional(_)) => Ok(value),
                _ => no_overload(),
            };
        }
        let ([first, second], [body]) = (binds, body) else { return no_overload() };
        let (mut hits, mut failed) = (0u64, None);
        for (key, value) in self.pairs(&target)? {
            self.names.extend([(*first, key), (*second, value)]);
            let answer = self.value(body);
            self.names.truncate(place);
            match (function, answer) {
                (_, Err(Fail::Over)) => return Err(Fail::Over),
                ("all", Ok(Value::Bool(false))) => return Ok(Value::Bool(false)),
                ("exists", Ok(Value::Bool(true))) => return Ok(Value::Bool(true)),
                (_, Ok(Value::Bool(truth))) => hits += u64::from(truth),
                ("all" | "exists", Err(error)) => failed = Some(error),
                (_, Err(error)) => return Err(error),
                _ => return no_overload(),
            }
        }
        match (failed, function) {
            (Some(error), _) => Err(error),
            (None, "all") => Ok(Value::Bool(true)),
            (None, "exists") => Ok(Value::Bool(false)),
            (None, _) => Ok(Value::Bool(hits == 1)),
        }
    }
}

/// What is under a key or index, if something is.
fn lookup<'a>(operand: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, Fail> {
    if let Some(items) = operand.items() {
        let index = match key {
            Value::Int(index) => *index,
            Value::UInt(index) => i64::try_from(*index).unwrap_or(i64::MAX),
            Value::Double(index) if index.fract() == 0.0 => *index as i64,
            _ => return no_overload(),
        };
        return Ok(usize::try_from(index).ok().and_then(|index| items.get(index)));
    }
    match (operand, operand.fields(), key) {
        (_, Some(fields), _) => Ok(fields.get(key)),
        (Value::Check(check), _, Value::Text(name)) => Ok(check.field(name)),
        _ => no_overload(),
    }
}

fn of_literal(literal: &LiteralValue) -> Value<'_> {
    match literal {
        LiteralValue::Boolean(truth) => Value::Bool(truth.into_inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(bytes.inner().into()),
        LiteralValue::Double(fraction) => Value::Double(*fraction.inner()),
        LiteralValue::Int(whole) => Value::Int(*whole.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::Text(Str::Lent(text.inner())),
        LiteralValue::UInt(whole) => Value::UInt(*whole.inner()),
    }
}

/// Adds, and what else two values of one type can do.
pub fn operate<'a>(run: &mut Run<'a, '_>, operator: &str, left: &Value<'a>, right: &Value<'a>) -> Answer<'a> {
    use Value::{Bytes, Double, Duration, Int, Text, Time, UInt};
    let over = || Fail::Error("integer overflow".into());
    match (operator, left, right) {
        ("_==_" | "_!=_", ..) => {
            run.budget.spend(left.weight().min(right.weight()))?;
            Ok(Value::Bool(left.equals(right) == (operator == "_==_")))
        }
        ("_<_" | "_<=_" | "_>_" | "_>=_", ..) => {
            run.budget.spend(left.weight().min(right.weight()))?;
            let not_a_number = matches!((left, right), (Double(_), _) | (_, Double(_)));
            let Some(order) = left.compare(right) else {
                return if not_a_number { Ok(Value::Bool(false)) } else { no_overload() };
            };
            Ok(Value::Bool(match operator {
                "_<_" => order.is_lt(),
                "_<=_" => order.is_le(),
                "_>_" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        ("_/_", Int(_), Int(0)) | ("_/_", UInt(_), UInt(0)) => fail("division by zero"),
        ("_%_", Int(_), Int(0)) | ("_%_", UInt(_), UInt(0)) => fail("modulus by zero"),
        (_, Int(a), Int(b)) => match operator {
            "_+_" => a.checked_add(*b),
            "_-_" => a.checked_sub(*b),
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Int)
        .ok_or_else(over),
        (_, UInt(a), UInt(b)) => match operator {
            "_+_" => a.checked_add(*b),
            "_-_" => a.checked_sub(*b),
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(UInt)
        .ok_or_else(over),
        ("_+_", Double(a), Double(b)) => Ok(Double(a + b)),
        ("_-_", Double(a), Double(b)) => Ok(Double(a - b)),
        ("_*_", Double(a), Double(b)) => Ok(Double(a * b)),
        ("_/_", Double(a), Double(b)) => Ok(Double(a / b)),
        ("_+_", Text(a), Text(b)) => {
            run.budget.spend(left.weight() + right.weight())?;
            Ok(Value::text([&**a, &**b].concat()))
        }
        ("_+_", Bytes(a), Bytes(b)) => {
            run.budget.spend(left.weight() + right.weight())?;
            Ok(Bytes([&**a, &**b].concat().into()))
        }
        ("_+_" | "_-_", Duration(a), Duration(b)) => {
            let sum = if operator == "_+_" { a.checked_add(*b) } else { a.checked_sub(*b) };
            sum.map(Duration).ok_or_else(over)
        }
        ("_+_", Time(at), Duration(by)) | ("_+_", Duration(by), Time(at)) => {
            at.checked_add(*by).map(Time).map_err(|_| over())
        }
        ("_-_", Time(at), Duration(by)) => at.checked_sub(*by).map(Time).map_err(|_| over()),
        ("_-_", Time(a), Time(b)) => Ok(Duration(time::between(*b, *a))),
        ("_+_", ..) => match (left.items(), right.items()) {
            (Some(a), Some(b)) => {
                run.budget.spend((a.len() + b.len()) as u64)?;
                Ok(Value::list(a.iter().chain(b.iter()).collect()))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

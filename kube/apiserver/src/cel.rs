//! CEL (Common Expression Language): rules that others write and the server keeps: of definitions, of admission policies,
//! match conditions.
//!
//! ```text
//! text ─parse (crate cel)─▶ tree ─check─▶ Program ─run with names and a Budget─▶ value
//!        short, flat               known names and functions         every step is paid
//! ```
//!
//! The tree is evaluated here and not by the crate, for two reasons: every step can be paid from a [`Budget`], whatever a
//! rule does, and a level takes a small part of the stack that the crate's takes. JSON is looked into where it lies.
//!
//! *Bounded*: a text has [`TEXT_BYTES_MAX`] bytes, [`SIGNS_MAX`] signs and [`DEPTH_MAX`] levels; an evaluation pays 1 for
//! every node of the tree that it visits, and for texts and lists by their length before it touches them, so time and
//! memory end with the budget. Running out of it is no error that `||` or `all()` could swallow.
//!
//! Types are not checked before a rule runs: only names, functions and how many arguments they have are, and fields where a
//! schema knows them.

mod evaluate;
pub mod fields;
mod functions;
mod value;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Mutex;

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::parser::{Expression, PrattParser};
use regex::Regex;

pub use self::functions::rights::Check;
pub use self::value::{Str, Value};

/// Longer than any rule that is known.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Punctuation outside of names: a tree has at most so many levels, and taking it apart descends once for each.
const SIGNS_MAX: usize = 1024;
/// Levels of the tree: evaluation descends once for each.
const DEPTH_MAX: usize = 64;
/// What one expression may spend (`PerCallLimit` upstream).
const CALL: u64 = 1_000_000;
/// What all expressions about one object may spend together (`RuntimeCELCostBudget` upstream): about a third of a second.
const OBJECT: u64 = 10_000_000;
/// Patterns that a program keeps compiled.
const PATTERNS_MAX: usize = 16;

/// What may still be spent.
#[derive(Debug)]
pub struct Budget {
    all: u64,
    call: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { all: OBJECT, call: CALL }
    }
}

impl Budget {
    /// Whether nothing is left for further expressions.
    pub fn is_spent(&self) -> bool {
        self.all == 0
    }

    fn begin(&mut self) {
        self.call = CALL.min(self.all);
    }

    fn spend(&mut self, cost: u64) -> Result<(), Fail> {
        let cost = cost.min(self.call.saturating_add(1));
        self.all = self.all.saturating_sub(cost);
        match self.call.checked_sub(cost) {
            Some(left) => self.call = left,
            None => return Err(Fail::Over),
        }
        Ok(())
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fail {
    /// In CEL's words.
    Error(String),
    /// It took too much work.
    Over,
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(why) => f.write_str(why),
            Self::Over => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

fn fail<T>(why: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Error(why.into()))
}

/// An expression that can be run.
#[derive(Debug)]
pub struct Program {
    tree: Expression,
    patterns: Mutex<HashMap<String, Regex>>,
}

impl Program {
    /// Reads an expression that may use these names; one with a dot is a field, and with it the others are known, too.
    ///
    /// # Errors
    /// What is wrong with it, in words: no CEL, too long or deep, a name or function that is not known.
    pub fn compile(text: &str, names: &[&str]) -> Result<Self, String> {
        let failed = |why: &str| format!("compilation failed: ERROR: <input>: {why}");
        let signs = text.bytes().filter(|byte| byte.is_ascii_punctuation() && *byte != b'_').count();
        if text.len() > TEXT_BYTES_MAX || signs > SIGNS_MAX {
            return Err(failed(&format!("an expression has at most {TEXT_BYTES_MAX} bytes and {SIGNS_MAX} signs")));
        }
        let tree = PrattParser::new()
            .max_recursion_depth(DEPTH_MAX as u16)
            .enable_optional_syntax(true)
            .enable_ident_escape_syntax(true)
            .parse(text)
            .map_err(|error| {
                let said = error.to_string();
                format!("compilation failed: {}", said.lines().next().unwrap_or_default())
            })?;
        let mut known: Vec<&str> = names.to_vec();
        check(&tree, &mut known, DEPTH_MAX).map_err(|why| failed(&why))?;
        Ok(Self { tree, patterns: Mutex::default() })
    }

    /// Whether it uses this name.
    pub fn uses(&self, name: &str) -> bool {
        self.tree.references().has_variable(name)
    }

    /// That its value can be a truth.
    ///
    /// # Errors
    /// If it is clear without running it that it is none.
    pub fn expect_bool(self) -> Result<Self, String> {
        match &self.tree.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => Ok(self),
            Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => Err("must evaluate to a bool".into()),
            Expr::Call(call)
                if matches!(call.func_name.as_str(), "_+_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "size") =>
            {
                Err("must evaluate to a bool".into())
            }
            _ => Ok(self),
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// [`Fail`].
    pub fn run<'a>(&'a self, names: &[(&'a str, Value<'a>)], budget: &mut Budget) -> Result<Value<'a>, Fail> {
        budget.begin();
        evaluate::Run { program: self, names: names.to_vec(), budget }.value(&self.tree)
    }

    /// Its value as a truth.
    ///
    /// # Errors
    /// [`Fail`], also for a value that is none.
    pub fn holds<'a>(&'a self, names: &[(&'a str, Value<'a>)], budget: &mut Budget) -> Result<bool, Fail> {
        match self.run(names, budget)? {
            Value::Bool(truth) => Ok(truth),
            other => fail(format!("expression must evaluate to a bool, got {}", other.type_name())),
        }
    }
}

/// Whether every name and function is known, and the tree is flat enough.
fn check<'a>(at: &'a Expression, known: &mut Vec<&'a str>, levels: usize) -> Result<(), String> {
    let Some(levels) = levels.checked_sub(1) else {
        return Err(format!("an expression has at most {DEPTH_MAX} levels"));
    };
    match &at.expr {
        Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if known.contains(&name.as_str()) || value::TYPES.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => Err(format!("undeclared reference to '{name}' (in container '')")),
        Expr::Select(select) => {
            // Names with a dot say all fields that something has: `variables.x`.
            if let Expr::Ident(name) = &select.operand.expr {
                let mut fields = known.iter().filter_map(|known| known.strip_prefix(name.as_str())?.strip_prefix('.'));
                let field = select.field.as_str();
                if fields.clone().next().is_some() && !fields.any(|known| known == field) {
                    return Err(format!("undefined field '{field}'"));
                }
            }
            check(&select.operand, known, levels)
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check(element, known, levels)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                check(&entry.key, known, levels).and_then(|()| check(&entry.value, known, levels))
            }
            EntryExpr::StructField(_) => Err("messages cannot be made".into()),
        }),
        Expr::Comprehension(loops) => {
            check(&loops.iter_range, known, levels)?;
            check(&loops.accu_init, known, levels)?;
            let before = known.len();
            known.extend([loops.iter_var.as_str(), loops.accu_var.as_str()]);
            known.extend(loops.iter_var2.as_deref());
            let inner = [&loops.loop_cond, &loops.loop_step, &loops.result];
            let checked = inner.into_iter().try_for_each(|part| check(part, known, levels));
            known.truncate(before);
            checked
        }
        Expr::Call(call) => {
            if let Some((binds, body)) = functions::binding(call) {
                call.target.iter().try_for_each(|target| check(target, known, levels))?;
                let before = known.len();
                known.extend(binds);
                let checked = body.iter().try_for_each(|part| check(part, known, levels));
                known.truncate(before);
                return checked;
            }
            functions::check(call)?;
            let target = call.target.iter().map(AsRef::as_ref).filter(|_| functions::space(call).is_none());
            target.chain(&call.args).try_for_each(|part| check(part, known, levels))
        }
        Expr::Struct(_) => Err("messages cannot be made".into()),
        Expr::Unspecified => Err("the expression is empty".into()),
    }
}

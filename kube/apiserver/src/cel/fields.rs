//! Whether the fields of which a rule speaks can be there: the schema of a definition says so before anything runs.

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;

use super::{Program, functions};
use crate::custom::schema::Schema;

/// What is known of names: their schemas, the innermost last.
type Known<'a> = Vec<(&'a str, Option<&'a Schema>)>;

/// Checks a rule at a value of this schema.
///
/// # Errors
/// A field that values of the schema never have.
pub fn check(program: &Program, schema: &Schema) -> Result<(), String> {
    let mut known = vec![("self", Some(schema)), ("oldSelf", Some(schema))];
    walk(&program.tree, &mut known).map(|_| ()).map_err(|why| format!("compilation failed: ERROR: <input>: {why}"))
}

/// The schema of an expression, if it has one.
fn walk<'a>(at: &'a Expression, known: &mut Known<'a>) -> Result<Option<&'a Schema>, String> {
    match &at.expr {
        Expr::Ident(name) => Ok(known.iter().rev().find(|(other, _)| other == name).and_then(|(_, schema)| *schema)),
        Expr::Select(select) => {
            let Some(schema) = walk(&select.operand, known)? else { return Ok(None) };
            let name = super::value::unescaped(&select.field).unwrap_or_else(|| select.field.clone());
            match schema.of_field(&name).or_else(|| schema.of_field(&select.field)) {
                Some(field) => Ok(Some(field)),
                None if schema.is_closed() && !["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {
                    Err(format!("undefined field '{}'", select.field))
                }
                None => Ok(None),
            }
        }
        Expr::List(list) => list.elements.iter().try_for_each(|item| walk(item, known).map(|_| ())).map(|()| None),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    walk(&entry.key, known)?;
                    walk(&entry.value, known)?;
                }
            }
            Ok(None)
        }
        Expr::Comprehension(loops) => {
            let item = walk(&loops.iter_range, known)?.and_then(Schema::item);
            let before = known.len();
            known.push((&loops.accu_var, None));
            match &loops.iter_var2 {
                Some(second) => known.extend([(loops.iter_var.as_str(), None), (second.as_str(), item)]),
                None => known.push((&loops.iter_var, item)),
            }
            let walked = walk(&loops.loop_step, known);
            known.truncate(before);
            walked.map(|_| None)
        }
        Expr::Call(call) => {
            let target = match &call.target {
                Some(target) if functions::space(call).is_none() => walk(target, known)?,
                _ => None,
            };
            let before = known.len();
            let arguments = match functions::binding(call) {
                Some((names, body)) => {
                    // The last name is that of the item.
                    let last = names.len() - 1;
                    let item = target.and_then(Schema::item);
                    known.extend(names.into_iter().enumerate().map(|(i, name)| (name, item.filter(|_| i == last))));
                    body
                }
                None => &call.args,
            };
            let walked: Result<Vec<_>, _> = arguments.iter().map(|argument| walk(argument, known)).collect();
            known.truncate(before);
            match (call.func_name.as_str(), walked?.first()) {
                ("_[_]", Some(Some(of))) => Ok(of.item()),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

//! Who said what of an object, and server-side apply.
//!
//! A *manager* is somebody who writes under one name. Each owns a set of fields, noted in `metadata.managedFields`:
//!
//! ```text
//! update   old ─compare─▶ new      what changed is the writer's now and nobody else's; what went is nobody's
//! apply    live ─merge─▶ said      then goes what this manager said before, does not say now, and nobody else owns;
//!                                  what changes so and belongs to others is a conflict, unless it is forced
//! ```
//!
//! [`fields`] are the sets, [`compare`] makes them of objects, [`merge`] changes objects by them, [`managers`] keeps them.
//! What is shared of a value, and how, says its [`View`].
//!
//! An object that nobody is known of stays so until somebody applies it: then what stands belongs to `before-first-apply`.
//!
//! Limits: sets of managers that wrote in another version are read as if they were of this one; entries are not brought up to date when
//! a definition changes what of it is shared.

mod compare;
pub mod fields;
mod last_applied;
mod managers;
mod merge;

#[cfg(test)]
mod tests;

use serde_json::Value;

use self::fields::Node;
use self::managers::Operation;
pub use self::managers::{Managers, Writer};
use crate::object::metadata;
use crate::schema::View;
use crate::status::Status;

/// Who owns what stands when an object that nobody is known of is applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The managers of `object`, which becomes of `old` by an update, and whether they are others than those that `stand`. `brought` are
/// those that the request came with. Both objects come without theirs: they are the larger part of many, and need not be copied.
pub fn note(
    old: Option<&Value>,
    object: &Value,
    stand: Value,
    brought: Value,
    view: View<'_>,
    writer: &Writer<'_>,
) -> (Option<Value>, bool) {
    let (mut managers, mut moved) = Managers::of(brought, stand);
    if old.is_none() || !managers.is_empty() {
        let nothing = Value::Object(Node::new());
        moved |= managers.note(writer, &compare::compare(old.unwrap_or(&nothing), object, view));
    }
    (managers.into_value(), moved)
}

/// What applying `said` makes of `live` (an empty object if there is none), with its managers noted.
///
/// # Errors
/// 400 for lists whose items cannot be told apart, 409 with every field that others own, unless `force`.
pub fn apply(live: &Value, said: &Value, view: View<'_>, writer: &Writer<'_>, force: bool) -> Result<Value, Status> {
    let mut flaws = Vec::new();
    merge::flaws(said, view, "", &mut flaws);
    if !flaws.is_empty() {
        let about = ["namespace", "name"].map(|field| crate::object::meta(said, field)).join("/");
        let kind = said["kind"].as_str().unwrap_or_default();
        let version = writer.version;
        return Err(Status::bad_request(format!(
            "failed to create typed patch object ({about}; {version}, Kind={kind}): {}",
            if flaws.len() == 1 { flaws.concat() } else { format!("errors:\n  {}", flaws.join("\n  ")) }
        )));
    }
    let mut before = live.clone();
    let mut managers = Managers::from(metadata(&mut before).remove("managedFields").unwrap_or_default());
    if managers.is_empty() {
        let first = Writer { name: BEFORE_FIRST_APPLY, subresource: "", ..writer.clone() };
        managers.note(&first, &compare::compare(&Value::Object(Node::new()), &before, view));
    }
    let set = compare::set(said, view);
    let last = managers.set_of(Operation::Apply, writer).cloned().unwrap_or_default();
    managers.set(writer, set);
    let mut object = before.clone();
    merge::merge(&mut object, said, view);
    if !last.is_empty() {
        merge::prune(&mut object, &last, &managers.everything(), view);
    }
    let change = compare::compare(&before, &object, view);
    let mut conflicts = managers.conflicts(writer, &change.changed);
    if !force && !conflicts.is_empty() && writer.name == last_applied::KUBECTL {
        last_applied::allow(&before, view, &mut conflicts);
    }
    if !force && !conflicts.is_empty() {
        return Err(refusal(&conflicts));
    }
    managers.take(Operation::Apply, writer, &change);
    last_applied::keep(&before, &mut object, said, writer);
    if let Some(entries) = managers.into_value() {
        metadata(&mut object).insert("managedFields".into(), entries);
    }
    Ok(object)
}

/// The words about conflicts.
fn refusal(conflicts: &[(String, Node)]) -> Status {
    let all: Vec<(&str, String)> = conflicts
        .iter()
        .flat_map(|(manager, set)| fields::paths(set).into_iter().map(move |path| (manager.as_str(), path)))
        .collect();
    let message = match all.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        all => {
            let mut lines = Vec::new();
            for (manager, set) in conflicts {
                lines.push(format!("conflicts with {manager}:"));
                lines.extend(fields::paths(set).into_iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    Status::apply_conflict(message, &all)
}

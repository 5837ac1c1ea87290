//! Services (§6.4.3, §7.6): what a blueprint says, what its buyer may configure, and the manifests of one instance. Pure.
//!
//! A *blueprint* is manifests with placeholders. A *recipe* is a blueprint that is understood. An *instance* is what a recipe makes for one
//! contract.
//!
//! ```text
//!  ServiceBlueprint ─▶ Recipe ─┬─▶ flavor: name, category, tags, schema of the configuration, size, price
//!                              ├─▶ check(configuration of a buyer, which is hostile)
//!                              └─▶ instance(configuration + credentials made at purchase) ─▶ manifests
//! ```
//! *Substitution is typed*: a placeholder is a whole value, `"{{ .database }}"`, and what takes its place is one JSON value, of the type that the
//! schema says. Nothing is spliced into a text: no configuration can become another argument, key or manifest. A placeholder within a text
//! is refused when the blueprint is read.

mod credential;
mod error;
mod manifests;
mod recipe;
mod schema;
mod selector;
mod size;
mod stand_ins;
mod substitute;
#[cfg(test)]
mod tests;

pub use credential::Credential;
pub use error::{BlueprintError, CredentialError};
pub use recipe::{RECIPES_MAX, Recipe};
pub use schema::{CONFIGURATION_BYTES_MAX, check_configuration};
pub use selector::ServiceSelector;
pub use size::{size_of, size_text};
pub use stand_ins::{StandIns, stand_ins, stand_ins_text};

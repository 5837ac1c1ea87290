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

mod recipe;
mod substitute;
#[cfg(test)]
mod tests;

pub use recipe::{
    BlueprintError, CONFIGURATION_BYTES_MAX, Credential, CredentialError, RECIPES_MAX, Recipe, ServiceSelector,
};

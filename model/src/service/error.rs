//! Why a blueprint is not accepted.

use super::credential::{CREDENTIAL_LENGTHS, CREDENTIALS_MAX};
use super::manifests::TEMPLATES_MAX;

/// Why a credential is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// Too few.
    #[error("credentials: {observed}, needed at most {CREDENTIALS_MAX}")]
    Count {
        /// How many.
        observed: usize,
    },
    /// No name.
    #[error("credentials: name {observed:?}, needed a letter, then letters, digits and underscores, once")]
    Name {
        /// What it says.
        observed: String,
    },
    /// Too short to be secret.
    #[error("credential {name}: length {observed}, needed {} to {} (22 are 128 bits)", CREDENTIAL_LENGTHS.start(), CREDENTIAL_LENGTHS.end())]
    Length {
        /// Which.
        name: String,
        /// What it says.
        observed: usize,
    },
}

/// Why a blueprint is not accepted. Its owner must correct it; nothing of it is sold until then.
#[derive(Debug, thiserror::Error)]
pub enum BlueprintError {
    /// A name that cannot be part of a flavor's.
    #[error("metadata.name is {observed:?}, needed 1 to 63 lower-case letters, digits and dashes")]
    Name {
        /// What it is.
        observed: String,
    },
    /// It runs elsewhere.
    #[error("hostingPolicies are {observed:?}, needed Provider among them: nothing else is built")]
    Hosting {
        /// What it says.
        observed: Vec<String>,
    },
    /// No or too many manifests.
    #[error("templates: {observed}, needed 1 to {TEMPLATES_MAX}")]
    Templates {
        /// How many.
        observed: usize,
    },
    /// Manifests that are too large.
    #[error("{what}: {observed} bytes, needed at most {most}")]
    Bytes {
        /// Which part.
        what: &'static str,
        /// How many.
        observed: usize,
        /// How many there may be.
        most: usize,
    },
    /// A manifest of another kind, or none.
    #[error(
        "template {template}: {observed}, needed one of Secret, ConfigMap, Service, Pod (v1), Deployment, ReplicaSet (apps/v1), with a metadata.name and no namespace"
    )]
    Kind {
        /// Which.
        template: String,
        /// What it is.
        observed: String,
    },
    /// A placeholder within a text.
    #[error("template {template}: a placeholder within {observed:?}, needed as a whole value: {{{{ .name }}}}")]
    Placeholder {
        /// Which.
        template: String,
        /// The text.
        observed: String,
    },
    /// Nobody could reach it.
    #[error("templates: {observed} Services labelled nodecore.fluidos.eu/flavor-service-endpoint, needed 1")]
    Endpoint {
        /// How many.
        observed: usize,
    },
    /// Its size cannot be counted.
    #[error("template {template}: {reason}")]
    Size {
        /// Which.
        template: String,
        /// What is wrong and what was needed.
        reason: String,
    },
    /// A credential where it can be read by whoever reads the object.
    #[error("template {template}: credential {credential}, needed in a Secret only: let its pods take it from there")]
    Exposed {
        /// Which.
        template: String,
        /// Which credential.
        credential: String,
    },
    /// Its pods would have more than `baseline` lets them have.
    #[error("template {template}: {reason}")]
    Privileged {
        /// Which.
        template: String,
        /// What, in the words of PodSecurity.
        reason: String,
    },
    /// Its credentials.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Its schema is none.
    #[error("configurationTemplate: {0}")]
    Schema(String),
    /// A placeholder that nothing fills.
    #[error("placeholder {0}: neither a property of configurationTemplate nor a credential")]
    Unfilled(String),
    /// A property that is a credential.
    #[error("{0}: a property of configurationTemplate and a credential, needed one of both")]
    Both(String),
    /// Its price.
    #[error("price: {0}")]
    Price(String),
}

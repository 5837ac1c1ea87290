//! What the exporter reads from the API, and what its failures are called on the wire.

use fluidos_identity::NodeId;
use fluidos_model::kinds::{Contract, Flavor, names};
use fluidos_rear::{Refusal, RefusalCode};
use kube::{Api, Client};

use crate::books::BooksError;
use crate::contracts::WriteError;
use crate::convert;

/// Why something was not sold, listed or mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("no flavor {name} is offered here")]
    NoFlavor { name: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// What a peer is told: the API's own words are nobody else's business.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::NoFlavor { .. } => Refusal::new(RefusalCode::NotFound, self.to_string()),
            Self::Books(BooksError::Missing) => Refusal::new(RefusalCode::NotFound, "nothing is offered here"),
            Self::Books(BooksError::Contended) => Refusal::new(RefusalCode::Unavailable, "too many buyers at once"),
            Self::Write(WriteError::Taken { .. } | WriteError::Ending { .. }) => {
                Refusal::new(RefusalCode::Conflict, self.to_string())
            }
            error => {
                tracing::warn!(%error, "exporter");
                Refusal::new(RefusalCode::Internal, "the seller's own records could not be read or written")
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        error.into_refusal()
    }
}

/// Returns own flavors.
pub(super) async fn flavors(client: &Client, own: NodeId) -> Result<Vec<Flavor>, Error> {
    let api = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    let flavors = api.list(&Default::default()).await?.items;
    Ok(flavors.into_iter().filter(|flavor| convert::did(&flavor.spec.owner) == Some(own)).collect())
}

/// Returns an own flavor.
pub(super) async fn flavor(client: &Client, name: &str, own: NodeId) -> Result<Option<Flavor>, Error> {
    // The name is a peer's text: only one that can be a name is asked for.
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !name.chars().all(named) {
        return Ok(None);
    }
    let api = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    let flavor = api.get_opt(name).await?;
    Ok(flavor.filter(|flavor| convert::did(&flavor.spec.owner) == Some(own)))
}

/// Returns the contracts by which this node sells.
pub(super) async fn sold(client: &Client, own: NodeId) -> Result<Vec<Contract>, Error> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let contracts = api.list(&Default::default()).await?.items;
    Ok(contracts.into_iter().filter(|contract| convert::did(&contract.spec.seller) == Some(own)).collect())
}

//! The kinds that an API server has, asked of itself: also those that somebody defined a moment ago.
use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope};

/// A kind, in the version that the server prefers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
    /// Whether a watch of it can be kept.
    pub watchable: bool,
    /// Whether all of a namespace can be deleted in one request.
    pub collection: bool,
}

/// All kinds whose objects can be listed and deleted. Events are left out: they own nothing, nothing owns them, and
/// they go by themselves.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut kinds = Vec::new();
    for group in discovery.groups() {
        for (resource, can) in group.recommended_resources() {
            if can.supports_operation("list") && can.supports_operation("delete") && resource.kind != "Event" {
                kinds.push(Kind {
                    namespaced: can.scope == Scope::Namespaced,
                    watchable: can.supports_operation("watch"),
                    collection: can.supports_operation("deletecollection"),
                    resource,
                });
            }
        }
    }
    kinds.sort_by(|a, b| (&a.resource.group, &a.resource.plural).cmp(&(&b.resource.group, &b.resource.plural)));
    Ok(kinds)
}

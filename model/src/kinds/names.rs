//! Names, labels and ports that official nodes and tools rely on.

/// The namespace of our objects.
pub const NAMESPACE: &str = "fluidos";
/// ConfigMap with `domain`, `nodeID`, `ip`, `port` of this node.
pub const IDENTITY_CONFIG_MAP: &str = "fluidos-node-identity";
/// Label on objects that belong to a contract.
pub const LABEL_CONTRACT: &str = "reservation.fluidos.eu/contract";
/// Label on Kubernetes nodes whose resources are offered.
pub const LABEL_RESOURCES: &str = "node-role.fluidos.eu/resources";
/// Label on the Service that is the endpoint of a service flavor.
pub const LABEL_SERVICE_ENDPOINT: &str = "nodecore.fluidos.eu/flavor-service-endpoint";
/// Label on the Secret with the credentials of a service flavor.
pub const LABEL_SERVICE_CREDENTIALS: &str = "nodecore.fluidos.eu/flavor-service-credentials";
/// Label on a namespace whose workloads may leave.
pub const LABEL_OFFLOAD: &str = "fluidos.eu/offload";
/// Names in Kubernetes are at most this long.
const NAME_LENGTH_MAX: usize = 253;

/// Returns the name of a solver's discovery.
pub fn discovery(solver: &str) -> String {
    bounded(format!("discovery-{solver}"))
}

/// Returns the name of a solver's reservation.
pub fn reservation(solver: &str) -> String {
    bounded(format!("reservation-{solver}"))
}

/// Returns the name of the candidate made of a flavor. Flavor names are the seller's choice and two sellers may choose one:
/// `seller_tag` is 8 hex of the seller's key where there is one, and is left out for official sellers.
pub fn peering_candidate(flavor: &str, seller_tag: Option<&str>) -> String {
    match seller_tag {
        Some(tag) => bounded(format!("peeringcandidate-{}-{tag}", label(flavor, 200))),
        None => bounded(format!("peeringcandidate-{flavor}")),
    }
}

/// Returns the name of the contract of a transaction; `suffix` is some hex that only this transaction has.
pub fn contract(flavor: &str, suffix: &str) -> String {
    bounded(format!("contract-{}-{suffix}", label(flavor, 40)))
}

/// Returns the name of the allocation of a contract, of which official nodes have one per flavor.
pub fn allocation(contract: &str) -> String {
    bounded(format!("allocation-{}", contract.strip_prefix("contract-").unwrap_or(contract)))
}

/// Returns the name of a known node, from its id or the last part of its DID.
pub fn known_cluster(node_id: &str) -> String {
    bounded(format!("knowncluster-{}", label(node_id, 200)))
}

/// Returns the name of a flavor: `<domain>-<type>-<hex>`, lower case.
pub fn flavor(domain: &str, flavor_type: &str, hex: &str) -> String {
    let domain: String = domain.chars().take(200).collect();
    bounded(format!("{domain}-{flavor_type}-{hex}").to_ascii_lowercase())
}

/// Makes a DNS label of a text: what is not allowed becomes a dash.
fn label(text: &str, length: usize) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    text.chars().take(length).map(allowed).collect()
}

fn bounded(name: String) -> String {
    name.chars().take(NAME_LENGTH_MAX).collect()
}

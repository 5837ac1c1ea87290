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
/// Label on the namespace, the objects and the pods of an instance of a service that is sold: its contract.
pub const LABEL_SERVICE: &str = "fluidos.eu/service";
/// Label on the Secret, Service and EndpointSlice by which a service that was bought is used: its contract.
pub const LABEL_SERVICE_ACCESS: &str = "fluidos.eu/service-access";
/// Marks an EndpointSlice by which packets to a service are carried on ([`ANNOTATION_STAND_IN`], [`ANNOTATION_HOME`]); its value is the contract
/// that was sold.
pub const LABEL_SERVICE_PASSED: &str = "fluidos.eu/service-passed";
/// Annotation of a Solver and of what it buys: what the Service and the Secret of a service are called.
pub const ANNOTATION_SERVICE_NAME: &str = "fluidos.eu/service-name";
/// Label on a namespace whose workloads may leave.
pub const LABEL_OFFLOAD: &str = "fluidos.eu/offload";
/// Value of [`LABEL_OFFLOAD`] that lets the pods of a namespace leave their owner.
pub const OFFLOAD_ENABLED: &str = "enabled";
/// Scheduling gate that holds a pod until the orchestrator has placed it.
pub const GATE: &str = "fluidos.eu/placement";
/// Label of a virtual node (`true`), and key of the taint that keeps off pods which nobody placed there.
pub const VIRTUAL_NODE: &str = "fluidos.eu/virtual-node";
/// Label of the Node of a machine that has joined (`true`): it runs pods of its owner, and none of others.
pub const AGENT: &str = "fluidos.eu/agent";
/// Label: the first 8 hex digits of the peer's key.
pub const LABEL_PEER: &str = "fluidos.eu/peer";
/// Annotation: the peer's DID.
pub const ANNOTATION_PEER_DID: &str = "fluidos.eu/peer-did";
/// Annotation of a Node: where it is, as JSON in the spelling of a flavor's location.
pub const ANNOTATION_LOCATION: &str = "fluidos.eu/location";
/// What is special about a Node: `{"tee": "sev-snp", "hardware": ["tpm"], "standards": ["ISO 27001"]}`. An owner writes it onto machines of its
/// own.
pub const ANNOTATION_FEATURES: &str = "fluidos.eu/features";
/// Annotation of a Node: measured round trip from its owner, in microseconds.
pub const ANNOTATION_LATENCY: &str = "fluidos.eu/latency-micros";
/// Annotation of a twin: `NAMESPACE/NAME/UID` of the pod that it stands for at its consumer.
pub const ANNOTATION_ORIGIN: &str = "fluidos.eu/origin";
/// Annotation of a twin that a reseller's provider runs: the IPv4 prefix of the pod's owner, who stands behind the consumer.
pub const ANNOTATION_HOME: &str = "fluidos.eu/home";
/// Annotation of a twin at a reseller: the address of its own by which its consumer knows the pod, which runs elsewhere.
pub const ANNOTATION_STAND_IN: &str = "fluidos.eu/stand-in";
/// Annotation of a pod: why it was placed where it is.
pub const ANNOTATION_DECISION: &str = "fluidos.eu/decision";
/// Annotation of a pod: `KIND/NAME/UID` of its topmost owner, for which capacity is bought.
pub const ANNOTATION_WORKLOAD: &str = "fluidos.eu/workload";
/// Annotation of a contract that is to end: why, in words, for the other side. It ends after its notice, without one at once.
pub const ANNOTATION_END_REASON: &str = "fluidos.eu/end-reason";
/// Annotation of a contract that was bought: why it is not used for now, in words; without it, it is.
pub const ANNOTATION_SUSPENDED: &str = "fluidos.eu/suspended";
/// Annotation of a Solver and of what it buys: the namespace of the workload it is for, whose ceilings count.
pub const ANNOTATION_NAMESPACE: &str = "fluidos.eu/namespace";
/// Annotation of a Solver: when a seller was heard to offer what could serve it, and which ([`offered`]).
pub const ANNOTATION_OFFERED: &str = "fluidos.eu/offered";
/// Label of a Solver that the orchestrator wrote: uid of the workload that it buys for.
pub const LABEL_SOLVER_FOR: &str = "fluidos.eu/solver-for";
/// Label of a Solver that buys for a buffer: the name of the buffer.
pub const LABEL_BUFFER: &str = "fluidos.eu/buffer";
/// Label of a Solver that buys what is sold on, of what it buys, and of nothing else: the transaction of its buyer, as 16 hexadecimal digits
/// of its digest. Nobody's own workload takes what it buys. Key of the taint of the virtual node, which only twins of what was sold tolerate.
pub const LABEL_RESALE: &str = "fluidos.eu/resale";
/// At a reseller: until when a contract that it has bought is to go on, because the one that it serves is to (RFC 3339).
pub const ANNOTATION_RENEW_UNTIL: &str = "fluidos.eu/renew-until";
/// Finalizer of a contract: the other side must be told first.
pub const FINALIZER_RELEASE: &str = "fluidos.eu/release";
/// Prefix of the labels of a KnownCluster that hold what the node says of itself, such as `feature.fluidos.eu/city`.
pub const LABEL_FEATURE_PREFIX: &str = "feature.fluidos.eu/";
/// Prefix of the labels of a KnownCluster that hold the types of flavors that the node says it sells, such as `offer.fluidos.eu/K8Slice`.
pub const LABEL_OFFER_PREFIX: &str = "offer.fluidos.eu/";
/// Prefix of the labels of a KnownCluster that hold its billing models, such as `billing.fluidos.eu/spot`.
pub const LABEL_BILLING_PREFIX: &str = "billing.fluidos.eu/";
/// Name of the DiscoveryPolicy that is always there, and whose status tells what discovery saw.
pub const DISCOVERY_POLICY: &str = "default";
/// Name of the AccessPolicy that `--offer` writes.
pub const POLICY_OFFER: &str = "offer";
/// Name of the AccessPolicy that `--trust` writes.
pub const POLICY_TRUST: &str = "trust";
/// Annotation of a KnownCluster: the policy that decided about its `trust`.
pub const ANNOTATION_TRUST_POLICY: &str = "fluidos.eu/trust-policy";
/// Annotation of a KnownCluster: the `trust` that its owner wrote by hand.
pub const ANNOTATION_TRUST_OWNER: &str = "fluidos.eu/trust-owner";
/// Annotation of an Invoice: its owner says that it is paid; the node signs that and tells the other party.
pub const ANNOTATION_PAID: &str = "fluidos.eu/paid";
/// Name of the one TransparencyLog.
pub const LOG: &str = "node";
/// Annotation of the TransparencyLog: the owner accepts that what is missing is lost, and why.
pub const ANNOTATION_ACCEPT_LOSS: &str = "fluidos.eu/accept-loss";
/// Name of the one Ledger.
pub const LEDGER: &str = "pool";
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

/// Returns the name of one part of a solver's reservation, from 1; the first has the name of the whole. A dot, because another
/// solver may be called `SOLVER-2`.
pub fn reservation_part(solver: &str, number: u32) -> String {
    match number {
        1 => reservation(solver),
        number => bounded(format!("reservation-{solver}.{number}")),
    }
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

/// Returns the name of a receipt, so that a list by name is in the order of the chain.
pub fn receipt(contract: &str, number: u64) -> String {
    bounded(format!("receipt-{}-{number:07}", contract.strip_prefix("contract-").unwrap_or(contract)))
}

/// Returns the name of the invoice of a contract and a month such as `2026-11`.
pub fn invoice(contract: &str, month: &str) -> String {
    bounded(format!("invoice-{}-{month}", contract.strip_prefix("contract-").unwrap_or(contract)))
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

/// Returns the name of the flavor of a plan; `tag` is 8 hex of its owner's key. A dot stands before the plan, so no other offer and plan
/// have this name.
pub fn plan_flavor(domain: &str, tag: &str, offer: &str, plan: &str) -> String {
    let domain: String = domain.chars().take(100).collect();
    bounded(format!("{domain}-k8slice-{tag}-{offer}.{plan}").to_ascii_lowercase())
}

/// Returns the name of the flavor of a service; `tag` is 8 hex of its owner's key.
pub fn service_flavor(domain: &str, tag: &str, blueprint: &str) -> String {
    let domain: String = domain.chars().take(100).collect();
    bounded(format!("{domain}-service-{tag}-{blueprint}").to_ascii_lowercase())
}

/// Returns the blueprint in the name of the flavor of a service ([`service_flavor`]); `None` is that it is no such name.
pub fn service_blueprint(flavor: &str) -> Option<&str> {
    let is_tag = |tag: &str| tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = flavor.match_indices("-service-").filter_map(|(at, dash)| flavor.get(at + dash.len()..));
    parts.filter_map(|rest| rest.split_once('-')).find(|(tag, _)| is_tag(tag)).map(|(_, blueprint)| blueprint)
}

/// Returns the name of the flavor of something that is sold on; `tag` is 8 hex of its seller's key, `hex` what only this one has.
pub fn resale_flavor(domain: &str, tag: &str, hex: &str) -> String {
    let domain: String = domain.chars().take(100).collect();
    bounded(format!("{domain}-k8slice-{tag}-resale-{hex}").to_ascii_lowercase())
}

/// The same for a service. No blueprint has a dot in its name.
pub fn resale_service(domain: &str, tag: &str, hex: &str) -> String {
    service_flavor(domain, tag, &format!("resale.{hex}"))
}

/// Returns the text of [`ANNOTATION_OFFERED`]: the time (RFC 3339) and the seller.
pub fn offered(seller: &str, at: jiff::Timestamp) -> String {
    format!("{at} {seller}")
}

/// Returns the time of an [`ANNOTATION_OFFERED`], if it is one.
pub fn offered_at(text: &str) -> Option<jiff::Timestamp> {
    text.split(' ').next()?.parse().ok()
}

/// Returns the name of the Solver that buys what is sold on; `hex` is its [`LABEL_RESALE`].
pub fn resale(hex: &str) -> String {
    bounded(format!("resale-{hex}"))
}

/// Returns the namespace of the instance of a service at its seller.
pub fn service_namespace(contract: &str) -> String {
    format!("service-{}", contract.strip_prefix("contract-").unwrap_or(contract)).chars().take(63).collect()
}

/// Returns the name of the Secret of a service at its buyer, where nobody says another.
pub fn service_credentials(contract: &str) -> String {
    bounded(format!("credentials-{contract}"))
}

/// Makes a DNS label of a text: what is not allowed becomes a dash.
fn label(text: &str, length: usize) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    text.chars().take(length).map(allowed).collect()
}

fn bounded(name: String) -> String {
    name.chars().take(NAME_LENGTH_MAX).collect()
}

/// Name of the namespace at a provider that holds the twins of `namespace` of the consumer with this 8-hex tag:
/// `twin-TAG-NAMESPACE`. `hash` (8 hex of the namespace's digest) replaces the end of one that is too long.
pub fn twin_namespace(tag: &str, namespace: &str, hash: &str) -> String {
    const LABEL_LENGTH_MAX: usize = 63;
    let whole = format!("twin-{tag}-{namespace}");
    if whole.len() <= LABEL_LENGTH_MAX {
        return whole;
    }
    let kept: String = whole.chars().take(LABEL_LENGTH_MAX - hash.len() - 1).collect();
    format!("{kept}-{hash}")
}

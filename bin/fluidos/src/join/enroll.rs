//! From an invitation to a machine that belongs to a node: a certificate, a Node, a range of pods.

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;
use substrate_network::{Cidr, Ipv6};

use super::member::{Membership, OfIpv6, by_certificate, by_token, keep_pem, told};
use crate::invite::Invitation;
use crate::node::address_v6;
use crate::node::agents::{SIGNER, USER};
use fluidos_model::kinds::names;

/// How often something that is waited for is looked at.
const PAUSE: Duration = Duration::from_millis(300);
/// A certificate is there at once, unless somebody has to look at the request.
const CERTIFICATE: Duration = Duration::from_secs(300);
/// A range is there at once, or there is none.
const RANGE: Duration = Duration::from_secs(30);
/// Who waits so long is told for what.
const PATIENCE: Duration = Duration::from_secs(5);

/// Joins, and keeps what proves it.
pub async fn join(directory: &Path, invitation: &Invitation, name: String) -> Result<Membership> {
    invitation.good_at(Timestamp::now())?;
    let Invitation { server, authority, token, .. } = invitation;
    let client = by_token(server, authority, token)?;
    let pem = certificate(&client, &name).await.map_err(|error| refused(server, error))?;
    keep_pem(directory, Some(authority), &pem)?;
    let client = by_certificate(server, authority, &pem)?;
    let told = told(&client).await?;
    let node = node(&client, &name).await?;
    let given = ranges(&client, &name).await?;
    let member = Membership {
        ipv6: ipv6(&given, told.ipv6),
        pod_cidr: given.into_iter().next().unwrap_or_default(),
        node_uid: node.metadata.uid.unwrap_or_default(),
        server: server.clone(),
        services: told.services,
        ranges: told.ranges,
        name,
    };
    member.save(directory)?;
    tracing::info!(name = member.name, server, pods = member.pod_cidr, "joined");
    Ok(member)
}

/// Says what stands behind an error of the first contact.
fn refused(server: &str, error: anyhow::Error) -> anyhow::Error {
    let told = format!("{error:#}");
    let status = error.chain().find_map(|cause| match cause.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    });
    let why = match status {
        Some(401) => {
            "does not take the invitation (any more): it is over, or was taken back; make another: fluidos invite --agent"
        }
        Some(_) => "refuses this machine",
        None if told.contains("invalid peer certificate") => {
            "does not prove to be the API of the invitation: its certificate is of another authority. Somebody else answers there, or the \
             invitation is of another node"
        }
        None => "cannot be reached; if this machine reaches the API elsewhere: fluidos invite --agent --api-server URL",
    };
    error.context(format!("{server} {why}"))
}

/// Certificate and key of a machine, as PEM: the key is new and goes nowhere else.
pub async fn certificate(client: &Client, name: &str) -> Result<String> {
    let key = KeyPair::generate().context("make a key")?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("{USER}{name}"));
    let request = params.serialize_request(&key)?.pem()?;
    let mut object: CertificateSigningRequest =
        serde_json::from_value(json!({ "metadata": { "generateName": "node-csr-" },
        "spec": { "request": "", "signerName": SIGNER, "usages": ["client auth", "digital signature"] } }))?;
    object.spec.request.0 = request.into_bytes();
    let requests = Api::<CertificateSigningRequest>::all(client.clone());
    let made = requests.create(&PostParams::default(), &object).await.context("ask for a certificate")?;
    let asked = made.metadata.name.context("the API has given the request no name")?;
    let certificate = answered(&requests, &asked).await?;
    Ok(format!("{certificate}\n{}", key.serialize_pem()))
}

/// Waits for what became of a request.
async fn answered(requests: &Api<CertificateSigningRequest>, name: &str) -> Result<String> {
    let (begun, mut said) = (Instant::now(), false);
    loop {
        let status = requests.get(name).await.context("look after the certificate")?.status.unwrap_or_default();
        if let Some(pem) = status.certificate.filter(|pem| !pem.0.is_empty()) {
            return String::from_utf8(pem.0).context("the certificate is no text");
        }
        let conditions = status.conditions.unwrap_or_default();
        if let Some(no) = conditions.iter().find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed")) {
            bail!("the request {name} was {}: {}", no.type_, no.message.as_deref().unwrap_or("without a reason"));
        }
        if begun.elapsed() >= CERTIFICATE {
            bail!(
                "nobody has approved the request {name} within {} s: kubectl certificate approve {name}",
                CERTIFICATE.as_secs()
            );
        }
        if begun.elapsed() >= PATIENCE && !std::mem::replace(&mut said, true) {
            tracing::info!(
                "waiting for a certificate; if nobody approves by itself: kubectl certificate approve {name}"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The machine's Node: made, or found as an earlier try has left it.
async fn node(client: &Client, name: &str) -> Result<Node> {
    let nodes = Api::<Node>::all(client.clone());
    let labels = json!({ names::AGENT: "true", "kubernetes.io/hostname": name });
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?;
    let found = match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => nodes.get(name).await?,
        made => return made.context("make the Node of this machine"),
    };
    let own = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let theirs =
        found.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| info.machine_id.as_str());
    if theirs.is_some_and(|theirs| theirs != own.trim()) {
        bail!("the Node {name} is of another machine: give this one another name (--name)");
    }
    Ok(found)
}

/// What of IPv6 this machine's pods have, of the ranges that it was `given` and of what its node has `told`. Other machines reach them at its
/// address, so without one they have IPv4 alone.
fn ipv6(given: &[String], told: Option<(Cidr<Ipv6Addr>, Vec<Cidr<Ipv6Addr>>)>) -> Option<OfIpv6> {
    let (services, ranges) = told?;
    let pods = given.iter().find_map(|range| range.parse().ok())?;
    if address_v6::find().is_none() {
        tracing::info!("this machine has no address of IPv6, and its pods have IPv4 alone");
        return None;
    }
    Some(OfIpv6 { own: Ipv6 { pods, services }, ranges })
}

/// The ranges of pods that the node gives to its machine, one of each family; that of IPv4 first.
async fn ranges(client: &Client, name: &str) -> Result<Vec<String>> {
    let (nodes, begun) = (Api::<Node>::all(client.clone()), Instant::now());
    loop {
        let node = nodes.get(name).await.context("look after the range of pods")?;
        let spec = node.spec.unwrap_or_default();
        if let Some(v4) = spec.pod_cidr {
            let others = spec.pod_cidrs.into_iter().flatten().filter(|range| *range != v4);
            return Ok(std::iter::once(v4.clone()).chain(others).collect());
        }
        if begun.elapsed() >= RANGE {
            bail!(
                "the node has no range of pods for this machine (kubectl describe node {name}): delete the Node of a machine that is gone, and \
                 join again"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

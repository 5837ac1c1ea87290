//! `fluidos exposure`: what a peer can see or do here now, each with what proves it. It reads objects with the caller's
//! rights, asks the policies, tries the API as a stranger, and addresses from inside the guests that run on this machine.

mod inside;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use fluidos_model::kinds::{Contract, DiscoveryPolicy, KnownCluster, names};
use fluidos_security::exposure::inside::Ports;
use fluidos_security::exposure::{self, Row, View};
use fluidos_security::policy::{Action, Decision, Goods, Resource};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node as Machine, Pod, PodSpec, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table};
use crate::policy::Node;

/// About whom.
#[derive(clap::Args, Clone, Debug)]
pub struct Exposure {
    /// Name or DID of the peer.
    #[arg(value_name = "PEER")]
    peer: String,
    #[command(flatten)]
    look: Look,
}

/// Does what the verb says.
pub fn run(connection: &Connection, exposure: &Exposure) -> Result<()> {
    let rows = with(async {
        let client = connection.client().await?;
        let namespace = connection.namespace_or(names::NAMESPACE);
        let node = Node::read(&client, namespace).await?;
        let (did, known) = node.find(&exposure.peer)?;
        let did = did.ok_or_else(|| anyhow!("{} has proven no key, so nothing is known of it", exposure.peer))?;
        let policies = Api::<DiscoveryPolicy>::namespaced(client.clone(), namespace);
        let seen = policies.get_opt(names::DISCOVERY_POLICY).await.context("get discoverypolicies/default")?;
        let pods = all::<Pod>(&client, "pods").await?;
        let decisions = decisions(&node, &did, known, &pods);
        let mut view = View {
            peer: &did,
            contracts: &all::<Contract>(&client, "contracts").await?,
            nodes: &all::<Machine>(&client, "nodes").await?,
            namespaces: &all::<Namespace>(&client, "namespaces").await?,
            pods: &pods,
            services: &all::<Service>(&client, "services").await?,
            secrets: &all::<Secret>(&client, "secrets").await?,
            config_maps: &all::<ConfigMap>(&client, "configmaps").await?,
            named: &named,
            decisions: &decisions,
            api: as_stranger(connection).await,
            multicast: seen.and_then(|policy| policy.status?.multicast).map(|multicast| multicast.state),
            tried: &[],
            now: Timestamp::now(),
        };
        let guests = exposure::inside::guests(&view, ports(connection, &node).await);
        let tried =
            tokio::task::spawn_blocking(|| inside::try_all(guests)).await.context("try from inside of guests")?;
        view.tried = &tried;
        Ok(exposure::rows(&view))
    })?;
    look::show_values(&exposure.look, &rows, || table(&rows))
}

/// Where this node itself listens: its API as the caller reaches it, and REAR as its flavors say.
async fn ports(connection: &Connection, node: &Node) -> Ports {
    let rear = node.flavors().iter().find_map(|flavor| flavor.spec.owner.ip.parse::<SocketAddr>().ok());
    Ports { api: connection.port().await, rear: rear.map(|address| address.port()) }
}

fn named(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let named = fluidos_fabric::named(spec);
    (named.config_maps, named.secrets)
}

/// What the policies say about everything that this peer could do.
fn decisions(node: &Node, did: &str, known: Option<&KnownCluster>, pods: &[Pod]) -> Vec<(Action, String, Decision)> {
    let peer = (Some(did), known);
    let mut asked = Vec::new();
    for flavor in node.flavors() {
        for action in [Action::Discover, Action::Negotiate, Action::Reserve, Action::Buy] {
            let goods = Resource::Flavor(Box::new(Goods::of(flavor, None)));
            asked.push((action, flavor.name_any(), node.decide(action, peer, goods)));
        }
    }
    // The namespaces from which it has sent something; it may send from others.
    let origin = |pod: &Pod| {
        let origin = pod.annotations().get(names::ANNOTATION_ORIGIN)?;
        let tag = did.parse::<fluidos_identity::NodeId>().ok()?.tag();
        let mine = pod.labels().get(names::LABEL_PEER) == Some(&tag);
        mine.then(|| origin.split('/').next().unwrap_or_default().to_owned())
    };
    let namespaces: BTreeSet<String> = pods.iter().filter_map(origin).chain(["default".to_owned()]).collect();
    for namespace in namespaces {
        let workload = Resource::Workload { namespace: namespace.clone() };
        asked.push((Action::Offload, format!("from its {namespace}"), node.decide(Action::Offload, peer, workload)));
    }
    asked.push((Action::Receive, "our workloads".into(), node.decide(Action::Receive, peer, Resource::Node)));
    asked
}

/// What the API answers to who has no credential, or why it could not be asked.
async fn as_stranger(connection: &Connection) -> Result<u16, String> {
    let client = connection.stranger().await.map_err(|error| format!("{error:#}"))?;
    match Api::<Secret>::all(client).list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error.to_string()),
    }
}

async fn all<K>(client: &Client, plural: &str) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let objects = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    Ok(objects.with_context(|| format!("list {plural}"))?.items)
}

fn table(rows: &[Row]) -> Table {
    let cells = rows.iter().map(|row| {
        let can = match row.can {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let role = format!("{:?}", row.role).to_lowercase();
        vec![role, row.what.to_owned(), row.item.clone(), can.to_owned(), row.proof.clone()]
    });
    Table {
        heading: &["AS", "WHAT", "ITEM", "CAN", "PROOF"],
        narrow: 5,
        rows: cells.collect(),
        empty: "Nothing was found to be asked about.".into(),
    }
}

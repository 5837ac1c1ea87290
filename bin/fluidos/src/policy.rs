//! `fluidos policy`: asks the policies without doing anything. It reads what the node reads, with the caller's rights, and
//! decides with the same function.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    AccessPolicy, Acquaintance, AcquaintanceStanding, AttributeLevel, Flavor, KnownCluster, Rating, names,
};
use fluidos_model::market::{Amounts, Pool};
use fluidos_security::policy::{
    self, Action, Circumstances, Decision, Goods, Peer, Policies, Request, Resource, Text, compile,
};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::connection::{Connection, with};
use crate::output::Output;

/// Exit code when the policies could not be asked: neither yes nor no.
const NOT_ASKED: u8 = 2;
/// Who has proven no key.
const NOBODY: &str = "anonymous";

/// What is asked of the policies.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Policy {
    /// Whether a peer may do something, and which policy says so. Exit code: 0 it may, 1 it may not, 2 not asked.
    #[command(
        after_help = "Examples:\n  fluidos policy test --peer grid --action Buy\n  fluidos policy test --peer grid --action Buy --amounts cpu=4,memory=8Gi,pods=10\n  fluidos policy test --peer anonymous --action Discover -o json\n\nThe policies: kubectl get accesspolicies -n fluidos"
    )]
    Test(Test),
}

/// One question.
#[derive(clap::Args, Clone, Debug)]
pub struct Test {
    /// Name or DID of the peer; `anonymous` is who has proven no key.
    #[arg(long, value_name = "NAME|DID")]
    peer: String,
    /// Discover, Negotiate, Reserve, Buy, Offload or Receive.
    #[arg(long, value_parser = action)]
    action: Action,
    /// The flavor. Default: the one that is sold here.
    #[arg(long, value_name = "NAME", conflicts_with = "from_namespace")]
    flavor: Option<String>,
    /// How much of the flavor. Default: all that is left.
    #[arg(long, value_parser = crate::cli::up::offer, value_name = "cpu=..,memory=..,pods=..")]
    amounts: Option<Amounts>,
    /// For Offload: the namespace of the workload at its owner.
    #[arg(long, value_name = "NAMESPACE")]
    from_namespace: Option<String>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

fn action(text: &str) -> Result<Action, String> {
    text.parse()
}

/// Does what the verb says.
pub fn run(connection: &Connection, policy: &Policy) -> ExitCode {
    let Policy::Test(test) = policy;
    match ask(connection, test) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fluidos: {error:#}");
            ExitCode::from(NOT_ASKED)
        }
    }
}

fn ask(connection: &Connection, test: &Test) -> Result<bool> {
    let (asked, decision, faults) = with(async {
        let node = Node::read(&connection.client().await?, connection.namespace_or(names::NAMESPACE)).await?;
        let request = node.request(test, node.find(&test.peer)?)?;
        let decision = policy::decide(&node.policies, &request);
        Ok((request, decision, node.faults))
    })?;
    let answer = answer(&asked, &decision, &faults);
    if let Some(text) = test.output.structured(&answer)? {
        println!("{text}");
    } else {
        let may = if decision.allowed { "may" } else { "may not" };
        println!("{} {may} {}: {}", asked.peer.shown(), asked.action, decision.reason);
        println!("{}", known(&asked.peer));
        for fault in faults {
            eprintln!("note: {fault}");
        }
    }
    Ok(decision.allowed)
}

/// What the policies could know of who asks, in a few words; what is not known is `?`.
fn known(peer: &Peer) -> String {
    let option = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("?").to_owned();
    let domain = match (peer.domain.as_str(), peer.domain_proven) {
        ("", _) => "?".to_owned(),
        (domain, true) => format!("{domain} (proven)"),
        (domain, false) => format!("{domain} (claimed)"),
    };
    let rating = peer.rating.map_or("?".to_owned(), |rating| rating.to_string());
    let set = |words: &std::collections::BTreeSet<String>| match words.is_empty() {
        true => "none".to_owned(),
        false => words.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    // What is audited is claimed, too: the best says it all.
    let is_best = |word: &&String| {
        let (level, attribute) = word.split_once(' ').unwrap_or((word, ""));
        let place = |level: &str| AttributeLevel::WORDS.iter().position(|(_, word)| *word == level);
        !peer
            .evidence
            .iter()
            .any(|other| other.split_once(' ').is_some_and(|(l, a)| a == attribute && place(l) > place(level)))
    };
    let evidence = peer.evidence.iter().filter(is_best).cloned().collect();
    format!(
        "  owner: {}\n  domain: {domain}\n  credentials: {}\n  evidence: {}\n  rating: {rating}",
        option(peer.owner.as_deref()),
        set(&peer.credentials),
        set(&evidence),
    )
}

fn answer(asked: &Request, decision: &Decision, faults: &[String]) -> Value {
    json!({
        "peer": asked.peer.did.as_deref().unwrap_or(NOBODY),
        "action": asked.action.as_str(),
        "allowed": decision.allowed,
        "policies": decision.policies,
        "reason": decision.reason,
        "known": {
            "name": asked.peer.name,
            "domain": asked.peer.domain,
            "domainProven": asked.peer.domain_proven,
            "owner": asked.peer.owner,
            "metAs": asked.peer.origin,
            "credentials": asked.peer.credentials,
            "evidence": asked.peer.evidence,
            "rating": asked.peer.rating,
        },
        "notInForce": faults,
    })
}

/// What the decision point of a node sees, read once.
pub struct Node {
    /// In force.
    pub policies: Policies,
    /// Texts that are not.
    pub faults: Vec<String>,
    /// Who is known.
    pub known: Vec<KnownCluster>,
    ratings: Vec<Rating>,
    flavors: Vec<Flavor>,
    pool: Option<Arc<Pool>>,
}

impl Node {
    /// Reads it.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self> {
        let objects: Vec<AccessPolicy> = list(client, namespace, "accesspolicies").await?;
        let names: Vec<String> = objects.iter().map(|object| object.name_any()).collect();
        let texts = objects.iter().zip(&names).map(|(object, name)| Text {
            name,
            text: &object.spec.cedar,
            accepted: object.status.as_ref().map_or("", |status| &status.accepted),
        });
        let (policies, verdicts) = compile(&texts.collect::<Vec<_>>());
        // As the node does: what names a key goes on with the one that speaks now.
        let met: Vec<Acquaintance> = list(client, namespace, "acquaintances").await?;
        let keys: BTreeMap<NodeId, NodeId> = met.iter().filter_map(handed_over).collect();
        let policies = policies.following(|named| keys.get(named).copied().unwrap_or(*named)).unwrap_or(policies);
        let faults = verdicts.into_iter().filter_map(|verdict| {
            Some(format!("the text of policy {} is not in force: {}", verdict.name, verdict.fault?))
        });
        Ok(Self {
            policies,
            faults: faults.collect(),
            known: list(client, namespace, "knownclusters").await?,
            ratings: list(client, namespace, "ratings").await?,
            flavors: list(client, namespace, "flavors").await?,
            pool: fluidos_ledger::read(client, namespace).await?,
        })
    }

    /// DID and entry of a peer that is named so.
    ///
    /// # Errors
    /// Nobody or several are named so.
    pub fn find(&self, peer: &str) -> Result<(Option<String>, Option<&KnownCluster>)> {
        if peer == NOBODY {
            return Ok((None, None));
        }
        let known = |known: &&KnownCluster| {
            let spec = &known.spec;
            spec.did.as_deref() == Some(peer) || spec.name.as_deref() == Some(peer) || known.name_any() == peer
        };
        let found: Vec<&KnownCluster> = self.known.iter().filter(known).collect();
        match found.as_slice() {
            [one] => Ok((one.spec.did.clone(), Some(one))),
            [] if peer.parse::<NodeId>().is_ok() => Ok((Some(peer.to_owned()), None)),
            [] => Err(anyhow!("nobody is known as {peer}; see: fluidos peers, or give its DID")),
            several => {
                Err(anyhow!("{} peers call themselves {peer}: give the DID, see: fluidos peers -o wide", several.len()))
            }
        }
    }

    /// What was seen of it, under this key or under that with which it was met first.
    fn rating(&self, did: Option<&str>, known: Option<&KnownCluster>) -> Option<&Rating> {
        let of = |did: &str| self.ratings.iter().find(|rating| rating.spec.did == did);
        let origin = known.and_then(|known| known.status.as_ref()?.identity.as_ref()?.origin.as_deref());
        did.and_then(of).or_else(|| origin.and_then(of))
    }

    /// The flavors that are sold here.
    pub fn flavors(&self) -> &[Flavor] {
        &self.flavors
    }

    /// Decides about a peer, now.
    pub fn decide(&self, action: Action, peer: (Option<&str>, Option<&KnownCluster>), resource: Resource) -> Decision {
        policy::decide(&self.policies, &self.put(action, peer, resource))
    }

    fn put(&self, action: Action, (did, known): (Option<&str>, Option<&KnownCluster>), resource: Resource) -> Request {
        let now = Timestamp::now();
        let context = match (&self.pool, did) {
            (Some(pool), Some(did)) if matches!(action, Action::Reserve | Action::Buy) => {
                Circumstances::of(pool, did, None, now)
            }
            _ => Circumstances::at(now),
        };
        Request { action, peer: Peer::of(did, action, known, self.rating(did, known), now), resource, context }
    }

    fn request(&self, test: &Test, (did, known): (Option<String>, Option<&KnownCluster>)) -> Result<Request> {
        let resource = match test.action {
            Action::Receive => Resource::Node,
            Action::Offload => {
                let namespace = test.from_namespace.clone();
                Resource::Workload { namespace: namespace.context("Offload is about a workload: --from-namespace")? }
            }
            _ => Resource::Flavor(Box::new(Goods::of(self.flavor(test.flavor.as_deref())?, test.amounts.as_ref()))),
        };
        if test.from_namespace.is_some() && test.action != Action::Offload {
            bail!("--from-namespace is for Offload; {} is not about a workload", test.action);
        }
        if (test.flavor.is_some() || test.amounts.is_some()) && !matches!(resource, Resource::Flavor(_)) {
            bail!("--flavor and --amounts are for what is sold; {} is not about that", test.action);
        }
        Ok(self.put(test.action, (did.as_deref(), known), resource))
    }

    fn flavor(&self, name: Option<&str>) -> Result<&Flavor> {
        let names = || self.flavors.iter().map(|flavor| flavor.name_any()).collect::<Vec<_>>().join(", ");
        match (name, self.flavors.as_slice()) {
            (Some(name), flavors) => flavors
                .iter()
                .find(|flavor| flavor.name_any() == name)
                .ok_or_else(|| anyhow!("no flavor {name} is sold here; there are: {}", names())),
            (None, [one]) => Ok(one),
            (None, []) => Err(anyhow!("nothing is sold here, so there is nothing to ask about (fluidos up --offer)")),
            (None, _) => Err(anyhow!("several flavors are sold here, choose by --flavor: {}", names())),
        }
    }
}

/// The key under which a node was met first, and the one that speaks for it now.
fn handed_over(met: &Acquaintance) -> Option<(NodeId, NodeId)> {
    let status = met.status.as_ref().filter(|status| status.standing == Some(AcquaintanceStanding::Current))?;
    Some((met.spec.did.parse().ok()?, status.key.parse().ok()?))
}

async fn list<K>(client: &Client, namespace: &str, plural: &str) -> Result<Vec<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    Ok(objects.with_context(|| format!("list {plural} in namespace {namespace}"))?.items)
}

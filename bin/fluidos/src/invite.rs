//! `fluidos invite --agent`: a string by which another machine of the same owner joins this node.
//!
//! ```text
//! ConfigMap kube-system/fluidos-agents: address, authority ─┐
//! account kube-system/node-bootstrapper ─ token, for --ttl ─┴─▶ fluidos-agent-1.…   standard output, nothing else
//! ```
//!
//! An *invitation* is a credential: whoever has it may make machines of this node until it is over or the account is deleted.
#![allow(clippy::print_stdout)] // the answer of a verb

mod string;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use self::string::Invitation;
use crate::connection::{Connection, timeout, with};
use crate::node::agents;

/// The namespace of the account and of what is said to agents.
pub const NAMESPACE: &str = "kube-system";
/// Whose token is in the string.
pub const ACCOUNT: &str = "node-bootstrapper";
/// What it may do: ask for certificates of machines, and have them without anybody looking.
const ROLES: [&str; 2] =
    ["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"];
/// The API gives no token for less (`TokenRequest`).
const TTL_MIN: Duration = Duration::from_secs(600);

/// What is invited, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Invite {
    /// A machine that runs pods for this node.
    #[arg(long, required = true)]
    agent: bool,
    /// How long the invitation is good, as 30m or 2h; ten minutes at least.
    #[arg(long, default_value = "1h", value_parser = timeout, value_name = "TIME")]
    ttl: Duration,
    /// Where the machine reaches the API, as https://192.0.2.7:6443. Default: where the node says that it is reached.
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// What to print: the string, or an object that has it.
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Does what the verb says.
pub fn run(connection: &Connection, invite: &Invite) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let invitation = make(&client, invite).await?;
        let string = invitation.to_string();
        if invite.output == "json" {
            let all = json!({ "invitation": string, "server": invitation.server, "expires": invitation.expires });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            println!("{string}");
        }
        eprintln!(
            "On the other machine, as root, until {}: fluidos join STRING --data-dir DIR\nWhoever has the string can join. To take \
             all invitations back: kubectl delete serviceaccount {ACCOUNT} -n {NAMESPACE}",
            invitation.expires
        );
        Ok(())
    })
}

async fn make(client: &Client, invite: &Invite) -> Result<Invitation> {
    if invite.ttl < TTL_MIN {
        bail!("--ttl {:?}: needed ten minutes at least", invite.ttl);
    }
    let told = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get_opt(agents::CONFIG_MAP).await?;
    let told = told.and_then(|map| map.data).with_context(|| {
        format!(
            "ConfigMap {NAMESPACE}/{} is missing: this API is of no FLUIDOS node, or of an older one",
            agents::CONFIG_MAP
        )
    })?;
    let server = match (&invite.api_server, told.get(agents::SERVER)) {
        (Some(given), _) => given.clone(),
        (None, Some(server)) => server.clone(),
        (None, None) => bail!(
            "the API listens on this machine alone, so no other can join: start the node with --api 0.0.0.0:6443 (or an address of this \
             machine); for an agent on this machine: --api-server https://127.0.0.1:6443"
        ),
    };
    let authority = told.get(agents::AUTHORITY).context("the node has not said which authority its API has")?;
    let token = token(client, invite.ttl).await.context("make the token")?;
    let expires = Timestamp::now() + invite.ttl;
    let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
    Invitation::new(server, authority.clone(), token, expires)
}

/// A token of the account, which is made with its rights if it is not there.
async fn token(client: &Client, ttl: Duration) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    ensure(&accounts, json!({ "metadata": { "name": ACCOUNT } })).await?;
    let group = "rbac.authorization.k8s.io";
    for role in ROLES {
        let binding = json!({ "metadata": { "name": format!("{ACCOUNT}:{}", role.rsplit(':').next().unwrap_or_default()) },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "namespace": NAMESPACE, "name": ACCOUNT }] });
        ensure(&Api::<ClusterRoleBinding>::all(client.clone()), binding).await?;
    }
    let request: TokenRequest = serde_json::from_value(
        json!({ "metadata": {}, "spec": { "audiences": [], "expirationSeconds": ttl.as_secs() } }),
    )?;
    let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await?;
    Ok(answer.status.context("the API gave no token")?.token)
}

async fn ensure<K>(api: &Api<K>, object: serde_json::Value) -> Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

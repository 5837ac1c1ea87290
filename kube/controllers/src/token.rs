//! Secrets of type `kubernetes.io/service-account-token`: whoever writes one, naming an account, finds in it a token of that account without
//! an end, beside what else a client needs. It goes with its account.
//!
//! ```text
//! Secret ── names ──▶ ServiceAccount     there: token, ca.crt, namespace are filled in        not there: the Secret is deleted
//! ```

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client};
use substrate_client::Cache;

use crate::objects::{name, namespace, uid};
use crate::work::{Next, Rounds};

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Makes a token: namespace, name and uid of the account, name of the Secret. It is the API server's to say what is in it.
pub type Minter = Arc<dyn Fn(&str, (&str, &str), &str) -> Result<String, String> + Send + Sync>;

/// Fills and clears away until dropped. `certificate` is PEM.
pub(crate) async fn run(client: Client, accounts: Cache<ServiceAccount>, certificate: Option<String>, minter: Minter) {
    let config = watcher::Config::default().fields("type=kubernetes.io/service-account-token");
    let secrets: Cache<Secret> = Cache::start_with(Api::all(client.clone()), config);
    let mut rounds = Rounds::begin(vec![secrets.changes(), accounts.changes()]).await;
    loop {
        let mut next = Next::default();
        for secret in secrets.list().iter().filter(|secret| secret.metadata.deletion_timestamp.is_none()) {
            let result = one(&client, secret, &accounts, certificate.as_deref(), &minter).await;
            next.judge("Secret", &secret.metadata, result);
        }
        rounds.wait(next).await;
    }
}

async fn one(
    client: &Client,
    secret: &Secret,
    accounts: &Cache<ServiceAccount>,
    certificate: Option<&str>,
    minter: &Minter,
) -> Result<(), kube::Error> {
    let home = namespace(&secret.metadata);
    let annotation =
        |key: &str| secret.metadata.annotations.iter().flatten().find(|(k, _)| *k == key).map(|(_, v)| v.as_str());
    let wanted = annotation(ACCOUNT).unwrap_or_default();
    let same = |account: &ServiceAccount| {
        annotation(ACCOUNT_UID).is_none_or(|known| known.is_empty() || known == uid(&account.metadata))
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let Some(account) = accounts.get(home, wanted).filter(|account| same(account)) else {
        // What the cache does not have may have been made a moment ago.
        let live: Api<ServiceAccount> = Api::namespaced(client.clone(), home);
        if !wanted.is_empty() && live.get_opt(wanted).await?.is_some_and(|account| same(&account)) {
            return Ok(());
        }
        let seen = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        api.delete(name(&secret.metadata), &DeleteParams::default().preconditions(seen)).await?;
        return Ok(());
    };
    let data = secret.data.clone().unwrap_or_default();
    let mut full = data.clone();
    let has = |key: &str| data.get(key).is_some_and(|bytes| !bytes.0.is_empty());
    if let Some(certificate) = certificate {
        full.insert("ca.crt".into(), ByteString(certificate.into()));
    }
    if !has("namespace") {
        full.insert("namespace".into(), ByteString(home.into()));
    }
    if !has("token") {
        let account = (name(&account.metadata), uid(&account.metadata));
        match minter(home, account, name(&secret.metadata)) {
            Ok(token) => drop(full.insert("token".into(), ByteString(token.into()))),
            Err(why) => tracing::warn!(namespace = home, why, "no token was made"),
        }
    }
    if full == data && annotation(ACCOUNT_UID).is_some_and(|known| !known.is_empty()) {
        return Ok(());
    }
    let mut filled = secret.clone();
    filled.data = Some(full);
    let annotations = filled.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.into(), uid(&account.metadata).to_owned());
    api.replace(name(&secret.metadata), &PostParams::default(), &filled).await.map(|_| ())
}

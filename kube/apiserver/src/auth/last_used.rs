//! When a token that is kept in a Secret was last used, to the day, as a label of the Secret (KEP-2799): who looks for those that nobody needs finds
//! them by it. It costs one write a day for each Secret.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::User;
use super::account_tokens::find;
use crate::server::ApiServer;
use crate::status::Status;
use crate::verbs;

const LABEL: &str = "kubernetes.io/legacy-token-last-used";
/// Secrets of one day; of more it is noted when the process starts again.
const NOTED_MAX: usize = 4096;
/// A Secret that is being changed is read again so often.
const TRIES: usize = 5;

/// What is noted already: the day, and the Secrets by their uid.
#[derive(Default)]
pub(super) struct LastUsed(Mutex<(String, HashSet<String>)>);

impl LastUsed {
    /// The token of this Secret is used now.
    pub fn note(&self, server: &ApiServer, secret: &Value) {
        let (metadata, today) = (&secret["metadata"], jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        if metadata["labels"][LABEL] == today.as_str() || !self.is_first(&today, text("uid")) {
            return;
        }
        let (server, namespace, name, uid) = (server.clone(), text("namespace"), text("name"), text("uid"));
        tokio::spawn(async move {
            if let Err(why) = write(&server, (&namespace, &name, &uid), &today).await {
                tracing::warn!(namespace, name, "when the token of a Secret was last used is not noted: {why}");
            }
        });
    }

    fn is_first(&self, today: &str, uid: String) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.0 != today {
            *noted = (today.to_owned(), HashSet::new());
        }
        noted.1.len() < NOTED_MAX && noted.1.insert(uid)
    }
}

async fn write(server: &ApiServer, (namespace, name, uid): (&str, &str, &str), today: &str) -> Result<(), Status> {
    let (kind, own) = (server.kind("", "v1", "secrets")?, User::new("system:apiserver", &["system:masters"]));
    for tried in 1.. {
        let found = find(server, "secrets", namespace, name)?;
        let Some(mut secret) = found.filter(|secret| secret["metadata"]["uid"] == uid) else { return Ok(()) };
        secret["metadata"]["labels"][LABEL] = json!(today);
        match verbs::update_object(server, &own, &kind, namespace, name, secret).await {
            Err(status) if status.reason == "Conflict" && tried < TRIES => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

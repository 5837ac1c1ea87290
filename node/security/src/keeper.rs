//! Keeps the policies in force as the objects say, and the trust of KnownClusters as the policies say.

mod act;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_identity::Speakers;
use fluidos_model::kinds::{AccessPolicy, KnownCluster, Rating, names};
use jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use substrate_client::{Cache, Caches};

use crate::point::Handle;
use crate::policy::{self, Action, Circumstances, Flags, Text, Verdict};

/// Policies may speak of the time, in minutes.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often the counts of decisions are written, if they have changed.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(5);

/// What the Privacy and Security Manager is told.
#[derive(Clone)]
pub struct Options {
    /// Reads and writes its kinds.
    pub client: Client,
    /// The copies of the API that all rooms share.
    pub caches: Caches,
    /// What the policies `offer` and `trust` say.
    pub flags: Flags,
    /// Which keys count no more.
    pub speakers: Speakers,
}

struct Keeper {
    client: Client,
    policies: Cache<AccessPolicy>,
    known: Cache<KnownCluster>,
    ratings: Cache<Rating>,
    handle: Handle,
    /// The texts that are in force, by uid of their object.
    accepted: BTreeMap<String, String>,
    /// What was compiled last: name, uid and text.
    compiled: Option<Vec<(String, String, String)>>,
    /// What became of each.
    verdicts: Vec<Verdict>,
    counted: Instant,
}

/// Writes the first two policies and returns the decision point, whose policies are in force, and what keeps it so, for ever.
///
/// # Errors
/// The API's, if the policies cannot be written: nothing may start without them.
pub async fn start(options: Options) -> kube::Result<(Handle, impl Future<Output = ()> + Send + 'static)> {
    let Options { client, caches, flags, speakers } = options;
    act::first(&client, names::POLICY_OFFER, &policy::offer(&flags)).await?;
    act::first(&client, names::POLICY_TRUST, &policy::trust(&flags)).await?;
    let policies = caches.namespaced(names::NAMESPACE);
    let known = caches.namespaced(names::NAMESPACE);
    let ratings = caches.namespaced(names::NAMESPACE);
    tokio::join!(policies.synced(), known.synced(), ratings.synced());
    let handle = Handle::new(known.clone(), ratings.clone(), speakers);
    let mut keeper = Keeper {
        client,
        policies,
        known,
        ratings,
        handle: handle.clone(),
        accepted: BTreeMap::new(),
        compiled: None,
        verdicts: Vec::new(),
        counted: Instant::now(),
    };
    keeper.obey().await;
    Ok((handle, keeper.run()))
}

impl Keeper {
    async fn run(mut self) {
        let mut policies = self.policies.changes();
        let mut known = self.known.changes();
        let mut ratings = self.ratings.changes();
        loop {
            for changes in [&mut policies, &mut known, &mut ratings] {
                changes.mark_unchanged();
            }
            self.obey().await;
            self.judge().await;
            // Each arm only waits: losing the race loses nothing.
            tokio::select! {
                _ = policies.changed() => {}
                _ = known.changed() => {}
                _ = ratings.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN.min(COUNT_EVERY)) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Takes the texts of the objects, and tells what became of each.
    async fn obey(&mut self) {
        let objects = self.policies.list();
        let texts: Vec<(String, String, String)> =
            objects.iter().map(|o| (o.name_any(), o.uid().unwrap_or_default(), o.spec.cedar.clone())).collect();
        let changed = self.compiled.as_ref() != Some(&texts);
        if changed {
            self.compile(&objects, &texts);
            self.compiled = Some(texts);
        } else if self.counted.elapsed() < COUNT_EVERY {
            return;
        }
        self.counted = Instant::now();
        let counts = self.handle.counts();
        for object in &objects {
            let name = object.name_any();
            let Some(verdict) = self.verdicts.iter().find(|verdict| verdict.name == name) else { continue };
            let status = plan::status(verdict, &counts);
            if object.status.as_ref() == Some(&status) {
                continue;
            }
            if let Some(fault) = verdict.fault.as_ref().filter(|_| changed) {
                tracing::warn!(policy = name, fault, "a policy is refused");
            }
            if let Err(error) = act::status(&self.client, &name, &status).await {
                tracing::warn!(%error, policy = name, "the status of an AccessPolicy could not be written");
            }
        }
    }

    /// Puts what can be read in force.
    fn compile(&mut self, objects: &[Arc<AccessPolicy>], texts: &[(String, String, String)]) {
        self.accepted.retain(|uid, _| texts.iter().any(|(_, known, _)| known == uid));
        for object in objects {
            let said = object.status.as_ref().map(|status| status.accepted.clone()).unwrap_or_default();
            self.accepted.entry(object.uid().unwrap_or_default()).or_insert(said);
        }
        let accepted = |uid: &String| self.accepted.get(uid).map_or("", String::as_str);
        let input: Vec<Text<'_>> =
            texts.iter().map(|(name, uid, text)| Text { name, text, accepted: accepted(uid) }).collect();
        let (policies, verdicts) = policy::compile(&input);
        if let Some(why) = policies.closed() {
            tracing::error!(why, "nothing is permitted to anybody");
        }
        self.handle.set(policies);
        for (_, uid, verdict) in
            texts.iter().filter_map(|(name, uid, _)| Some((name, uid, verdicts.iter().find(|v| v.name == *name)?)))
        {
            self.accepted.insert(uid.clone(), verdict.accepted.clone());
        }
        self.verdicts = verdicts;
    }

    /// Writes whom the policies trust.
    async fn judge(&mut self) {
        let now = Circumstances::at(Timestamp::now());
        for known in self.known.list() {
            let decision = self.handle.look(Action::Receive, &known, now.clone());
            let Some(change) = plan::trust(&known, &decision) else { continue };
            self.handle.count(&decision);
            tracing::info!(
                target: "fluidos::decision",
                action = %Action::Receive, peer = known.spec.name, did = known.spec.did, allowed = decision.allowed,
                policies = change.policy, reason = decision.reason
            );
            if let Err(error) = act::trust(&self.client, &known.name_any(), &change).await {
                tracing::warn!(%error, peer = known.name_any(), "the trust of a KnownCluster could not be written");
            }
        }
    }
}

//! Makes a twin of a pod that was put: checked, given its place, written.

use fluidos_model::kinds::names;
use fluidos_model::market::requested;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Session, origin_uid};
use crate::Error;
use crate::frames::{self, PODS_MAX, Put};
use crate::resale::{self, Onward};
use crate::twins::build::{self, Standing, Twin};
use crate::twins::burst;
use crate::twins::yields::Asked;

/// What became of a pod that was put.
pub(super) enum Made {
    Done,
    /// Its name is still in use.
    Later,
    Refused(String),
    /// There is no room for it now, and others come first.
    Yields(String),
}

impl Session<'_> {
    /// Makes the twin of a pod, or brings what goes with it up to date.
    pub(super) async fn make(&self, put: &Put, uid: &str) -> Result<Made, Error> {
        let refused = |reason: String| {
            let name = put.pod.name_any();
            Made::Refused(format!("pods {:?} is forbidden: {reason}", frames::cut(&name, 253)))
        };
        let twins = self.twins().await?;
        let known = twins.iter().find(|known| origin_uid(known).as_deref() == Some(uid));
        let _alone = if self.deal.served_by.is_some() { Some(self.shared.standing_in.lock().await) } else { None };
        let twin = match self.standing(put, uid, &twins, known).await? {
            Ok(standing) => build::build(&self.deal, put, &standing),
            Err(reason) => Err(reason),
        };
        let twin = match twin {
            Ok(twin) => twin,
            Err(reason) => return Ok(refused(reason)),
        };
        let mut _turn = None;
        if known.is_none() {
            let from = put.pod.metadata.namespace.as_deref().unwrap_or_default();
            if let Some(Err(reason)) = self.shared.admit.as_ref().map(|admit| admit(&self.deal.buyer, from)) {
                return Ok(refused(reason));
            }
            if twins.len() >= PODS_MAX {
                return Ok(refused(format!("there are {} twins, at most {PODS_MAX}", twins.len())));
            }
            if let Err(reason) = twin.pod.spec.as_ref().map_or(Ok(()), |spec| build::fits(&self.deal, &twins, spec)) {
                return Ok(refused(reason));
            }
            // What another serves takes nothing of what is here.
            if self.deal.served_by.is_none() {
                _turn = burst::turn(self.shared).await;
                let amounts = twin.pod.spec.as_ref().and_then(|spec| requested(spec).ok()).unwrap_or_default();
                let asked = Asked { uid: uid.to_owned(), amounts, since: None };
                if let Some(reason) = burst::begin(self.shared, &self.deal.name, asked).await? {
                    return Ok(Made::Yields(reason));
                }
            }
        }
        match self.write(&twin, known.is_some()).await {
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => Ok(Made::Later),
            Err(Error::Api { source: kube::Error::Api(status), .. })
                if matches!(status.code, 400 | 403 | 413 | 422) =>
            {
                // A namespace that is on its way out takes no new objects for a moment.
                let is_ending = self.shared.namespaces.get("", &twin.namespace.name_any());
                match is_ending.is_some_and(|found| found.metadata.deletion_timestamp.is_some()) {
                    true => Ok(Made::Later),
                    false => Ok(Made::Refused(status.message)),
                }
            }
            Err(Error::NoContract { reason, .. }) => Ok(refused(reason)),
            other => other.map(|()| Made::Done),
        }
    }

    /// Where a twin stands, or why it cannot, in words. Whoever asks gives stand-ins alone.
    async fn standing(
        &self,
        put: &Put,
        uid: &str,
        twins: &[Pod],
        known: Option<&Pod>,
    ) -> Result<Result<Standing, String>, Error> {
        let of = |node| (self.shared.prefix_of)(node).map(|prefix| resale::range(&prefix));
        let (Some(own), Some(consumer)) = (of(&self.shared.id()), of(&self.deal.buyer)) else {
            return Ok(Err("where its consumer's addresses are is not known yet".into()));
        };
        let homes = twins.iter().filter_map(resale::home).collect();
        let home = match resale::checked(put.home, own, consumer, &homes) {
            Ok(home) => home,
            Err(why) => return Ok(Err(why)),
        };
        let onward = match &self.deal.served_by {
            None => None,
            Some(contract) => {
                let stand_in = match known.and_then(resale::stand_in) {
                    Some(stand_in) => Some(stand_in),
                    None => {
                        let labelled = ListParams::default().labels(names::LABEL_CONTRACT);
                        let all = Api::<Pod>::all(self.shared.client.clone()).list(&labelled).await;
                        let all = all.map_err(Error::api("list twins"))?.items;
                        resale::choose(own, uid, &all.iter().filter_map(resale::stand_in).collect())
                    }
                };
                let Some(stand_in) = stand_in else {
                    return Ok(Err(format!("all addresses of {own} for pods that others run are in use")));
                };
                Some(Onward { contract: contract.clone(), stand_in })
            }
        };
        Ok(Ok(Standing { consumer: Some(consumer), home, onward }))
    }

    /// Writes a twin: what it needs first.
    async fn write(&self, twin: &Twin, known: bool) -> Result<(), Error> {
        let client = &self.shared.client;
        let namespace = twin.namespace.name_any();
        let api = Api::<Namespace>::all(client.clone());
        match api.create(&PostParams::default(), &twin.namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = api.get(&namespace).await.map_err(Error::api(format!("read namespace {namespace}")))?;
                // Eight digits of a key can be made to measure; the whole key cannot.
                let owner = found.annotations().get(names::ANNOTATION_PEER_DID);
                if owner.map(String::as_str) != Some(self.deal.buyer_named.to_string().as_str()) {
                    let reason = format!("namespace {namespace} belongs to somebody else here");
                    return Err(Error::NoContract { contract: self.deal.name.clone(), reason });
                }
            }
            other => drop(other.map_err(Error::api(format!("create namespace {namespace}")))?),
        }
        for map in &twin.config_maps {
            put_object::<ConfigMap>(client, map).await?;
        }
        for secret in &twin.secrets {
            put_object::<Secret>(client, secret).await?;
        }
        if known {
            return Ok(());
        }
        let action = format!("create pod {namespace}/{}", twin.pod.name_any());
        let api = Api::<Pod>::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &twin.pod).await.map(drop).map_err(Error::api(action))
    }
}

/// Creates an object, or replaces what it holds.
async fn put_object<K>(client: &kube::Client, object: &K) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let action = || format!("write {} {namespace}/{name}", K::kind(&()));
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => return other.map(drop).map_err(Error::api(action())),
    }
    api.replace(&name, &PostParams::default(), object).await.map(drop).map_err(Error::api(action()))
}

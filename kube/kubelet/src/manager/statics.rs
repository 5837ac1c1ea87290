//! The workers of static pods, and what the API shows of them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::pod::plan::grace;
use crate::static_pods::mirror_key;

impl Manager {
    /// Takes in what the files say now: pods that they say no more end, and those of an earlier run that nobody knows are swept.
    pub(super) async fn take_statics(&mut self) {
        let wanted = self.statics.borrow_and_update().clone().unwrap_or_default();
        let gone: Vec<String> = self.own.keys().filter(|uid| !wanted.contains_key(*uid)).cloned().collect();
        for uid in gone {
            let Some(worker) = self.workers.get(&uid) else { continue };
            worker.input.send_modify(|input| {
                let (mut pod, seconds) = (Pod::clone(&input.pod), grace(&input.pod).as_secs());
                let due = Timestamp::now() + Duration::from_secs(seconds);
                pod.metadata.deletion_grace_period_seconds = i64::try_from(seconds).ok();
                pod.metadata.deletion_timestamp = Some(Time(due));
                input.pod = Arc::new(pod);
            });
        }
        for uid in leftovers(&self.shared, &BTreeSet::new()).await {
            if is_own(&uid) && !wanted.contains_key(&uid) && !self.workers.contains_key(&uid) {
                tracing::info!(uid, "a static pod that no file says any more is stopped");
                if let Err(why) = sweep_all(&self.shared, &uid).await {
                    tracing::warn!(uid, "stop a leftover pod: {why}");
                }
            }
        }
        self.own = wanted;
        self.start_statics();
    }

    /// Whether there is a static pod without a worker, or a worker without its pod.
    pub(super) fn waits(&self) -> bool {
        let own = self.workers.keys().filter(|uid| is_own(uid)).count();
        own != self.own.len() || !self.own.keys().all(|uid| self.workers.contains_key(uid))
    }

    /// Starts static pods whose name nobody has any more.
    pub(super) fn start_statics(&mut self) {
        self.workers.retain(|_, w| !w.task.is_finished());
        let workers = &self.workers;
        let over = |uid: &String| is_own(uid) && !workers.contains_key(uid);
        self.pods.send_if_modified(|pods| {
            let before = pods.len();
            pods.retain(|uid, _| !over(uid));
            pods.len() != before
        });
        let taken: BTreeSet<_> = self.workers.values().map(|w| mirror_key(&w.input.borrow().pod)).collect();
        let all = self.own.clone();
        let free =
            all.into_iter().filter(|(uid, pod)| !self.workers.contains_key(uid) && !taken.contains(&mirror_key(pod)));
        for (uid, pod) in free.collect::<Vec<_>>() {
            let mirrors = self.mirrors.borrow().clone().unwrap_or_default();
            let shown = mirrors.get(&mirror_key(&pod)).filter(|mirror| shown(mirror) == Some(&uid)).cloned();
            self.give(&uid, Input { pod, gone: false, shown, evicted: None });
        }
    }

    /// Takes in a mirror; the worker of its pod is told what the API shows.
    pub(super) fn shows(&mut self, mirror: Arc<Pod>) {
        let own = shown(&mirror).unwrap_or_default();
        if let Some(worker) = self.workers.get(own) {
            worker.input.send_modify(|input| input.shown = Some(Arc::clone(&mirror)));
        }
        let (key, uid) = (mirror_key(&mirror), mirror.metadata.uid.clone().unwrap_or_default());
        self.shared.shown_as(uid, Some(own.to_owned()));
        self.mirrors.send_modify(|all| drop(all.get_or_insert_default().insert(key, mirror)));
    }

    /// Forgets the mirrors that are gone; from the first time on the API has said which there are.
    pub(super) fn unshown(&mut self, is_gone: impl Fn(&Pod) -> bool) {
        let mut gone = Vec::new();
        self.mirrors.send_modify(|all| {
            all.get_or_insert_default().retain(|_, mirror| {
                let is_gone = is_gone(mirror);
                gone.extend(is_gone.then(|| Arc::clone(mirror)));
                !is_gone
            });
        });
        for mirror in gone {
            self.shared.shown_as(mirror.metadata.uid.clone().unwrap_or_default(), None);
            let Some(worker) = self.workers.get(shown(&mirror).unwrap_or_default()) else { continue };
            worker.input.send_if_modified(|input| {
                let same = input.shown.as_ref().is_some_and(|known| known.metadata.uid == mirror.metadata.uid);
                same && input.shown.take().is_some()
            });
        }
    }
}

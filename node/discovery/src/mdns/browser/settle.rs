//! What follows for one instance or one host: what is new of it, what is asked, when it is looked at again, and when it is gone.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::{ASKED_MAX, Browser, GATHER, Item, NEWS_EVERY, UNPROVEN};
use crate::mdns::jitter::Jitter;
use crate::mdns::life::Life;
use crate::mdns::message::{self, Kind, Question};
use crate::mdns::responder::SPREAD;
use crate::mdns::ways::Ways;
use crate::mdns::{Heard, INSTANCES_MAX};

impl Browser {
    /// Says what is new of an instance, asks for what is missing or nearly over, and notes when to look again.
    pub(super) fn settle(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let over = |life: &Life| life.is_over(now);
        if instance.service.as_ref().is_some_and(|(_, life)| over(life)) {
            let host = instance.service.take().map(|(host, _)| host);
            if let Some(host) = host {
                self.leave(name, &host);
            }
        }
        let Some(instance) = self.instances.get_mut(name) else { return };
        if instance.text.as_ref().is_some_and(|(_, life)| over(life)) {
            instance.text = None;
        }
        let is_proven = instance.signed.is_ok();
        let is_whole = instance.service.is_some() && instance.text.is_some();
        let is_unproven_long = !is_proven && now.duration_since(instance.since) >= UNPROVEN;
        if over(&instance.pointer) || is_unproven_long || (is_proven && !is_whole && instance.told.is_some()) {
            self.forget(name);
            return;
        }
        self.tell(name, now);
        self.schedule(name, jitter, now);
    }

    pub(super) fn forget(&mut self, name: &Name) {
        let Some(instance) = self.instances.remove(name) else { return };
        if instance.signed.is_err() {
            self.unproven = self.unproven.saturating_sub(1);
        }
        if let Some((host, _)) = &instance.service {
            self.leave(name, host);
        }
        self.news.remove(name);
        if matches!(instance.told, Some((Heard::Node(_), _))) {
            self.news.insert(name.clone(), Heard::Gone(message::label(name)));
        }
    }

    pub(super) fn tell(&mut self, name: &Name, now: Instant) {
        let Some(instance) = self.instances.get_mut(name) else { return };
        let (Some((host, _)), Some(_)) = (&instance.service, &instance.text) else { return };
        let Some(host) = self.hosts.get(host).filter(|host| !host.addresses.is_empty()) else { return };
        let addresses = host.addresses.keys().map(|(_, ip)| *ip);
        let heard = match instance.signed.clone().and_then(|signed| signed.at(addresses)) {
            Ok(sighting) => Heard::Node(sighting),
            Err(why) => Heard::Refused(name.to_string().chars().take(80).collect(), why),
        };
        if instance.told.as_ref().is_some_and(|(told, at)| *told == heard || now.duration_since(*at) < NEWS_EVERY) {
            return;
        }
        if self.news.len() < INSTANCES_MAX || self.news.contains_key(name) {
            self.news.insert(name.clone(), heard.clone());
            instance.told = Some((heard, now));
        }
    }

    pub(super) fn schedule(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) {
        let grid = self.grid;
        let Some(instance) = self.instances.get_mut(name) else { return };
        let mut due = instance.pointer.end();
        let lives = [instance.service.as_ref().map(|(_, life)| life), instance.text.as_ref().map(|(_, life)| life)];
        let kinds = [Kind::Service, Kind::Text];
        // Who does not answer by the version by which it was heard is asked everywhere.
        let (mut questions, mut by) = (Vec::new(), Ways::of(&instance.heard_by));
        for (life, kind) in lives.into_iter().zip(kinds) {
            match life {
                Some(life) if life.is_ending() => due = due.min(life.end()),
                Some(life) => {
                    let (asks, next) = life.refresh(name, jitter, now);
                    due = due.min(grid.together(next));
                    questions.extend((asks > 0).then_some(kind));
                    if asks > 1 {
                        by = Ways::All;
                    }
                }
                None if instance.asked < ASKED_MAX => {
                    questions.push(kind);
                    by = Ways::All;
                }
                None => {}
            }
        }
        if instance.service.is_none() || instance.text.is_none() {
            due = due.min(now + Duration::from_secs(1) * 2u32.pow(instance.asked.into()));
            instance.asked = (instance.asked + 1).min(ASKED_MAX);
        } else {
            instance.asked = 0;
        }
        if instance.signed.is_err() {
            due = due.min(instance.since + UNPROVEN);
        }
        if let Some((_, at)) = &instance.told
            && now.duration_since(*at) < NEWS_EVERY
        {
            due = due.min(*at + NEWS_EVERY);
        }
        if instance.due != due || due <= now {
            instance.due = due.max(now + Duration::from_millis(1));
            self.deadlines.push(Reverse((instance.due, Item::Instance(name.clone()))));
        }
        let urgent = lives.iter().any(Option::is_none);
        self.ask(name, &questions, by, if urgent { jitter.between(SPREAD) } else { GATHER }, now);
        self.shrink();
    }

    /// Forgets addresses that are over and asks for those that nearly are. Returns the instances there, if an address has gone.
    pub(super) fn look_at_host(&mut self, name: &Name, jitter: &mut Jitter, now: Instant) -> Vec<Name> {
        let grid = self.grid;
        let Some(host) = self.hosts.get_mut(name) else { return Vec::new() };
        let before = host.addresses.len();
        host.addresses.retain(|_, life| !life.is_over(now));
        let changed = host.addresses.len() != before;
        let mut kinds = Vec::new();
        let mut due = None;
        for ((_, ip), life) in &host.addresses {
            let (asks, next) = if life.is_ending() {
                (0, life.end())
            } else {
                let (asks, next) = life.refresh_later(name, jitter, now);
                (asks, grid.together(next))
            };
            due = Some(due.map_or(next, |due: Instant| due.min(next)));
            kinds.extend((asks > 0).then_some(if ip.is_ipv4() { Kind::A } else { Kind::Aaaa }));
        }
        let is_unknown = host.addresses.is_empty();
        if is_unknown && host.asked < ASKED_MAX {
            kinds = vec![Kind::A, Kind::Aaaa];
            due = Some(now + Duration::from_secs(1) * 2u32.pow(host.asked.into()));
            host.asked += 1;
        }
        if let Some(due) = due.filter(|due| host.due != Some(*due)) {
            let due = due.max(now + Duration::from_millis(1));
            host.due = Some(due);
            self.deadlines.push(Reverse((due, Item::Host(name.clone()))));
        }
        let instances = if changed { host.instances.iter().cloned().collect() } else { Vec::new() };
        self.ask(name, &kinds, Ways::All, if is_unknown { jitter.between(SPREAD) } else { GATHER }, now);
        instances
    }

    pub(super) fn ask(&mut self, name: &Name, kinds: &[Kind], by: Ways, within: Duration, now: Instant) {
        for kind in kinds {
            let question = Question { name: name.clone(), kind: *kind };
            self.questions.entry(question).and_modify(|ways| ways.add(by.clone())).or_insert_with(|| by.clone());
            self.ask_at = Some(self.ask_at.map_or(now + within, |at| at.min(now + within)));
        }
    }

    /// Deadlines that hold no more are dropped when they are most of all.
    pub(super) fn shrink(&mut self) {
        let live = self.instances.len() + self.hosts.len();
        if self.deadlines.len() <= 4 * live + 64 {
            return;
        }
        let (instances, hosts) = (&self.instances, &self.hosts);
        self.deadlines.retain(|Reverse((at, item))| match item {
            Item::Instance(name) => instances.get(name).is_some_and(|instance| instance.due == *at),
            Item::Host(name) => hosts.get(name).is_some_and(|host| host.due == Some(*at)),
        });
    }
}

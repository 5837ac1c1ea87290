//! Responders and the browser of one process together: packets in, packets and news out. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hickory_proto::ProtoError;

use super::announcement::{self, Announcement};
use super::browser::Browser;
use super::jitter::Jitter;
use super::message::{self, Names};
use super::responder::{PORT, Responder, Send};
use super::ways::{To, Versions};

/// All of multicast DNS but its sockets.
pub(crate) struct Engine {
    names: Names,
    cables: BTreeMap<u32, Vec<IpAddr>>,
    responders: Vec<Responder>,
    /// `None`: nobody wants to know who is there.
    pub(super) browser: Option<Browser>,
    jitter: Jitter,
}

impl Engine {
    /// On no cable yet, and announcing nothing.
    pub(crate) fn new(listens: bool, seed: u64, now: Instant) -> Result<Self, ProtoError> {
        let (names, mut jitter) = (Names::new()?, Jitter::new(seed));
        let browser = listens.then(|| Browser::new(&names, &mut jitter, now));
        Ok(Self { names, cables: BTreeMap::new(), responders: Vec::new(), browser, jitter })
    }

    /// The cables of this machine, and its addresses on each.
    pub(super) fn on(&mut self, cables: BTreeMap<u32, Vec<IpAddr>>, now: Instant) {
        if cables == self.cables {
            return;
        }
        if let Some(browser) = &mut self.browser {
            browser.retain_cables(|cable| cables.contains_key(&cable));
            if cables.keys().any(|cable| !self.cables.contains_key(cable)) {
                browser.again(&mut self.jitter, now);
            }
        }
        self.cables = cables;
        for responder in &mut self.responders {
            responder.on(&self.cables, &mut self.jitter, now);
        }
    }

    /// Announces one more node, or the same with other words.
    pub(super) fn announce(&mut self, announcement: &Announcement<'_>, now: Instant) -> Result<(), ProtoError> {
        let tag = announcement.key.id().tag();
        let fields = announcement::fields(announcement);
        let text: Vec<Vec<u8>> = fields.iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect();
        if text.iter().any(|line| line.len() > usize::from(u8::MAX)) {
            return Err(ProtoError::from("a field of the announcement is longer than 255 bytes"));
        }
        let fresh = Responder::new(&self.names, &tag, text.clone(), announcement.link_port)?;
        if let Some(known) = self.responders.iter_mut().find(|known| known.instance == fresh.instance) {
            known.say(text, announcement.link_port, &mut self.jitter, now);
            return Ok(());
        }
        let mut fresh = fresh;
        fresh.on(&self.cables, &mut self.jitter, now);
        self.responders.push(fresh);
        Ok(())
    }

    /// Announces nothing any more.
    pub(super) fn bye(&mut self) -> Result<Vec<Send>, ProtoError> {
        let mut sends = Vec::new();
        for responder in self.responders.drain(..) {
            sends.extend(responder.bye()?);
        }
        Ok(sends)
    }

    /// A packet was heard on a cable; returns what is answered at once. What is none is dropped.
    pub(crate) fn hear(
        &mut self,
        cable: u32,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Vec<Send>, ProtoError> {
        let Some(packet) = message::decode(bytes) else { return Ok(Vec::new()) };
        let mut sends = Vec::new();
        if packet.is_answer {
            // RFC 6762, section 6: who answers from elsewhere is no responder.
            if from.port() != PORT {
                return Ok(sends);
            }
            for responder in &mut self.responders {
                responder.buried(cable, &packet, now);
            }
            if let Some(browser) = &mut self.browser {
                browser.take((cable, Versions::of(&from)), &packet, &mut self.jitter, now);
            }
            return Ok(sends);
        }
        for responder in &mut self.responders {
            sends.extend(responder.asked(cable, from, &packet, &mut self.jitter, now)?);
        }
        if let Some(browser) = &mut self.browser {
            browser.others_ask(&packet);
        }
        Ok(sends)
    }

    /// Returns what is to be sent by now.
    pub(crate) fn due(&mut self, now: Instant) -> Result<Vec<Send>, ProtoError> {
        let mut sends = Vec::new();
        for responder in &mut self.responders {
            sends.extend(responder.due(now)?);
        }
        if let Some(browser) = &mut self.browser {
            for (way, bytes) in browser.due(&mut self.jitter, now)? {
                let send = |cable, versions| Send { cable, to: To::All(versions), bytes: bytes.clone() };
                match way {
                    Some((cable, versions)) => sends.push(send(cable, versions)),
                    None => sends.extend(self.cables.keys().map(|cable| send(*cable, Versions::BOTH))),
                }
            }
        }
        Ok(sends)
    }

    /// When there is next something to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        let responders = self.responders.iter().filter_map(Responder::next);
        responders.chain(self.browser.as_ref().map(Browser::next)).min()
    }
}

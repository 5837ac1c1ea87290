//! May it? What is sent becomes a [`Record`], or is refused with the reason. Nothing changes here.

use std::collections::BTreeMap;

use fluidos_identity::{NodeId, Signed};

use super::{
    Book, Caller, ENTRIES_MAX, ENTRIES_OF_ORIGIN_MAX, FEEDBACK_ABOUT_MAX, FEEDBACK_MAX, FEEDBACK_OF_AUTHOR_MAX, Record,
    Refusal, Said, Tenant,
};
use crate::message::{Announcement, Feedback, Statement, Withdrawal};
use crate::places::{Standing, yields};

impl Book {
    /// What an announcement changes.
    pub(crate) fn announce(
        &self,
        name: &str,
        signed: &Signed<Announcement>,
        caller: &Caller,
        now: u64,
    ) -> Result<Record, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let did = own(signed, caller)?;
        let (tenant_name, origin) = (name.to_owned(), caller.origin.clone());
        match tenant.announced.get(&did).filter(|entry| entry.ends() > now) {
            Some(entry) if entry.digest == signed.digest() => {
                return Ok(Record::Renew { tenant: tenant_name, at: now, origin, did });
            }
            Some(entry) if entry.announcement.sequence >= signed.value().sequence => {
                return Err(Refusal::Conflict { held: entry.announcement.sequence });
            }
            Some(_) => {}
            None => self.has_room(tenant, &did, caller, now)?,
        }
        Ok(Record::Announce { tenant: tenant_name, at: now, origin, envelope: signed.envelope() })
    }

    fn has_room(&self, tenant: &Tenant, did: &NodeId, caller: &Caller, now: u64) -> Result<(), Refusal> {
        let of_member = self.members.contains(did);
        let there = tenant
            .announced
            .iter()
            .filter(|(id, entry)| *id != did && entry.ends() > now && self.members.contains(*id) == of_member);
        let (mut all, mut of_origin) = (0, 0);
        for (_, entry) in there {
            all += 1;
            of_origin += usize::from(entry.origin == caller.origin);
        }
        if all >= ENTRIES_MAX {
            return Err(Refusal::Full(format!("{ENTRIES_MAX} nodes are announced, which is the most")));
        }
        if !of_member && of_origin >= ENTRIES_OF_ORIGIN_MAX {
            return Err(Refusal::Full(format!(
                "{ENTRIES_OF_ORIGIN_MAX} nodes of this address are announced, the most"
            )));
        }
        Ok(())
    }

    /// What a withdrawal changes.
    pub(crate) fn withdraw(
        &self,
        name: &str,
        signed: &Signed<Withdrawal>,
        caller: &Caller,
        now: u64,
    ) -> Result<Record, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let did = own(signed, caller)?;
        match tenant.announced.get(&did).filter(|entry| entry.ends() > now) {
            None => Err(Refusal::NotFound(format!("{did} is not announced"))),
            Some(entry) if entry.announcement.sequence > signed.value().sequence => {
                Err(Refusal::Conflict { held: entry.announcement.sequence })
            }
            Some(_) => Ok(Record::Withdraw { tenant: name.to_owned(), envelope: signed.envelope() }),
        }
    }

    /// What an opinion changes; `None`: it stands there already.
    pub(crate) fn say(
        &self,
        name: &str,
        signed: &Signed<Feedback>,
        caller: &Caller,
        now: u64,
    ) -> Result<Option<Record>, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let author = own(signed, caller)?;
        let announced = tenant.announced.get(&author).is_some_and(|entry| entry.ends() > now);
        if !announced && !self.members.contains(&author) {
            return Err(Refusal::Forbidden(format!("{author} is neither announced here nor a member")));
        }
        let about = signed.value().about;
        let known = tenant.said.get(&about).and_then(|words| words.get(&author)).filter(|said| said.ends() > now);
        let mut instead = None;
        match known {
            Some(said) if said.digest == signed.digest() => return Ok(None),
            Some(said) if said.feedback.sequence >= signed.value().sequence => {
                return Err(Refusal::Conflict { held: said.feedback.sequence });
            }
            Some(_) => {}
            None => {
                let by_author = tenant.said.values().filter(|words| words.contains_key(&author)).count();
                if by_author >= FEEDBACK_OF_AUTHOR_MAX {
                    let max = FEEDBACK_OF_AUTHOR_MAX;
                    return Err(Refusal::Full(format!("there are {max} opinions of this author, which is the most")));
                }
                instead = self.place(tenant, &about, &author, &caller.origin)?;
            }
        }
        let (tenant, origin) = (name.to_owned(), caller.origin.clone());
        Ok(Some(Record::Say { tenant, at: now, origin, instead, envelope: signed.envelope() }))
    }

    /// Whose opinion yields its place to a new one, if one must.
    fn place(
        &self,
        tenant: &Tenant,
        about: &NodeId,
        author: &NodeId,
        origin: &str,
    ) -> Result<Option<(NodeId, NodeId)>, Refusal> {
        let of_member = self.members.contains(author);
        let standing = |words: &BTreeMap<NodeId, Said>, about: NodeId| -> Vec<(NodeId, NodeId, String, u64)> {
            let alike = words.iter().filter(|(author, _)| self.members.contains(*author) == of_member);
            alike.map(|(author, said)| (about, *author, said.origin.clone(), said.at)).collect()
        };
        let about_it = tenant.said.get(about).map(|words| standing(words, *about)).unwrap_or_default();
        let (there, max, what) = if about_it.len() >= FEEDBACK_ABOUT_MAX {
            (about_it, FEEDBACK_ABOUT_MAX, "opinions about this node")
        } else {
            let all = tenant.said.values().map(BTreeMap::len).sum::<usize>();
            if all < FEEDBACK_MAX {
                return Ok(None);
            }
            let all: Vec<_> = tenant.said.iter().flat_map(|(about, words)| standing(words, *about)).collect();
            if all.len() < FEEDBACK_MAX {
                return Ok(None);
            }
            (all, FEEDBACK_MAX, "opinions")
        };
        let of = |(about, author, origin, at)| Standing { key: (about, author), origin, at };
        let there = there.iter().map(|(about, author, origin, at)| of((*about, *author, origin.as_str(), *at)));
        let yields = yields(there, origin);
        yields.map(Some).ok_or_else(|| {
            Refusal::Full(format!("there are {max} {what}, which is the most, and no address has more than its share"))
        })
    }
}

/// Who signs must be who asks: so nobody sends again what another has signed.
fn own<T: Statement>(signed: &Signed<T>, caller: &Caller) -> Result<NodeId, Refusal> {
    let author = signed.value().author();
    match caller.node {
        None => Err(Refusal::Unauthenticated("to write")),
        Some(node) if node != author => Err(Refusal::Forbidden(format!("it is of {author}, and {node} sends it"))),
        Some(_) => Ok(author),
    }
}

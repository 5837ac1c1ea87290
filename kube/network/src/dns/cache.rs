//! Answers of the machine's resolvers, kept as long as they say.
//!
//! A kept answer is one to exactly the same message but for its number, so whatever a client may ask for beside the name (the recursion
//! that it wants, the size that it takes, DNSSEC) is as it asked. What is handed out again is younger by the time for which it was kept.
//! Only what comes from the resolvers, through a socket of its own, gets in: a pod cannot put in what others are told.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

/// As CoreDNS is set up in most clusters (`cache 30`): a name that moves is found soon, whatever it says itself.
const KEPT_MAX: Duration = Duration::from_secs(30);
/// What does not exist may be made any moment.
const ABSENCE_MAX: Duration = Duration::from_secs(5);
/// Of questions and answers together: some thousand names.
const BYTES_MAX: usize = 1 << 20;
/// A question longer than this is nobody's name.
const QUESTION_MAX: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By the question from its third byte on.
    answers: HashMap<Vec<u8>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Vec<u8>,
    /// Where in it the times to live are.
    times: Vec<usize>,
    since: Instant,
    until: Instant,
}

impl Kept {
    /// The answer to this question, if one is kept.
    pub fn find(&self, question: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.answers.get(question.get(2..)?).filter(|entry| now < entry.until)?;
        let mut answer = entry.answer.clone();
        answer.get_mut(..2)?.copy_from_slice(question.get(..2)?);
        let age = u32::try_from(now.duration_since(entry.since).as_secs()).unwrap_or(u32::MAX);
        for at in &entry.times {
            let time = answer.get_mut(*at..at + 4)?;
            let left = u32::from_be_bytes(time.try_into().ok()?).saturating_sub(age);
            time.copy_from_slice(&left.to_be_bytes());
        }
        Some(answer)
    }

    /// Keeps an answer, if it may be. When there is no room, what is over goes first, then anything.
    pub fn keep(&mut self, question: &[u8], answer: &[u8], now: Instant) {
        let Some(key) = question.get(2..).filter(|key| key.len() <= QUESTION_MAX) else { return };
        let asked = past_name(question, 12).and_then(|end| question.get(12..end + 4));
        // Somebody who guessed the number could tell of any name.
        if asked.is_none_or(|asked| !answer.get(12..).is_some_and(|told| told.starts_with(asked))) {
            return;
        }
        let Some((lasts, times)) = lasting(answer) else { return };
        let size = key.len() + answer.len();
        self.remove(key);
        if self.bytes + size > BYTES_MAX {
            self.answers.retain(|_, entry| now < entry.until);
            self.bytes = self.answers.iter().map(|(key, entry)| key.len() + entry.answer.len()).sum();
        }
        while self.bytes + size > BYTES_MAX {
            let Some(any) = self.answers.keys().next().cloned() else { return };
            self.remove(&any);
        }
        self.bytes += size;
        let entry = Entry { answer: answer.to_vec(), times, since: now, until: now + lasts };
        self.answers.insert(key.to_vec(), entry);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.answers.remove(key) {
            self.bytes -= key.len() + entry.answer.len();
        }
    }
}

/// How long an answer may be kept, and where its times to live are. `None` for what may not be: failures, what was cut, what says so.
fn lasting(answer: &[u8]) -> Option<(Duration, Vec<usize>)> {
    let message = Message::from_vec(answer).ok()?;
    let absent = match message.metadata.response_code {
        ResponseCode::NoError => message.answers.is_empty(),
        ResponseCode::NXDomain => true,
        _ => return None,
    };
    if message.metadata.truncation {
        return None;
    }
    // RFC 2308, section 5: how long an absence lasts is said by the zone's SOA, and it is not kept without.
    let of_absence = |record: &hickory_proto::rr::Record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    };
    let (seconds, most) = match absent {
        true => (message.authorities.iter().find_map(of_absence)?, ABSENCE_MAX),
        false => (message.answers.iter().map(|record| record.ttl).min()?, KEPT_MAX),
    };
    let lasts = Duration::from_secs(seconds.into()).min(most);
    Some((lasts, times(answer)?)).filter(|_| !lasts.is_zero())
}

/// Where the times to live of all records are (RFC 1035, section 4.1).
fn times(message: &[u8]) -> Option<Vec<usize>> {
    let number = |at: usize| Some(usize::from(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?)));
    let (questions, records) = (number(4)?, number(6)? + number(8)? + number(10)?);
    let mut at = 12;
    for _ in 0..questions {
        at = past_name(message, at)? + 4;
    }
    let mut times = Vec::new();
    for _ in 0..records {
        at = past_name(message, at)?;
        // The field of OPT is none: its flags.
        if number(at)? != usize::from(u16::from(RecordType::OPT)) {
            times.push(at + 4);
        }
        at += 10 + number(at + 8)?;
    }
    (at == message.len()).then_some(times)
}

/// Where a name ends: at its empty label, or at a pointer to where it goes on.
fn past_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + length,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use hickory_proto::op::{Edns, OpCode, Query};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, Record};

    use super::*;

    fn question(id: u16, name: &str) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn answer(name: &str, code: ResponseCode, times: &[u32]) -> Message {
        let name = Name::from_ascii(name).unwrap();
        let mut message = Message::response(7, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answers(
            times.iter().map(|time| Record::from_rdata(name.clone(), *time, RData::A(A::new(192, 0, 2, 1)))),
        );
        message.set_edns(Edns::new());
        message
    }

    fn with_soa(mut message: Message, ttl: u32, minimum: u32) -> Vec<u8> {
        let name = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, minimum);
        message.add_authorities([Record::from_rdata(name, ttl, RData::SOA(soa))]);
        message.to_vec().unwrap()
    }

    #[test]
    fn an_answer_gets_older_and_ends() {
        let (mut kept, start) = (Kept::default(), Instant::now());
        let given = answer("a.example.", ResponseCode::NoError, &[20, 9]).to_vec().unwrap();
        kept.keep(&question(1, "a.example."), &given, start);
        let later = |seconds| start + Duration::from_secs(seconds);
        let found = Message::from_vec(&kept.find(&question(2, "a.example."), later(4)).unwrap()).unwrap();
        let times: Vec<u32> = found.answers.iter().map(|record| record.ttl).collect();
        assert_eq!((found.metadata.id, times), (2, vec![16, 5]));
        assert!(found.edns.is_some(), "what is no time is not changed");
        assert_eq!(kept.find(&question(2, "a.example."), later(9)), None, "the first to end ends it");
        assert_eq!(kept.find(&question(2, "b.example."), later(1)), None);
        assert_eq!(kept.find(&[0], later(1)), None);
        kept.keep(&question(1, "c.example."), &given, start);
        assert_eq!(kept.find(&question(2, "c.example."), later(1)), None, "it was of another name");
    }

    #[test]
    fn what_is_kept_and_for_how_long() {
        let lasts = |bytes: &[u8]| lasting(bytes).map(|(lasts, _)| lasts.as_secs());
        let plain = |code, times: &[u32]| answer("a.example.", code, times);
        assert_eq!(lasts(&plain(ResponseCode::NoError, &[300]).to_vec().unwrap()), Some(30));
        assert_eq!(lasts(&plain(ResponseCode::NoError, &[0]).to_vec().unwrap()), None);
        assert_eq!(lasts(&plain(ResponseCode::ServFail, &[]).to_vec().unwrap()), None);
        assert_eq!(lasts(&plain(ResponseCode::NXDomain, &[]).to_vec().unwrap()), None, "without SOA");
        assert_eq!(lasts(&with_soa(plain(ResponseCode::NXDomain, &[]), 60, 3)), Some(3));
        assert_eq!(lasts(&with_soa(plain(ResponseCode::NoError, &[]), 60, 60)), Some(5));
        let mut cut = plain(ResponseCode::NoError, &[300]);
        cut.metadata.truncation = true;
        assert_eq!(lasts(&cut.to_vec().unwrap()), None);
        let mut bytes = plain(ResponseCode::NoError, &[300]).to_vec().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(lasts(&bytes[..length]), None, "cut at {length}");
        }
        bytes.push(0);
        assert_eq!(lasts(&bytes), None, "and more than it says");
    }

    #[test]
    fn room_is_bounded() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        for number in 0..40_000 {
            let name = format!("n{number}.example.");
            kept.keep(&question(1, &name), &answer(&name, ResponseCode::NoError, &[30]).to_vec().unwrap(), now);
            assert!(kept.bytes <= BYTES_MAX);
        }
        assert!(kept.find(&question(1, "n39999.example."), now).is_some(), "the last one is there");
        let counted: usize = kept.answers.iter().map(|(key, entry)| key.len() + entry.answer.len()).sum();
        assert_eq!(counted, kept.bytes);
        let long = [question(1, "x."), vec![0; 600]].concat();
        kept.keep(&long, &answer("x.", ResponseCode::NoError, &[30]).to_vec().unwrap(), now);
        assert_eq!(kept.find(&long, now), None);
    }
}

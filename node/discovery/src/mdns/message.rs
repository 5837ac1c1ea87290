//! Packets of multicast DNS as bytes and as the few kinds of records that discovery knows; everything else is dropped here. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record as Wire, RecordType};

/// The largest packet (RFC 6762, section 17).
pub(super) const PACKET_MAX: usize = 9000;
/// Records of one packet that are looked at: a crowd of known answers has about 40.
const RECORDS_MAX: usize = 256;
/// What fits on a cable of Ethernet beside the headers of IPv6 and UDP, with some room.
const KNOWN_ANSWERS_BYTES: usize = 1400;
/// A known answer beside its first label: two pointers, type, class, TTL, two lengths.
const KNOWN_ANSWER_BYTES: usize = 16;

/// The names of our service.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// What nodes announce.
    pub(super) service: Name,
    /// Under which types of services are listed (RFC 6763, section 9).
    pub(super) types: Name,
    local: Name,
}

impl Names {
    pub(super) fn new() -> Result<Self, ProtoError> {
        Ok(Self {
            service: Name::from_ascii(super::SERVICE)?,
            types: Name::from_ascii("_services._dns-sd._udp.local.")?,
            local: Name::from_ascii("local.")?,
        })
    }

    /// The instance and the host of the node with this tag.
    pub(super) fn of(&self, tag: &str) -> Result<(Name, Name), ProtoError> {
        Ok((self.service.prepend_label(tag)?, self.local.prepend_label(tag)?))
    }

    /// Whether a name is an instance of our service.
    pub(super) fn is_instance(&self, name: &Name) -> bool {
        name.num_labels() == self.service.num_labels() + 1 && self.service.zone_of(name)
    }
}

/// The first label of a name as text.
pub(super) fn label(name: &Name) -> String {
    name.iter().next().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).unwrap_or_default()
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pointer,
    Service,
    Text,
    A,
    Aaaa,
    Any,
}

impl Kind {
    fn of(kind: RecordType) -> Option<Self> {
        Some(match kind {
            RecordType::PTR => Self::Pointer,
            RecordType::SRV => Self::Service,
            RecordType::TXT => Self::Text,
            RecordType::A => Self::A,
            RecordType::AAAA => Self::Aaaa,
            RecordType::ANY => Self::Any,
            _ => return None,
        })
    }

    fn wire(self) -> RecordType {
        match self {
            Self::Pointer => RecordType::PTR,
            Self::Service => RecordType::SRV,
            Self::Text => RecordType::TXT,
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Any => RecordType::ANY,
        }
    }
}

/// One question; whether a direct answer is enough is said beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: Kind,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// An instance of a service.
    Pointer(Name),
    /// The host and the port of an instance.
    Service(Name, u16),
    /// What an instance says of itself.
    Text(Vec<Vec<u8>>),
    /// Where a host is.
    Address(IpAddr),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: Name,
    pub(super) ttl: Duration,
    /// Whether older ones of its name and kind are over.
    pub(super) flush: bool,
    pub(super) data: Data,
}

/// One packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    pub(super) id: u16,
    pub(super) is_answer: bool,
    /// More known answers follow.
    pub(super) is_truncated: bool,
    /// With whether a direct answer is enough.
    pub(super) questions: Vec<(Question, bool)>,
    /// Answers, also additional ones; in a question those that are known to who asks.
    pub(super) records: Vec<Record>,
}

/// Reads a packet; `None`: it is none, or of no use here.
pub(super) fn decode(bytes: &[u8]) -> Option<Packet> {
    if bytes.len() > PACKET_MAX {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    // Others are ignored in silence (RFC 6762, sections 18.3 and 18.11).
    if message.metadata.op_code != OpCode::Query || u16::from(message.metadata.response_code) != 0 {
        return None;
    }
    let questions = message.queries.iter().take(RECORDS_MAX).filter_map(|query| {
        let question = Question { name: query.name.to_lowercase(), kind: Kind::of(query.query_type)? };
        Some((question, query.mdns_unicast_response))
    });
    let records = message.answers.iter().chain(&message.additionals).take(RECORDS_MAX);
    Some(Packet {
        id: message.metadata.id,
        is_answer: message.metadata.message_type == MessageType::Response,
        is_truncated: message.metadata.truncation,
        questions: questions.collect(),
        records: records.filter_map(record).collect(),
    })
}

fn record(wire: &Wire) -> Option<Record> {
    let data = match &wire.data {
        RData::PTR(PTR(name)) => Data::Pointer(name.to_lowercase()),
        RData::SRV(service) => Data::Service(service.target.to_lowercase(), service.port),
        RData::TXT(text) => Data::Text(text.txt_data.iter().map(|text| text.to_vec()).collect()),
        RData::A(A(ip)) => Data::Address((*ip).into()),
        RData::AAAA(AAAA(ip)) => Data::Address((*ip).into()),
        _ => return None,
    };
    let ttl = Duration::from_secs(wire.ttl.into());
    Some(Record { name: wire.name.to_lowercase(), ttl, flush: wire.mdns_cache_flush, data })
}

fn wire(record: &Record) -> Wire {
    let data = match &record.data {
        Data::Pointer(name) => RData::PTR(PTR(name.clone())),
        Data::Service(host, port) => RData::SRV(SRV::new(0, 0, *port, host.clone())),
        Data::Text(text) => RData::TXT(TXT::from_bytes(text.iter().map(Vec::as_slice).collect())),
        Data::Address(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Data::Address(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
    };
    let seconds = u32::try_from(record.ttl.as_secs()).unwrap_or(u32::MAX);
    let mut wire = Wire::from_rdata(record.name.clone(), seconds, data);
    wire.mdns_cache_flush = record.flush;
    wire
}

/// Writes an answer; `asked` is what a resolver that is none of multicast DNS wants to see again, with its number.
pub(super) fn answer(records: &[Record], asked: Option<(u16, &[(Question, bool)])>) -> Result<Vec<u8>, ProtoError> {
    let mut message = Message::response(asked.map_or(0, |(id, _)| id), OpCode::Query);
    message.metadata.authoritative = true;
    for (question, _) in asked.into_iter().flat_map(|(_, questions)| questions) {
        message.add_query(Query::query(question.name.clone(), question.kind.wire()));
    }
    message.add_answers(records.iter().map(wire));
    message.to_vec()
}

/// Writes questions with what is known already, in as many packets as it takes.
pub(super) fn ask<'a>(
    questions: impl Iterator<Item = &'a Question>,
    known: &[Record],
) -> Result<Vec<Vec<u8>>, ProtoError> {
    let queries = questions.map(|question| Query::query(question.name.clone(), question.kind.wire()));
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_queries(queries);
    let (mut packets, mut bytes) = (Vec::new(), 0);
    for record in known {
        let first = record.data.first_label() + KNOWN_ANSWER_BYTES;
        if bytes + first > KNOWN_ANSWERS_BYTES {
            message.metadata.truncation = true;
            packets.push(message.to_vec()?);
            message = Message::new(0, MessageType::Query, OpCode::Query);
            bytes = 0;
        }
        bytes += first;
        message.add_answer(wire(record));
    }
    packets.push(message.to_vec()?);
    Ok(packets)
}

impl Data {
    fn first_label(&self) -> usize {
        match self {
            Self::Pointer(name) => name.iter().next().map_or(0, <[u8]>::len),
            _ => 0,
        }
    }
}

/// The fields of a TXT record (RFC 6763, section 6): the first of each key counts.
pub(super) fn fields(text: &[Vec<u8>]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for line in text {
        let line = String::from_utf8_lossy(line);
        let (key, value) = line.split_once('=').unwrap_or((&line, ""));
        if !key.is_empty() && !fields.contains_key(key) {
            fields.insert(key.to_owned(), value.to_owned());
        }
    }
    fields
}

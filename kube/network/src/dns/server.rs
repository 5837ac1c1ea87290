//! The sockets of the cluster's DNS and the messages on them.
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use substrate_client::Pace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::cache::Kept;
use super::datagrams::{self, Inbox};
use super::forward;
use super::said::Said;
use super::zone::{Answer, Records, Zone};
use crate::Cidr;
use crate::proxy::{RESTS, ServiceCaches};
use crate::services;

/// Seconds for which an answer may be kept: short, because Services come and go; the value of CoreDNS.
const TTL_S: u32 = 5;
/// The largest datagram sent, if the client allows it: what passes everywhere unfragmented (DNS flag day 2020).
const DATAGRAM_MAX: u16 = 1232;
/// Questions answered at a time: each costs a socket and some KiB while it waits for a resolver. The rest waits in the
/// kernel's queue, and what does not fit there is asked again by the client.
const AT_A_TIME: usize = 256;
/// A client on a stream that says nothing for so long is let go.
const STREAM_IDLE: Duration = Duration::from_secs(10);

/// Where and for what the cluster's DNS answers.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// Addresses to listen on: the gateway of the pod network, port 53.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain: lower case, without the last dot.
    pub domain: String,
    /// Where the machine's resolvers are named.
    pub resolv_conf: PathBuf,
    /// Addresses that lead to this server and so are no resolvers.
    pub own: Vec<Ipv4Addr>,
    /// Who asks from here is told addresses of IPv6, too: nobody else (a pod of another machine or node) can use them.
    pub both_for: Option<Cidr>,
}

impl DnsOptions {
    /// For a node network: its gateway, `cluster.local`, `/etc/resolv.conf`.
    pub fn for_network(network: &crate::NodeNetwork) -> DnsOptions {
        let own = std::iter::once(network.gateway()).chain(network.dns_address()).collect();
        DnsOptions {
            listen: vec![(network.gateway(), 53).into()],
            domain: "cluster.local".to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            own,
            both_for: network.options().ipv6.map(|_| network.options().pod_cidr),
        }
    }
}

/// The cluster's DNS with its sockets open.
pub struct DnsServer {
    options: DnsOptions,
    sockets: Vec<(UdpSocket, TcpListener)>,
}

impl DnsServer {
    /// Opens the sockets. An address in use is an error that names it.
    pub async fn bind(options: DnsOptions) -> io::Result<DnsServer> {
        let mut sockets = Vec::new();
        for address in &options.listen {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("DNS on {address}: {error}"));
            let datagrams = UdpSocket::bind(address).await.map_err(named)?;
            // The same number for both, also when the kernel chose it.
            let streams = TcpListener::bind(datagrams.local_addr()?).await.map_err(named)?;
            sockets.push((datagrams, streams));
        }
        Ok(DnsServer { options, sockets })
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(datagrams, _)| datagrams.local_addr().ok()).collect()
    }

    /// Answers until dropped.
    pub async fn run(self, caches: ServiceCaches) {
        let make_zone = {
            let domain = self.options.domain.clone();
            move |caches: &ServiceCaches| {
                let slices = services::all_by_service(&caches.slices.list());
                Arc::new(Zone::new(&domain, &caches.services.list(), &slices).into())
            }
        };
        let (publish, served) =
            watch::channel(Arc::new(Zone::new(&self.options.domain, &[], &Default::default()).into()));
        let answerer = Arc::new(Answerer {
            served,
            options: self.options,
            kept: Mutex::default(),
            slots: Semaphore::new(AT_A_TIME),
        });
        let mut tasks = JoinSet::new();
        for (datagrams, streams) in self.sockets {
            tasks.spawn(serve_datagrams(Arc::new(datagrams), answerer.clone()));
            tasks.spawn(serve_streams(streams, answerer.clone()));
        }
        caches.services.synced().await;
        caches.slices.synced().await;
        let (mut seen, mut pace) = (caches.changes(), Pace::resting(RESTS));
        loop {
            seen.begin(&mut pace).await;
            // Ends only when the last listener is gone, and those live as long as this future.
            let _ = publish.send(make_zone(&caches));
            pace.end();
            caches.changed(&mut seen).await;
        }
    }
}

/// A zone, and what it has answered.
struct Served {
    zone: Zone,
    said: Said,
}

impl From<Zone> for Served {
    fn from(zone: Zone) -> Self {
        Self { zone, said: Said::default() }
    }
}

struct Answerer {
    served: watch::Receiver<Arc<Served>>,
    options: DnsOptions,
    kept: Mutex<Kept>,
    slots: Semaphore,
}

/// What is known of a message at once.
enum Now {
    /// It is no question: an answer to it could go round for ever.
    Silence,
    Answer(Vec<u8>),
    /// The machine's resolvers have to be asked.
    Ask(Message),
}

async fn serve_datagrams(socket: Arc<UdpSocket>, answerer: Arc<Answerer>) {
    let mut tasks = JoinSet::new();
    let (mut inbox, mut known, mut unknown) = (Inbox::default(), Vec::new(), Vec::new());
    loop {
        while tasks.try_join_next().is_some() {}
        if let Err(error) = inbox.receive(&socket).await {
            // A client that has gone away (ICMP) is reported here; a broken socket must not spin.
            debug!(%error, "DNS datagram lost");
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        for (question, from) in inbox.datagrams() {
            match answerer.now(question, from.ip(), false) {
                Now::Silence => {}
                Now::Answer(answer) => known.push((answer, from)),
                Now::Ask(message) => unknown.push((message, question.to_vec(), from)),
            }
        }
        datagrams::send(&socket, &known).await;
        known.clear();
        for (message, question, from) in unknown.drain(..) {
            let Ok(permit) = answerer.slots.acquire().await else { return };
            permit.forget();
            let (socket, answerer) = (socket.clone(), answerer.clone());
            tasks.spawn(async move {
                if let Some(answer) = answerer.ask(&message, &question, false).await {
                    datagrams::send(&socket, &[(answer, from)]).await;
                }
                answerer.slots.add_permits(1);
            });
        }
    }
}

async fn serve_streams(listener: TcpListener, answerer: Arc<Answerer>) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip()),
            Err(error) => {
                warn!(%error, "DNS stream not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = answerer.slots.acquire().await else { return };
        permit.forget();
        let answerer = answerer.clone();
        tasks.spawn(async move {
            if let Err(error) = serve_stream(stream, from, &answerer).await {
                debug!(%error, "DNS stream ended");
            }
            answerer.slots.add_permits(1);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, from: IpAddr, answerer: &Answerer) -> io::Result<()> {
    // As many questions as a resolver sends in one go; after them it connects again.
    for _ in 0..100 {
        let length = match tokio::time::timeout(STREAM_IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(STREAM_IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = answerer.answer(&question, from, true).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
    Ok(())
}

impl Answerer {
    /// The answer to a message. `None` to what is no question.
    async fn answer(&self, bytes: &[u8], from: IpAddr, stream: bool) -> Option<Vec<u8>> {
        match self.now(bytes, from, stream) {
            Now::Silence => None,
            Now::Answer(answer) => Some(answer),
            Now::Ask(message) => self.ask(&message, bytes, stream).await,
        }
    }

    fn now(&self, bytes: &[u8], from: IpAddr, stream: bool) -> Now {
        let known = |answer: Option<Vec<u8>>| answer.map_or(Now::Silence, Now::Answer);
        let both = matches!((self.options.both_for, from), (Some(range), IpAddr::V4(from)) if range.contains(from));
        let served = self.served.borrow().clone();
        if !stream && let Some(said) = served.said.find(bytes, both) {
            return Now::Answer(said);
        }
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).find(bytes, Instant::now()) {
            return Now::Answer(kept);
        }
        let message = match Message::from_vec(bytes) {
            Ok(message) => message,
            Err(_) => return known(malformed(bytes)),
        };
        if message.metadata.message_type != MessageType::Query {
            return Now::Silence;
        }
        let Some(response) = respond(&served.zone, &message, both) else { return Now::Ask(message) };
        let answer = encode(&message, response, stream);
        if !stream && let Some(answer) = &answer {
            served.said.keep(bytes, both, answer);
        }
        known(answer)
    }

    /// The answer of the machine's resolvers, kept for the next one who asks the same. What came by stream may be too large for a datagram.
    async fn ask(&self, message: &Message, bytes: &[u8], stream: bool) -> Option<Vec<u8>> {
        let options = &self.options;
        let resolvers = forward::resolvers(&options.resolv_conf, &options.own);
        let Some(answer) = forward::ask(&resolvers, bytes, stream).await else {
            return encode(message, failure(message, ResponseCode::ServFail), stream);
        };
        if !stream {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(bytes, &answer, Instant::now());
        }
        Some(answer)
    }
}

/// `FORMERR` to what has at least a header and says that it is a question (RFC 1035, section 4.1.1).
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    if bytes.len() < 12 || bytes[2] & 0x80 != 0 {
        return None;
    }
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

fn failure(question: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(question.metadata.id, question.metadata.op_code);
    response.metadata.recursion_desired = question.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(question.queries.iter().cloned());
    response
}

/// The response to a message, without effects; `both` says whether addresses of IPv6 are told. `None` if somebody else has to be asked.
fn respond(zone: &Zone, message: &Message, both: bool) -> Option<Message> {
    if message.metadata.op_code != OpCode::Query {
        return Some(failure(message, ResponseCode::NotImp));
    }
    let [query] = message.queries.as_slice() else { return Some(failure(message, ResponseCode::FormErr)) };
    if query.query_class() != DNSClass::IN {
        return Some(failure(message, ResponseCode::Refused));
    }
    let name = query.name().to_lowercase().to_ascii();
    let answer = zone.answer(name.trim_end_matches('.'));
    let mut response = failure(message, ResponseCode::NoError);
    response.metadata.authoritative = true;
    match answer {
        Answer::Elsewhere => return None,
        Answer::Pod(address) => {
            let records = Records { addresses: [address].into(), ..Records::default() };
            response.add_answers(answers(query, &records, both));
        }
        Answer::NoName => response.metadata.response_code = ResponseCode::NXDomain,
        Answer::Empty => {}
        Answer::Records(records) => {
            response.add_answers(answers(query, records, both));
            if query.query_type() == RecordType::SRV {
                response.add_additionals(targets(zone, records, both));
            }
        }
    }
    if response.answers.is_empty() {
        response.add_authorities(start_of_authority(zone.domain()));
    }
    Some(response)
}

fn answers(query: &Query, records: &Records, both: bool) -> Vec<Record> {
    let owner = query.name();
    let wanted = |kind| query.query_type() == kind || query.query_type() == RecordType::ANY;
    let mut data = Vec::new();
    let addresses = records.addresses.iter().filter_map(|address| told(*address, both));
    data.extend(addresses.filter(|address| wanted(address.record_type())));
    if wanted(RecordType::SRV) {
        let name = |(port, target): &(u16, String)| Some((*port, Name::from_ascii(format!("{target}.")).ok()?));
        let services = records.services.iter().filter_map(name);
        data.extend(services.map(|(port, target)| RData::SRV(SRV::new(0, 100, port, target))));
    }
    if wanted(RecordType::PTR) {
        let names = records.pointers.iter().filter_map(|name| Name::from_ascii(format!("{name}.")).ok());
        data.extend(names.map(|name| RData::PTR(PTR(name))));
    }
    if wanted(RecordType::TXT) {
        data.extend(records.text.iter().map(|text| RData::TXT(TXT::new(vec![text.clone()]))));
    }
    // An alias answers every question: who asks follows it (RFC 1034, section 3.6.2).
    let alias = records.alias.as_ref().and_then(|name| Name::from_ascii(format!("{name}.")).ok());
    data.extend(alias.map(|name| RData::CNAME(CNAME(name))));
    data.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL_S, data)).collect()
}

fn told(address: IpAddr, both: bool) -> Option<RData> {
    match address {
        IpAddr::V4(address) => Some(RData::A(A(address))),
        IpAddr::V6(address) => both.then_some(RData::AAAA(AAAA(address))),
    }
}

/// The addresses of what SRV records name, so that nobody has to ask again.
fn targets(zone: &Zone, records: &Records, both: bool) -> Vec<Record> {
    let mut additional = Vec::new();
    for (_, target) in &records.services {
        if let (Answer::Records(found), Ok(name)) = (zone.answer(target), Name::from_ascii(format!("{target}."))) {
            let addresses = found.addresses.iter().filter_map(|address| told(*address, both));
            additional.extend(addresses.map(|data| Record::from_rdata(name.clone(), TTL_S, data)));
        }
    }
    additional
}

/// Says how long the absence of an answer may be remembered (RFC 2308).
fn start_of_authority(domain: &str) -> Option<Record> {
    let owner = Name::from_ascii(format!("{domain}.")).ok()?;
    let server = Name::from_ascii(format!("ns.dns.{domain}.")).ok()?;
    let mailbox = Name::from_ascii(format!("hostmaster.{domain}.")).ok()?;
    // Nobody copies this zone, so serial, refresh, retry and expire only have to be there.
    let data = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL_S);
    Some(Record::from_rdata(owner, TTL_S, RData::SOA(data)))
}

/// The bytes of a response; a datagram that the client could not take is cut, which makes it ask again by stream.
fn encode(question: &Message, mut response: Message, stream: bool) -> Option<Vec<u8>> {
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_MAX);
        response.set_edns(edns);
    }
    let bytes = response.to_vec().ok()?;
    let allowed = if stream { u16::MAX } else { question.max_payload().clamp(512, DATAGRAM_MAX) };
    if bytes.len() <= usize::from(allowed) {
        return Some(bytes);
    }
    response.truncate().to_vec().ok()
}

#[cfg(test)]
mod tests;

//! Rulesets as netlink messages. Numbers: `include/uapi/linux/netfilter/nf_tables.h`.
use std::io;

use super::{Chain, Expr, Key, KeyKind, RuleText, Ruleset, Set, Value, ValueKind};
use crate::netlink::{CREATE, Message, REQUEST, Socket};
use crate::{Address, Cidr};

/// Replaces the table by the ruleset. On refusal nothing has changed, and the error names the refused part.
pub fn replace<A: Address>(socket: &mut Socket, ruleset: &Ruleset<A>) -> Result<(), (String, io::Error)> {
    let mut batch = Batch::new();
    batch.replace(ruleset);
    batch.run(socket)
}

/// Whether the table is there.
pub fn exists<A: Address>(socket: &mut Socket, name: &str) -> io::Result<bool> {
    let mut ask = table::<A>(GETTABLE, name, 0);
    ask.request_ack();
    match socket.execute(ask) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}

/// Removes the table. Absence is fine.
pub fn remove<A: Address>(socket: &mut Socket, name: &str) -> Result<(), (String, io::Error)> {
    let mut batch = Batch::new();
    batch.remove::<A>(name);
    batch.run(socket)
}

/// One list of elements is one attribute of at most 64 KiB; the largest element is under 160 bytes.
const ELEMENTS_MAX: usize = 400;

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const APPEND: u16 = 0x800;

/// Changes of tables that the kernel makes together or not at all.
#[derive(Default)]
pub struct Batch {
    messages: Vec<(String, Message)>,
}

impl Batch {
    /// Of no change yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    fn push(&mut self, what: impl Into<String>, message: Message) {
        self.messages.push((what.into(), message));
    }

    /// Replaces a table by a ruleset.
    pub fn replace<A: Address>(&mut self, ruleset: &Ruleset<A>) {
        self.remove::<A>(&ruleset.table);
        self.push("make the table", table::<A>(NEWTABLE, &ruleset.table, CREATE));
        for chain in &ruleset.chains {
            self.push(format!("chain {}", chain.name), encode_chain(&ruleset.table, chain));
        }
        for (number, set) in (1..).zip(&ruleset.sets) {
            self.push(format!("set {}", set.name), encode_set(&ruleset.table, set, number));
            for elements in set.elements.chunks(ELEMENTS_MAX) {
                let what = format!("elements of {}", set.name);
                self.push(what, encode_elements(&ruleset.table, set, number, elements));
            }
        }
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                let what = format!("rule of {}: {}", chain.name, RuleText(rule));
                self.push(what, encode_rule(&ruleset.table, &chain.name, rule));
            }
        }
    }

    /// Removes a table. Absence is fine.
    pub fn remove<A: Address>(&mut self, name: &str) {
        self.push("make the table", table::<A>(NEWTABLE, name, CREATE));
        self.push("remove the table", table::<A>(DELTABLE, name, 0));
    }

    /// Makes the changes. On refusal nothing has changed, and the error names the refused part.
    pub fn run(self, socket: &mut Socket) -> Result<(), (String, io::Error)> {
        // The fixed part names the subsystem in the batch's own messages: family, version, subsystem (big endian).
        let edge = |kind| Message::new(kind, REQUEST, &[0, 0, 0, 10]);
        let (mut names, bodies): (Vec<String>, Vec<Message>) = self.messages.into_iter().unzip();
        names.insert(0, "begin the transaction".into());
        let mut messages = vec![edge(BATCH_BEGIN)];
        messages.extend(bodies);
        // The last message of substance is acknowledged; refusals come before it, so it ends the exchange either way.
        if let Some(last) = messages.last_mut() {
            last.request_ack();
        }
        messages.push(edge(BATCH_END));
        socket.transact(messages).map_err(|(index, error)| {
            (names.get(index).cloned().unwrap_or_else(|| "end the transaction".into()), error)
        })
    }
}

fn message<A: Address>(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, REQUEST | flags, &[A::FAMILY, 0, 0, 0])
}

/// How many registers of 4 bytes an address fills.
const fn words<A: Address>() -> u32 {
    A::BITS as u32 / 32
}

fn table<A: Address>(kind: u16, name: &str, flags: u16) -> Message {
    let mut message = message::<A>(kind, flags);
    message.text(1, name);
    message
}

fn encode_chain<A: Address>(table: &str, chain: &Chain<A>) -> Message {
    let mut message = message::<A>(NEWCHAIN, CREATE);
    message.text(1, table).text(3, &chain.name);
    if let Some(hook) = chain.hook {
        let (kind, number, priority) = hook.parameters();
        message.nest(4, |hook| {
            hook.be32(1, number).attr(2, &priority.to_be_bytes());
        });
        message.text(7, kind);
    }
    message
}

impl KeyKind {
    /// Number of the type in nft's own list, so that `nft list` prints it well, and length in bytes.
    fn parameters<A: Address>(self) -> (u32, u32) {
        match self {
            KeyKind::Number => (4, 4),
            KeyKind::Address => (address_type::<A>(), 4 * words::<A>()),
            KeyKind::Protocol => (12, 1),
            KeyKind::Port => (13, 2),
            KeyKind::Interface => (41, 16),
        }
    }
}

fn address_type<A: Address>() -> u32 {
    if A::BITS == 32 { 7 } else { 8 }
}

fn encode_set<A: Address>(table: &str, set: &Set<A>, number: u32) -> Message {
    const FLAG_MAP: u32 = 8;
    // Parts of a joined key fill whole registers of 4 bytes; nft joins the numbers of their types by 6 bits each.
    let joined = set.key.len() > 1;
    let (kind, length) = set.key.iter().fold((0, 0), |(kind, length), part| {
        let (part_kind, part_length) = part.parameters::<A>();
        ((kind << 6) | part_kind, length + if joined { part_length.next_multiple_of(4) } else { part_length })
    });
    let mut message = message::<A>(NEWSET, CREATE);
    message.text(1, table).text(2, &set.name);
    message.be32(3, if set.value == ValueKind::None { 0 } else { FLAG_MAP }).be32(4, kind).be32(5, length);
    match set.value {
        ValueKind::None => {}
        ValueKind::Verdict => {
            message.be32(6, 0xffff_ff00);
        }
        ValueKind::Endpoint => {
            message.be32(6, (address_type::<A>() << 6) | 13).be32(7, 4 * words::<A>() + 4);
        }
    }
    message.be32(10, number);
    message
}

fn encode_elements<A: Address>(
    table: &str,
    set: &Set<A>,
    number: u32,
    elements: &[(Vec<Key<A>>, Value<A>)],
) -> Message {
    let mut message = message::<A>(NEWSETELEM, CREATE);
    message.text(1, table).text(2, &set.name).be32(4, number);
    message.nest(3, |list| {
        for (key, value) in elements {
            list.nest(1, |element| {
                element.nest(1, |data| {
                    data.attr(1, &key_bytes(key));
                });
                match value {
                    Value::None => {}
                    Value::Goto(chain) => {
                        element.nest(2, |data| verdict(data, GOTO, Some(chain)));
                    }
                    Value::Jump(chain) => {
                        element.nest(2, |data| verdict(data, JUMP, Some(chain)));
                    }
                    Value::Endpoint(address, port) => {
                        element.nest(2, |data| {
                            data.attr(1, &endpoint_bytes(*address, *port));
                        });
                    }
                }
            });
        }
    });
    message
}

fn key_bytes<A: Address>(key: &[Key<A>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in key {
        match part {
            Key::Address(address) => bytes.extend(address.bytes()),
            Key::Protocol(protocol) => bytes.push(protocol.number()),
            Key::Port(port) => bytes.extend(port.to_be_bytes()),
            Key::Interface(name) => bytes.extend(interface_bytes(name)),
            Key::Number(number) => bytes.extend(number.to_ne_bytes()),
        }
        while key.len() > 1 && !bytes.len().is_multiple_of(4) {
            bytes.push(0);
        }
    }
    bytes
}

fn endpoint_bytes<A: Address>(address: A, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [address.bytes(), vec![high, low, 0, 0]].concat()
}

fn interface_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

const VERDICT_REGISTER: u32 = 0;
/// The first 16-byte register; its four quarters are `QUARTER`, `QUARTER + 1`, …
const REGISTER: u32 = 1;
const QUARTER: u32 = 8;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

fn verdict(data: &mut Message, code: i32, chain: Option<&str>) {
    data.nest(2, |verdict| {
        verdict.attr(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.text(2, chain);
        }
    });
}

fn encode_rule<A: Address>(table: &str, chain: &str, rule: &[Expr<A>]) -> Message {
    let mut message = message::<A>(NEWRULE, CREATE | APPEND);
    message.text(1, table).text(2, chain);
    message.nest(4, |list| rule.iter().for_each(|expr| encode_expr(list, expr)));
    message
}

fn element(list: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    list.nest(1, |element| {
        element.text(1, name).nest(2, fill);
    });
}

fn meta(list: &mut Message, key: u32, register: u32) {
    element(list, "meta", |data| {
        data.be32(1, register).be32(2, key);
    });
}

const NOT_MORE: u32 = 3;
const NOT_LESS: u32 = 5;

fn compare(list: &mut Message, equal: bool, value: &[u8]) {
    compare_by(list, u32::from(!equal), value);
}

fn compare_by(list: &mut Message, operation: u32, value: &[u8]) {
    element(list, "cmp", |data| {
        data.be32(1, REGISTER).be32(2, operation).nest(3, |inner| {
            inner.attr(1, value);
        });
    });
}

/// `base` 1 is the network header, 2 the transport header.
fn payload(list: &mut Message, base: u32, offset: u32, length: u32, register: u32) {
    element(list, "payload", |data| {
        data.be32(1, register).be32(2, base).be32(3, offset).be32(4, length);
    });
}

fn source_address<A: Address>(list: &mut Message, register: u32) {
    payload(list, 1, if A::BITS == 32 { 12 } else { 8 }, 4 * words::<A>(), register);
}

fn destination_address<A: Address>(list: &mut Message, register: u32) {
    payload(list, 1, if A::BITS == 32 { 16 } else { 24 }, 4 * words::<A>(), register);
}

fn destination_port(list: &mut Message, register: u32) {
    payload(list, 2, 2, 2, register);
}

fn mask(list: &mut Message, mask: &[u8]) {
    // An address has 16 bytes at most.
    let length = if mask.len() == 4 { 4 } else { 16 };
    element(list, "bitwise", |data| {
        data.be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
        data.nest(4, |inner| {
            inner.attr(1, mask);
        });
        data.nest(5, |inner| {
            inner.attr(1, &vec![0; mask.len()]);
        });
    });
}

fn in_range<A: Address>(list: &mut Message, range: Cidr<A>, equal: bool) {
    mask(list, &range.netmask().bytes());
    compare(list, equal, &range.network().bytes());
}

fn lookup(list: &mut Message, set: &str, from: u32, to: Option<u32>) {
    element(list, "lookup", |data| {
        data.text(1, set).be32(2, from);
        if let Some(to) = to {
            data.be32(3, to);
        }
    });
}

fn immediate(list: &mut Message, register: u32, value: &[u8]) {
    element(list, "immediate", |data| {
        data.be32(1, register).nest(2, |inner| {
            inner.attr(1, value);
        });
    });
}

fn decide(list: &mut Message, code: i32, chain: Option<&str>) {
    element(list, "immediate", |data| {
        data.be32(1, VERDICT_REGISTER).nest(2, |inner| verdict(inner, code, chain));
    });
}

fn reject(list: &mut Message, kind: u32, code: u8) {
    element(list, "reject", |data| {
        data.be32(1, kind).attr(2, &[code]);
    });
}

/// Translates to the address in the first quarters and, for a destination, the port in the one after.
fn nat<A: Address>(list: &mut Message, destination: bool) {
    element(list, "nat", |data| {
        data.be32(1, u32::from(destination)).be32(2, u32::from(A::FAMILY)).be32(3, REGISTER);
        if destination {
            data.be32(5, QUARTER + words::<A>());
        }
    });
}

const META_IN: u32 = 6;
const META_OUT: u32 = 7;
const META_PROTOCOL: u32 = 16;

fn encode_expr<A: Address>(list: &mut Message, expr: &Expr<A>) {
    match expr {
        Expr::InPrefix(name) => {
            meta(list, META_IN, REGISTER);
            compare(list, true, name.as_bytes());
        }
        Expr::OutPrefix(name) => {
            meta(list, META_OUT, REGISTER);
            compare(list, true, name.as_bytes());
        }
        Expr::Out(name) => {
            meta(list, META_OUT, REGISTER);
            compare(list, true, &interface_bytes(name));
        }
        Expr::OutNot(name) => {
            meta(list, META_OUT, REGISTER);
            compare(list, false, &interface_bytes(name));
        }
        Expr::InSet(set) => {
            meta(list, META_IN, REGISTER);
            lookup(list, set, REGISTER, None);
        }
        Expr::OutSet(set) => {
            meta(list, META_OUT, REGISTER);
            lookup(list, set, REGISTER, None);
        }
        Expr::Source(range) | Expr::SourceNot(range) => {
            source_address::<A>(list, REGISTER);
            in_range(list, *range, matches!(expr, Expr::Source(_)));
        }
        Expr::Destination(range) | Expr::DestinationNot(range) => {
            destination_address::<A>(list, REGISTER);
            in_range(list, *range, matches!(expr, Expr::Destination(_)));
        }
        Expr::DestinationLocal => {
            // fib daddr type: result 3 is the kind of address, flag 2 the destination; kind 2 is local.
            element(list, "fib", |data| {
                data.be32(1, REGISTER).be32(2, 3).be32(3, 2);
            });
            compare(list, true, &2u32.to_ne_bytes());
        }
        Expr::SourceElsewhere => {
            // fib saddr . iif oif: result 1 is the device, 0 if there is none; flags 1 the source, 8 by its device.
            element(list, "fib", |data| {
                data.be32(1, REGISTER).be32(2, 1).be32(3, 1 | 8);
            });
            compare(list, true, &[0; 4]);
        }
        Expr::Established => {
            // ct state (key 0): established is bit 1, related bit 2.
            element(list, "ct", |data| {
                data.be32(1, REGISTER).be32(2, 0);
            });
            mask(list, &6u32.to_ne_bytes());
            compare(list, false, &[0; 4]);
        }
        Expr::Translated => {
            // ct status (key 2): IPS_DST_NAT is bit 5.
            element(list, "ct", |data| {
                data.be32(1, REGISTER).be32(2, 2);
            });
            mask(list, &0x20u32.to_ne_bytes());
            compare(list, false, &[0; 4]);
        }
        Expr::Protocol(protocol) => {
            meta(list, META_PROTOCOL, REGISTER);
            compare(list, true, &[protocol.number()]);
        }
        Expr::Neighbour => {
            const ICMPV6: u8 = 58;
            meta(list, META_PROTOCOL, REGISTER);
            compare(list, true, &[ICMPV6]);
            // The first byte is the kind: 135 asks, 136 tells.
            payload(list, 2, 0, 1, REGISTER);
            compare_by(list, NOT_LESS, &[135]);
            compare_by(list, NOT_MORE, &[136]);
        }
        Expr::DestinationPort(port) => {
            destination_port(list, REGISTER);
            compare(list, true, &port.to_be_bytes());
        }
        Expr::DestinationPorts(first, last) => {
            destination_port(list, REGISTER);
            compare_by(list, NOT_LESS, &first.to_be_bytes());
            compare_by(list, NOT_MORE, &last.to_be_bytes());
        }
        Expr::SourceSet(set) => {
            source_address::<A>(list, REGISTER);
            lookup(list, set, REGISTER, None);
        }
        Expr::DestinationSet(set) => {
            destination_address::<A>(list, REGISTER);
            lookup(list, set, REGISTER, None);
        }
        Expr::SourceDestinationSet(set) => {
            source_address::<A>(list, QUARTER);
            destination_address::<A>(list, QUARTER + words::<A>());
            lookup(list, set, REGISTER, None);
        }
        Expr::DestinationPortMap(map) => {
            destination_address::<A>(list, QUARTER);
            meta(list, META_PROTOCOL, QUARTER + words::<A>());
            destination_port(list, QUARTER + words::<A>() + 1);
            lookup(list, map, REGISTER, Some(VERDICT_REGISTER));
        }
        Expr::PortMap(map) => {
            meta(list, META_PROTOCOL, QUARTER);
            destination_port(list, QUARTER + 1);
            lookup(list, map, REGISTER, Some(VERDICT_REGISTER));
        }
        Expr::SourceMap(map) => {
            source_address::<A>(list, REGISTER);
            lookup(list, map, REGISTER, Some(VERDICT_REGISTER));
        }
        Expr::DestinationMap(map) => {
            destination_address::<A>(list, REGISTER);
            lookup(list, map, REGISTER, Some(VERDICT_REGISTER));
        }
        Expr::Jump(chain) => decide(list, JUMP, Some(chain)),
        Expr::Return => decide(list, RETURN, None),
        Expr::Accept => decide(list, ACCEPT, None),
        Expr::Drop => decide(list, DROP, None),
        Expr::RejectReset => reject(list, 1, 0),
        Expr::RejectPort => reject(list, 0, if A::BITS == 32 { 3 } else { 4 }),
        Expr::RejectProhibited => reject(list, 0, if A::BITS == 32 { 13 } else { 1 }),
        Expr::DnatRandom(count, map) => {
            element(list, "numgen", |data| {
                data.be32(1, REGISTER).be32(2, *count).be32(3, 1).be32(4, 0);
            });
            lookup(list, map, REGISTER, Some(REGISTER));
            nat::<A>(list, true);
        }
        Expr::DnatByClient(parts, map) => {
            source_address::<A>(list, REGISTER);
            // jhash: from a register to a register, so many bytes, modulus, seed (else the kernel draws one for each rule).
            element(list, "hash", |data| {
                data.be32(1, REGISTER).be32(2, REGISTER).be32(3, 4 * words::<A>()).be32(4, *parts).be32(5, 1);
            });
            lookup(list, map, REGISTER, Some(REGISTER));
            nat::<A>(list, true);
        }
        Expr::Dnat(address, port) => {
            immediate(list, QUARTER, &address.bytes());
            immediate(list, QUARTER + words::<A>(), &port.to_be_bytes());
            nat::<A>(list, true);
        }
        Expr::Snat(address) => {
            immediate(list, QUARTER, &address.bytes());
            nat::<A>(list, false);
        }
        Expr::Masquerade => element(list, "masq", |_| {}),
    }
}

//! How much of the server one client may have at once, so that none starves another.
//!
//! ```text
//! request ─▶ whose? ─┬─ this process ─────────────▶ answered
//!                    └─ a user, or an address ─▶ free seat ─────────▶ answered; the seat is free when the answer was read
//!                                              ├ no seat, room in line ─▶ waits, first come first served, for the time that the request has
//!                                              └ the line is full ─▶ 429, Retry-After: 1
//! ```
//!
//! A *client* is a user, whatever its connections, or for who is nobody known the address. Who asks as another keeps the seats of its own
//! name. Watches and other streams have seats of their own kind and no line. Seats are taken before a body is read: who sends slowly sits
//! on its own seats. There is no bound over all clients: only the owner makes users, and addresses are bounded by connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::User;
use crate::route::Query;
use crate::status::Status;

/// Requests of one client that are answered at once. kubectl needs some ten, Helm some fifty; each may hold a body of 3 MiB.
pub const AT_WORK_MAX: usize = 64;
/// Requests of one client that wait for a seat.
pub const IN_LINE_MAX: usize = 128;
/// Watches and other streams of one client: a manager of many kinds has one for each.
pub const STREAMS_MAX: usize = 512;
/// What a request that is no stream may take (`--request-timeout` upstream).
pub const REQUEST: Duration = Duration::from_secs(60);

/// Where a request comes from, beside its headers: what carries it in says so.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// This process, which has bounds of its own.
    Inside,
    /// A connection from there.
    Address(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    User(String),
    Address(Option<IpAddr>),
}

struct Seats {
    work: Arc<Semaphore>,
    line: Semaphore,
    streams: Arc<Semaphore>,
}

/// The seats of all clients that have some taken.
#[derive(Clone, Default)]
pub struct Bounds(Arc<Mutex<HashMap<Client, Arc<Seats>>>>);

/// A seat, until it is dropped.
pub struct Seat {
    bounds: Bounds,
    client: Client,
    seats: Arc<Seats>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self.bounds.clients();
        // The map's and this one: nobody else of this client is here or in line.
        if Arc::strong_count(&self.seats) == 2 {
            clients.remove(&self.client);
        }
    }
}

impl Bounds {
    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Arc<Seats>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a request of `user`; `None` for one that needs none.
    ///
    /// # Errors
    /// 429 when the line is full, or of streams when there is no seat.
    pub async fn seat(&self, user: &User, origin: Option<Origin>, stream: bool) -> Result<Option<Seat>, Status> {
        let address = match origin {
            Some(Origin::Inside) => return Ok(None),
            Some(Origin::Address(address)) => Some(network(address)),
            None => None,
        };
        let client = if user.is_anonymous() { Client::Address(address) } else { Client::User(user.name.clone()) };
        let seats = match self.clients().entry(client.clone()) {
            Entry::Occupied(taken) => taken.get().clone(),
            Entry::Vacant(free) => free.insert(Arc::new(Seats::new())).clone(),
        };
        // Made before it waits, so that a client that gives up leaves nothing behind.
        let mut seat = Seat { bounds: self.clone(), client, seats, _permit: None };
        let seats = &seat.seats;
        let many = || Status::too_many_requests("Too many requests, please try again later.", 1);
        let permit = if stream {
            seats.streams.clone().try_acquire_owned().map_err(|_| many())?
        } else if let Ok(permit) = seats.work.clone().try_acquire_owned() {
            permit
        } else {
            let _place = seats.line.try_acquire().map_err(|_| many())?;
            seats.work.clone().acquire_owned().await.map_err(Status::internal)?
        };
        seat._permit = Some(permit);
        Ok(Some(seat))
    }

    /// How many clients have a seat or wait for one.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.clients().len()
    }
}

impl Seats {
    fn new() -> Self {
        let seats = |count| Arc::new(Semaphore::new(count));
        Self { work: seats(AT_WORK_MAX), line: Semaphore::new(IN_LINE_MAX), streams: seats(STREAMS_MAX) }
    }
}

/// Whom an address stands for: of IPv6 a household has 2^64, so its network counts.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
        v4 => v4,
    }
}

/// How long a request that is no stream may take: [`REQUEST`], or less if it says so.
///
/// # Errors
/// 400 for what is no time.
pub fn time_of(query: &Query, list: bool) -> Result<Duration, Status> {
    let mut time = REQUEST;
    if let Some(text) = query.get("timeout") {
        let asked = duration(text)
            .ok_or_else(|| Status::bad_request(format!("invalid timeout specified in the request URL - {text:?}")))?;
        time = if asked.is_zero() { time } else { time.min(asked) };
    }
    // That of a watch is the watch's.
    if let Some(text) = query.get("timeoutSeconds").filter(|_| list) {
        let asked = text.parse().map_err(|_| Status::bad_request(format!("invalid timeoutSeconds {text:?}")))?;
        time = if asked == 0 { time } else { time.min(Duration::from_secs(asked)) };
    }
    Ok(time)
}

/// A time as Go writes it: `1m30s`, `500ms`, `0`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| number + at);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == &rest[number..unit])?;
        seconds += rest[..number].parse::<f64>().ok()? * size;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        let read = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(["0", "10s", "1m30s", "1.5h", "250ms"].map(read), [0, 10_000, 90_000, 5_400_000, 250].map(Some));
        assert_eq!(["", "10", "s", "1x", "-1s", "1s2", "..s", "9e9h"].map(read), [None; 8]);
    }

    #[test]
    fn a_request_has_a_minute_or_less() {
        let time = |query, list| time_of(&Query::parse(Some(query)), list).map(|time| time.as_millis()).ok();
        assert_eq!(time("", false), Some(60_000));
        assert_eq!(time("timeout=2s&timeoutSeconds=1", false), Some(2_000));
        assert_eq!(time("timeout=2s&timeoutSeconds=1", true), Some(1_000));
        assert_eq!(["timeout=2h", "timeout=0", "timeoutSeconds=0"].map(|query| time(query, true)), [Some(60_000); 3]);
    }

    #[tokio::test]
    async fn what_a_client_had_is_forgotten_with_it() {
        let bounds = Bounds::default();
        let [ada, nobody] = [User::new("ada", &[]), User::anonymous()];
        let from = |last| Some(Origin::Address([192, 0, 2, last].into()));
        let first = bounds.seat(&ada, from(1), false).await.unwrap();
        let second = bounds.seat(&ada, from(2), true).await.unwrap();
        assert_eq!(bounds.len(), 1, "a user is one client, wherever it is");
        let others =
            [bounds.seat(&nobody, from(1), false).await.unwrap(), bounds.seat(&nobody, from(2), false).await.unwrap()];
        assert_eq!(bounds.len(), 3, "nobody known is who has the address");
        drop(first);
        assert_eq!(bounds.len(), 3);
        drop((second, others));
        assert_eq!(bounds.len(), 0);
        let mut all = Vec::new();
        for _ in 0..AT_WORK_MAX {
            all.push(bounds.seat(&ada, None, false).await.unwrap());
        }
        let waits = Box::pin(bounds.seat(&ada, None, false));
        let futures::future::Either::Right((_, waits)) =
            futures::future::select(waits, Box::pin(std::future::ready(()))).await
        else {
            panic!("there was no seat left")
        };
        drop(all);
        assert_eq!(bounds.len(), 1, "who is in line is here");
        drop(waits);
        assert_eq!(bounds.len(), 0, "and forgotten when it gives up");
        let v6 = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!((v6("2001:db8:1:2::3").as_str(), v6("::ffff:192.0.2.1").as_str()), ("2001:db8:1:2::", "192.0.2.1"));
    }
}

//! URLs, addresses and ranges of addresses.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::evaluate::no_overload;
use super::super::fail;
use super::super::value::Value;
use super::{Answer, Row};

pub(super) const TABLE: &[Row] = &[
    ("url", 1, 1, |_, a| match parsed(a, url)? {
        Ok(url) => Ok(Value::Url(Arc::new(url))),
        Err(text) => fail(format!("URL parse error during conversion from string: {text:?}")),
    }),
    ("isURL", 1, 1, |_, a| Ok(Value::Bool(parsed(a, url)?.is_ok()))),
    (".getScheme", 0, 0, |_, a| of_url(a, |url| Value::text(if is_path(url) { "" } else { url.scheme() }))),
    (".getHost", 0, 0, |_, a| {
        of_url(a, |url| match (is_path(url), url.host_str(), url.port()) {
            (false, Some(host), Some(port)) => Value::text(format!("{host}:{port}")),
            (false, Some(host), None) => Value::text(host),
            _ => Value::text(""),
        })
    }),
    (".getHostname", 0, 0, |_, a| {
        of_url(a, |url| {
            Value::text(if is_path(url) { "" } else { url.host_str().unwrap_or_default().trim_matches(['[', ']']) })
        })
    }),
    (".getPort", 0, 0, |_, a| {
        of_url(a, |url| Value::text(url.port().map(|port| port.to_string()).unwrap_or_default()))
    }),
    (".getEscapedPath", 0, 0, |_, a| of_url(a, |url| Value::text(url.path()))),
    (".getQuery", 0, 0, |_, a| {
        of_url(a, |url| {
            let mut found: Vec<(Value<'_>, Vec<Value<'_>>)> = Vec::new();
            for (key, value) in url.query_pairs() {
                let (key, value) = (Value::text(key.into_owned()), Value::text(value.into_owned()));
                match found.iter_mut().find(|(known, _)| known.equals(&key)) {
                    Some((_, values)) => values.push(value),
                    None => found.push((key, vec![value])),
                }
            }
            Value::Map(Arc::new(found.into_iter().map(|(key, values)| (key, Value::list(values))).collect()))
        })
    }),
    ("ip", 1, 1, |_, a| match parsed(a, ip)? {
        Ok(ip) => Ok(Value::Ip(ip)),
        Err(text) => fail(format!("IP Address {text:?} parse error during conversion from string")),
    }),
    ("isIP", 1, 1, |_, a| Ok(Value::Bool(parsed(a, ip)?.is_ok()))),
    ("ip.isCanonical", 1, 1, |_, a| match (parsed(a, ip)?, &a[0]) {
        (Ok(ip), Value::Text(text)) => Ok(Value::Bool(ip.to_string() == **text)),
        _ => fail("IP Address parse error during conversion from string"),
    }),
    (".family", 0, 0, |_, a| of_ip(a, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    (".isUnspecified", 0, 0, |_, a| of_ip(a, |ip| Value::Bool(ip.is_unspecified()))),
    (".isLoopback", 0, 0, |_, a| of_ip(a, |ip| Value::Bool(ip.is_loopback()))),
    (".isLinkLocalMulticast", 0, 0, |_, a| {
        of_ip(a, |ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
                IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
            })
        })
    }),
    (".isLinkLocalUnicast", 0, 0, |_, a| of_ip(a, |ip| Value::Bool(is_link_local(ip)))),
    (".isGlobalUnicast", 0, 0, |_, a| {
        of_ip(a, |ip| {
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
            Value::Bool(!broadcast && !other)
        })
    }),
    ("cidr", 1, 1, |_, a| match parsed(a, cidr)? {
        Ok((ip, bits)) => Ok(Value::Cidr(ip, bits)),
        Err(text) => fail(format!("network address parse error during conversion from string: {text:?}")),
    }),
    ("isCIDR", 1, 1, |_, a| Ok(Value::Bool(parsed(a, cidr)?.is_ok()))),
    (".ip", 0, 0, |_, a| match a {
        [Value::Cidr(ip, _)] => Ok(Value::Ip(*ip)),
        _ => no_overload(),
    }),
    (".prefixLength", 0, 0, |_, a| match a {
        [Value::Cidr(_, bits)] => Ok(Value::Int(i64::from(*bits))),
        _ => no_overload(),
    }),
    (".masked", 0, 0, |_, a| match a {
        [Value::Cidr(ip, bits)] => Ok(Value::Cidr(masked(*ip, *bits), *bits)),
        _ => no_overload(),
    }),
    (".containsIP", 1, 1, |_, a| match a {
        [Value::Cidr(base, bits), Value::Ip(ip)] => Ok(Value::Bool(within(*base, *bits, *ip))),
        [Value::Cidr(base, bits), Value::Text(text)] => match ip(text) {
            Some(ip) => Ok(Value::Bool(within(*base, *bits, ip))),
            None => fail(format!("IP Address {:?} parse error during conversion from string", &**text)),
        },
        _ => no_overload(),
    }),
    (".containsCIDR", 1, 1, |_, a| {
        let (base, bits, inner) = match a {
            [Value::Cidr(base, bits), Value::Cidr(ip, n)] => (base, bits, Some((*ip, *n))),
            [Value::Cidr(base, bits), Value::Text(text)] => (base, bits, cidr(text)),
            _ => return no_overload(),
        };
        let Some((ip, n)) = inner else { return fail("network address parse error during conversion from string") };
        Ok(Value::Bool(n >= *bits && within(*base, *bits, ip)))
    }),
];

/// A path is kept as a URL of this host.
const PATH: &str = "http://path.invalid";

/// An absolute URL, or a path that begins with a slash.
fn url(text: &str) -> Option<url::Url> {
    let parsed = if text.starts_with('/') { url::Url::parse(&format!("{PATH}{text}")) } else { url::Url::parse(text) };
    parsed.ok()
}

fn is_path(url: &url::Url) -> bool {
    url.host_str() == Some("path.invalid")
}

/// As Go's netip has addresses: no zones, no IPv4 in IPv6.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    (!mapped).then_some(ip)
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (base, bits) = text.split_once('/')?;
    let (base, bits) = (ip(base)?, bits.parse().ok()?);
    (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some((base, bits))
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()),
        IpAddr::V6(ip) => {
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into())
        }
    }
}

fn within(base: IpAddr, bits: u8, ip: IpAddr) -> bool {
    base.is_ipv4() == ip.is_ipv4() && masked(base, bits) == masked(ip, bits)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn parsed<T>(a: &[Value<'_>], read: impl Fn(&str) -> Option<T>) -> Result<Result<T, String>, super::Fail> {
    match a {
        [Value::Text(text)] => Ok(read(text).ok_or_else(|| text.chars().take(64).collect())),
        _ => no_overload(),
    }
}

fn of_url<'a>(a: &[Value<'a>], make: impl Fn(&url::Url) -> Value<'a>) -> Answer<'a> {
    match a {
        [Value::Url(url)] => Ok(make(url)),
        _ => no_overload(),
    }
}

fn of_ip<'a>(a: &[Value<'a>], make: impl Fn(IpAddr) -> Value<'a>) -> Answer<'a> {
    match a {
        [Value::Ip(ip)] => Ok(make(*ip)),
        _ => no_overload(),
    }
}

//! Acquaintances as objects: what was accepted is kept, and is checked again when it is read.

use std::fmt::Write as _;

use fluidos_identity::{Acquaintances, KeyHistory, NodeId, Owners, Standing, Statement, Vouch};
use fluidos_model::kinds::{AcquaintanceSpec, AcquaintanceStanding, AcquaintanceStatus, AcquaintanceVouch};

/// Hexadecimal digits of the key in a name: nobody can make a key to measure for 128 bits.
const DIGITS: usize = 32;
/// A message is a line.
const MESSAGE_MAX: usize = 300;

/// The name of the object of a node.
pub(super) fn name(origin: &NodeId) -> String {
    let digits = origin.public_key().iter().take(DIGITS / 2).fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}"); // writing to a String cannot fail
        digits
    });
    format!("acquaintance-{digits}")
}

/// What is kept of one.
pub(super) fn record(history: &KeyHistory, owners: &Owners) -> AcquaintanceSpec {
    // Names and numbers: it always has a JSON form.
    let text = |statement: &Statement| serde_json::to_string(&statement.envelope()).unwrap_or_default();
    let keys = history.accepted().iter().filter_map(|statement| match statement {
        Statement::Handover(handover) => Some(handover.to()),
        Statement::Revocation(_) => None,
    });
    let vouches = [history.origin()].into_iter().chain(keys).filter_map(|key| {
        let Vouch { owner, from, until } = owners.of(&key)?;
        Some(AcquaintanceVouch {
            key: key.to_string(),
            owner: owner.to_string(),
            from: from.to_string(),
            until: until.to_string(),
        })
    });
    AcquaintanceSpec {
        did: history.origin().to_string(),
        accepted: history.accepted().iter().map(text).collect(),
        doubts: history.doubts().iter().map(text).collect(),
        vouches: vouches.collect(),
    }
}

/// How it stands, in the words of the object.
pub(super) fn status(standing: &Standing, name: String) -> AcquaintanceStatus {
    let (word, key, message) = match standing {
        Standing::Current(key) => (AcquaintanceStanding::Current, key.to_string(), String::new()),
        Standing::Revoked { key, by, at, reason } => {
            let message = format!("revoked by {by} at {at}: {reason}");
            (AcquaintanceStanding::Revoked, key.to_string(), message)
        }
        Standing::Unknown(doubt) => (AcquaintanceStanding::Unknown, String::new(), doubt.to_string()),
    };
    let message = message.chars().take(MESSAGE_MAX).collect();
    AcquaintanceStatus { name, standing: Some(word), key, message }
}

/// What was kept. What somebody has written into it that does not hold is left out and named.
pub(super) fn restore<'a>(specs: impl IntoIterator<Item = &'a AcquaintanceSpec>) -> Acquaintances {
    let (mut histories, mut owners) = (Vec::new(), Vec::new());
    for spec in specs {
        let Ok(origin) = spec.did.parse::<NodeId>() else {
            tracing::warn!(did = spec.did, "an Acquaintance of nobody is passed over");
            continue;
        };
        let read = |texts: &[String]| -> Vec<Statement> {
            let read = texts.iter().map(|text| Statement::parse(text.as_bytes()));
            read.filter_map(|read| {
                read.map_err(|error| tracing::warn!(%origin, %error, "a statement of an Acquaintance is passed over"))
                    .ok()
            })
            .collect()
        };
        histories.push(KeyHistory::restore(origin, read(&spec.accepted), read(&spec.doubts)));
        for vouch in &spec.vouches {
            let parsed = (vouch.key.parse(), vouch.owner.parse(), vouch.from.parse(), vouch.until.parse());
            match parsed {
                (Ok(key), Ok(owner), Ok(from), Ok(until)) => owners.push((key, Vouch { owner, from, until })),
                _ => tracing::warn!(%origin, ?vouch, "a vouch of an Acquaintance is passed over"),
            }
        }
    }
    Acquaintances::restore(histories, owners.into_iter().collect())
}

//! Tokens of service accounts that pods have got: asked for once, and again when most of their life is over (as upstream, four fifths, or a
//! day), so that a volume does not change at each look.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// A token is asked for again a day after it was given, however long it lives.
const AGE_MAX_SECONDS: i64 = 24 * 3600;

/// Pod by its uid, volume, path in it.
pub type Place = (String, String, String);

/// The tokens. They are nowhere else but in the files of their pods.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<Place, Held>>);

struct Held {
    token: String,
    renew: i64,
}

impl Tokens {
    /// The token of a place, if it need not be renewed yet.
    pub fn get(&self, place: &Place) -> Option<String> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(place).filter(|held| now() < held.renew).map(|held| held.token.clone())
    }

    /// Keeps a token that expires then; those whose time is over go, and with them those of pods that are gone.
    pub fn insert(&self, place: Place, token: &str, expires: Timestamp) {
        let (now, expires) = (now(), expires.as_second());
        let renew = now + ((expires - now) * 4 / 5).min(AGE_MAX_SECONDS);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| now < held.renew);
        held.insert(place, Held { token: token.to_owned(), renew });
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_kept_for_four_fifths_of_its_life() {
        let tokens = Tokens::default();
        let place = |pod: &str| (pod.to_owned(), "v".to_owned(), "token".to_owned());
        let after = |seconds: i64| Timestamp::from_second(now() + seconds).unwrap();
        tokens.insert(place("a"), "t", after(3600));
        assert_eq!(tokens.get(&place("a")).as_deref(), Some("t"));
        assert_eq!(tokens.get(&place("b")), None);
        assert_eq!(tokens.0.lock().unwrap()[&place("a")].renew - now(), 2880);
        tokens.insert(place("b"), "t", after(1_000_000));
        assert_eq!(tokens.0.lock().unwrap()[&place("b")].renew - now(), AGE_MAX_SECONDS);
        tokens.insert(place("c"), "t", after(0));
        assert_eq!(tokens.get(&place("c")), None, "it is over");
        tokens.insert(place("d"), "t", after(60));
        assert!(!tokens.0.lock().unwrap().contains_key(&place("c")), "and is forgotten");
    }
}

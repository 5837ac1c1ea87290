//! What a registry says it wants (`WWW-Authenticate`, RFC 9110 section 11.6.1).

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With user and password (RFC 7617).
    Basic,
    /// With a token that somebody else gives (distribution project, "Token Authentication Specification").
    Bearer {
        /// Who gives it.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

/// What a token is asked for is words; longer ones are none.
const VALUE_MAX: usize = 2048;

impl Challenge {
    /// The first one of a header that is understood.
    pub fn parse(header: &str) -> Option<Self> {
        let mut rest = header;
        while !rest.is_empty() {
            let (scheme, after) = token(rest);
            if scheme.is_empty() {
                return None;
            }
            let (parameters, after) = parameters(after);
            let value = |wanted: &str| {
                let mut all = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                all.next().map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("basic") {
                return Some(Self::Basic);
            }
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = value("realm")
            {
                return Some(Self::Bearer { realm, service: value("service") });
            }
            rest = after;
        }
        None
    }
}

fn token(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    text.split_at(end)
}

/// `name=value` or `name="value"`, with commas between them, up to the next scheme.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut all = Vec::new();
    loop {
        let (name, after) = token(text);
        let Some(after) = after.trim_start().strip_prefix('=').filter(|_| !name.is_empty()) else {
            return (all, text);
        };
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, after) = token(after);
                (value.to_owned(), after)
            }
        };
        if value.len() <= VALUE_MAX {
            all.push((name.to_owned(), value));
        }
        text = after;
    }
}

fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_registries() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (header, expected) in [
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"bearer realm = "https://x/\"y""#, bearer(r#"https://x/"y"#, None)),
            (r#"Negotiate, Basic realm=x"#, Some(Challenge::Basic)),
            (r#"Digest realm="a, b", qop=auth, Bearer realm="https://t""#, bearer("https://t", None)),
            ("Bearer", None),
            ("", None),
            ("=,=", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_challenge_or_not(header in ".{0,80}") {
            let _ = Challenge::parse(&header);
        }
    }
}

//! From a path to what is asked for. `/apis/GROUP/VERSION/namespaces/NS/PLURAL/NAME/SUBRESOURCE`.

use http::Method;

/// What of the API a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Empty for the core group.
    pub group: String,
    /// As `v1`.
    pub version: String,
    /// Empty for cluster-scoped objects and for lists over all namespaces.
    pub namespace: String,
    /// The resource, as `pods`.
    pub plural: String,
    /// Empty for a collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

/// A place under `/api` or `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Version(String, String),
    /// An object or a collection.
    Resource(Route),
}

impl Place {
    /// What a path and its query ask for. `/api/v1/watch/…`, the older form of a watch, becomes the newer one.
    pub fn of(path: &str, query: Option<&str>) -> (Option<Self>, Query) {
        let mut query = Query::parse(query);
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let root = parts.first().copied().unwrap_or_default();
        let at = if root == "apis" { 3 } else { 2 };
        if !matches!(root, "api" | "apis") || parts.get(at) != Some(&"watch") || parts.len() == at + 1 {
            return (Self::parse(path), query);
        }
        parts.remove(at);
        let mut place = Self::parse(&parts.join("/"));
        query.0.push(("watch".into(), "true".into()));
        if let Some(Self::Resource(route)) = &mut place
            && !route.name.is_empty()
        {
            query.0.push(("fieldSelector".into(), format!("metadata.name={}", std::mem::take(&mut route.name))));
        }
        (place, query)
    }

    /// What `path` names, if it is under `/api` or `/apis`.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').map(decode);
        let place = match parts.next()?.as_str() {
            "api" => match parts.next() {
                None => Self::Core,
                Some(version) => Self::within(String::new(), version, parts)?,
            },
            "apis" => match (parts.next(), parts.next()) {
                (None, _) => Self::Groups,
                (Some(group), None) => Self::Group(group),
                (Some(group), Some(version)) => Self::within(group, version, parts)?,
            },
            _ => return None,
        };
        Some(place)
    }

    fn within(group: String, version: String, parts: impl Iterator<Item = String>) -> Option<Self> {
        let parts: Vec<String> = parts.collect();
        if parts.iter().any(String::is_empty) {
            return None;
        }
        let mut route = Route { group, version, ..Route::default() };
        let mut rest = parts.as_slice();
        if rest.is_empty() {
            return Some(Self::Version(route.group, route.version));
        }
        // `/namespaces/NS/status` and `/finalize` are subresources of the namespace itself.
        if let [first, namespace, plural, tail @ ..] = rest
            && first == "namespaces"
            && !(tail.is_empty() && matches!(plural.as_str(), "status" | "finalize"))
        {
            route.namespace = namespace.clone();
            rest = &rest[2..];
        }
        let (plural, rest) = rest.split_first()?;
        route.plural = plural.clone();
        let mut rest = rest.iter();
        route.name = rest.next().cloned().unwrap_or_default();
        route.subresource = rest.next().cloned().unwrap_or_default();
        // `proxy/ANY/PATH` is the only subresource with a tail.
        (rest.next().is_none() || route.subresource == "proxy").then_some(Self::Resource(route))
    }
}

/// A part of a path without its escapes.
pub fn decode(part: &str) -> String {
    if !part.contains('%') {
        return part.to_owned();
    }
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if bytes[i] == b'%' => {
                out.push(byte);
                i += 3;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The query of a request, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
                })
                .collect(),
        )
    }

    /// The first value of `key`; empty values count as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// All values of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Puts `values` in the place of all of `key`.
    pub fn set(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        self.0.retain(|(k, _)| k != key);
        self.0.extend(values.into_iter().map(|value| (key.to_owned(), value)));
    }

    /// Whether `key` is there and true, as Go's `strconv.ParseBool` reads it.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// The verb of a request, in RBAC's words.
pub fn verb(method: &Method, route: &Route, query: &Query) -> Option<&'static str> {
    let collection = route.name.is_empty();
    Some(match (method.as_str(), collection) {
        // Of one object it is a parameter like others.
        ("GET", true) if query.flag("watch") => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("HEAD", false) if route.subresource == "proxy" => "get",
        ("POST", true) => "create",
        ("POST", false) if !route.subresource.is_empty() => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn route(path: &str) -> String {
        match Place::parse(path) {
            Some(Place::Resource(r)) => [r.group, r.version, r.namespace, r.plural, r.name, r.subresource].join("|"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/api/v1/pods", "|v1||pods||"),
            ("/api/v1/namespaces", "|v1||namespaces||"),
            ("/api/v1/namespaces/a", "|v1||namespaces|a|"),
            ("/api/v1/namespaces/a/status", "|v1||namespaces|a|status"),
            ("/api/v1/namespaces/a/finalize", "|v1||namespaces|a|finalize"),
            ("/api/v1/namespaces/a/pods/b/log", "|v1|a|pods|b|log"),
            ("/apis/apps/v1/namespaces/a/deployments/b", "apps|v1|a|deployments|b|"),
            ("/apis/x.io/v1/namespaces/a/status/b", "x.io|v1|a|status|b|"),
            ("/api/v1/nodes/n%2Fx/status", "|v1||nodes|n/x|status"),
            ("/api", "Some(Core)"),
            ("/apis/apps", "Some(Group(\"apps\"))"),
            ("/apis/apps/v1", "Some(Version(\"apps\", \"v1\"))"),
            ("/api/v1/namespaces/a/pods/b/log/more", "None"),
            ("/healthz", "None"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn watches_in_the_older_form() {
        for (path, expected) in [
            ("/api/v1/watch/namespaces/a/pods", "|v1|a|pods|||watch|"),
            ("/apis/apps/v1/watch/deployments", "apps|v1||deployments|||watch|"),
            ("/api/v1/watch/namespaces/a/pods/b", "|v1|a|pods|||watch|metadata.name=b"),
            ("/api/v1/namespaces/a/pods/watch", "|v1|a|pods|watch||get|"),
        ] {
            let (place, query) = Place::of(path, None);
            let Some(Place::Resource(r)) = place else { panic!("{path}") };
            let verb = verb(&Method::GET, &r, &query).unwrap().to_owned();
            let selector = query.get("fieldSelector").unwrap_or_default().to_owned();
            let found = [r.group, r.version, r.namespace, r.plural, r.name, r.subresource, verb, selector].join("|");
            assert_eq!(found, expected, "{path}");
        }
    }
}

//! A registry that is spoken to over HTTP: what it has, whom it admits, and what it was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine_images::{Digest, architecture};
use serde_json::{Value, json};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Whom it asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nobody.
    Open,
    /// With user and password: `NAME:secret` is admitted to repositories below `NAME/`, and everybody to `public/`.
    Basic,
    /// The same by tokens.
    Bearer,
    /// By tokens that no header can hold.
    Absurd,
}

#[derive(Default)]
pub struct Content {
    /// By path after `/v2/`.
    pub answers: HashMap<String, (&'static str, Vec<u8>)>,
    /// The path of each request that was answered with 200.
    pub given: Vec<String>,
}

/// It ends with the process.
pub struct Server {
    pub domain: String,
    pub content: Arc<Mutex<Content>>,
}

impl Server {
    pub fn start(guard: Guard) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let domain = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let (own, shared) = (domain.clone(), content.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (own, shared) = (own.clone(), shared.clone());
                std::thread::spawn(move || answer(stream.unwrap(), &own, guard, &shared));
            }
        });
        Self { domain, content }
    }

    /// Has an image with these layers; its name and the digest of its manifest.
    pub fn put(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> (String, Digest) {
        let mut content = self.content.lock().unwrap();
        let mut add = |kind: &str, name: String, media: &'static str, bytes: Vec<u8>| {
            content.answers.insert(format!("{repository}/{kind}/{name}"), (media, bytes));
        };
        let config = json!({"architecture": architecture(), "os": "linux", "config": {"Cmd": [tag]}});
        let config = config.to_string().into_bytes();
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let described: Vec<Value> = layers.iter().map(|bytes| describe(bytes, layer)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": describe(&config, "c"), "layers": described});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = describe(&manifest, MANIFEST);
        entry["platform"] = json!({"os": "linux", "architecture": architecture()});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string().into_bytes();
        let digest = Digest::of(&manifest);
        for bytes in layers.iter().chain([&config]) {
            add("blobs", Digest::of(bytes).to_string(), "application/octet-stream", bytes.clone());
        }
        add("manifests", digest.to_string(), MANIFEST, manifest);
        add("manifests", tag.to_owned(), INDEX, index);
        (format!("{}/{repository}:{tag}", self.domain), digest)
    }

    /// The answers since the last time.
    pub fn given(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().given)
    }
}

pub fn describe(bytes: &[u8], media: &str) -> Value {
    json!({"mediaType": media, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn answer(mut stream: TcpStream, domain: &str, guard: Guard, content: &Mutex<Content>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap().take(64 << 10)).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut authorization = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let user = |encoded: &str| {
        let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        text.strip_suffix(":secret").map(str::to_owned)
    };
    let basic = authorization.as_deref().and_then(|value| user(value.strip_prefix("Basic ")?));
    let (status, media, body, more) = if let Some(query) = path.strip_prefix("/token?") {
        assert!(query.contains("service=here") && query.contains("scope=repository%3A"), "{query}");
        let token =
            if guard == Guard::Absurd { "a\nb".to_owned() } else { format!("of-{}", basic.unwrap_or_default()) };
        (200, "application/json", json!({"token": token}).to_string().into_bytes(), String::new())
    } else {
        let path = path.trim_start_matches("/v2/");
        let bearer = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer of-")).map(str::to_owned);
        let (who, challenge) = match guard {
            Guard::Open => (None, String::new()),
            Guard::Basic => (basic, "Basic realm=\"here\"".to_owned()),
            _ => (bearer, format!("Bearer realm=\"http://{domain}/token\",service=\"here\"")),
        };
        let of = path.split('/').next().unwrap_or_default();
        let free = guard == Guard::Open || (of == "public" && who.is_some()) || who.as_deref() == Some(of);
        let free = free || (guard == Guard::Basic && of == "public");
        let mut content = content.lock().unwrap();
        match content.answers.get(path).cloned() {
            _ if !free => (401, "text/plain", Vec::new(), format!("WWW-Authenticate: {challenge}\r\n")),
            Some((media, bytes)) => {
                content.given.push(path.to_owned());
                (200, media, bytes, String::new())
            }
            None => (404, "text/plain", Vec::new(), String::new()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    // Whoever asked may have gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

//! Tokens of service accounts: JSON web tokens (RFC 7519) signed by this server with ES256 (RFC 7518, 3.4), good for an audience and a time,
//! and only while the account, and the object that they are bound to, are there (KEP-1205).
//!
//! ```text
//! POST serviceaccounts/NAME/token ─▶ account and bound object are looked up ─▶ claims ─▶ signed
//! Authorization: Bearer a.b.c ─▶ signature (remembered) ─▶ issuer, time, audience ─▶ account and object still there, by uid ─▶ user
//! /openid/v1/jwks, /.well-known/openid-configuration ─▶ the key by which others check them (RFC 7517)
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::User;
use super::last_used::LastUsed;
use crate::admission::{self, Operation};
use crate::body;
use crate::object;
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::verbs::Call;

/// Who signs, as clusters made by kubeadm call themselves.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Who signs tokens that are kept in Secrets, as upstream; their claims have names of their own.
const LEGACY: &str = "kubernetes/serviceaccount";
const LEGACY_CLAIM: &str = "kubernetes.io/serviceaccount";
/// Seconds: the least, the most and the usual life of a token.
const LIFE: (i64, i64, i64) = (600, 1 << 32, 3600);
/// A token is some 1 KiB; more is not looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Audiences of one token, and bytes of all of them: a token that is issued must be taken, too.
const AUDIENCES_MAX: usize = 64;
const AUDIENCES_BYTES_MAX: usize = 4096;
/// Tokens whose signature need not be checked again. A signature costs some 100 µs.
const REMEMBERED_MAX: usize = 1024;
/// A token that is longer than usual is checked each time: what is remembered must stay small.
const REMEMBERED_BYTES_MAX: usize = 2048;
/// Seconds that tokens are good for after the object they are bound to should be gone: it may be held up.
const LEEWAY: i64 = 60;

/// The key that signs, and what it has seen to be its own.
pub struct Issuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
    /// Where others find the keys.
    keys_url: String,
    seen: Mutex<HashMap<[u8; 32], Arc<Value>>>,
    last_used: LastUsed,
}

impl Issuer {
    /// The issuer whose key is in `directory` (`sa.key`, mode 0600), made if absent. `server` is where the API is reached, as `https://…`.
    ///
    /// # Errors
    /// When the file cannot be read, written or understood.
    pub fn open(directory: &Path, server: &str) -> Result<Self, crate::tls::Error> {
        let path = directory.join("sa.key");
        let failed = |why: String| crate::tls::Error::Certificate(format!("{}: {why}", path.display()));
        if !path.exists() {
            let key = rcgen::KeyPair::generate().map_err(|e| failed(e.to_string()))?;
            crate::tls::write_private(&path, key.serialize_pem().as_bytes()).map_err(|e| failed(e.to_string()))?;
        }
        let der = PrivatePkcs8KeyDer::from_pem_file(&path).map_err(|e| failed(e.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|e| failed(e.to_string()))?;
        let key_id = BASE64URL.encode(Sha256::digest(key.public_key()));
        Ok(Self {
            key,
            random,
            key_id,
            keys_url: format!("{server}/openid/v1/jwks"),
            seen: Mutex::default(),
            last_used: LastUsed::default(),
        })
    }

    /// A token of these claims.
    fn sign(&self, claims: &Value) -> Result<String, Status> {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let head = part(&json!({ "alg": "ES256", "kid": self.key_id }));
        let signed = format!("{head}.{}", part(claims));
        let signature =
            self.key.sign(&self.random, signed.as_bytes()).map_err(|_| Status::internal("the token was not signed"))?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// What a token that this server has signed claims; `None` of any other.
    fn claims(&self, token: &str) -> Option<Arc<Value>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = seen().get(&digest) {
            return Some(claims.clone());
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let read = |part: &str| serde_json::from_slice::<Value>(&BASE64URL.decode(part).ok()?).ok();
        let head = read(head)?;
        if head["alg"] != "ES256" || head["kid"] != self.key_id.as_str() {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &BASE64URL.decode(signature).ok()?).ok()?;
        let claims = Arc::new(read(claims)?);
        if token.len() > REMEMBERED_BYTES_MAX {
            return Some(claims);
        }
        let mut seen = seen();
        if seen.len() >= REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(digest, claims.clone());
        Some(claims)
    }

    /// The key set (RFC 7517).
    pub fn keys(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({ "keys": [{ "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
                           "x": BASE64URL.encode(x), "y": BASE64URL.encode(y) }] })
    }

    /// Where the keys are, and what they sign (OpenID Connect Discovery 1.0).
    pub fn configuration(&self) -> Value {
        json!({ "issuer": ISSUER, "jwks_uri": self.keys_url, "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"] })
    }
}

/// Whether a token may be one of a service account: of three parts.
pub(super) fn may_be(token: &str) -> bool {
    token.split('.').count() == 3
}

/// The user of a token and which of the `audiences` it is for; without any, it must be for this server.
///
/// # Errors
/// Why it is nobody's, for who may ask; it says nothing about the token itself.
pub fn user(server: &ApiServer, token: &str, audiences: &[&str]) -> Result<(User, Vec<String>), &'static str> {
    let issuer = server.inner.issuer.get().ok_or("no tokens of service accounts are issued here")?;
    let claims = issuer.claims(token).ok_or("invalid bearer token")?;
    let now = jiff::Timestamp::now().as_second();
    let second = |name: &str| claims[name].as_i64().unwrap_or_default();
    if claims["iss"] == LEGACY {
        let (user, audiences, secret) = of_secret(server, token, &claims, audiences)?;
        issuer.last_used.note(server, &secret);
        return Ok((user, audiences));
    }
    if claims["iss"] != ISSUER {
        return Err("invalid bearer token");
    }
    if now < second("nbf") || now >= second("exp") {
        return Err("service account token has expired");
    }
    let wanted = if audiences.is_empty() { &[ISSUER][..] } else { audiences };
    let of = |claims: &Value| -> Vec<String> {
        let audiences = claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str);
        audiences.filter(|audience| wanted.contains(audience)).map(str::to_owned).collect()
    };
    let audiences = of(&claims);
    if audiences.is_empty() {
        return Err("token audiences is invalid for the target audiences");
    }
    let about = &claims["kubernetes.io"];
    let namespace = about["namespace"].as_str().unwrap_or_default();
    let name = about["serviceaccount"]["name"].as_str().unwrap_or_default();
    let there = |plural: &str, namespace: &str, bound: &Value| {
        let found = find(server, plural, namespace, bound["name"].as_str().unwrap_or_default());
        found.ok().flatten().is_some_and(|object| object["metadata"]["uid"] == bound["uid"] && !is_over(&object, now))
    };
    if !there("serviceaccounts", namespace, &about["serviceaccount"]) {
        return Err("service account token has been invalidated");
    }
    for (claim, plural, namespace) in
        [("pod", "pods", namespace), ("secret", "secrets", namespace), ("node", "nodes", "")]
    {
        // The node of a pod is told, and not bound to.
        let bound = about[claim].is_object() && (claim != "node" || !about["pod"].is_object());
        if bound && !there(plural, namespace, &about[claim]) {
            return Err("service account token has been invalidated");
        }
    }
    Ok((account(namespace, name), audiences))
}

/// The user of an account.
pub fn account(namespace: &str, name: &str) -> User {
    let own = format!("system:serviceaccounts:{namespace}");
    User::new(&format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &own])
}

/// The user of a token that is kept in a Secret, and the Secret: it has no end of its own, and is good while the Secret holds exactly it.
fn of_secret(
    server: &ApiServer,
    token: &str,
    claims: &Value,
    audiences: &[&str],
) -> Result<(User, Vec<String>, Value), &'static str> {
    if !audiences.is_empty() && !audiences.contains(&ISSUER) {
        return Err("token audiences is invalid for the target audiences");
    }
    let claim = |name: &str| claims[format!("{LEGACY_CLAIM}/{name}")].as_str().unwrap_or_default();
    let (namespace, name) = (claim("namespace"), claim("service-account.name"));
    let there = |plural: &str, name: &str| {
        let found = find(server, plural, namespace, name).ok().flatten();
        found.filter(|object| !object::is_deleting(object))
    };
    let secret = there("secrets", claim("secret.name")).ok_or("service account token has been invalidated")?;
    let kept = secret["data"]["token"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    if kept.as_deref() != Some(token.as_bytes()) {
        return Err("service account token does not match server's copy");
    }
    let found = there("serviceaccounts", name).filter(|found| found["metadata"]["uid"] == claim("service-account.uid"));
    found.ok_or("service account token has been invalidated")?;
    Ok((account(namespace, name), vec![ISSUER.to_owned()], secret))
}

/// A token of the account (name, uid) to be kept in this Secret.
///
/// # Errors
/// Where none are issued, or it cannot be signed.
pub fn for_secret(server: &ApiServer, namespace: &str, account: (&str, &str), secret: &str) -> Result<String, Status> {
    let issuer = server.inner.issuer.get().ok_or_else(Status::no_resource)?;
    let mut claims = json!({ "iss": LEGACY, "sub": format!("system:serviceaccount:{namespace}:{}", account.0) });
    let own = [("namespace", namespace), ("secret.name", secret), ("service-account.name", account.0)];
    for (claim, value) in own.into_iter().chain([("service-account.uid", account.1)]) {
        claims[format!("{LEGACY_CLAIM}/{claim}")] = value.into();
    }
    issuer.sign(&claims)
}

/// Whether an object should be gone, and is held up.
fn is_over(object: &Value, now: i64) -> bool {
    let deleted =
        object["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    deleted.is_some_and(|time| time.as_second() + LEEWAY < now)
}

/// An object of the core group by its name.
pub fn find(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
    let kind = server.inner.registry.get("", "v1", plural).ok_or_else(Status::no_resource)?;
    let entry = server.inner.store.get(&format!("{}{name}", kind.prefix(namespace)));
    entry.map(|entry| crate::verbs::read::decoded(&kind, &entry)).transpose()
}

/// Answers `serviceaccounts/NAME/token`: a TokenRequest, with its token.
///
/// # Errors
/// 404 without the account or the bound object, 409 if that is another of its name, 422 for a life or an object that cannot be.
pub async fn request(server: &ApiServer, call: &Call, sent: &[u8]) -> Result<Value, Status> {
    let issuer = server.inner.issuer.get().ok_or_else(Status::no_resource)?;
    let mut request = body::parse(&call.headers, sent)?;
    let (namespace, name) = (&call.route.namespace, &call.route.name);
    let (what, dry_run) = ((Operation::Create, Some(["authentication.k8s.io", "v1", "TokenRequest"])), call.dry_run()?);
    admission::ask(server, call, what, &mut request, (None, dry_run)).await?;
    let account = find(server, "serviceaccounts", namespace, name)?.ok_or_else(|| call.not_found())?;
    let mut spec = match request["spec"].take() {
        Value::Null => json!({}),
        spec => spec,
    };
    let given: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let audiences = if given.is_empty() { json!([ISSUER]) } else { json!(given) };
    let life = spec["expirationSeconds"].as_i64().unwrap_or(LIFE.2);
    let wrong = match life {
        _ if given.len() > AUDIENCES_MAX => Some(("spec.audiences", format!("may not have more than {AUDIENCES_MAX}"))),
        _ if given.iter().map(|audience| audience.len()).sum::<usize>() > AUDIENCES_BYTES_MAX => {
            Some(("spec.audiences", format!("may not have more than {AUDIENCES_BYTES_MAX} bytes")))
        }
        _ if life < LIFE.0 => {
            Some(("spec.expirationSeconds", "may not specify a duration less than 10 minutes".into()))
        }
        _ if life > LIFE.1 => {
            Some(("spec.expirationSeconds", "may not specify a duration larger than 2^32 seconds".into()))
        }
        _ => None,
    };
    if let Some((field, why)) = wrong {
        let found = if field == "spec.audiences" { json!(given) } else { json!(life) };
        let error = FieldError::invalid(field, &found, &why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error]));
    }
    let now = jiff::Timestamp::now().as_second();
    let mut about = json!({
        "namespace": namespace, "serviceaccount": { "name": name, "uid": account["metadata"]["uid"] } });
    bind(server, call, &spec["boundObjectRef"], &mut about)?;
    let claims = json!({
        "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"), "aud": audiences, "iat": now,
        "nbf": now, "exp": now + life, "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": about });
    let token = if dry_run { String::new() } else { issuer.sign(&claims)? };
    let expires = jiff::Timestamp::from_second(now + life).map_err(Status::internal)?;
    (spec["audiences"], spec["expirationSeconds"]) = (claims["aud"].clone(), life.into());
    request["metadata"] = json!({ "name": name, "namespace": namespace, "creationTimestamp": object::now() });
    request["spec"] = spec;
    request["status"] = json!({ "token": token, "expirationTimestamp": expires.to_string() });
    Ok(request)
}

/// Notes the object that the token is bound to, and, for a pod, its node.
fn bind(server: &ApiServer, call: &Call, wanted: &Value, about: &mut Value) -> Result<(), Status> {
    if wanted.is_null() {
        return Ok(());
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (claim, plural, namespace) = match (text("apiVersion"), kind) {
        ("v1" | "", "Pod") => ("pod", "pods", call.route.namespace.as_str()),
        ("v1" | "", "Secret") => ("secret", "secrets", call.route.namespace.as_str()),
        ("v1" | "", "Node") => ("node", "nodes", ""),
        (version, kind) => {
            return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let found = find(server, plural, namespace, name)?.ok_or_else(|| Status::not_found("", plural, name))?;
    let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict("", plural, name, &why));
    }
    if claim == "pod" {
        if found["spec"]["serviceAccountName"] != call.route.name.as_str() {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.route.name
            )));
        }
        let node = found["spec"]["nodeName"].as_str().unwrap_or_default();
        if let Some(node) = find(server, "nodes", "", node)? {
            about["node"] = json!({ "name": node["metadata"]["name"], "uid": node["metadata"]["uid"] });
        }
    }
    about[claim] = json!({ "name": name, "uid": uid });
    Ok(())
}

//! One request, from its first header to the last byte of its answer.
//!
//! ```text
//! who? ─▶ audited? ─▶ a seat (429) ─▶ in time (504): as whom? may it? ─▶ body ─▶ verb ─▶ as it was accepted ─▶ counted
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;

use super::{ApiServer, health};
use crate::audit;
use crate::auth::{self, User};
use crate::authorization::{self, Attributes};
use crate::body::deliver::Wishes;
use crate::body::{self, Body};
use crate::bounds::{self, Origin};
use crate::route::{self, Place, Query, Route};
use crate::status::Status;
use crate::{discovery, node_tunnel, openapi, verbs, warnings};

/// What a request asks for, before it is known who asks.
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub place: Option<Place>,
    pub query: Query,
    /// In RBAC's words, of what is a resource; `None` if it has no such method.
    pub verb: Option<&'static str>,
    /// Whether it is server-side apply.
    pub applies: bool,
    pub uri: http::Uri,
    /// Of its events, and for who is to find them.
    pub id: HeaderValue,
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (place, query) = Place::of(&path, request.uri().query());
        let verb = match &place {
            Some(Place::Resource(route)) => route::verb(&method, route, &query),
            _ => None,
        };
        let sent = request.headers().get(header::CONTENT_TYPE).and_then(|sent| sent.to_str().ok()).unwrap_or_default();
        let applies = method == Method::PATCH && sent.starts_with("application/apply-patch");
        let (uri, id) = (request.uri().clone(), audit::id(request.headers()));
        Self { method, path, place, query, verb, applies, uri, id }
    }

    /// The resource that is meant, if it is one.
    pub fn route(&self) -> Option<&Route> {
        match &self.place {
            Some(Place::Resource(route)) => Some(route),
            _ => None,
        }
    }

    /// In words of rights. A resource has every verb here: whether it has such a one is known later.
    pub fn attributes(&self) -> Attributes {
        match self.route() {
            Some(route) => {
                let method = self.method.as_str().to_lowercase();
                Attributes::of(self.verb.unwrap_or(&method), route, &self.query)
            }
            None => Attributes::of_path(self.method.as_str(), &self.path),
        }
    }

    /// Whether its answer may take as long as it likes.
    pub fn is_stream(&self) -> bool {
        let streams = ["attach", "exec", "log", "portforward", "proxy"];
        self.verb == Some("watch")
            || matches!(self.path.as_str(), "/snapshot" | node_tunnel::PATH)
            || self.route().is_some_and(|route| streams.contains(&route.subresource.as_str()))
    }

    /// How long it may take; `None` as long as it likes.
    fn time(&self) -> Result<Option<Duration>, Status> {
        if self.is_stream() { Ok(None) } else { bounds::time_of(&self.query, self.verb == Some("list")).map(Some) }
    }
}

impl ApiServer {
    /// Answers one request. `connection` is whom the connection itself proved, if anybody.
    pub async fn answer<B>(&self, connection: Option<&User>, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let asked = Asked::of(&request);
        let wishes = Wishes::of(request.headers());
        let (metrics, kinds) = (&self.inner.metrics, &self.inner.registry);
        let going = metrics.begins(&asked, kinds);
        // A panic must cost its request only: in process it would end the client of every manager.
        let entry = audit::Slot::default();
        // Boxed: it is large, and what is around it moves it. What is read in it may be deep, on what is left of the stack.
        let work = audit::during(entry.clone(), Box::pin(self.seated(connection, &asked, request)));
        let (answer, told) = warnings::during(std::panic::AssertUnwindSafe(work).catch_unwind()).await;
        let panicked = answer.is_err();
        let (answer, seat) = answer.unwrap_or_else(|_| {
            tracing::error!(method = %asked.method, path = asked.path, "request panicked");
            (Err(Status::internal("the request could not be handled")), None)
        });
        let response = answer.unwrap_or_else(|status| {
            if status.code >= 500 {
                let (method, path, code) = (&asked.method, &asked.path, status.code);
                tracing::warn!(%method, path, code, message = status.message, "request failed");
            }
            status.into()
        });
        if let Some(entry) = entry.get() {
            let (code, answer) = (response.status(), body::whole(&response));
            entry.answered(code, answer, asked.is_stream(), panicked).await;
        }
        let mut response = wishes.dress(response).await;
        response.headers_mut().insert(audit::ID, asked.id.clone());
        warnings::write(&told, response.headers_mut());
        metrics.ends(&asked, kinds, begun, response.status());
        if seat.is_none() && !asked.is_stream() {
            return response;
        }
        // Kept until the answer was read or given up.
        let kept = (seat, going, entry);
        response.map(|body| {
            body.map_frame(move |frame| {
                let _ = &kept;
                frame
            })
            .boxed_unsync()
        })
    }

    /// Answers within the bounds of whoever asks; the seat is for as long as the answer is read.
    async fn seated<B>(
        &self,
        connection: Option<&User>,
        asked: &Asked,
        request: Request<B>,
    ) -> (Result<Response<Body>, Status>, Option<bounds::Seat>)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (limit, wrong) = match asked.time() {
            Ok(limit) => (limit, None),
            Err(status) => (None, Some(status)),
        };
        let work = async {
            let user = auth::authenticate(self, request.headers(), connection);
            let origin = request.extensions().get::<Origin>().copied();
            if let Some(audit) = self.inner.audit.get() {
                audit.begin(user.as_ref().ok(), origin, asked, request.headers()).await;
            }
            let user = user?;
            if let Some(status) = wrong {
                return Err(status);
            }
            let seat = self.inner.bounds.seat(&user, origin, asked.is_stream()).await?;
            // Large: what wraps it would have copies of it on the stack, which deep objects need.
            Ok((self.route(user, asked, request).boxed().await, seat))
        };
        let late = |_| Err(Status::timeout("request did not complete within the allotted timeout"));
        let done = match limit {
            None => work.await,
            Some(time) => tokio::time::timeout(time, work).await.unwrap_or_else(late),
        };
        done.unwrap_or_else(|status| (Err(status), None))
    }

    async fn route<B>(&self, user: User, asked: &Asked, mut request: Request<B>) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Asked { path, place, query, .. } = asked;
        if user.is_anonymous() {
            return if auth::is_public(path) { self.public(path, query) } else { Err(Status::unauthorized()) };
        }
        let user = auth::impersonation::apply(self, user, request.headers())?;
        if asked.route().is_some() && asked.verb.is_none() {
            return Err(Status::method_not_allowed());
        }
        authorization::admit(self, &user, &asked.attributes())?;
        let issuer = self.inner.issuer.get();
        match (path.as_str(), issuer) {
            ("/version" | "/version/", _) => return self.public(path, query),
            ("/metrics", _) => return self.metrics(),
            ("/snapshot", _) => return Ok(self.snapshot()),
            (node_tunnel::PATH, _) => {
                return node_tunnel::turn(self, &user, &request.headers().clone(), request.extensions_mut().remove());
            }
            ("/openid/v1/jwks", Some(issuer)) => return Ok(body::json(StatusCode::OK, &issuer.keys())),
            ("/.well-known/openid-configuration", Some(issuer)) => {
                return Ok(body::json(StatusCode::OK, &issuer.configuration()));
            }
            ("/", _) => return Ok(body::json(StatusCode::OK, &discovery::paths(&self.inner.registry))),
            _ => {}
        }
        if let Some(health) = health::answer(self, path, query) {
            return health;
        }
        if path.starts_with("/openapi/") {
            return openapi::answer(&self.inner.registry, path, query, request.headers());
        }
        let route = match place.clone().ok_or_else(Status::no_resource)? {
            Place::Resource(route) => route,
            place => return discovery::answer(&self.inner.registry, request.headers(), &place),
        };
        let kind = self.kind(&route.group, &route.version, &route.plural)?;
        let mut call = verbs::Call {
            user,
            kind,
            route,
            query: query.clone(),
            method: request.method().clone(),
            headers: request.headers().clone(),
        };
        if verbs::proxy::is_proxy(&call) {
            return verbs::proxy::answer(self, &call, request).await;
        }
        if verbs::connect::is_stream(&call) {
            let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
            return verbs::connect::answer(self, &mut call, upgrade).await;
        }
        let sent = body::read(request.into_body()).await?;
        audit::sent(&call.headers, &sent);
        verbs::answer(self, &call, &sent).await
    }

    /// All that is stored, as of one moment ([`substrate_store::Store::snapshot`]), as it is read: who may do everything may see everything.
    fn snapshot(&self) -> Response<Body> {
        let store = self.inner.store.clone();
        body::written(move |sink| store.snapshot(sink).map(|_| ()).map_err(std::io::Error::other))
    }

    /// What is counted, as Prometheus reads it.
    fn metrics(&self) -> Result<Response<Body>, Status> {
        let text = self.inner.metrics.text(&self.inner.store)?;
        let mut response = body::text(StatusCode::OK, "");
        *response.body_mut() = body::full(text.into());
        let media = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        Ok(response)
    }

    /// What everybody may see.
    fn public(&self, path: &str, query: &Query) -> Result<Response<Body>, Status> {
        match path {
            "/version" | "/version/" => Ok(body::json(StatusCode::OK, &discovery::version(&self.inner.version))),
            _ => health::answer(self, path, query).unwrap_or_else(|| Err(Status::no_resource())),
        }
    }
}

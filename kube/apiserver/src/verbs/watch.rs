//! Watch: a stream of events, one JSON document a line, or one frame of protobuf.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use substrate_store::{Entry, Event, EventKind, Watcher};
use tokio::time::Instant;

use super::Call;
use super::read::{self, Selection};
use crate::body::{Body, Format, View};
use crate::custom::conversion;
use crate::kinds::Kind;
use crate::protobuf::encode;
use crate::server::ApiServer;
use crate::status::Status;
use crate::{object, table};

/// A watch that says no other time-out ends after this long (upstream: 30 to 60 minutes).
const TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// How often an idle watch says how far it is (upstream: about once a minute).
const BOOKMARK: Duration = Duration::from_secs(60);

const STREAM_OF_PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";

struct Watch {
    server: ApiServer,
    kind: std::sync::Arc<Kind>,
    selection: Selection,
    view: View,
    format: Format,
    include: String,
    watcher: Watcher,
    /// What is sent before the first event: the present state, or why there is none.
    initial: Option<Bytes>,
    bookmarks: bool,
    until: Instant,
    ended: bool,
}

pub async fn watch(server: &ApiServer, call: &Call) -> Result<Response<Body>, Status> {
    read::check_options(call, true)?;
    let selection = Selection::of(call)?;
    let (view, format) = call.wanted(true)?;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let stream_list = call.query.flag("sendInitialEvents");
    let prefix = call.kind.prefix(&call.route.namespace);
    let store = &server.inner.store;
    let mut watch = Watch {
        server: server.clone(),
        kind: call.kind.clone(),
        selection,
        view,
        format,
        include: call.query.get("includeObject").unwrap_or("Metadata").to_owned(),
        watcher: store.watch(&prefix, store.revision()).map_err(read::read_error)?,
        initial: None,
        bookmarks,
        until: Instant::now() + timeout(call)?,
        ended: false,
    };
    let mut out = BytesMut::new();
    let no_list = !stream_list && call.query.get("sendInitialEvents").is_some();
    match read::revision(call)? {
        None if no_list => {} // what comes from now on
        Some(revision) if !stream_list => {
            read::wait_for(server, revision).await?;
            match store.watch(&prefix, revision) {
                Ok(watcher) => watch.watcher = watcher,
                // Told on the stream, as upstream does: who is refused instead asks again from there, and for ever.
                Err(error) => watch.end(&read::read_error(error), &mut out),
            }
        }
        revision => {
            if let Some(revision) = revision {
                read::wait_for(server, revision).await?;
            }
            let page = store.list(&prefix, None, 0, None).map_err(read::read_error)?;
            watch.watcher = store.watch(&prefix, page.revision).map_err(read::read_error)?;
            for entry in &conversion::shown(server, &call.kind, page.entries).await? {
                if watch.selection.matches(&entry.value) {
                    watch.write("ADDED", entry, &mut out)?;
                }
            }
            if stream_list && bookmarks {
                watch.bookmark(page.revision, true, &mut out);
            }
        }
    }
    watch.initial = Some(out.freeze());
    let frames = futures::stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(chunk)), watch))
    });
    let mut response = Response::new(StreamBody::new(frames.boxed()).boxed_unsync());
    let media = match format {
        Format::Protobuf => STREAM_OF_PROTOBUF,
        Format::Json | Format::Yaml => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn timeout(call: &Call) -> Result<Duration, Status> {
    match call.query.get("timeoutSeconds") {
        None => Ok(TIMEOUT),
        Some(text) => match text.parse::<u64>() {
            Ok(0) => Ok(TIMEOUT),
            Ok(seconds) => Ok(Duration::from_secs(seconds).min(Duration::from_secs(24 * 3600))),
            Err(_) => Err(Status::bad_request(format!("invalid timeoutSeconds {text:?}"))),
        },
    }
}

impl Watch {
    /// The next bytes, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(initial) = self.initial.take().filter(|bytes| !bytes.is_empty()) {
            return Some(initial);
        }
        while !self.ended {
            let mut out = BytesMut::new();
            let pause = self.until.min(Instant::now() + BOOKMARK);
            // Dropping `next` loses nothing: the watcher keeps its place until it returns.
            match tokio::time::timeout_at(pause, self.watcher.next()).await {
                Ok(Ok(events)) => self.events(events, &mut out).await,
                Ok(Err(error)) => self.end(&read::read_error(error), &mut out),
                Err(_) if Instant::now() >= self.until => self.ended = true,
                Err(_) if self.bookmarks => self.catch_up(&mut out).await,
                Err(_) => {}
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
        None
    }

    async fn events(&mut self, events: Vec<Event>, out: &mut BytesMut) {
        let events = match conversion::events(&self.server, &self.kind, events).await {
            Ok(events) => events,
            Err(status) => return self.end(&status, out),
        };
        for event in &events {
            if let Err(status) = self.event(event, out) {
                return self.end(&status, out);
            }
        }
    }

    /// Says how far this watch is: a watcher that nothing concerned looks once more, so that it says a new revision.
    async fn catch_up(&mut self, out: &mut BytesMut) {
        match self.watcher.ready() {
            Ok(events) => {
                self.events(events, out).await;
                if !self.ended {
                    self.bookmark(self.watcher.position(), false, out);
                }
            }
            Err(error) => self.end(&read::read_error(error), out),
        }
    }

    fn end(&mut self, status: &Status, out: &mut BytesMut) {
        if let Err(why) = self.put("ERROR", status.to_value().to_string().as_bytes(), out) {
            tracing::warn!(%why, "the end of a watch could not be told");
        }
        self.ended = true;
    }

    /// An object that leaves the selection is deleted for this watcher, one that enters it is added.
    fn event(&self, event: &Event, out: &mut BytesMut) -> Result<(), Status> {
        let now = event.kind != EventKind::Deleted && self.selection.matches(&event.value);
        let before = event.previous.as_ref().is_some_and(|(_, value)| self.selection.matches(value));
        let (word, value) = match (before, now) {
            (false, false) => return Ok(()),
            (false, true) => ("ADDED", &event.value),
            (true, true) => ("MODIFIED", &event.value),
            (true, false) => ("DELETED", event.previous.as_ref().map_or(&event.value, |(_, value)| value)),
        };
        let entry = Entry { key: event.key.clone(), revision: event.revision, value: value.clone() };
        self.write(word, &entry, out)
    }

    fn write(&self, word: &str, entry: &Entry, out: &mut BytesMut) -> Result<(), Status> {
        if self.view == View::Object {
            return self.put(word, &read::json_of(&self.kind, entry)?, out);
        }
        if self.view == View::Metadata {
            let mut partial = BytesMut::new();
            object::write_partial(&entry.value, entry.revision, &mut partial);
            return self.put(word, &partial, out);
        }
        let object = read::decoded(&self.kind, entry)?;
        let metadata = json!({ "resourceVersion": entry.revision.to_string() });
        let table = table::table(&self.kind, std::slice::from_ref(&object), metadata, &self.include);
        self.put(word, table.to_string().as_bytes(), out)
    }

    fn bookmark(&self, revision: u64, initial_end: bool, out: &mut BytesMut) {
        let (kind, api_version) = match self.view {
            View::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            View::Object | View::Table => (&*self.kind.names.kind, self.kind.names.api_version()),
        };
        let mut object: Value = json!({
            "kind": kind, "apiVersion": api_version,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if initial_end {
            object::metadata(&mut object).insert("annotations".into(), json!({ "k8s.io/initial-events-end": "true" }));
        }
        if let Err(status) = self.put("BOOKMARK", object.to_string().as_bytes(), out) {
            tracing::warn!(%status, "a bookmark could not be written");
        }
    }

    /// One event in the format of this watch.
    fn put(&self, word: &str, json: &[u8], out: &mut BytesMut) -> Result<(), Status> {
        if self.format == Format::Protobuf {
            let object = encode::encode(json).map_err(Status::internal)?.ok_or_else(|| {
                Status::not_acceptable("application/json") // cannot be: it was refused when the watch began
            })?;
            out.put_slice(&encode::event(word, &object));
        } else {
            out.put_slice(format!("{{\"type\":\"{word}\",\"object\":").as_bytes());
            out.put_slice(json);
            out.put_slice(b"}\n");
        }
        Ok(())
    }
}

//! *Functions*: components that answer HTTP requests (`wasi:http/incoming-handler`), each request in an instance of its own.
//!
//! ```text
//! connection ──▶ request ──a place of 32──▶ code, mapped ──▶ instance ──▶ answer     (the instance is gone)
//!                                             ▲    │
//!                        first request, cold ─┘    └─ 10 s without a request: let go ("scale to zero")
//! ```
//!
//! While nobody asks there is a socket and a thread that waits: no code, no instance, no linear memory. The first request afterwards is a
//! *cold start*: code is mapped, linked and instantiated, which is counted and told in the log.
//!
//! Every bound says its number: a function that loops ends with its time and holds nobody up meanwhile, for code looks at a clock (an
//! *epoch*) in each loop and call, and yields.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use wasmtime::component::Linker;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::Error as HttpError;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use crate::code::Code;
use crate::ending::Ending;
use crate::host::{Guest, Host};
use crate::say;

/// Where a function listens that says no port.
const PORT: u16 = 8080;
/// Connections at once, as many as wait in the kernel beside them: each has a task and a buffer of some KiB.
const CONNECTIONS_MAX: u32 = 256;
/// Requests that run at once, each in an instance with a linear memory; others wait, within their time.
const REQUESTS_MAX: usize = 32;
/// From the head of a request to the end of its answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// For the head of a request, so that connections are not held by who says nothing.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's body.
const BODY_MAX: usize = 16 << 20;
/// Without requests for so long, a function lets go of its code.
const IDLE: Duration = Duration::from_secs(10);
/// How long code runs before it yields to others.
const EPOCH: Duration = Duration::from_millis(10);
/// More threads than this a pod with one function is seldom given processors for.
const THREADS_MAX: usize = 4;

type Body = UnsyncBoxBody<Bytes, HttpError>;

struct Function {
    engine: Engine,
    code: Code,
    guest: Guest,
    places: Semaphore,
    clock: Clock,
    state: Mutex<State>,
}

/// What there is while somebody asks.
#[derive(Default)]
struct State {
    ready: Option<ProxyPre<Host>>,
    last_used: Option<Instant>,
    running: usize,
    cold_starts: u64,
}

/// Listens on the first of `ports`, until it is told to end.
pub(crate) fn serve(engine: &Engine, code: Code, guest: Guest, ports: &[u16], ending: &Ending) -> wasmtime::Result<u8> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ports.first().copied().unwrap_or(PORT)));
    let clock = Clock::start(engine.clone())?;
    let (places, state) = (Semaphore::new(REQUESTS_MAX), Mutex::default());
    let function = Arc::new(Function { engine: engine.clone(), code, guest, places, clock, state });
    let served = runtime.block_on(listen(&function, address, ending.told()));
    runtime.shutdown_background();
    served.map(|()| 0).map_err(|e| wasmtime::format_err!("listen on {address}: {e}"))
}

async fn listen(function: &Arc<Function>, address: SocketAddr, mut ending: watch::Receiver<bool>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    say(&format!("a function answers on {address}"));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let told = ending.clone();
    let mut idle = tokio::time::interval(IDLE);
    loop {
        tokio::select! {
            accepted = accept(&listener, &connections) => {
                let Some((stream, place)) = accepted else { continue };
                let (function, ending) = (Arc::clone(function), told.clone());
                tokio::spawn(async move {
                    connection(function, stream, ending).await;
                    drop(place);
                });
            }
            _ = idle.tick() => function.rest(),
            _ = ending.wait_for(|is| *is) => break,
        }
    }
    // What has begun is answered; who set the grace period ends what takes longer.
    drop(listener);
    let _ = connections.acquire_many(CONNECTIONS_MAX).await; // never closed
    Ok(())
}

/// The next connection once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(why) => {
            // Out of descriptors or memory: those that are open end first.
            say(&format!("accept a connection: {why}"));
            tokio::time::sleep(EPOCH).await;
            None
        }
    }
}

async fn connection(function: Arc<Function>, stream: TcpStream, mut ending: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |request| {
        let function = Arc::clone(&function);
        async move { Ok::<_, std::convert::Infallible>(answer(&function, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(64 << 10);
    let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = served.as_mut() => return, // how a client leaves is its own affair
        _ = ending.wait_for(|is| *is) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

async fn answer(function: &Arc<Function>, request: Request<Incoming>) -> Response<Body> {
    let ends = tokio::time::Instant::now() + REQUEST_TIME;
    let Ok(Ok(place)) = tokio::time::timeout_at(ends, function.places.acquire()).await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "all instances of the function are busy");
    };
    let (tell, told) = oneshot::channel();
    let running = Running::new(function);
    place.forget(); // given back by `running`
    let task = tokio::spawn(async move {
        match tokio::time::timeout_at(ends, running.run(request, tell)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => say(&format!("a request failed: {why:#}")),
            Err(_) => {
                say(&format!("a request was ended after {} s", REQUEST_TIME.as_secs()));
                return false;
            }
        }
        true
    });
    match told.await {
        Ok(Ok(response)) => response,
        Ok(Err(code)) => {
            say(&format!("the function answered with an error: {code:?}"));
            refusal(StatusCode::BAD_GATEWAY, "the function answered with an error; its log says which")
        }
        // It ended without an answer.
        Err(_) => match task.await {
            Ok(true) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the function failed; its log says why"),
            _ => refusal(StatusCode::GATEWAY_TIMEOUT, "the function took too long"),
        },
    }
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(why.as_bytes())).map_err(HttpError::from).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A request that has its place.
struct Running(Arc<Function>);

impl Running {
    fn new(function: &Arc<Function>) -> Self {
        function.clock.wanted(1);
        function.locked().running += 1;
        Self(Arc::clone(function))
    }

    async fn run(
        &self,
        request: Request<Incoming>,
        tell: oneshot::Sender<Result<Response<Body>, wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>>,
    ) -> wasmtime::Result<()> {
        let began = Instant::now();
        let function = &*self.0;
        let (ready, is_cold) = function.ready()?;
        let mut store = Store::new(&function.engine, function.guest.function()?);
        store.limiter(|host| &mut host.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let request = request.map(|body| {
            Limited::new(body, BODY_MAX).map_err(|e| match e.downcast::<hyper::Error>() {
                Ok(e) => HttpError::Hyper(*e),
                Err(e) if e.is::<LengthLimitError>() => HttpError::HttpRequestBodySize(None),
                Err(e) => HttpError::InternalError(Some(e.to_string())),
            })
        });
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let response = store.data_mut().http().new_response_outparam(tell)?;
        let instance = ready.instantiate_async(&mut store).await?;
        if is_cold {
            let number = function.locked().cold_starts;
            say(&format!("cold start {number}: {:.2} ms", began.elapsed().as_secs_f64() * 1000.0));
        }
        instance.wasi_http_incoming_handler().call_handle(&mut store, request, response).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.locked();
        state.running -= 1;
        state.last_used = Some(Instant::now());
        drop(state);
        self.0.clock.wanted(-1);
        self.0.places.add_permits(1);
    }
}

impl Function {
    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The linked code, and whether it was not there.
    fn ready(&self) -> wasmtime::Result<(ProxyPre<Host>, bool)> {
        let mut state = self.locked();
        if let Some(ready) = &state.ready {
            return Ok((ready.clone(), false));
        }
        let component = self.code.component(&self.engine)?;
        let mut linker = Linker::<Host>::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let ready = ProxyPre::new(linker.instantiate_pre(&component)?)?;
        state.ready = Some(ready.clone());
        state.cold_starts += 1;
        Ok((ready, true))
    }

    /// Lets go of the code when nobody has asked for a while.
    fn rest(&self) {
        let mut state = self.locked();
        if state.running == 0 && state.last_used.is_some_and(|used| used.elapsed() >= IDLE) {
            state.ready = None;
        }
    }
}

/// Moves the epoch on while code runs; stands still while none does.
struct Clock(Arc<(Mutex<usize>, Condvar)>);

impl Clock {
    fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let clock = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("epoch".into()).stack_size(64 << 10).spawn(move || {
            let (running, changed) = &*shared;
            loop {
                let waited = running.lock().unwrap_or_else(PoisonError::into_inner);
                drop(changed.wait_while(waited, |n| *n == 0).unwrap_or_else(PoisonError::into_inner));
                std::thread::sleep(EPOCH);
                engine.increment_epoch();
            }
        })?;
        Ok(clock)
    }

    fn wanted(&self, more: isize) {
        let (running, changed) = &*self.0;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_add_signed(more);
        changed.notify_one();
    }
}

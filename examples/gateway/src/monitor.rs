//! The HTTP side: `/metrics`, `/health`, `/ready` and the status page, on an address of their own.
//!
//! Whoever reaches the address sees everything here, so it is off unless an address is given. Nothing here changes
//! anything. Connections are few, short and for one request each, so that a slow or greedy client costs little.

use crate::lock::lock;
use crate::meter::{BYTES, CHANNELS_OPEN, Exposition, PARKED, READY, SESSIONS, WAITING};
use crate::overview::{Overview, obstacles};
use crate::page::{self, Facts};
use crate::server::Gateway;
use crate::tally::{Counts, Rates};
use boxpool::{Clock, Error, ErrorKind, Region, Report, Result, SystemClock};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Where the pages of the regions are.
const REGION_PATH: &str = "/region/";

/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take for its request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long a whole request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How often counts are noted for the rates, and durations put into their buckets.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes the address.
///
/// # Errors
/// One sentence: it is in use, or may not be used.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let detail = format!("the address {address} of metrics_listen cannot be listened on: {error}");
        Error::new(ErrorKind::Permanent, "listen", address).with_detail(detail)
    })
}

/// Shows a gateway and its pools.
pub struct Monitor {
    gateway: Arc<Gateway>,
    exposition: Exposition,
    rates: Mutex<Rates>,
}

impl Monitor {
    /// Shows `gateway`, and the pools that its operator sees.
    ///
    /// # Errors
    /// When the process records its metrics elsewhere already.
    pub fn new(gateway: Arc<Gateway>) -> Result<Arc<Self>> {
        let regions: Vec<_> = gateway.operator.overviews.iter().filter_map(|each| each.region().cloned()).collect();
        let exposition = Exposition::install(&regions)?;
        Ok(Arc::new(Self { gateway, exposition, rates: Mutex::default() }))
    }

    /// Serves `listener` until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut note = tokio::time::interval(NOTE_EVERY);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = note.tick() => {
                    self.note();
                    continue;
                }
                Some(_) = connections.join_next() => continue,
            };
            let Ok((socket, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await; // out of descriptors
                continue;
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let monitor = Arc::clone(&self);
            connections.spawn(async move {
                let _permit = permit;
                let _ = tokio::time::timeout(REQUEST_LIMIT, monitor.attend(socket)).await;
            });
        }
    }

    async fn attend(self: Arc<Self>, socket: TcpStream) {
        let service = service_fn(|request| {
            let monitor = Arc::clone(&self);
            async move { Ok::<_, Infallible>(monitor.answer(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(socket), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a client of the monitor went away");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.uri().path() {
            "/" => self.page(None).await,
            path if path.starts_with(REGION_PATH) => self.page(path.strip_prefix(REGION_PATH)).await,
            "/metrics" => {
                self.set_gauges(self.obstacles().await.is_empty());
                respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.exposition.text())
            }
            "/health" => text(StatusCode::OK, "alive\n"),
            "/ready" => match self.obstacles().await.as_slice() {
                [] => text(StatusCode::OK, "ready\n"),
                obstacles => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {}\n", obstacles.join("; "))),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /health and /ready\n"),
        }
    }

    fn overviews(&self) -> &[Arc<Overview>] {
        &self.gateway.operator.overviews
    }

    /// Why the gateway is not ready: in any region.
    async fn obstacles(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        for overview in self.overviews() {
            let status = overview.status();
            let stopping = self.gateway.operator.is_stopping() || status.draining;
            all.extend(obstacles(stopping, status.in_touch, &overview.is_on_record(status.node.as_str()).await));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The page of a region; of the first one when none is said.
    async fn page(&self, region: Option<&str>) -> Response<Full<Bytes>> {
        let is_meant = |each: &&Arc<Overview>| region.is_none() || each.region().map(Region::as_str) == region;
        let Some(overview) = self.overviews().iter().find(is_meant) else {
            return text(StatusCode::NOT_FOUND, "there is no such region\n");
        };
        respond(StatusCode::OK, "text/html; charset=utf-8", page::html(&self.facts(overview).await))
    }

    async fn facts(&self, overview: &Overview) -> Facts {
        let (view, events) = (overview.view().await, overview.recent().await);
        for error in [view.as_ref().err(), events.as_ref().err()].into_iter().flatten() {
            tracing::warn!(error = %Report(error), "the status page is not complete");
        }
        Facts {
            at: SystemClock.now(),
            obstacles: self.obstacles().await,
            region: overview.region().cloned(),
            regions: self.overviews().iter().filter_map(|each| each.region().cloned()).collect(),
            status: overview.status(),
            view: view.ok(),
            events: events.unwrap_or_default(),
            sessions: self.gateway.operator.sessions.count(),
            channels: self.gateway.operator.sessions.open_channels(),
            rise: self.rise(),
        }
    }

    fn rise(&self) -> Option<(Counts, Duration)> {
        let rates = lock(&self.rates);
        rates.rise(Instant::now(), self.counts())
    }

    fn counts(&self) -> Counts {
        self.gateway.operator.counts()
    }

    fn note(&self) {
        let counts = self.counts();
        lock(&self.rates).note(Instant::now(), counts);
        self.exposition.upkeep();
    }

    /// What is known at the moment only.
    fn set_gauges(&self, ready: bool) {
        // Far below where a float loses whole numbers.
        let set = |name: &'static str, count: usize| metrics::gauge!(name).set(count as f64);
        let (counts, sessions) = (self.counts(), &self.gateway.operator.sessions);
        let status = self.overviews().iter().map(|each| each.status());
        let (parked, waiting) = status.fold((0, 0), |sum, each| (sum.0 + each.parked, sum.1 + each.waiting));
        set(CHANNELS_OPEN, sessions.open_channels());
        set(PARKED, parked);
        set(READY, usize::from(ready));
        set(SESSIONS, sessions.count());
        set(WAITING, waiting);
        metrics::counter!(BYTES, "direction" => "in").absolute(counts.bytes_in);
        metrics::counter!(BYTES, "direction" => "out").absolute(counts.bytes_out);
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, policy),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

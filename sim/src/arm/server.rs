//! Takes requests apart, lets faults strike, and answers.

use super::disks::group_absent;
use super::faults::ArmFate;
use super::id::{Id, Kind, Target};
use super::state::Operation;
use super::wire::{Reply, Request, query};
use super::work::Doom;
use super::{Logged, Server};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// No body of Azure's is larger.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A connection that is to break without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated connection broke")]
struct Broken;

/// Serves until it is dropped.
pub(super) async fn serve(server: Arc<Server>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Without this each kept-alive request costs 40 ms.
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(Arc::clone(&server), stream));
    }
}

/// Serves one caller until it goes.
pub(super) async fn serve_connection(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(move |request| answer(Arc::clone(&server), request));
    // An error is a caller who went away, or a connection that was broken on purpose.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    server: Arc<Server>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Broken> {
    let (head, body) = request.into_parts();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_ascii_lowercase(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers: BTreeMap<String, String> = head.headers.iter().map(header).collect();
    let host = headers.get("host").cloned().unwrap_or_default();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else { return Err(Broken) };
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: query(head.uri.query().unwrap_or_default()),
        headers,
        body: body.to_bytes().to_vec(),
        base: format!("http://{host}"),
    };
    let reply = server.reply(&request).ok_or(Broken)?;
    let text = reply.body.as_ref().map(Value::to_string).unwrap_or_default();
    let mut response = hyper::Response::builder()
        .status(reply.status)
        .header("Date", server.date())
        .header("x-ms-request-id", server.request_id())
        .header("x-ms-correlation-request-id", server.request_id());
    if reply.body.is_some() {
        response = response.header("Content-Type", "application/json; charset=utf-8");
    }
    for (name, value) in &reply.headers {
        response = response.header(*name, value.as_str());
    }
    response.body(Full::new(Bytes::from(text))).map_err(|_| Broken)
}

impl Server {
    /// What this service takes for the present time, as in a `Date` header.
    fn date(&self) -> String {
        let (now, off) = (SystemTime::now(), self.settings.clock_ahead_s);
        let by = Duration::from_secs(off.unsigned_abs().into());
        let shown = if off < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        // Dates before 1970 cannot be written.
        httpdate::fmt_http_date(shown.unwrap_or(now).max(SystemTime::UNIX_EPOCH))
    }

    /// The answer, or none when the connection is to break.
    fn reply(self: &Arc<Self>, request: &Request) -> Option<Reply> {
        let (what, nth) = self.note(request);
        let fate = self.fate_of(request, &what, nth);
        match &fate {
            Some(ArmFate::LoseRequest) => return None,
            Some(ArmFate::Refuse { status, code, retry_after }) => {
                let reply = Reply::error(*status, code, "The request was refused by a fault.");
                return Some(match retry_after {
                    Some(seconds) => reply.with("Retry-After", seconds.to_string()),
                    None => reply,
                });
            }
            _ => {}
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.operations();
        let mut reply = self.dispatch(request).unwrap_or_else(|refused| refused);
        for operation in self.operations_since(before) {
            match &fate {
                Some(ArmFate::Stick) => drop(self.dooms().insert(operation, Doom::Stuck)),
                Some(ArmFate::Fail { code }) => drop(self.dooms().insert(operation, Doom::Fails(code.clone()))),
                Some(ArmFate::Forget) => {
                    // It goes on, and only its name is lost.
                    let mut state = self.state();
                    if let Some(entry) = state.operations.get_mut(&operation) {
                        entry.polls = u32::MAX;
                    }
                }
                _ => {}
            }
        }
        match fate {
            Some(ArmFate::LoseAnswer) => return None,
            Some(ArmFate::ErrorAfterEffect) if request.method != "GET" => {
                reply = Reply::error(500, "InternalServerError", "The server encountered an internal error.");
            }
            _ => {}
        }
        if self.settings.faults.shouts(self.settings.seed, &what, nth)
            && let Some(body) = &mut reply.body
        {
            shout(body);
        }
        Some(reply)
    }

    fn note(&self, request: &Request) -> (String, u32) {
        let what = format!("{} {}", request.method, request.path.to_ascii_lowercase());
        let mut state = self.state();
        let nth = state.nth.entry(what.clone()).or_default();
        *nth += 1;
        let nth = *nth;
        state.requests.push(Logged { method: request.method.clone(), path: request.path.clone() });
        (what, nth)
    }

    fn fate_of(&self, request: &Request, what: &str, nth: u32) -> Option<ArmFate> {
        let path = request.path.to_ascii_lowercase();
        let told = self.settings.script.iter().find(|strike| {
            strike.method.eq_ignore_ascii_case(&request.method)
                && path.ends_with(&strike.path_ends.to_ascii_lowercase())
                && strike.nth == nth
        });
        told.map(|strike| strike.fate.clone()).or_else(|| self.settings.faults.fate(self.settings.seed, what, nth))
    }

    fn dispatch(self: &Arc<Self>, request: &Request) -> Result<Reply, Reply> {
        if !request.header("authorization").is_some_and(|value| value.starts_with("Bearer ")) {
            let message = "Authentication failed. The 'Authorization' header is missing.";
            return Err(Reply::error(401, "AuthenticationFailed", message)
                .with("WWW-Authenticate", "Bearer authorization_uri=\"https://login.microsoftonline.com/common\""));
        }
        let Some(target) = Target::parse(&request.path) else {
            return Err(Reply::error(404, "InvalidResourceType", "The resource type could not be found."));
        };
        if !request.query.contains_key("api-version") {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            return Err(Reply::error(400, "MissingApiVersionParameter", message));
        }
        let taken = self.state().buckets.take(&request.method, &target).map_err(|empty| *empty)?;
        let mut reply = self.route(&target, request)?;
        reply.headers.extend(taken);
        Ok(reply)
    }

    fn route(self: &Arc<Self>, target: &Target, request: &Request) -> Result<Reply, Reply> {
        match target {
            Target::Operation(id) => Ok(self.poll(id, request)),
            Target::Usages { .. } => {
                let used = self.state().of_kind(Kind::Vm).count();
                let limit = self.settings.most_machines.unwrap_or(10_000);
                let name = json!({ "value": "virtualMachines", "localizedValue": "Virtual Machines" });
                let usage = json!({ "name": name, "unit": "Count", "currentValue": used, "limit": limit });
                Ok(Reply::new(200, json!({ "value": [usage] })))
            }
            Target::Permissions if request.method == "GET" => {
                let grant = json!({ "actions": self.settings.allowed, "notActions": [], "dataActions": [] });
                Ok(Reply::new(200, json!({ "value": [grant] })))
            }
            Target::Permissions => Err(not_allowed(&request.method)),
            Target::Collection { group, kind, .. } if request.method == "GET" => {
                self.list(group.as_deref(), *kind, request)
            }
            Target::Collection { .. } => Err(not_allowed(&request.method)),
            Target::Resource { id, action } => self.resource(id, action.as_deref(), request),
        }
    }

    fn resource(self: &Arc<Self>, id: &Id, action: Option<&str>, request: &Request) -> Result<Reply, Reply> {
        if id.kind != Kind::Group && self.settings.strict_groups {
            let group = id.sibling(Kind::Group, &id.group);
            if self.state().get(&group).is_none() {
                return Err(group_absent(&id.group));
            }
        }
        let machine = id.kind == Kind::Vm;
        match (request.method.as_str(), action) {
            ("GET", Some(view)) if machine && view.eq_ignore_ascii_case("instanceView") => {
                let state = self.state();
                let found = state.get(id).ok_or_else(|| super::vms::absent(id))?;
                Ok(Reply::new(200, found.instance_view()))
            }
            ("POST", Some(action)) if machine => self.act_on_vm(id, action, request),
            (_, Some(_)) => Err(Reply::error(404, "InvalidResourceType", "The action could not be found.")),
            ("GET", None) => {
                let with_view =
                    request.query.get("$expand").is_some_and(|what| what.eq_ignore_ascii_case("instanceView"));
                let state = self.state();
                match state.get(id) {
                    Some(found) => Ok(Reply::new(200, found.shown(with_view))),
                    None if id.kind == Kind::Group => Err(group_absent(&id.name)),
                    None => Err(super::vms::absent(id)),
                }
            }
            ("PUT", None) if !id.kind.allows(&id.name) => {
                let message = format!("Resource name {} is invalid.", id.name);
                Err(Reply::error_at(400, "InvalidResourceName", "name", &message))
            }
            ("PUT", None) if machine => self.put_vm(id, request),
            ("PUT", None) => self.put_resource(id, request),
            ("PATCH", None) if machine => self.patch_vm(id, request),
            ("PATCH", None) => self.patch_resource(id, request),
            ("DELETE", None) if machine => self.delete_vm(id, request),
            ("DELETE", None) => self.delete_resource(id, request),
            (method, None) => Err(not_allowed(method)),
        }
    }

    /// A page of a kind, by id. What was made a moment ago may be missing.
    fn list(&self, group: Option<&str>, kind: Kind, request: &Request) -> Result<Reply, Reply> {
        let skip: usize = match request.query.get("$skiptoken").map(|token| token.parse()) {
            None => 0,
            Some(Ok(skip)) => skip,
            Some(Err(_)) => return Err(Reply::error(400, "InvalidParameter", "The value of $skiptoken is invalid.")),
        };
        let state = self.state();
        let all: Vec<&super::state::Resource> = state
            .of_kind(kind)
            .filter(|found| group.is_none_or(|group| kind == Kind::Group || found.id.group.eq_ignore_ascii_case(group)))
            .filter(|found| found.created.elapsed() >= self.settings.list_lag)
            .collect();
        let size = self.settings.page_size.max(1);
        let page: Vec<Value> = all.iter().skip(skip).take(size).map(|found| found.shown(false)).collect();
        let mut body = json!({ "value": page });
        if skip + size < all.len() {
            let version = request.query.get("api-version").map_or("", String::as_str);
            let next = format!("{}{}?api-version={version}&$skiptoken={}", request.base, request.path, skip + size);
            body["nextLink"] = json!(next);
        }
        Ok(Reply::new(200, body))
    }

    /// How far an operation is. The Azure-AsyncOperation address always answers 200; the Location one 202 until it is done.
    fn poll(&self, id: &str, request: &Request) -> Reply {
        let retry_after = self.retry_after(30);
        let mut state = self.state();
        let Some(operation) = state.operations.get_mut(id).filter(|operation| operation.polls != u32::MAX) else {
            return Reply::error(404, "NotFound", &format!("The entity was not found: operation '{id}'."));
        };
        operation.polls += 1;
        let first = operation.polls == 1;
        let monitor =
            request.query.contains_key("monitor") || request.path.to_ascii_lowercase().contains("operationresults");
        if monitor {
            return location_answer(operation, first, retry_after);
        }
        let name = id.to_owned();
        let body = match (&operation.end, operation.canceled) {
            (_, true) => json!({ "name": name, "status": "Canceled", "error": {
                "code": "OperationPreempted", "message": "Operation execution has been preempted by a more recent operation." } }),
            (None, _) => json!({ "name": name, "status": "InProgress" }),
            (Some(Ok(None)), _) => json!({ "name": name, "status": "Succeeded" }),
            (Some(Ok(Some(output))), _) => {
                json!({ "name": name, "status": "Succeeded", "properties": { "output": output } })
            }
            (Some(Err((code, message))), _) => {
                json!({ "name": name, "status": "Failed", "error": { "code": code, "message": message } })
            }
        };
        let running = operation.end.is_none() && !operation.canceled;
        let reply = Reply::new(200, body);
        if first && running { reply.with("Retry-After", retry_after) } else { reply }
    }

    /// 202 with both addresses.
    pub(super) fn accepted(&self, request: &Request, operation: &str, id: &Id, retry_after: Option<u32>) -> Reply {
        let (operation, location) = self.links(request, operation, id);
        let reply = Reply::empty(202).with("Azure-AsyncOperation", operation).with("Location", location);
        match retry_after {
            Some(seconds) => reply.with("Retry-After", self.retry_after(seconds)),
            None => reply,
        }
    }

    pub(super) fn accepted_with(
        &self,
        request: &Request,
        operation: &str,
        id: &Id,
        retry_after: Option<u32>,
        body: Value,
    ) -> Reply {
        Reply { body: Some(body), ..self.accepted(request, operation, id, retry_after) }
    }

    /// Where to ask how far an operation is: Azure-AsyncOperation and Location.
    pub(super) fn links(&self, request: &Request, operation: &str, id: &Id) -> (String, String) {
        let (provider, what, version) = match id.kind {
            Kind::Disk | Kind::Snapshot => ("Microsoft.Compute", "DiskOperations", "2024-03-02"),
            Kind::Nic => ("Microsoft.Network", "operations", "2024-03-01"),
            _ => ("Microsoft.Compute", "operations", "2024-07-01"),
        };
        let (base, subscription) = (&request.base, &id.subscription);
        // As long as the signed ones of the service, which must be kept whole.
        let signature = format!("t=1&c={}&s={}&h={operation}", "MII".repeat(40), "x".repeat(80));
        let address = format!(
            "{base}/subscriptions/{subscription}/providers/{provider}/locations/simulated/{what}/{operation}?p=1&api-version={version}&{signature}"
        );
        let location = format!("{address}&monitor=true");
        (address, location)
    }

    /// In seconds of the world: whole ones, since the header has no others; 0 is "at once".
    pub(super) fn retry_after(&self, seconds: u32) -> String {
        (f64::from(seconds) * self.settings.time_scale).floor().to_string()
    }

    fn operations(&self) -> usize {
        self.state().operations.len()
    }

    fn operations_since(&self, before: usize) -> Vec<String> {
        // Ids rise with their number.
        let state = self.state();
        let new = state.operations.len().saturating_sub(before);
        state.operations.keys().rev().take(new).cloned().collect()
    }
}

fn location_answer(operation: &Operation, first: bool, retry_after: String) -> Reply {
    match (&operation.end, operation.canceled) {
        (_, true) => Reply::error(409, "OperationPreempted", "Operation execution has been preempted."),
        (None, _) if first => Reply::empty(202).with("Retry-After", retry_after),
        (None, _) => Reply::empty(202),
        (Some(Ok(Some(output))), _) => Reply::new(200, output.clone()),
        (Some(Ok(None)), _) => Reply::empty(200),
        (Some(Err((code, message))), _) => Reply::error(409, code, message),
    }
}

fn not_allowed(method: &str) -> Reply {
    let message = format!("The requested resource does not support http method '{method}'.");
    Reply::error(405, "MethodNotAllowed", &message)
}

/// Group names in ids come back in capitals at times.
fn shout(body: &mut Value) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if matches!(name.as_str(), "id" | "managedBy") => {
                        let parts = text.split('/').enumerate();
                        let loud =
                            parts.map(|(at, part)| if at == 4 { part.to_ascii_uppercase() } else { part.to_owned() });
                        *text = loud.collect::<Vec<_>>().join("/");
                    }
                    other => shout(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shout),
        _ => {}
    }
}

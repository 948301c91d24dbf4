//! The one way to the network: a pooled client with a limit on every wait, no redirects, and a note of what came back.
//!
//! The crates of the SDK bring a transport without any time limit that opens a connection for each request, and their
//! errors drop what a caller needs: `Retry-After`, the request's id, nested codes. So every answer is read whole here,
//! within one limit, and [`noting`] hands its caller what was seen last.

use crate::errors::{Failure, Refusal};
use crate::options::Proxy;
use boxpool::{Error, ErrorKind, Result};
use reqwest::Url;
use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// One attempt, from the first byte sent to the last one read.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// Azure's front ends close idle connections after four minutes; a request on a dying one is a lost answer.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Emulators are programs of Node, which close after five seconds
/// (<https://nodejs.org/api/http.html#serverkeepalivetimeout>).
const EMULATOR_IDLE_LIMIT: Duration = Duration::from_secs(3);
/// Above what Resource Manager sends in one page.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// A request, as bytes on the wire.
pub(crate) struct Outgoing {
    pub(crate) method: reqwest::Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer, read whole.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    // Bodies may hold secrets; none is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the service asks for, in seconds or milliseconds; dates are not sent by Azure and count as nothing.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let millis = ["retry-after-ms", "x-ms-retry-after-ms"].iter().find_map(|name| self.header(name)?.parse().ok());
        millis
            .map(Duration::from_millis)
            .or_else(|| self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs))
    }
}

tokio::task_local! {
    static NOTE: RefCell<Option<Noted>>;
}

/// What the last attempt of a call met.
enum Noted {
    Answered(Answer),
    Failed(Failure),
}

/// Runs a call of the SDK. Of a failed one it tells what the transport saw, and `other` what it did not.
pub(crate) async fn noting<T, E>(
    call: impl Future<Output = Result<T, E>>,
    other: impl FnOnce(E) -> Failure,
) -> Result<T, Failure> {
    NOTE.scope(RefCell::new(None), async {
        let error = match call.await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        Err(match NOTE.with(RefCell::take) {
            Some(Noted::Failed(failure)) => failure,
            Some(Noted::Answered(answer)) if answer.is_success() => {
                Failure::Unreadable(match other(error) {
                    Failure::Unreadable(why) | Failure::Lost(why) => why,
                    // The request was answered, so whatever else the SDK says is about the answer.
                    failure => failure.to_string(),
                })
            }
            Some(Noted::Answered(answer)) => Failure::Refused(Refusal::of(&answer)),
            None => other(error),
        })
    })
    .await
}

/// Sends requests. One per runtime: its connections belong to the runtime that opened them.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    attempt: Duration,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    pub(crate) fn new(proxy: Proxy) -> Result<Self> {
        Self::with_limits(proxy, CONNECT_LIMIT, ATTEMPT_LIMIT, IDLE_LIMIT)
    }

    /// For one service, whose address says whether it is an emulator; `attempt` is half a minute when none is given.
    pub(crate) fn to(endpoint: &str, proxy: Proxy, attempt: Option<Duration>) -> Result<Self> {
        let attempt = attempt.unwrap_or(ATTEMPT_LIMIT);
        let idle = if endpoint.starts_with("https://") { IDLE_LIMIT } else { EMULATOR_IDLE_LIMIT };
        Self::with_limits(proxy, CONNECT_LIMIT.min(attempt), attempt, idle)
    }

    fn with_limits(proxy: Proxy, connect: Duration, attempt: Duration, idle: Duration) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(connect)
            .pool_max_idle_per_host(16)
            .pool_idle_timeout(idle)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if proxy == Proxy::None {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            Error::new(ErrorKind::Permanent, "open transport", "https")
                .with_detail("no HTTP client can be made")
                .with_source(error)
        })?;
        Ok(Self { client, attempt })
    }

    /// Sends one request once and reads its answer whole.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        let answer = self.send_unnoted(outgoing).await;
        let noted = match &answer {
            Ok(answer) => Noted::Answered(answer.clone()),
            Err(failure) => Noted::Failed(failure.clone()),
        };
        // Outside of `noting` nobody asks.
        let _ = NOTE.try_with(|note| note.replace(Some(noted)));
        answer
    }

    /// The same, but [`noting`] hears nothing of it.
    pub(crate) async fn send_unnoted(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        match tokio::time::timeout(self.attempt, self.exchange(outgoing)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost(format!("no answer within {:?}", self.attempt))),
        }
    }

    async fn exchange(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        let mut request = self.client.request(outgoing.method, outgoing.url);
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        let mut response = request.body(outgoing.body).send().await.map_err(failure)?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Unreadable(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")));
            }
        }
        Ok(Answer { status, headers, body })
    }
}

fn failure(error: reqwest::Error) -> Failure {
    // The address may hold a signature; it is not for logs.
    let error = error.without_url();
    let why = boxpool::Report(&error).to_string();
    if error.is_connect() || error.is_builder() { Failure::NotSent(why) } else { Failure::Lost(why) }
}

/// Whether requests with credentials may go there: `https`, or this machine itself.
pub(crate) fn check_endpoint(operation: &'static str, url: &Url) -> Result<()> {
    let loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && loopback) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, operation, url)
        .with_detail("credentials are only sent over https, or over http to this machine"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// Far above what any of these tests needs.
    const NEVER: Duration = Duration::from_secs(60);
    const BRIEF: Duration = Duration::from_millis(200);

    fn get(address: SocketAddr) -> Outgoing {
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        Outgoing { method: reqwest::Method::GET, url, headers: Vec::new(), body: Vec::new() }
    }

    /// Says `answer` to the first request of its first caller, and then nothing more; the connection stays open.
    async fn says_once(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut caller, _) = listener.accept().await.unwrap();
            assert!(caller.read(&mut [0; 4096]).await.unwrap() > 0);
            caller.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn an_attempt_without_an_answer_or_with_half_of_one_ends_and_may_have_been_heard() {
        for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let transport = Transport::with_limits(Proxy::None, NEVER, BRIEF, NEVER).unwrap();
            let address = says_once(answer).await;
            let sent =
                tokio::time::timeout(NEVER, transport.send(get(address))).await.expect("the attempt has a limit");
            assert!(matches!(&sent, Err(Failure::Lost(why)) if why.contains("200ms")), "{answer:?}: {sent:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_does_not_come_about_ends_early_and_nothing_was_sent() {
        // A queue that is full takes no more callers: they hear nothing, as from a host that is not there.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = tokio::time::timeout(BRIEF, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 100, "the queue does not fill");
        }

        let transport = Transport::with_limits(Proxy::None, BRIEF, NEVER, NEVER).unwrap();
        let sent = tokio::time::timeout(NEVER / 2, transport.send(get(address))).await.expect("connecting has a limit");
        assert!(matches!(sent, Err(Failure::NotSent(_))), "{sent:?}");
    }

    /// A service that would close it in the middle of our next request leaves that request without an answer.
    #[tokio::test]
    async fn a_connection_that_was_idle_for_long_is_not_used_again() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let (mut asked, mut room) = ([0; 2], [0; 4096]);
            for connection in 0..2 {
                let (mut caller, _) = listener.accept().await.unwrap();
                // The second caller does not wait to be given up.
                while asked.iter().sum::<i32>() < 3 && caller.read(&mut room).await.unwrap() > 0 {
                    asked[connection] += 1;
                    caller.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
            }
            asked
        });
        let transport = Transport::with_limits(Proxy::None, NEVER, NEVER, BRIEF).unwrap();
        for _ in 0..2 {
            transport.send(get(address)).await.unwrap();
        }
        tokio::time::sleep(BRIEF * 2).await;
        transport.send(get(address)).await.unwrap();
        let asked = tokio::time::timeout(NEVER, answering).await.expect("the old connection is closed").unwrap();
        assert_eq!(asked, [2, 1], "requests on each connection");
    }

    #[test]
    fn credentials_go_to_https_or_to_this_machine_only() {
        for (good, url) in [
            (true, "https://management.azure.com/"),
            (true, "http://127.0.0.1:1/"),
            (true, "http://[::1]:1/"),
            (true, "http://localhost/"),
            (false, "http://management.azure.com/"),
            (false, "http://127.0.0.1.example.org/"),
            (false, "http://10.0.0.1/"),
            (false, "ftp://127.0.0.1/"),
        ] {
            assert_eq!(check_endpoint("test", &Url::parse(url).unwrap()).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn a_wish_to_wait_is_read_in_seconds_and_milliseconds() {
        let answer = |name: &str, value: &str| Answer {
            status: 429,
            headers: vec![(name.into(), value.into())],
            body: Vec::new(),
        };
        assert_eq!(answer("Retry-After", "17").retry_after(), Some(Duration::from_secs(17)));
        assert_eq!(answer("x-ms-retry-after-ms", "250").retry_after(), Some(Duration::from_millis(250)));
        assert_eq!(answer("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT").retry_after(), None);
    }
}

//! A proxy that loses what it is told to lose. One request for each connection.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is carried out and answered.
    Pass,
    /// It is carried out; the connection breaks before the answer.
    LoseAnswer,
    /// It never arrives; the connection breaks.
    LoseRequest,
    /// It never arrives, and no answer comes for so long.
    Hang(Duration),
    /// It is carried out, and the answer is `500`.
    DoneButFailed,
    /// It is not carried out, and the answer is `503`, to be tried after a second.
    Busy,
}

type Judge = Box<dyn FnMut(&str) -> Fate + Send>;

/// Decides by the request's first line, and counts.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    judge: Arc<Mutex<Judge>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pass: Judge = Box::new(|_| Fate::Pass);
        let proxy = Self { port, judge: Arc::new(Mutex::new(pass)), seen: Arc::default() };
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = serving.clone();
                std::thread::spawn(move || drop(proxy.serve(client, upstream)));
            }
        });
        proxy
    }

    /// From now on requests are judged like this.
    pub(crate) fn judge(&self, judge: impl FnMut(&str) -> Fate + Send + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
    }

    /// The next request with that method meets that fate; the others pass.
    pub(crate) fn once(&self, method: &'static str, fate: Fate) {
        let mut left = 1;
        self.judge(move |line| {
            if line.starts_with(method) && left > 0 {
                left -= 1;
                return fate;
            }
            Fate::Pass
        });
    }

    /// How many requests with that method have come.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.starts_with(method)).count()
    }

    /// The first lines of the requests that have come since [`Proxy::forget`], in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Counts from here.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    fn serve(&self, mut client: TcpStream, upstream: u16) -> std::io::Result<()> {
        let (head, body) = read_request(&mut client)?;
        let line = head.lines().next().unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push(line.clone());
        let fate = (self.judge.lock().unwrap())(&line);
        match fate {
            Fate::LoseRequest => return Ok(()),
            Fate::Hang(time) => {
                std::thread::sleep(time);
                return Ok(());
            }
            Fate::Busy => {
                return client.write_all(
                    b"HTTP/1.1 503 busy\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
            Fate::Pass | Fate::LoseAnswer | Fate::DoneButFailed => {}
        }
        let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        server.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes())?;
        server.write_all(&body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        match fate {
            Fate::Pass => client.write_all(&answer),
            Fate::DoneButFailed => {
                client.write_all(b"HTTP/1.1 500 timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            _ => Ok(()),
        }
    }
}

fn read_request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let read = client.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0_usize);
        if bytes.len() >= end + 4 + length {
            return Ok((head, bytes.split_off(end + 4)));
        }
    }
}

//! Fetches an image over a line that may break: what has arrived stays in a file named `….download`, and the next attempt,
//! of this process or a later one, asks for the rest of it.
//!
//! Two halves of different files never become one: beside the download lies what the server said identifies it (`….note`),
//! and the rest is asked for on the condition that this is still so. If the process dies here, its `curl` may live on;
//! it holds a lock on the download, and the next one waits for it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::super::error::{ImageError, IoContext};
use super::super::files;
use super::super::tool::Tool;
use super::source::Check;

/// Attempts in a row that bring nothing.
const FRUITLESS_MAX: u32 = 3;
/// How often a server may make us begin anew.
const RESTARTS_MAX: u32 = 3;
/// Between two attempts, so that a server that is starting again is not hammered.
const PAUSE: Duration = Duration::from_secs(2);
/// A line that brings nothing for so long is broken.
const SILENCE_SECONDS: &str = "60";
/// For all attempts together.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long a `curl` that outlived its killed build may go on: it ends by itself when it is done.
const ORPHAN_LIMIT: Duration = Duration::from_secs(3600);

/// What the server said about the file of which we have a part.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// An `ETag`, or a date of last change: the rest is wanted only if it is still the same.
    validator: Option<String>,
    /// Bytes of the whole.
    total: Option<u64>,
}

/// Fetches the file at `url` into `download`, continuing what an earlier attempt left there, and checks it.
pub(super) async fn fetch(url: &str, check: &Check, download: &Path) -> Result<(), ImageError> {
    let all = async {
        let wanted = match check {
            Check::None => None,
            Check::Sha256(sum) => Some(sum.clone()),
            Check::SumsBeside => Some(published_sum(url).await?),
        };
        let file = OpenOptions::new().create(true).append(true).open(download).on("open", download)?;
        lock(&file, download).await?;
        attempts(url, wanted.is_some(), &file, download).await?;
        if let Some(wanted) = wanted {
            let found = sha256(download.to_owned()).await?;
            if found != wanted {
                std::fs::remove_file(download).on("delete", download)?;
                let advice = "it was deleted, the next attempt fetches it again; if that does not help, the sum is that of another file";
                return Err(ImageError::Checksum { what: url.to_owned(), found, wanted, advice });
            }
        }
        for name in ["note", "headers"] {
            let _ = std::fs::remove_file(download.with_extension(name));
        }
        Ok(())
    };
    let late = Err(ImageError::TimedOut { doing: "fetching the image", limit: LIMIT });
    tokio::time::timeout(LIMIT, all).await.unwrap_or(late)
}

async fn attempts(url: &str, is_checked: bool, file: &File, download: &Path) -> Result<(), ImageError> {
    let (mut fruitless, mut restarts) = (0, 0);
    loop {
        let note = remember(download)?;
        let mut have = file.metadata().on("inspect", download)?.len();
        if have > 0 && note.total == Some(have) {
            return Ok(());
        }
        if have > 0 && note.validator.is_none() && !is_checked {
            // Nothing says that the rest would belong to it.
            file.set_len(0).on("cut", download)?;
            have = 0;
        }
        let error = match attempt(url, &note, have, file, download).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let now = file.metadata().on("inspect", download)?.len();
        match verdict(&error) {
            // The server cannot continue, or has another file by now.
            Verdict::Restart if have > 0 && restarts < RESTARTS_MAX => {
                restarts += 1;
                file.set_len(0).on("cut", download)?;
                forget(download)?;
            }
            Verdict::Again if now > have || fruitless + 1 < FRUITLESS_MAX => {
                fruitless = if now > have { 0 } else { fruitless + 1 };
                tracing::info!(url, have = now, %error, "the download broke off; asking for the rest");
                tokio::time::sleep(PAUSE).await;
            }
            _ => return Err(blame_line(url, error)),
        }
    }
}

async fn attempt(url: &str, note: &Note, have: u64, file: &File, download: &Path) -> Result<(), ImageError> {
    let mut tool = curl(url, "fetching the image").arg("--dump-header").arg(download.with_extension("headers"));
    if have > 0 {
        tool = tool.args(["--continue-at", &have.to_string()]);
        if let Some(validator) = &note.validator {
            tool = tool.args(["--header", &format!("If-Range: {validator}")]);
        }
    }
    // The same open file, and so the same lock, for as long as curl lives.
    let output = file.try_clone().on("open", download)?;
    tool.args(["--url", url]).stdout(output).limit(LIMIT).run().await.map(|_| ())
}

fn curl(url: &str, doing: &'static str) -> Tool {
    // No detour over an open line where a closed one was asked for.
    let schemes = if url.starts_with("https://") { "=https" } else { "=http,https" };
    Tool::new("curl", "curl", doing)
        .args(["-q", "--fail", "--silent", "--show-error", "--location", "--max-redirs", "10"])
        .args(["--proto", schemes, "--proto-redir", schemes])
        .args(["--connect-timeout", "30", "--speed-limit", "1", "--speed-time", SILENCE_SECONDS])
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Restart,
    Again,
    GiveUp,
}

/// What curl's exit code (in its message) means for the next attempt.
fn verdict(error: &ImageError) -> Verdict {
    let ImageError::Tool { last_lines, .. } = error else { return Verdict::GiveUp };
    let code = last_lines.split_once("curl: (").and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
    match code {
        Some("33" | "36") => Verdict::Restart,
        Some("22") if last_lines.contains("error: 416") => Verdict::Restart,
        // A busy server, as opposed to one that does not have it.
        Some("22") if [" 429", " 500", " 502", " 503", " 504"].iter().any(|code| last_lines.contains(code)) => {
            Verdict::Again
        }
        // Broken off, too short, silent, reset, a stream or connection that failed under way.
        Some("7" | "16" | "18" | "28" | "52" | "55" | "56" | "92" | "95") => Verdict::Again,
        _ => Verdict::GiveUp,
    }
}

fn blame_line(url: &str, error: ImageError) -> ImageError {
    match error {
        ImageError::Tool { last_lines, .. } => ImageError::Download { url: url.to_owned(), last_lines },
        other => other,
    }
}

/// The sum that `SHA256SUMS` in the same directory has for the file.
async fn published_sum(url: &str) -> Result<String, ImageError> {
    let (directory, name) = url.rsplit_once('/').unwrap_or((url, ""));
    let sums = format!("{directory}/SHA256SUMS");
    let text = curl(&sums, "fetching the image's checksum")
        .args(["--retry", "2", "--max-time", "120", "--url", &sums])
        .run()
        .await
        .map_err(|error| blame_line(&sums, error))?;
    find_sum(&String::from_utf8_lossy(&text), name).ok_or_else(|| {
        ImageError::unexpected(sums, format!("has no sum for {name}; give the image's own as image_sha256"))
    })
}

fn find_sum(sums: &str, name: &str) -> Option<String> {
    sums.lines().find_map(|line| {
        let (sum, file) = line.split_once(char::is_whitespace)?;
        (file.trim_start().trim_start_matches('*') == name && super::source::is_sha256(sum))
            .then(|| sum.to_ascii_lowercase())
    })
}

/// Sha-256 of a file, in hex.
pub(super) async fn sha256(path: PathBuf) -> Result<String, ImageError> {
    let name = path.clone();
    let sum = tokio::task::spawn_blocking(move || {
        use sha2::{Digest, Sha256};
        let mut sum = Sha256::new();
        let (mut file, mut chunk) = (File::open(&path)?, vec![0; 1 << 20]);
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => sum.update(&chunk[..read]),
            }
        }
        Ok::<_, std::io::Error>(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    });
    sum.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).on("read", &name)
}

async fn lock(file: &File, path: &Path) -> Result<(), ImageError> {
    let start = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < ORPHAN_LIMIT => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(ImageError::TimedOut {
                    doing: "an earlier download of the same image",
                    limit: ORPHAN_LIMIT,
                });
            }
            Err(error) => return Err(std::io::Error::from(error)).on("lock", path),
        }
    }
}

/// What is known about the download, with what the last answer said.
fn remember(download: &Path) -> Result<Note, ImageError> {
    let path = download.with_extension("note");
    // Whatever is unreadable here is as good as absent: then nothing is continued.
    let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let headers = std::fs::read(download.with_extension("headers")).unwrap_or_default();
    let Some(said) = read_headers(&String::from_utf8_lossy(&headers)).filter(|said| *said != known) else {
        return Ok(known);
    };
    let text = serde_json::to_vec(&said).map_err(|error| ImageError::unexpected("note", error.to_string()))?;
    files::write(&path, &text)?;
    Ok(said)
}

fn forget(download: &Path) -> Result<(), ImageError> {
    for name in ["headers", "note"] {
        let path = download.with_extension(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).on("delete", &path),
            _ => {}
        }
    }
    Ok(())
}

/// What the last of some answers' headers say, if it brought the file or a part of it.
fn read_headers(text: &str) -> Option<Note> {
    let mut note = None;
    for line in text.lines().map(str::trim) {
        if let Some(status) = line.strip_prefix("HTTP/") {
            let code = status.split_whitespace().nth(1);
            note = matches!(code, Some("200" | "206")).then(Note::default);
        }
        let (Some(note), Some((name, value))) = (&mut note, line.split_once(':')) else { continue };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            // A weak one may stand for two files.
            "etag" if !value.starts_with("W/") => note.validator = Some(value.to_owned()),
            "last-modified" if note.validator.is_none() => note.validator = Some(value.to_owned()),
            "content-length" if note.total.is_none() => note.total = value.parse().ok(),
            "content-range" => note.total = value.rsplit('/').next().and_then(|total| total.parse().ok()),
            _ => {}
        }
    }
    note
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one file that can be asked for in parts.
    struct Server {
        url: String,
        state: Arc<Mutex<State>>,
    }

    #[derive(Default)]
    struct State {
        content: Vec<u8>,
        etag: String,
        /// Bytes of the body after which a connection is cut; one for each connection, then none.
        cuts: Vec<usize>,
        /// Answered instead of the file.
        refusal: Option<&'static str>,
        sums: String,
        requests: Vec<String>,
    }

    async fn serve(content: &[u8]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/images/x.img", listener.local_addr().unwrap());
        let state = State { content: content.to_vec(), etag: "\"1\"".into(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let answer = answer(&mut shared.lock().unwrap(), String::from_utf8(request).unwrap());
                stream.write_all(&answer).await.unwrap();
            }
        });
        Server { url, state }
    }

    fn answer(state: &mut State, request: String) -> Vec<u8> {
        state.requests.push(request.clone());
        if let Some(refusal) = state.refusal {
            return format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
        }
        let header = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let content =
            if request.contains("SHA256SUMS") { state.sums.clone().into_bytes() } else { state.content.clone() };
        let from = header("Range: bytes=").and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        let from = from.filter(|_| header("If-Range:").is_none_or(|etag| etag == state.etag));
        let (total, etag) = (content.len(), &state.etag);
        let mut head = match from {
            Some(from) if from >= total => "HTTP/1.1 416 Range Not Satisfiable\r\n".to_owned(),
            Some(from) => {
                format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1)
            }
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        let body = &content[from.unwrap_or(0).min(total)..];
        head += &format!("ETag: {etag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let sent = if state.cuts.is_empty() { body.len() } else { state.cuts.remove(0).min(body.len()) };
        [head.as_bytes(), &body[..sent]].concat()
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn a_line_that_breaks_is_continued_and_nothing_is_fetched_twice() {
        let (server, dir) = (serve(&noise(100_000)).await, tempfile::tempdir().unwrap());
        server.state.lock().unwrap().cuts = vec![30_000, 10_000];
        let file = dir.path().join("image.download");
        fetch(&server.url, &Check::None, &file).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), noise(100_000));
        let requests = server.state.lock().unwrap().requests.clone();
        let asked: Vec<_> = requests.iter().map(|request| request.contains("Range: bytes=30000-")).collect();
        assert_eq!(asked, [false, true, false], "{requests:?}");
        assert!(requests[2].contains("Range: bytes=40000-"), "{requests:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "notes are left");
    }

    #[tokio::test]
    async fn what_a_killed_build_left_is_continued_only_if_the_file_is_the_same() {
        for (etag, fetched_anew) in [("\"1\"", false), ("\"2\"", true)] {
            let (server, dir) = (serve(&noise(100_000)).await, tempfile::tempdir().unwrap());
            let file = dir.path().join("image.download");
            std::fs::write(&file, &noise(100_000)[..60_000]).unwrap();
            std::fs::write(
                file.with_extension("headers"),
                "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 100000\r\n",
            )
            .unwrap();
            server.state.lock().unwrap().etag = etag.to_owned();
            if fetched_anew {
                server.state.lock().unwrap().content = vec![7; 80_000];
            }
            fetch(&server.url, &Check::None, &file).await.unwrap();
            let wanted = if fetched_anew { vec![7; 80_000] } else { noise(100_000) };
            assert!(std::fs::read(&file).unwrap() == wanted, "{etag}");
        }
    }

    #[tokio::test]
    async fn a_download_that_was_whole_is_not_asked_for_again() {
        let (server, dir) = (serve(&noise(1000)).await, tempfile::tempdir().unwrap());
        let file = dir.path().join("image.download");
        std::fs::write(&file, noise(1000)).unwrap();
        std::fs::write(file.with_extension("headers"), "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n")
            .unwrap();
        fetch(&server.url, &Check::None, &file).await.unwrap();
        assert_eq!(server.state.lock().unwrap().requests.len(), 0);
    }

    #[tokio::test]
    async fn a_wrong_sum_is_an_error_and_the_file_is_gone() {
        let (server, dir) = (serve(&noise(1000)).await, tempfile::tempdir().unwrap());
        let file = dir.path().join("image.download");
        let error = fetch(&server.url, &Check::Sha256("0".repeat(64)), &file).await.unwrap_err();
        assert!(matches!(error, ImageError::Checksum { .. }), "{error}");
        assert!(!file.exists());

        let right = dir.path().join("right");
        std::fs::write(&right, noise(1000)).unwrap();
        let sum = sha256(right).await.unwrap();
        fetch(&server.url, &Check::Sha256(sum.clone()), &file).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        server.state.lock().unwrap().sums = format!("{} *other.img\n{sum} *x.img\n", "1".repeat(64));
        fetch(&server.url, &Check::SumsBeside, &file).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        server.state.lock().unwrap().sums = format!("{} *x.img\n", "1".repeat(64));
        let error = fetch(&server.url, &Check::SumsBeside, &file).await.unwrap_err();
        assert!(matches!(error, ImageError::Checksum { .. }), "{error}");
        server.state.lock().unwrap().sums = "nothing".into();
        let error = fetch(&server.url, &Check::SumsBeside, &file).await.unwrap_err();
        assert!(error.to_string().contains("has no sum for x.img"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_or_does_not_have_it_is_named() {
        let (server, dir) = (serve(&[]).await, tempfile::tempdir().unwrap());
        server.state.lock().unwrap().refusal = Some("404 Not Found");
        let file = dir.path().join("image.download");
        for url in [&server.url, "http://127.0.0.1:9/x.img"] {
            let error = fetch(url, &Check::None, &file).await.unwrap_err();
            assert!(matches!(error, ImageError::Download { .. }), "{error}");
            assert!(error.to_string().contains(url), "{error}");
        }
        assert_eq!(server.state.lock().unwrap().requests.len(), 1, "what is not there is not asked for again");
    }

    #[test]
    fn answers_are_read_after_all_detours() {
        let text = "HTTP/1.1 302 Found\r\nETag: \"a\"\r\n\r\nHTTP/2 206 \r\netag: \"b\"\r\ncontent-length: 5\r\n\
            content-range: bytes 5-9/10\r\n\r\n";
        assert_eq!(read_headers(text), Some(Note { validator: Some("\"b\"".into()), total: Some(10) }));
        assert_eq!(read_headers("HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\n"), Some(Note::default()));
        assert_eq!(read_headers("HTTP/1.1 416 No\r\nETag: \"a\"\r\n"), None);
        assert_eq!(read_headers(""), None);
    }
}

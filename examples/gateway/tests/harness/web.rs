//! A real web server, as it runs in a box, and a real client of it.

use super::{Ran, finish};
use std::path::Path;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Answers with a length, so that connections are kept alive.
const SERVER: &str = r#"
import hashlib, http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def say(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.say(open(sys.argv[2], "rb").read() if self.path == "/file" else b"hello\n")
    def do_POST(self):
        self.say(hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

/// Serves on `port`: `/file` is `file`, a POST is answered with its body's sha256, and everything else with `hello`.
pub fn web_server(port: u16, file: &Path) -> Child {
    let mut command = Command::new("python3");
    command.args(["-c", SERVER, &port.to_string()]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// Runs curl; standard output has the head and the body.
pub async fn curl(port: u16, path: &str, args: &[&str]) -> Ran {
    finish(curl_command(port, path, args)).await
}

pub fn curl_command(port: u16, path: &str, args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "-q", "--noproxy", "*", "--max-time", "25"]).args(args);
    command.arg(format!("http://127.0.0.1:{port}{path}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The value of the metric's series `series` in what `/metrics` says.
pub fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

//! The program as a black box: started from a config in a folder of its own, spoken to over its sockets, and seen
//! through its metrics page.
//!
//! Nothing here sleeps for a fixed time: what takes time is polled until a deadline that only a broken program
//! reaches.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod exposition;
pub(crate) mod otlp;
pub(crate) mod target;
pub(crate) mod tls;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exposition::Page;
use reqwest::Method;
use reqwest::blocking::Client;
use tempfile::TempDir;
use tokio::time::Instant;

/// Longer than anything takes on a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that takes time.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Free ports, short timers, values at once.
pub(crate) const QUICK: &str = "\
listen: {http: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0', otlp_http: '127.0.0.1:0'}
defaults: {quiet_period: 200ms, linger: 200ms}
metrics: {zero_first: 0s}
";

/// Free ports and instances that stay open for as long as a test runs.
pub(crate) const PATIENT: &str = "\
listen: {http: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0', otlp_http: '127.0.0.1:0'}
defaults: {quiet_period: 5m, linger: 5m, max_age: 10m}
metrics: {zero_first: 0s}
";

/// A program about to be started: in a folder of its own, with an empty environment.
pub(crate) struct Launch {
    folder: TempDir,
    command: Command,
}

impl Launch {
    /// Without a config file.
    pub(crate) fn bare() -> Launch {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_latency-aggregator"));
        command
            .env_clear()
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Launch { folder, command }
    }

    /// With this text as `config.yaml` of its folder, where the program looks for it.
    pub(crate) fn config(text: &str) -> Launch {
        Launch::bare().file("config.yaml", text)
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Launch {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
        std::fs::write(path, text).expect("a written file");
        self
    }

    pub(crate) fn args(mut self, arguments: &[&str]) -> Launch {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Launch {
        self.command.env(name, value);
        self
    }

    /// Starts the server and waits until it has said what listens where.
    pub(crate) fn start(mut self) -> Server {
        let mut child = self.command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let logs = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&logs);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut written = written.lock().expect("no thread panics while it writes");
                written.push_str(&line);
                written.push('\n');
            }
        });
        let mut server = Server { child, logs, started: Vec::new(), client: client(), folder: self.folder };
        server.started = server.start_up_lines(&lines);
        server
    }

    /// Runs the program to its end, which must come soon.
    pub(crate) fn run(mut self) -> Finished {
        let mut child = self.command.spawn().expect("the program starts");
        let output = read_in_background(child.stdout.take().expect("it is piped"));
        let errors = read_in_background(child.stderr.take().expect("it is piped"));
        let code = exit_code(&mut child);
        Finished {
            code,
            stdout: output.join().expect("the reader does not panic"),
            stderr: errors.join().expect("the reader does not panic"),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn read_in_background(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("text");
        text
    })
}

/// Waits for the end of a process; kills it and gives nothing when it does not come.
fn exit_code(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("the process can be asked") {
            return status.code();
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    child.kill().expect("an own process can be killed");
    child.wait().expect("a killed process ends");
    None
}

/// What a program left that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Nothing if it had to be killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program that runs. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    logs: Arc<Mutex<String>>,
    started: Vec<String>,
    client: Client,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Server {
    /// With short timers, and more lines of config.
    pub(crate) fn quick(more: &str) -> Server {
        Launch::config(&format!("{QUICK}{more}")).start()
    }

    /// With instances that stay open, and more lines of config.
    pub(crate) fn patient(more: &str) -> Server {
        Launch::config(&format!("{PATIENT}{more}")).start()
    }

    fn start_up_lines(&mut self, lines: &Receiver<String>) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        while !seen.last().is_some_and(|line| line.starts_with("Try:")) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                    panic!("no server came up; it said {seen:?} and logged:\n{}", self.logs());
                }
            }
        }
        seen
    }

    /// Puts another text in the place of the config.
    pub(crate) fn rewrite_config(&self, text: &str) {
        self.rewrite("config.yaml", text);
    }

    /// The same with another file of the program's folder.
    pub(crate) fn rewrite(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("a written file");
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).expect("it was there");
    }

    pub(crate) fn start_up(&self) -> &[String] {
        &self.started
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address that a start-up line names for a setting.
    pub(crate) fn address_of(&self, setting: &str) -> Option<SocketAddr> {
        let line = self.started.iter().find(|line| line.split_whitespace().next() == Some(setting))?;
        let address = line.split_whitespace().nth(1).expect("an address behind the setting");
        Some(address.parse().expect("an address of the form ip:port"))
    }

    fn address(&self, setting: &str) -> SocketAddr {
        let address = self.address_of(setting);
        address.unwrap_or_else(|| panic!("{setting} is not in {:?}", self.started))
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("listen.http")
    }

    pub(crate) fn otlp_grpc(&self) -> SocketAddr {
        self.address("listen.otlp_grpc")
    }

    pub(crate) fn otlp_http(&self) -> SocketAddr {
        self.address("listen.otlp_http")
    }

    /// What was written to standard error so far.
    pub(crate) fn logs(&self) -> String {
        self.logs.lock().expect("no thread panics while it writes").clone()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[])
    }

    /// A request without a body to the push address.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let url = format!("http://{}{path}", self.http());
        send(&self.client, method, &url, headers, Vec::new())
    }

    /// Sends a push as the ancestor's Go client does: without a content type.
    pub(crate) fn push_plain(&self, body: impl Into<Vec<u8>>) -> Reply {
        self.push_with(&[], body)
    }

    /// Sends a push as JSON.
    pub(crate) fn push(&self, body: &serde_json::Value) -> Reply {
        self.push_with(&[("content-type", "application/json")], body.to_string())
    }

    pub(crate) fn push_with(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
        let url = format!("http://{}/", self.http());
        send(&self.client, "POST", &url, headers, body.into())
    }

    /// Posts to the address of OTLP over HTTP.
    pub(crate) fn post_otlp(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
        let url = format!("http://{}{path}", self.otlp_http());
        send(&self.client, "POST", &url, headers, body.into())
    }

    /// Posts a request of OTLP; `None` if the server hangs up instead of answering.
    pub(crate) fn try_post_otlp(&self, body: &[u8]) -> Option<Reply> {
        let url = format!("http://{}/v1/traces", self.otlp_http());
        let request = client().post(url).header("content-type", "application/x-protobuf").body(body.to_vec());
        let response = request.send().ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Reply { status, headers, body: response.bytes().ok()?.to_vec() })
    }

    /// The metrics page, which must be a valid exposition.
    pub(crate) fn scrape(&self) -> Page {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        Page::parse(&reply.text())
    }

    /// Scrapes until `holds`, which must happen.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Page) -> bool) -> Page {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.scrape();
            if holds(&page) {
                return page;
            }
            assert!(
                Instant::now() < deadline,
                "still not so after {PATIENCE:?}: {what}\n{}\n{}",
                page.interesting(),
                self.logs()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Scrapes until every instance that was opened is closed, which leaves nothing to wait for.
    pub(crate) fn until_settled(&self) -> Page {
        let ends = ["closed_total", "unmatched_total", "merged_total"];
        self.until("no instance is open, and all that were are counted", |page| {
            let instances = |name: &&str| page.sum(&format!("latency_aggregator_instances_{name}"), &[]);
            page.sum("latency_aggregator_open_instances", &[]) == 0.0
                && instances(&"opened_total") == ends.iter().map(instances).sum::<f64>()
        });
        // The families of a page are read one after the other: some of those above before the last were counted.
        self.scrape()
    }

    /// The most memory that the process has had at once.
    pub(crate) fn peak_memory_bytes(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("the process runs, on Linux");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
        let kibibytes = peak.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kB");
        kibibytes * 1024
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("a shell");
        assert!(status.success(), "the process was there to be signalled");
    }

    /// The exit code, when the process has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        exit_code(&mut self.child)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }
}

/// Polls until `holds`, which must happen.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so after {PATIENCE:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A client that goes straight to the server and gives up some day.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client without TLS needs nothing")
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of text")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The length of its body, as it is declared.
    pub(crate) fn length(&self) -> usize {
        let length = self.headers.get("content-length");
        length.map_or(0, |length| length.to_str().expect("digits").parse().expect("a number"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }
}

/// One request, and its answer read whole.
pub(crate) fn send(
    client: &Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Reply {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(body);
    }
    let response = request.send().expect("an answer");
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().expect("a whole body").to_vec(),
    }
}

/// A connection for HTTP that no client library would send.
pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_nodelay(true).expect("an option that TCP has");
        Wire(stream)
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Writes what the server may already have refused to read.
    pub(crate) fn write_if_wanted(&mut self, bytes: impl AsRef<[u8]>) {
        // The answer says why it is not wanted.
        self.0.write_all(bytes.as_ref()).unwrap_or_default();
    }

    /// One HTTP/1 answer whose length is declared.
    pub(crate) fn read_reply(&mut self) -> Reply {
        let mut reply = self.read_head();
        reply.body = vec![0; reply.length()];
        self.0.read_exact(&mut reply.body).expect("a whole body");
        reply
    }

    /// Its head only: a reply without its body.
    pub(crate) fn read_head(&mut self) -> Reply {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.0.read(&mut byte).expect("an answer in time");
            assert_eq!(read, 1, "closed within {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head of text");
        let mut lines = head.lines();
        let status = lines.next().expect("a status line").split(' ').nth(1);
        let headers: http::HeaderMap = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        Reply { status: status.expect("a status").parse().expect("a number"), headers, body: Vec::new() }
    }

    /// Whether the server still takes what is written.
    pub(crate) fn write_anyway(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads until the server hangs up, in one way or the other; returns how many bytes came.
    pub(crate) fn read_to_end(&mut self) -> usize {
        let mut read = Vec::new();
        match self.0.read_to_end(&mut read) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server never hung up")
            }
            Ok(_) | Err(_) => read.len(),
        }
    }

    pub(crate) fn hang_up(self) {
        drop(self.0);
    }
}

/// Whether somebody listens there.
pub(crate) fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_ok()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

/// What HTTP calls deflate.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

//! The server that the conformance suite speaks to: ours, started for each test, or another one at its addresses.
//!
//! Of another server only the answers are known: it has no metrics page that could be read here.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};

use super::exposition::Page;
use super::otlp::{Answer, OtlpServer};
use super::{Launch, PATIENT, QUICK, Server};

/// The limit that ours is given where a test is about it.
const SMALL_REQUEST_BYTES: usize = 4096;
/// The limit that the specification recommends, and our default.
const DEFAULT_REQUEST_BYTES: usize = 64 * 1024 * 1024;

pub(crate) enum Target {
    Ours { server: Box<Server>, request_bytes: usize },
    Another(Addresses),
}

#[derive(Clone)]
pub(crate) struct Addresses {
    grpc: SocketAddr,
    http: SocketAddr,
    request_bytes: usize,
}

impl Addresses {
    /// Those of the other server that the environment names, if it does.
    fn from_environment() -> Option<Addresses> {
        let address = |name: &str| {
            let text = std::env::var(name).ok()?;
            let mut found = text.to_socket_addrs().unwrap_or_else(|error| panic!("{name}={text}: {error}"));
            found.next()
        };
        let request_bytes = std::env::var("OTLP_CONFORMANCE_REQUEST_BYTES").ok();
        let request_bytes = request_bytes.map(|text| text.parse().expect("a number of bytes"));
        match (address("OTLP_CONFORMANCE_GRPC"), address("OTLP_CONFORMANCE_HTTP")) {
            (Some(grpc), Some(http)) => {
                Some(Addresses { grpc, http, request_bytes: request_bytes.unwrap_or(DEFAULT_REQUEST_BYTES) })
            }
            (None, None) => None,
            _ => panic!("OTLP_CONFORMANCE_GRPC and OTLP_CONFORMANCE_HTTP are both needed, or none of them"),
        }
    }
}

impl Target {
    /// Ours closes instances soon.
    pub(crate) fn quick() -> Target {
        Target::launched(Launch::config(QUICK))
    }

    /// Ours keeps instances open for as long as the test runs.
    pub(crate) fn patient() -> Target {
        Target::launched(Launch::config(PATIENT))
    }

    /// Ours has these settings, and the test demands nothing of another server that would depend on them.
    pub(crate) fn launched(launch: Launch) -> Target {
        match Addresses::from_environment() {
            Some(addresses) => Target::Another(addresses),
            None => Target::Ours { server: Box::new(launch.start()), request_bytes: DEFAULT_REQUEST_BYTES },
        }
    }

    /// Takes so few bytes in a request that a test can send more.
    pub(crate) fn limited() -> Target {
        let limit = SMALL_REQUEST_BYTES.to_string();
        match Target::launched(Launch::config(PATIENT).args(&["--limits.request_bytes", &limit])) {
            Target::Ours { server, .. } => Target::Ours { server, request_bytes: SMALL_REQUEST_BYTES },
            Target::Another(addresses) => Target::Another(addresses),
        }
    }

    /// Ours, for a test that has to start, to stop or to look into its server. Of another one it is said that the
    /// test is not applicable, since it needs that.
    pub(crate) fn only_ours(launch: Launch, needs: &str) -> Option<Server> {
        is_ours(needs).then(|| launch.start())
    }

    /// The largest request.
    pub(crate) fn request_bytes(&self) -> usize {
        match self {
            Target::Ours { request_bytes, .. } => *request_bytes,
            Target::Another(addresses) => addresses.request_bytes,
        }
    }

    pub(crate) fn ours(&self) -> Option<&Server> {
        match self {
            Target::Ours { server, .. } => Some(server),
            Target::Another(_) => None,
        }
    }

    /// Our metrics page.
    pub(crate) fn scrape(&self) -> Option<Page> {
        self.ours().map(Server::scrape)
    }

    /// Our metrics page once `holds`, which must happen.
    pub(crate) fn until(&self, what: &str, holds: impl FnMut(&Page) -> bool) -> Option<Page> {
        self.ours().map(|server| server.until(what, holds))
    }

    /// Another server may answer so, which leaves nothing to test; ours must not.
    #[track_caller]
    pub(crate) fn excuse(&self, answer: &Answer, why: &str) {
        assert!(self.ours().is_none(), "{answer:?}");
        not_applicable(why);
    }
}

impl OtlpServer for Target {
    fn otlp_grpc(&self) -> SocketAddr {
        match self {
            Target::Ours { server, .. } => server.otlp_grpc(),
            Target::Another(addresses) => addresses.grpc,
        }
    }

    fn otlp_http(&self) -> SocketAddr {
        match self {
            Target::Ours { server, .. } => server.otlp_http(),
            Target::Another(addresses) => addresses.http,
        }
    }
}

/// Whether the suite tests ours; if not, it is said that a test is not applicable, since it needs that.
pub(crate) fn is_ours(needs: &str) -> bool {
    let is_ours = Addresses::from_environment().is_none();
    if !is_ours {
        not_applicable(&format!("needs {needs}"));
    }
    is_ours
}

/// Says that nothing was tested. It goes past the test harness, which hides what a test prints that succeeds.
fn not_applicable(why: &str) {
    let thread = std::thread::current();
    let line = format!("not applicable: {}: {why}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}

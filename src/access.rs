//! Who may come in: which addresses speak TLS, which routes want a token, and what is open to whom it should not be.
//!
//! Invariant: a route that wants a token wants it on every address at which it is.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;

use crate::auth::{self, Tokens};
use crate::config::{self, Config, Loaded};
use crate::pipeline::Pipeline;
use crate::secrets::{Follow, Followed, SecretError, SecretFile};
use crate::tls::{self, Tls};

/// Certificates and tokens, as far as the config names any.
#[derive(Debug)]
pub struct Access {
    tls: Option<Arc<Tls>>,
    /// Which addresses speak it.
    covered: config::Tls,
    ingest: Option<Arc<Followed<Tokens>>>,
    read: Option<Arc<Followed<Tokens>>>,
}

/// The files that a config names, found.
struct Files {
    tls: Option<tls::Files>,
    ingest: Option<SecretFile>,
    read: Option<SecretFile>,
}

impl Files {
    fn of(loaded: &Loaded) -> Files {
        let Config { tls, auth, .. } = &loaded.config;
        let certificate = tls.certificate.as_ref().zip(tls.key.as_ref());
        let file = |setting, path: &Option<String>| {
            path.as_ref().map(|path| SecretFile { setting, path: loaded.path(path) })
        };
        Files {
            tls: certificate.map(|(certificate, key)| tls::Files {
                certificate: loaded.path(certificate),
                key: loaded.path(key),
                client_ca: tls.client_ca.as_ref().map(|path| loaded.path(path)),
            }),
            ingest: file("auth.ingest_token_file", &auth.ingest_token_file),
            read: file("auth.read_token_file", &auth.read_token_file),
        }
    }
}

/// Reads the files that a config names and says whether they are of use.
pub fn check(loaded: &Loaded) -> Result<(), SecretError> {
    let files = Files::of(loaded);
    files.tls.iter().try_for_each(tls::check)?;
    files.ingest.iter().chain(&files.read).try_for_each(auth::check)
}

impl Access {
    /// Reads the files that a config names for the first time.
    pub fn open(loaded: &Loaded, pipeline: &Arc<Pipeline>) -> Result<Self, SecretError> {
        let files = Files::of(loaded);
        let tls = files.tls.map(|files| Tls::open(&files, Arc::clone(pipeline)));
        let tokens = |name, file: Option<SecretFile>| {
            file.map(|file| auth::open(name, file).map(Arc::new)).transpose()
        };
        Ok(Access {
            tls: tls.transpose()?.map(Arc::new),
            covered: loaded.config.tls.clone(),
            ingest: tokens("ingest_tokens", files.ingest)?,
            read: tokens("read_tokens", files.read)?,
        })
    }

    /// What has to be looked at now and then.
    pub fn secrets(&self) -> Vec<Arc<dyn Follow>> {
        let tls = self.tls.iter().map(|tls| tls.followed() as Arc<dyn Follow>);
        let tokens = self.ingest.iter().chain(&self.read).map(|tokens| Arc::clone(tokens) as Arc<dyn Follow>);
        tls.chain(tokens).collect()
    }

    /// What the address of a setting speaks TLS with, if it does.
    pub fn tls_of(&self, setting: &str) -> Option<Arc<Tls>> {
        self.tls.clone().filter(|_| self.covered.covers(setting))
    }

    /// Routes for those who send; `refuse` answers those who show no token where one is wanted.
    pub fn for_senders(
        &self,
        router: Router,
        refuse: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static,
    ) -> Router {
        guarded(router, self.ingest.as_ref(), refuse)
    }

    /// Routes for those who read.
    pub fn for_readers(
        &self,
        router: Router,
        refuse: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static,
    ) -> Router {
        guarded(router, self.read.as_ref(), refuse)
    }
}

fn guarded(
    router: Router,
    tokens: Option<&Arc<Followed<Tokens>>>,
    refuse: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static,
) -> Router {
    match tokens {
        Some(tokens) => auth::guard(router, Arc::clone(tokens), refuse),
        None => router,
    }
}

/// What of these addresses is open to everybody who can reach them, or to whoever listens on the way, and the settings
/// that help.
pub fn exposures(config: &Config, addresses: &[(&'static str, SocketAddr)]) -> Vec<String> {
    let is_local = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    let remote = addresses.iter().filter(|(_, address)| !is_local(address));
    remote.flat_map(|(setting, address)| exposures_of(config, setting, *address)).collect()
}

fn exposures_of(config: &Config, setting: &str, address: SocketAddr) -> Vec<String> {
    let Config { listen, tls, auth, .. } = config;
    let sends = (auth.ingest_token_file.is_some(), "send events", "auth.ingest_token_file");
    let reads = (auth.read_token_file.is_some(), "read metrics and the API", "auth.read_token_file");
    let uses = match setting {
        "listen.metrics" => vec![reads],
        "listen.http" if listen.metrics.is_none() => vec![sends, reads],
        _ => vec![sends],
    };
    let is_tls = tls.covers(setting);
    let asks_for_certificates = is_tls && tls.client_ca.is_some();
    let open = uses.iter().filter(|(has_token, ..)| !has_token && !asks_for_certificates);
    let open = open.map(|(_, what, help)| {
        let certificates = if is_tls { "tls.client_ca" } else { "tls.certificate, tls.key and tls.client_ca" };
        format!(
            "whoever can reach {address} may {what}: set {help} or {certificates}, or {setting} to a loopback address"
        )
    });
    let is_overheard = !is_tls && uses.iter().any(|(has_token, ..)| *has_token);
    let overheard = is_overheard.then(|| {
        format!(
            "tokens cross the network to {address} ({setting}) in clear text: set tls.certificate and tls.key"
        )
    });
    open.chain(overheard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of addresses that anybody can reach: a few words of each warning.
    #[track_caller]
    fn check(change: impl Fn(&mut Config), address: &str, expected: &[(&'static str, &[&str])]) {
        let mut config = Config::default();
        change(&mut config);
        for (setting, says) in expected {
            let warnings = exposures(&config, &[(setting, address.parse().unwrap())]);
            assert_eq!(warnings.len(), says.len(), "{setting}: {warnings:?}");
            for (warning, words) in warnings.iter().zip(*says) {
                assert!(warning.contains(words), "{setting}: no {words:?} in {warning:?}");
                assert!(warning.contains(setting), "{setting}: {warning:?}");
            }
        }
    }

    fn with_tls(config: &mut Config) {
        config.tls.certificate = Some("c".to_owned());
        config.tls.key = Some("k".to_owned());
    }

    #[test]
    fn loopback_addresses_are_nobody_elses_business() {
        for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            check(|_| {}, address, &[("listen.http", &[]), ("listen.otlp_grpc", &[])]);
        }
    }

    #[test]
    fn what_everybody_may_do_is_said_with_what_helps() {
        for address in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1"] {
            let senders: &[&str] =
                &["set auth.ingest_token_file or tls.certificate, tls.key and tls.client_ca"];
            check(
                |_| {},
                address,
                &[
                    (
                        "listen.http",
                        &["may send events: set", "may read metrics and the API: set auth.read_token_file"],
                    ),
                    ("listen.otlp_grpc", senders),
                    ("listen.otlp_http", senders),
                ],
            );
        }
        let apart = |config: &mut Config| config.listen.metrics = Some("0.0.0.0:2".to_owned());
        check(apart, "0.0.0.0:1", &[("listen.http", &["send"]), ("listen.metrics", &["read"])]);
    }

    #[test]
    fn encryption_alone_keeps_nobody_out_and_tokens_alone_are_overheard() {
        check(
            with_tls,
            "0.0.0.0:1",
            &[("listen.otlp_grpc", &["set auth.ingest_token_file or tls.client_ca"])],
        );
        let token = |config: &mut Config| config.auth.ingest_token_file = Some("t".to_owned());
        check(token, "0.0.0.0:1", &[("listen.otlp_grpc", &["in clear text"])]);
        let both = |config: &mut Config| {
            with_tls(config);
            token(config);
        };
        check(both, "0.0.0.0:1", &[("listen.otlp_grpc", &[]), ("listen.http", &["read metrics"])]);
        let not_there = |config: &mut Config| {
            both(config);
            config.tls.listeners = vec![config::Listener::Http];
        };
        check(not_there, "0.0.0.0:1", &[("listen.otlp_grpc", &["in clear text"])]);
        let certificates = |config: &mut Config| {
            with_tls(config);
            config.tls.client_ca = Some("a".to_owned());
        };
        check(certificates, "0.0.0.0:1", &[("listen.otlp_grpc", &[]), ("listen.http", &[])]);
    }
}

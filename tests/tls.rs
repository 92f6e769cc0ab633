//! Encryption, certificates of clients and tokens: who comes in, who does not, and how all of them are changed while the
//! program runs.

#![allow(clippy::unwrap_used, reason = "a test that meets None or Err has failed")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use rcgen::date_time_ymd;
use serde_json::json;
use support::otlp::{
    EXPORT, GrpcReply, JSON, PROTOBUF, frame, grpc_raw, json_request, on_runtime, request, span,
};
use support::tls::{Authority, Call, Caller, Identity};
use support::{Launch, PATIENT, QUICK, Reply, Server, Wire, client, eventually, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::transport::Endpoint;

const TOKEN: &str = "s3cret-of-those-who-send";
const READ_TOKEN: &str = "s3cret-of-those-who-read";
const PUSH: &str = r#"{"id": "1", "name": "order", "stage": "placed", "life_span": 0}"#;

/// With certificate and key, and TLS where OTLP is received; /metrics can be read without.
const TLS: &str = "\
tls: {certificate: certificate.pem, key: key.pem, listeners: [otlp_grpc, otlp_http]}
reload: {interval: 50ms}
";

/// The same with certificates of clients.
const MUTUAL: &str = "\
tls: {certificate: certificate.pem, key: key.pem, client_ca: ca.pem, listeners: [http, otlp_grpc, otlp_http]}
";

const TOKENS: &str = "\
auth: {ingest_token_file: senders, read_token_file: readers}
reload: {interval: 50ms}
";

fn launch(config: &str, identity: &Identity) -> Launch {
    let launch = Launch::config(config).file("certificate.pem", &identity.certificate());
    launch.file("key.pem", &identity.key())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What the certificate's last look was like, and how many handshakes have failed.
fn reload_succeeded(server: &Server, secret: &str) -> f64 {
    server.scrape().sum("latency_aggregator_secrets_last_reload_successful", &[("secret", secret)])
}

fn failed_handshakes(server: &Server, reason: &str) -> f64 {
    server.scrape().sum("latency_aggregator_tls_handshakes_failed_total", &[("reason", reason)])
}

/// Exports one trace with the generated gRPC client, over TLS.
async fn export_grpc(caller: &Caller, address: SocketAddr, trace: u8) -> Result<(), String> {
    let caller = caller.clone().speaking(&[b"h2"]);
    let connector = tower::service_fn(move |_| {
        let caller = caller.clone();
        async move { caller.connect(address).await.map(TokioIo::new) }
    });
    // The connector does what https would.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())?;
    let sent = TraceServiceClient::new(channel).export(request("shop", vec![span(trace, 1)])).await;
    sent.map(drop).map_err(|status| status.to_string())
}

#[test]
fn all_ways_in_and_the_metrics_are_served_over_tls() {
    let authority = Authority::new();
    let config = "\
listen: {http: '127.0.0.1:0', metrics: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0', otlp_http: '127.0.0.1:0'}
tls: {certificate: certificate.pem, key: key.pem}
";
    let server = launch(config, &authority.issue()).start();
    let metrics = server.address_of("listen.metrics").unwrap();
    assert!(
        server.start_up().iter().any(|line| line.ends_with("OTLP over gRPC, TLS")),
        "{:?}",
        server.start_up()
    );
    assert!(server.start_up().last().unwrap().contains("https://"), "{:?}", server.start_up());
    on_runtime(async {
        let caller = Caller::new(&authority);
        export_grpc(&caller, server.otlp_grpc(), 1).await.unwrap();
        for (content_type, body) in [
            (PROTOBUF, request("shop", vec![span(2, 1)]).encode_to_vec()),
            (JSON, json_request(&"3".repeat(32), "").into_bytes()),
        ] {
            let mut call = caller.call(server.otlp_http()).await.unwrap();
            let reply =
                call.ask("POST", "/v1/traces", &[("content-type", content_type)], body).await.unwrap();
            assert_eq!((reply.status, &*call.protocol), (200, &b"http/1.1"[..]), "{reply:?}");
        }
        let mut call = caller.call(server.http()).await.unwrap();
        let reply = call.ask("POST", "/", &[("content-type", JSON)], PUSH.into()).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        // The same connection goes on.
        assert_eq!(call.get("/readyz").await.unwrap().status, 200);
        let page = caller.call(metrics).await.unwrap().get("/metrics").await.unwrap().text();
        for transport in ["grpc", "http_protobuf", "http_json", "push"] {
            let line = format!("latency_aggregator_events_received_total{{transport=\"{transport}\"}} 1\n");
            assert!(page.contains(&line), "{page}");
        }
    });
}

#[test]
fn http_2_is_agreed_upon_and_old_versions_of_tls_are_not() {
    let authority = Authority::new();
    let server = launch(&format!("{QUICK}{TLS}"), &authority.issue()).start();
    on_runtime(async {
        let offered: [(&[&[u8]], &[u8]); 3] = [(&[b"h2"], b"h2"), (&[b"http/1.1", b"h2"], b"h2"), (&[], b"")];
        for (offered, expected) in offered {
            for address in [server.otlp_grpc(), server.otlp_http()] {
                let caller = Caller::new(&authority).speaking(offered);
                assert_eq!(caller.call(address).await.unwrap().protocol, expected, "{offered:?}");
            }
        }
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let stream =
                Caller::with(&authority, None, &[version]).connect(server.otlp_http()).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        }
        let mut stream = TcpStream::connect(server.otlp_http()).await.unwrap();
        // A ClientHello of TLS 1.1, as far as a server reads it.
        let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2][..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    });
}

#[test]
fn a_client_that_trusts_somebody_else_does_not_send() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = launch(&format!("{QUICK}{TLS}"), &authority.issue()).start();
    on_runtime(async {
        let error = Caller::new(&stranger).call(server.otlp_http()).await.err().unwrap();
        assert!(error.contains("invalid peer certificate"), "{error}");
        assert!(export_grpc(&Caller::new(&stranger), server.otlp_grpc(), 1).await.is_err());
    });
    eventually("both are counted", || failed_handshakes(&server, "refused") == 2.0);
    assert_eq!(server.scrape().sum("latency_aggregator_events_received_total", &[]), 0.0);
}

#[test]
fn plain_http_at_an_address_of_tls_fails_and_harms_nobody() {
    let authority = Authority::new();
    let server = launch(&format!("{QUICK}{TLS}"), &authority.issue()).start();
    // These two say nothing at all, and hold up nobody.
    let silent = [server.otlp_http(), server.otlp_grpc()].map(Wire::connect);
    let url = format!("http://{}/v1/traces", server.otlp_http());
    assert!(client().post(&url).header("content-type", JSON).body("{}").send().is_err());
    on_runtime(async {
        let mut stream = TcpStream::connect(server.otlp_grpc()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // It is closed, or reset.
        stream.read_to_end(&mut answer).await.unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        let mut call = Caller::new(&authority).call(server.otlp_http()).await.unwrap();
        let reply = call.ask("POST", "/v1/traces", &[("content-type", JSON)], "{}".into()).await.unwrap();
        assert_eq!(reply.status, 200);
        export_grpc(&Caller::new(&authority), server.otlp_grpc(), 1).await.unwrap();
    });
    eventually("both are counted", || failed_handshakes(&server, "refused") == 2.0);
    drop(silent);
    eventually("these are counted as well", || failed_handshakes(&server, "left") == 2.0);
}

#[test]
fn a_handshake_that_is_never_done_does_not_hold_up_the_end() {
    let authority = Authority::new();
    let at_once = "shutdown: {grace: 10m, linger: 0s}\n";
    let mut server = launch(&format!("{QUICK}{TLS}{at_once}"), &authority.issue()).start();
    let _silent = [server.otlp_http(), server.otlp_grpc()].map(Wire::connect);
    server.terminate();
    let started = Instant::now();
    assert_eq!(server.exit_code(), Some(0), "{}", server.logs());
    // Handshakes are given up after 10 s.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn where_clients_have_to_show_certificates_those_of_the_authority_come_in_and_no_others() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let expired = authority.issue_with(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let server =
        launch(&format!("{QUICK}{MUTUAL}"), &authority.issue()).file("ca.pem", &authority.pem()).start();
    let both = [&rustls::version::TLS13, &rustls::version::TLS12];
    on_runtime(async {
        for (shown, comes_in) in [
            (Some(authority.issue()), true),
            (Some(stranger.issue()), false),
            (Some(expired), false),
            (None, false),
        ] {
            for version in both {
                let caller = Caller::with(&authority, shown.as_ref(), &[version]);
                // With TLS 1.3 a client learns only from the answer that it is not wanted.
                let ask = async |address, method, path, body: &str| {
                    let headers = [("content-type", JSON)];
                    caller.call(address).await?.ask(method, path, &headers, body.into()).await
                };
                let asked = [
                    ask(server.http(), "POST", "/", PUSH).await,
                    ask(server.http(), "GET", "/metrics", "").await,
                    ask(server.http(), "GET", "/readyz", "").await,
                    ask(server.otlp_http(), "POST", "/v1/traces", "{}").await,
                ];
                for asked in asked {
                    assert_eq!(asked.as_ref().is_ok_and(|reply| reply.status == 200), comes_in, "{asked:?}");
                }
                let exported = export_grpc(&caller, server.otlp_grpc(), 1).await;
                assert_eq!(exported.is_ok(), comes_in, "{exported:?}");
            }
        }
    });
}

#[test]
fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(), authority.issue());
    let server = launch(&format!("{QUICK}{TLS}"), &first).start();
    let caller = Caller::new(&authority);
    let ask = async |call: &mut Call| {
        let reply = call.ask("POST", "/v1/traces", &[("content-type", JSON)], "{}".into()).await.unwrap();
        assert_eq!(reply.status, 200);
    };
    on_runtime(async {
        let mut old = caller.call(server.otlp_http()).await.unwrap();
        assert_eq!(old.certificate, first.der());
        ask(&mut old).await;
        server.rewrite("certificate.pem", &second.certificate());
        server.rewrite("key.pem", &second.key());
        let mut new = caller.call(server.otlp_http()).await.unwrap();
        while new.certificate != second.der() {
            new = caller.call(server.otlp_http()).await.unwrap();
        }
        ask(&mut new).await;
        ask(&mut old).await;
    });
    assert_eq!(reload_succeeded(&server, "tls"), 1.0);
}

#[test]
fn a_certificate_that_is_of_no_use_changes_nothing_and_shows() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(), authority.issue());
    let server = launch(&format!("{QUICK}{TLS}"), &first).start();
    assert_eq!(reload_succeeded(&server, "tls"), 1.0);
    let shown = || {
        let call = on_runtime(async { Caller::new(&authority).call(server.otlp_http()).await });
        call.unwrap().certificate
    };
    server.rewrite("key.pem", &second.key());
    eventually("it is refused", || reload_succeeded(&server, "tls") == 0.0);
    assert_eq!(shown(), first.der());
    server.remove("key.pem");
    eventually("it is said again", || server.logs().contains("tls.key: cannot read key.pem"));
    assert_eq!(shown(), first.der());
    server.rewrite("key.pem", &second.key());
    server.rewrite("certificate.pem", &second.certificate());
    eventually("it is taken", || reload_succeeded(&server, "tls") == 1.0);
    assert_eq!(shown(), second.der());
    let logs = server.logs();
    // Many looks found it so.
    let said =
        |words: &str| logs.lines().filter(|line| line.contains("ERROR") && line.contains(words)).count();
    assert!((1..=2).contains(&said("is not the key of the certificate")), "{logs}");
    assert!(!logs.contains(second.key().lines().nth(1).unwrap()), "{logs}");
}

#[test]
fn sighup_makes_it_look_at_the_files_too() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(), authority.issue());
    let never = TLS.replace("50ms", "0s");
    let server = launch(&format!("{QUICK}{never}"), &first).start();
    server.rewrite("certificate.pem", &second.certificate());
    server.rewrite("key.pem", &second.key());
    server.signal("HUP");
    eventually("it is taken", || {
        let call = on_runtime(async { Caller::new(&authority).call(server.otlp_http()).await });
        call.unwrap().certificate == second.der()
    });
}

#[test]
fn files_of_no_use_are_told_before_anything_is_served() {
    let authority = Authority::new();
    let (identity, other) = (authority.issue(), authority.issue());
    let tls = "tls: {certificate: certificate.pem, key: key.pem}\n";
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        (tls, "key.pem", &other.key(), &["tls.key: key.pem: this is not the key of the certificate"]),
        (tls, "certificate.pem", "nothing", &["tls.certificate: certificate.pem: there is no certificate"]),
        (
            "tls: {certificate: c.pem, key: key.pem}\n",
            "x",
            "",
            &["tls.certificate: cannot read c.pem", "name a file"],
        ),
        ("tls: {certificate: certificate.pem}\n", "x", "", &["config.yaml:1:7", "set tls.key"]),
        ("tls:\n  key: key.pem\n", "x", "", &["config.yaml:2:3", "set tls.certificate"]),
        ("tls: {client_ca: ca.pem}\n", "x", "", &["config.yaml:1:7", "tls.client_ca", "set tls.certificate"]),
        ("tls: {listeners: [grpc]}\n", "x", "", &["config.yaml:1:", "grpc", "otlp_grpc"]),
        (
            "auth: {read_token_file: readers}\n",
            "readers",
            "short\n",
            &["auth.read_token_file: readers: line 1"],
        ),
        ("auth: {ingest_token_file: no}\n", "x", "", &["auth.ingest_token_file: cannot read no: "]),
    ];
    for (config, name, text, says) in cases {
        for arguments in [&["check", "config.yaml"][..], &["serve"]] {
            let launch = launch(&format!("{config}{PATIENT}"), &identity).file(name, text).args(arguments);
            let finished = launch.run();
            assert_eq!(finished.code, Some(1), "{config}: {finished:?}");
            assert_eq!(finished.stdout, "", "{config}");
            for words in says {
                assert!(finished.stderr.contains(words), "{config}: no {words:?} in {}", finished.stderr);
            }
        }
    }
    let fitting = launch(&format!("{tls}{PATIENT}"), &identity).args(&["check", "config.yaml"]).run();
    assert_eq!(fitting.code, Some(0), "{fitting:?}");
    assert!(fitting.stdout.contains("127.0.0.1:0, TLS\n"), "{fitting:?}");
}

#[test]
fn files_are_looked_for_beside_the_config() {
    let identity = Authority::new().issue();
    let launch = Launch::bare()
        .file("etc/config.yaml", &format!("{PATIENT}{TLS}auth: {{read_token_file: readers}}\n"))
        .file("etc/certificate.pem", &identity.certificate())
        .file("etc/key.pem", &identity.key())
        .file("etc/readers", READ_TOKEN);
    let finished = launch.args(&["check", "etc/config.yaml"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// A server that wants tokens of all, with an address of its own for /metrics or not.
fn server_with_tokens(more: &str) -> Server {
    let launch = Launch::config(&format!("{PATIENT}{TOKENS}{more}")).env("RUST_BACKTRACE", "1");
    let senders = format!("# of today\n{TOKEN}\n\nan0ther-of-those-who-send\n");
    launch.file("senders", &senders).file("readers", READ_TOKEN).start()
}

/// How each way in answers to a token.
fn ask_all(server: &Server, token: Option<&str>) -> (Reply, Reply, Reply, GrpcReply) {
    let authorization = token.map(bearer);
    let with = |content_type: &'static str| {
        let mut headers = vec![("content-type", content_type)];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers
    };
    let push = server.push_with(&with(JSON), PUSH);
    let json = server.post_otlp("/v1/traces", &with(JSON), json_request(&"3".repeat(32), ""));
    let protobuf = request("shop", vec![span(2, 1)]).encode_to_vec();
    let protobuf = server.post_otlp("/v1/traces", &with(PROTOBUF), protobuf);
    let message = frame(false, &request("shop", vec![span(1, 1)]).encode_to_vec());
    let headers: Vec<_> =
        authorization.as_deref().map(|value| ("authorization", value)).into_iter().collect();
    (push, json, protobuf, grpc_raw(server.otlp_grpc(), EXPORT, &headers, message))
}

#[test]
fn who_sends_shows_a_token_by_every_way_in() {
    let server = server_with_tokens("");
    let wrong = [None, Some("wr0ng-of-those-who-send"), Some(READ_TOKEN), Some("")];
    for token in wrong {
        let (push, json, protobuf, grpc) = ask_all(&server, token);
        for reply in [&push, &json, &protobuf] {
            assert_eq!(
                (reply.status, reply.header("www-authenticate")),
                (401, "Bearer"),
                "{token:?} {reply:?}"
            );
        }
        assert_eq!(push.json()["retryable"], json!(false));
        assert!(push.json()["error"].as_str().unwrap().contains("token"));
        assert_eq!((json.header("content-type"), &json.json()["code"]), (JSON, &json!(16)));
        let status = tonic_types::Status::decode(&*protobuf.body).unwrap();
        assert_eq!((protobuf.header("content-type"), status.code), (PROTOBUF, 16));
        assert_eq!((grpc.http_status, grpc.code), (200, 16), "{grpc:?}");
        assert!(grpc.message.contains("token") && status.message.contains("token"));
    }
    let of = |name: &str, label: &str, value: &str| scrape(&server).sum(name, &[(label, value)]);
    assert_eq!(of("latency_aggregator_requests_total", "code", "401"), 3.0 * wrong.len() as f64);
    assert_eq!(of("latency_aggregator_requests_total", "code", "16"), wrong.len() as f64);
    assert_eq!(scrape(&server).sum("latency_aggregator_events_received_total", &[]), 0.0);
    for token in [TOKEN, "an0ther-of-those-who-send"] {
        let (push, json, protobuf, grpc) = ask_all(&server, Some(token));
        assert_eq!((push.status, json.status, protobuf.status, grpc.code), (200, 200, 200, 0));
    }
    for transport in ["push", "http_json", "http_protobuf", "grpc"] {
        assert_eq!(of("latency_aggregator_events_received_total", "transport", transport), 2.0);
    }
}

/// The metrics page, for those who may read it.
fn scrape(server: &Server) -> support::exposition::Page {
    let reply = server.ask("GET", "/metrics", &[("authorization", &bearer(READ_TOKEN))]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    support::exposition::Page::parse(&reply.text())
}

#[test]
fn who_reads_shows_another_token_and_health_is_open() {
    let apart = "listen: {http: '127.0.0.1:0', metrics: '127.0.0.1:0', otlp_grpc: null, otlp_http: null}\n";
    let apart =
        Launch::config(&format!("{apart}{TOKENS}")).file("senders", TOKEN).file("readers", READ_TOKEN);
    let (apart, together) = (apart.start(), server_with_tokens(""));
    for address in [together.http(), apart.address_of("listen.metrics").unwrap()] {
        let get = |path: &str, headers: &[(&str, &str)]| {
            send(&client(), "GET", &format!("http://{address}{path}"), headers, Vec::new())
        };
        for path in ["/metrics", "/api/flows", "/api/flows/order/1"] {
            for headers in [vec![], vec![("authorization", bearer(TOKEN))]] {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let reply = get(path, &headers);
                assert_eq!((reply.status, reply.header("www-authenticate")), (401, "Bearer"), "{path}");
                assert!(reply.text().contains("auth.read_token_file"), "{}", reply.text());
            }
            let reply = get(path, &[("authorization", &bearer(READ_TOKEN))]);
            assert_ne!(reply.status, 401, "{path}");
        }
        for path in ["/health", "/livez", "/readyz"] {
            assert_eq!(get(path, &[]).status, 200, "{path}");
        }
        let page = get("/metrics", &[("authorization", &bearer(READ_TOKEN))]).text();
        assert!(page.contains("latency_aggregator_reads_unauthenticated_total 6\n"), "{page}");
    }
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(apart.get(path).status, 200, "{path} at the address of pushes");
    }
}

#[test]
fn tokens_are_changed_while_it_runs() {
    let server = server_with_tokens("");
    let is_admitted = |token: &str| {
        let (push, json, protobuf, grpc) = ask_all(&server, Some(token));
        let admitted = [push.status, json.status, protobuf.status].map(|status| status == 200);
        let admitted = [&admitted[..], &[grpc.code == 0]].concat();
        admitted.iter().all(|admitted| *admitted)
    };
    let succeeded = |secret: &str| {
        scrape(&server).sum("latency_aggregator_secrets_last_reload_successful", &[("secret", secret)])
    };
    let new = "n3w-of-those-who-send";
    server.rewrite("senders", &format!("{TOKEN}\n{new}\n"));
    eventually("the new one is taken", || is_admitted(new));
    assert!(is_admitted(TOKEN), "both are good for a while");
    server.rewrite("senders", new);
    eventually("the old one is of no use any more", || !is_admitted(TOKEN));
    server.rewrite("senders", "short\n");
    eventually("that is refused", || succeeded("ingest_tokens") == 0.0);
    assert!(is_admitted(new) && !is_admitted("short"));
    server.remove("senders");
    eventually("that is said", || server.logs().contains("auth.ingest_token_file: cannot read senders"));
    assert!(is_admitted(new));
    assert_eq!((succeeded("ingest_tokens"), succeeded("read_tokens")), (0.0, 1.0));
    server.rewrite("senders", new);
    eventually("all is well again", || succeeded("ingest_tokens") == 1.0);
}

#[test]
fn nothing_is_read_of_a_request_before_its_token() {
    let server = server_with_tokens("");
    for (address, path) in [(server.http(), "/"), (server.otlp_http(), "/v1/traces")] {
        let mut wire = Wire::connect(address);
        // Whose body never comes.
        wire.write(format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        ));
        assert_eq!(wire.read_reply().status, 401, "{path}");
    }
}

#[test]
fn browsers_may_ask_before_they_send_their_token() {
    let cors = "listen: {http: '127.0.0.1:0', otlp_grpc: null, otlp_http: '127.0.0.1:0', cors_origins: ['https://shop.example']}\n";
    let server =
        Launch::config(&format!("{cors}{TOKENS}")).file("senders", TOKEN).file("readers", READ_TOKEN);
    let server = server.start();
    let url = format!("http://{}/v1/traces", server.otlp_http());
    let origin = ("origin", "https://shop.example");
    let preflight = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let asked = send(&client(), "OPTIONS", &url, &preflight, Vec::new());
    assert_eq!(asked.status, 200, "{asked:?}");
    assert!(asked.header("access-control-allow-headers").contains("authorization"), "{asked:?}");
    for (token, status) in [(TOKEN, 200), ("wr0ng-of-those-who-send", 401)] {
        let headers = [origin, ("content-type", JSON), ("authorization", &bearer(token))];
        let reply = server.post_otlp("/v1/traces", &headers, "{}");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, origin.1));
    }
}

#[test]
fn secrets_are_neither_logged_nor_shown() {
    let identity = Authority::new().issue();
    let config = format!("{PATIENT}{TOKENS}log: {{level: trace}}\n");
    let start = || {
        let launch = launch(
            &format!("{config}tls: {{certificate: certificate.pem, key: key.pem, listeners: [otlp_http]}}\n"),
            &identity,
        );
        launch.file("senders", TOKEN).file("readers", READ_TOKEN)
    };
    let server = start().start();
    for token in [TOKEN, "wr0ng-of-those-who-send"] {
        let headers = [("content-type", JSON), ("authorization", &*bearer(token))];
        server.push_with(&headers, PUSH);
        grpc_raw(server.otlp_grpc(), EXPORT, &headers[1..], frame(false, &[]));
    }
    server.rewrite("senders", "n3w-of-those-who-send\nbad");
    eventually("that is refused", || server.logs().contains("auth.ingest_token_file"));
    let page = scrape(&server);
    let checked = start().args(&["check", "config.yaml"]).run();
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let said =
        format!("{}{:?}{}{}{page:?}", server.logs(), server.start_up(), checked.stdout, checked.stderr);
    let key = identity.key();
    let secrets = [TOKEN, READ_TOKEN, "n3w-of", "wr0ng-of", key.lines().nth(1).unwrap()];
    for secret in secrets {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn what_is_open_to_everybody_is_warned_of_at_the_start() {
    let wide = "listen: {http: '0.0.0.0:0', otlp_grpc: '127.0.0.1:0', otlp_http: null}\n";
    let server = Launch::config(wide).start();
    let warned = |words: &str| {
        let logs = server.logs();
        logs.lines().any(|line| line.contains("WARN") && line.contains(words))
    };
    eventually("senders", || warned("auth.ingest_token_file"));
    eventually("readers", || warned("auth.read_token_file"));
    assert!(!server.logs().contains("otlp_grpc"), "{}", server.logs());
    let checked = Launch::config(wide).args(&["check", "config.yaml"]).run();
    assert!(checked.stdout.contains("warning: whoever can reach 0.0.0.0:0 may send"), "{checked:?}");
    let checked = Launch::config(PATIENT).args(&["check", "config.yaml"]).run();
    assert!(!checked.stdout.contains("whoever"), "{checked:?}");
}

#[test]
fn our_own_clients_speak_tls_and_show_tokens() {
    let authority = Authority::new();
    let config = "\
listen: {http: '127.0.0.1:0', otlp_grpc: '127.0.0.1:0', otlp_http: '127.0.0.1:0'}
tls: {certificate: certificate.pem, key: key.pem}
auth: {ingest_token_file: tokens, read_token_file: tokens}
";
    let server = launch(config, &authority.issue()).file("tokens", TOKEN).start();
    let run = |arguments: &[&str]| {
        let client = Launch::bare().file("ca.pem", &authority.pem()).file("tokens", TOKEN);
        client.file("other.pem", &Authority::new().pem()).args(arguments).run()
    };
    let http = format!("https://{}", server.http());
    let push = ["push", "--url", &http, "--id", "1", "--name", "order"];
    let shown = ["--ca", "ca.pem", "--token-file", "tokens"];
    let finished = run(&[&push[..], &shown].concat());
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for (arguments, says) in [
        (&["--ca", "ca.pem"][..], "401"),
        (&[], "--ca FILE"),
        (&["--ca", "other.pem"], "no TLS connection to"),
        (&["--ca", "tokens"], "--ca: tokens: there is no certificate in it"),
        (&["--ca", "ca.pem", "--token-file", "none"], "--token-file: cannot read none"),
    ] {
        let finished = run(&[&push[..], arguments].concat());
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(says), "no {says:?} in {}", finished.stderr);
    }
    let metrics = format!("{http}/metrics");
    for (protocol, address) in
        [("grpc", server.otlp_grpc()), ("http", server.otlp_http()), ("push", server.http())]
    {
        let url = format!("https://{address}");
        let load =
            ["load", "--protocol", protocol, "--url", &url, "--metrics", &metrics, "--duration", "200ms"];
        let finished = run(&[&load[..], &shown].concat());
        assert_eq!(finished.code, Some(0), "{protocol}: {finished:?}");
        assert!(!finished.stdout.contains("refused"), "{finished:?}");
    }
}

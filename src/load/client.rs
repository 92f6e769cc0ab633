//! One connection to a receiver, and what it answers.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TE};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::Protocol;
use crate::tls::client::{Credentials, Stream, connect};

/// Where and how to send.
#[derive(Debug)]
pub(super) struct Target {
    uri: Uri,
    authority: String,
    protocol: Protocol,
    gzip: bool,
    credentials: Credentials,
}

/// What a receiver said to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It took it.
    Accepted {
        /// But not so many of its events.
        rejected: u64,
    },
    /// It did not: the status.
    Refused(String),
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Many(http2::SendRequest<Full<Bytes>>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    target: Arc<Target>,
    sender: Sender,
}

impl Target {
    /// The usual path of the protocol, unless `url` names another one.
    pub(super) fn new(
        url: &str,
        protocol: Protocol,
        gzip: bool,
        credentials: &Credentials,
    ) -> anyhow::Result<Self> {
        let wrong = || format!("--url: {url:?} is no URL such as http://127.0.0.1:4317");
        let uri: Uri = url.parse().with_context(wrong)?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let (scheme, authority) = scheme.zip(uri.authority()).with_context(wrong)?;
        let authority = authority.to_string();
        let usual = match protocol {
            Protocol::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Protocol::Http => "/v1/traces",
            Protocol::Push => "/",
        };
        let path = if uri.path() == "/" { usual } else { uri.path() };
        let uri = format!("{scheme}://{authority}{path}").parse().with_context(wrong)?;
        Ok(Target { uri, authority, protocol, gzip, credentials: credentials.clone() })
    }

    fn request(&self, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = if self.gzip { compress(&body)? } else { body };
        let mut builder = Request::builder().method(Method::POST);
        builder = match self.protocol {
            Protocol::Grpc => {
                let builder = builder.uri(&self.uri).version(Version::HTTP_2).header(TE, "trailers");
                let builder = builder.header(CONTENT_TYPE, "application/grpc");
                if self.gzip { builder.header("grpc-encoding", "gzip") } else { builder }
            }
            Protocol::Http | Protocol::Push => {
                let is_push = self.protocol == Protocol::Push;
                let content = if is_push { "application/json" } else { "application/x-protobuf" };
                let builder = builder.uri(self.uri.path()).header(HOST, &self.authority);
                let builder = builder.header(CONTENT_TYPE, content);
                if self.gzip { builder.header(CONTENT_ENCODING, "gzip") } else { builder }
            }
        };
        let body = if self.protocol == Protocol::Grpc { framed(&body, self.gzip) } else { body };
        let mut request = builder.body(Full::new(body))?;
        self.credentials.sign(request.headers_mut());
        Ok(request)
    }

    async fn connect(&self) -> anyhow::Result<TokioIo<Box<dyn Stream>>> {
        let protocol: &[u8] = if self.protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
        Ok(TokioIo::new(connect(&self.uri, self.credentials.trust.as_ref(), protocol).await?))
    }
}

/// A message as gRPC frames it: whether it is compressed, its length, and the message.
fn framed(message: &[u8], is_compressed: bool) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(u8::from(is_compressed));
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

impl Connection {
    /// Connects.
    pub(super) async fn open(target: Arc<Target>) -> anyhow::Result<Self> {
        let io = target.connect().await?;
        let sender = if target.protocol == Protocol::Grpc {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            // Ends with its sender.
            tokio::spawn(connection);
            Sender::Many(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Sender::One(sender)
        };
        Ok(Connection { target, sender })
    }

    /// The same connection for one more sender; none if it takes one request at a time.
    pub(super) fn another(&self) -> Option<Connection> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Many(sender) => {
                Some(Connection { target: Arc::clone(&self.target), sender: Sender::Many(sender.clone()) })
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn send(&mut self, body: Bytes) -> anyhow::Result<Answer> {
        let request = self.target.request(body)?;
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Many(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        read(response, self.target.protocol).await
    }
}

async fn read(response: Response<hyper::body::Incoming>, protocol: Protocol) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = body.to_bytes();
    if !head.status.is_success() {
        return Ok(Answer::Refused(head.status.as_str().to_owned()));
    }
    let message = match protocol {
        Protocol::Push => return Ok(Answer::Accepted { rejected: 0 }),
        Protocol::Http => body,
        Protocol::Grpc => {
            let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
            let status = status.and_then(|status| status.to_str().ok()).unwrap_or("none");
            if status != "0" {
                return Ok(Answer::Refused(format!("grpc-status {status}")));
            }
            body.slice(body.len().min(5)..)
        }
    };
    let answer = ExportTraceServiceResponse::decode(message).context("the answer is no OTLP response")?;
    let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
    Ok(Answer::Accepted { rejected: rejected.max(0).cast_unsigned() })
}

/// The text behind a URL.
pub(super) async fn fetch(url: &str, credentials: &Credentials) -> anyhow::Result<String> {
    let target = Target::new(url, Protocol::Push, false, credentials)?;
    let (mut sender, connection) = http1::handshake(target.connect().await?).await?;
    tokio::spawn(connection);
    let mut request =
        Request::get(target.uri.path()).header(HOST, &target.authority).body(Full::<Bytes>::default())?;
    credentials.sign(request.headers_mut());
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success(), "{url} answers {status}");
    Ok(String::from_utf8_lossy(&body).into_owned())
}

//! Certificates made for a test, and clients that speak TLS and tell what they saw.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Reply;

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this machine, as server and as client.
    pub(crate) fn issue(&self) -> Identity {
        self.issue_with(|_| {})
    }

    pub(crate) fn issue_with(&self, change: impl Fn(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { certificate, key }
    }
}

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Identity {
    pub(crate) fn certificate(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }
}

/// How a client calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller(ClientConfig);

impl Caller {
    /// One that trusts this authority only, shows no certificate and speaks HTTP/1.1.
    pub(crate) fn new(trusted: &Authority) -> Caller {
        Caller::with(trusted, None, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub(crate) fn with(
        trusted: &Authority,
        shown: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Caller {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.0.der().clone()).expect("a certificate of an authority");
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.expect("versions that the provider has");
        let builder = builder.with_webpki_verifier(verifier.build().expect("a trusted authority"));
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                let chain = vec![identity.certificate.der().clone()];
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        Caller(config).speaking(&[b"http/1.1"])
    }

    pub(crate) fn speaking(mut self, protocols: &[&[u8]]) -> Caller {
        self.0.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(self.0.clone())).connect(name, stream).await
    }

    /// A connection on which requests can be sent one after the other.
    pub(crate) async fn call(&self, address: SocketAddr) -> Result<Call, String> {
        let stream = self.connect(address).await.map_err(|error| error.to_string())?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.expect("a server shows a certificate").to_vec();
        let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
        let sender = if protocol == b"h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(Call { address, certificate, protocol, sender })
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection over TLS.
pub(crate) struct Call {
    address: SocketAddr,
    /// The server's, as DER.
    pub certificate: Vec<u8>,
    /// What was agreed upon by ALPN.
    pub protocol: Vec<u8>,
    sender: Sender,
}

impl Call {
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply, String> {
        self.ask("GET", path, &[], Vec::new()).await
    }

    /// One request and its answer, or why there is none.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, String> {
        let is_http2 = matches!(self.sender, Sender::Http2(_));
        let uri = if is_http2 { format!("https://{}{path}", self.address) } else { path.to_owned() };
        let mut request = http::Request::builder().method(method).uri(uri);
        if !is_http2 {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|error| error.to_string())?;
                sender.send_request(request).await
            }
        };
        let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

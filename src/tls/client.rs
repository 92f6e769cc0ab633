//! The other side: connections of our own clients, over TLS where the URL says so.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{SUITES, VERSIONS, authorities, provider};
use crate::secrets::{SecretError, SecretFile, read_all};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL names no host, or nothing that we speak.
    #[error("{0:?} is no URL such as http://127.0.0.1:7070")]
    Url(String),
    /// Nothing is trusted.
    #[error("https needs --ca FILE: the certificates of the authorities that may have signed the server's")]
    NoAuthority,
    /// The host does not answer.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// It is not who it should be, or does not speak TLS.
    #[error("no TLS connection to {0}")]
    Handshake(String, #[source] std::io::Error),
}

/// A connection, over TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whom a client trusts, and what it shows of itself.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Whom, where the URL says https.
    pub trust: Option<Trust>,
    /// The header of that name; its Debug does not show it.
    pub authorization: Option<HeaderValue>,
}

impl Credentials {
    /// Adds to a request what it shows.
    pub fn sign(&self, headers: &mut HeaderMap) {
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
    }
}

/// Whom a client trusts.
#[derive(Debug, Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Those whose certificates a file holds, and nobody else.
    pub fn open(path: PathBuf) -> Result<Self, SecretError> {
        let contents = read_all(&[SecretFile { setting: "--ca", path }])?;
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&VERSIONS).expect(SUITES);
        let builder = builder.with_root_certificates(authorities(&contents[0])?);
        Ok(Trust(Arc::new(builder.with_no_client_auth())))
    }

    /// The same for connections that speak `protocol`.
    fn speaking(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

/// Connects to the host of an `http` or `https` URL to speak `protocol`, as ALPN names it.
pub async fn connect(
    uri: &Uri,
    trust: Option<&Trust>,
    protocol: &[u8],
) -> Result<Box<dyn Stream>, ConnectError> {
    let wrong = || ConnectError::Url(uri.to_string());
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    let trust = if is_tls { Some(trust.ok_or(ConnectError::NoAuthority)?) } else { None };
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let failed = |error| ConnectError::Connect(authority.to_string(), error);
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(trust) = trust else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    let handshake = TlsConnector::from(trust.speaking(protocol)).connect(name, stream);
    let stream = handshake.await.map_err(|error| ConnectError::Handshake(authority.to_string(), error))?;
    Ok(Box::new(stream))
}

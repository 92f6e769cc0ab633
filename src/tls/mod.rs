//! TLS of the addresses that are listened on: a certificate that is taken anew when its files change, and, where an
//! authority for clients is set, certificates of clients.
//!
//! Knows sockets, not routes. Invariant: a certificate that is of no use never takes the place of one that is, and a
//! connection goes on with what it began with.

pub mod client;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::FailedHandshake;
use crate::pipeline::Pipeline;
use crate::secrets::{Content, Followed, SecretError, SecretFile};

/// How long a client may take from its connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is spoken over TLS: gRPC needs the first, everything else takes either.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Older ones are broken.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Where certificate and key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and behind it those between it and one that clients trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Those that clients' certificates have to be signed by; without them clients need none.
    pub client_ca: Option<PathBuf>,
}

impl Files {
    fn list(&self) -> Vec<SecretFile> {
        let file = |setting, path: &PathBuf| SecretFile { setting, path: path.clone() };
        let mut files = vec![file("tls.certificate", &self.certificate), file("tls.key", &self.key)];
        files.extend(self.client_ca.as_ref().map(|path| file("tls.client_ca", path)));
        files
    }
}

/// Reads the files and says whether they fit.
pub fn check(files: &Files) -> Result<(), SecretError> {
    server_config(&crate::secrets::read_all(&files.list())?).map(drop)
}

/// What a connection needs to become one over TLS.
#[derive(Debug)]
pub struct Tls {
    config: Arc<Followed<ServerConfig>>,
    pipeline: Arc<Pipeline>,
}

/// A connection did not become one over TLS.
#[derive(Debug, ThisError)]
pub enum HandshakeError {
    /// The client took too long.
    #[error("the TLS handshake was not done within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    /// It went away, or client and server do not agree.
    #[error("the TLS handshake failed: {0}")]
    Failed(#[source] std::io::Error),
}

impl HandshakeError {
    fn kind(&self) -> FailedHandshake {
        let left = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        match self {
            HandshakeError::Timeout => FailedHandshake::Timeout,
            HandshakeError::Failed(error) if left.contains(&error.kind()) => FailedHandshake::Left,
            HandshakeError::Failed(_) => FailedHandshake::Refused,
        }
    }
}

impl Tls {
    /// Reads the files for the first time.
    pub fn open(files: &Files, pipeline: Arc<Pipeline>) -> Result<Self, SecretError> {
        let config = Arc::new(Followed::open("tls", files.list(), server_config)?);
        Ok(Tls { config, pipeline })
    }

    /// What has to be looked at now and then, so that a changed certificate is taken.
    pub fn followed(&self) -> Arc<Followed<ServerConfig>> {
        Arc::clone(&self.config)
    }

    /// The handshake, with the certificate that is in force now. One that fails is counted.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let handshake = TlsAcceptor::from(self.config.in_force()).accept(stream);
        let accepted = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(accepted) => accepted.map_err(HandshakeError::Failed),
            Err(_) => Err(HandshakeError::Timeout),
        };
        accepted.inspect_err(|error| self.pipeline.metrics().handshake_failed(error.kind()))
    }
}

/// The provider is named wherever one is needed: a default of the whole process could be set by any crate in it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Holds for [`provider`] and [`VERSIONS`].
const SUITES: &str = "the provider has cipher suites for both versions";

/// `contents` are of the files that `Files::list` names.
fn server_config(contents: &[Content]) -> Result<ServerConfig, SecretError> {
    let (certificate, key) = (&contents[0], &contents[1]);
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&VERSIONS).expect(SUITES);
    let builder = match contents.get(2) {
        Some(authorities) => builder.with_client_cert_verifier(client_verifier(authorities)?),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(certificates(certificate)?, private_key(key)?);
    let mut config = config.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.unusable(format!(
            "this is not the key of the certificate in {} (tls.certificate), whose first one has to be the server's own",
            certificate.file.path.display()
        )),
        Error::InvalidCertificate(error) => certificate.unusable(format!("no usable certificate: {error:?}")),
        _ => key.unusable("no usable private key: RSA of at least 2048 bits, ECDSA (P-256, P-384) or Ed25519 is wanted"),
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// All certificates of a PEM file, at least one.
fn certificates(content: &Content) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.bytes).collect();
    // What a parser says of a file may repeat what is in it.
    let certificates = read.map_err(|_| content.unusable("the file is no valid PEM"))?;
    if certificates.is_empty() {
        return Err(content.unusable("there is no certificate in it (PEM, BEGIN CERTIFICATE)"));
    }
    Ok(certificates)
}

fn private_key(content: &Content) -> Result<PrivateKeyDer<'static>, SecretError> {
    PrivateKeyDer::from_pem_slice(&content.bytes).map_err(|_| {
        let is_encrypted = String::from_utf8_lossy(&content.bytes).contains("ENCRYPTED");
        content.unusable(if is_encrypted {
            "the private key is encrypted: decrypt it, with `openssl pkey -in KEY -out PLAIN`"
        } else {
            "there is no private key in it (PEM, BEGIN PRIVATE KEY)"
        })
    })
}

fn authorities(content: &Content) -> Result<RootCertStore, SecretError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(content)? {
        let added = roots.add(certificate);
        added.map_err(|error| content.unusable(format!("no usable certificate of an authority: {error}")))?;
    }
    Ok(roots)
}

fn client_verifier(content: &Content) -> Result<Arc<dyn ClientCertVerifier>, SecretError> {
    let builder = WebPkiClientVerifier::builder_with_provider(authorities(content)?.into(), provider());
    builder.build().map_err(|error| content.unusable(error.to_string()))
}

#[cfg(test)]
mod tests;

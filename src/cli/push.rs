//! `push`: sends one event to a running aggregator.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::tls::client::{Credentials, connect};

/// How long sending and answering may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Sends `push` to `url`; succeeds if it was accepted.
pub(super) async fn run(url: &str, credentials: &Credentials, push: &Value) -> anyhow::Result<()> {
    let sent = tokio::time::timeout(TIMEOUT, send(url, credentials, push)).await;
    let (status, body) = sent.map_err(|_| anyhow!("{url} did not answer within {TIMEOUT:?}"))??;
    let reply: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        let reason = reply["error"]
            .as_str()
            .map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
        bail!("the event was refused ({status}): {reason}");
    }
    for warning in reply["warnings"].as_array().into_iter().flatten() {
        print_warning(warning.as_str().unwrap_or_default());
    }
    Ok(())
}

async fn send(
    url: &str,
    credentials: &Credentials,
    push: &Value,
) -> anyhow::Result<(http::StatusCode, Bytes)> {
    let wrong = || format!("--url: {url:?} is no URL such as http://127.0.0.1:7070");
    let uri: Uri = url.parse().with_context(wrong)?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().filter(|_| is_known).with_context(wrong)?;
    let stream = connect(&uri, credentials.trust.as_ref(), b"http/1.1").await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, which ends with this function.
    tokio::spawn(connection);
    let mut request = Request::post(uri.path())
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(push.to_string())))?;
    credentials.sign(request.headers_mut());
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

fn print_warning(warning: &str) {
    use std::io::Write;
    // Nothing can be done when standard error is gone.
    writeln!(std::io::stderr(), "warning: {warning}").unwrap_or_default();
}

//! Bearer tokens: who may send, and who may read.
//!
//! Knows headers, not what is behind them. Invariant: nothing of a request but its head is looked at before its token is
//! found to be one of ours, and a token is neither kept nor compared as text.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq};

use crate::secrets::{Content, Followed, SecretError, SecretFile};

/// The shortest token: 16 random characters are beyond guessing.
const MIN_TOKEN_BYTES: usize = 16;
/// Tokens of one file: each is compared with each request's.
const MAX_TOKENS: usize = 100;

/// Tokens that are accepted, as digests: all are of one length, and none can be shown.
pub struct Tokens(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Reads the tokens of a file for the first time.
pub fn open(name: &'static str, file: SecretFile) -> Result<Followed<Tokens>, SecretError> {
    Followed::open(name, vec![file], tokens)
}

/// Reads a file of tokens and says whether it is of use.
pub fn check(file: &SecretFile) -> Result<(), SecretError> {
    tokens(&crate::secrets::read_all(std::slice::from_ref(file))?).map(drop)
}

/// What a client says that sends the first token of a file. Its Debug does not show it.
pub fn authorization(file: SecretFile) -> Result<HeaderValue, SecretError> {
    let contents = crate::secrets::read_all(&[file])?;
    let lines = lines(&contents[0])?;
    let (_, token) = lines.first().ok_or_else(|| contents[0].unusable(NO_TOKEN))?;
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| contents[0].unusable("its first token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

const NO_TOKEN: &str = "there is no token in it: write one a line, such as from `openssl rand -hex 32`";

/// The lines of a file that hold tokens, with their numbers.
fn lines(content: &Content) -> Result<Vec<(usize, &str)>, SecretError> {
    let text = std::str::from_utf8(&content.bytes).map_err(|_| content.unusable("the file is no text"))?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

/// `contents` is one file: a token a line; empty lines and those that begin with # are skipped.
fn tokens(contents: &[Content]) -> Result<Tokens, SecretError> {
    let content = &contents[0];
    let lines = lines(content)?;
    for (number, token) in &lines {
        if token.len() < MIN_TOKEN_BYTES {
            let problem = format!(
                "line {number}: a token has at least {MIN_TOKEN_BYTES} characters; `openssl rand -hex 32` makes one"
            );
            return Err(content.unusable(problem));
        }
        // No client could send it.
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem =
                format!("line {number}: a token is made of ASCII letters, digits and signs, without spaces");
            return Err(content.unusable(problem));
        }
    }
    if lines.is_empty() {
        return Err(content.unusable(NO_TOKEN));
    }
    if lines.len() > MAX_TOKENS {
        return Err(
            content.unusable(format!("{} tokens are more than the {MAX_TOKENS} allowed", lines.len()))
        );
    }
    Ok(Tokens(lines.iter().map(|(_, token)| fingerprint(token.as_bytes())).collect()))
}

fn fingerprint(token: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    digest(&SHA256, token).as_ref().try_into().expect("SHA-256 has as many bytes")
}

impl Tokens {
    /// Whether a request carries one of the tokens. Takes as long whichever of them it is, and whether it is one.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(token) = bearer(headers) else { return false };
        let token = fingerprint(token);
        let matches = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&token));
        matches.into()
    }
}

/// The token of `authorization: Bearer TOKEN`; the scheme may be in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// The routes of `router` for requests that carry one of the tokens; `refuse` answers all others.
pub fn guard(
    router: Router,
    tokens: Arc<Followed<Tokens>>,
    refuse: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static,
) -> Router {
    router.route_layer(from_fn(move |request: Request, next: Next| {
        let is_ours = tokens.in_force().admit(request.headers());
        let refused = (!is_ours).then(|| refuse(&request));
        async move {
            let Some(refused) = refused else { return next.run(request).await };
            throw_away(request.into_body()).await;
            refused
        }
    }))
}

/// Reads what of a small body is on its way: a client whose stream is reset while it sends may never see the answer.
async fn throw_away(mut body: Body) {
    const MOST_BYTES: usize = 64 * 1024;
    const MOST_TIME: Duration = Duration::from_secs(1);
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len());
            if read > MOST_BYTES {
                return;
            }
        }
    };
    // Whoever is slower than that has to do without.
    tokio::time::timeout(MOST_TIME, reading).await.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Tokens, String> {
        let file = SecretFile { setting: "auth.ingest_token_file", path: "tokens".into() };
        let content = Content { file, bytes: text.as_bytes().to_vec() };
        tokens(&[content]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_needs_one_of_the_tokens() {
        let tokens = read("# of today\n0123456789abcdef\n\n  fedcba9876543210  \n").unwrap();
        for (header, expected) in [
            (Some("Bearer 0123456789abcdef"), true),
            (Some("bearer fedcba9876543210"), true),
            (Some("BEARER  fedcba9876543210 "), true),
            (Some("Bearer 0123456789abcde"), false),
            (Some("Bearer 0123456789abcdef0"), false),
            (Some("Bearer 0123456789ABCDEF"), false),
            (Some("Bearer # of today"), false),
            (Some("Bearer "), false),
            (Some("Bearer"), false),
            (Some("Basic 0123456789abcdef"), false),
            (Some("0123456789abcdef"), false),
            (Some(""), false),
            (None, false),
        ] {
            let header = header.map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            assert_eq!(tokens.admit(&header.clone().into_iter().collect()), expected, "{header:?}");
        }
    }

    #[test]
    fn a_file_that_protects_nothing_is_refused_without_telling_what_is_in_it() {
        for (text, says) in [
            ("", "no token in it"),
            ("# 0123456789abcdef\n", "no token in it"),
            ("0123456789abcdef\nhush-hush\n", "line 2: a token has at least 16"),
            ("hush-hush hush-hush hush-hush\n", "line 1: a token is made of"),
            ("hüsch-hüsch-hüsch-hüsch\n", "line 1: a token is made of"),
            (&"0123456789abcdef\n".repeat(101), "101 tokens are more than the 100"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("auth.ingest_token_file: tokens: ") && error.contains(says), "{error}");
            assert!(!error.contains("hush") && !error.contains("0123"), "{error}");
        }
    }

    #[test]
    fn tokens_cannot_be_shown() {
        assert_eq!(format!("{:?}", read("0123456789abcdef\n").unwrap()), "***");
    }
}

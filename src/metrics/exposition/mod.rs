//! The formats in which a scrape can be had, and which of them a client wants.
//!
//! Knows the snapshot and nothing else. Invariant: all formats are written from the same values, and a bucket bound is
//! spelled the same way in all that spell it. What a client sends never comes back in a header.

mod negotiation;
mod openmetrics;
mod pieces;
mod protobuf;
mod text;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::snapshot::Family;
pub use pieces::PIECE_BYTES;
use pieces::Pieces;

/// A format, and how names are written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    syntax: Syntax,
    escaping: Escaping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// Prometheus text 0.0.4, which every client can read.
    Text,
    /// Prometheus text 1.0.0, which differs in the content type.
    TextOne,
    OpenMetrics,
    Protobuf,
}

/// How names are written that are not plain. All of ours are, and stay as they are in each of these schemes, as with
/// Prometheus' own client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escaping {
    AllowUtf8,
    Underscores,
    Dots,
    Values,
}

impl Format {
    /// Prometheus text 0.0.4.
    pub const TEXT: Format = Format { syntax: Syntax::Text, escaping: Escaping::Underscores };

    /// The best format among those that an `Accept` header asks for; text 0.0.4 if there is none.
    pub fn negotiate(accept: &str) -> Format {
        negotiation::best(accept)
    }

    /// The exact content type, without which Prometheus 3 fails the scrape.
    pub fn content_type(self) -> String {
        let base = match self.syntax {
            Syntax::Text => return "text/plain; version=0.0.4; charset=utf-8".to_owned(),
            Syntax::TextOne => "text/plain; version=1.0.0; charset=utf-8",
            Syntax::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Syntax::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        format!("{base}; escaping={}", self.escaping.as_str())
    }

    /// Writes all families. Pieces of text have [`PIECE_BYTES`] as far as possible, others may have any length.
    pub fn render(self, families: &[Family]) -> Vec<Bytes> {
        let mut page = Pieces::default();
        match self.syntax {
            Syntax::Text | Syntax::TextOne => text::render(families, &mut page),
            Syntax::OpenMetrics => openmetrics::render(families, &mut page),
            Syntax::Protobuf => return vec![protobuf::render(families).into()],
        }
        page.finish()
    }
}

/// Prometheus text 0.0.4, for people.
pub fn text(families: &[Family]) -> String {
    let page = Format::TEXT.render(families);
    page.iter().map(|piece| String::from_utf8_lossy(piece)).collect()
}

impl Escaping {
    const ALL: [Escaping; 4] = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];

    fn as_str(self) -> &'static str {
        match self {
            Escaping::AllowUtf8 => "allow-utf-8",
            Escaping::Underscores => "underscores",
            Escaping::Dots => "dots",
            Escaping::Values => "values",
        }
    }
}

//! Reading `Accept`, by the rules of Prometheus' content negotiation.
//! <https://prometheus.io/docs/instrumenting/content_negotiation/>

use super::{Escaping, Format, Syntax};

/// The best format that `accept` asks for. Of equally wanted ones the one that is named first.
pub(super) fn best(accept: &str) -> Format {
    let mut best: Option<(Format, f32)> = None;
    for range in accept.split(',').filter_map(parse) {
        if range.1 > 0.0 && best.is_none_or(|(_, quality)| range.1 > quality) {
            best = Some(range);
        }
    }
    best.map_or(Format::TEXT, |(format, _)| format)
}

/// A media range that can be answered, and how much it is wanted.
fn parse(range: &str) -> Option<(Format, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let parameters: Vec<(String, String)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()))
        .collect();
    let get =
        |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let syntax = match media_type.as_str() {
        "application/vnd.google.protobuf" => {
            let is_ours = get("proto").is_none_or(|proto| proto == "io.prometheus.client.MetricFamily");
            let is_delimited = get("encoding").is_none_or(|encoding| encoding == "delimited");
            (is_ours && is_delimited).then_some(Syntax::Protobuf)
        }
        // The oldest version where none is asked for; 0.0.1 was a draft of 1.0.0.
        "application/openmetrics-text" => {
            matches!(get("version"), None | Some("1.0.0" | "0.0.1")).then_some(Syntax::OpenMetrics)
        }
        "text/plain" => match get("version") {
            None | Some("0.0.4") => Some(Syntax::Text),
            Some("1.0.0") => Some(Syntax::TextOne),
            Some(_) => None,
        },
        "text/*" | "*/*" => Some(Syntax::Text),
        _ => None,
    }?;
    let quality = get("q").map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
    let asked =
        get("escaping").and_then(|asked| Escaping::ALL.into_iter().find(|known| known.as_str() == asked));
    // 0.0.4 knows no schemes.
    let escaping = asked.filter(|_| syntax != Syntax::Text).unwrap_or(Escaping::Underscores);
    quality.is_finite().then_some((Format { syntax, escaping }, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_that_is_wanted_most_is_given() {
        let proto =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        // What Prometheus 3 sends, with and without protobuf.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            ("", "text/plain; version=0.0.4; charset=utf-8"),
            ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
            ("image/png", "text/plain; version=0.0.4; charset=utf-8"),
            (";;q=;,,", "text/plain; version=0.0.4; charset=utf-8"),
            ("text/plain;version=9", "text/plain; version=0.0.4; charset=utf-8"),
            ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
            (
                "application/openmetrics-text",
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
            ),
            (
                "application/openmetrics-text;version=2.0.0,text/plain;q=0.1",
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
            (
                &format!("{proto};escaping=values;q=0.7,{prometheus}"),
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=values",
            ),
            (
                "application/vnd.google.protobuf;encoding=text,*/*;q=0.1",
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            ("text/plain;q=0.1,application/openmetrics-text;q=0", "text/plain; version=0.0.4; charset=utf-8"),
            ("application/openmetrics-text;q=nan", "text/plain; version=0.0.4; charset=utf-8"),
            (
                "application/openmetrics-text;escaping=\r\nevil: 1",
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
            ),
        ] {
            assert_eq!(best(accept).content_type(), expected, "{accept}");
        }
    }
}

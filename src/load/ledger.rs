//! Whether a receiver has counted each event and each instance once, by its own metrics page.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::client;
use crate::tls::client::Credentials;

/// The sums of a metrics page by name, without the prefix of the program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger(BTreeMap<String, f64>);

/// Two sums that have to be equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Balance {
    /// What came in, by name.
    pub left: Vec<(&'static str, f64)>,
    /// What became of it, by name.
    pub right: Vec<(&'static str, f64)>,
}

/// What each received event is in exactly one of.
const EVENTS: [&str; 8] = [
    "events_open",
    "events_closed_total",
    "events_duplicate_total",
    "late_events_total",
    "events_unmatched_total",
    "events_ignored_total",
    "events_over_limit_total",
    "events_rejected_total",
];
/// What each opened instance is in exactly one of.
const INSTANCES: [&str; 4] =
    ["open_instances", "instances_closed_total", "instances_merged_total", "instances_unmatched_total"];
/// How often the page is read until its sums are of one moment: a sweep may close instances while it is made.
const ATTEMPTS: u32 = 50;

impl Ledger {
    /// Reads the page in the text format.
    pub fn parse(page: &str) -> Self {
        let mut sums = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some(line) = line.strip_prefix("latency_aggregator_") else { continue };
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            *sums.entry(name.to_owned()).or_default() += value.unwrap_or_default();
        }
        Ledger(sums)
    }

    /// Reads the page at a URL until its sums are of one moment, or will not become so.
    pub async fn read(url: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let mut ledger = Ledger::default();
        for _ in 0..ATTEMPTS {
            ledger = Ledger::parse(&client::fetch(url, credentials).await?);
            if ledger.balances().iter().all(Balance::holds) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(ledger)
    }

    /// Events that were received.
    pub fn received(&self) -> f64 {
        self.of("events_received_total").1
    }

    /// What has to be equal: events, and instances.
    pub fn balances(&self) -> [Balance; 2] {
        let sums = |names: &[&'static str]| names.iter().map(|name| self.of(name)).collect();
        [
            Balance { left: sums(&["events_received_total"]), right: sums(&EVENTS) },
            Balance { left: sums(&["instances_opened_total"]), right: sums(&INSTANCES) },
        ]
    }

    fn of(&self, name: &'static str) -> (&'static str, f64) {
        (name, self.0.get(name).copied().unwrap_or_default())
    }
}

impl Balance {
    /// Whether both sides are equal.
    pub fn holds(&self) -> bool {
        let sum = |side: &[(&str, f64)]| side.iter().map(|(_, value)| value).sum::<f64>();
        sum(&self.left) == sum(&self.right)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &[(&str, f64)]| {
            let named = side.iter().filter(|(_, value)| *value != 0.0);
            let named: Vec<String> = named.map(|(name, value)| format!("{name} {value}")).collect();
            if named.is_empty() { "0".to_owned() } else { named.join(" + ") }
        };
        let sign = if self.holds() { "=" } else { "is not" };
        write!(f, "{} {sign} {}", side(&self.left), side(&self.right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_all_labels_and_must_agree() {
        let page = "# HELP x y\nlatency_aggregator_events_received_total{transport=\"grpc\"} 5\n\
                    latency_aggregator_events_received_total{transport=\"a b\"} 2\n\
                    latency_aggregator_events_open 3\nlatency_aggregator_events_closed_total 4\nother 9\n";
        let ledger = Ledger::parse(page);
        assert_eq!(ledger.received(), 7.0);
        let [events, instances] = ledger.balances();
        assert!(events.holds() && instances.holds());
        assert_eq!(events.to_string(), "events_received_total 7 = events_open 3 + events_closed_total 4");
        assert!(!Ledger::parse(&page.replace("_open 3", "_open 2")).balances()[0].holds());
    }
}

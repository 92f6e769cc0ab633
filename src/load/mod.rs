//! A load of our own making: pre-encoded requests whose ids are patched, sent as fast as they are answered or at a rate.
//!
//! It says what was accepted and how long acknowledgements took, and checks on the metrics page of the receiver that each
//! event was counted once. It measures the receiver only as long as it is not the slower side itself.

mod client;
mod ledger;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use client::{Answer, Connection, Target};
pub use ledger::{Balance, Ledger};
pub use shape::Layout;
use shape::Shape;

use crate::tls::client::Credentials;

/// How to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf.
    Http,
    /// Native push, one event a request.
    Push,
}

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to, as `http://host:port` or `https://host:port`, with a path if the usual one is not meant.
    pub url: String,
    /// Whom to trust, and what to show of oneself.
    pub credentials: Credentials,
    /// How.
    pub protocol: Protocol,
    /// Spans in a request.
    pub spans: usize,
    /// Spans in a trace, or events in a pushed flow.
    pub trace_spans: usize,
    /// How the spans of traces lie in requests.
    pub layout: Layout,
    /// How many split traces are open at once; 0: as many as a request has spans, on each connection.
    pub open_traces: usize,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Connections.
    pub connections: usize,
    /// Requests under way on each connection; HTTP/1.1 opens one connection for each.
    pub in_flight: usize,
    /// Requests a second over all connections; none: the next as soon as one is answered.
    pub rate: Option<f64>,
    /// For how long new requests are sent.
    pub duration: Duration,
}

/// What became of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How long it took until the last answer.
    pub took: Duration,
    /// Requests that were answered with success.
    pub requests: u64,
    /// Events in these that were accepted.
    pub accepted: u64,
    /// Events in these that were not.
    pub rejected: u64,
    /// Requests that were refused, by answer.
    pub refused: BTreeMap<String, u64>,
    /// Requests that were due by the rate and were not sent, because others had not been answered in time.
    pub unsent: u64,
    /// Of each request with an answer: microseconds from when it was due until it was answered. Sorted.
    waits: Vec<u32>,
}

impl Report {
    /// How long a share of the requests (between 0 and 1) waited at most; zero without any.
    pub fn percentile(&self, share: f64) -> Duration {
        let place = (self.waits.len() as f64 * share).ceil() as usize;
        let micros = self.waits.get(place.saturating_sub(1).min(self.waits.len().saturating_sub(1)));
        Duration::from_micros(micros.copied().unwrap_or_default().into())
    }

    fn add(&mut self, answer: &Answer, events: u64, waited: Duration) {
        match answer {
            Answer::Accepted { rejected } => {
                self.requests += 1;
                self.accepted += events.saturating_sub(*rejected);
                self.rejected += rejected;
            }
            Answer::Refused(code) => *self.refused.entry(code.clone()).or_default() += 1,
        }
        self.waits.push(u32::try_from(waited.as_micros()).unwrap_or(u32::MAX));
    }

    fn merge(&mut self, other: Report) {
        self.requests += other.requests;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unsent += other.unsent;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.waits.extend(other.waits);
    }
}

/// Sends the load. Fails if no connection can be made, or one breaks.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let shape = Arc::new(match plan.protocol {
        Protocol::Push => Shape::pushes(plan.trace_spans),
        Protocol::Grpc | Protocol::Http => {
            let open = plan.open_traces.div_ceil(plan.connections * plan.in_flight);
            Shape::spans(plan.spans, plan.trace_spans, plan.layout, open)
        }
    });
    let target = Arc::new(Target::new(&plan.url, plan.protocol, plan.gzip, &plan.credentials)?);
    let workers = plan.connections * plan.in_flight;
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for connection in 0..plan.connections {
        let mut lanes = vec![Connection::open(Arc::clone(&target)).await?];
        while lanes.len() < plan.in_flight {
            let one_more = match lanes[0].another() {
                Some(same) => same,
                None => Connection::open(Arc::clone(&target)).await?,
            };
            lanes.push(one_more);
        }
        for (lane, own) in lanes.into_iter().enumerate() {
            let worker = connection * plan.in_flight + lane;
            running.spawn(work(own, Arc::clone(&shape), pace(plan, worker, workers, begin), worker));
        }
    }
    let mut report = Report::default();
    while let Some(worked) = running.join_next().await {
        report.merge(worked.context("a sender failed")??);
    }
    report.took = begin.elapsed();
    report.waits.sort_unstable();
    Ok(report)
}

/// When a worker sends.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first: Instant,
    /// Between two requests; none: the next as soon as one is answered.
    every: Option<Duration>,
    end: Instant,
}

impl Pace {
    /// How many requests are due from `next` on.
    fn due_from(&self, next: Instant) -> u64 {
        let left = self.end.saturating_duration_since(next);
        self.every.map_or(0, |every| left.as_nanos().div_ceil(every.as_nanos().max(1)) as u64)
    }
}

fn pace(plan: &Plan, worker: usize, workers: usize, begin: Instant) -> Pace {
    let every = plan.rate.map(|rate| Duration::from_secs_f64(workers as f64 / rate));
    let offset = every.unwrap_or_default().mul_f64(worker as f64 / workers as f64);
    Pace { first: begin + offset, every, end: begin + plan.duration }
}

async fn work(mut to: Connection, shape: Arc<Shape>, pace: Pace, worker: usize) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut due = pace.first;
    for number in 0.. {
        match pace.every {
            // A late answer makes the next request late, and that counts: it was due.
            Some(every) => {
                due = pace.first + every.mul_f64(f64::from(number));
                tokio::time::sleep_until(due).await;
            }
            None => due = due.max(Instant::now()),
        }
        // What has been begun is brought to its end, so that all traces are whole.
        if Instant::now() >= pace.end && shape.is_whole_before(number) {
            report.unsent += pace.due_from(due);
            break;
        }
        let body = Bytes::from(shape.request(worker as u32, number));
        let answer = to.send(body).await?;
        report.add(&answer, shape.events(), due.elapsed());
    }
    Ok(report)
}

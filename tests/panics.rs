//! What a bug costs that panics while a request is answered: that request.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use latency_aggregator::app::connection_limits;
use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config::{self, Config};
use latency_aggregator::listener::{self, OVERDUE, Serving};
use latency_aggregator::metrics::Task;
use tokio::sync::watch;

async fn bug() -> &'static str {
    panic!("a bug")
}

#[tokio::test]
async fn a_request_that_panics_is_answered_and_counted_and_its_connection_goes_on() {
    let (pipeline, _) = build_pipeline(&config::load_text("sample", "").unwrap()).unwrap();
    let metrics = pipeline.metrics();
    let bound = listener::bind("listen.http", "127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", bound.address);
    let (stop, stopped) = watch::channel(false);
    let serving = Serving {
        tls: None,
        limits: connection_limits(&Config::default(), 1),
        metrics: metrics.connections("http", &OVERDUE),
        stop: stopped,
        grace: Duration::from_secs(5),
    };
    let router = Router::new().route("/bug", get(bug)).route("/", get(async || "ok"));
    let server = tokio::spawn(listener::serve(bound, router, serving));

    let over_http1 = reqwest::Client::new();
    let over_http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (panics, client) in (1..).zip([over_http1, over_http2]) {
        assert_eq!(client.get(format!("{url}/bug")).send().await.unwrap().status(), 500);
        assert_eq!(metrics.panics().of(Task::Request), panics);
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "ok");
    }
    assert_eq!(metrics.panics().of(Task::Connection), 0, "connections go on");
    // Were one of them said to be busy still, the end would wait for it.
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), server).await.unwrap().unwrap();
}

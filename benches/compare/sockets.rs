//! The program's own sockets, with its default limits, for those it is compared with.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use latency_aggregator::app::connection_limits;
use latency_aggregator::assembly::build_pipeline;
use latency_aggregator::config;
use latency_aggregator::listener::{self, Bound, Serving};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Serves as long as the process runs.
pub(crate) async fn serve(services: impl IntoIterator<Item = (Bound, Router)>) -> Result<(), Box<dyn Error>> {
    let loaded = config::load(None, &[])?;
    let (pipeline, _) = build_pipeline(&loaded)?;
    let (_never, stop) = watch::channel(false);
    let mut serving = JoinSet::new();
    for (bound, router) in services {
        let serves = Serving {
            tls: None,
            limits: connection_limits(&loaded.config, 1),
            metrics: pipeline.metrics().connections(bound.setting, &[]),
            stop: stop.clone(),
            grace: Duration::ZERO,
        };
        serving.spawn(listener::serve(bound, router, serves));
    }
    serving.join_all().await;
    Ok(())
}

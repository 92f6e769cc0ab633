//! `load`: sends a load to a running aggregator and says what became of it.

use std::io::Write;

use anyhow::bail;

use crate::load::{self, Ledger, Plan, Report};

/// Sends the load; with the address of a metrics page also checks that each event was counted once.
pub(super) async fn run(plan: &Plan, metrics: Option<&str>, mut out: impl Write) -> anyhow::Result<()> {
    let before = match metrics {
        Some(url) => Some(Ledger::read(url, &plan.credentials).await?),
        None => None,
    };
    let report = load::run(plan).await?;
    print(&report, &mut out)?;
    let (Some(url), Some(before)) = (metrics, before) else { return Ok(()) };
    let after = Ledger::read(url, &plan.credentials).await?;
    let received = after.received() - before.received();
    let sent = report.accepted + report.rejected;
    let balances = after.balances();
    writeln!(out, "counted       {received} events received since the start, {sent} acknowledged")?;
    for balance in &balances {
        writeln!(out, "              {balance}")?;
    }
    // What was refused may have been counted, as events of requests that were cut off are not.
    if (received as u64) < sent || !balances.iter().all(load::Balance::holds) {
        bail!("{url} does not count each event and each instance once");
    }
    Ok(())
}

fn print(report: &Report, out: &mut impl Write) -> anyhow::Result<()> {
    let Report { took, requests, accepted, rejected, refused, unsent, .. } = report;
    let seconds = took.as_secs_f64();
    let rate = *accepted as f64 / seconds.max(f64::MIN_POSITIVE);
    writeln!(
        out,
        "accepted      {accepted} events in {requests} requests, {seconds:.1} s: {rate:.0} events/s"
    )?;
    if *rejected > 0 {
        writeln!(out, "rejected      {rejected} events")?;
    }
    for (code, count) in refused {
        writeln!(out, "refused       {count} requests: {code}")?;
    }
    if *unsent > 0 {
        writeln!(out, "not sent      {unsent} requests: the receiver is slower than the rate")?;
    }
    let waits = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let waits: Vec<String> = waits
        .iter()
        .map(|(name, share)| format!("{name} {:.3} ms", report.percentile(*share).as_secs_f64() * 1e3))
        .collect();
    writeln!(out, "acknowledged  {}", waits.join("  "))?;
    Ok(())
}

//! The order flow as JSON pushes: three stages, one second apart, and what the aggregator makes of them.
//!
//! Start the aggregator with `cargo run --release`, then `cargo run --example push [URL]`.

#![allow(clippy::print_stdout, reason = "an example talks to people")]

use std::time::Duration;

use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:7070".to_owned());
    let client = reqwest::blocking::Client::new();
    let id = format!("order-{}", std::process::id());
    // `life_span`: how long the next stage may take to come. The last one does not wait for another.
    for (stage, life_span) in [("placed", 2), ("paid", 2), ("shipped", 1)] {
        let push = json!({
            "id": id,
            "name": "order",
            "help": "Time from order placed to order shipped",
            "stage": stage,
            "life_span": life_span,
            "label_values": { "store": "A" },
        });
        let reply = client.post(&url).json(&push).send()?.error_for_status()?.text()?;
        println!("pushed stage {stage}: {reply}");
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("waiting for the flow to be over");
    std::thread::sleep(Duration::from_secs(1));
    let metrics = client.get(format!("{url}/metrics")).send()?.error_for_status()?.text()?;
    for line in
        metrics.lines().filter(|line| line.starts_with("order_sum") || line.starts_with("order_count"))
    {
        println!("{line}");
    }
    Ok(())
}

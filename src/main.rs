//! The program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            latency_aggregator::cli::report(&anyhow::Error::new(error).context("starting threads"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(latency_aggregator::cli::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            latency_aggregator::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}

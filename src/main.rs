//! The program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Open instances are many small pieces of memory, which come and go on several threads; and what a burst took is given
/// back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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

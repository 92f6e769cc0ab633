//! The command line: which command, with which settings, and what it prints.

mod arguments;
mod check;
mod load;
mod monitoring;
mod push;
mod replay;

use std::io::{IsTerminal, Write};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::app::{App, EndSignals};
use crate::auth;
use crate::config::{self, Log, LogFormat};
use crate::load::Plan;
use crate::reload::{ReloadSignal, Source};
use crate::secrets::SecretFile;
use crate::tls::client::{Credentials, Trust};
use arguments::{Command, CredentialFiles};

/// Runs the command that the arguments name. An error is for people, and means a non-zero exit code.
pub async fn run() -> anyhow::Result<()> {
    match arguments::parse() {
        Command::Serve { config, overrides } => serve(config.as_deref(), &overrides).await,
        Command::Check { file, overrides, traces } => {
            check::run(&file, &overrides, &traces, std::io::stdout().lock())
        }
        Command::Replay { config, overrides, files, as_json } => {
            replay::run(config.as_deref(), &overrides, &files, as_json, std::io::stdout().lock())
        }
        Command::Push { url, shown, push } => push::run(&url, &credentials(&shown)?, &push).await,
        Command::Load { plan, shown, metrics } => {
            let plan = Plan { credentials: credentials(&shown)?, ..plan };
            load::run(&plan, metrics.as_deref(), std::io::stdout().lock()).await
        }
        Command::Dashboard { config, overrides } => {
            monitoring::dashboard(config.as_deref(), &overrides, std::io::stdout().lock())
        }
        Command::Rules { config, overrides } => {
            monitoring::rules(config.as_deref(), &overrides, std::io::stdout().lock())
        }
    }
}

/// Reads the files that a client was given.
fn credentials(shown: &CredentialFiles) -> anyhow::Result<Credentials> {
    let token = shown.token.clone().map(|path| SecretFile { setting: "--token-file", path });
    Ok(Credentials {
        trust: shown.ca.clone().map(Trust::open).transpose()?,
        authorization: token.map(auth::authorization).transpose()?,
    })
}

async fn serve(path: Option<&std::path::Path>, overrides: &[config::Override]) -> anyhow::Result<()> {
    let loaded = config::load(path, overrides)?;
    start_logging(&loaded.config.log)?;
    // Before anything says that the program is there, so that no signal finds it unprepared.
    let (mut first, mut both) = (EndSignals::listen()?, EndSignals::listen()?);
    let reload = ReloadSignal::listen()?;
    let source = Source { path: path.map(Into::into), overrides: overrides.to_vec() };
    let app = App::bind(loaded, source).await?;
    app.announce(std::io::stdout().lock()).context("writing to standard output")?;
    let stop = async move { first.next().await };
    let hurry = async move {
        both.next().await;
        both.next().await;
    };
    app.run(stop, hurry, reload).await;
    Ok(())
}

fn start_logging(log: &Log) -> anyhow::Result<()> {
    let filter = log_filter(log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// What to log. A single word has to be a level: as a filter it would be the name of something that never logs.
fn log_filter(log: &Log) -> anyhow::Result<EnvFilter> {
    let level = if log.level == "warning" { "warn" } else { &log.level };
    let is_filter = level.contains(['=', ',']);
    let is_level = matches!(level, "error" | "warn" | "info" | "debug" | "trace" | "off");
    let filter =
        Some(level).filter(|_| is_filter || is_level).and_then(|level| EnvFilter::try_new(level).ok());
    filter.with_context(|| {
        format!("log.level: {level:?} is no level (error, warn, info, debug, trace), and no filter such as info,hyper=warn")
    })
}

/// Prints an error and what caused it, for people.
pub fn report(error: &anyhow::Error) {
    // Nothing can be done when standard error is gone.
    writeln!(std::io::stderr(), "error: {error:#}").unwrap_or_default();
}

//! Structured log lines on standard error. No line holds a value of a row or a secret.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

use crate::cli::common::LogFormat;

/// Starts logging: warnings by default, `-v` for what happens, `-vv` for details; `RUST_LOG` has the last word.
pub fn init(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => "warn,hokusai=info",
        1 => "info,hokusai=debug",
        _ => "debug,hokusai=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let registry = tracing_subscriber::registry().with(filter);
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
}

#!/usr/bin/env bash
# From "contribution produced" to "receipt readable" on an idle system, on both brokers: p50 and p99.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked --test it -- --ignored --nocapture --test-threads=1 latency | grep -E '^(latency|skipped|test result)'

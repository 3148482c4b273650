# Rust, gcc and make are enough for `make demo` and `make test`; Java, Maven and Python widen the tests.
# Everything that is built or fetched lives outside the clone, in HOKUSAI_CACHE.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export HOKUSAI_CACHE ?= $(HOME)/.cache/hokusai
export CARGO_TARGET_DIR ?= $(HOKUSAI_CACHE)/target
export CARGO_TERM_COLOR ?= auto
# Each end-to-end test runs a broker and every stage, and waits most of the time: three leave two cores a third idle.
TEST_THREADS ?= 3

# Seconds that `make fuzz` gives each target.
FUZZ_SECONDS ?= 600

.PHONY: help demo test lint fuzz calibrate bench latency setup peers clean-demo

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a year of flights from contribution to a proven improvement, on this machine (about a minute after the build)
	cargo build --locked --bin hokusai --example flights_split
	@examples/flights/demo.sh

lint: ## formatting, clippy without warnings, and the shell, YAML and Python files parse
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@tests/lint.sh

setup: ## fetch what widens the tests: Apache Kafka's jars, a Python environment (skipped where tools are missing)
	@tests/setup.sh

test: setup lint ## every test: unit, property, golden, end to end on the embedded broker and on Apache Kafka, Python clients
	cargo test --locked --no-fail-fast --lib --bins --examples
	cargo test --locked --no-fail-fast --doc
	cargo test --locked --no-fail-fast --test it -- --test-threads=$(TEST_THREADS)

fuzz: ## mutated inputs for everything that reads an outsider's bytes, FUZZ_SECONDS (600) per target
	HOKUSAI_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --locked --lib -- fuzz:: broker::tests::hostile --nocapture --test-threads=$(TEST_THREADS)

calibrate: ## null candidates: 400 sequences of 50 attempts per metric through the decision, and 50 through topics; takes minutes
	cargo test --locked --lib stats::null_tests -- --ignored --nocapture
	cargo test --locked --test it e2e::calibration -- --ignored --nocapture

bench: ## what a user would pick instead, beside ours, in one run (release build; needs Python)
	@benches/run.sh

latency: ## from "contribution produced" to "receipt readable": p50 and p99 on an idle system, on both brokers
	@benches/latency.sh

clean-demo: ## forget the demo's data
	rm -rf .hokusai

#!/usr/bin/env bash
# What a user would pick instead, beside ours, in one run.   HOKUSAI_BIN=… uses another binary than a fresh release build.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${HOKUSAI_CACHE:-$HOME/.cache/hokusai}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
tests/setup.sh
python=$cache/python/bin/python
if [ -z "${HOKUSAI_BIN:-}" ]; then
  cargo build --locked --release --bin hokusai
  HOKUSAI_BIN=$CARGO_TARGET_DIR/release/hokusai
fi
unset HOKUSAI_BROKERS HOKUSAI_DATA HOKUSAI_PREFIX
work=$cache/bench

echo "== intake: 1 M rows × 10 columns"
"$python" benches/intake.py "$HOKUSAI_BIN" "$work" "$@"

jars=$cache/kafka/4.1.0
if [ -e "$jars/.complete" ]; then
  echo "== Kafka Streams (exactly_once_v2) on the embedded broker"
  data=$(mktemp -d)
  trap 'kill "$broker" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$data"' EXIT
  "$HOKUSAI_BIN" broker --data "$data" --listen 127.0.0.1:0 --format json >"$data/ready.json" 2>"$data/broker.log" &
  broker=$!
  until [ -s "$data/ready.json" ]; do
    kill -0 "$broker"
    sleep 0.05
  done
  address=$(sed -n 's/.*"brokers":"\([^"]*\)".*/\1/p' "$data/ready.json")
  records=${RECORDS:-300000}
  "$python" benches/peers/load.py "$address" peer-in "$records" peer-out
  javac -cp "$jars/*" -d "$data" benches/peers/KafkaStreamsPeer.java
  for threads in 1 2; do
    java -Djava.io.tmpdir="$data" -cp "$data:$jars/*" KafkaStreamsPeer "$address" peer-in peer-out "$records" 1000 "$threads" 2>/dev/null
  done
  echo "the broker's CPU ticks (user, system): $(awk '{ sub(/.*\) /, ""); print $12, $13 }' "/proc/$broker/stat")"
else
  echo "skipped: Kafka Streams: no jars in $jars"
fi

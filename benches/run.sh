#!/usr/bin/env bash
# What a user would pick instead, beside ours, in one run.
# HOKUSAI_BIN=…, OWN_STAGE_BIN=… and LEARN_BIN=… use other binaries than a fresh release build; QUIXSTREAMS_PYTHON=… a Python that has
# quixstreams, LIGHTGBM_PYTHON=… one that has lightgbm and pyarrow.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${HOKUSAI_CACHE:-$HOME/.cache/hokusai}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
tests/setup.sh
python=$cache/python/bin/python
if [ -z "${HOKUSAI_BIN:-}" ]; then
  cargo build --locked --release --bin hokusai --example own_stage --example learn_parquet
  HOKUSAI_BIN=$CARGO_TARGET_DIR/release/hokusai
fi
unset HOKUSAI_BROKERS HOKUSAI_DATA HOKUSAI_PREFIX
work=$cache/bench

echo "== intake: 1 M rows × 10 columns"
"$python" benches/intake.py "$HOKUSAI_BIN" "$work" "$@"

jars=$cache/kafka/4.1.0
if [ -e "$jars/.complete" ]; then
  echo "== runtime alone, exactly-once, beside Kafka Streams"
  "$python" benches/runtime.py "$HOKUSAI_BIN" "${OWN_STAGE_BIN:-$CARGO_TARGET_DIR/release/examples/own_stage}" "$jars" "$work" \
    --records "${RECORDS:-1000000}" ${QUIXSTREAMS_PYTHON:+--quixstreams "$QUIXSTREAMS_PYTHON"}
else
  echo "skipped: Kafka Streams: no jars in $jars"
fi

echo "== 1 M rows × 20 columns, from submit to an attested evaluation"
"$python" benches/pipeline.py "$HOKUSAI_BIN" "$work/pipeline"

lightgbm=${LIGHTGBM_PYTHON:-$python}
if "$lightgbm" -c 'import lightgbm, pyarrow' 2>/dev/null; then
  echo "== boosted trees beside LightGBM"
  "$lightgbm" benches/trees.py "${LEARN_BIN:-$CARGO_TARGET_DIR/release/examples/learn_parquet}" "$work/trees"
else
  echo "skipped: LightGBM: $lightgbm has no lightgbm (pip install lightgbm)"
fi

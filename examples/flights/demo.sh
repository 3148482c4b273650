#!/usr/bin/env bash
# One year of flights, from contribution to SQL, on this machine. `make demo` builds and runs it.
#   HOKUSAI_DEMO_DATA   where it keeps its data (default .hokusai/demo); a second run finds everything done and shows the same numbers
#   HOKUSAI_DEMO_KEEP=1 leaves the broker and the stages running at the end, to look around (Ctrl-C ends them)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
hokusai=${HOKUSAI_BIN:-$target/debug/hokusai}
data=${HOKUSAI_DEMO_DATA:-.hokusai/demo}
carriers=$data/carriers
unset HOKUSAI_BROKERS HOKUSAI_PREFIX HOKUSAI_STORE HOKUSAI_TOPOLOGY
export HOKUSAI_DATA=$data
started=$SECONDS
up=

bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { # runs a command after showing it
  printf '$ hokusai'
  printf ' %q' "$@"
  printf '\n'
  "$hokusai" "$@"
}

finish() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$up" ] && kill -0 "$up" 2>/dev/null; then
    kill -TERM "$up" 2>/dev/null || true
    wait "$up" 2>/dev/null || true
  fi
  if [ "$status" != 0 ]; then
    echo "the demo stopped (exit $status); run it again and it goes on where it was. Its log: $data/up.log" >&2
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$data"
if [ ! -e "$carriers/.complete" ]; then
  rm -rf "$carriers"
  "$target/debug/examples/flights_split" examples/flights/flights.parquet "$carriers"
  touch "$carriers/.complete"
fi

say "1. The broker and every stage, on this machine"
: >"$data/ready.json"
echo "\$ hokusai up --data $data"
# Its own process group: Ctrl-C reaches this script, which ends it in order.
set -m
"$hokusai" up --listen 127.0.0.1:0 --http 127.0.0.1:0 --format json >"$data/ready.json" 2>>"$data/up.log" &
up=$!
set +m
until [ -s "$data/ready.json" ]; do
  kill -0 "$up" 2>/dev/null || { tail -20 "$data/up.log" >&2; exit 1; }
  sleep 0.05
done
cat "$data/ready.json"
HOKUSAI_BROKERS=$(sed -n 's/.*"brokers":"\([^"]*\)".*/\1/p' "$data/ready.json")
export HOKUSAI_BROKERS

say "2. A model and its contract"
show model apply examples/flights/model.yaml

say "3. Sixteen carriers contribute their months"
receipts=$data/receipts.jsonl
: >"$receipts"
# Southwest (WN) before Frontier (F9), which sends Southwest's rows as its own: who comes first is the owner.
for carrier in WN UA B6 EV DL AA MQ US 9E VX FL AS YV HA OO F9; do
  files=("$carriers/$carrier"/2013-[01]*)
  printf 'hokusai submit %s/2013-* --model flight-delay --contributor %s   # %d contributions\n' "$carrier" "$carrier" "${#files[@]}"
  "$hokusai" submit "${files[@]}" --model flight-delay --contributor "$carrier" --format json >/dev/null
done

say "4. One of them also sends another's rows, broken rows, and agents' e-mails and phones (synthetic): its receipt"
show submit "$carriers/F9/2013-troubled.csv" --model flight-delay --contributor F9 --wait

say "5. What became of the year: status of every contribution"
show sql --fresh "select status, count(*) as contributions, sum(received) as received, sum(accepted) as accepted, sum(received - accepted) as refused from receipts group by status order by status" --format table

say "6. Why rows were refused"
show sql "select reason, count(*) as contributions, sum(count) as rows from (select unnest(refused)['name'] as reason, unnest(refused)['count'] as count from receipts) group by reason order by rows desc" --format table

say "7. Quality by dimension: the troubled contribution beside the year's mean"
show sql "select q.name as dimension, round(avg(q.value), 4) as mean from (select unnest(quality.dimensions) as q from receipts) group by 1 order by 1" --format table

say "8. The rows themselves: late arrivals by carrier"
show sql "select carrier, count(*) as flights, round(avg(late) * 100, 1) as late_percent from rows group by carrier order by late_percent desc limit 8" --format table

say "9. No plaintext left: what the tables hold for the agents"
show sql "select agent_email, agent_note from rows where agent_email is not null limit 2" --format table

printf '\n%sDone in %d s.%s Data: %s. Look around with: HOKUSAI_DEMO_KEEP=1 make demo\n' "$bold" "$((SECONDS - started))" "$plain" "$data"
if [ "${HOKUSAI_DEMO_KEEP:-}" = 1 ]; then
  echo "Running on $HOKUSAI_BROKERS until Ctrl-C."
  wait "$up"
fi

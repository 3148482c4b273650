#!/usr/bin/env bash
# One year of flights, from contribution to a proven improvement, on this machine. `make demo` builds and runs it.
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
  local word
  printf '$ hokusai'
  for word in "$@"; do
    case $word in
    *[[:space:]]*) printf ' "%s"' "$word" ;;
    *) printf ' %s' "$word" ;;
    esac
  done
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

say "3. The platform seals a benchmark, and learns a baseline from a small sample of its own"
if [ -z "$("$hokusai" benchmark list --format json)" ]; then
  show benchmark seal holdout --model flight-delay "$carriers/benchmark.parquet" --strata origin --margin 0.04
fi
"$hokusai" submit "$carriers/platform.parquet" --model flight-delay --contributor platform --wait >/dev/null
show train flight-delay --param iterations=50 --request-id baseline --wait

say "4. Sixteen carriers contribute their months"
receipts=$data/receipts.jsonl
: >"$receipts"
# Southwest (WN) before Frontier (F9), which sends Southwest's rows as its own: who comes first is the owner.
for carrier in WN UA B6 EV DL AA MQ US 9E VX FL AS YV HA OO F9; do
  files=("$carriers/$carrier"/2013-[01]*)
  printf 'hokusai submit %s/2013-* --model flight-delay --contributor %s   # %d contributions\n' "$carrier" "$carrier" "${#files[@]}"
  "$hokusai" submit "${files[@]}" --model flight-delay --contributor "$carrier" --format json >/dev/null
done

say "5. Frontier (F9) also sends Southwest's rows, broken rows, and agents' e-mails and phones (synthetic). Its receipt:"
show submit "$carriers/F9/2013-troubled.csv" --model flight-delay --contributor F9 --wait

say "6. The year in receipts"
show sql --fresh --format table "
  select status, count(*) as contributions, sum(received) as received, sum(accepted) as accepted, sum(received) - sum(accepted) as refused
  from receipts group by status order by status"

say "7. Why rows were refused"
show sql --format table "
  select reason, sum(count) as rows, count(distinct contributor) as carriers from receipt_refused group by reason order by rows desc, reason"

say "8. Quality by dimension: the year, and Frontier's troubled file"
show sql --format table "
  with troubled as (select distinct contribution_id as id from refusals where code = 'DUP_OTHER_OWNER')
  select dimension, round(avg(value), 4) as year_mean, round(min(value), 4) as year_min,
         round(max(case when id is not null then value end), 4) as troubled
  from receipt_quality left join troubled on contribution_id = id group by dimension order by dimension"

say "9. The rows themselves: who arrives late"
show sql --format table "
  select carrier, count(*) as flights, round(100 * avg(late), 1) as late_percent from admitted_rows
  where model = 'flight-delay' group by carrier order by late_percent desc limit 8"

say "10. What a refusal tells, and what became of the agents' contacts"
show sql --format table "
  select code, \"column\", rule, shape, count(*) as rows from refusals where contributor = 'F9' and code not like 'DUP%' group by 1, 2, 3, 4 order by 1, 2 limit 12"
show sql --format table "select agent_email, agent_note from rows where agent_email is not null order by row limit 2"

say "11. A candidate learns from all accepted rows. Is it better than the baseline, on rows that neither has seen?"
show train flight-delay --param iterations=50 --request-id candidate --base-version 1.0.0 --benchmark holdout --wait
"$hokusai" sql --fresh --format table "select run_id, status, iterations from runs"
show leaderboard flight-delay/holdout@1

say "12. Who is credited with the improvement: all 64 coalitions of five carriers and the others are trained on few rows"
evaluated=$("$hokusai" sql --fresh --format csv "select evaluation_id from evaluations where status = 'accepted' limit 1" | tail -1)
show attribution "$evaluated" --wait

say "13. Frontier's troubled receipt, the evaluation and the attribution are attested. A stranger checks them offline, without brokers and keys"
stranger=$data/stranger
mkdir -p "$stranger/receipts"
troubled=$("$hokusai" sql --format csv "select distinct contribution_id from refusals where code = 'DUP_OTHER_OWNER' order by 1 limit 1" | tail -1)
evaluation=$("$hokusai" sql --fresh --format csv "select leaf from attestations where predicate_type like '%/evaluation/%' limit 1" | tail -1)
show attestation export --contribution "$troubled" -o "$stranger/bundle.json"
show attestation export "$evaluation" -o "$stranger/evaluation.json"
attribution=$("$hokusai" sql --fresh --format csv "select leaf from attestations where predicate_type like '%/attribution/%' limit 1" | tail -1)
show attestation export "$attribution" -o "$stranger/attribution.json"
show attestation log -o "$stranger/log.jsonl"
mkdir -p "$stranger/models"
show model export flight-delay@1.0.0 --native "$stranger/models/baseline.hkml"
show model export flight-delay@1.1.0 --native "$stranger/models/candidate.hkml"
show attestation trust -o "$stranger/trust.json"
"$hokusai" watch receipts --from-beginning --until-end --format json >"$stranger/receipts/all.jsonl"
offline() { HOKUSAI_BROKERS=127.0.0.1:1 HOKUSAI_DATA=$stranger show verify "$@" --trust "$stranger/trust.json"; }
offline "$stranger/bundle.json" --inputs "$stranger/receipts"
say "The benchmark's owner discloses its sealed rows: now everybody can compute every figure again"
rm -rf "$stranger/inputs"
show attestation inputs "$evaluation" --level 2 -o "$stranger/inputs"
offline "$stranger/evaluation.json" --inputs "$stranger/inputs" --log "$stranger/log.jsonl"
offline "$stranger/attribution.json" --inputs "$stranger/models"
say "One character of the signed statement is changed:"
head -c 400 "$stranger/bundle.json" | tail -c 1 | tr 'A-Za-z0-9+/' 'B-ZAb-za1-90/+' >"$stranger/changed"
{ head -c 399 "$stranger/bundle.json"; cat "$stranger/changed"; tail -c +401 "$stranger/bundle.json"; } >"$stranger/changed.json"
if offline "$stranger/changed.json" --inputs "$stranger/receipts"; then
  echo "a changed statement must never pass" >&2
  exit 1
fi

printf '\n%sDone in %d s.%s Data: %s. Look around with: HOKUSAI_DEMO_KEEP=1 make demo\n' "$bold" "$((SECONDS - started))" "$plain" "$data"
if [ "${HOKUSAI_DEMO_KEEP:-}" = 1 ]; then
  echo "Running on $HOKUSAI_BROKERS until Ctrl-C."
  wait "$up"
fi

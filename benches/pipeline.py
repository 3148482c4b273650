#!/usr/bin/env python3
"""1 M rows × 20 columns from `submit` to an attested evaluation, and the attribution after it: CPU seconds and peak memory.

    pipeline.py HOKUSAI WORK_DIR [--rows N] [--benchmark-rows N] [--iterations N] [--game] [--profile DIR]

A baseline is learned from 10,000 rows of the platform's own, 250,000 rows are sealed; then the clock starts: a million rows as CSV, receipts,
100 trees, the sealed rows scored by both models with 2,000 resamples, statements under a signed tree head. `up` is one process with the
broker and all stages; its CPU seconds come from /proc, those of the commands from wait4. `--game` lets the stage attribution play
afterwards, as the contract says. Peaks are high-water marks of resident memory.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from intake import cpu, finished, peak, start

HERE = pathlib.Path(__file__).parent
NUMBERS = 15


def rows(count, seed):
    """Nineteen features and a label: fifteen numbers (three of them with gaps), three categories, a time."""
    random = numpy.random.default_rng(seed)
    x = random.normal(size=(count, NUMBERS)).round(4)
    plan, region = random.integers(0, 8, count), random.integers(0, 40, count)
    device = random.integers(0, 300, count)
    hour = random.integers(0, 24 * 700, count)
    signal = x[:, 0] - 0.7 * x[:, 1] * (x[:, 2] > 0) + 0.5 * numpy.abs(x[:, 3]) + 0.2 * (plan % 3) + 0.3 * numpy.sin(region) + 0.2 * ((hour % 24) > 17)
    label = (random.random(count) < 1 / (1 + numpy.exp(-(signal - 1.2)))).astype(numpy.int64)
    columns = {"event_time": numpy.datetime64("2024-01-01T00:00:00", "s") + hour.astype("timedelta64[h]")}
    for at in range(NUMBERS):
        gaps = random.random(count) < 0.03 if at % 5 == 4 else None
        columns[f"x{at}"] = pyarrow.array(x[:, at], mask=gaps)
    columns["plan"] = numpy.char.add("plan-", plan.astype(str))
    columns["region"] = numpy.char.add("r", region.astype(str))
    columns["device"] = numpy.char.add("d", device.astype(str))
    columns["label"] = label
    return pyarrow.table(columns)


def contract(work, game):
    number = "\n".join(f"      - {{name: x{at}, logicalType: number{', allowedNullRate: 0.1' if at % 5 == 4 else ', required: true'}}}" for at in range(NUMBERS))
    code = "logicalType: string, required: true, pii: {policy: none, reason: a code}, logicalTypeOptions: {maxLength: 12}"
    text = f"""apiVersion: hokusai/v1
kind: Model
name: pipeline-bench
label: label
evaluation:
  primary: auroc
  minimumEffect: 0.001
  guardrails: [{{metric: log_loss, margin: 0.01}}]
  strata: [{{column: plan, margin: 0.05}}]
{game}schema:
  - name: events
    properties:
      - {{name: event_time, logicalType: timestamp, required: true}}
{number}
      - {{name: plan, {code}}}
      - {{name: region, {code}}}
      - {{name: device, {code}}}
      - {{name: label, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}
"""
    (work / "pipeline.yaml").write_text(text)
    return work / "pipeline.yaml"


def inputs(work, arguments):
    marker = work / f"pipeline-{arguments.rows}-{arguments.benchmark_rows}"
    paths = [marker / name for name in ("platform.parquet", "benchmark.parquet", "rows.csv")]
    if not marker.exists():
        marker.mkdir(parents=True)
        pyarrow.parquet.write_table(rows(10_000, 1), paths[0])
        pyarrow.parquet.write_table(rows(arguments.benchmark_rows, 2), paths[1])
        pyarrow.csv.write_csv(rows(arguments.rows, 3), paths[2])
    return [path.resolve() for path in paths]


class Run:
    """Commands against one `up`; every phase is told with what it took."""

    def __init__(self, hokusai, folder, profile):
        self.hokusai = hokusai
        self.up, ready = start(hokusai, folder, "up", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *profile)
        self.environment = {**os.environ, "HOKUSAI_DATA": str(folder / "data"), "HOKUSAI_BROKERS": ready["brokers"]}
        self.total = 0.0

    def command(self, *arguments):
        process = subprocess.Popen([self.hokusai, *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        said = process.stdout.read().decode()
        spent, high = finished(process)
        if process.returncode != 0:
            sys.exit(f"{arguments}: exit {process.returncode}")
        return said, spent, high

    def phase(self, name, *arguments, counts=True):
        before, begin = cpu(self.up.pid), time.perf_counter()
        said, spent, high = self.command(*arguments)
        stages = round(cpu(self.up.pid) - before, 2)
        if counts:
            self.total += stages + spent
        print(json.dumps({"phase": name, "wall_s": round(time.perf_counter() - begin, 2), "cpu_s": {"up": stages, "command": spent},
                          "peak_mb": {"up": peak(self.up.pid), "command": high}}), flush=True)
        return said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hokusai")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--benchmark-rows", type=int, default=250_000)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--game", action="store_true")
    parser.add_argument("--profile", type=pathlib.Path, help="a flame graph of each training and evaluation goes there")
    arguments = parser.parse_args()
    hokusai = str(pathlib.Path(arguments.hokusai).resolve())
    arguments.work.mkdir(parents=True, exist_ok=True)
    platform, benchmark, source = inputs(arguments.work, arguments)
    # Without --game the smallest game is declared: the stage answers whatever is accepted.
    game = "" if arguments.game else "attribution: {players: 2, trainings: 4, rows: 1000, benchmarkRows: 1000, seeds: 1}\n"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hokusai-bench-"))
    run = Run(hokusai, folder, ["--profile", str(arguments.profile)] if arguments.profile else [])
    try:
        run.command("model", "apply", contract(arguments.work, game))
        run.command("submit", platform, "--model", "pipeline-bench", "--contributor", "platform", "--wait")
        run.command("train", "pipeline-bench", "--param", f"iterations={arguments.iterations}", "--wait")
        run.phase("seal the benchmark", "benchmark", "seal", "holdout", "--model", "pipeline-bench", benchmark, "--strata", "plan", "--margin", "0.05", counts=False)
        run.phase("load: submit to receipt", "submit", source, "--model", "pipeline-bench", "--contributor", "bench", "--wait")
        run.phase("load: into the table", "sql", "--fresh", "select count(*) as n from admitted_rows")
        ready = json.loads(run.phase("train, evaluate, attest", "train", "pipeline-bench", "--param", f"iterations={arguments.iterations}",
                                     "--base-version", "1.0.0", "--benchmark", "holdout", "--wait", "--format", "json").splitlines()[-1])
        print(json.dumps(ready)[:600], flush=True)
        print(json.dumps({"pipeline_cpu_s": round(run.total, 2), "peak_mb": peak(run.up.pid)}), flush=True)
        evaluated = ready.get("evaluation_id") or ready.get("evaluation", {}).get("evaluation_id")
        if evaluated:
            run.phase("attribution", "attribution", evaluated, "--wait", counts=False)
    finally:
        run.up.terminate()
        run.up.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

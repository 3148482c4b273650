#!/usr/bin/env python3
"""1 M rows × 10 columns: from `submit` to receipt and table, beside polars, in one run on one machine.

    intake.py HOKUSAI WORK_DIR [--formats csv,parquet] [--rounds N]

Input is that of peers/intake_gen.py. Ours and theirs take turns. CPU seconds are user + system: of ours by process (broker, worker and submit
apart, from /proc), of polars by its own getrusage. Peaks are high-water marks of resident memory. The two do not do the same: ours also
sends everything through a durable log, hashes every row, keeps an account of every refusal, scores and commits it; polars' output is a file.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def start(hokusai, folder, *arguments):
    with open(folder / f"{arguments[0]}.log", "ab") as log:
        process = subprocess.Popen([hokusai, *arguments, "--format", "json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                   env={**os.environ, "HOKUSAI_DATA": str(folder / "data")})
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{arguments[0]} ended before it was ready: {folder}/{arguments[0]}.log")
    return process, json.loads(line)


def finished(process):
    """Waits; seconds of CPU and peak MB of the process itself."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return round(usage.ru_utime + usage.ru_stime, 2), usage.ru_maxrss // 1024


def ours(hokusai, source):
    with tempfile.TemporaryDirectory(prefix="hokusai-bench-") as folder:
        folder = pathlib.Path(folder)
        broker, ready = start(hokusai, folder, "broker", "--listen", "127.0.0.1:0")
        environment = {**os.environ, "HOKUSAI_DATA": str(folder / "data"), "HOKUSAI_BROKERS": ready["brokers"]}
        os.environ["HOKUSAI_BROKERS"] = ready["brokers"]
        worker = None
        try:
            subprocess.run([hokusai, "topology", "apply"], env=environment, check=True, stdout=subprocess.DEVNULL)
            worker, _ = start(hokusai, folder, "worker", "--http", "127.0.0.1:0")
            subprocess.run([hokusai, "model", "apply", str(HERE / "intake.yaml")], env=environment, check=True, stdout=subprocess.DEVNULL)
            before = {"broker": cpu(broker.pid), "worker": cpu(worker.pid)}
            begin = time.perf_counter()
            submit = subprocess.Popen([hokusai, "submit", str(source), "--model", "intake-bench", "--contributor", "bench", "--wait", "--format", "json"],
                                      env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            receipt = json.loads(submit.stdout.readline())
            submit_cpu, submit_peak = finished(submit)
            receipt_wall = time.perf_counter() - begin
            rows = subprocess.run([hokusai, "sql", "select count(*) as n from rows", "--fresh", "--format", "json"], env=environment, check=True, capture_output=True)
            table_wall = time.perf_counter() - begin
            assert json.loads(rows.stdout)["n"] == receipt["accepted"], (rows.stdout, receipt["accepted"])
            spent = {"submit": submit_cpu, "worker": round(cpu(worker.pid) - before["worker"], 2), "broker": round(cpu(broker.pid) - before["broker"], 2)}
            return {
                "engine": "hokusai", "format": source.suffix[1:], "wall_receipt_s": round(receipt_wall, 2), "wall_table_s": round(table_wall, 2),
                "cpu_s": spent, "cpu_s_submit_and_worker": round(spent["submit"] + spent["worker"], 2),
                "peak_mb": {"submit": submit_peak, "worker": peak(worker.pid), "broker": peak(broker.pid)},
                "rows": [receipt["accepted"], receipt["received"] - receipt["accepted"]],
            }
        finally:
            for process in (worker, broker):
                if process:
                    process.terminate()
                    process.wait(60)


def theirs(work, name):
    out = subprocess.run([sys.executable, str(HERE / "peers/intake_peer.py"), "polars", name], cwd=work, check=True, capture_output=True, text=True)
    peer = json.loads(out.stdout)
    return {"engine": "polars", "format": name, "wall_s": peer["wall"], "cpu_s": peer["cpu"], "peak_mb": peer["peak_mb"], "rows": peer["rows_out"]}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("hokusai")
    arguments.add_argument("work", type=pathlib.Path)
    arguments.add_argument("--formats", default="csv,parquet")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments = arguments.parse_args()
    hokusai, work = str(pathlib.Path(arguments.hokusai).resolve()), arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "in.parquet").exists():
        subprocess.run([sys.executable, str((HERE / "peers/intake_gen.py").resolve())], cwd=work, check=True)
    for _ in range(arguments.rounds):
        for name in arguments.formats.split(","):
            print(json.dumps(ours(hokusai, (work / f"in.{name}").resolve())), flush=True)
            print(json.dumps(theirs(work, name)), flush=True)


if __name__ == "__main__":
    main()

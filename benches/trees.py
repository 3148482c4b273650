#!/usr/bin/env python3
"""Boosted trees beside LightGBM on the same split, in the same run, in turn.

    trees.py LEARN_PARQUET WORK_DIR [--datasets flights,adult] [--rounds N] [--threads 1,2]

LEARN_PARQUET is examples/learn_parquet.rs, built with --release. Both learn 200 trees of 31 leaves at a learning rate of 0.1 from the tables that
peers/flights_split.py makes, and are judged by it. CPU seconds are user + system of all threads; ours hold encoding, binning and
training, LightGBM's binning and training. Prints a JSON line per program and round, and last the ratios of the medians. Ours must write
the same artefact in every round and with every number of threads.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SPLIT = HERE / "peers" / "flights_split.py"


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def ours(learn, folder, dataset, threads):
    scores = folder / "ours.csv"
    result = run(learn, folder / "train.parquet", folder / "test.parquet", "label", scores, "trees", "{}", threads)
    judged = run(sys.executable, SPLIT, folder, "--dataset", dataset, "--score", scores)
    return {"program": "hokusai", **judged, **result}


def theirs(folder, dataset, threads):
    result = run(sys.executable, SPLIT, folder, "--dataset", dataset, "--lightgbm", "--threads", threads)
    return {"program": "lightgbm", **result}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("learn", type=pathlib.Path)
    a.add_argument("work", type=pathlib.Path)
    a.add_argument("--datasets", default="flights,adult")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", default="1,2")
    a = a.parse_args()
    for dataset in a.datasets.split(","):
        folder = a.work / dataset
        run(sys.executable, SPLIT, folder, "--dataset", dataset)
        artefacts, wall = set(), {}
        for threads in a.threads.split(","):
            rounds = {"hokusai": [], "lightgbm": []}
            for _ in range(a.rounds):
                for result in (theirs(folder, dataset, threads), ours(a.learn, folder, dataset, threads)):
                    print(json.dumps(result), flush=True)
                    rounds[result["program"]].append(result)
            artefacts |= {r["artefact_sha256"] for r in rounds["hokusai"]}
            wall[threads] = statistics.median(r["train_wall_s"] for r in rounds["hokusai"])
            median = {p: {k: statistics.median(r[k] for r in rs) for k in ("auroc", "train_cpu_s", "score_cpu_s", "peak_mb")}
                      for p, rs in rounds.items()}
            mine, peer = median["hokusai"], median["lightgbm"]
            print(json.dumps({"dataset": dataset, "threads": int(threads), "auroc_ours_minus_lightgbm": round(mine["auroc"] - peer["auroc"], 6),
                              "train_cpu_ratio": round(mine["train_cpu_s"] / peer["train_cpu_s"], 2),
                              "score_cpu_ratio": round(mine["score_cpu_s"] / max(peer["score_cpu_s"], .01), 2),
                              "peak_mb_ours": mine["peak_mb"]}), flush=True)
        if len(artefacts) != 1:
            sys.exit(f"{dataset}: {len(artefacts)} different artefacts; there must be one")
        one, *more = wall.values()
        print(json.dumps({"dataset": dataset, "artefact_sha256": artefacts.pop(), "wall_speed_up": [round(one / w, 2) for w in more]}), flush=True)


if __name__ == "__main__":
    main()

"""An external trainer: takes jobs from Kafka, learns with XGBoost, answers with a model in Hokusai's own form.

    trainer.py BROKERS PREFIX TRAINING_RUN.avsc [MODEL [JOBS]]

PREFIX is that of the topics, MODEL whose jobs it takes (all without it), JOBS after how many it ends. `hokusai` (or $HOKUSAI) moves files
between the store and this machine; the environment says where the store is (HOKUSAI_STORE, HOKUSAI_DATA).
"""
import io
import json
import os
import struct
import subprocess
import sys
import tempfile

import fastavro
import numpy as np
import pyarrow.parquet as pq
import xgboost as xgb
from confluent_kafka import Consumer

OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}
PARTS = ["year", "month", "day", "weekday", "hour", "minute", "epoch_day"]


def hokusai(*arguments):
    subprocess.run([os.environ.get("HOKUSAI", "hokusai"), *arguments], check=True, stdout=subprocess.DEVNULL)


def train(job, table):
    """The booster, what all its scores start from, and its metric on the fold that judges."""
    rows, params = job["rows"], job["params"]
    features = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in rows["features"]])
    labels = table[rows["label"]].to_numpy()
    judges = table[rows["fold"]].to_numpy(zero_copy_only=False) == "validation"
    base = float(np.float32(labels[~judges].mean())) if job["task"] == "regression" else 0.5
    settings = {"objective": OBJECTIVES[job["task"]], "seed": job["seed"] % 2**31, "base_score": base, "tree_method": "hist"}
    settings |= {name: params[name] for name in ("eta", "max_depth", "min_child_weight", "subsample") if name in params}
    if job["task"] == "multiclass":
        settings["num_class"] = len(job["classes"])
    booster = xgb.train(settings, xgb.DMatrix(features[~judges], labels[~judges]), params.get("rounds", 100))
    metric = booster.eval(xgb.DMatrix(features[judges], labels[judges])).split("\t")[1].split(":")
    return booster, [base] if job["task"] == "regression" else [0.0] * settings.get("num_class", 1), metric


def packed(items):
    return struct.pack("<I", len(items)) + b"".join(items)


def text(value):
    return packed([bytes([byte]) for byte in value.encode()])


def native(job, features, booster, base):
    """The artefact: magic, version, task, features, trees; see `src/ml/artefact.rs`."""
    out = b"HKML" + struct.pack("<H", 1)
    out += b"\0" if job["task"] == "regression" else b"\1" + packed([text(name) for name in job["classes"]])
    kinds = {
        "number": lambda feature: b"\0",
        "category": lambda feature: b"\1" + packed([text(level) for level in feature.get("levels", [])]),
        "time": lambda feature: b"\2" + bytes([PARTS.index(feature["part"])]),
    }
    out += packed([text(feature["column"]) + kinds[feature["kind"]](feature) for feature in features])
    dump = [tree(json.loads(one), features) for one in booster.get_dump(dump_format="json")]
    return out + b"\0" + packed([struct.pack("<f", value) for value in base]) + packed(dump)


def tree(root, features):
    """Parents before children. XGBoost goes left below a threshold, Hokusai at most at one; of a category it wants the set of its codes."""
    nodes, sets, leaves = [], [], []
    def place(at):
        if "leaf" in at:
            leaves.append(struct.pack("<f", at["leaf"]))
            return -len(leaves)
        own = len(nodes)
        nodes.append(None)
        feature, threshold = int(at["split"][1:]), np.float32(at["split_condition"])
        missing = at["missing"] == at["yes"]
        if features[feature]["kind"] == "category":
            codes = sum(1 << code for code in range(255) if code < threshold)
            test = struct.pack("<BI", missing | 2, len(sets))
            sets.append(codes.to_bytes(32, "little"))
        else:
            test = struct.pack("<Bf", missing, np.nextafter(threshold, np.float32(-np.inf)))
        children = {child["nodeid"]: child for child in at["children"]}
        left, right = place(children[at["yes"]]), place(children[at["no"]])
        nodes[own] = struct.pack("<H", feature) + test + struct.pack("<ii", left, right)
        return own
    place(root)
    return packed(nodes) + packed(sets) + packed(leaves)


def work(run_id):
    with tempfile.TemporaryDirectory() as folder:
        hokusai("train", "job", run_id, "--output", folder)
        job = json.load(open(f"{folder}/job.json", encoding="utf-8"))
        features = json.load(open(f"{folder}/encoding.json", encoding="utf-8"))["features"]
        try:
            booster, base, (metric, value) = train(job, pq.read_table(f"{folder}/rows.parquet"))
        except Exception as error:
            return hokusai("train", "answer", run_id, "--error", f"{type(error).__name__}: {error}"[:1000])
        with open(f"{folder}/model", "wb") as file:
            file.write(native(job, features, booster, base))
        hokusai("train", "answer", run_id, "--artefact", f"{folder}/model", "--metric", f"{metric.split('-')[-1]}={value}", "--wait")


def main(brokers, prefix, schema, model="", jobs="0"):
    schema = fastavro.schema.load_schema(schema)
    settings = {"bootstrap.servers": brokers, "group.id": f"{prefix}external-{model}", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | {"isolation.level": "read_committed", "enable.auto.commit": False})
    consumer.subscribe([f"{prefix}training.runs"])
    left, done = int(jobs) or -1, set()
    while left:
        message = consumer.poll(1)
        if message is None or message.error() or message.value() is None:
            continue
        header = 10 if message.value()[:2] == b"\xc3\x01" else 5  # single-object encoding, or Confluent framing
        run = fastavro.schemaless_reader(io.BytesIO(message.value()[header:]), schema)
        if run["status"] == "waiting" and run["run_id"] not in done and model in ("", run["model"]):
            work(run["run_id"])
            done.add(run["run_id"])
            left -= 1
        consumer.commit(message)  # behind the answer: a job may be done twice, and the second answer changes nothing
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""An external trainer: takes jobs from Kafka, learns with scikit-learn, answers with a model in ONNX.

    trainer.py BROKERS PREFIX TRAINING_RUN.avsc [MODEL [JOBS]]

PREFIX is that of the topics, MODEL whose jobs it takes (all without it), JOBS after how many it ends. `hokusai` (or $HOKUSAI) moves files
between the store and this machine; the environment says where the store is (HOKUSAI_STORE, HOKUSAI_DATA).
"""
import io
import json
import os
import subprocess
import sys
import tempfile

import fastavro
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, root_mean_squared_error

TAKEN = ("max_iter", "learning_rate", "max_leaf_nodes", "max_depth", "min_samples_leaf", "l2_regularization")


def hokusai(*arguments):
    subprocess.run([os.environ.get("HOKUSAI", "hokusai"), *arguments], check=True, stdout=subprocess.DEVNULL)


def train(job, table, folder):
    """Writes the model and rows with its own runtime's predictions; its metric on the fold that judges."""
    rows = job["rows"]
    x = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in rows["features"]]).astype(np.float32)
    y = table[rows["label"]].to_numpy()
    judges = table[rows["fold"]].to_numpy(zero_copy_only=False) == "validation"
    params = {name: value for name, value in job["params"].items() if name in TAKEN}
    learner = HistGradientBoostingRegressor if job["task"] == "regression" else HistGradientBoostingClassifier
    model = learner(random_state=job["seed"] % 2**32, early_stopping=False, **params).fit(x[~judges], y[~judges])
    options = {} if job["task"] == "regression" else {"zipmap": False}
    file = to_onnx(model, x[:1], options={id(model): options}, target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString()
    with open(f"{folder}/model.onnx", "wb") as out:
        out.write(file)
    scores = onnxruntime.InferenceSession(file).run(None, {"X": x[:1000]})[-1]
    names = {"binary": ["prediction"], "regression": ["prediction"]}.get(job["task"]) or [f"p_{name}" for name in job["classes"]]
    scores = scores[:, -1:] if job["task"] == "binary" else scores.reshape(len(scores), -1)
    columns = {name: pa.array(x[:1000, i], from_pandas=True) for i, name in enumerate(rows["features"])}
    pq.write_table(pa.table(columns | {name: scores[:, i] for i, name in enumerate(names)}), f"{folder}/conformance.parquet")
    if job["task"] == "regression":
        return "rmse", root_mean_squared_error(y[judges], model.predict(x[judges]))
    return "log_loss", log_loss(y[judges], model.predict_proba(x[judges]), labels=model.classes_)


def work(run_id):
    with tempfile.TemporaryDirectory() as folder:
        hokusai("train", "job", run_id, "--output", folder)
        with open(f"{folder}/job.json", encoding="utf-8") as file:
            job = json.load(file)
        try:
            metric, value = train(job, pq.read_table(f"{folder}/rows.parquet"), folder)
        except Exception as error:
            return hokusai("train", "answer", run_id, "--error", f"{type(error).__name__}: {error}"[:1000])
        files = ["--artefact", f"{folder}/model.onnx", "--conformance", f"{folder}/conformance.parquet"]
        hokusai("train", "answer", run_id, *files, "--metric", f"{metric}={value:.9f}", "--wait")


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

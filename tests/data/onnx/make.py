"""Small models of scikit-learn, XGBoost and LightGBM as ONNX, with inputs and what onnxruntime makes of them.

    pip install scikit-learn skl2onnx onnxmltools xgboost lightgbm onnxruntime
    python make.py [FOLDER]

Each NAME.onnx comes with NAME.csv: the features a to d (empty where missing) and `prediction` or p_0, p_1, ...
"""

import csv
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import skl2onnx.common._container
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as OtherFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

FEATURES = ["a", "b", "c", "d"]
OPSETS = {"": 15, "ai.onnx.ml": 3}

random = np.random.default_rng(7)
X = np.round(random.normal(size=(400, 4)), 1).astype(np.float32)
NUMBER = (3 * X[:, 0] - 2 * X[:, 1] * X[:, 2] + np.sin(X[:, 3]) + 10).astype(np.float32)
TWO = (NUMBER > 10).astype(np.int64)
THREE = np.digitize(NUMBER, [8.5, 11.5]).astype(np.int64)
HOLES = X.copy()
HOLES[random.random(X.shape) < 0.15] = np.nan


# The converter of histogram boosting mixes NumPy's integers with Python's, which ONNX's helper refuses.
plain_node = onnx.helper.make_node


def make_node(*arguments, **attributes):
    for key, value in attributes.items():
        if isinstance(value, list):
            attributes[key] = [int(v) if isinstance(v, (np.integer, np.bool_, bool)) else v for v in value]
    return plain_node(*arguments, **attributes)


onnx.helper.make_node = make_node
skl2onnx.common._container.make_node = make_node


def rows(holes, thresholds):
    """48 rows: some of training (their values stand at thresholds' edges), thresholds themselves, values far away, missing ones."""
    chosen = (HOLES if holes else X)[:32].copy()
    edges = np.zeros((16, 4), np.float32)
    for i in range(16):
        for j in range(4):
            own = thresholds.get(j) or [0.0]
            edges[i, j] = own[i % len(own)]
    edges[14], edges[15] = 1e6, -1e6
    if holes:
        edges[13] = np.nan
    return np.vstack([chosen, edges]).astype(np.float32)


def thresholds(model):
    found = {}
    for node in model.graph.node:
        own = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for feature, value, mode in zip(
            own.get("nodes_featureids", []), own.get("nodes_values", []), own.get("nodes_modes", [])
        ):
            if mode != b"LEAF":
                found.setdefault(feature, []).append(value)
    return found


def keep(folder, name, model, holes, classes):
    data = model.SerializeToString()
    inputs = rows(holes, thresholds(model))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    outputs = session.run(None, {given[0].name: inputs})
    out = outputs[1] if classes else outputs[0]
    if classes and isinstance(out, list):
        out = [[row[key] for key in sorted(row)] for row in out]
    out = np.asarray(out, np.float64).reshape(len(inputs), -1)
    heads = [f"p_{i}" for i in range(classes)] if classes else ["prediction"]
    (folder / f"{name}.onnx").write_bytes(data)
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FEATURES + heads)
        for row, values in zip(inputs, out):
            cells = ["" if math.isnan(v) else repr(float(v)) for v in row]
            writer.writerow(cells + [repr(float(v)) for v in values])
    print(name, len(data), sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node}))


def sklearn(estimator, target, holes=False, zipmap=True, **options):
    inputs = HOLES if holes else X
    estimator.fit(inputs, target)
    chosen = {} if zipmap else {"options": {id(estimator): {"zipmap": False}}}
    return to_onnx(
        estimator, initial_types=[("X", FloatTensorType([None, 4]))], target_opset=OPSETS, **chosen, **options
    )


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    small = {"n_estimators": 4, "max_depth": 3, "random_state": 1}
    few = {"max_iter": 4, "max_leaf_nodes": 6, "min_samples_leaf": 10}
    net = {"hidden_layer_sizes": (5, 3), "max_iter": 60, "random_state": 1}
    gap = {"missing": float("nan"), "n_estimators": 4, "max_depth": 3}
    leaf = {"n_estimators": 4, "num_leaves": 6, "verbose": -1}
    kind = [("X", OtherFloat([None, 4]))]

    def xgb(estimator, target):
        return convert_xgboost(estimator.fit(HOLES, target), initial_types=kind, target_opset=13)

    def lgbm(estimator, target, **options):
        return convert_lightgbm(estimator.fit(HOLES, target), initial_types=kind, target_opset=13, **options)

    made = [
        ("logistic_two", sklearn(make_pipeline(StandardScaler(), LogisticRegression()), TWO), False, 2),
        ("logistic_three", sklearn(LogisticRegression(), THREE, zipmap=False), False, 3),
        ("linear", sklearn(make_pipeline(MinMaxScaler(), LinearRegression()), NUMBER), False, 0),
        ("normalised", sklearn(make_pipeline(Normalizer(), LogisticRegression()), TWO), False, 2),
        ("imputed", sklearn(make_pipeline(SimpleImputer(), LogisticRegression()), TWO, holes=True), True, 2),
        ("tree_three", sklearn(DecisionTreeClassifier(max_depth=4), THREE), False, 3),
        ("forest_two", sklearn(RandomForestClassifier(**small), TWO), False, 2),
        ("forest_number", sklearn(RandomForestRegressor(**small), NUMBER), False, 0),
        ("boosting_two", sklearn(GradientBoostingClassifier(**small), TWO), False, 2),
        ("boosting_three", sklearn(GradientBoostingClassifier(**small), THREE), False, 3),
        ("boosting_number", sklearn(GradientBoostingRegressor(**small), NUMBER), False, 0),
        ("histogram_two", sklearn(HistGradientBoostingClassifier(**few), TWO, holes=True), True, 2),
        ("histogram_three", sklearn(HistGradientBoostingClassifier(**few), THREE, holes=True), True, 3),
        ("histogram_number", sklearn(HistGradientBoostingRegressor(**few), NUMBER, holes=True), True, 0),
        ("network_two", sklearn(MLPClassifier(activation="tanh", **net), TWO), False, 2),
        ("network_three", sklearn(MLPClassifier(**net), THREE), False, 3),
        ("network_number", sklearn(MLPRegressor(activation="logistic", **net), NUMBER), False, 0),
        ("xgboost_two", xgb(XGBClassifier(**gap), TWO), True, 2),
        ("xgboost_three", xgb(XGBClassifier(**gap), THREE), True, 3),
        ("xgboost_number", xgb(XGBRegressor(**gap), NUMBER), True, 0),
        ("lightgbm_two", lgbm(LGBMClassifier(**leaf), TWO), True, 2),
        ("lightgbm_three", lgbm(LGBMClassifier(**leaf), THREE, zipmap=False), True, 3),
        ("lightgbm_number", lgbm(LGBMRegressor(**leaf), NUMBER), True, 0),
    ]
    for name, model, holes, classes in made:
        keep(folder, name, model, holes, classes)


if __name__ == "__main__":
    main()

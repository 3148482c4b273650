"""Writes paired_deltas.json: deltas and their standard errors with scikit-learn and scipy alone.

The delta method's standard error comes from numerical derivatives of scikit-learn's metrics by the rows' weights (the infinitesimal
jackknife, Efron 1982, §6), so no influence function is written down here.
"""

import json
import sys

import numpy as np
import scipy
import sklearn
from scipy import stats
from sklearn import metrics as m

rng = np.random.default_rng(20)


def influence(metric, n):
    step = 1e-5
    values = np.empty(n)
    for row in range(n):
        up, down = np.ones(n), np.ones(n)
        up[row] += step
        down[row] -= step
        values[row] = n * (metric(up) - metric(down)) / (2 * step)
    return values


def linear(higher, metric, n):
    """metric(column, weights) of both models; the improvement, its standard error and one-sided p."""
    sign = 1 if higher else -1
    ones = np.ones(n)
    base, cand = metric("baseline", ones), metric("candidate", ones)
    psi = sign * (influence(lambda w: metric("candidate", w), n) - influence(lambda w: metric("baseline", w), n))
    error = np.sqrt(((psi - psi.mean()) ** 2).sum() / n / (n - 1))
    delta = sign * (cand - base)
    return {"baseline": base, "candidate": cand, "delta": delta, "standard_error": error, "p": stats.norm.sf(delta / error)}


def student(base, cand):
    """Losses per row of both models."""
    test = stats.ttest_rel(base, cand, alternative="greater")
    low = test.confidence_interval(0.999).low
    return {"baseline": base.mean(), "candidate": cand.mean(), "delta": (base - cand).mean(),
            "standard_error": stats.sem(base - cand), "p": test.pvalue, "lower_999": low}


def regression(n):
    y = np.round(rng.gamma(2, 10, n), 3)
    s = {"baseline": np.round(y + rng.normal(0, 6, n), 3), "candidate": np.round(y + rng.normal(0.5, 5, n), 3)}
    absolute = {k: np.abs(v - y) for k, v in s.items()}
    square = {k: (v - y) ** 2 for k, v in s.items()}
    return {"task": "regression", "y": y.tolist(), **{k: v.tolist() for k, v in s.items()}, "metrics": {
        "mae": student(absolute["baseline"], absolute["candidate"]),
        "mse": student(square["baseline"], square["candidate"]),
        "rmse": linear(False, lambda k, w: m.root_mean_squared_error(y, s[k], sample_weight=w), n),
        "r2": linear(True, lambda k, w: m.r2_score(y, s[k], sample_weight=w), n)}}


def binary(n):
    y = (rng.random(n) < 0.4).astype(int)
    s = {k: np.round(1 / (1 + np.exp(-(rng.normal(0, 1, n) + gain * (y - 0.4)))), 4)
         for k, gain in [("baseline", 1.0), ("candidate", 1.5)]}
    h = {k: (v >= 0.5).astype(int) for k, v in s.items()}
    loss = {k: -np.log(np.where(y == 1, v, 1 - v)) for k, v in s.items()}
    brier = {k: (v - y) ** 2 for k, v in s.items()}
    counts = {"f1": m.f1_score, "precision": m.precision_score, "recall": m.recall_score,
              "f1_macro": lambda a, b, sample_weight: m.f1_score(a, b, average="macro", sample_weight=sample_weight)}
    return {"task": "binary", "y": y.tolist(), **{k: v.tolist() for k, v in s.items()}, "metrics": {
        "log_loss": student(loss["baseline"], loss["candidate"]),
        "brier": student(brier["baseline"], brier["candidate"]),
        **{name: linear(True, lambda k, w, f=f: f(y, h[k], sample_weight=w), n) for name, f in counts.items()}}}


def multiclass(n, classes):
    y = rng.integers(0, classes, n)
    s = {}
    for k, gain in [("baseline", 0.8), ("candidate", 1.3)]:
        z = rng.normal(0, 1, (n, classes)) + gain * np.eye(classes)[y]
        p = np.round(np.exp(z) / np.exp(z).sum(1, keepdims=True), 5)
        p[:, 0] = np.round(1 - p[:, 1:].sum(1), 5)
        s[k] = p
    h = {k: v.argmax(1) for k, v in s.items()}
    loss = {k: -np.log(v[np.arange(n), y]) for k, v in s.items()}
    macro = linear(True, lambda k, w: m.f1_score(y, h[k], average="macro", sample_weight=w), n)
    return {"task": "multiclass", "classes": classes, "y": y.tolist(), **{k: v.ravel().tolist() for k, v in s.items()},
            "metrics": {"f1_macro": macro, "log_loss": student(loss["baseline"], loss["candidate"])}}


cases = [regression(80), regression(300), binary(120), binary(400), multiclass(150, 3), multiclass(300, 5)]
out = {"source": __doc__.strip(), "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__},
       "seed": 20, "cases": cases}
json.dump(out, open(sys.argv[1], "w"), default=float, separators=(",", ":"))

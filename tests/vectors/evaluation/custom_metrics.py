"""Writes custom_metrics.json: declared metrics computed by DuckDB from the same SQL, compared by scipy alone.

Values of rows come from DuckDB, rounded to 10^-6; the paired t test with its lower bound from scipy.stats.ttest_rel, the BCa interval from
scipy.stats.bootstrap with resamples enough that its own error is small beside the standard error.
"""

import json
import pathlib
import sys

import duckdb
import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(40)
N = 400

TWO = {  # direction, SQL
    "cost_of_delay": ("lower", "CASE WHEN label AND score < 0.3 THEN 5 WHEN NOT label AND score >= 0.3 THEN 1 ELSE 0 END"),
    "profit": ("higher", "CASE WHEN predicted = label THEN coalesce(amount, 0) / 100 ELSE -abs(coalesce(amount, 0)) / 3 END"),
    "focal_loss": (
        "lower",
        "CASE WHEN label THEN -power(1 - score, 2) * ln(greatest(score, 0.001)) "
        "ELSE -power(score, 2) * ln(greatest(1 - score, 0.001)) END",
    ),
    "weekend_hits": (
        "higher",
        "CASE WHEN date_part('dow', seen) IN (0, 6) AND lower(region) LIKE 'n%' AND (score >= 1/2) = label THEN 2 "
        "WHEN length(region) % 2 = 1 THEN exp(-abs(score - 1/4)) ELSE 1/8 END",
    ),
}
NUMBER = {
    "pinball": ("lower", "CASE WHEN label >= score THEN 0.9 * (label - score) ELSE 0.1 * (score - label) END"),
    "relative_error": ("lower", "abs(label - score) / greatest(abs(label), 1)"),
    "within_ten": ("higher", "CASE WHEN abs(label - score) <= 10 THEN 1 ELSE 0 END"),
    "log_error": ("lower", "sqrt(abs(log10(1 + abs(label)) - log10(1 + abs(score)))) + floor(score / 7) * 0.001"),
}


def columns():
    region = rng.choice(["North", "south", "nE", "western"], N)
    day = rng.integers(0, 400, N)
    seen = [f"2024-01-01T00:00:00Z" if d == 0 else str(np.datetime64("2024-01-01") + d) + "T06:30:00Z" for d in day]
    amount = [None if rng.random() < 0.1 else round(float(a), 2) for a in rng.gamma(2, 150, N)]
    return {"region": region.tolist(), "seen": seen, "amount": amount, "count": rng.integers(-3, 9, N).tolist()}


def values(sql, rows, score, predicted):
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    kind = "BOOLEAN" if isinstance(rows["label"][0], bool) else "DOUBLE"
    con.execute(f"create table t (i INT, label {kind}, score DOUBLE, predicted {kind}, region TEXT, seen TIMESTAMP, "
                "amount DOUBLE, count DOUBLE)")
    names = ["label", "region", "seen", "amount", "count"]
    con.executemany("insert into t values (?, ?, ?, ?, ?, ?, ?, ?)", [
        [i, rows["label"][i], score[i], predicted[i] if predicted else None, rows["region"][i], rows["seen"][i].rstrip("Z"),
         rows["amount"][i], rows["count"][i]] for i in range(N)])
    own = [float(v) for (v,) in con.execute(f"select ({sql})::DOUBLE from t order by i").fetchall()]
    return np.round(np.array(own), 6)


def compared(direction, base, cand):
    gain = cand - base if direction == "higher" else base - cand
    test = stats.ttest_rel(cand if direction == "higher" else base, base if direction == "higher" else cand, alternative="greater")
    boot = stats.bootstrap((gain,), np.mean, n_resamples=100_000, method="BCa", rng=np.random.default_rng(1), batch=1000)
    interval = boot.confidence_interval
    return {"baseline": base.mean(), "candidate": cand.mean(), "delta": gain.mean(), "standard_error": stats.sem(gain),
            "p": test.pvalue, "lower_95": test.confidence_interval(0.95).low, "lower_999": test.confidence_interval(0.999).low,
            "bca95": [interval.low, interval.high]}


def case(metrics, label, base, cand, predict):
    rows = {"label": label, **columns()}
    out = {"rows": rows, "baseline": base, "candidate": cand, "metrics": {}}
    for name, (direction, sql) in metrics.items():
        own = [values(sql, rows, score, predict and [predict(s) for s in score]) for score in (base, cand)]
        out["metrics"][name] = {"direction": direction, "value": sql, "values": [v.tolist() for v in own],
                                **compared(direction, *own)}
    return out


label = (rng.random(N) < 0.3).tolist()
score = lambda noise: np.round(np.clip(np.array(label) * 0.35 + 0.25 + rng.normal(0, noise, N), 0, 1), 6).tolist()
two = case(TWO, label, score(0.3), score(0.2), lambda s: s >= 0.5)
number = np.round(rng.normal(40, 25, N), 3)
guess = lambda noise: np.round(number + rng.normal(0, noise, N), 6).tolist()
one = case(NUMBER, number.tolist(), guess(12), guess(10), None)
made = {"versions": {"python": sys.version.split()[0], "duckdb": duckdb.__version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "cases": {"two": two, "number": one}}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(made, indent=None, separators=(",", ":")) + "\n")

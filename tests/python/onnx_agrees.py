"""Scores exported models in onnxruntime: onnx_agrees.py FOLDER → {"name": greatest difference, …} on stdout.

FOLDER holds NAME.onnx, NAME.features (float32, row-major) and NAME.expected (float64, row-major). Differences of numbers (not chances) are
relative to the expected number where that is above 1.
"""
import json
import pathlib
import sys

import numpy as np
import onnxruntime

differences = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    width = session.get_inputs()[0].shape[1]
    features = np.fromfile(path.with_suffix(".features"), "<f4").reshape(-1, width)
    expected = np.fromfile(path.with_suffix(".expected"), "<f8").reshape(len(features), -1)
    *label, found = session.run(None, {"features": features})
    if label:
        assert found.shape[1] >= 2 and (found.sum(axis=1) - 1 < 1e-4).all(), path
        found = found[:, found.shape[1] - expected.shape[1]:]
        difference = np.abs(found - expected)
    else:
        difference = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert not np.isnan(difference).any(), path
    differences[path.stem] = float(difference.max())
print(json.dumps(differences))

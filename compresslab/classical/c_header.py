r"""A trained model as a C header: constant arrays and one function, nothing else.

On a microcontroller there is no interpreter, no allocator and no file: a model is constants in flash, and
``predict`` is a loop over them. ``emit_header`` writes both for a Bonsai, a ProtoNN or a small decision tree.
Weights of few bits stay whole numbers (``int8_t``), with one scale for each matrix.

Numbers are written so that C reads back the same bits: nine significant digits for a float32, the smallest
integer type that holds the values.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from compresslab.classical.bonsai import BonsaiClassifier
from compresslab.classical.prototypes import ProtoNNClassifier
from compresslab.classical.size import model_arrays, smallest
from compresslab.classical.stored_matrix import FLOAT, codes_of

Constants = dict[str, NDArray]

TREE = """    int i = 0;
    while (feature[i] >= 0) {
        if (x[feature[i]] <= threshold[rank[i]]) i += 1;
        else i = right[rank[i]];
    }
    return leaf[i - rank[i]];
"""

PROTONN = """    float p[DIMENSIONS], score[CLASSES] = {0};
    for (int r = 0; r < DIMENSIONS; r++) {
        p[r] = 0;
        for (int c = 0; c < FEATURES; c++) p[r] += (float)W[r * FEATURES + c] * x[c];
        p[r] *= scale_W;
    }
    for (int j = 0; j < PROTOTYPES; j++) {
        float squared = 0;
        for (int r = 0; r < DIMENSIONS; r++) {
            float gap = p[r] - (float)B[j * DIMENSIONS + r] * scale_B;
            squared += gap * gap;
        }
        float near = expf(-gamma_squared * squared);
        for (int l = 0; l < CLASSES; l++) score[l] += near * (float)Z[j * CLASSES + l];
    }
"""

BONSAI = """    float p[DIMENSIONS], score[CLASSES] = {0};
    for (int r = 0; r < DIMENSIONS; r++) {
        p[r] = (float)Z[r * (FEATURES + 1) + FEATURES];
        for (int c = 0; c < FEATURES; c++) p[r] += (float)Z[r * (FEATURES + 1) + c] * ((x[c] - centre) / spread);
        p[r] *= scale_Z;
    }
    for (int k = 0; k < NODES;) {
        for (int l = 0; l < CLASSES; l++) {
            float vote = 0, gate = 0;
            for (int r = 0; r < DIMENSIONS; r++) {
                vote += p[r] * (float)W[(k * DIMENSIONS + r) * CLASSES + l];
                gate += p[r] * (float)V[(k * DIMENSIONS + r) * CLASSES + l];
            }
            score[l] += vote * tanhf(gate * gate_scale);
        }
        float side = 0;
        if (k < INNER) for (int r = 0; r < DIMENSIONS; r++) side += p[r] * (float)theta[k * DIMENSIONS + r];
        k = 2 * k + (side > 0 ? 2 : 1);
    }
"""

LARGEST = """    int best = 0;
    for (int l = 1; l < CLASSES; l++) if (score[l] > score[best]) best = l;
    return best;
"""

MAIN = """#include <stdio.h>
#include "model.h"
int main(void) {
    float x[FEATURES];
    while (fread(x, sizeof(float), FEATURES, stdin) == FEATURES) printf("%d\\n", predict(x));
    return 0;
}
"""


def c_table(name: str, values: NDArray) -> str:
    """One constant array in C.

    Args:
        name: of the array.
        values: any shape, written row after row. Integers get the smallest type that holds them; reals become
            float with nine significant digits, which determine a float32.

    Returns:
        one line.

    Raises:
        ValueError: nan or infinity, which C has no literal for, or no values.

    Example:
        >>> c_table("limit", np.array([1.0, 0.25]))
        'static const float limit[2] = {1.0f, 0.25f};'
        >>> c_table("feature", np.array([-1, 130]))
        'static const int16_t feature[2] = {-1, 130};'
    """
    values = np.asarray(values)
    if not values.size:
        raise ValueError(f"C has no empty arrays: {name} has no values")
    if values.dtype.kind in "iub":
        numbers = smallest(values)
        kind, words = f"{numbers.dtype.name}_t", map(str, numbers.ravel().tolist())
    else:
        if not np.isfinite(values).all():
            raise ValueError(f"C has no literal for nan or infinity, as in {name}")
        kind, words = "float", map(_literal, values.astype(np.float32).ravel())
    return f"static const {kind} {name}[{values.size}] = {{{', '.join(words)}}};"


def _literal(number: np.float32) -> str:
    text = f"{number:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def emit_header(model: BaseEstimator, table: Callable[[str, NDArray], str] = c_table) -> str:
    """A trained model as the text of a C header with ``int predict(const float *x)``.

    Args:
        model: a fitted ``BonsaiClassifier``, ``ProtoNNClassifier`` or scikit-learn ``DecisionTreeClassifier``.
        table: writes one array, as ``c_table`` does.

    Returns:
        C99. ``predict`` returns the *number* of the class, an index into ``model.classes_``.

    Raises:
        TypeError: another kind of model. NotFittedError: it is not fitted.
    """
    check_is_fitted(model)
    for kind, parts in ((DecisionTreeClassifier, _tree_parts), (ProtoNNClassifier, _protonn_parts), (BonsaiClassifier, _bonsai_parts)):
        if isinstance(model, kind):
            sizes, scalars, arrays, body = parts(model)
            break
    else:
        raise TypeError(f"a header can hold a Bonsai, a ProtoNN or a decision tree, got {type(model).__name__}")
    lines = ["#include <stdint.h>", "#include <math.h>", "", *(f"#define {name} {value}" for name, value in sizes.items()), ""]
    lines += [f"static const float {name} = {_literal(np.float32(value))};" for name, value in scalars.items()]
    lines += [table(name, values) for name, values in arrays.items()]
    return "\n".join((*lines, "", "int predict(const float *x) {", body + "}", ""))


Parts = tuple[dict[str, int], dict[str, float], Constants, str]


def _tree_parts(tree: DecisionTreeClassifier) -> Parts:
    """The stored arrays, and ``rank``: how many inner nodes stand before each node."""
    arrays = model_arrays(tree)
    inner = arrays["feature"] >= 0
    tables = {"feature": arrays["feature"], "rank": smallest(np.cumsum(inner) - inner)}
    tables |= {name: arrays[name] for name in ("threshold", "right", "leaf")}
    if not inner.any():  # C has no empty arrays
        tables |= {"threshold": np.zeros(1, np.float32), "right": np.zeros(1, np.int8)}
    return {"FEATURES": tree.n_features_in_}, {}, tables, TREE


def _protonn_parts(model: ProtoNNClassifier) -> Parts:
    (d, features), (m, labels) = model.W_.shape, model.Z_.shape
    sizes = {"FEATURES": features, "DIMENSIONS": d, "PROTOTYPES": m, "CLASSES": labels}
    arrays, scales = _coded({"W": model.W_, "B": model.B_, "Z": model.Z_}, model.bits)
    scalars = {"scale_W": scales["W"], "scale_B": scales["B"], "gamma_squared": model.gamma_**2}  # Z needs none for a maximum
    return sizes, scalars, arrays, PROTONN + LARGEST


def _bonsai_parts(model: BonsaiClassifier) -> Parts:
    nodes, d, labels = model.W_.shape
    inner = len(model.theta_)
    sizes = {"FEATURES": model.n_features_in_, "DIMENSIONS": d, "NODES": nodes, "INNER": inner, "CLASSES": labels}
    theta = model.theta_ if inner else np.zeros((1, 1), np.float32)
    arrays, scales = _coded({"Z": model.Z_, "theta": theta, "W": model.W_, "V": model.V_}, model.bits)
    scalars = {"scale_Z": scales["Z"], "gate_scale": model.sigma * scales["V"], "centre": model.centre_, "spread": model.spread_}
    return sizes, scalars, arrays, BONSAI + LARGEST


def _coded(matrices: Constants, bits: int) -> tuple[Constants, dict[str, float]]:
    """The matrices' whole numbers and their scales; float32 matrices as they are, with scale 1.

    The codes are found again from the decoded values, whose largest is exactly q_max steps.
    """
    if bits == FLOAT:
        return matrices, dict.fromkeys(matrices, 1.0)
    coded = {name: codes_of(matrix, bits) for name, matrix in matrices.items()}
    return {name: codes for name, (codes, _) in coded.items()}, {name: float(scale) for name, (_, scale) in coded.items()}


def compiler() -> str | None:
    """The name of a C compiler on this machine, or None."""
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compile_and_predict(header: str, X: NDArray) -> NDArray[np.int64]:
    """Compile a header and let it classify points.

    Args:
        header: what ``emit_header`` returned.
        X: (n, D), given to C as float32.

    Returns:
        numbers of classes, (n,).

    Raises:
        RuntimeError: there is no C compiler, or it refuses the header; the first complaint is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.c").write_text(MAIN, encoding="utf-8")
        _compile(header, folder, "main.c", "-o", "model", "-lm")
        points = np.ascontiguousarray(X, np.float32).tobytes()
        done = subprocess.run([str(Path(folder, "model"))], input=points, capture_output=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"the compiled model ended with {done.returncode}")
    return np.array(done.stdout.split(), np.int64)


def flash_bytes(header: str) -> dict[str, int]:
    """What the compiled model takes, by section: ``constants`` (read-only data) and ``code``.

    The compiler may keep a scalar inside an instruction, and pads arrays; expect a few bytes of difference to
    the sum of the arrays.

    Raises:
        RuntimeError: there is no C compiler, or no ``size`` command.
    """
    if not shutil.which("size"):
        raise RuntimeError("there is no `size` command on this machine to read an object file with")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "only.c").write_text('#include "model.h"\n', encoding="utf-8")
        _compile(header, folder, "-c", "only.c", "-o", "only.o")
        listing = subprocess.run(["size", "-A", str(Path(folder, "only.o"))], capture_output=True, text=True, check=True).stdout
    found = {"constants": 0, "code": 0}
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            if words[0].startswith((".rodata", "__const", ".srodata")):
                found["constants"] += int(words[1])
            elif words[0].startswith((".text", "__text")):
                found["code"] += int(words[1])
    return found


def _compile(header: str, folder: str, *arguments: str) -> None:
    """Run the compiler in a folder that holds the header as model.h."""
    if (name := compiler()) is None:
        raise RuntimeError("there is no C compiler on this machine (cc, gcc or clang)")
    Path(folder, "model.h").write_text(header, encoding="utf-8")
    command = [name, "-std=c99", "-Os", "-ffp-contract=off", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"the compiler refuses the header: {next((line for line in done.stderr.splitlines() if 'error' in line), done.stderr[:200])}")

"""C headers: every prediction equal to Python's after compiling, tables exact, sizes those of the arrays."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical import c_header
from compresslab.classical.bonsai import BonsaiClassifier
from compresslab.classical.c_header import c_table, compile_and_predict, compiler, emit_header, flash_bytes
from compresslab.classical.prototypes import ProtoNNClassifier
from compresslab.classical.size import array_bytes, model_arrays

X, y = load_digits(return_X_y=True)
X = X / 16
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler here")

MODELS = {
    "protonn 8": ProtoNNClassifier(epochs=2),
    "protonn 4": ProtoNNClassifier(dimensions=5, per_class=1, bits=4, density=0.4, epochs=2),
    "protonn 32": ProtoNNClassifier(dimensions=5, per_class=1, bits=32, epochs=1),
    "bonsai": BonsaiClassifier(epochs=2),
    "bonsai, one node": BonsaiClassifier(dimensions=4, depth=0, bits=6, epochs=1),
    "bonsai, deep": BonsaiClassifier(dimensions=3, depth=3, bits=32, epochs=1),
    "tree": DecisionTreeClassifier(random_state=0),
    "stump": DecisionTreeClassifier(max_depth=1),
}


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_every_prediction_is_pythons(name):
    model = MODELS[name].fit(X[:700], y[:700])
    header = emit_header(model)
    np.testing.assert_array_equal(model.classes_[compile_and_predict(header, X)], model.predict(X.astype(np.float32)))


@needs_compiler
def test_a_tree_of_one_leaf():
    model = DecisionTreeClassifier().fit(X[:5], np.full(5, 3))
    assert compile_and_predict(emit_header(model), X[:4]).tolist() == [0] * 4


@needs_compiler
def test_constants_in_the_object_file_are_the_arrays():
    model = ProtoNNClassifier(epochs=1).fit(X[:300], y[:300])
    try:
        found = flash_bytes(emit_header(model))
    except RuntimeError as reason:
        pytest.skip(str(reason))
    matrices = sum(model_arrays(model)[name].nbytes for name in "WBZ")
    assert matrices <= found["constants"] <= array_bytes(model_arrays(model)) + 128 and 0 < found["code"] < 4000


def test_the_header_in_the_smallest_types():
    header = emit_header(ProtoNNClassifier(epochs=0).fit(X[:200], y[:200]))
    found = dict(re.findall(r"static const (\w+) (\w+)\[", header))
    assert set(found) <= {"int8_t", "uint8_t"} and "double" not in header and "#define FEATURES 64" in header
    assert len(re.findall(r"int predict\(const float \*x\)", header)) == 1


def test_tables_are_read_back_exactly():
    numbers = np.concatenate([np.random.default_rng(0).standard_normal(500), [1.0, 1e-30, 3e30, -0.0, 1 / 3]]).astype(np.float32)
    line = c_table("a", numbers)
    words = line.split("{")[1].rstrip("};").split(", ")
    assert all(re.fullmatch(r"-?(\d+\.\d*|\d+e[+-]\d+|\d+\.\d+e[+-]\d+)f", word) for word in words)
    np.testing.assert_array_equal(np.array([np.float32(word[:-1]) for word in words]), numbers)
    assert f"[{len(numbers)}]" in line and c_table("b", np.arange(6).reshape(2, 3)).endswith("b[6] = {0, 1, 2, 3, 4, 5};")


def test_another_table_can_be_given():
    header = emit_header(DecisionTreeClassifier(max_depth=2).fit(X, y), table=lambda name, values: f"/* {name} */")
    assert "/* threshold */" in header and "float threshold" not in header


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="C has no empty arrays"):
        c_table("a", np.zeros(0))
    with pytest.raises(ValueError, match="no literal for nan or infinity, as in a"):
        c_table("a", np.array([np.nan]))
    with pytest.raises(TypeError, match="a Bonsai, a ProtoNN or a decision tree, got LogisticRegression"):
        emit_header(LogisticRegression().fit(X[:50], y[:50]))
    monkeypatch.setattr(c_header.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="no C compiler on this machine"):
        compile_and_predict("int x;", X)
    with pytest.raises(RuntimeError, match="no `size` command"):
        flash_bytes("int x;")


@needs_compiler
def test_what_the_compiler_refuses():
    with pytest.raises(RuntimeError, match="the compiler refuses the header: .*error"):
        compile_and_predict("int predict(const float *x) { return 1f; }\n#define FEATURES 2", X[:, :2])

r"""What a classical model weighs: the bytes of the arrays that ``predict`` needs, as they would be stored.

.. math:: \mathrm{bytes} = \mathrm{header} + \sum_{\text{arrays } a} \mathrm{items}(a) \cdot \mathrm{itemsize}(a)

A fitted estimator holds much that a prediction never reads: the training history, impurities, double
precision. A ratio against all that would be flattery. So every model, the uncompressed one too, is counted
by the arrays that its predictions read, real values in float32, whole numbers in the smallest type that holds
them, in one safetensors file with its header.

An estimator of this package says itself what it needs, by ``to_arrays()``, and ``from_arrays`` brings it back.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import BaseEnsemble
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from compresslab.core.files import write_atomic
from compresslab.core.names import import_by_name

Arrays = dict[str, NDArray[Any]]

# The estimators that a file can bring back: class name to where it lives. A file names one of these or nothing.
KINDS: dict[str, str] = {
    "CondensedNeighborsClassifier": "compresslab.classical.condensed:CondensedNeighborsClassifier",
    "ProtoNNClassifier": "compresslab.classical.prototypes:ProtoNNClassifier",
    "BonsaiClassifier": "compresslab.classical.bonsai:BonsaiClassifier",
    "ReducedSetClassifier": "compresslab.classical.reduced_set:ReducedSetClassifier",
    "ProductNeighborsClassifier": "compresslab.classical.product_index:ProductNeighborsClassifier",
}


def model_bytes(estimator: BaseEstimator) -> int:
    """The bytes of the file that holds what ``estimator.predict`` needs, header included.

    Args:
        estimator: fitted; one with ``to_arrays()``, or one of scikit-learn's that ``model_arrays`` knows.

    Returns:
        bytes, as ``save_arrays`` would write.

    Raises:
        TypeError: an estimator of a kind that is not known.
        NotFittedError: it is not fitted.
    """
    return len(_serialised(model_arrays(estimator), type(estimator).__name__))


def array_bytes(arrays: Arrays) -> int:
    """The bytes of the arrays alone, without names and shapes: what they take as constants of a program.

    Example:
        >>> array_bytes({"feature": np.zeros(3, np.int8), "threshold": np.zeros(3, np.float32)})
        15
    """
    return sum(array.nbytes for array in arrays.values())


def model_arrays(estimator: BaseEstimator) -> Arrays:
    """What ``predict`` reads, in the types in which it would be stored.

    Trees: of every node the feature (-1 in a leaf), of every inner node the threshold and the right child
    (nodes stand in preorder, so the left child is the next one), of every leaf its class, or its class
    shares where a forest has leaves that are not pure. Neighbours: the training set. SVC: support vectors and
    coefficients. Linear models and networks: weights and biases. A pipeline: the arrays of its steps.

    Args:
        estimator: fitted.

    Returns:
        named arrays; class labels other than 0, 1, ..., L - 1 are stored as ``classes``.

    Raises:
        TypeError: an estimator of a kind that is not known; says which are.
        NotFittedError: it is not fitted.
    """
    check_is_fitted(estimator)
    if hasattr(estimator, "to_arrays"):
        return estimator.to_arrays()
    if isinstance(estimator, Pipeline):
        steps = enumerate(step for _, step in estimator.steps)
        return {f"{i}.{name}": array for i, step in steps for name, array in model_arrays(step).items()}
    if isinstance(estimator, DecisionTreeClassifier):
        return _tree_arrays([estimator], len(estimator.classes_), hard=True) | label_arrays(estimator.classes_)
    if isinstance(estimator, BaseEnsemble) and isinstance(getattr(estimator, "estimators_", [None])[0], DecisionTreeClassifier):
        return _tree_arrays(estimator.estimators_, len(estimator.classes_)) | label_arrays(estimator.classes_)
    if isinstance(estimator, KNeighborsClassifier):
        return {"points": np.asarray(estimator._fit_X, np.float32), "labels": smallest(estimator._y)} | label_arrays(estimator.classes_)
    if isinstance(estimator, SVC):
        return _svc_arrays(estimator)
    if isinstance(estimator, MLPClassifier):
        layers = (*estimator.coefs_, *estimator.intercepts_)
        return {f"layer{i}": np.float32(layer) for i, layer in enumerate(layers)} | label_arrays(estimator.classes_)
    if hasattr(estimator, "coef_") and hasattr(estimator, "classes_"):
        linear = {"weights": np.float32(estimator.coef_), "bias": np.float32(estimator.intercept_)}
        return linear | label_arrays(estimator.classes_)
    raise TypeError(
        f"the size of a {type(estimator).__name__} is not known; it needs to_arrays(), or must be a decision tree, "
        "a forest, KNeighborsClassifier, SVC, MLPClassifier or a linear classifier"
    )


def smallest(numbers: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest integer type that holds them all; unsigned where two are equally small.

    Raises:
        TypeError: the array's type is no integer type.

    Example:
        >>> smallest(np.array([0, 200])).dtype, smallest(np.array([-1, 127])).dtype, smallest(np.array([300])).dtype
        (dtype('uint8'), dtype('int8'), dtype('uint16'))
    """
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "iub":
        raise TypeError(f"smallest takes whole numbers, got an array of {numbers.dtype}")
    low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    for kind in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return numbers.astype(kind)
    return numbers.astype(np.int64)


def label_arrays(classes: NDArray[Any]) -> Arrays:
    """``{"classes": ...}``, or nothing where the labels are 0, 1, ..., L - 1 anyway. Texts are stored as UTF-8.

    Example:
        >>> label_arrays(np.array([0, 1, 2])), label_arrays(np.array([3, 9]))
        ({}, {'classes': array([3, 9], dtype=uint8)})
    """
    if np.array_equal(classes, np.arange(len(classes))):
        return {}
    if classes.dtype.kind in "iub":
        return {"classes": smallest(classes)}
    if classes.dtype.kind == "f":
        return {"classes": classes.astype(np.float64)}
    return {"classes_text": np.frombuffer("\n".join(map(str, classes)).encode(), np.uint8)}


def labels_of(arrays: Arrays, count: int) -> NDArray[Any]:
    """The class labels that ``label_arrays`` stored; 0, 1, ..., ``count - 1`` where it stored none."""
    if "classes_text" in arrays:
        return np.array(arrays["classes_text"].tobytes().decode().split("\n"))
    return arrays.get("classes", np.arange(count))


def save_arrays(path: str | os.PathLike[str], arrays: Arrays, kind: str) -> int:
    """Write arrays to a safetensors file whose metadata names their kind; returns the file's bytes.

    Raises:
        OSError: the file cannot be written; what was there is untouched.
    """
    data = _serialised(arrays, kind)
    write_atomic(Path(path), data)
    return len(data)


def load_arrays(path: str | os.PathLike[str]) -> tuple[Arrays, str]:
    """The arrays of a file and their kind. Nothing in a file is ever run.

    Raises:
        ValueError: not a file of ``save_arrays``, or a damaged one.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        arrays = safetensors.numpy.load(data)
        with safetensors.safe_open(path, framework="np") as file:
            kind = (file.metadata() or {}).get("kind")
    except Exception as error:  # a file can be wrong in any way; the caller gets one kind of error for all
        raise ValueError(f"cannot read {Path(path).name}: it is no file of arrays ({error})") from error
    if kind is None:
        raise ValueError(f"cannot read {Path(path).name}: it does not say what kind of model its arrays are")
    return arrays, kind


def save_model(estimator: BaseEstimator, path: str | os.PathLike[str]) -> int:
    """Write what an estimator of this package needs for its predictions; returns ``model_bytes`` of it.

    Raises:
        TypeError: a kind of estimator that no file can bring back; says which can.
    """
    kind = type(estimator).__name__
    if kind not in KINDS:
        raise TypeError(f"no file can bring back a {kind}; it can be one of {', '.join(KINDS)}")
    return save_arrays(path, model_arrays(estimator), kind)


def load_model(path: str | os.PathLike[str]) -> BaseEstimator:
    """The fitted estimator of a file, ready to predict.

    Raises:
        ValueError: a damaged or foreign file, an unknown kind, or arrays that do not make such a model.
    """
    arrays, kind = load_arrays(path)
    if kind not in KINDS:
        raise ValueError(f"cannot read {Path(path).name}: it holds a {kind!r}, known are {', '.join(KINDS)}")
    try:
        return import_by_name(KINDS[kind]).from_arrays(arrays)
    except Exception as error:
        raise ValueError(f"cannot read {Path(path).name}: its arrays make no {kind} ({error!r})") from error


# ---- scikit-learn's own estimators ---------------------------------------------------------------------------


def _serialised(arrays: Arrays, kind: str) -> bytes:
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"kind": kind})


def _tree_arrays(trees: list[DecisionTreeClassifier], classes: int, hard: bool = False) -> Arrays:
    """The nodes of one or more trees, one behind the other. ``hard``: only the class of a leaf is ever read."""
    parts = [_preorder(tree.tree_) for tree in trees]
    feature, threshold, right, shares = (np.concatenate(column) for column in zip(*parts))
    arrays = {"feature": smallest(feature), "threshold": threshold, "right": smallest(right)}
    if hard or (shares.max(1) == 1).all():  # of a pure leaf nothing but its class is left to say
        arrays["leaf"] = smallest(shares.argmax(1))
    else:
        arrays["leaf"] = shares.astype(np.float32)[:, : classes - 1]  # the shares add up to 1
    if len(trees) > 1:
        arrays["nodes"] = smallest(np.array([len(part[0]) for part in parts]))
    return arrays


def _preorder(tree: Any) -> tuple[NDArray[Any], ...]:
    """(feature of each node, threshold and right child of each inner node, class shares of each leaf)."""
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if tree.children_left[node] >= 0:
            stack += [tree.children_right[node], tree.children_left[node]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    inner = [node for node in order if tree.children_left[node] >= 0]
    leaves = [node for node in order if tree.children_left[node] < 0]
    feature = np.where(tree.children_left[order] >= 0, tree.feature[order], -1)
    shares = tree.value[leaves, 0] / tree.value[leaves, 0].sum(1, keepdims=True)
    return feature, floor32(tree.threshold[inner]), place[tree.children_right[inner]], shares


def floor32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """The largest float32 that is not above each number: ``x <= t`` stays the same question for every float32 x.

    Example:
        >>> float(floor32(np.array([0.1]))[0]) <= 0.1 < float(np.float32(0.1))
        True
    """
    nearest = np.asarray(numbers, np.float32)
    return np.where(nearest > numbers, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float32)


def _svc_arrays(machine: SVC) -> Arrays:
    """Support vectors with a coefficient for each pair of classes that they take part in."""
    arrays = {
        "vectors": np.float32(machine.support_vectors_),
        "coefficients": np.float32(machine.dual_coef_),
        "counts": smallest(machine.n_support_),
        "intercept": np.float32(machine.intercept_),
        "gamma": np.float32([machine._gamma]),
    }
    return arrays | label_arrays(machine.classes_)

"""What is in the graph, and what an engine makes of it.

An engine does not run the file as it stands. It computes ahead what depends on constants only, folds batch
norms into convolutions, and *fuses* operations: a convolution applies the ReLU behind it while the numbers
are still in the processor's registers, and one pass over memory is saved. Counting operations before and after
shows it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from compresslab.deploy.engine import Source, open_session, session_options

if TYPE_CHECKING:
    import onnx

LEVELS = ("none", "basic", "extended", "all")


def read_proto(model: Source) -> onnx.ModelProto:
    """The graph of a path, of bytes, or of a ModelProto (which is returned as it is).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the bytes are no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if isinstance(model, onnx.ModelProto):
        return model
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"these {len(content)} bytes are no ONNX model") from error
    if not proto.opset_import:
        raise ValueError(f"these {len(content)} bytes are no ONNX model: no version of the operations in it")
    return proto


def operations(model: Source) -> Counter[str]:
    """How often each operation stands in the graph.

    Args:
        model: path of an .onnx file, its bytes, or a ModelProto.

    Raises: as `read_proto`.

    Example:
        >>> from onnx import helper
        >>> nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
        >>> graph = helper.make_graph(nodes, "two", [], [])
        >>> operations(helper.make_model(graph))
        Counter({'Relu': 2})
    """
    return Counter(node.op_type for node in read_proto(model).graph.node)


def optimized_graph(model: Source, level: str = "all", *, weights: str = "rounded") -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs, on this machine.

    Args:
        model: as for `operations`.
        level: "none"; "basic" folds constants and batch norms and drops what does nothing; "extended" adds
            fusions of the CPU's kernels; "all" also changes the memory layout to the one the kernels like.
        weights: as for `OnnxModel`.

    Raises:
        ValueError: ``level`` is unknown, or the engine cannot run the model.
    """
    import onnxruntime as ort

    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    options = session_options(1, weights=weights)
    graph_levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": graph_levels.ORT_DISABLE_ALL,
        "basic": graph_levels.ORT_ENABLE_BASIC,
        "extended": graph_levels.ORT_ENABLE_EXTENDED,
        "all": graph_levels.ORT_ENABLE_ALL,
    }[level]
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        open_session(model, options)
        return read_proto(options.optimized_model_filepath)


def optimized_operations(model: Source, level: str = "all", *, weights: str = "rounded") -> Counter[str]:
    """How often each operation stands in the graph that ONNX Runtime runs.

    Args, Raises: as `optimized_graph`.

    Example:
        >>> from onnx import TensorProto, helper
        >>> nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
        >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
        >>> graph = helper.make_graph(nodes, "one", [x], [y])
        >>> opset = [helper.make_opsetid("", 18)]
        >>> optimized_operations(helper.make_model(graph, opset_imports=opset, ir_version=10))
        Counter({'Relu': 1})
    """
    return operations(optimized_graph(model, level, weights=weights))

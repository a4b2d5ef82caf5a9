"""An ONNX file as a network: ONNX Runtime behind the ``forward`` of a torch module.

What times, counts and scores networks takes a module and calls it. `OnnxModel` is such a module, so a file
that runs in another engine goes through the same harness as the network it came from: ``core.time_models``,
``core.accuracy``, ``core.predict_labels``. It has no parameters, and nothing in it can be trained.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.core.errors import check_int

if TYPE_CHECKING:
    import onnx  # noqa: F401  (in an annotation)
    import onnxruntime

Source = "str | os.PathLike[str] | bytes | onnx.ModelProto"
STORED_WEIGHTS = ("rounded", "exact", "unpacked")

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class OnnxModel(nn.Module):
    """A network with one input and one output that ONNX Runtime runs on the CPU.

    A copy (``copy.deepcopy``) shares the session, which is what makes a module of it cheap to hand around.
    The number of threads is the session's own: ``torch.set_num_threads`` does not reach it.

    Args:
        model: path of an .onnx file, its bytes, or an ``onnx.ModelProto``.
        threads: how many threads share the work inside one operation; None takes torch's present number, so
            that an engine next to eager PyTorch has as many.
        optimize: let the engine rewrite the graph (fold constants, fuse operations, change the layout); False
            runs it operation by operation, as the file says.
        weights: what to do with weights that the file stores as integers (`export_stored`). "rounded", the
            engine's default, decodes them at every run; before a matrix product it decodes inside it, and
            then rounds the inputs to 8 bits as well. "exact" decodes at every run and keeps float32
            inputs. "unpacked" decodes once, while the file is loaded: float weights in memory, float speed.
            Files without such weights run alike; an int8 network (`export_int8`) needs "rounded".

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: there is no file at the path.
        TypeError: ``model`` is neither path, bytes nor ModelProto; ``threads`` is no whole number.
        ValueError: the file is no ONNX model that this engine can run, or has not one input and one output;
            or ``weights`` is none of the three.

    Example:
        >>> from onnx import TensorProto, helper  # y = x + x
        >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
        >>> graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
        >>> file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        >>> OnnxModel(file)(torch.tensor([1.0, 2.5]))
        tensor([2., 5.])
    """

    def __init__(
        self, model: Source, threads: int | None = None, optimize: bool = True, *, weights: str = "rounded"
    ) -> None:
        super().__init__()
        self.threads = torch.get_num_threads() if threads is None else check_int("threads", threads, 1)
        self.path_bytes = _source_bytes(model)  # the size of the file, in bytes
        self.session = open_session(model, session_options(self.threads, optimize, weights))
        self.input_name, self.output_name, self.input_type = _only_ends(self.session)
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """The file's output for a batch ``x``, on the CPU; no gradient flows through it."""
        return torch.from_numpy(self.run_numpy(x.detach().cpu().numpy()))

    def run_numpy(self, x: np.ndarray) -> np.ndarray:
        """`forward` without torch: array in, array out. Made contiguous and of the file's dtype if need be.

        Raises:
            ValueError: the file does not take inputs of this shape.
        """
        x = np.ascontiguousarray(x, dtype=self.input_type)
        try:
            (y,) = self.session.run([self.output_name], {self.input_name: x})
        except Exception as error:  # the engine's own exception classes are private
            wanted = self.session.get_inputs()[0].shape
            shapes = f"the file takes inputs of shape {wanted}, got {list(x.shape)}"
            raise ValueError(f"{shapes}: {first_line(error)}") from error
        return y

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModel:
        copied = self.__class__.__new__(self.__class__)
        copied.__dict__.update(self.__dict__)
        return copied

    def extra_repr(self) -> str:
        return f"{self.path_bytes} bytes, threads={self.threads}"


def session_options(
    threads: int = 1, optimize: bool = True, weights: str = "rounded"
) -> onnxruntime.SessionOptions:
    """ONNX Runtime's settings: ``threads`` inside an operation, one operation at a time, silent.

    Raises:
        ImportError: onnxruntime is not installed; says how to install it.
        ValueError: ``weights`` is none of "rounded", "exact", "unpacked".
    """
    if weights not in STORED_WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(STORED_WEIGHTS)}, got {weights!r}")
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ImportError("running .onnx files needs onnxruntime: pip install onnxruntime") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Helpers wait actively within a run, and not after it, where they would slow down whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4
    if weights == "exact":
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if weights == "unpacked":  # integers are then constants like others, and are folded away
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    return options


def open_session(model: Source, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """An inference session on the CPU; what goes wrong is told in one line (the errors of `OnnxModel`)."""
    import onnxruntime as ort

    if isinstance(model, bytes):
        source: str | bytes = model
    elif hasattr(model, "SerializeToString"):
        source = model.SerializeToString()
    elif isinstance(model, str | os.PathLike):
        source = os.fspath(model)
        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {str(source)!r}")
    else:
        raise TypeError(f"model must be a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own exception classes are private
        name = "the model" if isinstance(source, bytes) else repr(Path(source).name)
        raise ValueError(f"{name} is no ONNX file that ONNX Runtime can run: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _source_bytes(model: Source) -> int:
    """How long the file is, or would be."""
    if isinstance(model, str | os.PathLike):
        return os.path.getsize(model) if os.path.isfile(model) else 0
    return len(model) if isinstance(model, bytes) else getattr(model, "ByteSize", lambda: 0)()


def _only_ends(session: onnxruntime.InferenceSession) -> tuple[str, str, type]:
    """The names of the one input and the one output, and the input's dtype."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if (len(inputs), len(outputs)) != (1, 1):
        raise ValueError(f"the file must have one input and one output, got {len(inputs)} and {len(outputs)}")
    if inputs[0].type not in NUMPY_TYPES:
        raise ValueError(f"the file's input is a {inputs[0].type}; allowed are {', '.join(NUMPY_TYPES)}")
    return inputs[0].name, outputs[0].name, NUMPY_TYPES[inputs[0].type]

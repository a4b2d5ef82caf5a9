"""From a PyTorch network to an .onnx file, and the check that both compute the same.

Exporting is compiling. PyTorch runs the network once on placeholders (``torch.export``) and writes down which
operations on which tensors that was; what Python did around them is gone. What stays is a *graph*: nodes
(operations), edges (tensors), and *initializers*, the tensors whose values are known: the weights. An engine
reads this list, rewrites it, and runs it.

A coded network can go into a file in two forms. "dense" decodes the weights first: an ordinary network,
32 bits per weight. "decoded" writes the codes' own arrays and the operations that decode them: the file is as
small as the codes, and an engine that folds constants decodes once, while it loads the file.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from compresslab.core.codes import WeightCode
from compresslab.core.errors import check_int
from compresslab.core.files import write_atomic
from compresslab.core.layers import decompress
from compresslab.core.modules import bake
from compresslab.core.train import predict_logits

if TYPE_CHECKING:
    import onnx

    from compresslab.data import Split

OPSET = 21  # the version of ONNX's operations; the first with 4-bit integers and with scales per block
LARGEST_FILE = 2**31 - 1  # bytes: the most that one ONNX file holds


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    input_shape: Sequence[int],
    *,
    batch: int | None = None,
    opset: int = OPSET,
    form: str = "dense",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a network as an .onnx file: checked, whole, with its weights inside.

    Batch norms are folded into the convolutions before them, dropout is gone (the network is exported in eval
    mode), masks are baked into the weights. The exporter takes seconds: export once, run often.

    Args:
        model: a plain, pruned, decomposed or coded network with one input and one output; it is not changed.
        path: where to write; an existing file is replaced.
        input_shape: of one input, without the batch, such as ``(3, 32, 32)``.
        batch: the only batch size that the file will take; None lets it take any.
        opset: version of ONNX's operations, 18 to 23.
        form: "dense" or "decoded", what becomes of codes (see above).
        dtype: of the input; int64 for tokens.

    Returns:
        the path.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        TypeError: ``model`` is no module.
        ValueError: ``form`` is unknown, ``opset`` or ``batch`` out of range; PyTorch cannot trace the
            network; or the file would be larger than 2 GB.

    Example (a few seconds):
        ``export_onnx(models.load_baseline("resnet8"), "resnet8.onnx", (3, 32, 32))``
    """
    if form not in ("dense", "decoded"):
        raise ValueError(f'form must be "dense" or "decoded", got {form!r}')
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    model = decompress(model) if form == "dense" else model
    proto = to_proto(model, input_shape, batch=batch, opset=opset, dtype=dtype, keep=code_arrays(model))
    return write_proto(proto, path)


def to_proto(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int | None = None,
    opset: int = OPSET,
    dtype: torch.dtype = torch.float32,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """The graph of a network, simplified: constants folded, batch norms folded, nothing unused.

    Args:
        model, input_shape, batch, opset, dtype: as for `export_onnx`.
        keep: names of parameters and buffers that stay in the graph as they are. The simplification computes
            ahead whatever depends on constants only; for the arrays of a code that would undo the code.

    Raises: as `export_onnx`.
    """
    check_int("opset", opset, 18, 23)
    if batch is not None:
        check_int("batch", batch, 1)
    model = bake(model).eval()
    example = torch.zeros(batch or 2, *input_shape, dtype=dtype)
    onnxscript = _import_onnxscript()
    with _silence(), torch.no_grad():
        shapes = None if batch is not None else ({0: "batch"},)
        try:
            program = torch.onnx.export(
                model, (example,), dynamo=True, dynamic_shapes=shapes, opset_version=opset,
                optimize=False, verbose=False,
            )  # fmt: skip
        except Exception as error:  # the exporter's own exception classes change from release to release
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"PyTorch cannot export this {type(model).__name__}: {reason}") from error
        proto = program.model_proto
        hidden = _hide(proto, keep)
        proto = onnxscript.optimizer.optimize(proto)
        _unhide(proto, hidden)
    _strip(proto)
    return proto


def write_proto(proto: onnx.ModelProto, path: str | os.PathLike[str]) -> Path:
    """Check a graph with ``onnx.checker`` and write it, weights inside, all or nothing.

    Raises:
        ValueError: it is no valid ONNX model, or is larger than 2 GB.
    """
    import onnx

    if proto.ByteSize() > LARGEST_FILE:
        raise ValueError(f"an ONNX file holds at most {LARGEST_FILE} bytes, got {proto.ByteSize()}")
    try:
        onnx.checker.check_model(proto, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"this is no valid ONNX model: {error}") from error
    path = Path(path)
    write_atomic(path, proto.SerializeToString())
    return path


def code_arrays(model: nn.Module) -> set[str]:
    """The names of all arrays that belong to codes, as ``state_dict`` has them."""
    names: set[str] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, WeightCode):
            names.update(f"{name}.{key}" for key in module.state_dict())
    return names


class Agreement(NamedTuple):
    """How well two forms of a network agree.

    Args:
        largest: the largest absolute difference of an output.
        equal_labels: fraction of the inputs that get the same label, in [0, 1].
        n: number of inputs compared.
    """

    largest: float
    equal_labels: float
    n: int


def agreement(
    model: nn.Module, engine: nn.Module, inputs: Split | Tensor, batch_size: int = 256
) -> Agreement:
    """Compare the outputs of a network and of its exported form on the same inputs.

    Args:
        model, engine: two modules, such as the network and its `OnnxModel`.
        inputs: images of a split, or a batch of inputs, (N, ...), N >= 1.
        batch_size: inputs per run.

    Raises:
        ValueError: there are no inputs, or the outputs differ in shape.

    Example:
        >>> agreement(nn.Identity(), nn.ReLU(), torch.tensor([[-0.5, 1.0], [3.0, 2.0]]))
        Agreement(largest=0.5, equal_labels=1.0, n=2)
    """
    first, second = (_outputs(module, inputs, batch_size) for module in (model, engine))
    if first.shape != second.shape:
        raise ValueError(f"the outputs have shapes {tuple(first.shape)} and {tuple(second.shape)}")
    equal = (first.argmax(-1) == second.argmax(-1)).double().mean().item()
    return Agreement((first - second).abs().max().item(), equal, len(first))


def _outputs(module: nn.Module, inputs: Split | Tensor, batch_size: int) -> Tensor:
    if not isinstance(inputs, Tensor):
        return predict_logits(module, inputs, batch_size)
    if len(inputs) == 0:
        raise ValueError("there is nothing to compare: the batch is empty")
    was_training = module.training
    try:
        with torch.no_grad():
            return torch.cat([module.eval()(part).cpu() for part in inputs.split(batch_size)])
    finally:
        module.train(was_training)


def _import_onnxscript():
    try:
        import onnx  # noqa: F401
        import onnxscript
        import onnxscript.optimizer
    except ImportError as error:
        raise ImportError("writing .onnx files needs them: pip install onnx onnxscript") from error
    return onnxscript


@contextlib.contextmanager
def _silence():
    """The exporter talks about itself: progress on stdout, deprecations of its own parts."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _hide(proto: onnx.ModelProto, names: Collection[str]) -> list[onnx.TensorProto]:
    """Turn initializers into inputs, whose values nobody knows, and return them."""
    from onnx import helper

    hidden = [tensor for tensor in proto.graph.initializer if tensor.name in names]
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
    proto.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in hidden)
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(kept)
    return hidden


def _unhide(proto: onnx.ModelProto, hidden: Sequence[onnx.TensorProto]) -> None:
    """Undo `_hide`: the arrays that are still read are initializers again."""
    names = {tensor.name for tensor in hidden}
    inputs = [value for value in proto.graph.input if value.name not in names]
    proto.graph.ClearField("input")
    proto.graph.input.extend(inputs)
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(tensor for tensor in hidden if tensor.name in read)


def _strip(proto: onnx.ModelProto) -> None:
    """Drop what only the exporter's authors need: source lines of this machine, shapes to infer."""
    proto.graph.ClearField("value_info")
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")

r"""PACT: a ReLU with a learned ceiling, so that few bits suffice for what it puts out.

A ReLU's output has no upper bound, and the largest value seen sets the scale of all. PACT cuts at
:math:`\alpha` and lets training weigh the two errors: a low ceiling clips, a high one rounds coarsely.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compresslab.core.errors import check_int
from compresslab.core.uniform import Grid, fake_quantize

SMALLEST_ALPHA = 1e-6  # training must not carry a ceiling to zero or below
RELU_FUNCTIONS = (torch.relu, torch.relu_, F.relu, F.relu_, F.relu6)
RELU_METHODS = ("relu", "relu_")


class _Quantize(torch.autograd.Function):
    """x, alpha -> the rounded clip of x to [0, alpha], with the paper's gradient for alpha."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return fake_quantize(x, _grid(alpha, levels))

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        x, alpha = ctx.saved_tensors
        above = x >= alpha
        return upstream * ((x >= 0) & ~above), (upstream * above).sum_to_size(alpha.shape), None


def _grid(alpha: Tensor, levels: int) -> Grid:
    scale = alpha.detach().clamp(min=SMALLEST_ALPHA) / levels
    return Grid(scale, torch.zeros_like(scale, dtype=torch.int32), 0, levels)


def pact_quantize(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    r"""Clip to :math:`[0, \alpha]` and round to :math:`2^k - 1` steps.

    .. math:: y = \tfrac12 (|x| - |x - \alpha| + \alpha), \qquad
              y_q = \mathrm{round}\!\left(y\,\frac{2^k - 1}{\alpha}\right) \frac{\alpha}{2^k - 1}

    Backward: :math:`\partial y_q / \partial \alpha = \mathbb 1[x \ge \alpha]`, and
    :math:`\partial y_q / \partial x = \mathbb 1[0 \le x < \alpha]`, straight through the rounding.

    Args:
        x: any shape.
        alpha: :math:`\alpha`, floating-point, a single number, shape () or (1,).
        bits: :math:`k`, 1 to 16.

    Returns:
        the shape of ``x``.

    Raises:
        TypeError, ValueError: ``bits`` is out of range, or ``alpha`` more than one number.

    Source:
        J. Choi, Z. Wang, S. Venkataramani, P. I.-J. Chuang, V. Srinivasan, K. Gopalakrishnan, "PACT:
        Parameterized Clipping Activation for Quantized Neural Networks", 2018, section 3.

    Example:
        >>> alpha = torch.tensor(3.0, requires_grad=True)
        >>> y = pact_quantize(torch.tensor([-1.0, 1.2, 3.0, 8.0]), alpha, bits=2)
        >>> y.sum().backward()
        >>> y.tolist(), alpha.grad.item()
        ([0.0, 1.0, 3.0, 3.0], 2.0)
    """
    levels = 2 ** check_int("bits", bits, 1, 16) - 1
    if alpha.numel() != 1:
        raise ValueError(f"alpha must be a single number, got shape {tuple(alpha.shape)}")
    return _Quantize.apply(x, alpha, levels)


class PACT(nn.Module):
    r"""Takes the place of a ReLU; :math:`\alpha` is trained with the network.

    The paper adds :math:`\lambda\,\alpha^2` to the loss, so that ceilings do not only rise (the gradient for
    alpha is the sum of what was clipped). The ``weight_decay`` of ``core.train.train`` is that term.

    Args:
        bits: :math:`k`, 1 to 16.
        alpha: :math:`\alpha` to start from, positive; best the ``high`` of a range that ``calibrate`` finds.

    Raises:
        TypeError, ValueError: ``bits`` is out of range, or ``alpha`` is no positive, finite number.

    Source:
        Choi et al., 2018, section 3.

    Example:
        >>> PACT(bits=2, alpha=3.0)(torch.tensor([-1.0, 1.2, 8.0])).tolist()
        [0.0, 1.0, 3.0]
    """

    def __init__(self, bits: int = 4, alpha: float = 6.0):
        super().__init__()
        self.bits = check_int("bits", bits, 1, 16)
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be positive and finite, got {alpha}")
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def forward(self, x: Tensor) -> Tensor:
        return pact_quantize(x, self.alpha, self.bits)

    def grid(self) -> Grid:
        """The grid of the outputs, which the next layer reads: integers from 0 to 2^bits - 1."""
        return _grid(self.alpha, 2**self.bits - 1)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


def replace_relu(model: nn.Module, make: Callable[[], nn.Module] = PACT) -> nn.Module:
    """Copy of ``model`` in which every ReLU has become a module of its own, such as a :class:`PACT`.

    The forward pass is traced, so that calls of ``F.relu`` are found too, and a ReLU module that is used
    twice becomes two. Layers keep their names; the new modules are ``activation0``, ``activation1``, ... in
    the order in which they run.

    Args:
        model: a network that ``torch.fx`` can trace: no ``if`` on values.
        make: called once for each ReLU (or ReLU6); for example ``partial(PACT, bits=2)``.

    Returns:
        a ``torch.fx.GraphModule``.

    Raises:
        ValueError: the network cannot be traced, or has no ReLU.

    Example:
        >>> quantized = replace_relu(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        >>> [name for name, module in quantized.named_modules() if isinstance(module, PACT)]
        ['activation0']
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model))
    except Exception as error:  # whatever the forward pass trips over when it meets a proxy
        raise ValueError(f"the network cannot be traced by torch.fx: {error}") from error
    modules = dict(traced.named_modules())
    found = [node for node in traced.graph.nodes if _is_relu(node, modules)]
    if not found:
        raise ValueError("the network has no ReLU")
    for number, node in enumerate(found):
        traced.add_submodule(f"activation{number}", make())
        with traced.graph.inserting_after(node):
            new = traced.graph.call_module(f"activation{number}", (node.args or (node.kwargs["input"],))[:1])
        node.replace_all_uses_with(new)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in traced.named_modules():  # tracing sets containers to train mode
        module.training = modes.get(name, model.training)
    return traced


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[node.target], (nn.ReLU, nn.ReLU6))
    return (node.op == "call_function" and node.target in RELU_FUNCTIONS) or (
        node.op == "call_method" and node.target in RELU_METHODS
    )

"""How channel identities pass through functions: one short rule for each kind.

A rule has the signature of the function it stands for, after a first argument ``net``, the running
interpreter: it has ``net.ids`` (the couplings so far), ``net.value`` (what the node gives in an
ordinary run; only its shape is read) and ``net.where`` (the node's name). Functions that only move
data, such as ``permute`` or ``flatten``, need no rule: PyTorch moves the identities itself. What is
coupled may go on under one identity.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from .channel_ids import Ids, ids_in, repeats, thin


def same(net: Any, *args: Any, **kwargs: Any) -> Ids:
    """Element by element: activations, dropout, casts."""
    return ids_in((args, kwargs))[0]


def per_position(net: Any, *args: Any, **kwargs: Any) -> Any:
    """Pooling and resizing treat each channel (axis 1) alone."""
    if not isinstance(net.value, Tensor):  # values and their indices
        return net.leave_whole((args, kwargs), f"the indices at '{net.where}' need all channels")
    return net.spread(net.ids.channels(ids_in((args, kwargs))[0], 1), 1)


def pad(net: Any, x: Ids, pad: tuple[int, ...], *args: Any, **kwargs: Any) -> Ids:
    """As pooling; new channels (the parameter-free shortcut of small ResNets) are constants."""
    before, after = (list(pad) + [0] * 2 * x.dim())[2 * x.dim() - 4 : 2 * x.dim() - 2]  # the pair for axis 1
    new = net.ids.constant((before + after,), f"zeros added as channels at '{net.where}'")
    return net.spread(torch.cat([new[:before], net.ids.channels(x, 1), new[before:]]), 1)


def pairwise(net: Any, a: Any, b: Any, **kwargs: Any) -> Ids:
    """Add, multiply, ...: channels that meet are coupled; the size of a constant tensor cannot shrink."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):  # with a number
        return a if isinstance(a, Ids) else b
    x, other = (a, b) if isinstance(a, Ids) and not _is_gate(a, b) else (b, a)
    x = x.expand(net.value.shape)
    if isinstance(other, Ids) and not _is_gate(other, x):
        net.ids.couple(x, other)
    elif isinstance(other, Ids):
        net.ids.freeze(other, f"one channel serves all at '{net.where}'")
    else:
        for axis in range(-other.dim(), 0):
            if other.shape[axis] > 1:
                net.ids.freeze_across(x, axis, f"the constant tensor at '{net.where}' has a fixed size")
    return x


def _is_gate(a: Tensor, b: Tensor) -> bool:
    """Whether one channel of ``a`` is repeated for all channels of ``b``, as in spatial attention."""
    axes = range(-min(a.dim(), b.dim()), 0)
    return isinstance(b, Ids) and any(a.shape[k] == 1 < b.shape[k] and not repeats(b, k) for k in axes)


def cat(net: Any, tensors: Any, dim: int = 0) -> Any:
    """Channels lie one part after the other. Where they lie across, all parts must keep the same ones."""
    if not all(isinstance(part, Ids) for part in tensors):
        return net.leave_whole(tensors, f"joined with a constant tensor at '{net.where}'")
    dim %= tensors[0].dim()
    lines = [part.narrow(dim, 0, 1) for part in tensors]
    if not all(repeats(line, axis) for line in lines for axis in range(line.dim())):
        for line in lines[1:]:
            net.ids.couple(line, lines[0])
        if all(repeats(part, dim) for part in tensors):
            return lines[0].expand(net.value.shape)
    thinned = [thin(part, but=dim) for part in tensors]  # what is the same everywhere is joined once
    shape = torch.broadcast_shapes(*(part.narrow(dim, 0, 1).shape for part in thinned))
    whole = [part.expand(*shape[:dim], part.shape[dim], *shape[dim + 1 :]) for part in thinned]
    return torch.cat(whole, dim).expand(net.value.shape)


def stack(net: Any, tensors: Any, dim: int = 0) -> Any:
    """All parts must keep the same channels."""
    if not all(isinstance(part, Ids) for part in tensors):
        return net.leave_whole(tensors, f"stacked with a constant tensor at '{net.where}'")
    for part in tensors[1:]:
        net.ids.couple(part, tensors[0])
    return torch.stack([tensors[0]] * len(tensors), dim)


def chunk(net: Any, x: Ids, chunks: int, dim: int = 0) -> tuple[Ids, ...]:
    """Equal parts stay equal if the same places go from each: they are coupled."""
    return _parts(net, x, x.chunk(chunks, dim), dim, fixed=False)


def split(net: Any, x: Ids, split_size: Any, dim: int = 0) -> tuple[Ids, ...]:
    """As chunk if the size is computed from the input; a size written in the code cannot shrink."""
    return _parts(net, x, x.split(split_size, dim), dim, fixed=not isinstance(net.node.args[1], fx.Node))


def unbind(net: Any, x: Ids, dim: int = 0) -> tuple[Ids, ...]:
    """Slices along an axis, whose number is written in the code."""
    net.ids.freeze_across(x, dim, f"unbind at '{net.where}' counts channels")
    return x.unbind(dim)


def _parts(net: Any, x: Ids, parts: tuple[Ids, ...], dim: int, fixed: bool) -> tuple[Ids, ...]:
    if fixed or any(part.shape != parts[0].shape for part in parts):
        net.ids.freeze_across(x, dim, f"the split at '{net.where}' has fixed or unequal sizes")
        return parts
    for part in parts[1:]:
        net.ids.couple(part, parts[0])
    return parts[:1] * len(parts)


def glu(net: Any, x: Ids, dim: int = -1) -> Ids:
    """One half gates the other."""
    return chunk(net, x, 2, dim)[0]


def reshape(net: Any, x: Ids, *shape: Any) -> Ids:
    """A size that the code spells out cannot shrink, so what lies along it is coupled.

    A channel shuffle, ``view(N, 2, C // 2, H, W)``, so couples channel c with channel c + C / 2.
    """
    written = net.node.args[1] if isinstance(net.node.args[1], (tuple, list)) else net.node.args[1:]
    return _resized(net, x, written)


def unflatten(net: Any, x: Ids, dim: int, sizes: Any) -> Ids:
    """As reshape, for one axis."""
    dim %= x.dim()
    return _resized(net, x, [None] * dim + list(sizes) + [None] * (x.dim() - dim - 1))


def _resized(net: Any, x: Ids, written: Any) -> Ids:
    out = x.reshape(net.value.shape)
    for axis, size in enumerate(written):
        if isinstance(size, int) and size > 1 and not repeats(out, axis):
            net.ids.couple(out, out.narrow(axis, 0, 1))
            out = out.narrow(axis, 0, 1).expand(out.shape)
    return out


def index(net: Any, x: Any, item: Any) -> Any:
    """Slices and indices may cut anywhere except across the channels."""
    if not isinstance(x, Ids):  # an item of a tuple
        return x[item]
    items = [i for i in (item if isinstance(item, tuple) else (item,)) if i is not None]
    gap = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
    rest = items[gap + 1 :]
    items = items[:gap] + [slice(None)] * (x.dim() - gap - len(rest)) + rest
    for axis, i in enumerate(items):
        if not (isinstance(i, slice) and i == slice(None)):
            net.ids.freeze_across(x, axis, f"the index at '{net.where}' counts channels")
    return x[item]


def reduce(net: Any, x: Ids, dim: Any = None, *args: Any, **kwargs: Any) -> Ids:
    """A mean over positions keeps channels apart; a mean over channels needs all of them."""
    axes = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in axes:
        net.ids.freeze_across(x, axis, f"the reduction at '{net.where}' needs all channels")
        x = x.narrow(axis, 0, 1)
    return x.reshape(net.value.shape)


# Which functions each rule covers. In-place forms (add_, __iadd__) are looked up without underscores.
_COVERED: dict[Callable, str] = {
    same: """
        relu relu6 leaky_relu rrelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink
        sigmoid logsigmoid tanh tanhshrink softplus softsign softshrink threshold clamp clip
        exp abs neg sqrt rsqrt square
        dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
        stochastic_depth contiguous clone detach to float double half bfloat16 type type_as requires_grad""",
    pairwise: """
        add iadd radd sub isub rsub subtract mul imul rmul multiply div truediv itruediv true_divide
        pow maximum minimum""",
    per_position: """
        avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d lp_pool2d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        interpolate upsample""",
    pad: "pad",
    cat: "cat concat concatenate",
    stack: "stack",
    chunk: "chunk",
    split: "split",
    unbind: "unbind",
    glu: "glu",
    reshape: "view reshape",
    unflatten: "unflatten",
    index: "getitem",
    reduce: "mean sum amax amin",
}
RULES = {name: rule for rule, names in _COVERED.items() for name in names.split()}

# Functions that only move channels about.
MOVES = frozenset(
    """
    flatten permute transpose swapaxes movedim moveaxis squeeze unsqueeze expand expand_as repeat
    repeat_interleave t flip size dim numel getattr len
    """.split()
)

# Functions that mix channels or count them: what goes in and what comes out is left whole.
NEEDS_ALL = frozenset(
    """
    softmax log_softmax layer_norm group_norm batch_norm instance_norm local_response_norm normalize
    linear conv1d conv2d conv3d bilinear matmul mm bmm einsum baddbmm
    scaled_dot_product_attention multi_head_attention_forward shifted_window_attention patch_merging_pad
    roll cumsum norm var std argmax pixel_shuffle channel_shuffle
    """.split()
)

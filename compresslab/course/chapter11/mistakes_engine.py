"""Wrong answers to exercises 11.3 and 11.4, each of a kind of its own."""

from __future__ import annotations

import torch

from compresslab.course.chapter11.references_engine import read_int4 as right_read

# -- 11.3 fold batch norms in a graph ----------------------------------------------------------------


def _writer(nodes, name):
    return next((node for node in nodes if node.output == name), None)


def _may_fold(nodes, norm, outputs, *, readers=True, ends=True, kind=True):
    source = norm.inputs[0]
    conv = _writer(nodes, source)
    if conv is None or (kind and conv.op != "Conv"):
        return False
    alone = sum(source in node.inputs for node in nodes) == 1
    return (alone or not readers) and (source not in outputs or not ends)


def _numbers(conv, norm, constants, *, epsilon=None, root=True, axis=0, bias="right"):
    _, gamma, beta, mean, var = (constants.get(name) for name in norm.inputs)
    spread = var + (norm.attributes["epsilon"] if epsilon is None else epsilon)
    factor = gamma / (torch.sqrt(spread) if root else spread)
    old = constants[conv.inputs[2]] if len(conv.inputs) == 3 else torch.zeros_like(beta)
    new = {
        "right": (old - mean) * factor + beta, "dropped": beta - mean * factor, "not scaled": old - mean * factor + beta,
        "kept": old, "plus": (old + mean) * factor + beta, "norm only": old * factor + beta,
    }[bias]  # fmt: skip
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return constants[conv.inputs[1]] * factor.view(shape), new


def _fold(nodes, constants, outputs, *, in_place=(), rewire="rename", only_first=False, only_bias=False, checks=None, **numbers):
    nodes, constants = list(nodes), dict(constants)
    for norm in [node for node in nodes if node.op == "BatchNormalization"]:
        if not _may_fold(nodes, norm, outputs, **(checks or {})):
            continue
        conv = _writer(nodes, norm.inputs[0])
        if only_bias and len(conv.inputs) < 3:
            continue
        new = dict(zip(("weight", "bias"), _numbers(conv, norm, constants, **numbers), strict=True))
        names = {key: f"{norm.output}.{key}" for key in new}
        if "weight" in in_place:
            names["weight"] = conv.inputs[1]
        if "bias" in in_place and len(conv.inputs) == 3:
            names["bias"] = conv.inputs[2]
        constants |= {names[key]: value for key, value in new.items()}
        out = norm.output if rewire == "rename" else conv.output
        nodes[nodes.index(conv)] = conv._replace(inputs=(conv.inputs[0], names["weight"], names["bias"]), output=out)
        nodes.remove(norm)
        if rewire == "readers":
            nodes = [node._replace(inputs=tuple(conv.output if x == norm.output else x for x in node.inputs)) for node in nodes]
        if only_first:
            break
    return nodes, constants


def nothing(nodes, constants, outputs):
    return list(nodes), dict(constants)


def any_reader(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, checks={"readers": False})


def forgets_outputs(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, checks={"ends": False})


def bias_dropped(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, bias="dropped")


def bias_not_scaled(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, bias="not scaled")


def weight_only(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, bias="kept")


def mean_added(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, bias="plus")


def mean_forgotten(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, bias="norm only")


def no_epsilon(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, epsilon=0.0)


def usual_epsilon(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, epsilon=1e-5)


def no_root(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, root=False)


def input_channels(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, axis=1)


def last_axis(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, axis=3)


def not_rewired(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, rewire="no")


def output_renamed(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, rewire="readers")


def weight_overwritten(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, in_place=("weight", "bias"))


def bias_overwritten(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, in_place=("bias",))


def first_only(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, only_first=True)


def needs_a_bias(nodes, constants, outputs):
    return _fold(nodes, constants, outputs, only_bias=True)


def neighbours_only(nodes, constants, outputs):
    before = {after.output: first.output for first, after in zip(nodes, nodes[1:], strict=False)}
    apart = [node for node in nodes if node.op == "BatchNormalization" and before.get(node.output) != node.inputs[0]]
    hidden = [node._replace(op="Apart") if node in apart else node for node in nodes]
    new, constants = _fold(hidden, constants, outputs)
    return [node._replace(op="BatchNormalization") if node.op == "Apart" else node for node in new], constants


def through_the_relu(nodes, constants, outputs):
    nodes, constants = _fold(nodes, constants, outputs)
    for norm in [node for node in nodes if node.op == "BatchNormalization"]:
        relu = _writer(nodes, norm.inputs[0])
        conv = _writer(nodes, relu.inputs[0]) if relu is not None and relu.op == "Relu" else None
        if conv is None or conv.op != "Conv":
            continue
        weight, bias = _numbers(conv, norm, constants)
        constants |= {f"{norm.output}.weight": weight, f"{norm.output}.bias": bias}
        nodes[nodes.index(conv)] = conv._replace(inputs=(conv.inputs[0], f"{norm.output}.weight", f"{norm.output}.bias"))
        nodes[nodes.index(relu)] = relu._replace(output=norm.output)
        nodes.remove(norm)
    return nodes, constants


# -- 11.4 read a 4-bit initializer -------------------------------------------------------------------


def _nibbles(raw, *, high_first=False):
    pair = (raw // 16, raw % 16) if high_first else (raw % 16, raw // 16)
    return torch.stack(pair, dim=1).flatten().int()


def _signed(nibbles):
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


def _scaled(q, scale, axis, block):
    return q * scale.repeat_interleave(block, dim=axis).narrow(axis, 0, q.shape[axis])


def _count(shape):
    return torch.Size(shape).numel()


def high_first(raw, shape, scale, axis, block):
    return _scaled(_signed(_nibbles(raw, high_first=True))[: _count(shape)].view(shape), scale, axis, block)


def halves_apart(raw, shape, scale, axis, block):
    return _scaled(_signed(torch.cat([raw % 16, raw // 16]).int())[: _count(shape)].view(shape), scale, axis, block)


def unsigned(raw, shape, scale, axis, block):
    return _scaled(_nibbles(raw)[: _count(shape)].view(shape), scale, axis, block)


def offset(raw, shape, scale, axis, block):
    return _scaled((_nibbles(raw) - 8)[: _count(shape)].view(shape), scale, axis, block)


def offset_seven(raw, shape, scale, axis, block):
    return _scaled((_nibbles(raw) - 7)[: _count(shape)].view(shape), scale, axis, block)


def sign_bit(raw, shape, scale, axis, block):
    nibbles = _nibbles(raw)
    return _scaled(torch.where(nibbles > 7, 8 - nibbles, nibbles)[: _count(shape)].view(shape), scale, axis, block)


def wrapped(raw, shape, scale, axis, block):
    nibbles = _nibbles(raw).to(torch.uint8)[: _count(shape)]
    return _scaled(torch.where(nibbles > 7, nibbles - 16, nibbles).view(shape), scale, axis, block)


def only_above_eight(raw, shape, scale, axis, block):
    nibbles = _nibbles(raw)[: _count(shape)]
    return _scaled(torch.where(nibbles > 8, nibbles - 16, nibbles).view(shape), scale, axis, block)


def minus_fifteen(raw, shape, scale, axis, block):
    nibbles = _nibbles(raw)[: _count(shape)]
    return _scaled(torch.where(nibbles > 7, nibbles - 15, nibbles).view(shape), scale, axis, block)


def padding_kept(raw, shape, scale, axis, block):
    return _scaled(_signed(_nibbles(raw)).view(shape), scale, axis, block)


def padding_first(raw, shape, scale, axis, block):
    nibbles = _signed(_nibbles(raw))
    return _scaled(nibbles[len(nibbles) - _count(shape) :].view(shape), scale, axis, block)


def column_by_column(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(tuple(shape)[::-1])
    return _scaled(q.permute(*range(len(shape) - 1, -1, -1)), scale, axis, block)


def tiled(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(shape)
    times = [1] * len(shape)
    times[axis] = block
    return q * scale.repeat(*times).narrow(axis, 0, shape[axis])


def full_blocks(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(shape)
    return q * scale.repeat_interleave(block, dim=axis)


def divided_evenly(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(shape)
    return q * scale.repeat_interleave(shape[axis] // scale.shape[axis], dim=axis)


def last_axis_blocks(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(shape)
    return q * scale.repeat_interleave(block, dim=-1).narrow(-1, 0, shape[-1])


def first_axis_blocks(raw, shape, scale, axis, block):
    q = _signed(_nibbles(raw))[: _count(shape)].view(shape)
    return q * scale.repeat_interleave(block, dim=0).narrow(0, 0, shape[0])


def divides(raw, shape, scale, axis, block):
    return right_read(raw, shape, 1 / scale, axis, block)


def integers(raw, shape, scale, axis, block):
    return right_read(raw, shape, torch.ones_like(scale), axis, block)

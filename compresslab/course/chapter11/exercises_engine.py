"""Exercises 11.3 and 11.4: batch norms folded in a graph, a 4-bit initializer read."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_engine as right
from compresslab.course.chapter11 import checks_engine as checks
from compresslab.course.chapter11 import mistakes_engine as wrong
from compresslab.course.chapter11 import references_engine as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.3", name="fold_norms", title="A pass of the compiler", dots=3, minutes=25, points=3, track="core",
        misconception="a norm behind a convolution can always be folded away",
        reference=references.fold_norms, verify=checks.verify_fold_norms,
        alternatives=(right.built_anew, right.readers_rewired),
        mistakes=(
            Mistake("nothing", wrong.nothing, "no norm was folded: you return the graph as it was"),
            Mistake("any reader", wrong.any_reader, "you fold although somebody else reads the convolution's output: that reader needs it without the norm"),
            Mistake("outputs", wrong.forgets_outputs, "you fold although the convolution's output is an output of the graph: the caller needs it without the norm"),
            Mistake("bias dropped", wrong.bias_dropped, "the bias that the convolution already had is lost: it goes through the norm like everything else"),
            Mistake("bias not scaled", wrong.bias_not_scaled, "the old bias must be scaled too: the norm comes after it was added"),
            Mistake("weight only", wrong.weight_only, "you scaled the weight and left the bias as it was: mean and beta are lost"),
            Mistake("mean added", wrong.mean_added, "the norm subtracts the mean; you added it"),
            Mistake("mean forgotten", wrong.mean_forgotten, "the mean is missing in the new bias: (bias - mean) * factor + beta"),
            Mistake("no epsilon", wrong.no_epsilon, "epsilon is missing under the root"),
            Mistake("usual epsilon", wrong.usual_epsilon, "you use 1e-5 for every norm; epsilon is an attribute of the node"),
            Mistake("no root", wrong.no_root, "you divide by the variance; the norm divides by its root"),
            Mistake("input channels", wrong.input_channels, "your factor runs along the input channels: a norm has one number for each output channel, axis 0 of the weight"),
            Mistake("last axis", wrong.last_axis, "your factor runs along the last axis, the width of the kernel: view it as (-1, 1, 1, 1)"),
            Mistake("not rewired", wrong.not_rewired, "the norm is gone, but its readers still ask for its output: the convolution must write under the norm's name"),
            Mistake("output renamed", wrong.output_renamed, "the readers are rewired, but an output of the graph was the norm's: its name must still be written"),
            Mistake("overwritten", wrong.weight_overwritten, "you overwrite a weight that two convolutions share: give the new one a new name"),
            Mistake("bias overwritten", wrong.bias_overwritten, "you overwrite a bias that two convolutions share: give the new one a new name"),
            Mistake("first only", wrong.first_only, "you stop after the first norm that is folded"),
            Mistake("needs a bias", wrong.needs_a_bias, "you skip convolutions without a bias: they get one now"),
            Mistake("neighbours only", wrong.neighbours_only, "you look at the node before the norm in the list: who writes what the norm reads may stand further up"),
            Mistake("through the ReLU", wrong.through_the_relu, "you fold through a ReLU: a negative number is cut before the norm, not after it")),
        hints=("A norm is a multiplication and an addition per channel, and so is what a convolution can do at its end. Find the node that *writes* what the norm reads, "
               "and ask who else reads it.",
               "factor = gamma / sqrt(var + epsilon); weight' = weight * factor, one factor per output channel; bias' = (bias - mean) * factor + beta, bias = 0 if there is none. "
               "The new convolution writes norm.output. Fold only if the writer is a Conv, the norm its only reader, and its output no output of the graph. New arrays, new names.",
               "nodes, constants = list(nodes), dict(constants)\nfor norm in [node for node in nodes if node.op == \"BatchNormalization\"]:\n    source, gamma, beta, mean, var = norm.inputs\n"
               "    conv = next((node for node in nodes if node.output == source), None)\n    if ...:\n        continue\n    factor = ...\n    constants[...] = ...\n"
               "    nodes[nodes.index(conv)] = conv._replace(inputs=..., output=...)\n    nodes.remove(norm)\nreturn nodes, constants")),
    Exercise(
        id="11.4", name="read_int4", title="Two weights in a byte", dots=2, minutes=15, points=2, track="core",
        misconception="a format is known when the number of bits is known",
        reference=references.read_int4, verify=checks.verify_read_int4,
        alternatives=(right.by_bits, right.one_by_one, right.with_numpy),
        mistakes=(
            Mistake("high first", wrong.high_first, "you read the high half of a byte first; the low half comes first"),
            Mistake("halves apart", wrong.halves_apart, "you read all low halves and then all high ones; the two halves of a byte are neighbours"),
            Mistake("unsigned", wrong.unsigned, "you read the nibbles as 0 to 15; they are signed, -8 to 7"),
            Mistake("offset", wrong.offset, "you take 8 off every nibble; in two's complement 0 to 7 are themselves, and only from 8 on 16 is taken off"),
            Mistake("offset seven", wrong.offset_seven, "you take 7 off every nibble, as our own packed codes want it; ONNX writes two's complement"),
            Mistake("sign bit", wrong.sign_bit, "you read the top bit as a minus sign; in two's complement it is worth -8"),
            Mistake("wrapped", wrong.wrapped, "uint8 has no negative numbers, 15 - 16 is 255 there: use a signed type before you subtract"),
            Mistake("above eight", wrong.only_above_eight, "nibble 8 is -8: the negative numbers begin at 8, not at 9"),
            Mistake("minus fifteen", wrong.minus_fifteen, "from 8 on take off 16, the number of codes, not 15"),
            Mistake("padding kept", wrong.padding_kept, "an odd number of weights leaves half a byte over at the end: drop it"),
            Mistake("padding first", wrong.padding_first, "you dropped the first nibble of an odd number; what is left over is the last"),
            Mistake("column by column", wrong.column_by_column, "you fill the weight column by column; the last axis runs fastest"),
            Mistake("tiled", wrong.tiled, "you repeat the row of scales; a scale belongs to `block` neighbours: repeat each one"),
            Mistake("full blocks", wrong.full_blocks, "the last block may have fewer weights than `block`: cut the scales off at shape[axis]"),
            Mistake("divided evenly", wrong.divided_evenly, "shape[axis] // scale.shape[axis] is not the block where the last block is not full: use `block`"),
            Mistake("last axis", wrong.last_axis_blocks, "your blocks run along the last axis; they run along `axis`"),
            Mistake("first axis", wrong.first_axis_blocks, "your blocks run along the first axis; they run along `axis`"),
            Mistake("divides", wrong.divides, "you divide by the scale; the weight is the integer times the scale"),
            Mistake("integers", wrong.integers, "you return the integers; each is to be multiplied by the scale of its block")),
        hints=("Three steps: bytes to nibbles, nibbles to signed integers in their shape, integers to weights. Make a scale for every weight first, then multiply.",
               "raw % 16 and raw // 16 are the two nibbles of a byte. n stands for n - 16 if n > 7. Weight i along `axis` has scale i // block.",
               "count = torch.Size(shape).numel()\nnibbles = torch.stack([..., ...], dim=1).flatten()[:count].int()\nq = torch.where(..., ..., nibbles).reshape(shape)\n"
               "scales = scale.repeat_interleave(..., dim=axis).narrow(axis, 0, ...)\nreturn q * scales")),
)

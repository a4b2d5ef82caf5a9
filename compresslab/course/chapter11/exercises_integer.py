"""Exercises 11.5 and 11.6: the numbers in an int8 file, and a block of integers to repair."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_integer as right
from compresslab.course.chapter11 import checks_integer as checks
from compresslab.course.chapter11 import mistakes_integer as wrong
from compresslab.course.chapter11 import references_integer as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.5", name="numbers_in_the_file", title="The numbers in an int8 file", dots=2, minutes=15, points=2, workshop=True,
        misconception="int8 means that all numbers are int8",
        reference=references.numbers_in_the_file, verify=checks.verify_numbers,
        alternatives=(right.with_the_library, right.channel_by_channel),
        mistakes=(
            Mistake("other dtypes", wrong.other_dtypes, "the numbers are right, their dtypes are not: the weight is stored as torch.int8, the bias as torch.int32"),
            Mistake("zero left out", wrong.zero_left_out, "your range leaves out 0; then a padded border has no integer of its own: stretch it to 0 first"),
            Mistake("256 steps", wrong.steps_256, "from 0 to 255 there are 255 steps, not 256"),
            Mistake("wrong sign", wrong.wrong_sign, "your zero point has the wrong sign: 0 = S (Z - Z), and low = S (0 - Z)"),
            Mistake("from the top", wrong.from_the_top, "your zero point counts the steps from 0 up to `high`; it is the number of steps from `low` up to 0"),
            Mistake("zero point cut off", wrong.zero_point_down, "you cut the zero point off to a whole number: round it to the nearest"),
            Mistake("symmetric inputs", wrong.symmetric_inputs, "you made the inputs symmetric; they are uint8 here, from 0 to 255, with a zero point"),
            Mistake("zero point first", wrong.zero_point_first, "you return the zero point before the scale"),
            Mistake("one weight scale", wrong.one_weight_scale, "you have one scale for the whole weight: every output channel has its own"),
            Mistake("input channels", wrong.input_channels, "your weight scales belong to input channels; a sum can only leave out a factor that all its terms share, that of its output channel"),
            Mistake("by 128", wrong.by_128, "a largest weight of 128 steps does not fit into int8 when it is positive: divide by 127"),
            Mistake("by 255", wrong.by_255, "you spread each channel's range over 255 steps; without a zero point the grid must be symmetric"),
            Mistake("largest without sign", wrong.largest_without_sign, "you take the largest weight, and not the largest in size: a channel of negative weights is cut off"),
            Mistake("weights cut off", wrong.weights_cut, "you cut the weights off towards zero: round to the nearest"),
            Mistake("bias in input steps", wrong.bias_in_input_steps, "your bias is in steps of the input; what it is added to are products, in steps of scale * weight_scale"),
            Mistake("bias in weight steps", wrong.bias_in_weight_steps, "your bias is in steps of the weight; what it is added to are products, in steps of scale * weight_scale"),
            Mistake("bias over", wrong.bias_over, "you divide the two scales; the step of a product is their product"),
            Mistake("small bias", wrong.small_bias, "you stored the bias in 8 bits with a scale of its own; it is added to sums of products, and must have their step, in int32"),
            Mistake("real bias", wrong.real_bias, "your bias is still real: the kernel adds it to integers"),
            Mistake("bias cut off", wrong.bias_cut, "you cut the bias off towards zero: round to the nearest"),
            Mistake("zero point in the bias", wrong.zero_point_in_bias, "you worked the zero point into the bias; the file says where zero is, and the engine does this itself: now it happens twice")),
        hints=("Three grids: one for the inputs (with a zero point), one per output channel of the weight (symmetric), and the step of their products for the bias.",
               "S = (high - low) / 255 with 0 inside; Z = round(-low / S); S_w = max|w| / 127 per channel; q_b = round(b / (S S_w)).",
               "low, high = min(low, 0.0), max(high, 0.0)\nscale = ...\nzero_point = round(...)\nweight_scale = weight.abs().flatten(1).amax(1) / ...\nq_weight = (weight / weight_scale.view(-1, *[1] * (weight.ndim - 1)))...\nq_bias = (bias / (...)).round().to(torch.int32)")),
    Exercise(
        id="11.6", name="integer_block", title="Debugging: a block in integers", dots=3, minutes=20, points=3,
        misconception="an int8 network that answers nonsense has too few bits",
        reference=references.integer_block, verify=checks.verify_block,
        alternatives=(right.pad_with_the_zero_point, right.through_real_numbers),
        mistakes=(
            Mistake("not uint8", wrong.not_uint8, "the integers are right; return them as torch.uint8, the form in which the next layer reads them"),
            Mistake("as it was", wrong.block_with(*wrong.BUGS), "this is the block as it was, with all its bugs: follow one tensor at a time, and ask which grid its integers are on"),
            Mistake("border", wrong.block_with("border"), "your border is the integer 0, which stands for the lowest value of x, not for zero"),
            Mistake("scale", wrong.block_with("scale"), "the sums go to the wrong grid: the convolution's result is on `mid`, not on `out`"),
            Mistake("wrap", wrong.block_with("wrap"), "results above 255 come back at 0 and negative ones at 255: you cast before you clamp"),
            Mistake("relu", wrong.block_with("relu"), "your ReLU cuts at the integer 0; real zero is the zero point of `mid`"),
            Mistake("sum", wrong.block_with("sum"), "you add integers of two grids as if they had the same step"),
            Mistake("no clamp at the end", wrong.no_clamp_at_the_end, "the last cast wraps: clamp the result before it"),
            Mistake("one weight step", wrong.one_weight_step, "you use one step for all weights; each output channel has its own"),
            Mistake("without the shortcut", wrong.without_shortcut, "the shortcut is missing: the block adds its input"),
            Mistake("ReLU of the sum", wrong.relu_of_the_sum, "your ReLU comes after the sum; in this block it comes before"),
            Mistake("border and relu", wrong.block_with("border", "relu"), "two bugs are left; ask twice: which integer is real zero here"),
            Mistake("wrap and sum", wrong.block_with("wrap", "sum"), "two bugs are left, one in a cast and one in the addition")),
        hints=("Five bugs. For each line: which tensor is this, on which grid are its integers, and which integer of that grid is real zero?",
               "Pad after subtracting Z (or with Z); the factor is S_x S_w / S_mid; clamp, then cast; ReLU is the lower bound Z_mid; a sum needs real values: S_mid (h - Z_mid) + S_x (q - Z_x).",
               "centred = F.pad(q.float() - z1, (1, 1, 1, 1))\nsums = ...\nfactor = s1 * weight_scale / ...\nh = (...).round() + z2\nh = h.clamp(..., 255).to(torch.uint8)\ntotal = s2 * (...) + s1 * (...)\nreturn ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)")),
)

"""Exercises 2.10 to 2.18: rounding together, training through rounding, few values, bits per layer, a file."""

from __future__ import annotations

from compresslab.course.chapter02 import alternatives_training as right
from compresslab.course.chapter02 import budget_task
from compresslab.course.chapter02 import checks_training as checks
from compresslab.course.chapter02 import mistakes_levels as slips
from compresslab.course.chapter02 import mistakes_training as wrong
from compresslab.course.chapter02 import references_training as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="2.10", name="best_rounding", title="Round together", dots=3, minutes=12, track="core", points=3,
        misconception="nearest is best",
        reference=references.best_rounding, verify=checks.verify_best_rounding,
        alternatives=(right.rounding_in_a_loop, right.rounding_through_a_root),
        mistakes=(
            Mistake("nearest", wrong.nearest,
                    "every weight goes to its nearest point: plain rounding, or d'Hd with only the diagonal of H, which is the same; "
                    "off the diagonal the errors of different weights meet"),
            Mistake("choices returned", wrong.choices_returned,
                    "you return the choices, 0 for down and 1 for up: add them to floor(w / scale), which gives the integers"),
            Mistake("signed sum", wrong.signed_sum, "you added up H d with its signs: multiply by d once more, d'Hd is a sum of squares"),
            Mistake("sum of the errors", wrong.absolute_sum,
                    "you made the sum of the weights' errors small: that is the output for an input of ones; H knows the real inputs"),
            Mistake("one flip", wrong.one_flip, "you start from nearest and change one weight only: try all 2^n choices"),
            Mistake("one after the other", wrong.one_after_the_other,
                    "you settle one weight after the other and never come back: a later choice can make an earlier one wrong; try all 2^n"),
            Mistake("largest error", wrong.largest_error, "that is the choice with the largest error: argmin, not argmax"),
            Mistake("real numbers", wrong.real_numbers, "return the integers q, not the weights scale * q")),
        hints=("Write down all choices as a table of zeros (down) and ones (up), one row each; then one matrix product judges them all.",
               "q = floor(w / s) + u with u in {0, 1}^n; d = s q - w; the output error is d'Hd. The bits of the numbers "
               "0 ... 2^n - 1 are all the u there are.",
               "ups = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1      # (2^n, n)\nq = torch.floor(w / scale) + ups\n"
               "d = ...\nerrors = ((d @ H) * d).sum(1)\nreturn q[...].int()")),
    Exercise(
        id="2.11", name="fake_quantize", title="A staircase with a slope", dots=3, minutes=12, track="core", points=3, workshop=True,
        misconception="what is rounded cannot be trained",
        reference=references.fake_quantize, verify=checks.verify_fake_quantize,
        alternatives=(right.fake_by_a_function, right.fake_with_a_mask, right.fake_with_two_detached),
        mistakes=(
            Mistake("no gradient", wrong.no_gradient,
                    "the gradient of round is zero almost everywhere, and so is yours: let it pass as if rounding were not there"),
            Mistake("no clip mask", wrong.no_clip_mask,
                    "your gradient passes outside the range, too: a clipped weight changes nothing, so its gradient is 0"),
            Mistake("rounded before the clamp", wrong.rounded_before_the_clamp,
                    "you rounded before the clamp: what lies less than half a step beyond the range gets a gradient; clamp w / scale, then round"),
            Mistake("edge left out", wrong.edge_left_out,
                    "the weight exactly on the edge belongs to the range: its gradient is 1, so compare with >= and <="),
            Mistake("wrong term detached", wrong.detached_the_weight,
                    "you detached the rounded weight: going forward it cancels, and the value is not quantized at all"),
            Mistake("not clamped", wrong.not_clamped, "the value leaves the grid: clamp to qmin ... qmax"),
            Mistake("integers returned", wrong.integers_returned, "you return the integers: multiply by scale again"),
            Mistake("clamped before dividing", wrong.clamped_the_real_weight,
                    "qmin and qmax are integers of the grid: clamp w / scale, not w")),
        hints=("Going forward you want the rounded value, going backward the unrounded one. detach() hides a term from the backward pass.",
               "With v = clamp(w / s): value = s (v + detach(round(v) - v)). clamp has the gradient 1 inside and 0 outside: the mask is free.",
               "v = (w / scale).clamp(...)\nrounded = v + (...).detach()\nreturn scale * rounded")),
    Exercise(
        id="2.12", name="lsq_gradient", title="A gradient for the step", dots=3, minutes=12, track="stretch",
        misconception="only weights can be trained, the grid is given",
        reference=references.lsq_gradient, verify=checks.verify_lsq_gradient,
        alternatives=(right.lsq_by_autograd, right.lsq_in_a_loop),
        mistakes=(
            Mistake("Qp forgotten", wrong.forgot_qp, "you divide by sqrt(N): Qp stands under the root, too, g = 1 / sqrt(N Qp)"),
            Mistake("mean", wrong.mean_of_the_slopes,
                    "you took the mean: all weights share one step, so their slopes add up; g = 1 / sqrt(N Qp) does the rest"),
            Mistake("mean, then g", wrong.mean_and_g,
                    "you took the mean and multiplied by g: all weights share one step, so their slopes add up; sum instead"),
            Mistake("g forgotten", wrong.forgot_g, "the factor g = 1 / sqrt(N Qp) is missing: the step would run away from the weights"),
            Mistake("no root", wrong.no_root, "g has a square root: 1 / sqrt(N Qp)"),
            Mistake("saturated ones left out", wrong.forgot_the_saturated,
                    "saturated weights count, too: their value is -Qn s or Qp s, so their slope is -Qn or Qp"),
            Mistake("plus Qn below", wrong.plus_qn_below,
                    "below the range the value is -Qn s, so the slope is -Qn; you have +Qn"),
            Mistake("edge inside", wrong.edge_inside,
                    "a weight exactly on the edge counts as saturated: w/s >= Qp has the slope Qp, w/s <= -Qn has -Qn; yours is 0 there"),
            Mistake("nothing saturates", wrong.never_saturated,
                    "you take round(v) - v for all weights: beyond the range the value is -Qn s or Qp s, with the slope -Qn or Qp"),
            Mistake("sign", wrong.wrong_sign, "inside the range the slope is round(w/s) - w/s, you have the opposite sign"),
            Mistake("rounding held fixed", wrong.rounding_held_fixed,
                    "you hold round(w/s) fixed: straight through, it moves with w/s, which adds the term -w/s"),
            Mistake("upstream ignored", wrong.upstream_ignored, "multiply each slope by the gradient that comes from behind before you add")),
        hints=("Three cases for each weight: inside, saturated below, saturated above. Then a weighted sum, and the factor g.",
               "slope = round(v) - v inside, -Qn below, Qp above, with v = w / s; dL/ds = sum(slope * upstream) / sqrt(N Qp).",
               "v = w / step\ninside = (v > -qn) & (v < qp)\nslope = torch.where(inside, ..., v.clamp(-qn, qp))\n"
               "return (slope * upstream).sum() / ...")),
    Exercise(
        id="2.13", name="ternary", title="Minus one, zero, one", dots=3, minutes=12, track="core",
        misconception="the best of 3^n choices cannot be found",
        reference=references.ternary, verify=checks.verify_ternary,
        alternatives=(right.ternary_by_trying_thresholds, right.ternary_by_the_root),
        mistakes=(
            Mistake("0.7 rule", wrong.rule_of_thumb, "0.7 times the mean is the paper's rule of thumb: near the best for normal weights, "
                    "far from it for others; sorting gives the best"),
            Mistake("threshold at the mean", wrong.threshold_at_the_mean, "you keep what is above the mean: no threshold fits all weights, search for it"),
            Mistake("sorted with signs", wrong.sorted_with_signs,
                    "you sorted w itself: a large negative weight comes last; sort |w|, the signs go into the pattern"),
            Mistake("k one too large", wrong.k_one_too_large,
                    "you divide by k + 1: the first sum holds one weight, so k runs from 1 to n"),
            Mistake("one kept less", wrong.one_kept_less, "argmax counts from 0: at position i of the scores, i + 1 weights are kept"),
            Mistake("alpha over the position", wrong.divided_by_the_index,
                    "argmax counts from 0: at position i of the scores, alpha is the sum over i + 1 weights, divided by i + 1"),
            Mistake("alpha is the largest", wrong.alpha_is_the_largest,
                    "you took alpha = max |w|: the least error has the mean of |w| over the kept weights"),
            Mistake("alpha is the threshold", wrong.alpha_is_the_threshold,
                    "you took the smallest kept |w| for alpha: the least error has the mean of |w| over the kept weights"),
            Mistake("one weight kept", wrong.mean_as_score,
                    "you keep one weight always: either k starts at 0 and divides by zero (arange(1, n + 1) starts at 1), "
                    "or the score is the mean, which is largest for one; it is sum^2 / k"),
            Mistake("mean as score", wrong.mean_as_score_with_ties,
                    "the mean of the kept is largest when only the largest is kept: the score is sum^2 / k"),
            Mistake("nothing is zero", wrong.nothing_is_zero, "you keep all weights: that is binary; the score is sum^2 / k, not the sum"),
            Mistake("alpha of all", wrong.scale_of_all, "alpha is the mean of |w| over the kept weights only"),
            Mistake("signs lost", wrong.pattern_without_signs, "your pattern has no signs: it holds -1, 0 and 1"),
            Mistake("product returned", wrong.product_returned, "return the pattern of -1, 0, 1 and alpha beside it, not their product")),
        hints=("For a given number k of kept weights everything is settled: the k largest, their signs, their mean. So try all k.",
               "With sizes sorted downwards and S_k the sum of the first k, the error is ||w||^2 - S_k^2 / k. cumsum gives all S_k at once.",
               "size, order = w.abs().flatten().sort(descending=True)\nsums = size.cumsum(0)\nbest = int((...).argmax())      # k - 1\n"
               "kept = order[:best + 1]\nt = torch.zeros(len(size))\nt[kept] = ...\nreturn t.view(w.shape), ...")),
    Exercise(
        id="2.14", name="xnor_dot", title="Multiply without multiplying", dots=2, minutes=10, track="stretch",
        misconception="a dot product needs multiplications",
        reference=references.xnor_dot, verify=checks.verify_xnor_dot, alternatives=(right.dot_by_unpacking, right.dot_by_matches),
        mistakes=(
            Mistake("matches counted", slips.counted_matches,
                    "you counted the agreements: each difference also counts -1, so it takes 2 away from n"),
            Mistake("differences counted", slips.counted_differences, "you returned the number of differences: the dot product is n - 2 times that"),
            Mistake("padding counted", slips.padding_counted, "you started from 64 bits for each word: the padding is no sign, start from n"),
            Mistake("padding agrees", slips.padding_agrees, "~(a ^ b) sets the bits of the padding, and you count them as agreements"),
            Mistake("and", slips.anded, "`&` finds where both are +1; a difference is `^`"),
            Mistake("floats", slips.floats_returned, "your numbers are right, but floats: a count of bits gives integers, return np.int64"),
            Mistake("bytes", slips.summed_in_bytes, "you summed in uint8: 256 differences wrap to 0; sum with dtype=np.int64"),
            Mistake("unsigned", slips.stayed_unsigned,
                    "you computed with unsigned integers: 3 - 2 * 3 wraps around to 18446744073709551613; sum to np.int64"),
            Mistake("one number for all", slips.summed_everything, "sum over the words only (axis=-1): one dot product for each pair of vectors")),
        hints=("Where two signs agree the product is +1, where they differ it is -1. Count the differences.",
               "a . b = n - 2 popcount(a xor b). np.bitwise_count counts the ones of each word; sum over the last axis, as np.int64.",
               "different = np.bitwise_count(...).sum(axis=-1, dtype=np.int64)\nreturn ...")),
    Exercise(
        id="2.15", name="lloyd_step", title="Levels where the weights are", dots=2, minutes=10, track="stretch",
        misconception="levels must be evenly spaced",
        reference=references.lloyd_step, verify=checks.verify_lloyd_step, alternatives=(right.lloyd_with_bincount, right.lloyd_one_by_one),
        mistakes=(
            Mistake("mean of nothing", slips.mean_of_nothing, "a level without values became nan: the mean of nothing; leave such a level where it was"),
            Mistake("empty goes to zero", slips.empty_goes_to_zero, "a level without values went to 0: leave it where it was"),
            Mistake("sums", slips.sums, "you moved the levels to the sums of their values: take the means"),
            Mistake("medians", slips.medians, "you took medians: they make the absolute error small; the squared error wants means"),
            Mistake("level below", slips.level_below, "you give each value to the level below it: the nearest can be above"),
            Mistake("assigned afterwards", slips.assigned_afterwards,
                    "you assigned the values to the moved levels: return the indices with which the means were taken"),
            Mistake("levels stay", slips.levels_stay, "your levels do not move: the second half of the step is missing")),
        hints=("First every value chooses its nearest level, then every level moves to the mean of those who chose it.",
               "a(i) = argmin_k |v_i - c_k|;  c_k = mean of {v_i : a(i) = k}, unchanged where that set is empty.",
               "indices = (values[:, None] - codebook).abs().argmin(1)\nmoved = codebook.clone()\nfor k in range(len(codebook)):\n"
               "    members = ...\n    if ...:\n        moved[k] = ...\nreturn indices, moved")),
    Exercise(
        id="2.16", name="allocate_bits", title="Who gets the bits?", dots=4, minutes=15, track="stretch", points=3,
        misconception="the same number of bits is fair",
        reference=references.allocate_bits, verify=checks.verify_allocate_bits,
        alternatives=(right.allocate_by_enumeration, right.allocate_by_milp),
        mistakes=(
            Mistake("same everywhere", slips.same_everywhere, "you give every layer the same number of bits: the layers differ in size and in what they lose"),
            Mistake("budget ignored", slips.budget_ignored, "you take the best for each layer and ignore the budget"),
            Mistake("budget in bytes", slips.budget_in_bytes, "the budget is in bits: you spend eight times as much"),
            Mistake("sizes ignored", slips.sizes_ignored, "a bit for a layer costs as many bits as it has weights: multiply by its size"),
            Mistake("strictly below", slips.strictly_below, "a choice that takes exactly the budget fits: <=, not <"),
            Mistake("overwritten", slips.overwritten,
                    "of two ways to spend the same bits you keep the later: compare, and keep the one with the smaller error"),
            Mistake("errors times sizes", slips.errors_times_sizes,
                    "you multiplied the errors by the sizes: they are those of whole layers already; only the bits are per weight"),
            Mistake("twenty best", slips.twenty_best,
                    "you keep only the choices with the least error so far: they have spent what a later layer needs more; "
                    "keep one for every number of bits spent"),
            Mistake("greedy by error", slips.greedy_by_error,
                    "you buy the largest gain first, whatever it costs: a large layer can use up what many small ones need"),
            Mistake("greedy by rate", slips.greedy_by_rate,
                    "you buy the best gain per bit first: good, and not exact; the last purchase may block a better pair"),
            Mistake("most bits", slips.most_bits, "you spend as many bits as fit: what counts is the error")),
        hints=("Go through the layers one by one and keep, for every number of bits spent so far, only the best way to spend exactly that.",
               "best_l(c) = min over b of best_{l-1}(c - n_l b) + error_l(b), for all c up to the budget; at the end the smallest of all.",
               "best = {0: (0.0, {})}                  # bits spent -> (error so far, who has how many)\nfor layer, size in sizes.items():\n"
               "    longer = {}\n    for spent, (total, chosen) in best.items():\n        for bits, error in errors[layer].items():\n"
               "            cost = ...\n            if cost <= budget and (cost not in longer or ...):\n"
               "                longer[cost] = (..., {**chosen, layer: bits})\n    best = longer\n...")),
    Exercise(
        id="2.17", name="quantize_and_report", title="Debug: a report too good to be true", dots=3, minutes=15, track="stretch", points=3,
        misconception="a good number is a right number",
        reference=references.quantize_and_report, verify=checks.verify_quantize_and_report,
        alternatives=(right.report_with_own_hooks, right.report_without_int8, right.report_and_tidy_up),
        mistakes=(
            Mistake("as it was", slips.as_it_was, "nothing is repaired yet: which images set the ranges, in which mode, and what happens to 300 in a byte?"),
            Mistake("only the cast repaired", slips.only_the_cast_repaired,
                    "the cast is right now; but the ranges come from the test images, and from batch norms in train mode"),
            Mistake("only the data repaired", slips.only_the_data_repaired,
                    "the ranges come from the right images now; but through batch norms in train mode, and 300 still wraps to 44 in a byte"),
            Mistake("cast before clamp", slips.casts_first, "you cast before you clamp: 300 wraps around to 44 and the clamp sees nothing wrong"),
            Mistake("calibrated on test", slips.calibrates_on_test,
                    "you still calibrate on the test images: the report judges a network that has seen the exam "
                    "(and nothing saturates, so that a wrong cast would stay hidden)"),
            Mistake("train mode", slips.calibrates_in_train_mode,
                    "you calibrate in train mode: batch norm normalises by the batch and overwrites its statistics; call model.eval() before"),
            Mistake("train mode, no copy", slips.calibrates_the_original_in_train_mode,
                    "you calibrate the caller's own model, in train mode: its batch norms take in the statistics of your batch; "
                    "deepcopy first, then set the copy to eval mode, then calibrate"),
            Mistake("left in eval", slips.model_left_in_eval,
                    "your report is right, but the caller's model stays in eval mode: deepcopy first, then set the copy to eval mode"),
            Mistake("mode of the whole", slips.mode_of_the_whole,
                    "model.train(was) puts all modules into one mode, and a frozen batch norm trains again: work on a deepcopy"),
            Mistake("clamp lost", slips.clamp_lost, "you dropped the clamp and the byte: what lies beyond the range must saturate")),
        hints=("Three bugs: one about which images, one about the mode of the network, one about the order of two operations.",
               "Calibrate on calibration_x only, with model.eval() called before; clamp while the numbers are floats, cast afterwards.",
               "model, qmax, ranges = copy.deepcopy(model).eval(), ...\n...\n    q = torch.round(x / scale)....clamp(...)....to(torch.int8)\n...\n"
               "run_with(model, calibration_x, watch)")),
    budget_task.EXERCISE,
)

"""Exercises 9.4 to 9.6: rounding and pruning with compensation, and other weights for the same function."""

from __future__ import annotations

from compresslab.course.chapter09 import alternatives_rounding as right
from compresslab.course.chapter09 import checks_rounding as checks
from compresslab.course.chapter09 import mistakes_rounding as wrong
from compresslab.course.chapter09 import references_rounding as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="9.4", name="obs_round", title="Rounding that makes up for itself", dots=3, minutes=20, points=3, track="core", workshop=False,
        misconception="weights round independently",
        reference=references.obs_round, verify=checks.verify_obs_round,
        alternatives=(right.by_submatrices, right.by_elimination, right.by_lazy_blocks),
        mistakes=(
            Mistake("to the nearest", wrong.nearest, "you round every weight alone: the columns to come must move before it is their turn"),
            Mistake("wrong sign", wrong.wrong_sign, "the columns to come move the wrong way, and make the error larger: the sign"),
            Mistake("not divided", wrong.not_divided, "the error is not divided by U[j, j] before it is passed on"),
            Mistake("divided twice", wrong.divided_twice, "you divide the error by U[j, j] twice; once is right with a row of U"),
            Mistake("factor of H", wrong.factor_of_H, "your U is a factor of H: it must be that of the inverse of H"),
            Mistake("the other factor", wrong.inverse_of_the_factor,
                    "your factor has H^-1 = U U^T: an upper triangle, too, but of the columns before; needed is H^-1 = U^T U"),
            Mistake("not eliminated", wrong.not_eliminated,
                    "you pass on along the rows of the whole inverse: columns that are rounded can no longer move, and must be eliminated from it"),
            Mistake("along H", wrong.along_H, "you pass the error on along H; it goes along the inverse of what is left of it"),
            Mistake("along -H", wrong.along_minus_H, "you pass the error on to correlated columns in proportion to H: right for two columns, not for more"),
            Mistake("damped", wrong.damped, "you damp H: the caller has done that already"),
            Mistake("error of the original", wrong.error_of_the_original,
                    "you take the error against the original weight: what was owed to it before must be paid as well, so against what it has become"),
            Mistake("one column", wrong.next_column_only, "only the next column moves: all columns to the right do"),
            Mistake("never rounded", wrong.never_rounded, "you pass the errors on, but never write the rounded column into the result"),
            Mistake("earlier ones too", wrong.earlier_ones_too, "columns that are rounded move again, off the grid: only those to the right may"),
            Mistake("from the right", wrong.from_the_right, "you begin with the last column: go from left to right")),
        hints=("Round a column. What it lost is an error of the output, and columns that are not rounded yet read correlated inputs: they can take most of it over.",
               "error = (W[:, j] - rounded) / U[j, j], with H^-1 = U^T U; every column k > j moves by -error * U[j, k].",
               "W = weight.double().clone()\nU = torch.linalg.cholesky(torch.linalg.inv(H.double()), upper=True)\nfor j in range(W.shape[1]):\n"
               "    rounded = quantize(W[:, j])\n    error = ...\n    W[:, j + 1:] -= torch.outer(error, ...)\n    W[:, j] = ...\nreturn W")),
    Exercise(
        id="9.5", name="obs_prune", title="SparseGPT by one changed line", dots=3, minutes=15, points=3, track="core",
        misconception="which weights go can be decided once, before anything has moved",
        reference=references.obs_prune, verify=checks.verify_obs_prune,
        alternatives=(right.prune_by_submatrices, right.prune_row_by_row),
        mistakes=(
            Mistake("by magnitude", wrong.by_magnitude, "you choose by magnitude: divide by U[j, j], which says how well others can make up for it"),
            Mistake("by input norm", wrong.by_input_norm, "you choose by weight times input norm, as Wanda does: right only if H is diagonal"),
            Mistake("multiplied", wrong.times_the_diagonal, "you multiply by the diagonal of U: the saliency is divided by it"),
            Mistake("not squared", wrong.diagonal_not_squared, "you square the weight and not the diagonal of U: the saliency is (w / U[j, j])^2"),
            Mistake("whole inverse", wrong.whole_inverse,
                    "you take the diagonal of the whole inverse: a column can lean only on those to its right, which is what U[j, j]^2 counts"),
            Mistake("signed", wrong.signed, "negative weights count as least salient: square, or take abs()"),
            Mistake("masks at the start", wrong.masks_at_the_start,
                    "you choose from the original weights: choose when the group begins, from what the weights have become"),
            Mistake("keeps the cheapest", wrong.keeps_the_cheapest, "you keep the n weights of least saliency; these go"),
            Mistake("drops n", wrong.drops_n, "you drop n of m; n stay"),
            Mistake("over all rows", wrong.over_all_rows, "you compare across rows: each row keeps n of its own m"),
            Mistake("over the whole row", wrong.over_the_whole_row, "you compare over the whole row: in every group of m columns n stay"),
            Mistake("nothing passed on", wrong.nothing_passed_on, "what is dropped is not passed on: the columns to the right must make up for it"),
            Mistake("wrong sign", wrong.prune_wrong_sign, "the columns to the right move the wrong way: the sign of the compensation"),
            Mistake("not divided", wrong.prune_not_divided, "the dropped weight is not divided by U[j, j] before it is passed on"),
            Mistake("old weights", wrong.old_weights, "the mask is right, but you return the old weights under it: keep what they have become"),
            Mistake("behind the group only", wrong.behind_the_group_only,
                    "within a group nothing is passed on: the columns of the same group, to the right, make up for it as well"),
            Mistake("at every column", wrong.chosen_at_every_column, "you choose again at every column: n of m are chosen once, when their group begins")),
        hints=("In your loop of 9.4, what stands in the place of the rounded column? A column with some zeros. Which rows get the zero is settled when a group begins.",
               "when j % m == 0: saliency (W[:, k] / U[k, k])^2 for the m columns of the group; the n largest of each row stay; then kept = W[:, j] * keep[:, j].",
               "keep = torch.zeros_like(W)\nfor j in range(W.shape[1]):\n    if j % m == 0:\n        saliency = ...\n"
               "        keep[:, j:j + m].scatter_(1, saliency.topk(n, dim=1).indices, 1.0)\n    kept = ...\n    error = (W[:, j] - kept) / ...\n    ...\nreturn W")),
    Exercise(
        id="9.6", name="smooth", title="The same function in easier numbers", dots=2, minutes=12, points=2, track="core",
        misconception="changing weights changes the function",
        reference=references.smooth, verify=checks.verify_smooth,
        alternatives=(right.smooth_by_loop, right.smooth_by_logarithms),
        mistakes=(
            Mistake("a scale for each", wrong.a_scale_for_each, "each reader has scales of its own: they read one vector, which can be divided only once"),
            Mistake("first reader", wrong.first_reader_only, "you look at the weights of the first reader only: the maximum is over all of them"),
            Mistake("last reader", wrong.last_reader_only, "you look at the weights of the last reader only: the maximum is over all of them"),
            Mistake("smallest reader", wrong.smallest_reader, "you take the reader with the smallest weights: the largest decides"),
            Mistake("mean of the readers", wrong.mean_reader, "you average the readers' maxima: the largest decides"),
            Mistake("mean weight", wrong.mean_weight, "you take the mean of the weights: their largest magnitude decides the range"),
            Mistake("exponents swapped", wrong.exponents_swapped, "the exponents are swapped: alpha belongs to the activations, 1 - alpha to the weights"),
            Mistake("product", wrong.product, "you multiply by the weights' part; the scale is divided by it"),
            Mistake("always half", wrong.always_half, "your alpha is always 1/2"),
            Mistake("other way round", wrong.other_way_round, "you multiply gamma and divide the weights: the outliers get larger"),
            Mistake("both multiplied", wrong.both_multiplied, "you multiply both: what is multiplied here must be divided there"),
            Mistake("gamma forgotten", wrong.gamma_forgotten, "gamma is as it was: nothing divides the activations"),
            Mistake("readers forgotten", wrong.readers_forgotten, "the readers are as they were: their columns must be multiplied"),
            Mistake("returns s", wrong.returns_the_scales, "you return the scales; asked for is gamma divided by them"),
            Mistake("gamma replaced", wrong.scales_replace_gamma, "you replace gamma by 1 / s: it is divided by s"),
            Mistake("signed maximum", wrong.signed_maximum, "the largest weight may be negative: take abs() first"),
            Mistake("by outputs", wrong.by_outputs, "you take the largest weight of each row: a channel of the input is a column"),
            Mistake("rows multiplied", wrong.rows_multiplied, "you multiply the rows, which are outputs: a channel of the input is a column"),
            Mistake("silent channels", wrong.silent_channels, "a channel without input or without weights gets the scale 0 or infinity: it keeps 1"),
            Mistake("clamped", wrong.clamped, "you clamp the scales of silent channels to a small number: such a channel keeps the scale 1")),
        hints=("Divide what comes out of the norm, multiply what reads it: the product stays. By how much, the ranges of both decide.",
               "s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), the second maximum over the columns j of all readers; gamma / s, W * s; s_j = 1 where a maximum is 0.",
               "absmax_w = torch.stack([W.abs().amax(0) for W in readers]).amax(0)\nlive = ...\ns = torch.where(live, ..., 1.0)\nreturn gamma / s, [... for W in readers]")),
)

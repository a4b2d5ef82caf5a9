"""Exercises 9.1 to 9.3: bits per character, load-balanced pruning, one projection for two readers."""

from __future__ import annotations

from compresslab.course.chapter09 import alternatives_recurrent as right
from compresslab.course.chapter09 import checks_recurrent as checks
from compresslab.course.chapter09 import mistakes_recurrent as wrong
from compresslab.course.chapter09 import references_recurrent as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="9.1", name="bits_per_character", title="How surprised is the model?", dots=2, minutes=10, points=2, track="core",
        misconception="a language model is as good as its most likely characters are right",
        reference=references.bits_per_character, verify=checks.verify_bits_per_character,
        alternatives=(right.bits_by_cross_entropy, right.bits_by_loop, right.bits_in_base_2),
        mistakes=(
            Mistake("in nats", wrong.in_nats, "your answer is in nats: torch's log is the natural one, divide by log 2"),
            Mistake("times log 2", wrong.times_log_2, "you multiply by log 2: one bit is 0.69 nats, so divide"),
            Mistake("perplexity", wrong.perplexity, "that is the perplexity, 2 to the power of the bits"),
            Mistake("negative", wrong.negative, "the sign: log2 p is negative, bits are not"),
            Mistake("per window", wrong.per_window, "you add up a window's characters: that is bits per window"),
            Mistake("in all", wrong.in_all, "you return the bits of all characters together; their mean was asked for"),
            Mistake("shifted", wrong.shifted, "you shift once more: targets[b, t] already is the character after position t"),
            Mistake("other axis", wrong.other_axis, "you normalise over the positions: the probabilities of the V characters at one position sum to 1"),
            Mistake("log of the mean", wrong.log_of_the_mean, "you average probabilities and then take the logarithm: average the logarithms, a text's bits add up"),
            Mistake("its own doubt", wrong.its_own_doubt, "that is the entropy of the prediction: how unsure the model says it is, whatever came next"),
            Mistake("the likeliest", wrong.likeliest, "you charge for the likeliest character: charge for the one that came"),
            Mistake("not normalised", wrong.raw_logits, "logits are no logarithms of probabilities yet: log_softmax first"),
            Mistake("underflow", wrong.underflow, "softmax in float32 turns a tiny p into 0, and log2 0 is infinite: use log_softmax"),
            Mistake("patched", wrong.patched_underflow, "your small constant makes all surprises beyond 30 bits equal: use log_softmax, which needs none"),
            Mistake("the last only", wrong.last_only, "you look at the last position only: every position of a window counts")),
        hints=("What would an ideal code pay for each character that really came?",
               "bits = mean over b, t of -log2 softmax(logits[b, t])[targets[b, t]]; log_softmax does it safely, in nats.",
               "log_p = logits.double().log_softmax(dim=-1)\nsurprise = -log_p.gather(-1, ...)\nreturn float(surprise.mean() / ...)")),
    Exercise(
        id="9.2", name="balanced_mask", title="Equal work for every element", dots=2, minutes=15, points=3, track="core", workshop=False,
        misconception="four fifths of the weights gone is five times as fast",
        reference=references.balanced_mask, verify=checks.verify_balanced_mask,
        alternatives=(right.masked_by_reshape, right.masked_by_topk, right.masked_by_sorting),
        mistakes=(
            Mistake("whole matrix", wrong.whole_matrix, "you compare all weights of the matrix: the elements end up with different numbers"),
            Mistake("each row", wrong.each_row, "you compare within each row: only an element's total must be equal, its rows may differ"),
            Mistake("rows in a row", wrong.rows_in_a_row, "your elements have neighbouring rows: element k has rows k, k + blocks, k + 2 blocks and so on"),
            Mistake("rows each", wrong.rows_each, "you make elements of `blocks` rows each; `blocks` is the number of elements"),
            Mistake("columns", wrong.columns, "you deal out columns; an element has whole rows, weight[k::blocks]"),
            Mistake("stacked", wrong.in_order_of_elements, "your mask has one element's rows behind the other's: write each back to mask[k::blocks]"),
            Mistake("threshold", wrong.threshold, "with ties a threshold drops more than asked: choose by index"),
            Mistake("fraction of the largest", wrong.of_the_largest, "you drop what is below a fraction of the largest weight; a fraction of their number goes"),
            Mistake("the smallest stay", wrong.smallest_stay, "the largest weights go and the smallest stay"),
            Mistake("keeps the sparsity", wrong.keeps_the_sparsity, "you keep a fraction `sparsity`; that is what goes"),
            Mistake("signed", wrong.signed, "you order by the signed value: large negative weights go first, use abs()"),
            Mistake("rounded down", wrong.rounded_down, "you round sparsity * n down: round to the nearest"),
            Mistake("rounded up", wrong.rounded_up, "you round sparsity * n up: round to the nearest"),
            Mistake("inverted", wrong.inverted, "your mask is True where a weight goes; True keeps"),
            Mistake("the pruned weight", wrong.pruned_weight, "you return the pruned weight; the mask was asked for")),
        hints=("Prune by magnitude as in chapter 01, but for each element's rows alone.",
               "Element k: n weights in weight[k::blocks]; the round(sparsity * n) smallest in size go.",
               "mask = torch.ones_like(weight, dtype=torch.bool)\nfor k in range(blocks):\n    share = weight[k::blocks]\n    lowest = share.abs().flatten().argsort()[:...]\n"
               "    kept = ...\n    mask[k::blocks] = kept.view_as(share)\nreturn mask")),
    Exercise(
        id="9.3", name="project", title="One projection for two readers", dots=3, minutes=15, points=3, track="core",
        misconception="low rank is something you do to each matrix for itself",
        reference=references.project, verify=checks.verify_project,
        alternatives=(right.project_by_eigenvectors, right.project_evenly, right.project_by_least_squares),
        mistakes=(
            Mistake("from the recurrent matrix", wrong.recurrent_only,
                    "your P is best for weight_hh alone, and head has to live with it: give both a say"),
            Mistake("from the output layer", wrong.head_only, "your P is best for head alone: give both a say"),
            Mistake("one each", wrong.one_each, "you use two projections: head multiplies the same short state, so it must use the P that you return"),
            Mistake("mean of two", wrong.mean_of_two, "you average two sets of directions: the mean of directions points nowhere, decompose both readers together"),
            Mistake("last directions", wrong.last_directions, "you keep the directions with the smallest singular values"),
            Mistake("first columns", wrong.first_columns, "you keep the first numbers of the state: a projection may mix them"),
            Mistake("no singular values", wrong.no_singular_values, "the singular values are in none of your factors"),
            Mistake("twice", wrong.singular_values_twice, "the singular values are in both factors, so they count twice"),
            Mistake("V for V^T", wrong.not_transposed, "torch's third result is V^T, its rows are the directions: you transposed it once more"),
            Mistake("centred", wrong.centred, "you subtract the mean row, as for principal components: the product must give the matrix, not its deviations"),
            Mistake("equal say", wrong.unit_readers, "you scale the readers to one norm: the sum of the plain squared errors was asked for"),
            Mistake("rebuilt", wrong.rebuilt, "you return the rebuilt matrices; asked for are the factors Z, which read the short state"),
            Mistake("swapped", wrong.swapped, "you return head's factor before weight_hh's"),
            Mistake("transposed", wrong.transposed, "your P is transposed: (rank, H) was asked for, so that P h is short"),
            Mistake("of the rows", wrong.of_the_rows, "you take directions among the rows, the gates (U): the state is on the side of the columns")),
        hints=("Both matrices multiply the same vector h. Put one under the other: a single matrix that reads h.",
               "[W_hh; W_y] = U S V^T; P = the first `rank` rows of V^T; Z = W P^T, because the rows of P are orthonormal.",
               "stacked = torch.cat([weight_hh, head])\n_, _, Vh = torch.linalg.svd(stacked, full_matrices=False)\nP = ...\nreturn P, weight_hh @ ..., head @ ...")),
)

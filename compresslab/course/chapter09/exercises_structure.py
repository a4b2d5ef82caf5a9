"""Exercises 9.10 to 9.13: which heads matter, two divergences, a layer to repair, a file."""

from __future__ import annotations

from compresslab.course.chapter09 import alternatives_structure as right
from compresslab.course.chapter09 import budget_structure
from compresslab.course.chapter09 import checks_structure as checks
from compresslab.course.chapter09 import mistakes_structure as wrong
from compresslab.course.chapter09 import references_structure as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="9.10", name="head_scores", title="Which heads matter?", dots=2, minutes=15, track="core", points=2,
        misconception="a head matters if its output is large",
        reference=references.head_scores, verify=checks.verify_head_scores, alternatives=(right.scores_by_einsum, right.scores_in_loops),
        mistakes=(
            Mistake("abs of every number", wrong.every_number, "you took |.| of every single number: one factor turns the whole head down, so its derivative is a sum, with signs, over places and channels"),
            Mistake("abs of every place", wrong.every_place, "you took |.| at every place of the text: first sum over all places of a text, then the absolute value"),
            Mistake("abs after the mean", wrong.after_the_mean, "you took |.| after the mean over the texts: a head that helps one text and harms another cancels out; |.| of each text, then the mean"),
            Mistake("signed", wrong.signed, "your scores have signs: the absolute value of each text's derivative is missing"),
            Mistake("interleaved", wrong.interleaved, "you split the channels as (size, heads): a head's channels are neighbours, head 0 has the first ones, so unflatten(2, (heads, -1))"),
            Mistake("gradient only", wrong.gradient_only, "you summed the gradient alone: the derivative with respect to a factor in front of the output is output times gradient"),
            Mistake("size of the gradient", wrong.gradient_size, "you measured how large the gradient is: multiply it with the output before you sum"),
            Mistake("size of the output", wrong.output_size, "you measured how large the output is: a loud head may be ignored by what follows; the gradient knows"),
            Mistake("mean over places and channels", wrong.mean_over_places, "you took the mean over places and channels: all of them belong to one factor, so their contributions add up"),
            Mistake("mean over places", wrong.mean_over_tokens, "you took the mean over the places of a text: their contributions to the derivative add up"),
            Mistake("sum over texts", wrong.sum_over_texts, "you summed over the texts: their mean is wanted, so that more texts do not mean higher scores"),
            Mistake("one per text", wrong.per_text, "you return one score per text and head: take the mean over the texts"),
            Mistake("squared", wrong.squared, "you squared the derivatives: their absolute values are wanted")),
        hints=("Put a factor in front of a head's output. By the chain rule, the derivative of the loss with respect to it is a sum over everything that the factor multiplies.",
               "d_bh = sum over places t and channels c of output * gradient, within head h of text b; then the mean over b of |d_bh|.",
               "product = (output * gradient).unflatten(2, (heads, -1))      # (texts, places, heads, size)\nreturn product.sum(...).abs().mean(...)")),
    Exercise(
        id="9.11", name="reverse_kl", title="The divergence that picks", dots=2, minutes=10, track="core", points=2,
        misconception="a distance is a distance: its direction does not matter",
        reference=references.reverse_kl, verify=checks.verify_reverse_kl, alternatives=(right.kl_by_torch, right.kl_by_logsumexp),
        mistakes=(
            Mistake("forward", wrong.forward, "this is the forward divergence, KL(p || q): in the reverse one the *student's* probabilities are the weights"),
            Mistake("sign flipped", wrong.sign_flipped, "your sign is flipped, log p - log q: a divergence is never negative"),
            Mistake("teacher's weights", wrong.teacher_weights, "your log-ratio is right, but its weights are the teacher's probabilities: they must be the student's"),
            Mistake("mean over the vocabulary", wrong.mean_over_vocabulary, "you took the mean over the vocabulary too: sum over it, then the mean over the places"),
            Mistake("sum", wrong.sum_over_everything, "you summed over all places: the mean over them is wanted"),
            Mistake("mean over the batch", wrong.mean_over_batch_only, "you divided by the number of texts only: every place of a text is a lesson, divide by all of them"),
            Mistake("detached", wrong.detached, "the value is right, but you held the student's probabilities fixed: the gradient must pass through the weights of the mean, too"),
            Mistake("without entropy", wrong.without_entropy, "the term q log q is missing: without it, putting everything on one token is best"),
            Mistake("log of softmax", wrong.log_of_softmax, "you took the logarithm of a softmax: where a probability rounds to 0 this gives nan; use log_softmax"),
            Mistake("wrong axis", wrong.wrong_axis, "your softmax runs over axis 1, which may be the places of a text: the vocabulary is the last axis"),
            Mistake("bits", wrong.in_bits, "these are bits: a training loss in this course is in nats, so no division by log 2"),
            Mistake("both ways", wrong.both_ways, "this is the mean of both directions: only KL(q || p) is wanted"),
            Mistake("logits", wrong.of_logits, "you compared logits: they are log-probabilities only up to a constant, which log_softmax takes away")),
        hints=("In KL(a || b) the first distribution weighs the log-ratio log a - log b. Reverse: the student comes first.",
               "mean over places of sum_v q_v (log q_v - log p_v), with log_softmax over the last axis; q = exp(log q), not detached.",
               "log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)\nreturn (... * (log_q - log_p)).sum(-1).mean()")),
    Exercise(
        id="9.12", name="quantize_layer", title="Four bugs in four bits", dots=3, minutes=20, track="core", points=3,
        misconception="if the numbers look good, the pipeline is right",
        reference=references.quantize_layer, verify=checks.verify_quantize_layer, alternatives=(right.layer_in_groups, right.layer_chosen_at_the_end),
        mistakes=(
            Mistake("nothing repaired", wrong.all_bugs, "all four bugs are still there: look at which weights share a scale, at negative weights, at what chooses the clip, at what the scales cost"),
            Mistake("groups repaired", wrong.only_groups_repaired, "the groups are right now; three bugs are left: in the scale, in the choice of the clip, and in what is counted"),
            Mistake("two repaired", wrong.only_groups_and_sign_repaired, "groups and scales are right now; the clip is still chosen on the test text, and the scales are not counted"),
            Mistake("choice and bytes repaired", wrong.bytes_and_choice_left, "choice and counting are right now; which weights share a scale, and what if the largest of them is negative?"),
            Mistake("groups across", wrong.groups_across, "your groups run across the outputs: what shares a scale must be neighbours within one *row* of the weight"),
            Mistake("largest signed", wrong.largest_signed, "your scale is that of the largest signed weight: a large negative one is cut off; the largest |w| is wanted"),
            Mistake("chosen on test", wrong.chosen_on_test, "your clip is chosen on the test text: then its bits are no honest test any more; choose on the calibration text"),
            Mistake("scales for free", wrong.scales_free, "you count no scales: each group stores one, of 16 bits"),
            Mistake("scales of 32", wrong.scales_of_32, "you count 32 bits per scale: they are stored in 16"),
            Mistake("whole rows", wrong.whole_rows, "your scale is that of a whole row: each group of `group` neighbours has its own"),
            Mistake("scales in float32", wrong.floats_kept, "you use the scales in float32 and store them in float16: then you measure a layer that no file holds"),
            Mistake("sixteen levels", wrong.sixteen_levels, "your grid goes from -8 to 7: here it is symmetric, -7 to 7, scale clip * max |w| / 7"),
            Mistake("never clipped", wrong.never_clipped, "your scale does not depend on the clip"),
            Mistake("last clip", wrong.last_clip, "you keep the last clip, not the best"),
            Mistake("worst clip", wrong.worst_clip, "you keep the worst clip"),
            Mistake("told of calibration", wrong.told_calibration, "you report the bits on the calibration text, on which the clip was chosen: report those on the test text")),
        hints=("Four bugs: which weights share a scale, what the scale forgets, which text chooses, what the file holds besides the codes. None of them raises an error.",
               "weight.reshape(-1, group), not transposed; rows.abs().amax; *calibration where the best is chosen and *test in what is returned; 4 + 16 / group.",
               "rows = weight.reshape(-1, group)\nscale = (clip * ... / 7).half().float()\nstored = ((rows / scale).round().clamp(-7, 7) * scale).view_as(weight)\n"
               "if bits_of(stored, *calibration) < best:\n    ...\nreturn found, bits_of(found, ...), 4 + ...")),
    budget_structure.EXERCISE,
)

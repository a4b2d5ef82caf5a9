"""Exercises 1.1 to 1.8: single weights, training under a mask, the sparse file, second order."""

from __future__ import annotations

from compresslab.course.chapter01 import alternatives as right
from compresslab.course.chapter01 import checks_weights as checks
from compresslab.course.chapter01 import mistakes_training as slips
from compresslab.course.chapter01 import mistakes_weights as wrong
from compresslab.course.chapter01 import references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="1.1", name="magnitude_mask", title="Keep the largest weights", dots=2, minutes=8, track="core", workshop=True,
        misconception="a threshold and a number of weights are the same thing",
        reference=references.magnitude_mask, verify=checks.verify_magnitude_mask,
        alternatives=(right.mask_with_topk, right.mask_in_a_loop),
        mistakes=(
            Mistake("kept the smallest", wrong.kept_smallest, "you kept the smallest weights and pruned the largest"),
            Mistake("forgot abs", wrong.forgot_abs,
                    "you ordered by the signed value: large negative weights go first, and they matter as much as positive ones"),
            Mistake("percent", wrong.percent, "sparsity is a fraction here, 0.9 and not 90: do not divide by 100"),
            Mistake("returned the weights", wrong.returned_weights,
                    "you returned the pruned weights; return the mask, True where a weight stays"),
            Mistake("threshold drops ties", wrong.threshold_drops_ties,
                    "`abs > threshold` drops every weight that equals the threshold: with ties more go than were asked for; choose indices"),
            Mistake("threshold keeps ties", wrong.threshold_keeps_ties,
                    "`abs >= threshold` keeps every weight that equals the threshold: with ties fewer go than were asked for; choose indices"),
            Mistake("truncated", wrong.truncated, "int() cuts 1.75 down to 1: take round(sparsity * n)"),
            Mistake("no refusal", wrong.no_refusal,
                    "a sparsity of 80 goes through and prunes everything: refuse what is outside [0, 1] with a ValueError (nan, too)")),
        hints=("Sort the magnitudes. The first k places of that order hold the weights that go: you need places, not a value.",
               "k = round(s n). With order = argsort(|w|), the mask is False at order[0], ..., order[k-1]. "
               "nan fails every comparison, so `if not 0 <= sparsity <= 1` refuses it as well.",
               "if not 0 <= sparsity <= 1:\n    raise ValueError(...)\norder = weight.abs().flatten().argsort()\n"
               "mask = torch.ones(weight.numel(), dtype=torch.bool)\nmask[order[:...]] = ...\nreturn mask.view(weight.shape)")),
    Exercise(
        id="1.2", name="global_masks", title="One ranking for all layers", dots=2, minutes=8, track="stretch",
        misconception="90 % sparsity means 90 % of every layer",
        reference=references.global_masks, verify=checks.verify_global_masks, alternatives=(right.global_in_a_loop,),
        mistakes=(
            Mistake("per layer", wrong.one_threshold_per_layer,
                    "you rank within each layer: every layer loses the same share; rank the weights of all layers together"),
            Mistake("relative", wrong.relative_to_the_largest,
                    "you divide by each layer's largest weight first: that is another criterion; compare the magnitudes as they are"),
            Mistake("largest first", wrong.largest_first, "you prune the largest weights of the network"),
            Mistake("forgot abs", wrong.global_without_abs, "you ranked signed values: take magnitudes"),
            Mistake("threshold with ties", wrong.global_threshold_with_ties,
                    "one global threshold drops all weights that equal it: reuse `magnitude_mask` on the concatenated weights")),
        hints=("Put all the weights into one long vector; you already have a function that masks a vector.",
               "torch.cat the flattened magnitudes, mask them, `split` the mask by the layers' numbers of weights.",
               "everything = torch.cat([... for weight in weights.values()])\nparts = magnitude_mask(everything, sparsity).split([...])\n"
               "return {name: part.view(...) for name, part in zip(weights, parts)}")),
    Exercise(
        id="1.3", name="sensitivity", title="Which layer minds?", dots=2, minutes=10, track="stretch",
        misconception="all layers tolerate the same sparsity",
        reference=references.sensitivity, verify=checks.verify_sensitivity, alternatives=(right.sensitivity_with_restoring,),
        mistakes=(
            Mistake("never copied", wrong.never_copied,
                    "you prune the network itself: it stays pruned after the first point; copy it (copy.deepcopy) for each point"),
            Mistake("one copy for all layers", wrong.one_copy_for_all_layers,
                    "the layers before this one are still pruned: take a fresh copy for every layer"),
            Mistake("one copy per layer", wrong.one_copy_per_layer,
                    "within a layer you prune the copy that the last sparsity has pruned already: take a fresh copy for every point"),
            Mistake("all layers at once", wrong.all_layers_at_once, "you prune all layers together: a sensitivity curve prunes one layer alone"),
            Mistake("linear layers only", wrong.linear_layers_only, "convolutions have weights, too: take nn.Conv2d layers as well")),
        hints=("Two loops: over the layers, over the sparsities. Inside, a fresh copy of the network with one weight masked.",
               "copy.deepcopy(model), then .get_submodule(name).weight, and multiply its .data by your mask.",
               "for name, layer in model.named_modules():\n    if isinstance(layer, (nn.Linear, nn.Conv2d)):\n        curves[name] = []\n"
               "        for sparsity in sparsities:\n            pruned = copy.deepcopy(model)\n            ...\n"
               "            curves[name].append(evaluate(pruned))")),
    Exercise(
        id="1.4", name="cubic_sparsity", title="A schedule for the sparsity", dots=1, minutes=6, track="stretch",
        misconception="prune evenly, step by step",
        reference=references.cubic_sparsity, verify=checks.verify_cubic_sparsity, alternatives=(right.cubic_by_cases,),
        mistakes=(
            Mistake("straight line", wrong.straight_line, "that is a straight line: the power of three is missing"),
            Mistake("slow start", wrong.slow_start,
                    "you put the cube on the progress, so it starts slowly and ends fast; the cube belongs on what is left, 1 - progress"),
            Mistake("begin ignored", wrong.ignored_begin, "you count from step 0: progress starts at `begin` and ends at `end`"),
            Mistake("not held", wrong.not_held,
                    "outside begin ... end the cubic runs away: hold `initial` before and `final` after (clamp the progress to [0, 1])"),
            Mistake("initial ignored", wrong.ignored_initial, "you start from 0: start from `initial`")),
        hints=("Turn the step into a progress between 0 and 1 first, clamped; then the formula is one line.",
               "progress = clamp((t - t0) / (t_end - t0), 0, 1);  s = s_f + (s_i - s_f) (1 - progress)^3.",
               "progress = min(max(..., 0.0), 1.0)\nreturn final + (...) * (1 - progress) ** 3")),
    Exercise(
        id="1.5", name="prune_in_training", title="Debug: the weights come back", dots=3, minutes=15, track="core", points=3,
        misconception="no gradient, no movement",
        reference=references.prune_in_training, verify=checks.verify_prune_in_training,
        alternatives=(right.prune_by_clearing_momentum,),
        mistakes=(
            Mistake("gradient masked", slips.gradient_masked,
                    "the gradient of a masked weight is zero, but its momentum is not: the step after pruning moves it again"),
            Mistake("masked before the step", slips.masked_before_the_step,
                    "you mask before the forward pass, and the optimizer moves the weights afterwards: the last step leaves them non-zero"),
            Mistake("masked at the end", slips.masked_at_the_end,
                    "you train a dense network and cut it afterwards: nothing had a chance to make up for the loss"),
            Mistake("chosen anew", slips.mask_chosen_anew,
                    "you choose the mask again in later steps: other weights go each time; choose once, at step prune_at"),
            Mistake("optimizer restarted", slips.optimizer_restarted,
                    "a new optimizer forgets the momentum of the surviving weights, too: keep the optimizer, hold the mask"),
            Mistake("pruned once", slips.pruned_once, "you multiply by the mask once, and training fills the zeros up again")),
        hints=("Print the number of zeros after every step. What can move a weight whose gradient is zero?",
               "SGD with momentum steps by v <- mu v + g. After pruning g = 0, but v still holds the gradients of earlier steps. "
               "What must be zero is the weight, after the step.",
               "    optimizer.step()\n    for name, parameter in model.named_parameters():\n        if name in masks:\n            parameter.data *= ...")),
    Exercise(
        id="1.6", name="control_starts", title="Three controls", dots=2, minutes=12, track="core",
        misconception="the inherited weights are what matters",
        reference=references.control_starts, verify=checks.verify_control_starts, alternatives=(right.starts_with_scattered_ones,),
        mistakes=(
            Mistake("one ratio for all", slips.one_ratio_for_all,
                    "you shuffle the masks of all layers together: then the layers' ratios change as well, and you test two things at once"),
            Mistake("drawn by a coin", slips.drawn_by_a_coin,
                    "a coin for each weight gives the right number on average only: shuffle the mask, so that the count is exact"),
            Mistake("random mask on fresh weights", slips.random_mask_on_fresh,
                    "'random mask' with fresh weights changes the mask and the weights at once: keep the trained weights there"),
            Mistake("from scratch without mask", slips.scratch_without_mask, "'from scratch' is still dense: it must have the given mask"),
            Mistake("shuffled the weights", slips.shuffled_the_weights,
                    "you shuffled the weights themselves: a kept weight must stay at its place; shuffle the mask"),
            Mistake("generator ignored", slips.ignored_the_generator,
                    "you draw from PyTorch's global generator: use generator=generator, or nobody can repeat your experiment")),
        hints=("Change one thing at a time: the places of the mask, or the values of the weights, never both.",
               "A random mask with the same count is the given mask in another order: mask.flatten()[torch.randperm(n, generator=generator)].",
               "shuffled = {}\nfor name, mask in masks.items():\n    order = torch.randperm(..., generator=generator)\n"
               "    shuffled[name] = mask.flatten()[order].view(mask.shape)\nreturn {'inherited': {...}, 'random mask': {...}, 'from scratch': {...}}")),
    Exercise(
        id="1.7", name="gap_encode", title="Where the weights are", dots=3, minutes=15, track="core", points=3, workshop=True,
        misconception="zeros are free",
        reference=references.gap_encode, verify=checks.verify_gap_encode,
        alternatives=(right.gaps_by_walking, right.gaps_vectorised),
        mistakes=(
            Mistake("never escaped", slips.never_escaped, "a gap does not fit into index_bits bits: write escape codes first"),
            Mistake("wrapped", slips.wrapped,
                    "a gap that does not fit wraps around (5 becomes 1 in two bits) and every later weight lands in a wrong place"),
            Mistake("absolute positions", slips.absolute_positions,
                    "you wrote positions: they need 18 bits in a network like ours; write the zeros since the last weight"),
            Mistake("distances", slips.distances, "you wrote the distance to the last weight, one too many: count the zeros between them"),
            Mistake("the paper's padding", slips.paper_padding,
                    "there an escape stands on a place of its own, with a zero stored for it (as in the paper); here it skips G zeros and no more"),
            Mistake("escape left open", slips.escape_left_open,
                    "a gap of exactly G must be written G, 0: alone, G says that no weight follows"),
            Mistake("tail coded", slips.coded_the_tail, "the zeros after the last weight need no code: the shape says where the tensor ends")),
        hints=("Walk over the places of the non-zero weights. For each, count the zeros since the last one.",
               "g zeros become floor(g / G) escapes and the code g mod G; G = 2^b - 1. So 4 zeros in two bits: 3, 1. And 3 zeros: 3, 0.",
               "escape = 2**index_bits - 1\ncodes, last = [], -1\nfor position in weight.flatten().nonzero().flatten().tolist():\n"
               "    zeros = position - last - 1\n    codes += [escape] * (...) + [...]\n    last = position\nreturn torch.tensor(codes, dtype=torch.int64)")),
    Exercise(
        id="1.8", name="obs_remove", title="Remove one weight, move the others", dots=3, minutes=15, track="core", points=3,
        misconception="small is unimportant",
        reference=references.obs_remove, verify=checks.verify_obs_remove, alternatives=(right.obs_by_solving,),
        mistakes=(
            Mistake("nobody moves", slips.nobody_moves, "you only set the weight to zero: that is Optimal Brain Damage; the others may move"),
            Mistake("only the saliency", slips.only_the_saliency,
                    "your rise is the one after the others have moved, but you did not move them: add dw to all weights"),
            Mistake("H not inverted", slips.hessian_not_inverted, "you used H where the formula has its inverse"),
            Mistake("wrong sign", slips.wrong_sign, "dw has a minus sign: with yours the weight doubles before you zero it"),
            Mistake("not divided", slips.not_divided, "dw is w_q / [H^-1]_qq times the column: you left out the division"),
            Mistake("forgot the half", slips.forgot_the_half, "the rise lacks its factor 1/2: L = w_q^2 / (2 [H^-1]_qq)")),
        hints=("Minimise 1/2 dw' H dw subject to dw_q = -w_q, with one Lagrange multiplier.",
               "dw = -(w_q / [H^-1]_qq) H^-1 e_q, and H^-1 e_q is column q of the inverse; the rise is w_q^2 / (2 [H^-1]_qq).",
               "H_inv = torch.linalg.inv(H)\nrise = ...\nw = w - ... * H_inv[:, q]\nw[q] = 0\nreturn w, float(rise)")),
)

"""Exercises 7.7 to 7.13: projections, sums of two, orders, one budget, a hybrid to repair, a file."""

from __future__ import annotations

from compresslab.course.chapter07 import alternatives_joint as right
from compresslab.course.chapter07 import budget_task, checks_orders
from compresslab.course.chapter07 import checks_joint as checks
from compresslab.course.chapter07 import mistakes_orders as orders
from compresslab.course.chapter07 import mistakes_projections as wrong
from compresslab.course.chapter07 import mistakes_repair as bugs
from compresslab.course.chapter07 import references_joint as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="7.7", name="project_sparse_levels", title="Two constraints, one projection", dots=3, minutes=15, track="core", points=3,
        misconception="to satisfy two constraints, project onto the one, then onto the other",
        reference=references.project_sparse_levels, verify=checks.verify_project_sparse_levels,
        alternatives=(right.sparse_levels_in_a_loop, right.sparse_levels_with_zero),
        mistakes=(
            Mistake("pruned, then rounded", wrong.largest_weights,
                    "you kept the largest weights and rounded them: a large weight far from every level may be worth less than a smaller one; ask what each *gains* over zero"),
            Mistake("largest, harm avoided", wrong.largest_weights_without_harm, "you rank by |w|: rank by the gain, w^2 - (w - level)^2"),
            Mistake("rounded, then pruned", wrong.largest_levels, "you ranked the rounded weights: many of them tie, and what rounding costs is forgotten"),
            Mistake("best rounded", wrong.best_rounded, "you kept the weights that are nearest to their level: those that gain most over being zero count, not those that lose least"),
            Mistake("always k", wrong.always_k, "you keep k even where zero is nearer than every level: at *most* k, and only with a gain"),
            Mistake("not squared", wrong.gain_not_squared, "your gain compares distances, the projection their squares"),
            Mistake("rounded only", wrong.rounded_only, "you rounded every weight: at most k may stay"),
            Mistake("rounded, zero too", wrong.rounded_with_zero, "every weight went to the nearest of the levels and zero: more than k may be left"),
            Mistake("k dropped", wrong.k_dropped, "you dropped k weights: k are *kept* at most"),
            Mistake("values kept", wrong.values_kept, "you kept the right weights with the values that they had: each becomes its nearest level"),
            Mistake("signs lost", wrong.signs_lost, "you compared |w| with the levels: levels have signs, and a negative weight may have none near it"),
            Mistake("level below", wrong.level_below, "you rounded down: the nearest level may be above"),
            Mistake("smallest gains", wrong.smallest_gains, "you kept the smallest gains: keep the largest")),
        hints=("If a weight is kept it becomes its nearest level. How much nearer is that than zero? Compare the weights by *that*.",
               "gain_i = w_i^2 - (w_i - l_i)^2 with the nearest level l_i; keep the k largest gains, as far as they are positive; all others become 0.",
               "flat = weight.flatten()\nnearest = levels[(flat[:, None] - levels).abs().argmin(1)]\ngain = ...\nkept = gain.argsort(descending=True)[:k]\nkept = kept[gain[kept] > 0]\n"
               "return torch.zeros_like(flat).index_copy(0, kept, ...).view_as(weight)")),
    Exercise(
        id="7.8", name="admm", title="Two copies that must agree", dots=3, minutes=20, track="core", points=3,
        misconception="pulling towards the constraint is enough; the dual variable is a technicality",
        reference=references.admm, verify=checks.verify_admm, alternatives=(right.admm_unscaled, right.admm_by_inverse),
        mistakes=(
            Mistake("no dual", wrong.no_dual, "u never changes: that is a penalty, and w and z make peace somewhere between; add up the differences, u + w - z"),
            Mistake("dual backwards", wrong.dual_backwards, "your u runs the wrong way, u + z - w: where w is too large u must grow, so that it is pulled back harder"),
            Mistake("dual replaced", wrong.dual_replaced, "your u is the last difference only: it is their running sum"),
            Mistake("pulled the wrong way", wrong.pulled_the_wrong_way, "in the w step the target is z - u; you pull w towards z + u"),
            Mistake("projected without u", wrong.projected_without_dual, "you project w: it is w + u that is projected"),
            Mistake("projected minus u", wrong.projected_minus_dual, "you project w - u: it is w + u"),
            Mistake("no u in w", wrong.dual_not_in_w, "you pull w towards z: the target is z - u, or the dual variable changes nothing where it should"),
            Mistake("rho missing left", wrong.rho_only_right, "rho stands on the right only: the pull also adds rho to the diagonal of A"),
            Mistake("rho missing right", wrong.rho_on_one_side, "rho stands on the left only: the right side is b + rho (z - u)"),
            Mistake("dual times rho", wrong.dual_times_rho, "you added rho (w - z): with u in the place of y / rho the step has no rho"),
            Mistake("dual before z", wrong.dual_before_z, "your u step comes before the z step and uses the old z: w, then z, then u"),
            Mistake("projected once", wrong.project_once, "you projected the unconstrained minimum once: the nearest point of the set is not the best one"),
            Mistake("returns w", wrong.returns_w, "you return w, which is nearly in the set: return z, which is"),
            Mistake("returns u", wrong.returns_u, "you return u: the answer is z"),
            Mistake("squared gaps", wrong.squared_gaps, "z is right, but your gaps are squared"),
            Mistake("last gap", wrong.last_gap_only, "z is right, but you return the last gap only: one for each step, as a list"),
            Mistake("other start", wrong.starts_at_projection, "you started from the projected minimum: here z and u start at zero")),
        hints=("Three lines in a loop. The first is a minimum: set the derivative with respect to w to zero. The second is `project`. The third adds up by how much the two disagree.",
               "w = (A + rho I)^-1 (b + rho (z - u)), by torch.linalg.solve; z = project(w + u); u = u + w - z; then the gap |w - z|.",
               "z = u = torch.zeros_like(b)\ngaps = []\nfor _ in range(steps):\n    w = torch.linalg.solve(A + ..., b + ...)\n    z = project(...)\n    u = ...\n"
               "    gaps.append((w - z).norm().item())\nreturn z, gaps")),
    Exercise(
        id="7.9", name="low_rank_plus_sparse", title="A sum of two simple matrices", dots=3, minutes=15, track="core", points=3,
        misconception="one first takes the one part, then the other from what is left, and is done",
        reference=references.low_rank_plus_sparse, verify=checks.verify_low_rank_plus_sparse, alternatives=(right.parts_in_double, right.parts_by_zeroing),
        mistakes=(
            Mistake("once", wrong.once_is_enough, "your L is that of the matrix itself, found before S was known: from the second step on it is that of M - S"),
            Mistake("S of the matrix", wrong.sparse_of_the_matrix, "your S holds the largest entries of the matrix: it must hold those of what L leaves, M - L"),
            Mistake("added", wrong.added_not_subtracted, "you added S before the SVD: L has to explain what S does not, M - S"),
            Mistake("rest of both", wrong.residual_of_both, "you take S from M - L - S: then it forgets its own entries; S replaces the old S, so from M - L"),
            Mistake("largest signed", wrong.largest_signed, "you kept the largest signed entries: large negative ones are large"),
            Mistake("smallest", wrong.smallest_entries, "you kept the smallest entries in S: the largest leave the least"),
            Mistake("per row", wrong.per_row, "you gave every row its share: the largest entries of the whole matrix are wanted"),
            Mistake("soft threshold", wrong.soft_threshold, "your S is shrunk towards zero: that is another method (a convex one); entries that are kept keep their values"),
            Mistake("roots", wrong.roots_of_singular_values, "the singular values enter L whole, not their roots: one factor U s, the other V^T"),
            Mistake("smallest singular values", wrong.smallest_singular_values, "you kept the smallest singular values: svd sorts them, the largest first"),
            Mistake("V not transposed", wrong.v_transposed, "torch.linalg.svd gives V transposed already: take its first *rows*, and do not turn them"),
            Mistake("sum", wrong.sum_returned, "you return the sum: the two parts are stored apart, return (L, S)"),
            Mistake("sparse first", wrong.sparse_first, "you started with S: here S = 0 first, and each step finds L, then S")),
        hints=("Given S, the best L is an old friend from chapter 05. Given L, the best S is an older one. In turns, neither step can make the sum worse.",
               "L = U_r s_r V_r^T of M - S; S = the `nonzeros` largest |entries| of M - L, all others 0. From S = 0, `steps` times.",
               "sparse = torch.zeros_like(matrix)\nfor _ in range(steps):\n    U, s, Vh = torch.linalg.svd(..., full_matrices=False)\n    low = (U[:, :rank] * s[:rank]) @ Vh[:rank]\n"
               "    rest = (matrix - low).flatten()\n    kept = rest.abs().argsort(descending=True)[:nonzeros]\n    sparse = ...\nreturn low, sparse")),
    Exercise(
        id="7.10", name="order_effect", title="Does it matter which comes first?", dots=3, minutes=20, track="core", points=3,
        misconception="order never matters; or, after one run of each, order always matters",
        reference=references.order_effect, verify=checks_orders.verify_order_effect, alternatives=(right.effect_by_scipy, right.effect_by_joining),
        mistakes=(
            Mistake("every row a run", orders.every_row_counts,
                    "you took every difference for an independent run: those of one seed share its chance, so average them first, then take the interval over the seeds"),
            Mistake("contexts as runs", orders.contexts_as_runs, "you averaged over the seeds and took the interval over the contexts: it is the seeds that are drawn by chance"),
            Mistake("turned", orders.signs_turned, "your sign is turned: gain = accuracy with `first` before `second`, minus that of the swapped order"),
            Mistake("not only neighbours", orders.not_only_neighbours, "you compare all orders with `first` anywhere before `second`: where something stands between them, two more pairs change places; neighbours only"),
            Mistake("one context", orders.first_context_only, "you took one context only: average over all orders in which the two are neighbours"),
            Mistake("at the start", orders.at_the_start_only, "you looked at orders that *begin* with the two: they may be neighbours anywhere"),
            Mistake("last context", orders.last_context_only, "you kept one difference per seed, the last one found: average over the contexts"),
            Mistake("summed", orders.summed_over_contexts, "you added the differences of a seed up: take their mean"),
            Mistake("unpaired", orders.unpaired, "the mean is right, but your interval treats the two orders as strangers: subtract seed by seed first, what a seed does to both drops out"),
            Mistake("1.96", orders.normal_quantile, "1.96 is for many runs: a handful needs Student's t (mean_interval)"),
            Mistake("spread of runs", orders.spread_of_runs, "your interval is that of one run: the mean of n runs spreads less, by the root of n"),
            Mistake("mean only", orders.mean_only, "return the interval, too: (mean, low, high)")),
        hints=("Look up each order's partner: the same, but for the two neighbours swapped. What is compared is never two orders but an order with its partner, in one seed.",
               "gain = accuracy[(..., first, second, ...), seed] - accuracy[(..., second, first, ...), seed]; the mean over all such orders, one number for each seed; mean_interval of those.",
               "accuracy = {(tuple(row['order']), row['seed']): row['accuracy'] for row in rows}\nby_seed = {}\nfor (order, seed), value in accuracy.items():\n"
               "    for i in range(len(order) - 1):\n        if order[i:i + 2] == (first, second):\n            swapped = ...\n            by_seed.setdefault(seed, []).append(...)\n"
               "return mean_interval([... for gains in by_seed.values()])")),
    Exercise(
        id="7.11", name="clip_action", title="The budget is always met", dots=2, minutes=15, track="core",
        misconception="a search learns to keep its budget by being punished for breaking it",
        reference=references.clip_action, verify=checks_orders.verify_clip_action, alternatives=(right.clip_by_sorting, right.clip_with_tensors),
        mistakes=(
            Mistake("later forgotten", orders.later_forgotten, "you spend what the later layers need: leave the cheapest setting of each of them"),
            Mistake("only the next", orders.only_the_next, "you leave enough for the next layer only: all later ones must be paid"),
            Mistake("later at most", orders.later_at_most, "you leave the *dearest* settings for later: the cheapest are enough to keep the promise"),
            Mistake("last is cheapest", orders.later_at_last, "you took the last setting of a row for its cheapest: nothing says that they are sorted"),
            Mistake("first is cheapest", orders.later_at_first, "you took the first setting of a row for its cheapest: nothing says that they are sorted"),
            Mistake("counted twice", orders.layer_counted_twice, "you put money aside for this layer, too: only for those after it"),
            Mistake("all layers", orders.all_layers_counted, "you put money aside for layers that are paid already: they are in `spent`"),
            Mistake("spent forgotten", orders.spent_forgotten, "you forgot what is spent already"),
            Mistake("strictly less", orders.strictly_less, "what exactly fits fits: <=, not <"),
            Mistake("to the cheapest", orders.to_the_cheapest, "you clip down to the cheapest: just as far as needed, to the dearest setting that fits"),
            Mistake("the last that fits", orders.to_the_last_that_fits, "you clip to the last setting that fits: the *dearest* one, wherever it stands"),
            Mistake("the first that fits", orders.to_the_first_that_fits, "you clip to the first setting that fits: the *dearest* one, wherever it stands"),
            Mistake("always the dearest", orders.always_the_dearest, "you take the dearest setting even where the action itself fits: an action that fits stays"),
            Mistake("not clipped", orders.action_not_clipped, "you return the action even if it does not fit"),
            Mistake("cost returned", orders.cost_returned, "you return the bytes of the setting: its number is wanted"),
            Mistake("never refuses", orders.never_refuses, "where not even the cheapest fits you choose all the same: say so, a ValueError"),
            Mistake("says the budget", orders.says_the_budget, "you refuse, but do not say what would be enough: what is spent, and the cheapest from here on"),
            Mistake("without what is spent", orders.says_without_spent, "the smallest budget includes what is spent already")),
        hints=("What is the most that this layer may take so that the later ones can still be paid, if they are as modest as can be?",
               "room = budget - spent - sum of min(costs[l]) over l > layer. The action stays if costs[layer][action] <= room; else the largest cost <= room; else ValueError.",
               "later = sum(min(row) for row in costs[layer + 1:])\nroom = ...\nfits = [a for a, cost in enumerate(costs[layer]) if ...]\nif not fits:\n    raise ValueError(f'... {...}')\n"
               "return action if action in fits else max(fits, key=...)")),
    Exercise(
        id="7.12", name="compress", title="Repair the hybrid", dots=4, minutes=25, track="core", points=3,
        misconception="two techniques that work, one after the other, work",
        reference=references.compress, verify=checks_orders.verify_compress, alternatives=(right.compress_by_autograd, right.compress_with_clusters_looped),
        mistakes=(
            Mistake("nothing repaired", bugs.all_bugs, "that is the buggy one: count the zeros of what it returns, and ask where every number that it uses comes from"),
            Mistake("only the zeros", bugs.only_the_zeros_repaired, "the zeros hold now; three bugs are left: the mode of the teacher, the gradient of a shared value, the images that choose"),
            Mistake("zeros and gradient", bugs.zeros_and_gradient_repaired, "zeros and gradient are right; two bugs are left: the mode of the teacher, and the images that choose"),
            Mistake("zeros and teacher left", bugs.teacher_not_repaired_nor_zeros, "two bugs are left: the zeros are clustered with the other weights, and the teacher still drops units by chance"),
            Mistake("zeros and choice left", bugs.zeros_and_choice_left, "two bugs are left: the zeros are clustered with the other weights, and the test images choose"),
            Mistake("zeros clustered", bugs.zeros_clustered, "the pruned weights are in the code book: their centre starts near zero and moves with the first step; cluster only what is left"),
            Mistake("zeros clustered, held", bugs.zeros_clustered_but_held, "the zeros hold, but they took part in the clustering, and one value of your code book is spent on them: cluster only what is left"),
            Mistake("code book first", bugs.code_book_before_pruning, "your code book was made before pruning: its values serve weights that are no longer there"),
            Mistake("masked at the end", bugs.masked_at_the_end, "you mask only what you return: all values were tuned for a network whose pruned weights were not zero"),
            Mistake("gradient averaged", bugs.gradient_averaged, "the gradient is still averaged: a shared value moves all its weights, so their gradients add up"),
            Mistake("teacher in training", bugs.teacher_in_training, "the teacher still drops units by chance while it teaches: a copy of it in eval mode"),
            Mistake("hard answers", bugs.answers_hardened, "you teach the teacher's hard answers: its probabilities were meant, and were not broken"),
            Mistake("chosen on test", bugs.chosen_on_test, "the test images still choose the step, and then praise the choice: choose on validation"),
            Mistake("reported on validation", bugs.reported_on_validation, "you report the accuracy on validation, which chose: report the test images, which nobody has looked at"),
            Mistake("last step", bugs.last_step, "you return the last step: the best on validation is asked for"),
            Mistake("without the start", bugs.without_the_start, "step 0, before any tuning, is a candidate, too"),
            Mistake("one step short", bugs.one_step_short, "after the last step there is one more candidate: steps + 1 in all"),
            Mistake("latest of equals", bugs.latest_of_equals, "of equally good steps you take the last: the first one counts"),
            Mistake("worst chosen", bugs.worst_chosen, "you keep the step that is worst on validation"),
            Mistake("tuned apart", bugs.weights_tuned_apart, "every weight follows its own gradient: then nothing is shared any more, and no code book holds it")),
        hints=("Four bugs: one loses what pruning has won, one makes the teacher stammer, one slows the shared values down, one cheats. None of them raises an error.",
               "Cluster weight.flatten()[kept] and put the values back at `kept`; copy.deepcopy(teacher).eval(); index_add without a division; validation in the place of test where the best is chosen.",
               "kept = weight.abs().flatten().argsort(stable=True)[round(sparsity * weight.numel()):]\nvalues, labels = kmeans_1d(..., k)\nwith torch.no_grad():\n    targets = ...\n"
               "best, found = -1.0, None\nfor _ in range(steps + 1):\n    decoded = torch.zeros(weight.numel()).index_copy(0, kept, ...).view_as(weight).requires_grad_()\n"
               "    if right(decoded, *validation) > best:\n        ...\n    gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)\n"
               "    values = values.index_add(0, labels, ..., alpha=-lr)\nreturn found, right(found, *test)")),
    budget_task.EXERCISE,
)

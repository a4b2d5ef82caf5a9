"""Exercises 5.7 to 5.14: one layer into three and four, trains, a budget over the layers, adapters, a decomposer to repair, a file."""

from __future__ import annotations

from compresslab.course.chapter05 import alternatives_tensors as right
from compresslab.course.chapter05 import budget_task
from compresslab.course.chapter05 import checks_tensors as checks
from compresslab.course.chapter05 import mistakes_budgets as slips
from compresslab.course.chapter05 import mistakes_tensors as wrong
from compresslab.course.chapter05 import references_tensors as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="5.7", name="tucker2", title="Two bases and a core", dots=3, minutes=15, track="core", points=3,
        misconception="a kernel has one rank",
        reference=references.tucker2, verify=checks.verify_tucker2,
        alternatives=(right.tucker_by_eigh, right.tucker_by_hooi, right.tucker_one_after_the_other),
        mistakes=(
            Mistake("reshaped", wrong.reshaped_inputs,
                    "kernel.reshape(C, -1) cuts the memory into C pieces and mixes the channels: transpose the input axis to the front first"),
            Mistake("inputs left", wrong.outputs_only, "you searched a basis for the outputs only: the inputs have an unfolding and a basis of their own"),
            Mistake("first channels", wrong.first_channels, "your bases are the first channels as they are: take the leading singular vectors of each unfolding"),
            Mistake("positions averaged", wrong.averaged_positions, "you averaged over the kernel's positions: every position is a column of the unfolding"),
            Mistake("weakest directions", wrong.weakest_directions, "eigh sorts upwards: you kept the weakest directions; take the last columns"),
            Mistake("right vectors", wrong.right_vectors, "those are right singular vectors (Vh), of length C kh kw: the basis of the outputs is in U"),
            Mistake("ranks swapped", wrong.ranks_swapped, "the two ranks are swapped: rank_out belongs to axis 0 of the kernel, the output channels"),
            Mistake("core cut out", wrong.core_cut_out, "your core is a corner of the kernel: it is the kernel seen through both bases"),
            Mistake("kernel for core", wrong.kernel_for_core, "you returned the rebuilt kernel as its core: the core has shape (rank_out, rank_in, kh, kw)"),
            Mistake("bases scaled", wrong.bases_scaled, "you multiplied the bases by the singular values: the core holds the scale already, it would count twice"),
            Mistake("bases transposed", wrong.bases_transposed, "your bases lie on their side: U_out is (N, rank_out), U_in is (C, rank_in)"),
            Mistake("bases in the other order", wrong.bases_in_the_other_order, "the bases come in the other order: (core, U_out, U_in)"),
            Mistake("order", wrong.core_in_the_middle, "return the core first: (core, U_out, U_in)")),
        hints=("Two unfoldings, two singular value decompositions, and then look at the kernel through both bases.",
               "U_out: left singular vectors of kernel.flatten(1); U_in: of the same after kernel.transpose(0, 1). C_rs = sum over n, c of K_nc U_out[n, r] U_in[c, s], at each position.",
               "U_out = torch.linalg.svd(kernel.flatten(1), full_matrices=False).U[:, :rank_out]\nU_in = ...\n"
               "core = torch.einsum('nchw,nr,cs->rshw', kernel, ..., ...)\nreturn core, U_out, U_in")),
    Exercise(
        id="5.8", name="tucker_conv", title="Three small convolutions", dots=3, minutes=15, track="core",
        misconception="stride, padding and bias may stand in any factor",
        reference=references.tucker_conv, verify=checks.verify_tucker_conv,
        alternatives=(right.chain_with_functions, right.chain_scaled),
        mistakes=(
            Mistake("stride in the first", wrong.stride_in_the_first,
                    "your first 1x1 has the stride: it throws pixels away before the kernel has seen them"),
            Mistake("stride in the last", wrong.stride_in_the_last,
                    "your last 1x1 has the stride: the output is right, and the middle layer computed pixels that nobody reads"),
            Mistake("stride forgotten", wrong.stride_forgotten, "the stride got lost: the output is larger than the old layer's"),
            Mistake("stride everywhere", wrong.stride_everywhere, "you gave the stride to all three layers: it would act three times"),
            Mistake("padding in the first", wrong.padding_in_the_first,
                    "your first 1x1 has the padding: zeros stay zeros, so the output is right, but you multiply by them; it belongs to the kernel"),
            Mistake("padding everywhere", wrong.padding_everywhere, "you gave the padding to all three layers: the picture grows with each"),
            Mistake("padding forgotten", wrong.padding_forgotten, "the padding got lost: the kernel needs it, and only the kernel"),
            Mistake("bias forgotten", wrong.bias_forgotten, "the bias got lost"),
            Mistake("bias everywhere", wrong.bias_everywhere, "you added the bias in every layer: once, after the last"),
            Mistake("bias in the middle", wrong.bias_in_the_middle, "the bias stands in the middle layer: its channels are not the outputs; it belongs to the last"),
            Mistake("own biases left", wrong.own_biases_left, "nn.Conv2d draws a random bias unless told otherwise: bias=False in the first two layers"),
            Mistake("basis reshaped", wrong.input_basis_reshaped, "U_in has shape (C, rank_in), the weight wants (rank_in, C, 1, 1): transpose, do not reshape"),
            Mistake("bases exchanged", wrong.bases_exchanged, "your bases are exchanged: inputs pass U_in first, outputs are made by U_out last"),
            Mistake("ranks swapped", wrong.chain_ranks_swapped, "the two ranks are swapped: rank_in stands behind the first 1x1, rank_out before the last"),
            Mistake("bias shared", wrong.bias_shared, "the last layer has the very bias of the old one, not a copy: training the chain would change the network that you started from"),
            Mistake("weights not set", wrong.weights_not_set, "the weights of your layers are random: put the core and the bases into them")),
        hints=("Inputs into their basis, the core there, and back out. Ask of stride, padding and bias: which of the three sees neighbours, which makes the outputs?",
               "1x1 with U_in^T (rank_in, C, 1, 1); the core with stride and padding; 1x1 with U_out (N, rank_out, 1, 1) and the bias. matrix[:, :, None, None] makes a kernel of a matrix.",
               "core, U_out, U_in = tucker2(conv.weight.detach(), rank_out, rank_in)\nfirst = nn.Conv2d(conv.in_channels, rank_in, 1, bias=False)\n"
               "middle = nn.Conv2d(rank_in, rank_out, conv.kernel_size, ..., ..., bias=False)\nlast = nn.Conv2d(rank_out, conv.out_channels, 1, bias=conv.bias is not None)\n"
               "first.weight.data = ...\n...\nreturn nn.Sequential(first, middle, last)")),
    Exercise(
        id="5.9", name="als_step", title="One factor at a time", dots=4, minutes=15, track="core", points=3,
        misconception="a problem that is not convex has no exact steps",
        reference=references.als_step, verify=checks.verify_als_step,
        alternatives=(right.step_by_normal_equations, right.step_row_by_row),
        mistakes=(
            Mistake("first factor always", wrong.first_factor_always, "you solve for the first factor whatever the mode is"),
            Mistake("backwards", wrong.backwards,
                    "your product of the other factors runs with the first axis fastest, the columns of your unfolding with the last: one order for both"),
            Mistake("reshaped", wrong.reshaped, "reshape does not bring the mode to the front: movedim(mode, 0), then flatten(1)"),
            Mistake("not solved", wrong.not_solved, "that is X Z only; the least-squares solution is X Z times the (pseudo-)inverse of Z^T Z"),
            Mistake("default driver", wrong.default_driver, "lstsq's default driver goes wrong at a dead component: driver='gelsd', or pinv"),
            Mistake("inverse", wrong.inverse_of_gram, "with a dead component (a column of zeros) Z^T Z has no inverse, and inv fails: pinv, or lstsq with driver='gelsd'"),
            Mistake("Grams multiplied", wrong.grams_multiplied, "Z^T Z is the *elementwise* product of the factors' own F^T F, not their matrix product"),
            Mistake("Grams added", wrong.grams_added, "Z^T Z is the elementwise product of the factors' own F^T F, not their sum"),
            Mistake("Kronecker", wrong.kronecker, "a Kronecker product pairs every column with every other: here column r goes with column r only"),
            Mistake("itself included", wrong.itself_included, "the factor that you solve for is among the fixed ones: leave it out of the product"),
            Mistake("transposed", wrong.solution_transposed, "your factor lies on its side: one row for each index of the mode, one column for each component"),
            Mistake("normalised", wrong.columns_normalised, "you scaled the columns to length 1: the scale of the tensor is gone, as nothing else holds it"),
            Mistake("gradient step", wrong.gradient_step, "that is a small step along the gradient: with the others fixed, the best factor has an exact solution"),
            Mistake("in place", wrong.changed_in_place, "you put the new factor into the caller's list: only return it"),
            Mistake("whole list", wrong.whole_list, "return the one new factor, not the whole list")),
        hints=("With all factors but one held fixed, the tensor is linear in that one: rows of the unfolding are combinations of R known vectors.",
               "X (n, m) = unfolding of the mode; Z (m, R): its column r is the outer product of the other factors' columns r, flattened, last axis fastest. Minimise ||X - A Z^T||: "
               "A^T solves the least squares Z A^T = X^T. (Z^T Z)^-1 exists only if no component is dead.",
               "others = [factor for m, factor in enumerate(factors) if m != mode]\nkhatri_rao = others[0]\nfor factor in others[1:]:\n"
               "    khatri_rao = (khatri_rao[:, None] * factor).flatten(0, 1)\nunfolded = tensor.movedim(...)...\nreturn torch.linalg.lstsq(..., ..., driver='gelsd').solution.T")),
    Exercise(
        id="5.10", name="tt_product", title="A train passes through", dots=4, minutes=20, track="core", points=3,
        misconception="to multiply by a matrix you need the matrix",
        reference=references.tt_product, verify=checks.verify_tt_product,
        alternatives=(right.train_from_the_right, right.train_with_tensordot, right.train_row_by_row),
        mistakes=(
            Mistake("matrix built", wrong.matrix_built, "right, and you built the matrix: a layer of 100 million weights would be back in memory; contract x with one core after the other"),
            Mistake("rows and columns", wrong.rows_and_columns, "you contract x with the output axis: a core is (rank, output, input, next rank)"),
            Mistake("outputs reversed", wrong.outputs_reversed, "your outputs come in the order of the modes backwards: m_1 is the slowest axis of the result"),
            Mistake("inputs reversed", wrong.inputs_reversed, "you cut x with the modes backwards: n_1 is its slowest axis"),
            Mistake("cores backwards", wrong.cores_backwards, "you went from the last core to the first, but cut x and joined the outputs as if from the first"),
            Mistake("ranks not linked", wrong.ranks_not_linked, "you summed over the ranks of each core on its own: the right rank of one core is the left rank of the next, one sum for both"),
            Mistake("first rank only", wrong.first_rank_only, "you used the first index of each rank only: all of them are summed over"),
            Mistake("one row", wrong.one_row, "x is a batch: one output for each of its rows"),
            Mistake("not flattened", wrong.not_flattened, "return (batch, m_1 ... m_d) as two axes: flatten all modes into one"),
            Mistake("laid together", wrong.laid_together, "keep the rows of the batch apart: only the modes are flattened")),
        hints=("Walk along the train. Each core eats one input mode, leaves one output mode, and passes a rank on to the next.",
               "Keep a state (batch, outputs so far, rank, inputs to come), at first (batch, 1, 1, n_1...n_d). At each core split its mode off the inputs to come, and sum over rank and mode: "
               "'borni,rmns->bomsi'. Then o and m become the new outputs.",
               "state = x.reshape(len(x), 1, 1, -1)\nfor core in cores:\n    rank, _, n, _ = core.shape\n    state = state.reshape(len(x), state.shape[1], rank, n, state.shape[3] // n)\n"
               "    state = torch.einsum('borni,rmns->bomsi', ..., ...).flatten(1, 2)\nreturn ...")),
    Exercise(
        id="5.11", name="choose_ranks", title="Where it hurts least", dots=3, minutes=15, track="core", points=3,
        misconception="one energy, or one fraction, for all layers",
        reference=references.choose_ranks, verify=checks.verify_choose_ranks,
        alternatives=(right.ranks_with_a_heap, right.ranks_by_sorting),
        mistakes=(
            Mistake("not squared", slips.not_squared, "you compare singular values: energy is their square"),
            Mistake("not relative", slips.energy_not_relative, "you compare energies of different layers as they are: a layer with large weights would never be cut; divide by its sum"),
            Mistake("cost ignored", slips.cost_ignored, "you ignore what a rank costs: divide the lost share by the layer's cost"),
            Mistake("times the cost", slips.times_the_cost, "you multiply by the cost: a rank that saves much is a good one to give up; divide"),
            Mistake("one too many", slips.one_too_many, "you go on when the budget is met exactly: a cost equal to the budget is within it"),
            Mistake("down to zero", slips.down_to_zero, "you cut a layer to rank 0: then nothing passes; 1 is the least"),
            Mistake("not refused", slips.not_refused, "a budget below rank 1 everywhere cannot be met: refuse it with a ValueError"),
            Mistake("whole tail", slips.whole_tail, "you compare all that a layer has lost so far: the price of a step is what this step loses"),
            Mistake("of what is left", slips.of_what_is_left, "you divide by the energy that is left: divide by the layer's whole energy, which does not change"),
            Mistake("most first", slips.most_first, "you give up first what holds most: take the smallest share for each unit of cost"),
            Mistake("dearest first", slips.dearest_first, "you always cut the dearest layer, whatever it loses"),
            Mistake("last of equals", slips.last_of_equals, "of two layers with the same price you give up a rank of the last (building up from 1 does that): begin with full ranks, and give up the first's"),
            Mistake("filled up", slips.filled_up, "you filled the rest of the budget with what still fitted: sensible, but then a cheap rank is bought before a better one; follow the rule"),
            Mistake("one energy", slips.one_energy, "you give all layers the same energy: that ignores what a rank of each costs; compare share / cost, rank by rank"),
            Mistake("by the largest", slips.by_the_largest, "you divide by the largest singular value, squared: the share is that of the sum of all squares"),
            Mistake("index one off", slips.index_one_off, "the singular value of rank k has index k-1"),
            Mistake("same fraction", slips.same_fraction, "you keep the same fraction of every rank: the layers differ in what they lose by it")),
        hints=("Start with everything, and give up one rank at a time. Which one? The one that loses least for what it saves.",
               "Giving up rank k of a layer loses the share sigma_k^2 / sum of all its sigma^2 and saves its cost: the price is share / cost. Lowest price first; rank 1 is never given up.",
               "shares = [values.double() ** 2 / ... for values in spectra]\nranks = [len(values) for values in spectra]\n"
               "while sum(rank * cost for rank, cost in zip(ranks, costs)) > budget:\n    prices = [... if rank > 1 else math.inf for share, rank, cost in zip(shares, ranks, costs)]\n"
               "    ranks[...] -= 1\nreturn ranks")),
    Exercise(
        id="5.12", name="merge_adapter", title="And gone it is", dots=1, minutes=5, points=1, track="stretch",
        misconception="an adapter makes the network slower",
        reference=references.merge_adapter, verify=checks.verify_merge_adapter,
        alternatives=(right.merged_with_addmm, right.merged_by_columns),
        mistakes=(
            Mistake("not scaled", slips.not_scaled, "the factor alpha / r is missing"),
            Mistake("not divided", slips.not_divided_by_rank, "you multiplied by alpha: the factor is alpha / r"),
            Mistake("root of the rank", slips.divided_by_root, "you divided by the root of r (a later variant): here the factor is alpha / r"),
            Mistake("divided by the inputs", slips.divided_by_inputs, "you divided by the number of inputs: r is the number of rows of A"),
            Mistake("divided by the outputs", slips.divided_by_outputs, "you divided by the number of outputs: r is what A and B have in common, the rows of A"),
            Mistake("wrong order", slips.wrong_order, "A comes first on the input, so it stands at the right: B A"),
            Mistake("factors transposed", slips.factors_transposed, "A^T B^T is the transpose of B A: B A is (m, n), as the weight is"),
            Mistake("divided to whole", slips.divided_to_whole, "// drops what is behind the point: alpha / r"),
            Mistake("upside down", slips.upside_down, "you divided r by alpha: the factor is alpha / r"),
            Mistake("delta only", slips.delta_only, "that is the adapter alone: W is missing"),
            Mistake("in place", slips.in_place, "you changed the caller's weight (+=): return a new one"),
            Mistake("taken away", slips.taken_away, "you subtracted the adapter: it was added to the output"),
            Mistake("all scaled", slips.all_scaled, "alpha / r belongs to the adapter alone: W stays as it is")),
        hints=("Two matrices in parallel are one matrix: their sum.", "W x + (alpha / r) B (A x) = (W + (alpha / r) B A) x; r is the number of rows of A.",
               "rank = A.shape[...]\nreturn weight + ... * B @ A")),
    Exercise(
        id="5.13", name="decompose_repaired", title="Repair the decomposer", dots=3, minutes=20, track="core", points=3,
        misconception="a network that runs was decomposed right",
        reference=references.decompose_repaired, verify=checks.verify_decompose_repaired,
        alternatives=(right.repaired_with_roots, right.repaired_by_eigh),
        mistakes=(
            Mistake("nothing repaired", slips.all_bugs, "that is the buggy decomposer: look at where the rank comes from, at the singular values, at the stride, and at the bias"),
            Mistake("rank from outputs", slips.rank_from_outputs,
                    "your rank is a fraction of the output channels: the weights of both factors, rank (C kh kw + N), are to be that fraction"),
            Mistake("rank of full", slips.rank_of_full, "your rank is a fraction of the full rank: at half the rank a layer may have more weights than before"),
            Mistake("scale lost", slips.scale_lost, "the singular values are gone: U and Vh alone make a kernel whose directions all have the same strength"),
            Mistake("scale twice", slips.scale_twice, "you multiplied both factors by the singular values: they count once (or their roots twice)"),
            Mistake("half the scale", slips.half_the_scale, "one factor has the roots of the singular values, the other nothing: both, or the whole in one"),
            Mistake("stride in the wrong factor", slips.stride_in_the_wrong_factor,
                    "the stride stands in the 1x1: the output is right, but the large factor computes every pixel and most are thrown away"),
            Mistake("stride twice", slips.stride_twice, "both factors have the stride: it acts twice"),
            Mistake("bias twice", slips.bias_twice, "the first factor still has a bias: its channels are not the outputs; once, at the end"),
            Mistake("bias in the first", slips.bias_in_the_first, "the bias stands in the first factor: it belongs to the outputs, so to the last"),
            Mistake("no bias", slips.no_bias, "now the bias is gone altogether"),
            Mistake("rank rounded", slips.rank_rounded, "you rounded the rank to the nearest number: that can be more weights than allowed; round down"),
            Mistake("rank rounded up", slips.rank_rounded_up, "you rounded the rank up: that is more weights than allowed"),
            Mistake("rank strictly below", slips.rank_strict, "you stay strictly below the fraction: *at most* this fraction, exactly as many weights are allowed"),
            Mistake("square windows", slips.square_windows, "you count kh * kh places of the window: kernels need not be square, kh * kw"),
            Mistake("bias counted", slips.bias_counted, "you count the bias among the weights: the fraction is of the weights alone"),
            Mistake("rank zero", slips.rank_may_be_zero, "for a small layer your rank is 0, and nothing passes: at least 1"),
            Mistake("memory shared", slips.memory_shared, "the new layer's bias is the old layer's very own: copy it, or training one changes the other")),
        hints=("Ask four questions: how many weights come of this rank? do the two factors multiply to the kernel? which factor sees neighbours? how often is the bias added?",
               "rank (C kh kw + N) <= fraction N C kh kw, rounded down, at least 1; U S Vh has an S; the stride goes with the kernel; the bias with the outputs.",
               "out_channels, columns = conv.weight.flatten(1).shape\nrank = max(1, int(fraction * conv.weight.numel() / ...))\n"
               "U, S, Vh = torch.linalg.svd(conv.weight.detach().flatten(1), full_matrices=False)\nfirst = nn.Conv2d(..., conv.stride, conv.padding, bias=False)\n"
               "second = nn.Conv2d(rank, out_channels, 1, bias=conv.bias is not None)\nfirst.weight.data = (... * Vh[:rank]).view_as(first.weight)\n...\nreturn nn.Sequential(first, second)")),
    budget_task.EXERCISE,
)

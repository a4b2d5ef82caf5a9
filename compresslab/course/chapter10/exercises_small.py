"""Exercises 10.6 to 10.11: fewer neighbours, prototypes, an index in bytes, fewer support vectors, a table in C, a budget."""

from __future__ import annotations

from compresslab.course.chapter10 import alternatives_small as right
from compresslab.course.chapter10 import budget_small
from compresslab.course.chapter10 import checks_small as checks
from compresslab.course.chapter10 import mistakes_small as wrong
from compresslab.course.chapter10 import mistakes_tables as tables
from compresslab.course.chapter10 import references_small as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="10.6", name="condense", title="Keep the neighbours that others need", dots=2, minutes=15, track="core", points=2,
        misconception="nearest neighbours have nothing to prune: every training point is needed",
        reference=references.condense, verify=checks.verify_condense, alternatives=(right.condense_by_memory, right.condense_by_table),
        mistakes=(
            Mistake("one round", wrong.one_round, "you went round once: a point that was right early may be wrong when others have entered; go on until a whole round adds nothing"),
            Mistake("keeps the right", wrong.keeps_the_right_ones, "you keep the points that the store has right already: those that it has *wrong* enter"),
            Mistake("all at once", wrong.all_at_once, "your points wait for the end of the round: each enters at once, so that those after it are judged with its help"),
            Mistake("starts again", wrong.starts_again, "you start from row 0 again after each new point: go on from where you are, round after round"),
            Mistake("one of each class", wrong.one_of_each_class, "you started with a point of each class: the store starts with row 0 alone"),
            Mistake("starts at the last", wrong.starts_at_the_last, "you started with the last row: the store starts with row 0"),
            Mistake("asks the whole set", wrong.whole_set_asked, "you asked the nearest neighbour in the whole training set: only the *store* is asked"),
            Mistake("editing", wrong.noise_removed, "you threw out what its neighbours contradict: that is Wilson's editing, which cleans a set; condensing keeps what the store would get wrong"),
            Mistake("city blocks", wrong.city_blocks, "your distances add |differences|: nearest in the Euclidean sense is asked"),
            Mistake("points returned", wrong.points_returned, "you return the points: return their row numbers"),
            Mistake("mask returned", wrong.mask_returned, "you return a mask: return row numbers, in the order in which they entered"),
            Mistake("sorted", wrong.sorted_rows, "you sorted the rows: return them in the order in which they entered")),
        hints=("The store is a growing list. Visit every row; ask the store; if it is wrong, the row enters at once. Repeat the whole round until nothing enters.",
               "Row i enters if y[nearest] != y[i], with nearest = the j in the store that minimises |X[j] - X[i]|^2. Stop when a round has left len(store) as it was.",
               "store, size = [0], 0\nwhile size < len(store):\n    size = len(store)\n    for i in range(len(X)):\n        distances = ((X[store] - X[i]) ** 2).sum(1)\n        if ...:\n            store.append(i)\nreturn store")),
    Exercise(
        id="10.7", name="prototype_step", title="Neighbours that learn", dots=4, minutes=25, track="core", points=4,
        misconception="a neighbour must be one of the training points",
        reference=references.prototype_step, verify=checks.verify_prototype_step, alternatives=(right.step_by_autograd, right.step_by_matrices, right.step_in_a_loop),
        mistakes=(
            Mistake("uphill", wrong.uphill, "you go uphill: subtract the gradient"),
            Mistake("prototypes uphill", wrong.prototypes_uphill, "your prototypes run the wrong way: the derivative of |x - b|^2 by b is -2 (x - b), and exp brings another minus"),
            Mistake("gamma in the kernel", wrong.gamma_not_squared, "your kernel has gamma where it needs gamma^2"),
            Mistake("gamma lost", wrong.gamma_forgotten, "the inner derivative of the kernel is 2 gamma^2 (x - b): you lost gamma^2"),
            Mistake("gamma once", wrong.gamma_once, "the inner derivative of the kernel is 2 gamma^2 (x - b): your gamma is not squared"),
            Mistake("two lost", wrong.two_forgotten, "the inner derivative of the kernel is 2 gamma^2 (x - b): you lost the 2"),
            Mistake("no square", wrong.not_squared, "your kernel takes the distance: it needs its square"),
            Mistake("summed", wrong.summed, "you added the points' gradients up: the loss is a mean, divide by n"),
            Mistake("doubled", wrong.doubled, "your step is twice as long: the loss has a 1/2 before the square"),
            Mistake("Z first", wrong.scores_first, "you moved Z first and then used the new Z for B: both gradients are taken at the old place"),
            Mistake("B first", wrong.prototypes_first, "you moved B first and then used the new B for Z: both gradients are taken at the old place"),
            Mistake("B fixed", wrong.prototypes_fixed, "your prototypes do not move: B has a gradient, too"),
            Mistake("Z fixed", wrong.scores_fixed, "your scores stay: Z has a gradient, too"),
            Mistake("labels lost", wrong.labels_forgotten, "your error is the prediction itself: subtract the labels Y"),
            Mistake("scores not asked", wrong.scores_not_asked, "a prototype moves by what *its* scores did to the error: error @ Z.T, not the error's sum"),
            Mistake("gradients", wrong.gradients_returned, "you return the gradients: return the new B and Z"),
            Mistake("turned round", wrong.turned_round, "you return (Z, B): it is (B, Z)")),
        hints=("Write the forward pass first: gaps (n, m, D), kernel K (n, m), prediction K Z. Then go backwards: to Z through a product, to K through the same product, to B through the exponential.",
               "E = K Z - Y; grad Z = K^T E / n; H = (E Z^T) * K; grad b_j = 2 gamma^2 sum_i H_ij (x_i - b_j) / n; B - lr grad B and Z - lr grad Z, both at the old values.",
               "gap = X[:, None] - B\nK = np.exp(-gamma**2 * (gap**2).sum(2))\nerror = K @ Z - Y\nH = ...\ngrad_B = ...\ngrad_Z = ...\nreturn B - lr * grad_B, Z - lr * grad_Z")),
    Exercise(
        id="10.8", name="look_up", title="Distances without decoding", dots=2, minutes=15, track="core", points=2,
        misconception="a compressed index must be unpacked before it can be searched",
        reference=references.look_up, verify=checks.verify_look_up, alternatives=(right.look_up_in_a_loop, right.look_up_by_piece),
        mistakes=(
            Mistake("query quantized", tables.quantized_query, "you quantized the query first: only the stored points are codes, the query stays as it is (asymmetric)"),
            Mistake("roots in the tables", tables.roots_in_tables, "your tables hold distances: squares add up over the pieces, distances do not"),
            Mistake("root of the sum", tables.root_of_the_sum, "you took the root of the sum: squared distances are asked"),
            Mistake("every M-th number", tables.every_mth, "your pieces take every M-th number of the query: piece m is a run of D / M neighbours"),
            Mistake("mean", tables.mean_of_pieces, "you averaged over the pieces: their squared distances add up"),
            Mistake("first piece", tables.first_piece_only, "you looked up the first piece only: add the entries of all of them"),
            Mistake("largest piece", tables.largest_piece, "you took the largest piece: add the entries of all of them"),
            Mistake("products", tables.inner_products, "your tables hold inner products: squared distances are asked"),
            Mistake("absolute", tables.absolute_gaps, "your tables add |differences|: squares are asked"),
            Mistake("one table", tables.first_table_for_all, "you read all pieces from the first table: piece m has its own, tables[m]"),
            Mistake("distances only", tables.distances_only, "return both: the tables and the distances")),
        hints=("There are only M k different distances between a piece of the query and a code word. Compute each once. A stored point then picks M of them.",
               "T[m, v] = |q^m - c^m_v|^2 with q^m the m-th run of D / M numbers; d_j = sum over m of T[m, codes[j, m]].",
               "M = len(codebooks)\ntables = ((query.reshape(M, 1, -1) - ...) ** 2).sum(2)\ndistances = tables[np.arange(M), ...].sum(1)\nreturn tables, distances")),
    Exercise(
        id="10.9", name="reduce_expansion", title="The same sum, with fewer terms", dots=3, minutes=15, track="core", points=3,
        misconception="to drop support vectors one keeps the coefficients of the rest",
        reference=references.reduce_expansion, verify=checks.verify_reduce_expansion, alternatives=(right.reduce_by_three_terms, right.reduce_by_least_squares),
        mistakes=(
            Mistake("nearest keeps", tables.nearest_keeps_its_own, "each z took over the coefficient of the nearest vector: the others' share is lost, and beta must be solved for"),
            Mistake("nearest collects", tables.nearest_collects, "each vector gave its coefficient to the nearest z, as in k-means: overlapping kernels share; solve for all beta together"),
            Mistake("not inverted", tables.not_inverted, "K_zx alpha is the right-hand side only: solve K_zz beta = K_zx alpha"),
            Mistake("multiplied", tables.multiplied, "you multiplied by K_zz: solve with it"),
            Mistake("fitted at the vectors", tables.fits_at_the_vectors, "you fitted the function's values at the support vectors: what is asked is the distance in feature space, K_zz beta = K_zx alpha"),
            Mistake("in the plane", tables.in_the_plane, "you fitted the points themselves: the sum is one of phi(x), so everything goes through the kernel"),
            Mistake("gamma squared", tables.gamma_squared, "your kernel has gamma squared: here it is exp(-gamma |x - y|^2)"),
            Mistake("root", tables.root_returned, "beta is right; your error is the distance: its square is asked"),
            Mistake("mixed term", tables.mixed_term_once, "beta is right; in |a - b|^2 = |a|^2 - 2ab + |b|^2 you lost the 2"),
            Mistake("lengths", tables.lengths_subtracted, "beta is right; you subtracted lengths: the length of the *difference* is asked"),
            Mistake("relative", tables.relative_error, "beta is right; your error is relative to the long sum: the plain squared distance is asked"),
            Mistake("beta only", tables.coefficients_only, "return both: beta and the error")),
        hints=("Write rho^2 with kernels only: every product of two phi is a kernel value. It is quadratic in beta; set its derivative to zero.",
               "K_zz beta = K_zx alpha; rho^2 = alpha^T K_xx alpha - 2 beta^T K_zx alpha + beta^T K_zz beta, which at the best beta is alpha^T K_xx alpha - beta^T K_zx alpha.",
               "K_zx = rbf_kernel(Z, X, gamma=gamma)\nbeta = np.linalg.solve(..., ...)\nerror = alpha @ rbf_kernel(X, X, gamma=gamma) @ alpha - ...\nreturn beta, error")),
    Exercise(
        id="10.10", name="c_table", title="Repair a table in C", dots=3, minutes=20, track="core", points=3,
        misconception="what is printed is what is stored",
        reference=references.c_table, verify=checks.verify_c_table, alternatives=(right.table_by_repr, right.table_in_hex),
        mistakes=(
            Mistake("buggy", tables.buggy, "that is the buggy one, as it was"),
            Mistake("always int8", tables.always_int8, "int8_t ends at 127: C keeps the low bits of 130 and reads -126; choose the type by the numbers"),
            Mistake("always int32", tables.always_int32, "int32_t for everything is right and four times too large: the smallest type that holds all numbers"),
            Mistake("numpy's own", tables.numpys_own, "you took the type that numpy happened to use: the smallest that holds the numbers is asked"),
            Mistake("signed only", tables.signed_only, "numbers from 128 to 255 fit into one byte, if there are no negative ones: uint8_t"),
            Mistake("unsigned", tables.unsigned_low, "you looked at the largest number only: the smallest must fit as well, -129 is no int8_t"),
            Mistake("magnitude", tables.largest_only, "you looked at the largest magnitude: an int8_t holds -128, though not 128"),
            Mistake("four digits", tables.four_digits, "four digits behind the point: small numbers become 0.0000, large ones waste room; write significant digits"),
            Mistake("six digits", tables.six_digits, "six significant digits do not tell all float32 apart: nine do"),
            Mistake("seven digits", tables.seven_digits, "seven significant digits are those that are always *right* in print, but nine are needed to read the same float32 back"),
            Mistake("nine behind the point", tables.fixed_point, "nine digits behind the point are few for 3.1e-7: count significant digits, with an exponent (.8e)"),
            Mistake("no point", tables.no_point, "'1f' is no number of C: an f needs a point or an exponent before it, 1.0f or 1e0f"),
            Mistake("rows", tables.rows_counted, "you count rows: C needs room for all numbers, values.size"),
            Mistake("columns first", tables.columns_first, "your numbers go column by column: C code reads r * columns + c, row after row"),
            Mistake("doubles", tables.doubles, "double takes 8 bytes a number, float is what the model was stored in")),
        hints=("Read the buggy function line by line and ask of each array kind: whole numbers, real numbers, matrices. What does C read back? Two bugs are in the numbers, one in their count, one in their order.",
               "Type: the first of int8, uint8, int16, uint16, int32 whose np.iinfo holds min and max. Reals: nine significant digits, f'{number:.8e}f'. Size: values.size. Order: row after row, flatten().",
               "if values.dtype.kind in 'iu':\n    kind = next(k for k in (...) if np.iinfo(k).min <= values.min() and ...) + '_t'\n    words = [str(number) for number in values.flatten().tolist()]\nelse:\n"
               "    kind, words = 'float', [f'{number:...}f' for number in values.flatten().tolist()]\nreturn f\"static const {kind} {name}[{...}] = {{{', '.join(words)}}};\"")),
    budget_small.EXERCISE,
)

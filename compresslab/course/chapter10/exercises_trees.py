"""Exercises 10.1 to 10.5: pruning, refining, distilling and packing trees."""

from __future__ import annotations

from compresslab.course.chapter10 import alternatives_trees as right
from compresslab.course.chapter10 import checks_trees as checks
from compresslab.course.chapter10 import mistakes_forests as forests
from compresslab.course.chapter10 import mistakes_trees as trees
from compresslab.course.chapter10 import references_trees as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="10.1", name="link_strength", title="What a branch is worth", dots=2, minutes=10, points=2, track="core",
        misconception="pruning a tree is a depth limit",
        reference=references.link_strength, verify=checks.verify_link_strength,
        alternatives=(right.strength_recursive, right.strength_by_parents),
        mistakes=(
            Mistake("divided by all leaves", trees.per_leaf, "you divide by the number of leaves; without the branch one leaf stays, so divide by one less"),
            Mistake("not divided", trees.not_divided, "you return what the branch saves in all; divide it by the leaves that it costs more than one"),
            Mistake("children only", trees.children_only, "you look at the two children only: the risk of a branch is that of its leaves, however deep"),
            Mistake("inner nodes as well", trees.all_nodes_below, "you add the risks of inner nodes below: points are counted on every level; only leaves answer"),
            Mistake("itself as well", trees.with_itself, "you subtract the risk of the node itself, and of inner nodes below it: only leaves answer"),
            Mistake("divided by nodes", trees.divided_by_nodes, "you divide by the nodes that go; the price is paid for leaves"),
            Mistake("turned", trees.turned, "the sign is turned: R(t) without the branch is the larger one"),
            Mistake("mean", trees.mean_of_leaves, "you take the mean over the leaves; a risk holds its share of the points already, so leaves add up"),
            Mistake("of the whole tree", trees.of_the_tree, "you return the strength of the root, whatever the node"),
            Mistake("leaves by number", trees.leaves_by_number, "you take all leaves with a higher number: many of them are not below this node; follow left and right"),
            Mistake("left side only", trees.left_side_only, "you add up the leaves of the left side only")),
        hints=("Find the leaves below the node: walk down, with a list of nodes that wait.",
               "g(t) = (R(t) - sum of R over the leaves below t) / (leaves below t - 1); a node with left[t] < 0 is a leaf.",
               "leaves, below = [], [node]\nwhile below:\n    t = below.pop()\n    if left[t] < 0:\n        ...\n    else:\n        ...\nreturn (risk[node] - ...) / ...")),
    Exercise(
        id="10.2", name="pruning_path", title="The weakest link, again and again", dots=3, minutes=15, points=3, track="core",
        misconception="the strength of a branch is known once the tree is grown",
        reference=references.pruning_path, verify=checks.verify_pruning_path,
        alternatives=(right.path_with_sets, right.path_incremental),
        mistakes=(
            Mistake("computed once", trees.computed_once, "you compute all strengths once: when a branch collapses, those of the nodes above it change"),
            Mistake("strongest first", trees.strongest_first, "you collapse the strongest link first"),
            Mistake("least total loss", trees.smallest_loss, "you collapse where the risk rises least in all, always a pair of leaves; the weakest link rises least *per leaf*, and may be a whole branch"),
            Mistake("counts nodes", trees.counts_nodes, "you count all nodes that are left; count leaves"),
            Mistake("counts inner nodes", trees.counts_inner_nodes, "you count inner nodes; there is one leaf more"),
            Mistake("starts late", trees.starts_late, "the full tree is missing: the path starts with (0.0, all leaves)"),
            Mistake("stops early", trees.stops_early, "you stop while the root still asks; the last entry is the root alone"),
            Mistake("orphans", trees.orphans, "nodes below a collapsed one still compete: they are gone; start each round from the root"),
            Mistake("deepest first", trees.by_depth, "you cut the deepest nodes first, as a depth limit does; the price decides, not the depth"),
            Mistake("risk of the tree", trees.risk_added, "you report the risk of the tree; alpha is the strength of the link that collapsed"),
            Mistake("in place", trees.in_place, "you cut the tree that was handed in; work on a copy of `left`")),
        hints=("In each round: which inner nodes can still be reached from the root, and which of them is weakest? A collapsed node is a leaf: left = -1.",
               "alpha_k = min over inner t of g(t) in the tree as it is now; then left[t] = -1. Reachable inner nodes + 1 = leaves.",
               "left = left.copy()\ndef inner(t):\n    return [] if left[t] < 0 else [t, *inner(left[t]), *inner(right[t])]\npath = [(0.0, len(inner(0)) + 1)]\n"
               "while nodes := inner(0):\n    strengths = ...\n    weakest = ...\n    left[...] = -1\n    path.append(...)\nreturn path")),
    Exercise(
        id="10.3", name="refine_forest", title="A forest is a linear model", dots=3, minutes=15, points=3, track="core",
        misconception="every tree of a forest must speak for itself",
        reference=references.refine_forest, verify=checks.verify_refine_forest,
        alternatives=(right.refine_by_loops, right.refine_by_least_squares),
        mistakes=(
            Mistake("no offsets", forests.no_offsets, "node 3 of one tree and node 3 of another share a column: each tree needs columns of its own"),
            Mistake("shifted by one tree", forests.shifted_offsets, "a tree's columns stand behind those of the trees *before* it; you count the tree itself as well"),
            Mistake("equal blocks", forests.equal_offsets, "you give every tree as many columns as the largest has"),
            Mistake("numbers as features", forests.numbers_themselves, "you use the node numbers as features: a leaf with a higher number is not more of anything"),
            Mistake("averaged", forests.averaged, "you divide the indicators by the number of trees; they are 0 or 1, W takes care of the rest"),
            Mistake("no ridge", forests.no_ridge, "the l2 term is missing: the columns of each tree add up to 1, so without it there is no single answer"),
            Mistake("l2 everywhere", forests.ridge_everywhere, "you add l2 to all entries of the matrix; it belongs on the diagonal"),
            Mistake("l2 times points", forests.ridge_times_points, "you multiply l2 by the number of points; the loss is a plain sum"),
            Mistake("l2 squared", forests.ridge_squared, "you square l2; it multiplies |W|^2 as it is"),
            Mistake("each leaf alone", forests.each_leaf_alone, "each node takes the mean of its own points, as if it were alone: the trees are to be fitted together"),
            Mistake("each tree alone", forests.each_tree_alone, "you fit each tree alone and divide by their number: fit all columns in one system"),
            Mistake("weights only", forests.weights_only, "you return W only; return the pair (Phi, W)"),
            Mistake("transposed", forests.transposed, "your W is transposed: one row for each node")),
        hints=("Node i of the tree number k gets the column i + (nodes of all trees before k).",
               "W = (Phi^T Phi + l2 I)^-1 Phi^T Y; np.cumsum of the counts gives the offsets.",
               "offsets = np.cumsum([0, ...])\nPhi = np.zeros((len(leaves), sum(node_counts)))\nnp.put_along_axis(Phi, leaves + offsets, 1.0, axis=1)\nW = np.linalg.solve(..., ...)\nreturn Phi, W")),
    Exercise(
        id="10.4", name="draw_queries", title="Questions that look like data", dots=2, minutes=10, points=2, track="core",
        misconception="distillation needs networks",
        reference=references.draw_queries, verify=checks.verify_draw_queries,
        alternatives=(right.queries_by_loop, right.queries_by_mask),
        mistakes=(
            Mistake("whole points", forests.whole_rows, "you swap whole points: nothing is mixed, and every query is a training point; draw for each feature"),
            Mistake("one mask", forests.one_mask, "you draw one set of features and swap it in all queries; draw for each query anew"),
            Mistake("weighted mean", forests.between, "you mix by a weighted mean; each feature is copied from one of the two"),
            Mistake("on the line", forests.random_between, "you draw a point on the line between the two; each feature is copied from one of them"),
            Mistake("any other point", forests.any_other, "you mix with any other point; take one of the point's neighbours, near[i]"),
            Mistake("features alone", forests.features_alone, "you draw every feature from any point: then features that belong together no longer do"),
            Mistake("kept, not swapped", forests.keeps_with_swap, "`swap` is the probability of the neighbour's feature; you keep the point's own with it"),
            Mistake("nearest only", forests.nearest_only, "you always take the first neighbour; draw among all columns of `near`"),
            Mistake("a neighbour for each feature", forests.neighbour_per_feature, "you draw a neighbour for each feature; there is one for each query"),
            Mistake("seed ignored", forests.seed_ignored, "you do not use the seed: every call draws the same"),
            Mistake("noise", forests.noise, "you add noise: numbers appear that no feature ever had"),
            Mistake("points in order", forests.first_points, "you walk through the points in order and stay at the last one; draw among all"),
            Mistake("always half", forests.half_always, "you swap half of the features, whatever `swap` says"),
            Mistake("one for each point", forests.one_for_each, "you draw one query for each point; `count` says how many")),
        hints=("For each query: a point i, a neighbour j of it, and for each feature a coin.",
               "query_d = X[j, d] with probability swap, else X[i, d]; i uniform, j uniform among near[i].",
               "rng = np.random.default_rng(seed)\nfirst = rng.integers(len(X), size=count)\nsecond = near[first, ...]\nswapped = rng.random((count, X.shape[1])) < swap\nreturn np.where(...)")),
    Exercise(
        id="10.5", name="pack_tree", title="A node in eleven bits", dots=3, minutes=15, points=3, track="core",
        misconception="what the dump of an object takes is what the model takes",
        reference=references.pack_tree, verify=checks.verify_pack_tree,
        alternatives=(right.pack_with_shifts, right.pack_with_arrays),
        mistakes=(
            Mistake("flag turned", forests.flag_turned, "the flag is turned: 1 marks a leaf"),
            Mistake("no flag", forests.no_flag, "the flags are missing: nobody could tell a leaf from an inner node"),
            Mistake("variable width", forests.variable_width, "you write numbers as short as they are: without fixed widths nobody knows where one ends"),
            Mistake("all fields", forests.leaf_as_node, "you give every node all fields; a leaf needs its class only, an inner node none"),
            Mistake("class everywhere", forests.class_in_every_node, "you store a class in inner nodes; only a leaf answers"),
            Mistake("whole bytes", forests.whole_bytes, "you fill every node up to whole bytes; only the end of the tree is filled up"),
            Mistake("level first", forests.level_first, "the feature comes before the level"),
            Mistake("low bit first", forests.low_bits_first, "you write the low bit of a number first; the high bit comes first"),
            Mistake("little endian", forests.little_endian, "you fill bytes from their low end; np.packbits, as it is, starts with the high bit"),
            Mistake("zeros in front", forests.zeros_in_front, "you fill up in front: then the root's flag is not the first bit; fill up behind"),
            Mistake("not packed", forests.not_packed, "you spend a byte on each bit; pack eight of them into one: np.packbits"),
            Mistake("one kind of field after the other", forests.by_kind, "you store all flags, then all features, and so on; nodes stand one behind the other")),
        hints=("Write the bits as a text of 0 and 1, node by node, and pack at the end.",
               "leaf: 1, class in c bits; inner node: 0, feature in f bits, level in t bits. format(5, '04b') is '0101'.",
               "f, t, c = widths\nbits = \"\"\nfor node in range(len(feature)):\n    if feature[node] < 0:\n        bits += \"1\" + ...\n    else:\n        bits += ...\nreturn np.packbits([int(bit) for bit in bits])")),
)

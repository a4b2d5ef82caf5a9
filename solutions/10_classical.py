# %% [markdown]
# # Classical machine learning: small models without a network
#
# After this chapter you can shrink models that are no networks: trees and forests, nearest neighbours, kernels. The ideas are
# those that you know, pruning, quantization, distillation, low rank, in other clothes. And you will have written a classifier in two
# kilobytes of C. The figure is where the first half leads: what stands in for a forest of a hundred trees.

# %%
import numpy as np
import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from compresslab import classical
from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, progress, quick, reveal, solution, widgets
from compresslab.course.chapter10 import figures_trees
from compresslab.course.chapter10.evidence_trees import forest_rows
from compresslab.course.chapter10.widgets_trees import PathLook, draw_path

plots.style()
X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
print(f"{len(X):,} digits of {X.shape[1]} pixels: {len(X_train):,} to train, {len(X_test)} to test")
evidence = load_evidence("10")
rows = forest_rows(evidence)
figures_trees.goal(rows)
for row in rows:
    print(f"{row['name']:21} {row['bytes']:8,} bytes, {rows[0]['bytes'] / row['bytes']:5.1f} times smaller, {row['accuracy']:.1%} right, "
          f"lost {100 * row['loss']:+.2f} points [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]")

# %% [markdown]
# *Digits of scikit-learn, ten times repeated five-fold cross-validation, 95 % intervals. (One tree lost so much that it is outside the
# picture; read on.)* **Time** about two hours for the core exercises. **You need** Python and chapter 00; chapters 01, 02 and 04 gave the
# ideas their names.
#
# Stuck? Open a new cell and run `hint("10.1")`: each call says a little more.
#
# ## The family
#
# Every family of this course has members here:

# %%
figures_trees.map_of_families();

# %% [markdown]
# Two things differ from networks. The data are few, so one split into training and test set says little, and every claim
# of this chapter comes from **repeated cross-validation**. And the folds of a cross-validation share their training points, so their
# scores are not independent: the intervals are Nadeau and Bengio's corrected ones, several times as wide as the usual formula's.
#
# ## 1 The weakest link
#
# A **decision tree** asks one question at each **inner node**, "is feature $j$ at most $\tau$?", and answers in its **leaves**. Left alone it grows until
# every leaf is pure. Here is one that tells benign from malignant tumours, from 30 measurements.

# %%
from sklearn.tree import DecisionTreeClassifier

cancer = load_breast_cancer()
C_train, C_test, c_train, c_test = train_test_split(cancer.data, cancer.target, test_size=0.4, stratify=cancer.target, random_state=0)
full = DecisionTreeClassifier(random_state=0).fit(C_train, c_train)

def as_arrays(fitted):
    """(left, right, risk) of a tree of scikit-learn: children of each node, -1 in leaves, and R of each node."""
    nodes = fitted.tree_
    return nodes.children_left, nodes.children_right, nodes.impurity * nodes.weighted_n_node_samples / nodes.weighted_n_node_samples[0]

left, right, risk = as_arrays(full)
label_of = {node: int(full.tree_.value[node, 0].argmax()) for node in range(len(left))}
figures_trees.draw_tree(left, right, {node: f"R = {risk[node]:.3f}" for node in range(len(left)) if left[node] >= 0}, classes=label_of,
                        title=f"the full tree: {(left < 0).sum()} leaves (squares malignant, circles benign)");
print(f"right on {full.score(C_train, c_train):.1%} of the training points and {full.score(C_test, c_test):.1%} of the test points")

# %% [markdown]
# The **risk** $R(t)$ of a node is its impurity times the share of the training points in it: what it would cost to answer here.
# Which branches are worth their leaves? Call $T_t$ the branch below node $t$, with the leaves $\tilde T_t$, and charge a price $\alpha$ for every leaf.
# The branch costs $R(T_t) + \alpha |\tilde T_t|$, where $R(T_t)$ is the sum over its leaves; the node as a leaf costs $R(t) + \alpha$. They cost the same at
#
# $$ g(t) = \frac{R(t) - R(T_t)}{|\tilde T_t| - 1} , $$
#
# the **strength of the link** at $t$ (Breiman, Friedman, Olshen and Stone, *Classification and Regression Trees*, 1984). For a higher price the branch does
# not pay.
#
# {{exercise 10.1}}
#
# Write `link_strength` for an inner node. Children are row numbers; `left[t]` is -1 if $t$ is a leaf. Do not rely on how the nodes are numbered.

# %%
def link_strength(left, right, risk, node):
    """g(node), a float: the risk that the branch below this inner node saves, for each leaf that it costs more than one."""
    ### BEGIN SOLUTION
    leaves, below = [], [node]
    while below:
        t = below.pop()
        if left[t] < 0:
            leaves.append(t)
        else:
            below += [left[t], right[t]]
    return (risk[node] - risk[leaves].sum()) / (len(leaves) - 1)
    ### END SOLUTION

# %%
link_strength = check("10.1", link_strength)

# %%
g = {node: link_strength(left, right, risk, node) for node in range(len(left)) if left[node] >= 0}
weakest = min(g, key=g.get)
figures_trees.draw_tree(left, right, {node: f"{1000 * value:.1f}" for node, value in g.items()}, gone={weakest}, classes=label_of,
                        title="1000 g of every inner node; the weakest link collapses first");

# %% [markdown]
# As the price rises the **weakest link**, the node with the least $g$, collapses into a leaf. Then the nodes above it have fewer leaves
# below them and another $g$; so look for the weakest link again, until the root alone is left. The **path** holds the best subtree for
# every price.
#
# {{exercise 10.2}}
#
# Write `pruning_path`. One pair for each collapse: the price $\alpha$ at which it happens, and the leaves that are left. A lone root has the path
# `[(0.0, 1)]`. Your function of exercise 10.1 does most of the work.

# %%
def pruning_path(left, right, risk):
    """A list of (alpha, leaves that are left): (0.0, all leaves), then one pair for each weakest link that collapses, down to the root."""
    ### BEGIN SOLUTION
    left = left.copy()

    def inner(t):
        return [] if left[t] < 0 else [t, *inner(left[t]), *inner(right[t])]

    path = [(0.0, len(inner(0)) + 1)]
    while nodes := inner(0):
        strengths = [link_strength(left, right, risk, t) for t in nodes]
        weakest = int(np.argmin(strengths))
        left[nodes[weakest]] = -1
        path.append((strengths[weakest], len(inner(0)) + 1))
    return path
    ### END SOLUTION

# %%
pruning_path = check("10.2", pruning_path)

# %% [markdown]
# **Apply** it. scikit-learn has the same path, by another algorithm:

# %%
path = pruning_path(left, right, risk)
theirs = full.cost_complexity_pruning_path(C_train, c_train)
print("leaves ", *(f"{leaves:6}" for _, leaves in path))
print("alpha  ", *(f"{alpha:6.4f}" for alpha, _ in path))
print("theirs ", *(f"{alpha:6.4f}" for alpha in theirs.ccp_alphas))
for alpha, leaves in path[1::2]:
    pruned = DecisionTreeClassifier(random_state=0, ccp_alpha=alpha + 1e-9).fit(C_train, c_train)
    print(f"price {alpha:.4f}: {leaves:2} leaves, depth {pruned.get_depth()}, {pruned.score(C_test, c_test):.1%} of the test points right")

# %% [markdown]
# **Play**: how many leaves may the tree have? (Grey is what has collapsed.)

# %%
look = PathLook(left, right, label_of, classical.cost_complexity_path(classical.TreeArrays.from_sklearn(full)))
widgets.slider(look, draw_path, name="leaves", low=1, high=14, step=1, start=5, static=(12, 5, 3))

# %% [markdown]
# Which price is right? The training set cannot tell: there, every leaf helps. `PrunedTreeClassifier` asks a cross-validation *inside*
# the training set, and takes the smallest tree whose error is within one standard error of the best (CART's rule).

# %%
for name, data in (("breast cancer", (C_train, c_train, C_test, c_test)), ("digits", (X_train, y_train, X_test, y_test))):
    chosen = classical.PrunedTreeClassifier().fit(*data[:2])
    unpruned = DecisionTreeClassifier(random_state=0).fit(*data[:2])
    print(f"{name:13} {chosen.full_leaves_:3} leaves, {unpruned.score(*data[2:]):.1%} right; price {chosen.ccp_alpha_:.4f}: {chosen.tree_.n_leaves:3} leaves, {chosen.score(*data[2:]):.1%} right")

# %% [markdown]
# Is that more than a depth limit, which is easier? For each depth, the pruned tree with at most as many leaves:

# %%
figures_trees.pruned_against_limit(evidence["pruned tree"])
for name, points in evidence["pruned tree"].items():
    for point in points[1::2]:
        print(f"{name:13} depth {point['depth']:.0f}: {point['limited_leaves']:5.1f} leaves {point['limited_accuracy']:.1%}; weakest links {point['pruned_leaves']:5.1f} leaves {point['pruned_accuracy']:.1%}")

# %% [markdown]
# On the tumours it hardly matters how a tree is cut; on the digits it matters a lot.
#
# {{question 10.q1}}

# %%
### BEGIN SOLUTION
q1 = "c"
### END SOLUTION

# %%
q1 = answer("10.q1", q1)

# %% [markdown]
# ## 2 A forest is a linear model
#
# One tree is small, and not good. A **random forest** (Breiman, 2001) grows many, each on training points
# drawn anew (some come twice, some not at all), with a few features to choose from at each node, and lets them vote.

# %%
from sklearn.ensemble import RandomForestClassifier

forest = RandomForestClassifier(100, random_state=0).fit(X_train, y_train)
large_bytes = classical.model_bytes(forest)
print(f"one tree {DecisionTreeClassifier(random_state=0).fit(X_train, y_train).score(X_test, y_test):.1%} right, the forest {forest.score(X_test, y_test):.1%}")
print(f"{sum(tree.get_n_leaves() for tree in forest.estimators_):,} leaves, {large_bytes:,} bytes")

# %% [markdown]
# Votes of trees that never heard of each other are a waste: many say the same. Look at it in another way. Let $\phi(x)$ be a row of zeros
# with a 1 at each leaf in which $x$ lies, one for each tree. Whatever the leaves say, the forest says their sum: $W^\top \phi(x)$. **A forest is a
# linear model** on its **leaf indicators** $\Phi$. So choose what all leaves say *together*, by **ridge regression**:
#
# $$ \min_W \|Y - \Phi W\|^2 + \lambda \|W\|^2, \qquad W = (\Phi^\top \Phi + \lambda I)^{-1} \Phi^\top Y . $$
#
# That is **global refinement** (Ren, Cao, Wei and Sun, CVPR 2015; they use a support vector machine or the logistic loss).
#
# {{exercise 10.3}}
#
# Write `refine_forest`. `leaves` is what `forest.apply(X)` gives: for each point and tree the number of the node where it ends, counted in
# *that tree*. `node_counts` lists how many nodes each tree has. Give every node a column, the nodes of a tree behind those of the trees before it.
# (Columns of inner nodes stay zero, and so do their rows of $W$.)

# %%
def refine_forest(leaves, node_counts, Y, l2):
    """(Phi, W): the indicators (N, m) and what every node should say (m, L), with m = sum(node_counts)."""
    ### BEGIN SOLUTION
    offsets = np.cumsum([0, *node_counts[:-1]])
    Phi = np.zeros((len(leaves), sum(node_counts)))
    np.put_along_axis(Phi, leaves + offsets, 1.0, axis=1)
    W = np.linalg.solve(Phi.T @ Phi + l2 * np.eye(Phi.shape[1]), Phi.T @ Y)
    return Phi, W
    ### END SOLUTION

# %%
refine_forest = check("10.3", refine_forest)

# %% [markdown]
# **Apply** it to 20 small trees.

# %%
small = RandomForestClassifier(20, max_leaf_nodes=32, random_state=0).fit(X_train, y_train)
node_counts = [tree.tree_.node_count for tree in small.estimators_]
Y_train = np.eye(10)[y_train] - 0.1
Phi, W = refine_forest(small.apply(X_train), node_counts, Y_train, 1.0)
says = W[small.apply(X_test) + np.cumsum([0, *node_counts[:-1]])].sum(1)
print(f"20 trees of 32 leaves: voting {small.score(X_test, y_test):.1%} right, refined together {(says.argmax(1) == y_test).mean():.1%}")
figures_trees.indicator_rows(Phi[:12, :sum(node_counts[:3])], np.cumsum(node_counts[:2]));

# %% [markdown]
# No tree changed a question; only what the leaves say is new. And now the weights tell which leaves say little. If two **sibling**
# leaves both have small rows in $W$, put their parent in their place; refine again; and so on. The library does that, with sparse indicators:

# %%
trees = [classical.TreeArrays.from_sklearn(tree) for tree in small.estimators_]
curves = {"refined and pruned": [], "voting, trees grown as small": []}
for refined in classical.refine_and_prune(trees, X_train, Y_train, leaves=160, l2=1.0, rate=0.3):
    curves["refined and pruned"].append((refined.n_leaves, (refined.decision(X_test).argmax(1) == y_test).mean()))
for leaves in (8, 16, 32):
    voting = RandomForestClassifier(20, max_leaf_nodes=leaves, random_state=0).fit(X_train, y_train)
    curves["voting, trees grown as small"].append((20 * leaves, voting.score(X_test, y_test)))
figures_trees.leaves_and_accuracy(curves, forest.score(X_test, y_test));

# %% [markdown]
# Pruning a forest is *not* cutting each tree by itself: a leaf is judged by what it adds to all the others. Another way to the same end is an
# **L1** penalty on the rows of $W$, which makes most of them exactly zero (Joly, Schnitzler, Geurts and Wehenkel, ESANN 2012; in the library
# `lasso_leaves`).
#
# ## 3 A forest in one tree
#
# Chapter 04 distilled networks into networks. Nothing there needed a network: a **teacher** answers, a **student** learns the answers. Let the
# student be *one* tree: it can be read, and drawn. Its **fidelity** is how often it answers as the teacher does, right or wrong.
#
# First try: the training points, labelled by the forest instead of the truth.
#
# {{prediction 10.p1}}

# %%
### BEGIN SOLUTION
p1 = (-1, 3)
### END SOLUTION

# %%
p1 = predict("10.p1", p1)

# %%
teacher_says = forest.predict(X_test)
plain = DecisionTreeClassifier(random_state=0).fit(X_train, y_train)
taught = DecisionTreeClassifier(random_state=0).fit(X_train, forest.predict(X_train))
gained = 100 * (classical.fidelity(taught.predict(X_test), teacher_says) - classical.fidelity(plain.predict(X_test), teacher_says))
print(f"labels that the forest changed: {(forest.predict(X_train) != y_train).sum()} of {len(y_train):,}")
print(f"agreement with the forest: {classical.fidelity(plain.predict(X_test), teacher_says):.1%} before, {classical.fidelity(taught.predict(X_test), teacher_says):.1%} after")
reveal("10.p1", gained);

# %% [markdown]
# On its own training points a forest says what it was told. What it knows more is *between* them. So ask there, as often as you like:
# a **query** is a synthetic point, and its **soft label** the forest's vector of class shares. But 64 random numbers are no digit, and
# what the forest says of noise is of no use. Queries must look like data. **MUNGE** (Bucila, Caruana and Niculescu-Mizil, *Model Compression*, KDD 2006)
# makes them from a real point and one of its near neighbours, feature by feature.
#
# {{exercise 10.4}}
#
# Write `draw_queries`. For each query choose a point at random, and at random one of its neighbours, which are the row numbers in `near[i]`. Each
# feature comes from the neighbour with probability `swap`, else from the point. The same seed draws the same queries.

# %%
def draw_queries(X, near, count, swap, seed):
    """(count, D): random real points, each of whose features comes with probability `swap` from one of the point's neighbours."""
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    first = rng.integers(len(X), size=count)
    second = near[first, rng.integers(near.shape[1], size=count)]
    swapped = rng.random((count, X.shape[1])) < swap
    return np.where(swapped, X[second], X[first])
    ### END SOLUTION

# %%
draw_queries = check("10.4", draw_queries)

# %%
from sklearn.neighbors import NearestNeighbors

near = NearestNeighbors(n_neighbors=5).fit(X_train).kneighbors(return_distance=False)
seen = [3, 40, 77, 120, 200, 333, 500]
mixed = np.concatenate([draw_queries(X_train[[i, near[i, 0]]], np.array([[1], [0]]), 1, 0.5, i) for i in seen])
figures_trees.queries_row(X_train[seen], X_train[near[seen, 0]], mixed, forest.predict_proba(mixed));

# %% [markdown]
# **Apply**: a regression tree of 200 leaves on the soft labels. (Its squared error, summed over the classes, is the Gini impurity of the forest's
# answers: it is the same CART.)

# %%
from sklearn.tree import DecisionTreeRegressor

live = []
for count in (0, 1000, 4000 if quick() else 10000):
    asked = np.concatenate([X_train, draw_queries(X_train, near, count, 0.5, 0)])
    student = DecisionTreeRegressor(max_leaf_nodes=200, random_state=0).fit(asked, forest.predict_proba(asked))
    answers = student.predict(X_test).argmax(1)
    live.append((count, classical.fidelity(answers, teacher_says)))
    print(f"{count:6,} queries: agrees with the forest on {live[-1][1]:.1%}, right on {(answers == y_test).mean():.1%} of the test points")
figures_trees.fidelity_by_queries(evidence["one tree"], live);

# %% [markdown]
# It takes thousands of queries to close a part of the gap, and one tree stays one tree: it cuts along axes, and 200 leaves are 200 boxes. Another student fits
# the forest's rounded borders better: a *small network* (`DistilledNetworkClassifier`, one hidden layer, trained on the same queries). In the opening figure it
# loses next to nothing, at a far smaller size. So distillation crosses the border between classical models and networks, both ways.
#
# {{question 10.q2}}

# %%
### BEGIN SOLUTION
q2 = "c"
### END SOLUTION

# %%
q2 = answer("10.q2", q2)

# %% [markdown]
# ## 4 What a node costs
#
# How large is a forest? The first thought is to dump the fitted object and look at the file.
#
# {{prediction 10.p2}}

# %%
### BEGIN SOLUTION
p2 = (5, 30)
### END SOLUTION

# %%
p2 = predict("10.p2", p2)

# %%
import pickle

dumped = len(pickle.dumps(forest))
print(f"dumped {dumped:,} bytes; what a prediction reads, reasonably stored: {large_bytes:,} bytes")
for name, array in classical.model_arrays(forest).items():
    print(f"  {name:10} {array.dtype!s:8} {array.shape[0]:6,} numbers, {array.nbytes:8,} bytes")
reveal("10.p2", dumped / large_bytes);

# %% [markdown]
# The dump keeps what a *training* needs: impurities, counts of points, class shares of every inner node, all of it 8 bytes wide. (And it is
# unsafe to load one that you did not write: loading can run code.) A prediction reads, of an inner node, feature, threshold and where to go; of a leaf, the class.
# All ratios of this chapter are against that, the smaller number: no method may count tidying up as compression.
#
# Can it be less? Look at the numbers. A feature is one of 64: 6 bits. Where to go: nodes stand in **preorder** (a node, then all of its left
# side, then all of its right side), so the left child is the next node, and one **flag** bit per node, "leaf or not", tells the rest: when a left side
# has ended is clear from the flags. No pointers. And the thresholds? A pixel of these digits has 17 levels:

# %%
thresholds = np.concatenate([tree.tree_.threshold[tree.tree_.feature >= 0] for tree in forest.estimators_])
levels = np.floor(16 * thresholds).astype(int)
print(f"{len(thresholds):,} thresholds, from {thresholds.min():.3f} to {thresholds.max():.3f}; distinct levels: {np.unique(levels)}")

# %% [markdown]
# "$x \le \tau$" asks between which two levels $\tau$ lies. There are 16 such places, so a threshold takes 4 bits and *not one answer changes*. (For
# features with more values a grid of $2^b$ thresholds is a quantization, and costs a little.)
#
# {{exercise 10.5}}
#
# Write `pack_tree`. For each node in order: a leaf is the flag 1 and its class in $c$ bits; an inner node is the flag 0, its feature in $f$ bits, its
# level in $t$ bits; `widths` is $(f, t, c)$. The high bit of every number comes first. In a leaf `feature` is -1. Fill up the last byte with zeros
# (`np.packbits` does).

# %%
def pack_tree(feature, level, label, widths):
    """The tree as bytes (uint8): nodes in preorder, `widths` = bits of a feature, of a level, of a class."""
    ### BEGIN SOLUTION
    f, t, c = widths
    bits = ""
    for node in range(len(feature)):
        if feature[node] < 0:
            bits += "1" + format(label[node], f"0{c}b")
        else:
            bits += "0" + format(feature[node], f"0{f}b") + format(level[node], f"0{t}b")
    return np.packbits([int(bit) for bit in bits])
    ### END SOLUTION

# %%
pack_tree = check("10.5", pack_tree)

# %% [markdown]
# **Apply** it to all hundred trees, and read the bytes again, to be sure:

# %%
def answers_from_bytes(data, widths, X):
    """Walk every point down a packed tree, from its bytes alone."""
    f, t, c = widths
    bits, nodes, at, still_open = np.unpackbits(data), [], 0, 1
    number = lambda start, width: int("".join(map(str, bits[start:start + width])), 2)
    while still_open:                                     # the flags say where the tree ends
        leaf = bits[at] == 1
        nodes.append((-1, number(at + 1, c)) if leaf else (number(at + 1, f), number(at + 1 + f, t)))
        at, still_open = at + 1 + (c if leaf else f + t), still_open + (-1 if leaf else 1)
    right = classical.preorder_children(np.array([node[0] < 0 for node in nodes]))
    found = np.zeros(len(X), int)
    def go(node, rows):
        if nodes[node][0] < 0:
            found[rows] = nodes[node][1]
        else:
            yes = 16 * X[rows, nodes[node][0]] <= nodes[node][1] + 0.5
            go(node + 1, rows[yes]), go(right[node], rows[~yes])
    go(0, np.arange(len(X)))
    return found

widths, packed = (6, 4, 4), []
for tree in forest.estimators_:
    arrays = classical.TreeArrays.from_sklearn(tree)
    packed.append(pack_tree(arrays.feature, np.where(arrays.is_leaf, 0, np.floor(16 * arrays.threshold)).astype(int), arrays.value.argmax(1), widths))
same = all(np.array_equal(answers_from_bytes(data, widths, X_test), tree.predict(X_test)) for data, tree in zip(packed, forest.estimators_))
print(f"every tree, every test point, the same answer: {same}")
sizes = {"dumped object": dumped, "what predict reads, in whole numbers and float32": large_bytes, "nodes in bits": sum(map(len, packed))}
figures_trees.size_bars(sizes);
print(", ".join(f"{name} {size:,} bytes" for name, size in sizes.items()))

# %% [markdown]
# The same forest, not one answer changed. The library's `CompressedForestClassifier` puts the sections together: small random trees, refined
# together on what the forest says of queries, siblings merged, thresholds in 4 bits, leaves in 4 bits a number, nodes packed without pointers.

# %%
compressed = classical.CompressedForestClassifier(queries=1000 if quick() else 3000).fit(X_train, y_train)
small_bytes = classical.model_bytes(compressed)
print(f"{len(compressed.forest_.trees)} trees, {compressed.forest_.n_leaves:,} leaves, {small_bytes:,} bytes: {large_bytes / small_bytes:.1f} times smaller than what "
      f"predict reads of the forest, {dumped / small_bytes:.0f} times smaller than the dump")
print(f"the forest {forest.score(X_test, y_test):.1%}, compressed {compressed.score(X_test, y_test):.1%} of the test points right")
ledger.add({"name": "forest of 100 trees", "file_bytes": large_bytes, "accuracy": forest.score(X_test, y_test), "n": len(y_test)}, chapter="10", family="dense")
ledger.add({"name": "compressed forest", "file_bytes": small_bytes, "accuracy": compressed.score(X_test, y_test), "n": len(y_test)}, chapter="10", family="hybrid");

# %% [markdown]
# One split, some hundred test points: half a point is three or four digits, and luck. The opening figure has ten times repeated cross-validation, the paired
# loss and its interval.
#
# {{question 10.q3}}

# %%
### BEGIN SOLUTION
q3 = "c"
### END SOLUTION

# %%
q3 = answer("10.q3", q3)

# %% [markdown]
# ## 5 Nearest neighbours: fewer, then better ones
#
# A **nearest-neighbour** classifier gives a point the class of the training point that is nearest to it. Nothing is trained. So nothing is
# forgotten either: the model *is* the training set.

# %%
from sklearn.neighbors import KNeighborsClassifier

from compresslab.classical.size import array_bytes, model_arrays, model_bytes
from compresslab.course.chapter10 import figures_small

neighbours = KNeighborsClassifier(1).fit(X_train, y_train)
print(f"{len(X_train):,} points of {X_train.shape[1]} numbers: {model_bytes(neighbours):,} bytes, {neighbours.score(X_test, y_test):.1%} right")

# %% [markdown]
# Most of these points lie deep inside their class, where any neighbour would do. A subset of the training set, called the **store**, is
# **consistent** if its nearest neighbours have every *training* point right. **Hart's rule** (1968) finds a small one. Start with one point.
# Go round all points; one that the store gets wrong enters it, at once. Go round again, until a whole round adds nothing.
#
# {{prediction 10.p3}}

# %%
### BEGIN SOLUTION
p3 = (0.06, 0.2)
### END SOLUTION

# %%
p3 = predict("10.p3", p3)

# %% [markdown]
# {{exercise 10.6}}
#
# Write `condense`. The store starts with row 0; the rows are visited as they come. Distances are Euclidean, and no two points
# are equally far from a third.

# %%
def condense(X, y):
    """A list of row numbers of X, in the order in which they entered: Hart's condensed set, visited row by row."""
    ### BEGIN SOLUTION
    store, size = [0], 0
    while size < len(store):
        size = len(store)
        for i in range(len(X)):
            distances = ((X[store] - X[i]) ** 2).sum(1)
            if y[store[distances.argmin()]] != y[i]:
                store.append(i)
    return store
    ### END SOLUTION

# %%
condense = check("10.6", condense)

# %% [markdown]
# **See** it in a plane, with three clouds of points:

# %%
draw = np.random.default_rng(0)
cloud_y = np.repeat([0, 1, 2], 60)
cloud = np.array([[0.0, 0.0], [3.0, 0.5], [1.2, 2.6]])[cloud_y] + 0.75 * draw.standard_normal((180, 2))
figures_small.condensed_plane(cloud, cloud_y, condense(cloud, cloud_y));

# %% [markdown]
# What is left stands along the borders. **Apply** it to the digits:

# %%
store = condense(X_train, y_train)
condensed = KNeighborsClassifier(1).fit(X_train[store], y_train[store])
print(f"{len(store)} of {len(X_train):,} points are left: {model_bytes(condensed):,} bytes; {condensed.score(X_train, y_train):.1%} of the training points right, "
      f"{condensed.score(X_test, y_test):.1%} of the test points")
reveal("10.p3", len(store) / len(X_train));

# %% [markdown]
# {{question 10.q4}}

# %%
### BEGIN SOLUTION
q4 = "d"
### END SOLUTION

# %%
q4 = answer("10.q4", q4)

# %% [markdown]
# Condensing is pruning: it only chooses. The next step is the one from choosing weights to *training* them. A **prototype** $b_j$ is a
# neighbour that need not be a training point, and in place of a label it has a score $z_j$ for every class. **ProtoNN** (Gupta et al., ICML 2017) adds the
# scores up, each weighted by how near its prototype is:
#
# $$ \hat y(x) = \sum_{j=1}^m z_j \, K_j(x), \qquad K_j(x) = \exp(-\gamma^2 \|x - b_j\|^2) . $$
#
# Everything here has a derivative, so everything can be learned, by gradient descent on
#
# $$ \mathcal R = \frac1{2n} \sum_{i=1}^n \|\hat y(x_i) - y_i\|^2 , \qquad y_i \text{ one-hot: 1 for the right class, 0 for the others.} $$
#
# {{exercise 10.7}}
#
# Write `prototype_step`: one step of length `lr` for all prototypes and all scores together.

# %%
def prototype_step(X, Y, B, Z, gamma, lr):
    """(B, Z) after one step of gradient descent on the squared loss; X (n, D), Y (n, L), B (m, D), Z (m, L)."""
    ### BEGIN SOLUTION
    gap = X[:, None] - B
    K = np.exp(-gamma**2 * (gap**2).sum(2))
    error = K @ Z - Y
    H = (error @ Z.T) * K
    grad_B = 2 * gamma**2 * (H[:, :, None] * gap).sum(0) / len(X)
    grad_Z = K.T @ error / len(X)
    return B - lr * grad_B, Z - lr * grad_Z
    ### END SOLUTION

# %%
prototype_step = check("10.7", prototype_step)

# %% [markdown]
# **Apply**: ten prototypes, one for each class, which start at the means of their classes.

# %%
from compresslab.classical.prototypes import protonn_scores

few, gamma = slice(0, 200 if quick() else 500), 0.55
start = np.array([X_train[y_train == label].mean(0) for label in range(10)])
B, Z, losses = start, np.eye(10), []
right = lambda B, Z: (protonn_scores(X_test, np.eye(64), B, Z, gamma).argmax(1) == y_test).mean()
print(f"class means: {right(B, Z):.1%} right")
for _ in range(40 if quick() else 200):
    B, Z = prototype_step(X_train[few], np.eye(10)[y_train[few]], B, Z, gamma, 4.0)
    losses.append(((protonn_scores(X_train[few], np.eye(64), B, Z, gamma) - np.eye(10)[y_train[few]]) ** 2).sum() / (2 * len(y_train[few])))
print(f"learned: {right(B, Z):.1%} right, with 10 points in place of {len(X_train):,}")
figures_small.moving_prototypes(start, B, losses);

# %% [markdown]
# A learned prototype is no mean any more, and no image that anybody wrote. It stands where it is *useful*: strokes that tell its class from the others
# have become darker, the rest lighter.
#
# ProtoNN learns one thing more: a **projection** $W$ to few numbers ($d$ in place of $D$), so that $x$ becomes $Wx$ before any distance is taken. $W$ may be
# sparse; then each step is followed by the nearest matrix with so few nonzeros (**iterative hard thresholding**, chapter 07's
# projection). The library's version also trains with the rounded numbers, so that 8 bits or fewer are enough.
#
# {{prediction 10.p4}}

# %%
### BEGIN SOLUTION
p4 = (20, 200)
### END SOLUTION

# %%
p4 = predict("10.p4", p4)

# %%
from compresslab.classical.prototypes import ProtoNNClassifier

proto = ProtoNNClassifier(dimensions=10, per_class=4, bits=8, epochs=20 if quick() else 60).fit(X_train, y_train)
print({name: array.nbytes for name, array in proto.to_arrays().items()})
print(f"{model_bytes(proto):,} bytes with names and shapes, {proto.score(X_test, y_test):.1%} right")

# %% [markdown]
# One split proves little. So again ten times repeated five-fold cross-validation, with the interval that is corrected for shared training
# points, against all neighbours in float32:

# %%
evidence = load_evidence("10")
rows = evidence["neighbours"]
baseline = rows[0]
for row in rows:
    met = baseline["bytes"] >= 20 * row["bytes"] and row["high"] <= 0.01
    print(f"{row['name']:20} {row['bytes']:8,} bytes, {baseline['bytes'] / row['bytes']:6.1f} x smaller, {row['accuracy']:.2%} right, loses {100 * row['loss']:+.2f} "
          f"[{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]{'  <- 20 x, <= 1 point' if met else ''}")
figures_small.bytes_and_loss(rows)
good = [row for row in rows[1:] if row["high"] <= 0.01 and row["name"].startswith("ProtoNN")]
reveal("10.p4", max(baseline["bytes"] / row["bytes"] for row in good) if good else baseline["bytes"] / rows[-1]["bytes"]);

# %% [markdown]
# Where an interval reaches beyond one point, the model may well be good enough; fifty trainings on shared points cannot promise it. And Hart's store shows what choosing costs against
# learning: more bytes, and several times the loss.
#
# Is float32 a fair baseline? A pixel here is one of 17 grey values, so a byte would do. Then a factor of four in all these ratios is nobody's
# merit:

# %%
bytewise = array_bytes({"points": np.zeros((1438, 64), np.uint8), "labels": np.zeros(1438, np.uint8)})
for row in rows[1:]:
    print(f"{row['name']:20} {bytewise / row['bytes']:6.1f} x smaller than neighbours of one byte a pixel")
print("\nand on the breast cancer data, 30 measurements a patient:")
for row in evidence["neighbours of patients"]:
    print(f"{row['name']:20} {row['bytes']:8,} bytes, {row['accuracy']:.2%} right, loses {100 * row['loss']:+.2f} points [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]")

# %% [markdown]
# ## 6 Every point in a few bytes
#
# Sometimes the points must stay, for instance because the *nearest one* is the answer that is wanted: an image search, not a class. Then compress
# the points. **Product quantization** (Jégou, Douze and Schmid, 2011) is chapter 06's, applied to data: cut every point into $M$ pieces, make a code book of $k$ words
# for each piece, and store of a point only the $M$ numbers of its nearest words. With $k = 16$ that is half a byte for each piece.
#
# And the search? The query $q$ stays as it is. The distance to a stored point $\hat y$ is a sum over the pieces, and for each piece only $k$ different terms are possible:
#
# $$ \|q - \hat y_j\|^2 = \sum_{m=1}^M T_{m,\,c_{jm}}, \qquad T_{m,v} = \|q^m - c^m_v\|^2 . $$
#
# {{exercise 10.8}}
#
# Write `look_up`. Piece $q^m$ is the $m$-th run of $D/M$ numbers of the query. All distances are squared.

# %%
def look_up(query, codebooks, codes):
    """(tables, distances): (M, k) and (N,), squared; query (D,), codebooks (M, k, D / M), codes (N, M)."""
    ### BEGIN SOLUTION
    M = len(codebooks)
    tables = ((query.reshape(M, 1, -1) - codebooks) ** 2).sum(2)
    distances = tables[np.arange(M), codes].sum(1)
    return tables, distances
    ### END SOLUTION

# %%
look_up = check("10.8", look_up)

# %% [markdown]
# **Apply**: an index of all training points, 16 pieces of four pixels each, and one query through your function.

# %%
from compresslab.classical.product_index import ProductNeighborsClassifier, decode_product

index = ProductNeighborsClassifier(subspaces=16, bits=4).fit(X_train, y_train)
tables, distances = look_up(X_test[0], index.codebooks_, index.codes_)
decoded = ((X_test[0] - decode_product(index.codes_, index.codebooks_)) ** 2).sum(1)
print(f"{tables.size} entries for {len(distances):,} distances of {X.shape[1]} numbers; largest difference to decoding all points: {abs(distances - decoded).max():.1e}")
found = [y_train[look_up(query, index.codebooks_, index.codes_)[1].argmin()] for query in X_test]
print(f"{model_bytes(index):,} bytes ({model_bytes(neighbours) / model_bytes(index):.1f} x smaller), {np.mean(found == y_test):.1%} right; before: {neighbours.score(X_test, y_test):.1%}")
figures_small.tables_of_distances(tables, index.codes_[distances.argmin()]);

# %% [markdown]
# For a query, $Mk$ small distances and then $M$ additions for each stored point, whatever $D$ is. Where do the bytes go? In a small index, soon into the code books:

# %%
for bits in (2, 4, 6):
    trial = ProductNeighborsClassifier(subspaces=16, bits=bits).fit(X_train, y_train)
    parts = trial.to_arrays()
    print(f"{2**bits:3} words: codes {parts['codes'].nbytes:6,} bytes, code books {parts['codebooks'].nbytes:6,}; {trial.score(X_test, y_test):.1%} right")

# %% [markdown]
# {{question 10.q5}}

# %%
### BEGIN SOLUTION
q5 = "b"
### END SOLUTION

# %%
q5 = answer("10.q5", q5)

# %% [markdown]
# ## 7 Kernels: the same sum with fewer terms
#
# A **support vector machine** decides by a sum over training points, too, $f(x) = \sum_i \alpha_i k(x_i, x) + b$ with a kernel such as
# $k(x, y) = \exp(-\gamma \|x - y\|^2)$. Points with $\alpha_i \neq 0$ are its **support vectors**, and all of them are stored.
#
# A kernel is an inner product of features, $k(x, y) = \phi(x)^\top \phi(y)$, so the machine *is* one vector, $\sum_i \alpha_i \phi(x_i)$. Burges (ICML 1996) replaces it by
# the nearest sum of a few vectors $z_j$, the **reduced set**:
#
# $$ \rho^2 = \Big\| \sum_i \alpha_i \phi(x_i) - \sum_j \beta_j \phi(z_j) \Big\|^2 . $$
#
# The features are infinitely long. But multiply the square out, and only products of two $\phi$ are left, which are kernel values. For given $z_j$, the best $\beta$ solves one linear system.
#
# {{exercise 10.9}}
#
# Write `reduce_expansion`. `rbf_kernel(A, B, gamma=gamma)` is the matrix of $\exp(-\gamma \|a_i - b_j\|^2)$. No two $z$ are equal.

# %%
from sklearn.metrics.pairwise import rbf_kernel

def reduce_expansion(X, alpha, Z, gamma):
    """(beta, error): the best coefficients (m,) of the vectors Z, and the squared distance in feature space that is left."""
    ### BEGIN SOLUTION
    K_zx = rbf_kernel(Z, X, gamma=gamma)
    beta = np.linalg.solve(rbf_kernel(Z, Z, gamma=gamma), K_zx @ alpha)
    error = alpha @ rbf_kernel(X, X, gamma=gamma) @ alpha - beta @ K_zx @ alpha
    return beta, error
    ### END SOLUTION

# %%
reduce_expansion = check("10.9", reduce_expansion)

# %% [markdown]
# **Apply** it to a machine that tells eights from all other digits. Three ways to choose as many vectors: some of the support vectors, the means of clusters of
# them, and these means moved downhill (the library's `reduction_gradient`).

# %%
from sklearn.cluster import KMeans
from sklearn.svm import SVC

from compresslab.classical.reduced_set import reduction_gradient

machine = SVC(C=10, gamma=0.1).fit(X_train, y_train == 8)
vectors, alpha = machine.support_vectors_, machine.dual_coef_[0]
_, whole = reduce_expansion(vectors, alpha, vectors[:1] + 100, 0.1)               # a vector far away explains nothing
print(f"{len(vectors)} support vectors, {machine.score(X_test, y_test == 8):.2%} right")
for m in (5, 20, 60):
    moved = means = KMeans(m, n_init=1, random_state=0).fit(vectors).cluster_centers_
    for _ in range(60):
        beta, _ = reduce_expansion(vectors, alpha, moved, 0.1)
        slope = reduction_gradient(moved, beta[:, None], vectors, alpha[:, None], 0.1)
        moved = moved - 0.1 * slope / np.linalg.norm(slope, axis=1, keepdims=True).max()
    for name, chosen in {"some of them": vectors[draw.permutation(len(vectors))[:m]], "cluster means": means, "moved": moved}.items():
        beta, error = reduce_expansion(vectors, alpha, chosen, 0.1)
        says = rbf_kernel(X_test, chosen, gamma=0.1) @ beta + machine.intercept_ > 0
        print(f"{m:3} vectors, {name:13}: {error / whole:6.1%} of the squared length left, {np.mean(says == (y_test == 8)):.2%} right")

# %% [markdown]
# A vector that may move is worth several that may not: the same step as from condensing to prototypes.
#
# The other way round: keep the kernel, drop $\phi$. If short features $\varphi$ have $\varphi(x)^\top \varphi(y) \approx k(x, y)$, a *linear* model on them is all that is stored. Two
# famous ones:
#
# - **Nyström features** (Williams and Seeger, NIPS 2000): $\varphi(x) = K_{zz}^{-1/2} k_z(x)$ with $m$ training points $z$ as landmarks. This is low rank (chapter 05) for the kernel
#   matrix. With all points as landmarks it is exact.
# - **random Fourier features** (Rahimi and Recht, NIPS 2007): $\varphi(x) = \sqrt{2/m}\,\cos(\Omega x + b)$ with $\Omega$ and $b$ drawn at random. For *every* $m$ the product is right on
#   average, over the draws; how far a single draw is off shrinks like $1/\sqrt m$.

# %%
from compresslab.classical.random_features import draw_fourier, fourier_features, nystrom_features

points = X_train[:80]
exact = rbf_kernel(points, gamma=0.1)
counts, errors = (5, 10, 20, 40, 80, 160), {"random Fourier, one draw": [], "random Fourier, mean of 100 draws": [], "Nystrom": []}
for m in counts:
    products = [features @ features.T for features in (fourier_features(points, *draw_fourier(m, 64, 0.1, seed)) for seed in range(100))]
    errors["random Fourier, one draw"].append(np.mean([abs(product - exact).mean() for product in products]))
    errors["random Fourier, mean of 100 draws"].append(abs(np.mean(products, 0) - exact).mean())
    if m <= len(points):
        landmarks = nystrom_features(points, points[:m], 0.1)
        errors["Nystrom"].append(max(abs(landmarks @ landmarks.T - exact).mean(), 1e-16))
for name, values in errors.items():
    print(f"{name:34}", "  ".join(f"{value:.1e}" for value in values))
figures_small.kernel_errors(counts, {name: values for name, values in errors.items() if name != "Nystrom"} | {"Nystrom": errors["Nystrom"][:-1] + [np.nan] * 2});

# %% [markdown]
# Nyström looks at the data, and is far ahead. (With all 80 points it is exact, which a logarithmic axis cannot show.) In bytes, on all ten classes:

# %%
figures_small.groups(evidence["kernels"], {"SVC": "SVC, all support vectors", "k-means": "k-means vectors, 8 bits", "reduced": "reduced set, 8 bits", "Nystrom": "Nyström, float32",
                                           "random": "random Fourier, float32"});

# %% [markdown]
# ## 8 Two kilobytes of C
#
# A small microcontroller has 2 kB of memory to work in and 32 kB of flash, which holds program and constants. There is no Python on it, no file, no
# allocator. A model there is *constants in a C header and a loop over them*. **Bonsai** (Kumar, Goyal and Varma, ICML 2017) was made for this size: a projection to few
# numbers and one shallow tree, in which every node on the path of $x$ adds a say,
#
# $$ \hat y(x) = \sum_k I_k(x)\; W_k^\top Zx \circ \tanh(\sigma V_k^\top Zx) , $$
#
# with $I_k(x) = 1$ on the path and 0 elsewhere. The path is learned softly, and grows sharp during the training.

# %%
from compresslab.classical.bonsai import BonsaiClassifier

bonsai = BonsaiClassifier(dimensions=8, depth=1, bits=8, epochs=5 if quick() else 12).fit(X_train, y_train)
print({name: array.nbytes for name, array in bonsai.to_arrays().items()})
print(f"{model_bytes(bonsai):,} bytes, {bonsai.score(X_test, y_test):.1%} right")
figures_small.groups(evidence["two kilobytes"], {"tree": "one tree", "Bonsai": "Bonsai", "ProtoNN": "ProtoNN"}, line=2048, words="2 kB");

# %% [markdown]
# With few bytes Bonsai is ahead, with more of them ProtoNN; a lone tree is far behind both. Why a point of accuracy costs so many nodes there: each of its questions looks at one pixel.
#
# {{exercise 10.10}}
#
# A colleague writes each array of a model as a line of C. It compiles. It even works, in his test, a row vector of small numbers:

# %%
def buggy_c_table(name, values):
    """One line of C that holds the array, row after row."""
    if values.dtype.kind in "iu":
        kind = "int8_t"
        words = [str(number) for number in values.flatten(order="F").tolist()]
    else:
        kind = "float"
        words = [f"{number:.4f}f" for number in values.flatten(order="F").tolist()]
    return f"static const {kind} {name}[{len(values)}] = {{{', '.join(words)}}};"

print(buggy_c_table("works", np.array([1, -2, 3])))
print(buggy_c_table("child", np.array([1, 130])))
print(buggy_c_table("scale", np.float32([[0.1, 2.5e-6], [1 / 3, 40]])))

# %% [markdown]
# Four bugs: two change the numbers that C reads, one their count, one their order. Repair them; write `c_table`. Whole numbers take the smallest of `int8_t`, `uint8_t`, `int16_t`,
# `uint16_t`, `int32_t` that holds them all. Real numbers (float32 values, whatever the type of the array) must be read back *exactly*: **nine significant digits** tell any two float32 apart, seven do not.
# Mind that `1f` is no number in C; `1.0f` and `1e0f` are.

# %%
def c_table(name, values):
    """As above, repaired: one line of C that holds the array, row after row."""
    ### BEGIN SOLUTION
    if values.dtype.kind in "iu":
        kinds = ("int8", "uint8", "int16", "uint16", "int32")
        kind = next(k for k in kinds if np.iinfo(k).min <= values.min() and values.max() <= np.iinfo(k).max) + "_t"
        words = [str(number) for number in values.flatten().tolist()]
    else:
        kind = "float"
        words = [f"{number:.8e}f" for number in values.flatten().tolist()]
    return f"static const {kind} {name}[{values.size}] = {{{', '.join(words)}}};"
    ### END SOLUTION

# %%
c_table = check("10.10", c_table)

# %% [markdown]
# **Apply**: three models as C, with *your* tables; compiled, where this computer has a C compiler; and all predictions compared, not ten of them.

# %%
from sklearn.tree import DecisionTreeClassifier

from compresslab.classical.c_header import compile_and_predict, compiler, emit_header, flash_bytes

small_tree = DecisionTreeClassifier(max_leaf_nodes=150, random_state=0).fit(X_train, y_train)
small_models = {"tree": small_tree, "ProtoNN": proto, "Bonsai": bonsai}
headers = {name: emit_header(model, table=c_table) for name, model in small_models.items()}
print("\n".join(line[:110] for line in headers["ProtoNN"].splitlines()[:14]), "\n...")
for name, model in small_models.items():
    print(f"{name:8} {array_bytes(model_arrays(model)):6,} bytes of arrays, {model.score(X_test, y_test):.1%} right", end="")
    if compiler():
        answers = compile_and_predict(headers[name], X_test)
        print(f"; C and Python agree on {np.mean(answers == model.predict(X_test)):.2%} of {len(X_test)} test points", end="")
    print()
if not compiler():
    print("(no C compiler here: the headers are complete, but nobody has compiled them)")

# %% [markdown]
# What does such a model *weigh*? The first thought is the file that joblib writes (a **pickle**: the whole Python object). Compare:

# %%
import io
import joblib

def pickled(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return len(buffer.getvalue())

weights = {"ProtoNN: pickle": pickled(proto), "file of arrays": model_bytes(proto), "arrays alone": array_bytes(model_arrays(proto))}
try:
    flash = flash_bytes(headers["ProtoNN"])
    weights |= {"constants in the object file": flash["constants"], "code of predict()": flash["code"]}
except RuntimeError as reason:
    print(reason)
for name, size in weights.items():
    print(f"{name:30} {size:8,} bytes")
figures_small.sizes(weights);

# %% [markdown]
# {{question 10.q6}}

# %%
### BEGIN SOLUTION
q6 = "b"
### END SOLUTION

# %%
q6 = answer("10.q6", q6)

# %% [markdown]
# ## 9 Your turn: a digit in two kilobytes
#
# {{exercise 10.11}}
#
# Other digits: `ink_digits`, drawn by the course, 28 x 28 pixels, warped. Averaged over squares of 4 x 4 pixels, an image is 49 numbers. Train any of the library's models that a file can hold (`ProtoNNClassifier`,
# `BonsaiClassifier`, `ReducedSetClassifier`, `CondensedNeighborsClassifier`, `ProductNeighborsClassifier`) and save it with `save_model`, in at most **2,048 bytes**, header included. It must have at least **78 %** of 4,000 freshly
# drawn images right. Set `my_model` to the path. Below: what all neighbours make of these coarse images, and at what price.

# %%
from compresslab.classical.condensed import CondensedNeighborsClassifier
from compresslab.classical.reduced_set import ReducedSetClassifier
from compresslab.classical.size import save_model
from compresslab.course.budget import submission_path
from compresslab.course.budget_arrays import pooled_features
from compresslab.data import load_data

ink = load_data("ink_digits")
ink_points, ink_labels = pooled_features(ink.train.take(5000 if quick() else 6000))
ink_judges, judge_labels = pooled_features(ink.validation.take(1000))
all_neighbours = KNeighborsClassifier(3).fit(ink_points, ink_labels)
print(f"all neighbours: {model_bytes(all_neighbours):,} bytes, {all_neighbours.score(ink_judges, judge_labels):.1%} right on {len(judge_labels):,} validation images")

# %%
### BEGIN SOLUTION
small = ProtoNNClassifier(dimensions=14, per_class=6, bits=5, epochs=16 if quick() else 20, batch_size=128).fit(ink_points, ink_labels)
save_model(small, submission_path("10.11"))
my_model = str(submission_path("10.11"))
### END SOLUTION

# %%
my_model = check("10.11", my_model)

# %%
from compresslab.classical.size import load_arrays, load_model

mine = load_model(my_model)
arrays, kind = load_arrays(my_model)
print(f"a {kind}: {array_bytes(arrays):,} bytes of arrays, {mine.score(ink_judges, judge_labels):.1%} of the validation images right; all neighbours take {model_bytes(all_neighbours) / model_bytes(mine):,.0f} times as much")

# %% [markdown]
# ## 10 Your ledger
#
# The small models of the second half, by the bytes of their files, each under the family whose idea it is: condensing prunes, product codes share, prototypes
# and Bonsai are compact from the start.

# %%
entries = {"1-NN, all": ("dense", neighbours), "Hart's store": ("pruning", condensed), "product index": ("sharing", index), "ProtoNN": ("compact", proto), "Bonsai": ("compact", bonsai)}
for name, (family, model) in entries.items():
    ledger.add({"name": name, "accuracy": float(model.score(X_test, y_test)), "n": len(X_test), "file_bytes": model_bytes(model)}, chapter="10", family=family, note="digits")
print("\n".join(f"{row['name']:14} {row['accuracy']:.1%} {row['file_bytes']:8,} bytes" for row in ledger.rows("10")[-5:]))

# %% [markdown]
# ## What was simplified
#
# - Ren et al. refine a forest with a support vector machine or the logistic loss; here ridge regression, which has a formula.
# - Hart's store depends on the order of the visits. Later rules, such as the reduced and the edited nearest neighbour, repair part of that.
# - ProtoNN is trained alternately in the paper, with sparse $B$ and $Z$ as well; here all three at once with Adam, and only $W$ may be sparse. Bonsai likewise.
# - The reduced set is built vector by vector in the paper, each found by an iteration of its own; here all move together.
# - A real index of millions of points adds an *inverted file*, which lets a query look at few lists only; ours looks at all points.
# - Flash was measured for the computer in front of you. Another processor has other code, and the same constants.
#
# ## Further reading
#
# - Breiman, Friedman, Olshen, Stone, *Classification and Regression Trees*, 1984.
# - Joly et al., *L1-based compression of random forest models*, ESANN 2012; Ren et al., *Global Refinement of Random Forest*, CVPR 2015.
# - Nadeau, Bengio, *Inference for the Generalization Error*, Machine Learning 2003.
# - Hart, *The Condensed Nearest Neighbor Rule*, IEEE Transactions on Information Theory 1968.
# - Gupta et al., *ProtoNN: Compressed and Accurate kNN for Resource-scarce Devices*, ICML 2017.
# - Kumar, Goyal, Varma, *Resource-efficient Machine Learning in 2 KB RAM for the Internet of Things*, ICML 2017.
# - Jégou, Douze, Schmid, *Product Quantization for Nearest Neighbor Search*, IEEE Transactions on Pattern Analysis and Machine Intelligence 2011.
# - Burges, *Simplified Support Vector Decision Rules*, ICML 1996.
# - Williams, Seeger, *Using the Nyström Method to Speed Up Kernel Machines*, NIPS 2000; Rahimi, Recht, *Random Features for Large-Scale Kernel Machines*, NIPS 2007.
#
# **Next:** chapter 11 brings compressed models to an inference engine, and measures what a clock says.

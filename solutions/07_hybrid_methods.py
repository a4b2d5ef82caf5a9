# %% [markdown]
# # Hybrid methods: when techniques meet
#
# After this chapter you can put pruning, sharing, distillation and low rank together into one file, predict what that file weighs
# before you write it, and say why a tenth of the weights at an eighth of the bits is not an eightieth of the bytes.
#
# This is Deep Compression on our networks, stage by stage. The open square is what about the same bytes buy without any of it: a
# smaller ordinary network.

# %%
import copy
import heapq
import math
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter07 import figures, figures_orders
from compresslab.course.chapter07.widgets import SizeLook, draw_sizes

plots.style()
evidence = load_evidence("07")
figures.deep_compression(figures_orders.rows_of(evidence, "deep compression", "small dense", "moonshot"));

# %% [markdown]
# *Fresh images that no method has seen; short marks are single seeds, symbols their means. Each stage makes the file smaller, and
# costs hardly an answer. (Where a network even gained, remember that it was trained further, under a teacher, and the dense one was
# not.) The moonshot has the same stages, pushed further, at a loss of less than a point.*
#
# **Time** about two hours for the core exercises, three for all. **You need** chapters 01 (masks, gap codes) and 02 (k-means,
# quantization-aware training); 04 and 05 help from section 4 on. **In a workshop** do exercises 7.1 to 7.3 with prediction 7.p1 and
# question 7.q1.
#
# Stuck? Open a new cell and run `hint("7.1")`: each call says a little more.
#
# ## The family
#
# A **hybrid** method applies several techniques to one network. They may follow one another, as stages; or one training may do both
# at once; or a search may choose how much of each every layer gets. The sub-families:

# %%
figures.map_of_hybrids();

# %% [markdown]
# The patient of this chapter is **LeNet-300-100** on `ink_digits`: it is small enough to compress many times over.

# %%
from compresslab.core import GapSparseCode, bake, convert, encode, file_size, format_rows, load, measure, named_layers, pipeline, prepare, save
from compresslab.core import storage_report, train, unpack_bits
from compresslab.core.statistics import mean_interval, paired_difference
from compresslab.core.train import accuracy, correct_answers
from compresslab.data import load_data
from compresslab.models import load_baseline

ink = load_data("ink_digits")
judges = ink.validation.take(500 if quick() else 2000)
few = ink.train.take(1000 if quick() else 4000)
lenet = load_baseline("lenet300")
dense_bytes = file_size(lenet)
weights = {name: layer.weight.detach() for name, layer in named_layers(lenet).items()}
n = sum(weight.numel() for weight in weights.values())
print(f"{n:,} weights in {len(weights)} layers, {dense_bytes:,} bytes in a file, {accuracy(lenet, judges):.1%} of {len(judges):,} validation images right")

# %% [markdown]
# ## 1 Do ratios multiply?
#
# **Deep Compression** (Han, Mao and Dally, ICLR 2016) is the hybrid that made the field known. Its stages:
#
# 1. **prune** small weights and retrain what is left;
# 2. **share**: cluster the weights that are left, each layer's into $2^b$ values, and store for each weight only which;
# 3. **tune** the shared values by gradient descent; each receives the sum over its members (chapter 06);
# 4. **code**: gaps between positions, and Huffman's code, which gives frequent symbols short words.
#
# We prune nine weights of ten: *10 times* fewer. We share with $b = 4$ bits in place of 32: *8 times* shorter. Papers multiply such
# numbers.
#
# {{prediction 7.p1}}

# %%
### BEGIN SOLUTION
p1 = (25, 50)
### END SOLUTION

# %%
p1 = predict("7.p1", p1)

# %%
from compresslab.hybrid.deep_compression import deep_compression_steps

steps = deep_compression_steps(few, sparsity=0.9, bits=4, prune_epochs=2 if quick() else 6, tune_epochs=1)
compressed, rows = pipeline(lenet, steps, judges, repeats=0, entropy=True)
plots.flow(plt.subplots(figsize=(9.4, 1.4))[1], [(row.name, "") for row in rows[1:]], [f"{row.file_bytes / 1000:,.0f} kB" for row in rows])
print(format_rows(rows))
reveal("7.p1", dense_bytes / rows[-1].file_bytes);

# %% [markdown]
# Three stages changed nothing in the file: a mask and a simulated code book are floats, until the last step writes codes. (A training
# this short loses some accuracy; the opening figure has long ones.) And the file is not 80 times smaller, but about half of that.
# Where did the rest go?
#
# {{exercise 7.1}}
#
# Write `coded_bits` for the weight of one layer. It comes pruned, not yet clustered; count what it takes once it is clustered into
# $2^{\text{bits}}$ values and gap-coded. Three arrays:
#
# - **gaps**, `index_bits` each: as in chapter 01, the largest code $G = 2^{\text{index\_bits}} - 1$ is an **escape** that skips $G$ zeros
#   and carries no weight. A weight behind $g$ zeros takes $\lfloor g / G \rfloor$ escapes and one gap code of its own;
# - **indices**, `bits` each: one for every weight that is left. (In the paper an escape is a stored zero and needs an index as well. Ours
#   does not);
# - the **code book**: $2^{\text{bits}}$ values of 32 bits, or as many as there are weights left, if these are fewer.
#
# The whole tensor is one sequence, row after row; behind its last weight nothing is stored. Gaps and indices fill whole bytes.

# %%
def coded_bits(weight, index_bits, bits):
    """(gaps, indices, code book): three ints, the bits that a pruned and clustered weight takes."""
    ### BEGIN SOLUTION
    positions = weight.flatten().nonzero().flatten()
    zeros = positions.diff(prepend=torch.tensor([-1])) - 1
    entries = len(positions) + int((zeros // (2**index_bits - 1)).sum())
    gaps = 8 * math.ceil(entries * index_bits / 8)
    indices = 8 * math.ceil(len(positions) * bits / 8)
    return gaps, indices, 32 * min(2**bits, len(positions))
    ### END SOLUTION

# %%
coded_bits = check("7.1", coded_bits)

# %% [markdown]
# **Apply** it to the network that we just made, and compare with what the library has stored.

# %%
codes = {name: module for name, module in compressed.named_modules() if isinstance(module, GapSparseCode)}
yours = [coded_bits(code.decode(), code.index_bits, code.values.bits) for code in codes.values()]
stored = storage_report(compressed).by_role
for role, mine in zip(("positions", "indices", "codebook"), map(sum, zip(*yours))):
    print(f"{role:9} you count {mine:9,} bits, the library stores {stored[role]:9,}")
left = sum(int((code.decode() != 0).sum()) for code in codes.values())
for index_bits in range(3, 9):
    gaps = sum(coded_bits(code.decode(), index_bits, 4)[0] for code in codes.values())
    print(f"gaps of {index_bits} bits: {gaps / left:.2f} bits for each weight that is left")

# %% [markdown]
# A weight that is left costs its value *and its place*, and the place is the larger part. The library has taken 8 bits for a gap,
# which is not even the best width here. Why will be clear in section 2. First the **ledger** of the real files: every byte, by what it
# is for. In its words, `values` are the indices that you have counted, and `index` is the gaps.

# %%
from compresslab.hybrid.file_ledger import file_ledger

with tempfile.TemporaryDirectory() as folder:
    ledgers = {}
    for name, entropy_coded in (("packed", False), ("and Huffman-coded", True)):
        save(compressed, Path(folder) / "small.safetensors", entropy=entropy_coded)
        ledgers[name] = file_ledger(Path(folder) / "small.safetensors", skeleton=lenet)
for name, parts in ledgers.items():
    print(f"{name:18}", ", ".join(f"{part} {size:,}" for part, size in parts.items() if size))
figures.ledger_bar(ledgers);

# %% [markdown]
# Values, places, code books, **biases** (nobody compressed them) and the **header**, in which a file says what it holds. The 80 is the
# ratio of one of five parts, the packed values.
#
# **Play**: which part is next, once the weights are few? (Counted with your function, without Huffman's code, for the dense weights
# pruned at once; each layer has the width of gaps that suits it best.)

# %%
rest = {part: ledgers["packed"][part] for part in ("biases", "header")}
look = SizeLook(coded_bits, list(weights.values()), rest, dense_bytes)
widgets.controls(look, draw_sizes, widgets.Slider("sparsity", 0.5, 0.99, 0.01, start=0.9), widgets.Slider("bits", 1, 8, 1, start=4),
                 static=[(0.5, 4), (0.9, 4), (0.99, 2)], panels=2)
for sparsity, bits in ((0.9, 8), (0.9, 4), (0.9, 2), (0.99, 8), (0.99, 4), (0.99, 2)):
    at = look(sparsity, bits)
    print(f"sparsity {sparsity:.2f}, {bits} bits: promised {at.promised:6.0f} x, counted {at.ratio:5.1f} x")

# %% [markdown]
# {{question 7.q1}}

# %%
### BEGIN SOLUTION
q1 = "a"
### END SOLUTION

# %%
q1 = answer("7.q1", q1)

# %% [markdown]
# ## 2 Frequent symbols get short words
#
# A packed gap takes 8 bits, whether it is 3, which is everywhere, or 90, which is rare. A code with words of different length can do
# better. How much better at most? Shannon (1948): if symbol $k$ has the share $p_k$, no code that gives each symbol a word of its own
# needs fewer bits per symbol than the **entropy**
#
# $$ H = \sum_k p_k \log_2 \frac{1}{p_k} . $$
#
# {{exercise 7.2}}
#
# Write `entropy` for whole numbers of any size and sign. Symbols that do not occur add nothing; an empty tensor has 0 bits.

# %%
def entropy(symbols):
    """A float, in bits per symbol: what a code of one word per symbol needs at least; 0 if there are no symbols."""
    ### BEGIN SOLUTION
    counts = symbols.flatten().unique(return_counts=True)[1].double()
    share = counts / counts.sum()
    return float((share * (1 / share).log2()).sum())
    ### END SOLUTION

# %%
entropy = check("7.2", entropy)

# %%
arrays = {}
for name, code in codes.items():
    arrays[f"{name.split('.')[0]} gaps"] = (unpack_bits(code.gaps, code.index_bits, code.entries), code.index_bits)
    arrays[f"{name.split('.')[0]} indices"] = (unpack_bits(code.values.packed, code.values.bits, code.values.numel), code.values.bits)
for name, (symbols, width) in arrays.items():
    print(f"{name:12} {len(symbols):7,} symbols of {width} bits, entropy {entropy(symbols):.2f} bits")

# %% [markdown]
# The indices save a little, the gaps about half. Can a place be cheaper still? Of $n$ places a share $d$ is taken. If they are taken
# at random, telling which takes at least $H(d) = d \log_2 \frac1d + (1 - d) \log_2 \frac1{1 - d}$ bits for each *place*, so $H(d) / d$ for
# each weight that is left, whatever the code. **See** it for the largest layer, pruned further and further:

# %%
largest = weights["fc1"].flatten()
order = largest.abs().argsort(descending=True)
densities, place, bound = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01), [], []
for d in densities:
    taken = order[:round(d * len(largest))].sort().values
    place.append(entropy(taken.diff(prepend=torch.tensor([-1]))))
    bound.append((d * math.log2(1 / d) + (1 - d) * math.log2(1 / (1 - d))) / d)
    print(f"density {d:.2f}: gaps {place[-1]:.2f} bits for each weight left, at random places at least {bound[-1]:.2f}")
figures.cost_of_a_weight(densities, place, 4, bound);

# %% [markdown]
# The sparser the layer, the dearer each place, and soon it costs more than the value. (How can the gaps lie *below* the bound? It is
# a bound for places at random, and these are not. Where an image is always empty, at its border, hardly a weight is left.)
#
# Now a real code. A **prefix code** gives each symbol a word of bits, and no word begins with another, so the words can stand one
# behind the other without commas. Lengths $l_k$ belong to a prefix code exactly if $\sum_k 2^{-l_k} \le 1$ (Kraft 1949). Huffman (1952)
# found lengths with the least mean: the two rarest symbols may be twins at the bottom of the tree, with words that differ in their
# last bit only. Merge them into one symbol that occurs as often as both, and go on.
#
# {{exercise 7.3}}
#
# Write `huffman_lengths` for a list of counts. A symbol with count 0 has length 0. A symbol that is alone takes 1 bit. Where counts are
# tied several answers are best, and any of them will do. The list may be empty, or hold nothing but zeros. The `heapq` module of Python keeps
# the smallest at the front.

# %%
def huffman_lengths(counts):
    """A list of ints: the length of each symbol's code word in an optimal prefix code; 0 where the count is 0."""
    ### BEGIN SOLUTION
    lengths = [0] * len(counts)
    heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count > 0]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        for symbol in members:
            lengths[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1], members))
    return lengths
    ### END SOLUTION

# %%
huffman_lengths = check("7.3", huffman_lengths)

# %% [markdown]
# **Apply** it to the arrays of the network: the bound, your code, and the stream that the library writes (with a table of lengths,
# and an index that lets it be read in blocks).

# %%
from compresslab.core import huffman_encode

drawn = {}
for name, (symbols, width) in arrays.items():
    counts = torch.bincount(symbols)
    lengths = huffman_lengths(counts.tolist())
    mean_length = float((counts * torch.tensor(lengths)).sum() / len(symbols))
    print(f"{name:12} H = {entropy(symbols):.3f}, your words {mean_length:.3f} bits, the library's stream {8 * len(huffman_encode(symbols)) / len(symbols):.3f}, "
          f"packed {width}")
    if name.startswith("fc1"):
        drawn[name] = ((counts / len(symbols)).tolist(), lengths)
figures.word_lengths(drawn);

# %% [markdown]
# The mean length of Huffman's words is never below $H$, and always below $H + 1$; here it is much nearer to $H$. In a small layer the
# table of lengths eats the gain: the stream of `fc3`'s indices is longer than the packed array (the library then leaves it packed).
# Now the riddle of section 1, why 8 bits for a gap:

# %%
pruned = [code.decode() for code in codes.values()]
for index_bits in range(3, 9):
    gap_codes = [GapSparseCode.from_dense(weight, index_bits=index_bits) for weight in pruned]
    streams = [huffman_encode(unpack_bits(code.gaps, index_bits, code.entries)) for code in gap_codes]
    print(f"gaps of {index_bits} bits: packed {sum(len(code.gaps) for code in gap_codes):6,} bytes, Huffman-coded {sum(map(len, streams)):6,}")

# %% [markdown]
# Packed, a wide code wastes bits on every gap, and 5 bits are best. With Huffman's code it wastes next to nothing: a gap that does
# not occur costs no bit, and there are hardly any escapes, so 7 or 8 bits are best. Choose the stages *together*: what is best for
# the packed file is not best for the coded one.
#
# ### Fewer levels, smaller file?
#
# The same question for the values. K-means puts its levels where the weights are, so it makes the least error for a given *number of
# levels*. But with Huffman's code behind it a file does not pay for levels. It pays for surprise.
#
# {{exercise 7.4}}
#
# Write `uniform_rate` for an endless uniform grid, $q_i = \operatorname{round}(w_i / \Delta)$ with step $\Delta$: how many bits per weight its whole
# numbers take (their entropy; use your function), and the mean squared error $\frac1n \sum_i (w_i - \Delta q_i)^2$.

# %%
def uniform_rate(weights, step):
    """(bits, error): the entropy of the whole numbers, in bits per weight, and the mean squared error."""
    ### BEGIN SOLUTION
    q = torch.round(weights / step)
    error = (weights - step * q).square().mean()
    return entropy(q.long()), float(error)
    ### END SOLUTION

# %%
uniform_rate = check("7.4", uniform_rate)

# %% [markdown]
# The largest layer, dense, and 16 levels by k-means. We look for the coarsest uniform grid that makes no larger error. Its steps are
# equal, so it needs more levels to reach the largest weights.
#
# {{prediction 7.p2}}

# %%
### BEGIN SOLUTION
p2 = (20, 60)
### END SOLUTION

# %%
p2 = predict("7.p2", p2)

# %%
from compresslab.core import kmeans_1d

def coarsest_step(weight, error):
    """The largest step with at most this mean squared error, by bisection."""
    low, high = 0.0, 4 * weight.abs().max().item()
    for _ in range(30):
        step = (low + high) / 2
        low, high = (step, high) if uniform_rate(weight, step)[1] <= error else (low, step)
    return low

rivals = {}
for name, weight in weights.items():
    book, indices = kmeans_1d(weight, 16)
    error = (book[indices].view_as(weight) - weight).square().mean().item()
    step = coarsest_step(weight, error)
    levels = torch.round(weight / step).unique() * step
    rivals[name] = (book, levels, step)
    print(f"{name}: k-means 16 levels, 4 bits, coded at least {entropy(indices):.2f}; "
          f"uniform {len(levels):2} levels, at least {uniform_rate(weight, step)[0]:.2f} bits, error {uniform_rate(weight, step)[1] / error:.1%} of k-means'")
figures.level_sets(weights["fc1"], {"k-means": rivals["fc1"][0].tolist(), "uniform": rivals["fc1"][1].tolist()})
reveal("7.p2", len(rivals["fc1"][1]));

# %% [markdown]
# In the two large layers: more levels, the same error, fewer bits. (In `fc3`, a thousand weights, it is a tie.) Is that so in a file?
# Both networks, written and Huffman-coded:

# %%
from compresslab.core import CodebookCode, Grid, UniformCode

def uniform_code(weight, step):
    """A weight on the grid of this step, in as many bits as its largest whole number needs."""
    q = torch.round(weight / step).long()
    top = 2 ** max(1, int(q.abs().max()).bit_length()) - 1
    return UniformCode.from_rows(q.view(1, -1), Grid(torch.tensor([[step]]), torch.zeros(1, 1, dtype=torch.int32), -top, top), weight.shape)

files = {"k-means, 16 levels": encode(lenet, partial(CodebookCode.from_dense, bits=4)),
         "uniform": encode(lenet, {name: partial(uniform_code, step=step) for name, (_, _, step) in rivals.items()})}
for name, model in files.items():
    print(f"{name:19} packed {file_size(model):7,} bytes, Huffman-coded {file_size(model, entropy=True):7,}, {accuracy(model, judges):.1%} right")

# %% [markdown]
# Packed, k-means wins clearly; Huffman-coded, the uniform grid does. For independent numbers and fine steps nothing simple beats a
# uniform grid with an entropy code: it stays 1.53 dB from Shannon's bound, whatever the distribution (Gish and Pierce, 1968; chapter 02).
#
# {{question 7.q2}}

# %%
### BEGIN SOLUTION
q2 = "a"
### END SOLUTION

# %%
q2 = answer("7.q2", q2)

# %% [markdown]
# ## 3 Train what is stored
#
# Sharing follows pruning. What if k-means simply gets the pruned layer as it is, zeros included, and then all shared values are
# tuned, as stage 3 says?

# %%
layer = torch.zeros_like(largest)
layer[order[:len(order) // 10]] = largest[order[:len(order) // 10]]                  # the largest layer, a tenth left
book, indices = kmeans_1d(layer, 16)
home = int(book.abs().argmin())
shared = nn.Parameter(book.clone())
logits = torch.func.functional_call(lenet, {"fc1.weight": shared[indices].view_as(weights["fc1"])}, (few.x(slice(0, 500)),))
F.cross_entropy(logits, few.y[:500]).backward()
tuned = book - 0.0005 * shared.grad.sign()                                           # the first step of Adam
print(f"the cluster nearest to zero has {int((indices == home).sum()):,} of {len(layer):,} weights and the value {book[home]:.1e}")
for name, values in (("before", book), ("after", tuned)):
    print(f"{name:6} the first step of tuning: {(values[indices] == 0).double().mean():.1%} of the layer is zero")

# %% [markdown]
# Zeros are a cluster like any other, so its value learns like any other: after one step nothing is pruned any more, and nine tenths of
# the layer move together. So the library clusters only what is left, and keeps the **mask** apart from the code book.
#
# Deep Compression decides twice for good: who is pruned, and who shares with whom. **CLIP-Q** (Tung and Mori, CVPR 2018) decides again
# in *every step* of training. It keeps a **master copy** of the weights in full precision. In a step, the network sees the master
#
# 1. **clipped**: the fraction $p$ of smallest size is 0 (of $n$ weights exactly $\operatorname{round}(p\,n)$, of equal sizes any);
# 2. **partitioned**: the range of what is left, from its smallest to its largest value, is cut into $2^b - 1$ intervals of equal width;
# 3. **quantized**: each weight that is left is shown as the mean of all that are left in its interval.
#
# With the zero that makes $2^b$ values. The gradient goes straight through to the master (chapter 02), and the next step starts afresh.
#
# {{exercise 7.5}}
#
# Write `clip_partition` for a weight of any shape. If nothing is left, all is 0; if all that is left is equal, it is one interval.

# %%
def clip_partition(weight, fraction, bits):
    """The weight as the network sees it in this step: a new tensor of the same shape."""
    ### BEGIN SOLUTION
    w = weight.flatten()
    kept = torch.ones(len(w), dtype=torch.bool)
    kept[w.abs().argsort(stable=True)[:round(fraction * len(w))]] = False
    left, shown = w[kept], torch.zeros_like(w)
    if len(left):
        edges = torch.linspace(left.min(), left.max(), 2**bits)
        interval = torch.bucketize(left, edges[1:-1])
        sums = torch.zeros(2**bits - 1).index_add(0, interval, left)
        shown[kept] = (sums / interval.bincount(minlength=2**bits - 1))[interval]
    return shown.view_as(weight)
    ### END SOLUTION

# %%
clip_partition = check("7.5", clip_partition)

# %% [markdown]
# **See** a corner of the last layer: the master, and what the network sees of it with $p = \frac12$, $b = 2$. (The middle one of the
# three intervals is empty: all that lies in it has been clipped.)

# %%
corner = weights["fc3"][:4, :6]
figure, axes = plt.subplots(1, 2, figsize=(9.6, 2.5))
plots.tensor(axes[0], corner.round(decimals=2), "the master")
plots.tensor(axes[1], clip_partition(corner, 0.5, 2).round(decimals=2), "in this step");

# %% [markdown]
# **Apply** it to the whole network, $p = 0.9$, $b = 4$, and train for a moment. Who is pruned at the end, who at the beginning?

# %%
class ClipAndPartition(nn.Module):
    """Shows a weight clipped and partitioned; the gradient passes as if nothing had happened."""

    def forward(self, weight):
        return weight + (clip_partition(weight.detach(), 0.9, 4) - weight).detach()

clipped = copy.deepcopy(lenet)
for part in named_layers(clipped).values():
    parametrize.register_parametrization(part, "weight", ClipAndPartition())
first = {name: part.weight != 0 for name, part in named_layers(clipped).items()}
trained = train(clipped, few.take(len(few) // 2), epochs=2, lr=0.002, optimizer=torch.optim.Adam, progress=False)
last = {name: part.weight != 0 for name, part in named_layers(trained).items()}
back, kept = sum(int((last[name] & ~first[name]).sum()) for name in first), sum(int(mask.sum()) for mask in first.values())
print(f"{accuracy(clipped, judges):.1%} right before training, {accuracy(trained, judges):.1%} after")
print(f"{kept:,} weights are left at either time; {back:,} of those at the end ({back / kept:.0%}) had been pruned at the beginning")
figures.returned(first["fc2"][:10, :50], last["fc2"][:10, :50], "a corner of the second layer");

# %% [markdown]
# Training has changed a fifth of the first choice; with a mask that is final it could not. The price is the master copy and a sort in
# every step. (The library's `ClipQ` in `compresslab.hybrid` is the same and writes the file.)
#
# {{question 7.q3}}

# %%
### BEGIN SOLUTION
q3 = "d"
### END SOLUTION

# %%
q3 = answer("7.q3", q3)

# %% [markdown]
# ## 4 Levels that learn, a teacher that watches
#
# Polino, Pascanu and Alistarh (ICLR 2018) let quantization and distillation meet, in two ways. **Quantized distillation** trains the
# weights of a quantized student on the **soft answers** of a teacher (its probabilities, where the label names one class): the
# straight-through training of chapter 02 with the loss of chapter 04. **Differentiable quantization** turns it round: which weight
# has which level is fixed, and the *levels* are trained.
#
# Weights of different size may use the same levels if each **bucket**, a run of consecutive weights, has a scale $\alpha$ and a shift
# $\beta$ of its own. Weight $i$ with level number $k_i$ is shown as
#
# $$ Q(v)_i = \alpha_i\, p_{k_i} + \beta_i, \qquad\text{so}\qquad \frac{\partial L}{\partial p_j} = \sum_i \alpha_i\, \frac{\partial L}{\partial Q_i}\, [\,k_i = j\,], $$
#
# where $\alpha_i$ is the scale of the bucket that weight $i$ is in, and $[k_i = j]$ is 1 where this holds, else 0. No rounding is differentiated: the levels are ordinary parameters.
#
# {{exercise 7.6}}
#
# Write `point_gradient`. All weights are one flat sequence; the buckets are equally long, and `scales` holds one number for each. `points`
# says how many levels there are; all buckets share them.

# %%
def point_gradient(gradient, indices, scales, points):
    """(points,): the gradient of each level; gradient and indices are flat, scales holds one number for each bucket."""
    ### BEGIN SOLUTION
    alpha = scales.repeat_interleave(len(gradient) // len(scales))
    total = torch.zeros(points)
    return total.index_add(0, indices, alpha * gradient)
    ### END SOLUTION

# %%
point_gradient = check("7.6", point_gradient)

# %% [markdown]
# **Apply** it. A bucket is a row of the weight, the levels start evenly spaced, and *only they* are trained: a few numbers in each layer.
# Your function is the backward pass. The teacher is the dense network itself.

# %%
class Shown(torch.autograd.Function):
    """Forward: levels looked up, scaled and shifted. Backward: your gradient of the levels."""

    @staticmethod
    def forward(ctx, points, indices, scales, shifts):
        ctx.save_for_backward(indices, scales)
        ctx.points = len(points)
        return points[indices] * scales[:, None] + shifts[:, None]

    @staticmethod
    def backward(ctx, gradient):
        indices, scales = ctx.saved_tensors
        return point_gradient(gradient.flatten(), indices.flatten(), scales, ctx.points), None, None, None

class LearnedLevels(nn.Module):
    """Shows a weight at `levels` trainable points; a bucket is a row."""

    def __init__(self, weight, levels):
        super().__init__()
        self.shifts, self.scales = weight.amin(1), weight.amax(1) - weight.amin(1)
        self.indices = ((weight - self.shifts[:, None]) / self.scales[:, None] * (levels - 1)).round().long()
        self.points = nn.Parameter(torch.linspace(0, 1, levels))

    def forward(self, weight):
        return Shown.apply(self.points, self.indices, self.scales, self.shifts)

def with_levels(levels):
    """LeNet-300-100 at so many levels in each layer; nothing but the levels can be trained."""
    model = copy.deepcopy(lenet).requires_grad_(False)
    for part in named_layers(model).values():
        parametrize.register_parametrization(part, "weight", LearnedLevels(part.weight.detach(), levels))
    return model

def soft_loss(model, x, y, temperature=3.0):
    """0.7 of the teacher's soft answers, 0.3 of the labels (chapter 04)."""
    with torch.no_grad():
        wanted = F.softmax(lenet(x) / temperature, dim=1)
    logits = model(x)
    soft = F.kl_div(F.log_softmax(logits / temperature, dim=1), wanted, reduction="batchmean")
    return 0.7 * temperature**2 * soft + 0.3 * F.cross_entropy(logits, y)

for levels in (3, 4):
    model = with_levels(levels)
    found = {name: train(model, few, epochs=2, lr=0.01, optimizer=torch.optim.Adam, loss=loss, progress=False)
             for name, loss in (("labels", None), ("teacher", soft_loss))}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{levels} levels, {trained:2} numbers trained: {accuracy(model, judges):.1%} right at first, "
          + ", ".join(f"{accuracy(network, judges):.1%} by the {name}" for name, network in found.items()))
points = found["teacher"].fc1.parametrizations.weight[0].points
print("levels of the first layer at the end:", [round(p, 2) for p in points.tolist()])

# %% [markdown]
# A dozen numbers of more than a quarter of a million, and with four levels about half of the loss is repaired. Where the network is
# badly broken (three levels), the teacher's soft answers repair more than the labels do; where little is missing, the two do about
# equally well. One seed, a short training: a hint, not a law. (Distilling into a *smaller* student as well is
# `compact_distil_quantize` in the library.)

# %% [markdown]
# ## 5 Project, then pull
#
# Pruning, clustering, few levels, low rank: each says that the weights shall lie in a **set** $S$. The **projection** onto a set,
# $\Pi_S(w) = \arg\min_{z \in S} \|z - w\|^2$, is the nearest point in it. You know four: keep the $k$ largest (chapter 01), round to given levels, ternary
# (02), the truncated SVD (05: $U_r\,\mathrm{diag}(s_r)\,V_r^\top$ of the $r$ largest singular values is the nearest matrix of rank $r$).
#
# A hybrid asks for a point in *two* sets, say at most $k$ nonzeros, each of them one of a few levels. Project
# onto the one, then onto the other? That ends in both sets, but in general not at the nearest point.
#
# Suppose weight $w_i$ is kept. Then it becomes its nearest level $l_i$, and compared with a zero, the squared distance shrinks by
# $w_i^2 - (w_i - l_i)^2$.
#
# {{exercise 7.7}}
#
# Write `project_sparse_levels`: the nearest weight with at most $k$ nonzeros, each one of `levels`. (Zero need not be among them. A kept weight
# may also be a loss: "at most".)

# %%
def project_sparse_levels(weight, levels, k):
    """The nearest weight of the same shape with at most k nonzeros, each of them one of levels (m,)."""
    ### BEGIN SOLUTION
    flat = weight.flatten()
    nearest = levels[(flat[:, None] - levels).abs().argmin(1)]
    gain = flat.square() - (flat - nearest).square()
    kept = gain.argsort(descending=True)[:k]
    kept = kept[gain[kept] > 0]
    return torch.zeros_like(flat).index_copy(0, kept, nearest[kept]).view_as(weight)
    ### END SOLUTION

# %%
project_sparse_levels = check("7.7", project_sparse_levels)

# %%
row, uneven = torch.tensor([[2.6, -2.4, 1.4, -0.9, 0.3]]), torch.tensor([-0.4, 1.5])
cut = row * (row.abs() >= 2.4)
both = {"w": row, "the 2 largest, then the nearest level": torch.where(cut != 0, project_sparse_levels(cut, uneven, 5), 0.0),
        "the nearest of both": project_sparse_levels(row, uneven, 2)}
figure, axes = plt.subplots(1, 3, figsize=(11, 1.3))
for ax, (name, values) in zip(axes, both.items()):
    plots.tensor(ax, values, name)
    print(f"{name:38} {(values - row).square().sum():6.2f} away")

# %% [markdown]
# Pruning takes the two largest weights. But for $-2.4$ the nearest level is $-0.4$, and keeping it gains $2.4^2 - 2.0^2 = 1.76$; keeping
# $1.4$ at the level $1.5$ gains $1.4^2 - 0.1^2 = 1.95$. (With levels that are symmetric about zero, the largest weights *do* gain most.
# K-means' levels are not.)
#
# **Apply.** `lenet300`, in whose layer `fc1` a tenth of the weights may stay, in `fc2` a fifth, on four levels each:

# %%
from compresslab.core import kmeans_1d

def made_for(layer, fraction):
    """The projection onto `fraction` of the weights on four levels: those of k-means over the largest."""
    weight = layer.weight.detach().flatten()
    k = round(fraction * len(weight))
    levels, _ = kmeans_1d(weight[weight.abs().argsort(descending=True)[:k]], 4)
    return partial(project_sparse_levels, levels=levels, k=k)

projections = {"fc1": made_for(lenet.fc1, 0.1), "fc2": made_for(lenet.fc2, 0.2)}
once = copy.deepcopy(lenet)
for name, project in projections.items():
    once.get_submodule(name).weight.data = project(once.get_submodule(name).weight.data)
print(f"dense {accuracy(lenet, judges):.1%} right; projected {accuracy(once, judges):.1%}")

# %% [markdown]
# The nearest point of the set is not the *best* one: nobody asked the loss. **ADMM** (the alternating direction method of multipliers;
# for networks Zhang et al., ECCV 2018) asks both. It keeps two copies of the weights: $w$, which the loss moves, and $z$, which stays in
# $S$; and a third vector $u$ that makes them agree. One step is three lines, for a loss $f$ and a number $\rho > 0$:
#
# $$ w \leftarrow \arg\min_w f(w) + \tfrac{\rho}{2} \|w - z + u\|^2, \qquad z \leftarrow \Pi_S(w + u), \qquad u \leftarrow u + w - z . $$
#
# $u$ is the **dual variable** (scaled; $\rho u$ is a Lagrange multiplier). For a network the first line is a little training. To see
# what the three lines do, take a loss that can be minimised by hand, $f(w) = \frac12 w^\top A w - b^\top w$.
#
# {{exercise 7.8}}
#
# Write `admm`: set the derivative of the first line to zero, and start from $z = u = 0$.

# %%
def admm(A, b, project, rho, steps):
    """(z, gaps): z (n,) after `steps` steps, and the list of |w - z| after each; A (n, n) symmetric, b (n,), project: w -> z."""
    ### BEGIN SOLUTION
    z = u = torch.zeros_like(b)
    gaps = []
    for _ in range(steps):
        w = torch.linalg.solve(A + rho * torch.eye(len(b), dtype=A.dtype), b + rho * (z - u))
        z = project(w + u)
        u = u + w - z
        gaps.append((w - z).norm().item())
    return z, gaps
    ### END SOLUTION

# %%
admm = check("7.8", admm)

# %% [markdown]
# **See.** A bowl in the plane, and a disc as the set: a **convex** one (with two points it holds all between them), for which ADMM is known to find the best
# point. Beside it, the same without the third line: a penalty, as it is often coded.

# %%
def disc(w):
    """The nearest point of length 1 at most."""
    return w / w.norm().clamp(min=1)

def penalty(A, b, project, rho, steps):
    """ADMM with the dual step forgotten."""
    z, gaps = torch.zeros_like(b), []
    for _ in range(steps):
        w = torch.linalg.solve(A + rho * torch.eye(len(b), dtype=A.dtype), b + rho * z)
        z = project(w)
        gaps.append((w - z).norm().item())
    return z, gaps

bowl, push = torch.tensor([[1.0, 0.8], [0.8, 2.0]], dtype=torch.float64), torch.tensor([2.4, 2.2], dtype=torch.float64)
ways = {"ADMM": admm, "no dual step": penalty, "projected once": lambda A, b, project, rho, steps: (project(torch.linalg.solve(A, b)), [])}
visited = {name: [way(bowl, push, disc, 0.5, steps)[0].tolist() for steps in ((1,) if name == "projected once" else range(1, 25))] for name, way in ways.items()}
figures_orders.paths(bowl, push, visited)
for name, way in ways.items():
    z, gaps = way(bowl, push, disc, 0.5, 400)
    print(f"{name:15} ends at ({z[0]:.3f}, {z[1]:.3f}), loss {0.5 * z @ bowl @ z - push @ z:.4f}" + (f", gap between w and z {gaps[-1]:.1e}" if gaps else ""))
figures_orders.lines({"ADMM": admm(bowl, push, disc, 0.5, 30)[1], "no dual step": penalty(bowl, push, disc, 0.5, 30)[1]}, "step", "|w - z|", logy=True);

# %% [markdown]
# {{question 7.q4}}

# %%
### BEGIN SOLUTION
q4 = "b"
### END SOLUTION

# %%
q4 = answer("7.q4", q4)

# %% [markdown]
# Sparse weights are *not* a convex set, and nothing is promised. Then one can count. Below are problems with 10 correlated weights of
# which 4 may stay. There are 210 **supports** (choices of the four), all of which we try. Which method names the best one?
#
# {{prediction 7.p3}}

# %%
### BEGIN SOLUTION
p3 = (40, 80)
### END SOLUTION

# %%
p3 = predict("7.p3", p3)

# %%
from itertools import combinations

def four_left(w):
    """The nearest point with four nonzeros."""
    kept = w.abs().argsort(descending=True)[:4]
    return torch.zeros_like(w).index_copy(0, kept, w[kept])

supports = torch.tensor(list(combinations(range(10), 4)))                                            # (210, 4)

def best_loss(A, b, supports):
    """The smallest loss with weights on one of these supports only."""
    inner, outer = A[supports[:, :, None], supports[:, None, :]], b[supports]
    return -0.5 * (outer * torch.linalg.solve(inner, outer)).sum(-1).max().item()

draw = torch.Generator().manual_seed(0)
problems = []
for _ in range(20 if quick() else 100):
    X = torch.randn(40, 10, generator=draw, dtype=torch.float64) + torch.randn(40, 1, generator=draw, dtype=torch.float64)
    problems.append((X.T @ X / 40, X.T @ X / 40 @ torch.randn(10, generator=draw, dtype=torch.float64)))

def times_best(method):
    """In how many of 100 problems a method names the best support."""
    hits = 0
    for A, b in problems:
        support = method(A, b).nonzero().flatten()[None]
        hits += best_loss(A, b, support) <= best_loss(A, b, supports) + 1e-9
    return 100 * hits / len(problems)

rhos = (0.3, 1.0, 3.0, 10.0)
found = {rho: times_best(lambda A, b: admm(A, b, four_left, rho, 25)[0]) for rho in rhos}
projected = times_best(lambda A, b: four_left(torch.linalg.solve(A, b)))
print(f"projected once: best in {projected:.0f} of 100;", ", ".join(f"ADMM, rho = {rho:g}: {hits:.0f}" for rho, hits in found.items()))
figures_orders.lines({"ADMM": list(found.values()), "projected once": [projected] * len(rhos)}, "rho", "best support found (of 100)", x=rhos, logx=True)
reveal("7.p3", max(found.values()));

# %% [markdown]
# ADMM looks further than the projection, and is no oracle. $\rho$ decides: too small, and $z$ jumps from support to support; too large,
# and it never leaves the first one. On the scale of the eigenvalues of $A$ is where to begin. (The **learning-compression**
# algorithm, Carreira-Perpiñán 2018, starts small and lets $\rho$ grow.)
#
# **Apply.** The library does the same with a network: the first line is some training, and the projection is *any* function you like,
# such as yours.

# %%
from compresslab.hybrid.admm import admm as admm_network

networks = {"projected once": once}
for name, dual in {"no dual step": False, "ADMM": True}.items():
    networks[name] = admm_network(lenet, few.take(1000 if quick() else 2000), projections, rho=0.1, outer=2 if quick() else 4, epochs=1, lr=0.05, dual=dual, seed=0, progress=False)
for name, model in networks.items():
    left, values = (model.fc1.weight != 0).double().mean(), model.fc1.weight.unique().numel()
    print(f"{name:15} {accuracy(model, judges):.1%} right; fc1: {left:.1%} of the weights left, {values} different values, zero among them")

# %% [markdown]
# ## 6 Low rank plus sparse
#
# Two structures can also be *added*. $M \approx L + S$, with $L$ of low rank and $S$ with few nonzeros: a smooth background and a few
# things that stand out. (Candès et al., *Robust Principal Component Analysis*, JACM 2011; for networks Yu et al., CVPR 2017.) No formula
# gives the best pair, but given one of them the other is a projection.
#
# {{exercise 7.9}}
#
# Write `low_rank_plus_sparse`: from $S = 0$, `steps` times the best $L$ given $S$, then the best $S$ given $L$.

# %%
def low_rank_plus_sparse(matrix, rank, nonzeros, steps):
    """(L, S), both in the matrix's shape: rank(L) <= rank, at most `nonzeros` entries of S are not 0."""
    ### BEGIN SOLUTION
    sparse = torch.zeros_like(matrix)
    for _ in range(steps):
        U, s, Vh = torch.linalg.svd(matrix - sparse, full_matrices=False)
        low = (U[:, :rank] * s[:rank]) @ Vh[:rank]
        rest = (matrix - low).flatten()
        kept = rest.abs().argsort(descending=True)[:nonzeros]
        sparse = torch.zeros_like(rest).index_copy(0, kept, rest[kept]).view_as(matrix)
    return low, sparse
    ### END SOLUTION

# %%
low_rank_plus_sparse = check("7.9", low_rank_plus_sparse)

# %%
smooth = torch.randn(24, 2, generator=draw) @ torch.randn(2, 36, generator=draw)
spikes = 6 * torch.randn(24, 36, generator=draw).sign() * (torch.rand(24, 36, generator=draw) < 0.04)
planted, count = smooth + spikes, int((spikes != 0).sum())
L, S = low_rank_plus_sparse(planted, 2, count, 40)
figures_orders.matrices({"M": planted, "rank 2 alone": low_rank_plus_sparse(planted, 2, 0, 1)[0], "L": L, "S": S})

def left_over(matrix, rank, nonzeros, steps):
    """|M - L - S| / |M|."""
    return ((matrix - sum(low_rank_plus_sparse(matrix, rank, nonzeros, steps))).norm() / matrix.norm()).item()

fc2 = lenet.fc2.weight.detach()
turns = range(1, 13)
figures_orders.lines({f"planted: rank 2 and {count} entries": [left_over(planted, 2, count, steps) for steps in turns],
                      "fc2: rank 20 and 2,000 entries": [left_over(fc2, 20, 2000, steps) for steps in turns]}, "steps", "|M - L - S| / |M|", logy=True);

# %% [markdown]
# The planted sum is found, entry by entry. And a trained layer? The same number of bytes for each: a factor costs 32 bits a
# number, a nonzero 32 and about 5 for its gap.

# %%
print(f"fc2 of lenet300, {tuple(fc2.shape)}, {4 * fc2.numel():,} bytes dense; not trained further")
for numbers, ranks in ((12_000, (0, 5, 10, 15, 20, 30)), (3_000, (0, 1, 3, 5, 7))):
    for rank in ranks:
        nonzeros = int((numbers - rank * sum(fc2.shape)) * 32 / 37)
        changed, parts = copy.deepcopy(lenet), low_rank_plus_sparse(fc2, rank, nonzeros, 8)
        changed.fc2.weight.data = sum(parts)
        print(f"{4 * numbers:6,} bytes, rank {rank:2} + {nonzeros:6,} nonzeros: {(fc2 - sum(parts)).norm() / fc2.norm():6.1%} left over, {accuracy(changed, judges):.2%} right")

# %% [markdown]
# {{question 7.q5}}

# %%
### BEGIN SOLUTION
q5 = "a"
### END SOLUTION

# %%
q5 = answer("7.q5", q5)

# %% [markdown]
# Now compare the last two columns, in the second half of the table above all. Nearer weights do not always give better answers: you
# know this from chapter 05, where the closest weights did not give the closest outputs. What decides is the loss, after training. (The
# library's `hybrid.low_rank_plus_sparse` returns the factors, ready for a layer.)
#
# ## 7 When order matters
#
# Four operations on one network: **prune** (magnitude, 80 % of every layer), **quantize** (a code book of 16 values), **decompose**
# (SVD, to half of the parameters), **distil** (train on the dense network's soft answers). After each, the network trains for a few
# passes. Each works on what the earlier ones left, and keeps what it *can* keep: masks and code books hold while training goes on. At
# the end, the file stores whatever structure is left. There are $4! = 24$ orders.
#
# {{prediction 7.p4}}

# %%
### BEGIN SOLUTION
p4 = (1.5, 40)
### END SOLUTION

# %%
p4 = predict("7.p4", p4)

# %%
from compresslab.hybrid.orders import OPERATIONS, OrderSettings, finish, run_order

for order in (("prune", "quantize", "decompose", "distil"), ("decompose", "distil", "prune", "quantize")):
    model, left = run_order(lenet, order, few, teacher=lenet, settings=OrderSettings(epochs=1))
    print(f"{' > '.join(order)}\n   left after each: {' > '.join(left)}\n   {file_size(finish(model), entropy=True):,} bytes of {dense_bytes:,}, {accuracy(model, judges):.1%} right")

# %% [markdown]
# And all of them, several seeds each, trained longer:

# %%
order_rows = figures_orders.rows_of(evidence, "order")
figures_orders.orders(order_rows)
print(figures_orders.orders_table(order_rows))
reveal("7.p4", figures_orders.size_spread(order_rows));

# %% [markdown]
# {{question 7.q6}}

# %%
### BEGIN SOLUTION
q6 = "c"
### END SOLUTION

# %%
q6 = answer("7.q6", q6)

# %% [markdown]
# The bytes are clear: decomposing loses whatever zeros and code book there were. One group of accuracies is clear, too, the four
# orders near 91 %: they prune weights that stand at 16 values of a code book, and among equal weights size cannot choose. The others
# are closer together, and there "this order is better" needs more than two numbers.
#
# Ask it of one pair of operations at a time. Take an order in which `first` stands *directly* before `second`, and its partner, the
# same order with these two swapped; same seed. The accuracy of the order minus that of its partner is one **gain**. With four
# operations there are six such orders (the **contexts**), so six gains for each seed. Those of one seed share its chance, for instance the order of the
# images: they are not six independent experiments. So: the mean of the gains of each seed first, one number for a seed; then the mean
# of these, with its $t$ interval over the seeds: `mean_interval(numbers)` returns (mean, low, high).
#
# {{exercise 7.10}}
#
# Write `order_effect`. A row is `{"order": ["prune", "quantize", ...], "seed": 0, "accuracy": 0.95}`: its order is a
# *list* of names. The rows come in any order and hold every order of their operations (two, three, four, ...) with every seed.

# %%
def order_effect(rows, first, second):
    """(mean, low, high): what it gains to do `first` directly before `second`; rows: dicts with "order", "seed", "accuracy"."""
    ### BEGIN SOLUTION
    accuracy = {(tuple(row["order"]), row["seed"]): row["accuracy"] for row in rows}
    by_seed = {}
    for (order, seed), value in accuracy.items():
        for i in range(len(order) - 1):
            if order[i:i + 2] == (first, second):
                swapped = (*order[:i], second, first, *order[i + 2:])
                by_seed.setdefault(seed, []).append(value - accuracy[swapped, seed])
    return mean_interval([sum(gains) / len(gains) for gains in by_seed.values()])
    ### END SOLUTION

# %%
order_effect = check("7.10", order_effect)

# %%
effects = {(a, b): order_effect(order_rows, a, b) for a in OPERATIONS for b in OPERATIONS if a != b}
print(figures_orders.effects_table(effects))
figures_orders.effects(OPERATIONS, effects);

# %% [markdown]
# Read a row: what it gains to do this operation directly before that one. Where the interval holds 0, this experiment cannot tell; that is not
# the same as "they commute". And keep the two questions apart: an order can cost nothing in accuracy and everything in bytes.
#
# ## 8 One budget for everything
#
# How sparse, and how many bits? So far one answer for all layers. But layers differ, and the two settings trade with each other. With
# $L$ layers and $m$ settings each there are $m^L$ networks, and one budget, in bytes of the *file*. First, what each setting costs and
# harms, measured and not computed by a formula:

# %%
from compresslab.hybrid.joint_options import layer_options, option_bytes, settings_bytes, settings_error
from compresslab.hybrid.joint_search import allocate, uniform_settings

options = layer_options(lenet, judges.take(500), sparsities=(0.6, 0.8) if quick() else (0.5, 0.7, 0.8, 0.9), bits=(2, 4))
for layer, row in options.items():
    print(layer, "  ".join(f"{sparsity:.0%}, {bits} bits: {option.bytes:,} B, loss {option.error:+.3f}" for (sparsity, bits), option in list(row.items())[::3]))

# %% [markdown]
# A search proposes settings, layer after layer; a proposal for one layer is called an **action** $a$.
# How does it keep a budget $B$? One can punish networks that break it, and throw them away. AMC (He et al., ECCV 2018) has a
# rule that makes it impossible: when it is layer $l$'s turn, it may spend what is left if all *later* layers are compressed as much as they can be,
#
# $$ \text{bytes}_l(a) \;\le\; B - \text{spent} - \sum_{l' > l} \min_{a'} \text{bytes}_{l'}(a') , $$
#
# and an action that wants more is **clipped**.
#
# {{exercise 7.11}}
#
# Write `clip_action`. `costs[l][a]` are the bytes of layer $l$ with setting number $a$, in no particular order. An action that keeps the rule is returned as it
# is; otherwise the number of the *dearest* setting of this layer that keeps it. If none does, raise a `ValueError` that says the smallest budget that can be
# met: what is spent, and the cheapest from this layer on.

# %%
def clip_action(layer, action, costs, spent, budget):
    """The number of the setting that layer `layer` gets; costs: a list of numbers for each layer, spent: bytes of the layers before."""
    ### BEGIN SOLUTION
    later = sum(min(row) for row in costs[layer + 1:])
    room = budget - spent - later
    fits = [a for a, cost in enumerate(costs[layer]) if cost <= room]
    if not fits:
        raise ValueError(f"{budget} bytes are too few: the smallest budget that can be met is {spent + min(costs[layer]) + later}")
    return action if action in fits else max(fits, key=lambda a: costs[layer][a])
    ### END SOLUTION

# %%
clip_action = check("7.11", clip_action)

# %%
names, settings = list(options), [list(row) for row in options.values()]
costs = [list(row.values()) for row in option_bytes(options).values()]
budget = int(1.4 * sum(min(row) for row in costs))

def random_walk(generator):
    """Random actions, clipped: {layer: setting}."""
    spent, chosen = 0, {}
    for layer, row in enumerate(costs):
        action = clip_action(layer, int(torch.randint(len(row), (), generator=generator)), costs, spent, budget)
        spent, chosen[names[layer]] = spent + row[action], settings[layer][action]
    return chosen

walks = [random_walk(draw) for _ in range(200)]
spent = [settings_bytes(options, walk) for walk in walks]
print(f"budget {budget:,} bytes; 200 random walks spend {min(spent):,} to {max(spent):,}")
for name, chosen in {"best of the walks": min(walks, key=lambda walk: settings_error(options, walk)), "best uniform": uniform_settings(options, budget),
                     "integer program": allocate(options, budget)}.items():
    shown = ", ".join(f"{layer} {sparsity:.0%} {bits} bits" for layer, (sparsity, bits) in chosen.items())
    print(f"{name:18}{settings_bytes(options, chosen):8,} bytes, sum of the losses {settings_error(options, chosen):6.3f}: {shown}")
try:
    clip_action(0, 0, costs, 0, 1000)
except ValueError as error:
    print("1,000 bytes?", error)

# %% [markdown]
# The **integer program** (an exact solver: of all choices under the budget, the least sum) knows only the *sum* of what single layers
# lose. With three layers and eight settings there are 512 networks, and 200 random walks find the same one.
#
# **Evolution** (keep the best networks, change and mix their settings, try again) asks the whole, really compressed network instead,
# which takes longer. The figure below is for `resnet8` on `street_digits`: ten layers, twenty settings each, nothing trained
# afterwards.
#
# {{prediction 7.p5}}

# %%
### BEGIN SOLUTION
p5 = (0.3, 6)
### END SOLUTION

# %%
p5 = predict("7.p5", p5)

# %%
search_rows = figures_orders.rows_of(evidence, "search")
figures_orders.search(search_rows)
reveal("7.p5", figures_orders.best_gain(search_rows));

# %% [markdown]
# {{question 7.q7}}

# %%
### BEGIN SOLUTION
q7 = "b"
### END SOLUTION

# %%
q7 = answer("7.q7", q7)

# %% [markdown]
# APQ (Wang et al., CVPR 2020) searches architecture, pruning and bits together, and reports 2.3 points more on ImageNet than three searches one after
# the other.
#
# ## 9 A hybrid to debug
#
# {{exercise 7.12}}
#
# A colleague compresses a linear layer: prune, share what is left, tune the shared values under a teacher, keep the best step. It is a
# hybrid of three families in fifteen lines, and it runs:

# %%
def buggy_compress(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """(the weight as it is stored, its accuracy on the test images): pruned, then k shared values, tuned for `steps` steps."""
    def right(weight, x, y):
        return ((x @ weight.T).argmax(1) == y).double().mean().item()

    order = weight.abs().flatten().argsort(stable=True)
    pruned = weight.flatten().index_fill(0, order[:round(sparsity * weight.numel())], 0.0)
    values, labels = kmeans_1d(pruned, k)                                       # every weight points to one of k values
    with torch.no_grad():
        targets = teacher(images).softmax(1)
    best, found = -1.0, None
    for _ in range(steps + 1):                                                  # step 0: before any tuning
        decoded = values[labels].view_as(weight).requires_grad_()
        if right(decoded, *test) > best:
            best, found = right(decoded, *test), decoded.detach()
        gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)
        total = torch.zeros(k).index_add(0, labels, gradient.flatten())
        values = values - lr * total / torch.bincount(labels, minlength=k).clamp(min=1)
    return found, best

pixels = {name: (split.x().flatten(1), split.y) for name, split in {"lessons": few.take(1000), "validation": judges.take(500), "test": ink.test.take(500)}.items()}
linear = train(nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)), few, epochs=1 if quick() else 3, lr=0.1, seed=0, progress=False)[1].weight.detach()
teacher = nn.Sequential(nn.Unflatten(1, (1, 28, 28)), nn.Dropout(0.5), copy.deepcopy(lenet)).train()        # as its training, with dropout, left it
job = (linear, teacher, pixels["lessons"][0], pixels["validation"], pixels["test"], 0.8, 8, 10 if quick() else 60, 0.1)
torch.manual_seed(0)
stored, praised = buggy_compress(*job)
print(f"the linear layer before: {((pixels['test'][0] @ linear.T).argmax(1) == pixels['test'][1]).double().mean():.1%} right; "
      f"buggy: {praised:.1%} right, {(stored == 0).double().mean():.1%} of the weights are zero, {stored.unique().numel()} different values")

# %% [markdown]
# "80 % pruned", but look at the zeros. There are four bugs in all: one lets go of what pruning won, one makes the teacher's answers
# differ from call to call, one slows the shared values down, and one cheats. Repair them: write `compress`. The `k` values are for the
# weights that are left, clustered by `kmeans_1d`; the zeros come on top. The caller's weight and teacher stay as they are.

# %%
def compress(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """As above, repaired: (the weight as it is stored, its accuracy on the test images)."""
    ### BEGIN SOLUTION
    def right(weight, x, y):
        return ((x @ weight.T).argmax(1) == y).double().mean().item()

    kept = weight.abs().flatten().argsort(stable=True)[round(sparsity * weight.numel()):]
    values, labels = kmeans_1d(weight.flatten()[kept], k)
    with torch.no_grad():
        targets = copy.deepcopy(teacher).eval()(images).softmax(1)
    best, found = -1.0, None
    for _ in range(steps + 1):
        decoded = torch.zeros(weight.numel()).index_copy(0, kept, values[labels]).view_as(weight).requires_grad_()
        if right(decoded, *validation) > best:
            best, found = right(decoded, *validation), decoded.detach()
        gradient, = torch.autograd.grad(F.cross_entropy(images @ decoded.T, targets), decoded)
        values = values.index_add(0, labels, gradient.flatten()[kept], alpha=-lr)
    return found, right(found, *test)
    ### END SOLUTION

# %%
compress = check("7.12", compress)

# %%
for name, function in {"buggy": buggy_compress, "repaired": compress}.items():
    torch.manual_seed(0)
    stored, told = function(*job)
    fresh = ((ink.test.x(slice(500, 2500)).flatten(1) @ stored.T).argmax(1) == ink.test.y[500:2500]).double().mean()
    print(f"{name:9} tells {told:.1%}, has {fresh:.1%} on 2,000 other images, with {int((stored != 0).sum()):,} weights that are not zero")

# %% [markdown]
# About the same accuracy with a fifth of the weights. But none of the four bugs raises an error, and only the lost zeros show in these
# numbers. The cheat does not: who chooses the best of 61 steps by the test images is told too much, but these 500 images happen to be
# harder than the 2,000 others, and that hides it. In a chain of techniques each link is tested by its own authors. You test the
# chain: *count* what the last link holds, and *read* where its numbers come from.
#
# ## 10 Your turn: as small as you can
#
# {{exercise 7.13}}
#
# `lenet300`, a file of about a megabyte. Make it **20,000 bytes** or less, and lose no more than **1 point** against the dense network on 4,000 fresh images
# (broken only if the 95 % interval of the paired difference lies beyond it). Pruning alone will not do, nor code books alone. Everything of this chapter is
# allowed, and of the six before it; choose on `judges`; save with `entropy=True`, and set `my_file` to the path. (The next cell imports the library's
# stages: `help(prune_gradually)` and its like tell what each takes.)

# %%
from compresslab.course import leaderboard
from compresslab.course.budget import submission_path
from compresslab.distillation import teacher_outputs
from compresslab.hybrid.deep_compression import gap_code, prune_gradually, share_weights, tune_centroids
from compresslab.hybrid.file_ledger import file_ledger

lessons = ink.train.take(1000 if quick() else 12_000)
taught = teacher_outputs(lenet, lessons)                               # what the dense network says of them, computed once
print(f"dense: {dense_bytes:,} bytes, {accuracy(lenet, judges):.2%} right; the budget is {dense_bytes / 20_000:.0f} times less")

# %%
### BEGIN SOLUTION
sparsity = {"fc1": 0.95, "fc2": 0.87, "fc3": 0.5}
pruned = prune_gradually(lenet, lessons, sparsity, epochs=2 if quick() else 5, teacher=taught)
shared = tune_centroids(share_weights(pruned, 3), lessons, epochs=1, teacher=taught)
save(gap_code(shared), submission_path("7.13"), entropy=True)
my_file = str(submission_path("7.13"))
### END SOLUTION

# %%
my_file = check("7.13", my_file)

# %% [markdown]
# How small can it get? That is a competition, and here is its board. A file is entered if it keeps the loss, whatever its size; the course's own entries carry a
# star. (To try: global against layer-wise sparsity, fewer bits for `fc1`, a smaller network from the start, a longer training.)

# %%
leaderboard.enter(my_file, "me")
leaderboard.show(dense_bytes)

# %%
where_it_goes = file_ledger(my_file)
print(", ".join(f"{part} {size:,}" for part, size in where_it_goes.items() if size))

# %% [markdown]
# ## 11 Your ledger
#
# Three rows: the dense network, the order that ended with the smaller file above, and your file; all Huffman-coded.

# %%
from compresslab.core.measure import format_rows

judged = ink.test.take(200 if quick() else 500)
rows = [measure(lenet, judged, name="LeNet-300", repeats=0, entropy=True), measure(finish(model), judged, name="LeNet-300, decomposed first", repeats=0, entropy=True),
        measure(load(my_file), judged, name="LeNet-300, hybrid", repeats=0, entropy=True)]
print(format_rows(rows))
for row, family in zip(rows, ("dense", "hybrid", "hybrid")):
    ledger.add(row, chapter="07", family=family)

# %%
ledger.pareto();

# %% [markdown]
# ## What was simplified
#
# - Han et al. prune in rounds and retrain for long; here sparsity rises while one training goes on, and the dense network teaches it.
# - Tung and Mori choose the clipped fraction and the bits of every layer by Bayesian optimisation; here they are given.
# - Polino et al. place the levels by the gradients of a whole training; here a short one shows the rule.
# - ADMM for networks runs hundreds of epochs with a $\rho$ that rises; here a few passes. The LC algorithm has convergence results for smooth losses that
#   a few passes do not reach.
# - AMC and HAQ *learn* their policy by reinforcement; here evolution and an integer program search the same space under the same rule.
# - The orders were run with one strength for each operation. Other strengths may put other pairs apart.
#
# ## Further reading
#
# - Han, Mao, Dally, *Deep Compression*, ICLR 2016.
# - Tung, Mori, *CLIP-Q: Deep Network Compression Learning by In-Parallel Pruning-Quantization*, CVPR 2018.
# - Polino, Pascanu, Alistarh, *Model Compression via Distillation and Quantization*, ICLR 2018.
# - Zhang et al., *A Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers*, ECCV 2018; Carreira-Perpiñán, Idelbayev,
#   *"Learning-Compression" Algorithms for Neural Net Pruning*, CVPR 2018.
# - Candès, Li, Ma, Wright, *Robust Principal Component Analysis?*, Journal of the ACM 2011; Yu, Liu, Wang, Tao, *On Compressing Deep Models by Low Rank and
#   Sparse Decomposition*, CVPR 2017.
# - He et al., *AMC: AutoML for Model Compression and Acceleration on Mobile Devices*, ECCV 2018; Wang et al., *HAQ: Hardware-Aware Automated Quantization
#   with Mixed Precision*, CVPR 2019; Wang et al., *APQ: Joint Search for Network Architecture, Pruning and Quantization Policy*, CVPR 2020.
#
# **Next:** chapter 08 puts all seven families on one table, under one ruler.

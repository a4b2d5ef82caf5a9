# %% [markdown]
# # Parameter sharing: one number, many places
#
# After this chapter you can let thousands of weights live on one stored number, say what that saves and what it does not, and hold
# every claim of this family against two controls: an ordinary network that stores as much, and a layer that was never trained.
#
# Below, one network, 784 → 784 → 10; its square layer of 614,656 weights is stored in many ways. The black line is what you get
# without any trick: small ordinary networks.

# %%
import copy
import math
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter06 import figures
from compresslab.course.chapter06.widgets import BucketLook, draw_buckets

plots.style()
evidence = load_evidence("06")
shared_rows = [row for row in evidence.values() if row.get("experiment") == "sharers"]
figures.sharers(shared_rows);

# %% [markdown]
# *`ink_digits`; short marks are single seeds, symbols their means. A symbol below the black line is a trick that an ordinary network
# of the same size beats. Left and right are not the same picture: some methods store few numbers, but a long table of who uses
# which. K-means and product codes start from the trained dense network, all others from random numbers.*
#
# **Time** about two hours for the core exercises, three for all. **You need** chapter 00 (bytes, MACs, a paired difference),
# the k-means of chapter 02 for section 4, and low rank (chapter 05) for sections 5 and 7.
#
# Stuck? Open a new cell and run `hint("6.1")`: each call says a little more.
#
# ## The family
#
# **Parameter sharing** stores one number and uses it in many places. A weight that is looked up in a small store and not stored
# itself is a **virtual weight**. Pruning removes numbers and quantization shortens them; sharing keeps them at full length and has
# fewer. The methods differ in *who shares with whom*. Below, equal colours are one number:

# %%
figures.map_of_sharing();

# %% [markdown]
# You have used the first one for years: a **convolution** is a large matrix that holds the few numbers of its kernel again and
# again, and nobody calls it compression. There the image gives the reason: its left edge is like its right one. This chapter
# shares weights for which no such reason is known.

# %%
from compresslab.core import count_macs, encode, file_size, load, save, storage_bits
from compresslab.core.statistics import mean_interval, paired_difference
from compresslab.core.train import accuracy, correct_answers, train
from compresslab.data import load_data
from compresslab.models import from_spec, load_baseline

ink = load_data("ink_digits")
judges = ink.validation.take(500 if quick() else 2000)
few = ink.train.take(500 if quick() else 5000)
lenet5 = load_baseline("lenet5")

def square_network(seed, width=784):
    """784 -> width, ReLU, width -> 10: the stage of this chapter; 784 wide, its first layer is square."""
    torch.manual_seed(seed)
    return from_spec({"input": [1, 28, 28], "layers": [["flatten"], ["linear", {"out_features": width}], ["relu"], ["linear", {"out_features": 10}]]})

square = square_network(0)
print(f"the stage: {sum(p.numel() for p in square.parameters()):,} numbers, {square[1].weight.numel():,} of them in the square layer, "
      f"{file_size(square):,} bytes in a file")

# %% [markdown]
# ## 1 One number, many places
#
# How large is a network that shares? As large as what must be *stored*.
#
# {{exercise 6.1}}
#
# Tensors may share without being the same object: the transpose of a matrix, or its last rows, are **views**, windows onto one
# piece of memory, the **storage** (`tensor.untyped_storage()`). Write `unique_parameters`: how many numbers the distinct storages
# behind `model.parameters()` hold.

# %%
def unique_parameters(model):
    """An int: the numbers in the distinct storages of the model's parameters, each storage counted once, in full."""
    ### BEGIN SOLUTION
    sizes = {}
    for parameter in model.parameters():
        storage = parameter.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes() // parameter.element_size()
    return sum(sizes.values())
    ### END SOLUTION

# %%
unique_parameters = check("6.1", unique_parameters)

# %% [markdown]
# **See.** Two layers of 200 x 200 that share in different ways; the last is an autoencoder whose decoder is the transpose of the
# encoder. What do the usual operations make of the sharing?

# %%
def pair_of_layers(how="nothing shared"):
    """Two 200 x 200 layers without biases, sharing in one of several ways."""
    model = nn.Sequential(nn.Linear(200, 200, bias=False), nn.ReLU(), nn.Linear(200, 200, bias=False))
    whole = model[0].weight.detach()
    if how == "one module twice":
        model[2] = model[0]
    if how == "one parameter twice":
        model[2].weight = model[0].weight
    if how == "two views of a tensor":
        model[0].weight, model[2].weight = nn.Parameter(whole), nn.Parameter(whole.t())
    return model

print(f"{'':22} | virtual |  stored | file (bytes) | deepcopy: stored | save, load: stored")
for how in ("nothing shared", "one module twice", "one parameter twice", "two views of a tensor"):
    model = pair_of_layers(how)
    with tempfile.TemporaryDirectory() as folder:
        size = save(model, Path(folder) / "pair.safetensors")
        restored = load(Path(folder) / "pair.safetensors", pair_of_layers())
    print(f"{how:22} | {sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False)):7,} | {unique_parameters(model):7,} | {size:12,} | "
          f"{unique_parameters(copy.deepcopy(model)):16,} | {unique_parameters(restored):18,}")

# %% [markdown]
# The file holds the numbers once, and loading restores the sharing: **save once, restore shared**. But look at the last row.
# `copy.deepcopy` remembers which *objects* it has met; two parameters around one tensor are two objects, and the copy silently has
# twice the numbers. It answers as before, no error, no warning; after the next training step encoder and decoder go different ways.
# A library that copies its models, as most do, must know of this. And so must you:
#
# {{question 6.q1}}

# %%
### BEGIN SOLUTION
q1 = "c"
### END SOLUTION

# %%
q1 = answer("6.q1", q1)

# %% [markdown]
# ### How does a shared number learn?
#
# Let $V_{ij} = \xi_{ij}\, w_{h(i,j)}$: place $(i, j)$ of a matrix uses the stored number with **index** $h(i, j)$, with the **sign**
# $\xi_{ij} = \pm 1$. The loss $L$ depends on $w_k$ through each of its places, and the chain rule adds:
#
# $$ \frac{\partial L}{\partial w_k} = \sum_{(i, j):\; h(i,j) = k} \xi_{ij}\, \frac{\partial L}{\partial V_{ij}} $$
#
# {{exercise 6.2}}
#
# Write `shared_gradient`, from the gradient of every place to that of every stored number. Numbers that are never used get 0.

# %%
def shared_gradient(gradient, indices, signs, size):
    """(size,): the gradient of each stored number; gradient, indices and signs have the shape of the virtual weight."""
    ### BEGIN SOLUTION
    total = torch.zeros(size, dtype=gradient.dtype)
    return total.index_add(0, indices.flatten(), (signs * gradient).flatten())
    ### END SOLUTION

# %%
shared_gradient = check("6.2", shared_gradient)

# %% [markdown]
# A sum, not an average. **Predict** what that does to its length, for the real gradient of our square layer:
#
# {{prediction 6.p1}}

# %%
### BEGIN SOLUTION
p1 = (6, 12)
### END SOLUTION

# %%
p1 = predict("6.p1", p1)

# %%
def rms(x):
    """Root mean square."""
    return x.square().mean().sqrt().item()

F.cross_entropy(square(few.x(slice(0, 500))), few.y[:500]).backward()
gradient = square[1].weight.grad
dice = torch.Generator().manual_seed(0)
growth = {}
for uses in (1, 4, 16, 64, 256, gradient.numel()):
    size = gradient.numel() // uses
    indices = (torch.randperm(gradient.numel(), generator=dice) % size).view(gradient.shape)      # each number used equally often
    signs = 2.0 * torch.randint(2, gradient.shape, generator=dice) - 1
    growth[uses] = rms(shared_gradient(gradient, indices, signs, size)) / rms(gradient)
    plain = rms(shared_gradient(gradient, indices, torch.ones_like(signs), size)) / rms(gradient)
    print(f"{uses:7,} weights share: {growth[uses]:7.1f} times longer ({plain:7.1f} without signs), root of the uses {math.sqrt(uses):6.1f}")
reveal("6.p1", growth[64]);

# %% [markdown]
# The sum of 64 numbers is 64 times as long only if they agree. These do not: their signs are mixed, most of the sum cancels, and it
# grows like $\sqrt{64}$. (The last row is a single sum, so chance decides: about twice the root.)
#
# Keep that last row in mind. *One* number for the whole layer has a gradient more than a thousand times as long as a weight's, and a
# step of plain gradient descent that is right for the biases is far too long for it. So from here on we train with Adam, which
# divides each gradient by its own usual length. (Averaging would shorten the gradient, too. But then it is no longer the gradient of
# the loss, and a layer learns the more slowly the more it shares.)
#
# ## 2 Hashing decides who shares
#
# If weights are to share and nothing is known about them, let chance decide. But the table of who uses which number must not be
# *stored*: an index for every weight would cost more than the weight saves. Chen et al. (HashedNets, ICML 2015) compute it: a
# **hash** $h(i, j)$, a fixed rule that looks like chance, throws each place into one of $K$ **buckets**, and all places of a bucket
# share its number. A second hash $\xi(i, j)$ gives the sign.
#
# Python has a `hash()`. It will not do:

# %%
for process in ("1", "2"):                                     # Python draws this number anew for each process, unless told
    word = subprocess.run([sys.executable, "-c", "print(hash('row 3, column 5') % 100)"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": process})
    print(f"process {process}: 'row 3, column 5' falls into bucket {word.stdout.strip()} of 100")

# %% [markdown]
# A network saved in one process would be noise in the next. We need whole-number arithmetic that every machine does alike.
#
# {{exercise 6.3}}
#
# Write `hash_indices` with **SplitMix64** (Steele, Lea and Flood, OOPSLA 2014). Number the places $i = 0, 1, 2, \dots$ row by row.
# All arithmetic is modulo $2^{64}$ on whole numbers without sign, $\oplus$ is exclusive or, $\gg$ shifts the bits down:
#
# $$ z = (i + 1)\,\gamma + \text{seed}, \qquad z \leftarrow \big(z \oplus (z \gg 30)\big)\,a, \qquad z \leftarrow \big(z \oplus (z \gg 27)\big)\,b,
# \qquad z \leftarrow z \oplus (z \gg 31) $$
#
# with $\gamma$ = `0x9E3779B97F4A7C15`, $a$ = `0xBF58476D1CE4E5B9`, $b$ = `0x94D049BB133111EB`. The lowest bit of $z$ is the sign (0
# is plus); the bucket is $\lfloor z / 2 \rfloor \bmod K$. (Why not $z \bmod K$? Try $K = 2$.) `np.uint64` arrays wrap round by
# themselves.

# %%
def hash_indices(shape, buckets, seed):
    """(indices, signs), both of `shape`: int64 from 0 to buckets - 1, and float32, 1 or -1."""
    ### BEGIN SOLUTION
    z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    indices = torch.from_numpy(((z >> np.uint64(1)) % np.uint64(buckets)).astype(np.int64))
    signs = torch.from_numpy(1 - 2 * (z & np.uint64(1)).astype(np.float32))
    return indices.view(shape), signs.view(shape)
    ### END SOLUTION

# %%
hash_indices = check("6.3", hash_indices)

# %%
from compresslab.sharing.hashing import HashedCode
from compresslab.sharing.hashing import hash_indices as library_indices

indices, signs = hash_indices((784, 784), 9604, seed=0)
both = zip((indices, signs), library_indices((784, 784), 9604, seed=0))
print("bit for bit the library's:", all(torch.equal(mine, theirs) for mine, theirs in both))
loads = torch.bincount(indices.flatten(), minlength=9604)
print(f"{indices.numel():,} weights in {len(loads):,} buckets: {loads.min()} to {loads.max()} in a bucket, mean {loads.double().mean():.1f}, "
      f"standard deviation {loads.double().std():.1f}; {(signs > 0).double().mean():.2%} of the signs are plus")
chance = torch.bincount(torch.randint(9604, (784 * 784,), generator=dice), minlength=9604)
figures.lengths({"SplitMix64": loads.tolist(), "drawn at random": chance.tolist()});

# %% [markdown]
# It looks like chance, and is arithmetic: of the whole table, only the seed need be kept.
#
# {{exercise 6.4}}
#
# Write `hashed_linear`, $y = x V^\top + b$ with $V_{ij} = \xi_{ij} w_{h(i,j)}$. The gradient must reach `values`; if you use them
# as they are, autograd finds your sum of exercise 6.2 by itself.

# %%
def hashed_linear(x, values, indices, signs, bias):
    """(N, outputs) for x (N, inputs), values (K,), indices and signs (outputs, inputs), bias (outputs,)."""
    ### BEGIN SOLUTION
    weight = signs * values[indices]
    return F.linear(x, weight, bias)
    ### END SOLUTION

# %%
hashed_linear = check("6.4", hashed_linear)

# %% [markdown]
# **Apply.** A layer around your two functions. What it stores are the values and the bias; the table comes from the seed.

# %%
class Hashed(nn.Module):
    """A linear layer with `buckets` stored values for all of its weights."""

    def __init__(self, inputs, outputs, buckets, seed=0, signed=True):
        super().__init__()
        values = torch.randn(buckets, generator=torch.Generator().manual_seed(seed))
        self.values = nn.Parameter(values * math.sqrt(2 / inputs) / rms(values))       # weights as long as He's, chapter 00
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.indices, self.signs = hash_indices((outputs, inputs), buckets, seed)      # plain attributes: no state, not stored
        self.signs = self.signs if signed else torch.ones_like(self.signs)

    def forward(self, x):
        return hashed_linear(x, self.values, self.indices, self.signs, self.bias)

def hashed_network(buckets, seed=0, signed=True, pixels=784, width=784):
    """pixels -> width (hashed), ReLU, width -> 10."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), Hashed(pixels, width, buckets, seed, signed), nn.ReLU(), nn.Linear(width, 10))

def learn(model, seed=0):
    """The model, trained on the 5,000 images: the same steps and batches for every network of this half."""
    return train(model, few, epochs=1 if quick() else 3, lr=0.003, optimizer=torch.optim.Adam, seed=seed, progress=False)

hashed = learn(hashed_network(9604))
print(f"{hashed[1].indices.numel():,} virtual weights on {len(hashed[1].values):,} stored ones, "
      f"{unique_parameters(hashed):,} numbers in the whole network: {accuracy(hashed, judges):.1%} right")

# %% [markdown]
# The layer stores a sixty-fourth of its weights. Why stop there? The smallest store has one value. Then all weights are equally far
# from zero, and all that training can do to them is to scale them together.
#
# {{prediction 6.p2}}

# %%
### BEGIN SOLUTION
p2 = (60, 88)
### END SOLUTION

# %%
p2 = predict("6.p2", p2)

# %%
one = learn(hashed_network(1))
print(f"one value, signs from the hash: {accuracy(one, judges):.1%} right, {unique_parameters(one):,} numbers stored")
reveal("6.p2", 100 * accuracy(one, judges));

# %% [markdown]
# Surprised? The layer is a *random* matrix now, plus and minus one value, and 784 random features with a trained readout and
# trained thresholds go a long way. The 614,656 signs are information, too; they only need no storage, because a seed makes them.
#
# Are signs needed at all? In theory, yes. Hash two vectors into buckets, add up within each bucket, and take the inner product: with
# signs the error is 0 on the average over all hashes, whatever the vectors (Weinberger et al., ICML 2009). Without, numbers of one
# sign pile up:

# %%
first, second = few.images[few.y == 3][:2].double().flatten(1) / 255
sketches = {"with signs": [], "without signs": []}
for seed in range(200):
    indices, signs = hash_indices((784,), 64, seed)
    for name, xi in (("with signs", signs.double()), ("without signs", torch.ones(784).double())):
        sums = [shared_gradient(v, indices, xi, 64) for v in (first, second)]      # adding up in buckets: you have written it
        sketches[name].append((sums[0] @ sums[1]).item())
print(f"two images, exact inner product {(first @ second).item():6.1f}")
for name, found in sketches.items():
    mean, low, high = mean_interval(found)
    print(f"64 buckets {name:14} mean of 200 hashes {mean:6.1f} ({low:.1f} to {high:.1f})")

# %% [markdown]
# In practice? Here is the whole range, with signs and without, on the small `digits` (8 x 8 pixels) and with a layer of only 16 units:
# random features need width, so here the learned values count. Move the control, or read the rows; equal colours share, a bar is a
# minus.

# %%
digits = load_data("digits")

def small_accuracy(buckets, signed):
    """Of a hashed 64 -> 16 -> 10 network, trained for a moment."""
    model = train(hashed_network(buckets, 0, signed, pixels=64, width=16), digits.train, epochs=2 if quick() else 12, lr=0.01,
                  optimizer=torch.optim.Adam, progress=False)
    return accuracy(model, digits.test)

swept = {name: {buckets: small_accuracy(buckets, signed) for buckets in (1, 8, 32, 128, 1024)}
         for name, signed in (("with signs", True), ("without signs", False))}
look = BucketLook(hash_indices, (16, 64), swept)
widgets.controls(look, draw_buckets, widgets.Slider("log2 of the buckets", 0, 10, 1, start=5), static=[(0,), (3,), (7,), (10,)], panels=2)
for buckets in swept["with signs"]:
    print(f"{buckets:5,} buckets: {swept['with signs'][buckets]:.1%} with signs, {swept['without signs'][buckets]:.1%} without; "
          f"{look(int(math.log2(buckets))).sharing:.0%} of the weights share")

# %% [markdown]
# With signs, up to 8 values nothing is gained over one (one seed: differences of some points are luck); from 32 on the learned values
# count. Look at the last row as well: as many buckets as weights, and yet most weights share, because more than a third of the buckets stay
# empty (about $1/e$ of them). A hash wastes; it never becomes the dense layer.
#
# {{question 6.q2}}

# %%
### BEGIN SOLUTION
q2 = "a"
### END SOLUTION

# %%
q2 = answer("6.q2", q2)

# %% [markdown]
# ## 3 The control
#
# "A network with 614,656 weights in the memory of 9,604." Is that good? Against the dense network it lost accuracy, as all
# compression does. The question that decides is another one: what would an *ordinary* network do that stores as many numbers?
#
# {{exercise 6.5}}
#
# Write `same_size_width`: the largest width of a dense network inputs → width → classes, both layers with biases, that stores at
# most `stored` numbers. A `ValueError` if not even one hidden unit fits.

# %%
def same_size_width(inputs, classes, stored):
    """An int, at least 1: the width of the widest network that stores at most `stored` numbers."""
    ### BEGIN SOLUTION
    width = (stored - classes) // (inputs + 1 + classes)
    if width < 1:
        raise ValueError(f"{stored} numbers are too few for one hidden unit")
    return width
    ### END SOLUTION

# %%
same_size_width = check("6.5", same_size_width)

# %%
large = learn(square_network(0))
rivals = {"one value": one, "9,604 values": hashed}
print(f"{'':30} stored    MACs   right")
for name, model in rivals.items():
    width = same_size_width(784, 10, unique_parameters(model))
    small = learn(square_network(0, width))
    print(f"hashed, {name:22}{unique_parameters(model):7,} {784 * 784 + 784 * 10:7,}  {accuracy(model, judges):.1%}")
    print(f"dense, width {width:<17}{unique_parameters(small):7,} {count_macs(small, (1, 28, 28)).total:7,}  {accuracy(small, judges):.1%}")
    print(f"    hashed minus dense: {paired_difference(correct_answers(model, judges), correct_answers(small, judges))}")
print(f"dense, width 784              {unique_parameters(large):7,} {count_macs(large, (1, 28, 28)).total:7,}  {accuracy(large, judges):.1%}")

# %% [markdown]
# So at equal storage the HashedNet is ahead. (Nearly equal: a hidden unit costs 795 numbers, so the rivals store up to 8 % less.)
# But its virtual weights are not free: it computes with all of them, 36 to 78 times the operations of its rival (see the MACs). And
# the row with one value is the second control: a layer whose weights have learned one number.
#
# One seed and a short training, though. Over several seeds, trained longer, paired by seed:

# %%
compared = figures.against_control(shared_rows)
for row in compared:
    print(f"{row['unique']:9,} numbers (small dense {row['control']:9,}): {row['gain']:+.2f} points, {row['low']:+.2f} to {row['high']:+.2f}, {row['seeds']} seeds")
figures.gains(compared, "hashed minus small dense (points)");

# %% [markdown]
# {{question 6.q3}}

# %%
### BEGIN SOLUTION
q3 = "d"
### END SOLUTION

# %%
q3 = answer("6.q3", q3)

# %% [markdown]
# ## 4 Clusters
#
# A hash decides blindly. If the network is trained already, look: weights that are *nearly* equal may as well be equal. That is
# the **k-means** of chapter 02, seen from here: $K$ shared numbers, and who shares is learned. What it costs is the table. No seed
# makes it, so each weight stores an index of $\log_2 K$ bits. Both ways for the trained dense layer, nothing trained afterwards, at
# about the same number of bits:

# %%
from compresslab.sharing.clusters import ClusterCode

w = large[1].weight.detach()

def with_layer(weight):
    """The trained dense network with another weight in its square layer."""
    changed = copy.deepcopy(large)
    changed[1].weight.data = weight.detach().clone()
    return changed

print(f"dense: {32 * w.numel() / 8 / 1000:,.0f} kB in the layer, {accuracy(large, judges):.1%} right")
for bits in (1, 2, 4):
    clusters = ClusterCode.from_dense(w, bits=bits, iterations=30)
    blind = HashedCode.from_dense(w, buckets=w.numel() * bits // 32)
    print(f"{bits} bits for each weight, {storage_bits(clusters) / 8 / 1000:4.0f} kB: {2**bits:2} clusters {accuracy(with_layer(clusters.decode()), judges):.1%} right, "
          f"{len(blind.values):6,} hashed values {accuracy(with_layer(blind.decode()), judges):.1%}")

# %% [markdown]
# To compress what is trained, take clusters: the best a hash can do for given weights is to put the mean of unrelated weights into
# each bucket. To *train* few numbers from the start, take a hash: it needs no dense network first.
#
# Below one bit for each weight an index per weight is too much. So let *groups* of weights share an index.
# **Product quantization** (Gong et al., 2014; the idea is Jégou et al.'s) cuts each row of the $m \times n$ matrix into $s$ pieces of
# $n/s$ neighbours. Each of the $s$ sub-spaces has a **code book** of $k$ **centroids**, found by k-means on the $m$ pieces of all rows.
# Stored are the indices and the code books; to **decode** is to write down the centroids that a row's indices name, side by side.
#
# {{exercise 6.6}}
#
# Write `encode_subvectors`: for each piece of each row the index of the nearest centroid (least squared distance) in its
# sub-space's code book, and the decoded weight.

# %%
def encode_subvectors(weight, codebooks):
    """(indices int64 (m, s), decoded (m, n)) for weight (m, n) and codebooks (s, k, n / s)."""
    ### BEGIN SOLUTION
    subspaces, _, length = codebooks.shape
    parts = weight.view(len(weight), subspaces, length)
    distances = (parts[:, :, None] - codebooks).square().sum(dim=-1)
    indices = distances.argmin(dim=-1)
    decoded = codebooks[torch.arange(subspaces), indices]
    return indices, decoded.view_as(weight)
    ### END SOLUTION

# %%
encode_subvectors = check("6.6", encode_subvectors)

# %% [markdown]
# What does it store? $m\,s$ indices of $\log_2 k$ bits, and $s$ code books of $k$ centroids with $n/s$ numbers: $m\,s \log_2 k + 32\,k\,n$
# bits.

# %%
from compresslab.sharing.vector_kmeans import kmeans

def learn_codebooks(weight, length, k):
    """(s, k, length): k-means in every sub-space of `length` columns."""
    return torch.stack([kmeans(part, k, seed=0, iterations=5)[0] for part in weight.split(length, dim=1)])

m, n = w.shape
print("length    k   indices  code books  bits for each weight   right")
for length, k in ((16, 16), (8, 32), (8, 16)):
    codebooks = learn_codebooks(w, length, k)
    indices, decoded = encode_subvectors(w, codebooks)
    table, books = indices.numel() * math.log2(k) / 8, 32 * codebooks.numel() / 8
    print(f"{length:6} {k:4} {table / 1000:6.1f} kB {books / 1000:8.1f} kB {8 * (table + books) / w.numel():15.2f} {accuracy(with_layer(decoded), judges):14.1%}")

# %% [markdown]
# The indices became cheap, and the code books, which one forgets to count, are now the larger part: $32\,k\,n$ bits do not depend on
# how many rows share them. With 784 rows the two clusters above, one bit for each weight, do about as well. Product quantization is
# for matrices with many rows (Gong et al. report 16 to 24 times for the fully connected layers of an ImageNet network, at a loss of
# one point). And it can do something that no other sharer can:

# %% [markdown]
# ### Multiply once, look up often
#
# The code is also a way to *compute*. Let $a_{it}$ be the index of row $i$ in sub-space $t$. Row $i$ of the decoded weight is made of
# $c_{1,a_{i1}}, c_{2,a_{i2}}, \dots$, so its inner product with an input, cut into the same pieces, is
#
# $$ \langle x, \hat w_i \rangle = \sum_{t=1}^{s} \langle x_t, c_{t,\, a_{it}} \rangle . $$
#
# In each sub-space there are only $k$ different centroids. So multiply $x_t$ with each of them *once*, keep the results in a table,
# and let all rows look up what they need (Wu et al., CVPR 2016). No weight is ever decoded.
#
# {{exercise 6.7}}
#
# Write `lookup_product`: the same numbers as the product with the decoded weight. Stay in torch: your multiplications are counted there.

# %%
def lookup_product(x, codebooks, indices):
    """(B, m): x (B, n) times the weight (m, n) that indices (m, s) pick from codebooks (s, k, n / s), transposed."""
    ### BEGIN SOLUTION
    subspaces, _, length = codebooks.shape
    parts = x.view(len(x), subspaces, length)
    table = torch.einsum("bsd,skd->bsk", parts, codebooks)
    return table[:, torch.arange(subspaces), indices].sum(dim=-1)
    ### END SOLUTION

# %%
lookup_product = check("6.7", lookup_product)

# %%
pixels = judges.x(slice(100)).flatten(1)
apart = (lookup_product(pixels, codebooks, indices) - pixels @ decoded.T).abs().max().item()
print(f"looked up or decoded and multiplied: largest difference {apart:.0e}")
centroids = codebooks.shape[1]
print(f"{m} outputs, {n} inputs, {centroids} centroids: decoded {m * n:,} multiplications, looked up {centroids * n:,} "
      f"and {indices.numel():,} additions")

# %% [markdown]
# Wu et al. report 15 to 20 times less storage and 4 to 6 times the speed for whole networks, at a loss of one point.
#
# {{question 6.q4}}

# %%
### BEGIN SOLUTION
q4 = "d"
### END SOLUTION

# %%
q4 = answer("6.q4", q4)

# %% [markdown]
# ### Weights that want to be shared
#
# K-means takes the weights as training left them. One can also *tell* training that sharing is wanted. **Soft weight sharing**
# (Nowlan and Hinton, 1992; Ullrich et al., ICLR 2017) adds a prior to the loss: weights come from a mixture of a few bell curves,
#
# $$ -\log p(w) = -\sum_i \log \sum_j \pi_j\, \mathcal N(w_i \mid \mu_j, \sigma_j^2) , $$
#
# whose means, widths and proportions learn along. Each weight is drawn towards the means nearby, and the means towards the weights.
# Here, for the readout of the dense network; the square layer stays as it is. (`components` is the number of bell curves that move; one
# more stays at 0, and `zero_proportion` is its $\pi$.)

# %%
from compresslab.course.chapter06 import figures_structures as drawn
from compresslab.sharing.soft_sharing import MixturePrior

with torch.no_grad():
    hidden = large[1](few.x().flatten(1)).relu()

def with_readout(readout):
    """The trained dense network with another last layer."""
    changed = copy.deepcopy(large)
    changed[3] = readout
    return changed

def softly_shared(readout, strength, steps):
    """(the readout, its prior), trained together."""
    readout, draw = copy.deepcopy(readout), torch.Generator().manual_seed(0)
    prior = MixturePrior.from_weights([readout.weight], components=7, zero_proportion=0.5)
    optimizer = torch.optim.Adam([{"params": readout.parameters(), "lr": 1e-3}, {"params": prior.parameters(), "lr": 1e-2}])
    for _ in range(steps):
        rows = torch.randint(len(hidden), (128,), generator=draw)
        loss = F.cross_entropy(readout(hidden[rows]), few.y[rows])
        loss = loss + strength * prior(readout.weight) / len(hidden) if strength else loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return readout, prior

plain, _ = softly_shared(large[3], 0.0, 30 if quick() else 250)
soft, prior = softly_shared(large[3], 0.2, 30 if quick() else 250)
for name, readout in {"trained as ever": plain, "with the prior": soft}.items():
    clusters, collapsed = ClusterCode.from_dense(readout.weight, bits=3), copy.deepcopy(readout)
    collapsed.weight.data = clusters.decode().detach()
    error = (collapsed.weight - readout.weight).norm() / readout.weight.norm()
    print(f"{name:16} {accuracy(with_readout(readout), judges):.1%} right; with 8 values {accuracy(with_readout(collapsed), judges):.1%}, "
          f"which move the weights by {error:.1%}")
drawn.mixture(soft.weight.detach(), prior.means.tolist(), "the readout, trained with the prior");

# %% [markdown]
# For this task 8 values are enough either way. But look at how far the weights must move to get there: with the prior they are nearly
# there when training ends, so that little is left to go wrong. The picture says more: several of the means have met, and nearly all
# weights stand close to one of three values.
#
# **Deep k-means** (Wu et al., ICML 2018) does the same for the rows of filters: it adds to the loss what k-means would lose, relaxed
# so that it has a closed form. (`compresslab.sharing.deep_kmeans` has it.)
#
# ## 5 Structured matrices
#
# Now a rule so plain that no table and no hash is needed. A **circulant** matrix stores one column, $r$; each next column is the one
# before, turned down by one place, and what falls out at the bottom comes back at the top:
#
# $$ R = \begin{pmatrix} r_0 & r_{n-1} & \cdots & r_1 \\ r_1 & r_0 & \cdots & r_2 \\ \vdots & & \ddots & \vdots \\ r_{n-1} & r_{n-2} & \cdots & r_0 \end{pmatrix} $$
#
# {{exercise 6.8}}
#
# Write `circulant`, so that gradients reach `r`: a network is to learn it.

# %%
def circulant(r):
    """(n, n): the circulant matrix whose first column is r (n,)."""
    ### BEGIN SOLUTION
    i = torch.arange(len(r))
    return r[(i[:, None] - i) % len(r)]
    ### END SOLUTION

# %%
circulant = check("6.8", circulant)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8))
five = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0])
plots.tensor(axes[0], circulant(five), "circulant(r), r = (1, 2, 3, 0, 0)")
plots.tensor(axes[1], (circulant(five) @ torch.tensor([1.0, 0.0, 0.0, 0.0, 10.0]))[None], "times x = (1, 0, 0, 0, 10)");

# %% [markdown]
# Look at the right: $r$, and ten times $r$ turned by four. A circulant matrix *slides* $r$ along $x$, around a circle: the product is
# a **circular convolution**. And for a Fourier transform $\mathcal F$ a convolution is an entry-by-entry product:
#
# $$ R\,x = \mathcal F^{-1} \big( \mathcal F(r) \circ \mathcal F(x) \big) $$
#
# The **fast Fourier transform** (FFT) takes of the order of $n \log n$ operations, not $n^2$.
#
# {{exercise 6.9}}
#
# Write `circulant_product`. Rows of `x` are vectors, as in every layer: each is multiplied by the matrix. The matrix may not appear,
# nor its $n^2$ multiplications (they are counted), and gradients must pass.

# %%
def circulant_product(r, x):
    """(..., n): circulant(r) times each vector in the last dimension of x (..., n)."""
    ### BEGIN SOLUTION
    spectrum = torch.fft.rfft(r) * torch.fft.rfft(x)
    return torch.fft.irfft(spectrum, n=len(r))
    ### END SOLUTION

# %%
circulant_product = check("6.9", circulant_product)

# %% [markdown]
# **Apply.** The square layer as one circulant matrix. Cheng et al. (ICCV 2015) put fixed random signs on the inputs first (here they
# come from the hash and are not stored); you will see below what they are good for. And again the control that learns next to
# nothing: the same layer with its column and biases left as they were drawn, so that only the readout learns.

# %%
class Circulant(nn.Module):
    """y = circulant(r) (signs * x) + bias."""

    def __init__(self, size, seed, frozen=False):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.r = nn.Parameter(torch.randn(size, generator=draw) / (3 * size) ** 0.5, requires_grad=not frozen)
        self.bias = nn.Parameter(torch.zeros(size), requires_grad=not frozen)
        self.register_buffer("signs", hash_indices((size,), 1, seed)[1], persistent=False)

    def forward(self, x):
        return circulant_product(self.r, self.signs * x) + self.bias

def circulant_network(frozen):
    torch.manual_seed(0)
    readout = nn.Linear(784, 10)
    return nn.Sequential(nn.Flatten(), Circulant(784, 0, frozen), nn.ReLU(), readout)

turned = learn(circulant_network(frozen=False))
drawn_once = learn(circulant_network(frozen=True))
rival = learn(square_network(0, same_size_width(784, 10, unique_parameters(turned))))
for name, model in {"circulant": turned, "circulant, column never trained": drawn_once, "small dense control": rival, "dense": large}.items():
    print(f"{name:32}{unique_parameters(model):8,} numbers, {accuracy(model, judges):.1%} right")

# %% [markdown]
# 784 numbers in the place of 614,656. And the control says what does most of the work: 784 different sums of the pixels and a trained
# readout. Training the column adds to that, but the untrained one is already ahead of the small dense network. What structure gives
# you is first of all a *large* layer that is cheap to store.
#
# ### Into a trained network
#
# What if the layer is trained already? Then take the circulant matrix that is nearest to it.
#
# {{exercise 6.10}}
#
# Write `nearest_circulant`: the first column of the circulant matrix with the smallest sum of squared differences.

# %%
def nearest_circulant(matrix):
    """(n,): the first column of the circulant matrix nearest to matrix (n, n) in the Frobenius norm."""
    ### BEGIN SOLUTION
    n = len(matrix)
    i = torch.arange(n)
    diagonal = (i[:, None] - i) % n
    sums = torch.zeros(n, dtype=matrix.dtype).index_add(0, diagonal.flatten(), matrix.flatten())
    return sums / n
    ### END SOLUTION

# %%
nearest_circulant = check("6.10", nearest_circulant)

# %% [markdown]
# One circulant for a whole layer is strict, and a layer need not be square. A **block-circulant** matrix is made of $b \times b$
# blocks, each circulant with a column of its own (CirCNN, Ding et al., 2017): $b$ sets the rate. Now the first fully connected layer
# of `lenet5`, $500 \times 800$, in blocks of 100.
#
# {{prediction 6.p3}}

# %%
### BEGIN SOLUTION
p3 = (0.8, 8)
### END SOLUTION

# %%
p3 = predict("6.p3", p3)

# %%
def circulant_blocks(weight, b):
    """The nearest weight of b x b circulant blocks."""
    strips = [[circulant(nearest_circulant(block)) for block in strip.split(b, dim=1)] for strip in weight.split(b)]
    return torch.cat([torch.cat(strip, dim=1) for strip in strips])

fc1 = lenet5.fc1.weight.detach()
kept = circulant_blocks(fc1, 100).square().sum() / fc1.square().sum()
random = torch.randn(500, 800, generator=torch.Generator().manual_seed(0))
print(f"stored {fc1.numel() // 100:,} numbers for {fc1.numel():,}; of a random matrix "
      f"{circulant_blocks(random, 100).square().sum() / random.square().sum():.2%} is left")
reveal("6.p3", 100 * kept.item());

# %% [markdown]
# About 1 % is what a random matrix keeps, since each number is the mean of a hundred unrelated ones. The trained one is hardly more
# circulant than noise: nothing in its training asked for it. So this projection is a place to start training from, no more. But
# first look at what it does to the 500 hidden units.
#
# {{prediction 6.p4}}

# %%
### BEGIN SOLUTION
p4 = (0, 200)
### END SOLUTION

# %%
p4 = predict("6.p4", p4)

# %%
from compresslab.core.calibrate import watch

witnesses = judges.take(200 if quick() else 500)

def with_fc1(weight):
    """LeNet-5 with another weight in fc1."""
    changed = copy.deepcopy(lenet5)
    changed.fc1.weight.data = weight.clone()
    return changed

def ever_on(model):
    """How many hidden units are above 0 for at least one image."""
    with torch.no_grad(), watch(model, ["fc1"]) as outputs:
        model(witnesses.x())
    return int((outputs["fc1"] > 0).any(0).sum())

signs = hash_indices((800,), 1, 0)[1]
variants = {"trained": fc1, "blocks of 100": circulant_blocks(fc1, 100), "blocks of 100, signs": circulant_blocks(fc1 * signs, 100) * signs}
for name, weight in variants.items():
    print(f"{name:22}{weight.square().sum() / fc1.square().sum():7.1%} of the squares, mean {weight.mean():+.4f}, deviation {weight.std():.4f}: "
          f"{ever_on(with_fc1(weight)):3} units ever on, {accuracy(with_fc1(weight), witnesses):.1%} right")
reveal("6.p4", ever_on(with_fc1(variants["blocks of 100"])));

# %% [markdown]
# A unit that is never on has no gradient either: from there no training leads back. With the signs, and no more numbers,
# the units are alive: half of the images are right before any training, and training can go on from there.
#
# {{question 6.q5}}

# %%
### BEGIN SOLUTION
q5 = "b"
### END SOLUTION

# %%
q5 = answer("6.q5", q5)

# %% [markdown]
# ### The relatives
#
# Circulant is one rule of many. A **Toeplitz** matrix is constant along its diagonals, too, but they do not wrap: $2n - 1$ numbers.
# Both are "nearly nothing" in one sense: shift the matrix by one place along the diagonal and subtract, and almost all of it is gone.
# Precisely, what is left is
#
# $$ \nabla(W) = Z_1 W - W Z_{-1} , $$
#
# where $Z_f$ shifts by one place, and what falls out comes back on the other side, multiplied by $f$. (Why a minus once? Were both
# shifts the same, every circulant would leave nothing at all, and could not be computed back from it.) The rank of
# $\nabla(W)$ is the **displacement rank** (Kailath et al., 1979).
#
# Any matrix of displacement rank $\rho$ can be stored in $2 \rho n$ numbers, as a matrix of rank $\rho$ can; but matrices of full
# rank are among them. (The general recipe needs $2n$ for a circulant, which its own rule does with $n$.)

# %%
from compresslab.sharing.circulant import BlockCirculantCode, CirculantLinear
from compresslab.sharing.displacement import DisplacementCode, displacement
from compresslab.sharing.fastfood import FastfoodLinear
from compresslab.sharing.toeplitz import ToeplitzCode, toeplitz

draw = torch.Generator().manual_seed(0)
column, row = torch.randn(24, generator=draw), torch.randn(24, generator=draw)
low = DisplacementCode(torch.randn(2, 24, generator=draw), torch.randn(2, 24, generator=draw), (24, 24))
shown = {"circulant": circulant(column), "4 x 4 blocks of 6": BlockCirculantCode(torch.randn(4, 4, 6, generator=draw), (24, 24)).decode(),
         "Toeplitz": toeplitz(column, row), "2 generator pairs": low.decode(), "Fastfood": FastfoodLinear.random(24, 24).to_dense().weight,
         "free": torch.randn(24, 24, generator=draw)}
shown = {name: matrix.detach().double() for name, matrix in shown.items()}
for name, matrix in shown.items():
    print(f"{name:18} rank {torch.linalg.matrix_rank(matrix):2}, displacement rank {torch.linalg.matrix_rank(displacement(matrix), rtol=1e-5):2}")
drawn.matrices({name: matrix.float() for name, matrix in shown.items()});

# %% [markdown]
# **Fastfood** (Le et al., 2013; trained by Yang et al., ICCV 2015) takes another road to $n \log n$: $V = S H G \Pi H B$, three
# diagonal matrices that are stored, a permutation $\Pi$ from a seed, and the **Hadamard** matrix $H$ of plus and minus ones (chapter 02's
# rotation), which is multiplied in $n \log n$ additions. In the picture it looks like noise, and its displacement has full rank.
#
# Our square layer, stored in each way. ($H$ exists here for powers of two only, so Fastfood fills 784 up to 1,024.)

# %%
n = 784
stored = {"free": n * n, "circulant": n, "block-circulant, b = 112": BlockCirculantCode(torch.zeros(7, 7, 112), (n, n)).values.numel(),
          "Toeplitz": ToeplitzCode(torch.zeros(2 * n - 1), (n, n)).values.numel(), "displacement, 2 pairs": 2 * 2 * n,
          "Fastfood": sum(p.numel() for p in FastfoodLinear.random(n, n, bias=False).parameters()), "low rank, 2": 2 * 2 * n}
for name, numbers in stored.items():
    print(f"{name:26}{numbers:8,} numbers, {n * n / numbers:6.1f} times fewer")
print(drawn.structures_table(shared_rows))

# %% [markdown]
# *The table holds the networks of the opening figure, trained longer and over several seeds.* Compare the rows with 11,770 numbers:
# all units of the layer of rank 2 are made of the same two sums of the pixels (58 % right), those of the structured layers of 784
# (94 % right).
#
# ## 6 n log n does not always win
#
# So much for storage. A circulant product also takes fewer operations: for $n = 1024$, 47 times fewer, counted by the library.
#
# {{prediction 6.p5}}

# %%
### BEGIN SOLUTION
p5 = (300, 2500)
### END SOLUTION

# %%
p5 = predict("6.p5", p5)

# %%
from compresslab.core.timing import speedup, time_models

def contest(n, batch):
    """A dense and a circulant layer, n -> n, timed side by side."""
    dense = nn.Linear(n, n)
    fast = CirculantLinear.from_dense(dense, n)
    times = time_models({"dense": dense, "fft": fast}, torch.randn(batch, n), repeats=5 if quick() else 15)
    won = speedup(times["dense"], times["fft"])
    return {"n": n, "batch": batch, "dense_ms": times["dense"].median, "fft_ms": times["fft"].median,
            "ratio": won.ratio, "low": won.low, "high": won.high}

def fewer(n):
    """By what factor the transform needs fewer multiplications."""
    return n * n / count_macs(nn.Sequential(CirculantLinear(torch.zeros(1, 1, n))), (n,)).total

live = [contest(n, batch) for batch in (1, 64) for n in (256, 512, 1024, 2048)]
print(drawn.crossover_table(live, {row["n"]: fewer(row["n"]) for row in live}))

# %% [markdown]
# Your machine, now. And a longer measurement, up to $n = 8192$, in which the machine had nothing else to do:

# %%
measured = [row for found in evidence.values() if found["experiment"] == "crossover" for row in found["rows"]]
print(drawn.crossover_table(measured, {row["n"]: fewer(row["n"]) for row in measured}))
drawn.crossover(measured)
reveal("6.p5", drawn.faster_from(measured, batch=1));

# %% [markdown]
# {{question 6.q6}}

# %%
### BEGIN SOLUTION
q6 = "a"
### END SOLUTION

# %%
q6 = answer("6.q6", q6)

# %% [markdown]
# Layers of 256 or 512 are common, and there, for one image at a time, the transform is the *slower* one. Blocks do not help: theirs
# are transforms of length $b$, shorter still than $n$.
#
# ## 7 Across layers
#
# So far one layer shared with itself. Whole layers can share, too: ALBERT (Lan et al., ICLR 2020) is a language model of many equal
# blocks in which all of them are *one*.
#
# {{exercise 6.11}}
#
# Write `cyclic_stack`: `depth` layers that use $B$ given blocks in turn, 0, 1, ..., $B - 1$, 0, 1, ... The blocks themselves, no
# copies of them; and the caller's list stays as it is.

# %%
def cyclic_stack(blocks, depth):
    """A module of `depth` layers; layer 0 is blocks[0], and after the last block comes the first again."""
    ### BEGIN SOLUTION
    return nn.Sequential(*[blocks[layer % len(blocks)] for layer in range(depth)])
    ### END SOLUTION

# %%
cyclic_stack = check("6.11", cyclic_stack)

# %% [markdown]
# **Apply.** Twelve layers of 64 units, made of 12, 3 or 1 blocks. The control: one block used *once*, the same storage as one block
# used twelve times. What is repetition worth?

# %%
from compresslab.sharing.cross_layer import FactorizedEmbedding, virtual_parameters

class Block(nn.Module):
    """x + W2 relu(W1 x), as in a residual network."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.outer.weight.data /= 4

    def forward(self, x):
        return x + self.outer(self.inner(x).relu())

def deep_network(blocks, depth):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), cyclic_stack([Block(64) for _ in range(blocks)], depth), nn.Linear(64, 10))

print("blocks depth   stored   virtual      MACs   right")
for blocks, depth in ((12, 12), (3, 12), (1, 12), (1, 1)):
    model = learn(deep_network(blocks, depth))
    print(f"{blocks:6} {depth:5} {unique_parameters(model[3]):8,} {virtual_parameters(model[3]):9,} {count_macs(model, (1, 28, 28)).total:9,}  {accuracy(model, judges):.1%}")

# %% [markdown]
# One block, used twelve times, comes close to twelve blocks; used once, it stays behind. Repetition *is* worth something: stored numbers
# are not all that a network is made of. It is paid in operations.
#
# {{question 6.q7}}

# %%
### BEGIN SOLUTION
q7 = "a"
### END SOLUTION

# %%
q7 = answer("6.q7", q7)

# %% [markdown]
# Lan et al. report 18 times fewer parameters than a BERT-large of the same shape, and 1.7 times the speed in *training*. A second part
# of it comes from elsewhere: in a language model the **embedding**, one row of $H$ numbers for each of $V$ words, is large. ALBERT
# writes it as a product, $V H \to V E + E H$. You know this from chapter 05, its break-even too. And a model that reads and writes can
# **tie** the two tables: the output layer is the embedding (`tie_embedding`).

# %%
V, H = 30_000, 768
print(f"table {V} x {H}: {V * H:,} numbers, break-even at E = {V * H / (V + H):.1f}")
for E in (64, 128, 748, 749):
    print(f"E = {E:3}: {V * E + E * H:11,} numbers, {V * H / (V * E + E * H):6.3f} times fewer")
print("library, small:", unique_parameters(FactorizedEmbedding(1000, 16, 64)), "numbers for", 1000 * 64)

# %% [markdown]
# Between "one layer" and "all its own" lies a **shared basis**: all kernels of several layers are combinations of a few. The $5 \times 5$
# kernels of both convolutions of `lenet5` are points in 25 dimensions; here they share $M$ of them, projected and not trained further:

# %%
from compresslab.sharing.basis import share_basis

for M in (4, 8, 12, 25):
    shared = share_basis(lenet5, ["conv1", "conv2"], size=M)
    held = sum(p.numel() for name, p in shared.named_parameters() if "conv" in name and "bias" not in name)
    print(f"{M:2} kernels in the basis: {held:6,} numbers for {lenet5.conv1.weight.numel() + lenet5.conv2.weight.numel():,}, "
          f"{accuracy(shared, witnesses):.1%} right; one object in both layers: {shared.conv1.coded.basis is shared.conv2.coded.basis}")

# %% [markdown]
# With $M = 25$ nothing is lost, and 625 numbers are added: the coefficients alone take as much room as the kernels, and the basis comes
# on top.
#
# ## 8 A sharer to debug
#
# {{exercise 6.12}}
#
# A colleague trains a network whose layers *all* hash into one vector of values. What is stored in the end is that vector; a seed
# says the rest. At first the loss fell too slowly; with a learning rate ten times as large it falls as it should, and the colleague is pleased.

# %%
def buggy_train_shared(values, shapes, batches, lr=0.05, seed=0):
    """(the trained values (K,), the loss of every step); layer l has the shape shapes[l] = (outputs, inputs) and hashes with seed + l."""
    pools = [values.clone() for _ in shapes]                                        # the values of each layer
    tables, losses = [], []
    for layer, shape in enumerate(shapes):
        places = [hash(f"{seed + layer}/{place}") for place in range(shape[0] * shape[1])]
        indices = torch.tensor([place // 2 % len(values) for place in places]).view(shape)
        signs = torch.tensor([1.0 - 2 * (place % 2) for place in places]).view(shape)
        tables.append((indices, signs))
    for x, y in batches:
        weights = [(signs * pool[indices]).requires_grad_() for pool, (indices, signs) in zip(pools, tables)]
        for weight in weights[:-1]:
            x = F.relu(F.linear(x, weight))
        loss = F.cross_entropy(F.linear(x, weights[-1]), y)
        gradients = torch.autograd.grad(loss, weights)
        for pool, gradient, (indices, signs) in zip(pools, gradients, tables):
            uses = torch.bincount(indices.flatten(), minlength=len(pool)).clamp(min=1)
            pool -= lr * shared_gradient(gradient, indices, signs, len(pool)) / uses     # the mean over its uses
        losses.append(loss.item())
    return pools[0], losses

shapes = [(64, 784), (64, 64), (10, 64)]
start = 0.075 * torch.randn(2000, generator=torch.Generator().manual_seed(0))
batches = [(x.flatten(1), y) for x, y in few.batches(100)][:10 if quick() else 40]
for lr in (0.1, 1.0):
    buggy_values, pleased = buggy_train_shared(start, shapes, batches, lr)
    print(f"buggy, learning rate {lr}: loss {pleased[0]:.2f} in the first step, {pleased[-1]:.2f} in the last")

# %% [markdown]
# Now be the user, on another machine, tomorrow. You get 2,000 values and a seed.

# %%
def loss_of(values, seed=0):
    """The loss, on 500 images, of the network that these values and this seed stand for."""
    x = judges.x(slice(500)).flatten(1)
    for layer, shape in enumerate(shapes):
        indices, signs = hash_indices(shape, len(values), seed + layer)
        x = F.linear(x.relu() if layer else x, signs * values[indices])
    return F.cross_entropy(x, judges.y[:500]).item()

print(f"as stored: loss {loss_of(buggy_values):.2f}; values that were never trained: {loss_of(start):.2f}")

# %% [markdown]
# Three bugs: two that lose what was learned, and one that hid behind the large learning rate. Repair them: write `train_shared`. The
# table of layer $l$ is `hash_indices(shape, len(values), seed + l)`, your own. All gradients of a step are taken before the values
# move; the caller's tensor stays as it is.

# %%
def train_shared(values, shapes, batches, lr=0.05, seed=0):
    """As above, repaired."""
    ### BEGIN SOLUTION
    values, losses = values.clone(), []
    tables = [hash_indices(shape, len(values), seed + layer) for layer, shape in enumerate(shapes)]
    for x, y in batches:
        weights = [(signs * values[indices]).requires_grad_() for indices, signs in tables]
        for weight in weights[:-1]:
            x = F.relu(F.linear(x, weight))
        loss = F.cross_entropy(F.linear(x, weights[-1]), y)
        gradients = torch.autograd.grad(loss, weights)
        for gradient, (indices, signs) in zip(gradients, tables):
            values -= lr * shared_gradient(gradient, indices, signs, len(values))
        losses.append(loss.item())
    return values, losses
    ### END SOLUTION

# %%
train_shared = check("6.12", train_shared)

# %%
honest_values, honest = train_shared(start, shapes, batches, lr=0.1)
print(f"repaired: loss {honest[0]:.2f} in the first step, {honest[-1]:.2f} in the last; as stored {loss_of(honest_values):.2f}")
drawn.losses({"buggy": pleased, "repaired": honest});

# %% [markdown]
# The buggy loss looks about as good: it is that of a network with three vectors of values, of which one is stored. And what that one
# means is lost, because Python's hash of a text differs from process to process: the colleague's tables are gone with the colleague's
# process, and the loader can only use the rule that was agreed on, SplitMix64. The mean in the place of the sum is the bug that
# nobody would look for: a larger step hides it.

# %% [markdown]
# ## 9 Your turn: a head ten times smaller
#
# {{exercise 6.13}}
#
# Of the 431,080 numbers of `lenet5`, 405,510 are in its head, `fc1` and `fc2`. Make the *whole file* ten times smaller by the head alone: at
# most **165,000 bytes**, and let the head take at most a tenth of its multiplications: **1,928,500 MACs** in all. At least **98.9 %** right on
# 4,000 fresh images. Any way is allowed.
#
# One bit for each weight is small enough, but look at its MACs: virtual weights are multiplied. Nor is a plain projection enough;
# train. The convolutions stay as they are, so their outputs are computed once (`inputs` below), and `fit` trains a head on these.
# Choose on `judges`, and set `my_file` to the path.

# %%
from compresslab.core import CodebookCode
from compresslab.course.budget import submission_path

one_bit = encode(lenet5, partial(CodebookCode.from_dense, bits=1), only=["fc1", "fc2"])
for name, model in {"lenet5": lenet5, "one bit in the head": one_bit}.items():
    print(f"{name:20} {file_size(model):9,} bytes, {count_macs(model, (1, 28, 28)).total:9,} MACs, {accuracy(model, judges):.1%} right")

lessons = ink.train.take(1000 if quick() else 6000)
body = copy.deepcopy(lenet5)
body.fc1 = body.fc2 = nn.Identity()
with torch.no_grad():
    inputs, labels = torch.cat([body(x) for x, _ in lessons.batches(500)]).relu(), lessons.y            # (N, 800)

def fit(head, inputs, labels, epochs, lr=0.006):
    """A trained copy of a head; the learning rate rises and falls."""
    head, order = copy.deepcopy(head).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(head.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * -(-len(inputs) // 100))
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(100):
            loss = F.cross_entropy(head(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()

# %%
### BEGIN SOLUTION
head = nn.Sequential(CirculantLinear.from_dense(lenet5.fc1, 50, seed=0, keep_scale=True), nn.ReLU(), copy.deepcopy(lenet5.fc2))
head = fit(head, inputs, labels, epochs=2 if quick() else 10)
small_head = copy.deepcopy(lenet5)
small_head.fc1, small_head.fc2 = head[0], head[2]
save(small_head, submission_path("6.13"))
my_file = str(submission_path("6.13"))
### END SOLUTION

# %%
my_file = check("6.13", my_file)

# %% [markdown]
# ## 10 Your ledger
#
# Three rows: the dense network, the head in one bit, and your file.

# %%
from compresslab.core.measure import format_rows, measure

judged = ink.test.take(200 if quick() else 500)
rows = [measure(lenet5, judged, name="LeNet-5", repeats=0), measure(one_bit, judged, name="LeNet-5, one bit in the head", repeats=0),
        measure(load(my_file), judged, name="LeNet-5, shared head", repeats=0)]
print(format_rows(rows))
for row, family in zip(rows, ("dense", "quantization", "sharing")):
    ledger.add(row, chapter="06", family=family)

# %%
ledger.pareto();

# %% [markdown]
# ## What was simplified
#
# - Chen et al. draw bucket and sign from two hashes; here one hash of 64 bits gives both.
# - Gong et al. and Wu et al. train all layers again, one after the other, with errors corrected on the way; here code books are k-means.
# - Ullrich et al. put priors on the mixture itself and merge its components at the end; here it has a floor under its widths.
# - Cheng et al. train circulant projections in large networks for days. Ours are trained for seconds, on small images.
# - Circulant, Toeplitz and displacement layers are decoded while they train, except where the layer is named `...Linear`.
# - ALBERT shares attention and feed-forward blocks; here a block is two linear layers. Chapter 09 has the real ones.
#
# ## Further reading
#
# - Nowlan, Hinton, *Simplifying Neural Networks by Soft Weight-Sharing*, Neural Computation 1992; Ullrich, Meeds, Welling, *Soft Weight-Sharing
#   for Neural Network Compression*, ICLR 2017.
# - Chen et al., *Compressing Neural Networks with the Hashing Trick*, ICML 2015.
# - Gong et al., *Compressing Deep Convolutional Networks using Vector Quantization*, 2014; Wu et al., *Quantized Convolutional Neural Networks for
#   Mobile Devices*, CVPR 2016; Wu et al., *Deep k-Means*, ICML 2018.
# - Cheng et al., *An Exploration of Parameter Redundancy in Deep Networks with Circulant Projections*, ICCV 2015; Ding et al., *CirCNN*, MICRO 2017;
#   Yang et al., *Deep Fried Convnets*, ICCV 2015.
# - Lan et al., *ALBERT: A Lite BERT for Self-supervised Learning of Language Representations*, ICLR 2020.
#
# **Next:** chapter 07 puts the families together, and asks in which order.

# %% [markdown]
# # Pruning: weights that nobody misses
#
# After this chapter you can remove 95 % of a network's weights, say honestly what that cost, and end with a network that is really
# **smaller** (a file on the disk) and one that is really **faster** (a clock). You will also know why most first attempts at pruning
# give neither. This is the figure you will have made; the second bar of each half is the first attempt:

# %%
import copy

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter01 import figures
from compresslab.course.chapter01.widgets import PruneLook, draw_pruned

plots.style()
evidence = load_evidence("01")
figures.smaller_faster(**evidence["opening"]);

# %% [markdown]
# **Time** about two hours for the core exercises, twice that for all. **You need** chapter 00: the ruler (bits, MACs, milliseconds,
# a paired difference). **In a workshop** do exercises 1.1, 1.7 and 1.9 with predictions 1.p2 to 1.p5; skip sections 2, 3, 5, 7, 8 and 9.
#
# Stuck? Open a new cell and run `hint("1.1")`: each call says a little more.
#
# ## The family
#
# **Pruning** removes parts of a *given* network and lets the rest recover. Its sub-families differ in *what* goes: single weights
# (**unstructured** pruning), patterns or blocks of weights (**group level**), filters and channels, whole layers. The coarser the
# unit, the easier for the hardware and the harder for the accuracy. Within each, methods differ in how they *choose*.

# %%
figures.map_of_pruning();

# %% [markdown]
# *One 8x8 weight matrix, rows are outputs, columns are inputs, hatched cells are pruned.*
#
# Our first patient is **LeNet-300-100** on `ink_digits`: 784 inputs, two hidden layers of 300 and 100, ten classes. Its
# accuracy is measured on images that chose nothing; what we choose, we choose on `validation`.

# %%
from compresslab.core import GapSparseCode, SparseCode, apply_mask_, bake, encode, input_moments, named_layers
from compresslab.core import save, storage_report
from compresslab.core.measure import count_macs, file_size, format_rows, measure, speedup, time_models
from compresslab.core.train import accuracy, train
from compresslab.data import load_data
from compresslab.models import load_baseline

ink = load_data("ink_digits")
judges = ink.validation.take(1000)
lenet = load_baseline("lenet300")
weights = {name: layer.weight.detach() for name, layer in named_layers(lenet).items()}
print({name: tuple(weight.shape) for name, weight in weights.items()})
print(f"{sum(weight.numel() for weight in weights.values()):,} weights")
print(f"{accuracy(lenet, ink.test):.2%} of {len(ink.test):,} test images right")

# %% [markdown]
# ## 1 Which weights go?
#
# **Look.** Most weights are close to zero, in the first layer above all.

# %%
figures.layer_histograms(weights);

# %% [markdown]
# **Predict.** The **sparsity** of a tensor is the fraction of its entries that are zero.
#
# {{prediction 1.p1}}

# %%
### BEGIN SOLUTION
p1 = (60, 95)
### END SOLUTION

# %%
p1 = predict("1.p1", p1)

# %% [markdown]
# {{exercise 1.1}}
#
# **Magnitude pruning** drops the smallest weights. A **mask** $m$ says which ones stay:
#
# $$ m = \mathbb 1\,[\,|w| \ge t\,], \qquad \text{with } t \text{ such that } \operatorname{round}(s\,n) \text{ of } n \text{ weights go.} $$
#
# With equal weights no threshold $t$ does that. Write `magnitude_mask` so that the *count* is exact, whatever ties there are, and
# refuse a sparsity outside $[0, 1]$ with a `ValueError`: somebody will type 80.

# %%
def magnitude_mask(weight, sparsity):
    """Bool, the weight's shape: False for exactly round(sparsity * n) of the smallest weights."""
    ### BEGIN SOLUTION
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity}")
    n_pruned = round(sparsity * weight.numel())
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[:n_pruned]] = False
    return mask.view(weight.shape)
    ### END SOLUTION

# %%
magnitude_mask = check("1.1", magnitude_mask)

# %% [markdown]
# **See.** A corner of the last layer, before and after.

# %%
corner = weights["fc3"][:4, :7]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
plots.tensor(left, corner, "dense")
plots.tensor(right, corner * magnitude_mask(corner, 0.75), "75 % of these 28 pruned");

# %% [markdown]
# **Apply, and measure.** Move the slider (or read the rows): `magnitude_mask` on every layer, no training.

# %%
look = PruneLook(lenet, magnitude_mask, judges.x(), judges.y)
widgets.slider(look, draw_pruned, name="sparsity", high=0.99, start=0.8, static=(0.5, 0.9, 0.98), panels=2)

# %%
reveal("1.p1", 100 * look(0.9).accuracy);

# %% [markdown]
# {{exercise 1.2}}
#
# Must every layer lose the same share? **Global** pruning ranks the weights of all layers together. Write `global_masks`; it gets
# and returns dictionaries by layer name. Your `magnitude_mask` does most of the work.

# %%
def global_masks(weights, sparsity):
    """{name: weight} -> {name: mask}: of all weights together, the round(sparsity * n) smallest go."""
    ### BEGIN SOLUTION
    everything = torch.cat([weight.abs().flatten() for weight in weights.values()])
    parts = magnitude_mask(everything, sparsity).split([weight.numel() for weight in weights.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts)}
    ### END SOLUTION

# %%
global_masks = check("1.2", global_masks)

# %%
def masked(model, masks):
    """A copy of the model with masks held on its layers; `apply_mask_` multiplies in every forward pass."""
    model = copy.deepcopy(model)
    for name, mask in masks.items():
        apply_mask_(model.get_submodule(name), mask)
    return model

ranked = global_masks(weights, 0.9)
layerwise = {name: magnitude_mask(weight, 0.9) for name, weight in weights.items()}
for name, mask in ranked.items():
    print(f"{name}: {(~mask).double().mean().item():.1%} pruned, mean |w| was {weights[name].abs().mean():.3f}")
for name, masks in {"layer by layer": layerwise, "one ranking": ranked}.items():
    print(f"90 %, {name:15} {accuracy(masked(lenet, masks), judges):.1%} right")

# %% [markdown]
# {{question 1.q1}}

# %%
### BEGIN SOLUTION
q1 = "c"
### END SOLUTION

# %%
q1 = answer("1.q1", q1)

# %% [markdown]
# {{exercise 1.3}}
#
# A **sensitivity curve** prunes *one* layer and leaves the others alone. Write `sensitivity`; `evaluate(model)` gives a number. Take
# every `nn.Linear` and `nn.Conv2d`, under its name in `model.named_modules()`. The model you are given must come out as it went in.

# %%
def sensitivity(model, evaluate, sparsities):
    """{layer name: [evaluate(copy with only this layer pruned) for each of the sparsities]}."""
    ### BEGIN SOLUTION
    curves = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            curves[name] = []
            for sparsity in sparsities:
                pruned = copy.deepcopy(model)
                weight = pruned.get_submodule(name).weight
                weight.data *= magnitude_mask(weight.data, sparsity)
                curves[name].append(evaluate(pruned))
    return curves
    ### END SOLUTION

# %%
sensitivity = check("1.3", sensitivity)

# %%
steps = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
points = sensitivity(lenet, lambda model: 100 * accuracy(model, judges), steps)
figures.curves({name: ([100 * s for s in steps], curve) for name, curve in points.items()},
               "sparsity of this layer alone (%)", "accuracy (%)", "1,000 validation images, not retrained");

# %% [markdown]
# One layer alone says little about all of them together, but it shows where the danger is. A sensitivity curve costs minutes; many a
# wrong ratio costs a training.
#
# ## 2 Prune while training
#
# Cutting once and hoping is the naive way. Train, cut a little, train on: then the survivors can make up for the loss. How fast should
# the sparsity rise? Early on nobody misses a weight, late each one counts.
#
# {{exercise 1.4}}
#
# Zhu and Gupta (arXiv 2017) raise the sparsity along a cubic, from $s_i$ at step $t_0$ to $s_f$ at step $t_0 + n\Delta t$:
#
# $$ s_t = s_f + (s_i - s_f)\left(1 - \frac{t - t_0}{n\,\Delta t}\right)^3 $$
#
# Write `cubic_sparsity` with $t$ = `step`, $t_0$ = `begin`, $t_0 + n\Delta t$ = `end`. Before `begin` it is $s_i$ = `initial`, after
# `end` it is $s_f$ = `final`.

# %%
def cubic_sparsity(step, begin, end, final, initial=0.0):
    """The sparsity at this step; constant before begin and after end."""
    ### BEGIN SOLUTION
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * (1 - progress) ** 3
    ### END SOLUTION

# %%
cubic_sparsity = check("1.4", cubic_sparsity)

# %%
steps = range(0, 121, 4)
figures.curves({"cubic": (steps, [cubic_sparsity(t, 10, 90, 0.95) for t in steps]),
                "straight line": (steps, [0.95 * min(max((t - 10) / 80, 0), 1) for t in steps])},
               "training step", "sparsity (fraction)");

# %% [markdown]
# {{exercise 1.5}}
#
# A colleague prunes in the middle of training. After that, no gradient reaches a masked weight, so it *must* stay zero. It does not:

# %%
def buggy_prune_in_training(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    """Train a copy by SGD with momentum; at step prune_at prune every matrix to this sparsity, and go on."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    masks = {}
    for step, (x, y) in enumerate(batches):
        if step == prune_at:
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    masks[name] = magnitude_mask(parameter.detach(), sparsity)
                    parameter.data *= masks[name]
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.grad *= masks[name]          # no gradient, no movement
        optimizer.step()
    return model

def zeros(model):
    """The share of zeros in each layer."""
    shares = {name: (layer.weight == 0).double().mean().item() for name, layer in named_layers(model).items()}
    return {name: f"{share:.1%} zero" for name, share in shares.items()}

some = list(ink.train.take(1280).batches(128))
print(zeros(buggy_prune_in_training(lenet, some, prune_at=5, sparsity=0.9)))

# %% [markdown]
# Find out what moves a weight whose gradient is zero, and write `prune_in_training` without the mistake. The masked weights must end
# at exactly zero; the others must move as SGD with momentum moves them, as if nothing had happened to their neighbours.

# %%
def prune_in_training(model, batches, prune_at, sparsity, lr=0.1, momentum=0.9):
    """As above, repaired: from step prune_at on, the masked weights are zero after every step."""
    ### BEGIN SOLUTION
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    masks = {}
    for step, (x, y) in enumerate(batches):
        if step == prune_at:
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    masks[name] = magnitude_mask(parameter.detach(), sparsity)
                    parameter.data *= masks[name]
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.data *= masks[name]
    return model
    ### END SOLUTION

# %%
prune_in_training = check("1.5", prune_in_training)

# %%
print(zeros(prune_in_training(lenet, some, prune_at=5, sparsity=0.9)))

# %% [markdown]
# Weight decay and Adam's running moments move masked weights in the same way. The library avoids the whole class of mistakes: its mask
# is part of the forward pass (a *parametrization*), so that whatever the optimizer does behind it stays invisible.
#
# **Apply.** Your schedule and your ranking, every ten steps, while LeNet-300-100 trains. `train` is the course's loop from chapter 00.

# %%
def prune_gradually(final, steps, every=10):
    """A callback for `train`: your schedule says how many weights go, your ranking says which."""
    end = int(0.6 * steps)                         # the rest of the training belongs to the survivors
    def after_step(model, step):
        if step <= end and (step % every == 0 or step == end):
            layers = named_layers(model)
            now = {name: layer.weight.detach() for name, layer in layers.items()}
            masks = global_masks(now, cubic_sparsity(step, 0, end, final))
            for name, mask in masks.items():
                apply_mask_(layers[name], mask)
    return after_step

images = ink.train.take(2000 if quick() else 10_000)
steps = 2 * -(-len(images) // 128)                 # two epochs, rounded up to whole batches
pruned = train(lenet, images, epochs=2, lr=0.1, after_step=prune_gradually(0.95, steps), progress=False)
masks = {name: layer.weight.detach() != 0 for name, layer in named_layers(pruned).items()}
at_once = masked(lenet, global_masks(weights, 0.95))
for name, model in {"dense": lenet, "95 % at once": at_once, "95 % while training": pruned}.items():
    print(f"{name:20} {accuracy(model, ink.test):.2%} right")

# %% [markdown]
# Two short passes over half of the images bring most of it back. Ten passes over all of them bring back nearly everything: the next
# figure has them.
#
# ## 3 Whose merit is it?
#
# "We pruned 95 % and lost little" invites three doubts. Would *any* 5 % of the weights have done? Do the inherited *values* matter, or
# only which weights are left? And would a small dense network of the same bytes have done as well? Each has its **control**: an
# experiment that changes one thing and keeps the rest.
#
# {{exercise 1.6}}
#
# Write `control_starts`. It gets the trained weights, newly drawn (fresh) weights and the masks found by pruning, all by layer name, and
# returns three sets of starting weights, zeros where pruned:
#
# | key | values | places |
# |---|---|---|
# | `"inherited"` | trained | the mask |
# | `"random mask"` | trained | random; in each layer exactly as many as in the mask |
# | `"from scratch"` | fresh | the mask |

# %%
def control_starts(trained, fresh, masks, generator):
    """{"inherited": {layer: weight}, "random mask": {...}, "from scratch": {...}}; draws from `generator`."""
    ### BEGIN SOLUTION
    shuffled = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator)
        shuffled[name] = mask.flatten()[order].view(mask.shape)
    return {
        "inherited": {name: trained[name] * masks[name] for name in masks},
        "random mask": {name: trained[name] * shuffled[name] for name in masks},
        "from scratch": {name: fresh[name] * masks[name] for name in masks},
    }
    ### END SOLUTION

# %%
control_starts = check("1.6", control_starts)

# %%
from compresslab.models import LeNet300

with torch.random.fork_rng():
    torch.manual_seed(0)
    fresh = {name: layer.weight.detach() for name, layer in named_layers(LeNet300()).items()}
starts = control_starts(weights, fresh, masks, torch.Generator().manual_seed(0))
for name, start in starts.items():
    model = copy.deepcopy(lenet)
    for layer, weight in start.items():
        model.get_submodule(layer).weight.data = weight.clone()
    model = masked(model, {layer: weight != 0 for layer, weight in start.items()})
    retrained = train(model, ink.train.take(1000 if quick() else 4000), epochs=1, lr=0.1, progress=False)
    found = f"{accuracy(model, judges):6.1%}, after one short pass {accuracy(retrained, judges):6.1%}"
    print(f"{name:14} {found}")

# %% [markdown]
# One short pass flatters whoever starts ahead. A fair comparison gives each control its full training. That takes too long for a
# notebook, so the next figure is shipped (`python -m compresslab evidence 01` makes it again); a point is one seed: pruning with ten epochs of retraining, the random mask with as many, the network from scratch with all the
# epochs that the other two have seen together, and a **dense network whose file is as large** as the pruned one's.

# %%
figures.controls(evidence.values());

# %%
lenet_rows = [row for row in evidence.values() if row.get("experiment") == "lenet300"]
lenet_rows = [row for row in lenet_rows if row["sparsity"] in (0, 0.95)]
for method in dict.fromkeys(row["method"] for row in lenet_rows):
    rows = [row for row in lenet_rows if row["method"] == method]
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    low, high = 100 * min(row["loss_low"] for row in rows), 100 * max(row["loss_high"] for row in rows)
    size = rows[0]["file_bytes"]
    print(f"{method:24} {mean:.2%} right, loss {low:+.2f} to {high:+.2f} points, {size:9,} bytes")

# %% [markdown]
# *Rows at 95 % sparsity. Losses are paired differences against the shipped baseline on 50,000 fresh images: the lowest and the highest end
# of all seeds' 95 % intervals; below zero is better than the baseline.* Look for four things. The dense network, retrained for
# the same ten epochs, gains too: part of what papers call "no loss" is more training. The distance from magnitude to the random mask is what
# the choice of the weights earned. The same mask with *new* weights comes close: much of what pruning found is an architecture, not a set
# of values. And the dense network of the same bytes is the one to beat, because it needs no pruning at all.
#
# {{question 1.q2}}

# %%
### BEGIN SOLUTION
q2 = "c"
### END SOLUTION

# %%
q2 = answer("1.q2", q2)

# %% [markdown]
# ## 4 The lab: it did not get smaller
#
# You have a network with 95 % zeros. Ship it.
#
# {{prediction 1.p2}}

# %%
### BEGIN SOLUTION
p2 = (0.05, 1.1)
### END SOLUTION

# %%
p2 = predict("1.p2", p2)

# %%
sparse = bake(pruned)              # the masks multiplied in for good: an ordinary network with zeros
sizes = {"dense": file_size(lenet), "95 % zeros": file_size(sparse)}
for name, size in sizes.items():
    print(f"{name:26} {size:9,} bytes")
reveal("1.p2", sizes["95 % zeros"] / sizes["dense"]);

# %% [markdown]
# And `torch.nn.utils.prune`, PyTorch's own tool? It keeps the old weights *and* a float mask:

# %%
import tempfile
from pathlib import Path

from torch.nn.utils import prune as torch_prune

theirs = copy.deepcopy(lenet)
for layer in named_layers(theirs).values():
    torch_prune.l1_unstructured(layer, "weight", amount=0.95)
with tempfile.TemporaryDirectory() as folder:
    torch.save(theirs.state_dict(), Path(folder) / "pruned.pt")
    size = (Path(folder) / "pruned.pt").stat().st_size
print(f"torch.nn.utils.prune at 95 %: {size:,} bytes, {size / sizes['dense']:.2f} times the dense file")

# %% [markdown]
# {{question 1.q3}}

# %%
### BEGIN SOLUTION
q3 = "b"
### END SOLUTION

# %%
q3 = answer("1.q3", q3)

# %% [markdown]
# To save bytes, leave the zeros out. Then the file must say *where* the weights are.
#
# {{prediction 1.p3}}

# %%
### BEGIN SOLUTION
p3 = (12, 18)
### END SOLUTION

# %%
p3 = predict("1.p3", p3)

# %% [markdown]
# {{exercise 1.7}}
#
# A position among 235,200 weights takes 18 bits. The **gap** to the last weight is small, and takes fewer: Han, Mao and Dally
# (Deep Compression, ICLR 2016) store the number of zeros since the last weight in $b$ bits. The largest code, $G = 2^b - 1$, is an
# **escape**: *skip $G$ zeros, there is no weight here*. A gap of $g$ zeros becomes
#
# $$ \underbrace{G, \dots, G}_{\lfloor g / G \rfloor}, \; g \bmod G . $$
#
# With $b = 2$, so $G = 3$: the tensor `[0, 5, 0, 0, 0, 0, 7]` has gaps 1 and 4 and becomes `[1, 3, 1]`. Write `gap_encode`; the values
# are stored elsewhere. (The paper's escape occupies a place itself, with a zero stored for it. Ours stores no value.)

# %%
def gap_encode(weight, index_bits):
    """Flat int64 tensor: for each non-zero weight in order, escapes as needed, then the rest of its gap."""
    ### BEGIN SOLUTION
    escape = 2**index_bits - 1
    codes, last = [], -1
    for position in weight.flatten().nonzero().flatten().tolist():
        zeros = position - last - 1
        codes += [escape] * (zeros // escape) + [zeros % escape]
        last = position
    return torch.tensor(codes, dtype=torch.int64)
    ### END SOLUTION

# %%
gap_encode = check("1.7", gap_encode)

# %% [markdown]
# Count the bits before you believe a file: 32 for each value, $b$ for each code; or one bit per weight for a **bit mask**.

# %%
index_bits = range(2, 13)
left = {name: layer.weight.detach() for name, layer in named_layers(sparse).items()}
n, kept = sum(w.numel() for w in left.values()), sum(int((w != 0).sum()) for w in left.values())
kilobytes = [sum(len(gap_encode(w, b)) for w in left.values()) * b / 8e3 for b in index_bits]
ax = figures.curves(
    {"gap codes": (index_bits, kilobytes), "one bit for each weight": (index_bits, [n / 8e3] * len(kilobytes))},
    "bits per code", "index, without the values (kB)", f"{kept:,} of {n:,} weights are left")
ax.set_ylim(bottom=0);

# %% [markdown]
# {{question 1.q4}}

# %%
### BEGIN SOLUTION
q4 = "a"
### END SOLUTION

# %%
q4 = answer("1.q4", q4)

# %% [markdown]
# **Measure.** The library's codes write real files; `GapSparseCode` is your code, packed, with the best width for each layer.

# %%
sizes["zeros left out, bit mask"] = file_size(encode(sparse, SparseCode.from_dense))
packed = encode(sparse, GapSparseCode.from_dense)
sizes["zeros left out, gap codes"] = file_size(packed)
yours = sum(min(-(-len(gap_encode(w, b)) * b // 8) for b in range(2, 9)) for w in left.values())
written = storage_report(packed).by_role
print(f"your count of the index: {yours:,} bytes")
print(f"in the file: {written['positions'] // 8:,} bytes of index, {written['values'] // 8:,} of values")
for name, size in sizes.items():
    print(f"{name:26} {size:9,} bytes")
reveal("1.p3", sizes["dense"] / sizes["zeros left out, gap codes"]);

# %% [markdown]
# Twenty times fewer weights, and the file is far from twenty times smaller: the places cost bits, biases and header stay. Chapters 02
# and 07 shrink the values, too.
#
# ## 5 Small is not unimportant
#
# Magnitude asks how large a weight is. The question is what its absence *costs*. At a minimum of the loss the gradient is zero, and a
# change $\delta w$ costs $\delta L = \tfrac12\,\delta w^\top H\,\delta w$ with the **Hessian** $H$.
#
# - **Optimal Brain Damage** (LeCun, Denker, Solla, NeurIPS 1989) uses the diagonal: $s_k = \tfrac12 h_{kk} w_k^2$.
# - **Optimal Brain Surgeon** (Hassibi and Stork, NeurIPS 1992) lets the other weights move, and charges what is then left.
#
# {{exercise 1.8}}
#
# Minimise $\tfrac12\,\delta w^\top H\,\delta w$ under the condition $w_q + \delta w_q = 0$. The answer is
#
# $$ \delta w = -\frac{w_q}{[H^{-1}]_{qq}}\, H^{-1} e_q, \qquad L_q = \frac{w_q^2}{2\,[H^{-1}]_{qq}} . $$
#
# Write `obs_remove`: it returns the new weights (exactly zero at $q$) and the rise $L_q$.

# %%
def obs_remove(w, H, q):
    """(new w with w[q] == 0 and the others moved, rise of the loss as a float); w is (n,), H (n, n)."""
    ### BEGIN SOLUTION
    H_inv = torch.linalg.inv(H)
    rise = w[q] ** 2 / (2 * H_inv[q, q])
    w = w - w[q] / H_inv[q, q] * H_inv[:, q]
    w[q] = 0
    return w, float(rise)
    ### END SOLUTION

# %%
obs_remove = check("1.8", obs_remove)

# %% [markdown]
# **See.** Twelve weights of one neuron whose inputs are correlated and of different sizes. First one weight goes, then more and more.

# %%
def obs_path(w, H, count):
    """Remove `count` weights, each time the cheapest: (rises of the loss, new weights, places)."""
    left, w, rises, gone = list(range(len(w))), w.clone(), [0.0], []
    for _ in range(count):
        H_left = H[left][:, left]
        q = int((w[left] ** 2 / (2 * torch.linalg.inv(H_left).diagonal())).argmin())
        w[left], rise = obs_remove(w[left], H_left, q)
        rises.append(rises[-1] + rise)
        gone.append(left.pop(q))
    return rises, w, gone

generator = torch.Generator().manual_seed(148)
size = torch.logspace(-0.4, 0.4, 12)
shared = torch.randn(500, 5, generator=generator) @ torch.randn(5, 12, generator=generator)
X = (shared + 0.4 * torch.randn(500, 12, generator=generator)) * size
H, w = X.T @ X / len(X), torch.randn(12, generator=generator) / size

def cost_of(order):
    """The rise of the loss when the first k weights of an order are zeroed and no other moves, k = 0 ... n."""
    rises = []
    for k in range(len(order) + 1):
        change = torch.zeros_like(w)
        change[order[:k]] = -w[order[:k]]
        rises.append(float(change @ H @ change / 2))
    return rises

by_size, by_obd = w.abs().argsort().tolist(), (H.diagonal() * w**2 / 2).argsort().tolist()
rises, _, by_obs = obs_path(w, H, 11)
for name, order in {"magnitude": by_size, "OBD": by_obd, "OBS": by_obs}.items():
    q = order[0]
    print(f"{name:10} removes w[{q}] = {w[q]:+.2f} first; the loss rises by {H[q, q] * w[q]**2 / 2:.4f} "
          f"if no other weight moves, by {obs_remove(w, H, q)[1]:.4f} if they may")
k = range(1, 11)
paths = {"magnitude": cost_of(by_size), "OBD": cost_of(by_obd), "OBS": rises}
series = {name: (k, path[1:11]) for name, path in paths.items()}
ax = figures.curves(series, "weights removed, of 12", "rise of the loss")
ax.set_yscale("log");

# %% [markdown]
# {{question 1.q5}}

# %%
### BEGIN SOLUTION
q5 = "b"
### END SOLUTION

# %%
q5 = answer("1.q5", q5)

# %% [markdown]
# **Apply** it to the last layer of LeNet-300-100. If each output shall stay what it was, the Hessian of every row is $H = XX^\top$, the
# second moments of the layer's inputs, and one matrix serves all ten rows. No training, no gradient.

# %%
H3 = input_moments(lenet, ["fc3"], ink.train.take(1000).batches(labels=False))["fc3"]
H3 = H3 + 0.01 * H3.diagonal().mean() * torch.eye(len(H3))      # a little damping, so that H has an inverse
count = 85
surgeon, plain = copy.deepcopy(lenet), copy.deepcopy(lenet)
for row in range(10):
    surgeon.fc3.weight.data[row] = obs_path(weights["fc3"][row].double(), H3, count)[1].float()
    plain.fc3.weight.data[row] *= magnitude_mask(weights["fc3"][row], count / 100)
for name, model in {"dense": lenet, "magnitude": plain, "OBS": surgeon}.items():
    share = (model.fc3.weight == 0).double().mean().item()
    print(f"{name:10} {share:4.0%} of fc3 zero: {accuracy(model, ink.test):.2%} right")

# %% [markdown]
# Chapter 09 turns this row-wise surgeon into SparseGPT and GPTQ by changing one line.
#
# ## 6 The lab: it did not get faster
#
# The second patient is a VGG-like convolutional network on `street_digits`. First the cheap way: 90 % of its weights are set to zero.
#
# {{prediction 1.p4}}

# %%
### BEGIN SOLUTION
p4 = (0.95, 1.3)
### END SOLUTION

# %%
p4 = predict("1.p4", p4)

# %%
street = load_data("street_digits", train=2000, validation=1000, test=1000)
seen = street.validation.take(200 if quick() else 400)
vgg = load_baseline("vgg")
nine_tenths = {name: magnitude_mask(layer.weight.detach(), 0.9) for name, layer in named_layers(vgg).items()}
holes = bake(masked(vgg, nine_tenths))
frame = street.test.x(slice(16))
times = time_models({"dense": vgg, "90 % zeros": holes}, frame, repeats=5 if quick() else 15, threads=1)
print({name: f"{timing.median:.1f} ms for 16 images" for name, timing in times.items()})
gain = speedup(times["dense"], times["90 % zeros"])
print(f"{gain.ratio:.2f}x, 95 % interval {gain.low:.2f} to {gain.high:.2f}: {gain.verdict}")
reveal("1.p4", gain.ratio);

# %% [markdown]
# {{question 1.q6}}

# %%
### BEGIN SOLUTION
q6 = "c"
### END SOLUTION

# %%
q6 = answer("1.q6", q6)

# %% [markdown]
# Kernels are fast on *dense, smaller* tensors. So take out whole **filters** (the weights that make one output channel). A channel of
# a convolution lives in three places: its filter, its entries in batch norm, and its input column in the layer that reads it.

# %%
figures.where_a_channel_lives();

# %% [markdown]
# {{exercise 1.9}}
#
# Write `remove_channels`: smaller copies of a convolution, its batch norm and the layer that reads them (`following`), with the
# channels `keep` only. `following` is a convolution or, behind a flatten, an `nn.Linear`: there channel $c$ with $P$ pixels owns the columns
# $cP, \dots, cP + P - 1$. Update the counters (`out_channels`, `num_features`, `in_channels` / `in_features`), too. `take` helps.

# %%
def take(parameter, keep, axis=0):
    """The entries `keep` along one axis, as a new parameter."""
    return nn.Parameter(parameter.detach().index_select(axis, keep).clone())

# %%
def remove_channels(conv, bn, following, keep):
    """(conv, bn, following): copies with the output channels `keep` (int64 indices) of conv only."""
    ### BEGIN SOLUTION
    channels = conv.out_channels
    conv, bn, following = copy.deepcopy((conv, bn, following))
    conv.weight, conv.out_channels = take(conv.weight, keep), len(keep)
    if conv.bias is not None:
        conv.bias = take(conv.bias, keep)
    bn.weight, bn.bias, bn.num_features = take(bn.weight, keep), take(bn.bias, keep), len(keep)
    bn.running_mean, bn.running_var = bn.running_mean[keep], bn.running_var[keep]
    if isinstance(following, nn.Conv2d):
        following.weight, following.in_channels = take(following.weight, keep, axis=1), len(keep)
    else:
        pixels = following.in_features // channels
        columns = (keep[:, None] * pixels + torch.arange(pixels)).flatten()
        following.weight, following.in_features = take(following.weight, columns, axis=1), len(columns)
    return conv, bn, following
    ### END SOLUTION

# %%
remove_channels = check("1.9", remove_channels)

# %% [markdown]
# Is it right? Removing a channel must do what zeroing its filter does. Try it on the first layer, without its ten weakest filters:

# %%
strength = vgg.features[0].weight.detach().abs().sum((1, 2, 3))            # the L1 norm of each filter
weakest, keep = strength.argsort()[:10].sort().values, strength.argsort()[10:].sort().values

def first_two(conv, bn, following, x=frame):
    """The output of the network's first two convolutions, with these three layers."""
    with torch.no_grad():
        return following(F.relu(bn(conv(x))))

conv, bn, following = vgg.features[0], vgg.features[1], vgg.features[3]
removed = first_two(*remove_channels(conv, bn, following, keep))
zeroed = copy.deepcopy(conv)
zeroed.weight.data[weakest] = 0
difference = (removed - first_two(zeroed, bn, following)).abs().max()
print(f"removed against zero filter: largest difference {difference:.3g}")
print(f"the largest output is {removed.abs().max():.3g}")

# %% [markdown]
# Not equal! Somebody is still talking.
#
# {{exercise 1.10}}
#
# Batch norm in eval mode maps a channel's value $x$ to $\gamma\,(x - \mu)/\sqrt{\sigma^2 + \varepsilon} + \beta$. Find what a channel
# **leaks** through batch norm and relu when only its filter is zero, and stop it. Write `silence_channels`: copies of `conv` (which has
# no bias) and `bn` in which these channels are silent behind the relu for every input, and the leak each of them had.

# %%
def silence_channels(conv, bn, channels):
    """(conv, bn, leak): silenced copies; leak[i] is what channels[i] emits if only its filter is zero."""
    ### BEGIN SOLUTION
    conv, bn = copy.deepcopy((conv, bn))
    std = torch.sqrt(bn.running_var + bn.eps)
    leak = F.relu(bn.bias - bn.weight * bn.running_mean / std)[channels].detach()
    for parameter in (conv.weight, bn.weight, bn.bias):
        parameter.data[channels] = 0
    return conv, bn, leak
    ### END SOLUTION

# %%
silence_channels = check("1.10", silence_channels)

# %%
quiet_conv, quiet_bn, _ = silence_channels(conv, bn, weakest)
difference = (removed - first_two(quiet_conv, quiet_bn, following)).abs().max()
print(f"removed against silenced: largest difference {difference:.3g}")
leak = silence_channels(conv, bn, torch.arange(conv.out_channels))[2]
print(f"{int((leak > 0).sum())} of {len(leak)} channels of this layer would leak")
figures.leaks(leak);

# %% [markdown]
# A zero filter is not a removed channel. A method that zeroes filters, measures the accuracy and then removes them
# measures another network than it ships.
#
# {{question 1.q7}}

# %%
### BEGIN SOLUTION
q7 = "b"
### END SOLUTION

# %%
q7 = answer("1.q7", q7)

# %% [markdown]
# **Apply.** The whole chain, layer by layer, with your function. Kernels work on blocks of channels, so `channels_left` keeps
# multiples of sixteen. Which ones? Here those with the largest L1 norm (Li et al., ICLR 2017).
#
# {{prediction 1.p5}}

# %%
### BEGIN SOLUTION
p5 = (1.4, 2.3)
### END SOLUTION

# %%
p5 = predict("1.p5", p5)

# %%
from compresslab.course.chapter01.opening import channels_left

def prune_chain(model, scores, share=0.7):
    """A VGG-like network with the best channels only; scores: {place of the convolution: (channels,)}."""
    layers = [*copy.deepcopy(model.features), copy.deepcopy(model.classifier)]
    places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    for here, after in zip(places, [*places[1:], len(layers) - 1]):      # each convolution, and who reads it
        keep = scores[here].topk(channels_left(len(scores[here]), share)).indices.sort().values
        smaller = remove_channels(layers[here], layers[here + 1], layers[after], keep)
        layers[here], layers[here + 1], layers[after] = smaller
    small = copy.deepcopy(model)
    small.features, small.classifier = nn.Sequential(*layers[:-1]), layers[-1]
    return small

filters = {place: layer for place, layer in enumerate(vgg.features) if isinstance(layer, nn.Conv2d)}
l1 = {place: conv.weight.detach().abs().sum((1, 2, 3)) for place, conv in filters.items()}
half = prune_chain(vgg, l1)
networks = {"dense": vgg, "90 % zeros": holes, "half the MACs": half}
macs = {name: count_macs(model, street.train.shape).total for name, model in networks.items()}
print({name: f"{count:,} MACs" for name, count in macs.items()})
times = time_models(networks, frame, repeats=5 if quick() else 15, threads=1)
gain = speedup(times["dense"], times["half the MACs"])
print(f"{macs['dense'] / macs['half the MACs']:.2f}x fewer MACs")
print(f"{gain.ratio:.2f}x, 95 % interval {gain.low:.2f} to {gain.high:.2f}: {gain.verdict}")
reveal("1.p5", gain.ratio);

# %% [markdown]
# No special kernel, no special format: an ordinary, smaller network. What did it cost? Without training, much; one short pass brings a
# good part back.

# %%
few = street.train.take(256 if quick() else 512)
recovered = train(half, few, epochs=1, batch_size=32, lr=0.003, warmup=0.0, progress=False)
for name, model in {**networks, "half, one short pass": recovered}.items():
    print(f"{name:22} {accuracy(model, seen):.1%} of {len(seen)} validation images right")

# %%
figures.smaller_faster(sizes, {name: timing.median for name, timing in times.items()});

# %% [markdown]
# That is the figure that was promised.
#
# ## 7 Which channels?
#
# {{exercise 1.11}}
#
# A norm does not know the loss. Molchanov et al. (ICLR 2017, CVPR 2019) ask, to first order, how much the loss changes when a channel
# is switched off. With its feature map $y$ and the gradient $g = \partial L / \partial y$:
#
# $$ I_c = \Big(\sum_{n,h,w} g_{nchw}\, y_{nchw}\Big)^2 $$
#
# Write `taylor_importance`.

# %%
def taylor_importance(y, g):
    """(C,) from a feature map y and its gradient g, both (N, C, H, W)."""
    ### BEGIN SOLUTION
    return (y * g).sum(dim=(0, 2, 3)) ** 2
    ### END SOLUTION

# %%
taylor_importance = check("1.11", taylor_importance)

# %% [markdown]
# Where to measure it, in front of the batch norm or behind? The tempting place is the filter itself, $\sum g\,w$ over its weights:

# %%
def feature_maps_and_gradients(model, x, y):
    """{place of the batch norm: (its output, the gradient of the loss there)}, batch norms in train mode."""
    model, maps, value = copy.deepcopy(model).train(), {}, x
    for place, layer in enumerate(model.features):
        value = layer(value)
        if isinstance(layer, nn.BatchNorm2d):
            value.retain_grad()
            maps[place] = value
            value = value + 0                    # the relu behind may work in place; the map shall stay
    F.cross_entropy(model.classifier(value.flatten(1)), y).backward()
    return {place: (output.detach(), output.grad) for place, output in maps.items()}, model

x, y = next(street.train.batches(32 if quick() else 128))
maps, tried = feature_maps_and_gradients(vgg, x, y)
for place in (0, 7, 14):
    weight = tried.features[place].weight
    inside = (weight.grad * weight.detach()).sum((1, 2, 3)).abs().max()
    behind = taylor_importance(*maps[place + 1]).sqrt().max()
    print(f"features.{place:<3} norm of the gradient {weight.grad.norm():.1e}; "
          f"largest sum of g*w over a filter {inside:.1e}, of g*y behind batch norm {behind:.1e}")

# %% [markdown]
# {{question 1.q8}}

# %%
### BEGIN SOLUTION
q8 = "b"
### END SOLUTION

# %%
q8 = answer("1.q8", q8)

# %% [markdown]
# **Measure.** Four criteria, the same number of channels from each layer, no training. The batch norm's scale $|\gamma|$ is the criterion
# of network slimming (Liu et al., ICCV 2017), which also trains with an L1 penalty on it.

# %%
def averaged(y, g, images=32):
    """The importance summed over small batches: the sign of one batch's change must not hide another's."""
    return sum(taylor_importance(*pair) for pair in zip(y.split(images), g.split(images)))

generator, tasters = torch.Generator().manual_seed(0), seen.take(min(250, len(seen)))
criteria = {
    "L1 norm": l1,
    "batch-norm scale": {place: vgg.features[place + 1].weight.detach().abs() for place in filters},
    "Taylor": {place: averaged(*maps[place + 1]) for place in filters},
    "random": {place: torch.rand(conv.out_channels, generator=generator) for place, conv in filters.items()},
}
for name, scores in criteria.items():
    found = [accuracy(prune_chain(vgg, scores, share), tasters) for share in (0.85, 0.7)]
    print(f"{name:18} 85 % of the channels left: {found[0]:6.1%} right   70 % left: {found[1]:6.1%} right")

# %% [markdown]
# 250 images, one seed: only large distances mean anything here, and retraining shrinks them. The random row is the control. One distance
# *is* large: with 70 % left, Taylor falls far behind the norm. It estimates what *one* channel costs, to first order, and here many go at
# once. The papers take a few, train on, and ask again.
#
# ## 8 Shortcuts tie channels together
#
# In a chain every layer may choose its own victims. Try the same in a **residual network**, where the block's input is added to its output:

# %%
resnet = load_baseline("resnet8")
broken = copy.deepcopy(resnet)
block, after = broken.stage1[0], broken.stage2[0]
keep = torch.arange(8)
block.conv2, block.bn2, after.conv1 = remove_channels(block.conv2, block.bn2, after.conv1, keep)
try:
    broken(frame)
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# The block now adds 8 channels to 16. Whatever is added must have the same channels: the layers on both sides of a $+$ are **coupled**,
# and the coupling spreads from one addition to the next.
#
# {{exercise 1.12}}
#
# Write `coupled_layers`: from the names of the layers that write channels, and the pairs whose outputs are added, to the groups of layers
# that must lose the same channels. A layer that is never added is a group of its own.

# %%
def coupled_layers(layers, adds):
    """Lists of layer names, sorted, and the list of them sorted: which layers lose channels together."""
    ### BEGIN SOLUTION
    groups = [{layer} for layer in layers]
    for a, b in adds:
        first = next(group for group in groups if a in group)
        second = next(group for group in groups if b in group)
        if first is not second:
            groups.remove(second)
            first |= second
    return sorted(sorted(group) for group in groups)
    ### END SOLUTION

# %%
coupled_layers = check("1.12", coupled_layers)

# %% [markdown]
# ResNet-8 has three blocks, so three additions. Compare your groups with those that the library finds by tracing the network:

# %%
from compresslab.pruning import trace_channels

names = [name for name, layer in named_layers(resnet).items() if isinstance(layer, nn.Conv2d)]
adds = [("conv1", "stage1.0.conv2"), ("stage2.0.shortcut.0", "stage2.0.conv2"),
        ("stage3.0.shortcut.0", "stage3.0.conv2")]
for group in coupled_layers(names, adds):
    print(" + ".join(group))
print()
print(trace_channels(resnet, frame))

# %% [markdown]
# Now by hand: the first group is written by two convolutions and read by three. Your functions do it, and prove it: the network without
# the channels computes what the network with *silenced* channels computes.

# %%
strength = sum(layer.weight.detach().abs().sum((1, 2, 3)) for layer in (resnet.conv1, resnet.stage1[0].conv2))
keep, gone = strength.topk(8).indices.sort().values, strength.topk(8, largest=False).indices.sort().values

small = copy.deepcopy(resnet)
one, two = small.stage1[0], small.stage2[0]
small.conv1, small.bn1, one.conv1 = remove_channels(small.conv1, small.bn1, one.conv1, keep)
one.conv2, one.bn2, two.conv1 = remove_channels(one.conv2, one.bn2, two.conv1, keep)
two.shortcut[0].weight, two.shortcut[0].in_channels = take(two.shortcut[0].weight, keep, axis=1), len(keep)

silent = copy.deepcopy(resnet)
one = silent.stage1[0]
silent.conv1, silent.bn1, _ = silence_channels(silent.conv1, silent.bn1, gone)
one.conv2, one.bn2, _ = silence_channels(one.conv2, one.bn2, gone)
with torch.no_grad():
    difference = (small(frame) - silent(frame)).abs().max().item()
print(*(f"{count_macs(model, street.train.shape).total:,} MACs" for model in (resnet, small)), sep=" -> ")
print(f"physical against masked: largest difference {difference:.1e}")

# %% [markdown]
# `compresslab.pruning.prune_channels` does this for any network that `torch.fx` can trace, with concatenations, depthwise convolutions and
# shared layers. **Whole layers** go more simply still: a residual block whose shape does not change is replaced by its shortcut.

# %%
shallow = copy.deepcopy(resnet)
shallow.stage1[0] = nn.Identity()
for name, model in {"ResNet-8": resnet, "half of one group": small, "without its first block": shallow}.items():
    print(f"{name:24} {count_macs(model, street.train.shape).total:10,} MACs, {accuracy(model, seen):.1%} right, not retrained")

# %% [markdown]
# ## 9 Patterns between single weights and channels
#
# {{exercise 1.13}}
#
# **N:M sparsity** keeps $n$ of every $m$ neighbours in a row. Some GPUs multiply 2:4-sparse matrices in hardware (Mishra et al., arXiv 2021):
# the regular pattern tells them where to look. Write `nm_mask`; refuse a width that $m$ does not divide with a `ValueError`.

# %%
def nm_mask(weight, n, m):
    """Bool mask of a (outputs, inputs) weight: of every m neighbouring inputs the n largest stay."""
    ### BEGIN SOLUTION
    if weight.shape[1] % m:
        raise ValueError(f"m={m} does not divide the {weight.shape[1]} inputs")
    blocks = weight.abs().reshape(-1, m)
    kept = blocks.argsort(dim=1, descending=True)[:, :n]
    return torch.zeros_like(blocks, dtype=torch.bool).scatter(1, kept, True).view(weight.shape)
    ### END SOLUTION

# %%
nm_mask = check("1.13", nm_mask)

# %%
from compresslab.pruning import block_mask

def filter_mask(weight, sparsity):
    """Whole rows (neurons), the ones with the smallest norm."""
    return magnitude_mask(weight.norm(dim=1), sparsity)[:, None].expand(weight.shape)

patterns = {
    "single weights": magnitude_mask,
    "2 or 1 of 4": lambda weight, sparsity: nm_mask(weight, round(4 * (1 - sparsity)), 4),
    "blocks of 1x4": lambda weight, sparsity: block_mask(weight, (1, 4), sparsity),
    "whole neurons": filter_mask,
}
found = {}
for name, make in patterns.items():
    found[name] = {}
    for s in (0.5, 0.75):
        cut = masked(lenet, {layer: make(weights[layer], s) for layer in ("fc1", "fc2")})
        found[name][f"{s:.0%} of fc1 and fc2 pruned"] = 100 * accuracy(cut, judges)
figures.patterns(found);

# %% [markdown]
# The freedom to choose is what accuracy wants, and regularity is what hardware wants. One row is a surprise: blocks of four hurt less than
# "of every four, some must stay". Blocks may go where nobody looks, at the blank border of the images, and leave the centre whole; N:M must
# prune everywhere alike. Retraining narrows the gaps; training *for* a pattern (group lasso, in `compresslab.pruning`) narrows them further.
#
# ## 10 Your turn: 24 kB
#
# {{exercise 1.14}}
#
# Make a file of at most **24,000 bytes** that holds a network with at least **95 %** accuracy on `ink_digits`. The check loads the file in a fresh
# process into a network full of NaN, counts every byte, and judges on 5,000 images that nobody has seen. You have everything you
# need: `prune_gradually`, `train`, `encode`, `save`. Half a minute of training is enough. Choose on `ink.validation`. Set `my_file` to the path.

# %%
from compresslab.course.budget import submission_path

### BEGIN SOLUTION
steps = 4 * -(-len(ink.train) // 128)
prune = prune_gradually(0.985, steps, every=20)
network = train(lenet, ink.train, epochs=4, lr=0.2, after_step=prune, progress=False)
save(encode(bake(network), GapSparseCode.from_dense), submission_path("1.14"))
my_file = str(submission_path("1.14"))
### END SOLUTION

# %%
my_file = check("1.14", my_file)

# %% [markdown]
# ## 11 Your ledger
#
# Four rows for your ledger: the two patients, the sparse file and the small network. One row per network, one ruler for all.

# %%
judged = street.test.take(200 if quick() else 500)
rows = [measure(lenet, ink.test, name="LeNet-300-100", repeats=5),
        measure(packed, ink.test, baseline=lenet, name="LeNet, 95 % pruned", repeats=5),
        measure(vgg, judged, name="VGG-like", batch=16, repeats=5, threads=1),
        measure(recovered, judged, baseline=vgg, name="VGG-like, half the MACs", batch=16, repeats=5, threads=1)]
print(format_rows(rows[:2]), format_rows(rows[2:]), sep="\n\n")
for row in rows:
    ledger.add(row, chapter="01", family="pruning" if "," in row.name else "dense")

# %%
ledger.pareto();

# %% [markdown]
# Two things to read off. The sparse row is *packed*: small in the file, as slow as before once it is unpacked. And the rows of two data
# sets stand in one figure: compare within a set only.
#
# ## What was simplified
#
# - Han et al. (2015) prune by a threshold relative to each layer's spread, in several rounds; we give the share and use one schedule.
# - Zhu and Gupta prune every hundred steps over thousands; we prune every ten over a few hundred.
# - OBS in the paper uses the Hessian of the whole network and recomputes it. Row-wise with $H = XX^\top$ it is the form that scales.
# - Li et al. let one filter group decide for a residual stage, and retrain for forty epochs. We sum the norms of the coupled filters.
# - Molchanov et al. average their importance over many batches while they train; we took 128 images once.
# - Published ratios count weights, and mostly no index: Han et al. report 9x fewer parameters for AlexNet and 13x for VGG-16 on ImageNet.
#
# ## Further reading
#
# - LeCun, Denker, Solla, *Optimal Brain Damage*, NeurIPS 1989, and Hassibi, Stork, *Optimal Brain Surgeon*, NeurIPS 1992: the theory, in a few pages.
# - Han, Pool, Tran, Dally, *Learning both Weights and Connections for Efficient Neural Networks*, NeurIPS 2015.
# - Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017; Liu et al., *Network Slimming*, ICCV 2017; Luo, Wu, Lin, *ThiNet*, ICCV 2017.
# - Molchanov et al., *Importance Estimation for Neural Network Pruning*, CVPR 2019; He et al., *Filter Pruning via Geometric Median*, CVPR 2019.
# - Liu et al., *Rethinking the Value of Network Pruning*, ICLR 2019, and Blalock et al., *What is the State of Neural Network Pruning?*, MLSys 2020: read both before you believe a table.
# - Frantar, Alistarh, *SparseGPT*, ICML 2023: exercise 1.8 for billions of weights.
#
# **Next:** chapter 02 keeps all weights and spends fewer bits on each.

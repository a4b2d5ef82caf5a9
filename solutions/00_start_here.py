# %% [markdown]
# # Start here: a ruler for compressed networks
#
# After this chapter you can say of any "compressed" network how many bytes its **file** has, how many **operations** one image
# takes, how many **milliseconds** they last, and whether its **accuracy** really differs from the original's.
# You build that ruler yourself, function by function, and every later chapter measures with it.
# At the end your own ledger holds a trained network and three simple compressions of it. This is the figure you will have made;
# two of its rows hold the same weights:

# %%
import torch

from compresslab.course import answer, calibration, check, hint, ledger, load_evidence
from compresslab.course import plots, predict, quick, reveal, solution, widgets
from compresslab.course.chapter00 import figures
from compresslab.course.chapter00 import widgets as curves

plots.style()
figures.ruler(load_evidence("00")["ruler"]);

# %% [markdown]
# **Time** about two hours. **You need** Python, a little PyTorch, the idea of a standard deviation.
# **In a workshop** do exercises 0.1, 0.2, 0.6 and 0.9 with their predictions and questions; skip 0.3, 0.4, 0.5, 0.7 and 0.8.
#
# ## 1 Set up
#
# The **doctor** looks at this machine. Where something is wrong, it prints the line that repairs it.

# %%
from compresslab.course import doctor

ready = doctor.report()

# %% [markdown]
# ### Seven families
#
# A trained network is mostly matrices of numbers, its **weights**. There are seven families of ways to make it smaller or faster, and
# each has a chapter. Pruning, quantization, low rank and sharing change the weights of a *given* network; compact networks
# and distillation build and train a *smaller* one; hybrid methods combine.

# %%
figures.seven_families();

# %% [markdown]
# *Hatched cells are zeros, equal shades are equal numbers.* Whichever family you like best: it promises something, and the promise
# has to be measured. That is what this chapter is about.
#
# ### How the course works
#
# You write a function and hand it to `check`. There are three answers:
#
# | state | what you see | what happens |
# |---|---|---|
# | **to do** | ○ still to do | the stub is still there: the notebook goes on with our function, so every later cell runs |
# | **wrong** | ✗ what is wrong, and the smallest input on which it goes wrong | the cell fails; repair your function and run both cells again |
# | **passed** | ✓ what was verified | the notebook goes on with *your* function |
#
# Stuck? Open a new cell and run `hint("0.1")`: each call says a little more; `solution("0.1")` shows ours. Dots give the difficulty,
# one to five. Each exercise names the mistaken belief that it cures. Before a surprising number you **predict** it, afterwards
# you answer a **question** about it. In a terminal, `python -m compresslab check 00` runs this whole notebook and lists
# your points; `python -m compresslab progress` shows all chapters. The smallest exercise first:
#
# {{exercise 0.1}}
#
# The **compression ratio** of a network is
#
# $$ r = \frac{\text{bits before}}{\text{bits after}}, $$
#
# so that $r = 10$ means ten times smaller. Write `compression_ratio`. You get the bits of every layer, before and after; return the
# ratio of the whole network.

# %%
def compression_ratio(dense_bits, compressed_bits):
    """Two tensors with the bits of each layer, before and after; returns the network's ratio, > 1 is smaller."""
    ### BEGIN SOLUTION
    return dense_bits.sum() / compressed_bits.sum()
    ### END SOLUTION

# %%
compression_ratio = check("0.1", compression_ratio)

# %% [markdown]
# Papers say "10x", "90 % smaller" and "0.1 of the size" for one and the same thing. And somebody may report the mean of the layers'
# ratios. Here is what that is worth: three layers, of which only the two small ones are compressed, 100 times.

# %%
dense_bits = 32 * torch.tensor([784 * 300, 300 * 100, 100 * 10])
compressed_bits = dense_bits // torch.tensor([1, 100, 100])
print(f"mean of the layers' ratios: {(dense_bits / compressed_bits).mean():5.1f}")
print(f"ratio of the network:       {compression_ratio(dense_bits, compressed_bits):5.2f}\n")
print("  ratio   saved")
for ratio in (2, 4, 10, 50, 100):
    print(f"{ratio:>5}x  {1 - 1 / ratio:6.1%}")

# %% [markdown]
# ## 2 A network to measure
#
# `ink_digits` are digits that the course draws by itself: no download. The images come in three parts: **train** fits weights,
# **validation** chooses settings, **test** judges, and only judges. We need just the test images here.
# LeNet-300-100 is a network of three linear layers; a trained one ships with the course.

# %%
import copy
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from compresslab.core.train import predict_labels
from compresslab.data import load_data
from compresslab.models import baseline_info, load_baseline

torch.set_num_threads(1)  # such small networks gain nothing from a second core, and times are steadier on one
test = load_data("ink_digits", train=0, validation=0).test
dense = load_baseline("lenet300")
labels = test.y
predictions = {"dense": predict_labels(dense, test)}

print(dense)
print(f"{sum(p.numel() for p in dense.parameters()):,} parameters; {len(test):,} test images; "
      f"{(predictions['dense'] == labels).double().mean():.2%} right")

# %%
wrong = (predictions["dense"] != labels).nonzero().flatten()[:10]
shown = torch.cat([torch.arange(10), wrong])
titles = [f"{said} (is {label})" if said != label else f"{said}"
          for said, label in zip(predictions["dense"][shown], labels[shown])]
figures.images(test.images[shown], titles);

# %% [markdown]
# *Above: the first ten images and what the network says. Below: ten that it gets wrong.*
#
# Now two naive compressions, as simple as they come. `drop_smallest` sets the smallest weights of each layer to zero, the idea of
# chapter 01; the fraction of zeros is the **sparsity**. `round_weights` rounds each weight to one of a few levels, the idea of
# chapter 02. Neither trains anything again, and both return a *new* network.

# %%
def drop_smallest(model, sparsity):
    """A copy in which the smallest weights of every linear layer are zero; sparsity is their fraction."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            flat = layer.weight.data.flatten()
            flat[flat.abs().argsort()[: round(sparsity * len(flat))]] = 0
            layer.weight.data = flat.view_as(layer.weight)
    return model


def round_weights(model, bits):
    """A copy whose weights are whole multiples of one step per layer, from -(2^(bits-1)-1) to 2^(bits-1)-1 steps."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            scale = layer.weight.abs().max() / (2 ** (bits - 1) - 1)
            layer.weight.data = (layer.weight.data / scale).round() * scale
    return model


dropped = drop_smallest(dense, 0.8)
rounded = round_weights(dense, bits=4)
for name, model in (("80 % zeros", dropped), ("4-bit", rounded)):
    predictions[name] = predict_labels(model, test)
for name, answers in predictions.items():
    print(f"{name:12} {(answers == labels).double().mean():.2%}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.6), sharey=True)
for ax, (name, model) in zip(axes, (("dense", dense), ("80 % zeros", dropped), ("4-bit", rounded))):
    ax.hist(model.fc1.weight.detach().flatten(), bins=121, range=(-0.15, 0.15), color="#0072B2",
            histtype="stepfilled", log=True)
    ax.set(title=name, xlabel="weight of the first layer")
axes[0].set_ylabel("how many");

# %% [markdown]
# ## 3 Accuracy, and how sure you are of it
#
# The rounded network is a little worse than the dense one, on these 10,000 test images; MNIST and CIFAR-10 have just as many. Would
# it be worse on others? Suppose you had only 500.

# %%
n_right = {name: int((answers == labels).sum()) for name, answers in predictions.items()}
better, worse = sorted(("dense", "4-bit"), key=n_right.get, reverse=True)
for name in (better, worse):
    print(f"{name:6} {n_right[name] / len(labels):.2%} of {len(labels):,} images")

# %% [markdown]
# {{prediction 0.p1}}

# %%
### BEGIN SOLUTION
p1 = (5, 25)
### END SOLUTION

# %%
p1 = predict("0.p1", p1)

# %%
generator = torch.Generator().manual_seed(0)
tests = []
for _ in range(2000):
    some = torch.randperm(len(labels), generator=generator)[:500]
    right = {name: (predictions[name][some] == labels[some]).double().mean() for name in (better, worse)}
    tests.append(100 * float(right[worse] - right[better]))
tests = torch.tensor(tests)
deceived = reveal("0.p1", 100 * (tests >= -1e-9).double().mean())

ax = plt.subplots(figsize=(6.4, 2.6))[1]
ax.hist(tests, bins=(torch.arange(-16, 10) / 5 - 0.1).tolist(), color="#56B4E9", edgecolor="black")
ax.axvline(0, color="black")
ax.set(xlabel=f"accuracy of {worse} minus accuracy of {better}, 500 images (points)",
       ylabel="tests of 2,000");

# %% [markdown]
# Everything to the right of the line is a test in which the worse network would have been printed as the better one, or as
# equal. A single accuracy says nothing about this. What you need is the difference *with its uncertainty*.
#
# Both networks answer the *same* images, and that helps: an easy image is right for both, a hopeless one wrong for both, and neither
# says anything about the difference. Only the **flips** do, the images that one network has right and the other wrong. With
# the answers $a_i$ and $b_i$ and the labels $y_i$:
#
# $$ d_i = [a_i = y_i] - [b_i = y_i], \qquad \hat\Delta = \frac1n \sum_i d_i, \qquad
# s^2 = \frac1{n-1}\sum_i (d_i - \hat\Delta)^2, \qquad \hat\Delta \pm 1.96\, \frac{s}{\sqrt n} $$
#
# where $[\cdot]$ is 1 if it is true, else 0. This is the **paired difference** with its **95 % interval**: of 100 such intervals,
# from 100 test sets, about 95 hold the true difference.
#
# {{exercise 0.2}}
#
# Write `paired_difference`. Fractions, not percent.

# %%
def paired_difference(predictions_a, predictions_b, labels):
    """The accuracy of A minus that of B on the same images: (difference, low, high), with its 95 % interval."""
    ### BEGIN SOLUTION
    d = (predictions_a == labels).double() - (predictions_b == labels).double()
    difference = d.mean()
    margin = 1.96 * d.std() / len(d) ** 0.5
    return difference, difference - margin, difference + margin
    ### END SOLUTION

# %%
paired_difference = check("0.2", paired_difference)

# %% [markdown]
# Now the same two networks with 500 and with all images. Beside your interval stands the **unpaired** one, which treats the
# networks as if each had seen images of its own: it throws away what you know.

# %%
def unpaired_margin(a, b, labels):
    variances = [right * (1 - right) for right in ((p == labels).double().mean() for p in (a, b))]
    return 1.96 * (sum(variances) / len(labels)) ** 0.5


for name in ("80 % zeros", "4-bit"):
    for n in (500, 2000, len(labels)):
        a, b, y = predictions[name][:n], predictions["dense"][:n], labels[:n]
        difference, low, high = (100 * float(value) for value in paired_difference(a, b, y))
        verdict = "not distinguishable" if low <= 0 <= high else "different"
        print(f"{name:10} n = {n:6,}: {difference:+6.2f} points [{low:+6.2f}, {high:+6.2f}]  {verdict:20}"
              f" unpaired: +-{100 * unpaired_margin(a, b, y):.2f}")

# %% [markdown]
# From now on nobody in this course "beats" anybody whose interval holds 0. We write **not distinguishable**, which is not the
# same as equal. Play with the number of test images: each line is a network that is 0.2 points better than another, for several
# shares of images that flip.

# %%
widgets.slider(curves.paired_intervals, curves.draw_paired_intervals, name="test images (thousands)", low=0.5, high=50,
               step=0.5, start=2, static=(2, 10, 50))

# %% [markdown]
# *Solid and filled: told apart. Dashed and hollow: the interval holds 0.* The margin shrinks with $1/\sqrt n$: four times the images,
# half the margin. And it grows with the flips: networks that are alike, such as a network and its careful compression, can be told
# apart by fewer images than two networks that were trained separately.
#
# {{question 0.q1}}

# %%
### BEGIN SOLUTION
q1 = "d"
### END SOLUTION

# %%
q1 = answer("0.q1", q1)

# %% [markdown]
# ### An accuracy that will not stand still
#
# Somebody in your group wrote this function. It looks right, and on LeNet-300-100 it *is* right. Here it measures a small residual
# network right after a training session. The network and the images stay the same; only the size of the batches changes.

# %%
def buggy_evaluate(model, batches):
    """The fraction of right answers. There is one bug here."""
    correct = total = 0
    with torch.no_grad():
        for x, y in batches:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    return correct / total


street = load_data("street_digits", train=0, validation=0, test=240).test
trained = load_baseline("resnet8").train()  # as a training loop leaves it
before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
for size in (4, 16, 60, 240):
    print(f"batches of {size:3}: {buggy_evaluate(trained, street.batches(size)):.1%}")
changed = [name for name, tensor in trained.state_dict().items() if not tensor.equal(before[name])]
print(f"changed by measuring: {len(changed)} of the network's {len(before)} tensors, such as {changed[0]}")
trained.load_state_dict(before);

# %%
figures.images(street.images[:10], [str(int(y)) for y in street.y[:10]]);

# %% [markdown]
# *`street_digits`: the digit in the middle counts.*
#
# {{exercise 0.3}}
#
# Write `evaluate`: the accuracy of the network *as it would be deployed*, whatever mode it comes in. Measuring must not change it:
# it goes back in the mode in which it came.

# %%
def evaluate(model, batches):
    """The fraction of right answers of the deployed network; the model comes back as it was given."""
    ### BEGIN SOLUTION
    was_training = model.training
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for x, y in batches:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    model.train(was_training)
    return correct / total
    ### END SOLUTION

# %%
evaluate = check("0.3", evaluate)

# %%
for size in (4, 16, 60, 240):
    print(f"batches of {size:3}: {evaluate(trained, street.batches(size)):.1%}")
unchanged = all(tensor.equal(before[name]) for name, tensor in trained.state_dict().items())
print(f"in train mode as before: {trained.training}; unchanged: {unchanged}")

# %% [markdown]
# In **train mode** a batch-norm layer normalises with the mean and variance of *this* batch, and a dropout layer drops; in **eval
# mode** batch norm uses the statistics collected in training, and dropout does nothing. So the buggy accuracy depended on which images
# shared a batch, and every measurement moved the collected statistics a little. `torch.no_grad()` prevents neither: it only saves the
# memory for gradients.

# %% [markdown]
# ## 4 Bytes: what the file really holds
#
# *"We removed 80 % of the weights, so the model is five times smaller."* You have that network already, `dropped`. Save it.

# %%
folder = Path(tempfile.mkdtemp())


def file_bytes(state, name):
    """Write a state_dict to a file and ask the disk how large it is."""
    path = folder / f"{name}.safetensors"
    save_file(state, path)
    return path.stat().st_size


for name, layer in dropped.named_children():
    print(f"{name}: {layer.weight.numel():7,} weights, {(layer.weight == 0).double().mean():.1%} zeros")
sizes = {"dense": file_bytes(dense.state_dict(), "dense"),
         "80 % zeros": file_bytes(dropped.state_dict(), "dropped")}
for name, size in sizes.items():
    print(f"{name:12} {size:9,} bytes")

# %% [markdown]
# Nothing is saved. A zero in a dense tensor is a number like any other: 32 bits, all of them 0. While you still train, it is worse: then
# a **mask** says which weights must stay zero, and is in the `state_dict`, too.

# %%
from compresslab.core import apply_mask_

masked = copy.deepcopy(dense)
for layer in masked.children():
    magnitude = layer.weight.detach().abs()
    apply_mask_(layer, magnitude > magnitude.quantile(0.8))
sizes["masked, in training"] = file_bytes(masked.state_dict(), "masked")
for name, tensor in masked.fc1.state_dict().items():
    print(f"fc1.{name:33} {tensor.dtype}")
print(f"{sizes['masked, in training']:,} bytes: {sizes['dense'] / sizes['masked, in training']:.2f} times smaller")

# %% [markdown]
# So use a format that is made for zeros. PyTorch has one: `weight.to_sparse()` keeps the nonzeros only, each with its position.

# %%
print(torch.tensor([[0, 1.5, 0, 0], [0, 0, 0, -0.5]]).to_sparse())

# %% [markdown]
# {{prediction 0.p2}}

# %%
### BEGIN SOLUTION
p2 = (3, 5)
### END SOLUTION

# %%
p2 = predict("0.p2", p2)

# %%
state = {}
for name, tensor in dropped.state_dict().items():
    if tensor.ndim == 2:
        sparse = tensor.to_sparse()
        state |= {f"{name}.indices": sparse.indices(), f"{name}.values": sparse.values()}
    else:
        state[name] = tensor
sizes["80 % zeros, to_sparse"] = file_bytes(state, "to_sparse")
for part in ("indices", "values"):
    tensor = state[f"fc1.weight.{part}"]
    print(f"fc1.weight.{part:8} {tuple(tensor.shape)!s:12} {tensor.dtype}")
ratio = reveal("0.p2", sizes["dense"] / sizes["80 % zeros, to_sparse"])

# %% [markdown]
# Nothing again! A position is a row and a column, 64 bits each, and its value has 32: 160 bits for one weight in five, 32 on average.
#
# So count before you claim. A tensor is a window onto a **storage**, a plain block of bytes. Two names may look at the same block:
# **tied** weights (one matrix, used at both ends of a language model) and **views** (a slice, a transpose). A file holds
# the block once.
#
# {{exercise 0.4}}
#
# Write `storage_bits`: the bits of all *distinct* storages behind a `state_dict`.

# %%
def storage_bits(state):
    """state: {name: tensor}. The bits of all storages behind these tensors, each storage counted once, in full."""
    ### BEGIN SOLUTION
    sizes = {}
    for tensor in state.values():
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return 8 * sum(sizes.values())
    ### END SOLUTION

# %%
storage_bits = check("0.4", storage_bits)

# %%
tied = nn.ModuleDict({"embed": nn.Embedding(1000, 64), "head": nn.Linear(64, 1000, bias=False)})
tied["head"].weight = tied["embed"].weight
for name, model in {"LeNet-300-100": dense, "masked, in training": masked, "tied": tied}.items():
    state = model.state_dict()
    numbers = sum(tensor.numel() for tensor in state.values())
    print(f"{name:20} {numbers:8,} numbers under {len(state)} names, {storage_bits(state) // 8:9,} bytes")
header = sizes["dense"] - storage_bits(dense.state_dict()) // 8
print(f"the dense file has {header} bytes more: its header, with names and shapes")

# %% [markdown]
# ### Fewer bits
#
# The weights of `rounded` take one of 15 values, so 4 bits would do. But the smallest number a tensor can hold is 8 bits wide, and even
# a boolean takes a whole byte. To use 4 bits you must **pack**: write the bits of all codes in one row and cut the row into bytes.
# Our file puts the *lowest bit first*: code $c_i$ of $b$ bits begins at bit $ib$ of the row, and bit $j$ of the row is worth
# $2^{j \bmod 8}$ in byte $\lfloor j/8 \rfloor$. Here are three codes of 3 bits:

# %%
figures.bits_in_a_row([5, 3, 6], bits=3);

# %% [markdown]
# {{exercise 0.5}}
#
# Write `pack_bits`. The unused bits at the end are 0.

# %%
def pack_bits(codes, bits):
    """n whole numbers below 2^bits (or booleans) -> uint8, ceil(n * bits / 8) bytes, lowest bit first."""
    ### BEGIN SOLUTION
    planes = (codes.reshape(-1, 1).long() >> torch.arange(bits)) & 1
    stream = planes.flatten()
    stream = F.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    return (stream << torch.arange(8)).sum(1).to(torch.uint8)
    ### END SOLUTION

# %%
pack_bits = check("0.5", pack_bits)

# %% [markdown]
# Apply it. A rounded weight is $w = s\,q$ with one **scale** $s$ per layer and a whole number $q$, so a layer is stored as packed codes
# $q + 7$ and one float. Biases stay as they are.

# %%
def packed_state(model, bits):
    """What has to be stored of a rounded network: packed codes and a scale for every weight, and the biases."""
    state, qmax = {}, 2 ** (bits - 1) - 1
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2:
            scale = tensor.abs().max() / qmax
            state[f"{name}.codes"] = pack_bits((tensor / scale).round().long() + qmax, bits)
            state[f"{name}.scale"] = scale
        else:
            state[name] = tensor
    return state


sizes["4-bit, packed"] = file_bytes(packed_state(rounded, 4), "packed")
size = sizes["4-bit, packed"]
print(f"4-bit, packed: {size:,} bytes, {sizes['dense'] / size:.2f} times smaller")

# %% [markdown]
# ### Fewer numbers
#
# Now the zeros. Store *where* the other weights are, one bit for each weight, and then only *their* values. Here is a small weight
# in both forms:

# %%
small = torch.tensor([[0, 1.5, 0, 0, 0, 0, -0.5, 0], [0, 0, 0, 2.0, 0, 0, 0, 0]])
keep = small.flatten() != 0
figures.stored_forms(small, pack_bits(keep, 1), small.flatten()[keep]);

# %% [markdown]
# {{exercise 0.6}}
#
# Write `sparse_code`: a weight of any shape becomes two tensors, `"mask"` (packed, 1 where a value is stored, row by row) and
# `"values"`. Your `pack_bits` does half of the work.

# %%
def sparse_code(weight):
    """{"mask": uint8, ceil(n / 8) bytes, "values": the nonzeros in order, in the weight's own dtype}."""
    ### BEGIN SOLUTION
    keep = weight.flatten() != 0
    return {"mask": pack_bits(keep, 1), "values": weight.flatten()[keep]}
    ### END SOLUTION

# %%
sparse_code = check("0.6", sparse_code)

# %% [markdown]
# Does the file bring the network back? `sparse_decode` undoes your code, and the answers must be the same, bit for bit.

# %%
def sparse_decode(code, shape):
    """The weight from its mask and its values."""
    weight = torch.zeros(shape)
    bits = ((code["mask"][:, None] >> torch.arange(8)) & 1).flatten()[: weight.numel()]
    weight.view(-1)[bits.bool()] = code["values"]
    return weight


state, restored, layers = {}, copy.deepcopy(dropped), []
for name, tensor in dropped.state_dict().items():
    if tensor.ndim == 2:
        code = sparse_code(tensor)
        state |= {f"{name}.{part}": array for part, array in code.items()}
        restored.get_parameter(name).data = sparse_decode(code, tensor.shape)
        layers.append((32 * tensor.numel(), storage_bits(code)))
    else:
        state[name] = tensor
sizes["80 % zeros, sparse"] = file_bytes(state, "sparse")
x = test.x(slice(100))
print("same outputs:", torch.equal(restored(x), dropped(x)))

print(f"ratio of the weights alone: {compression_ratio(*torch.tensor(layers).T):.2f}")
for name, size in sizes.items():
    print(f"{name:21} {size:9,} bytes {sizes['dense'] / size:6.2f}x")

# %% [markdown]
# {{question 0.q2}}

# %%
### BEGIN SOLUTION
q2 = "b"
### END SOLUTION

# %%
q2 = answer("0.q2", q2)

# %% [markdown]
# How much a zero saves depends on how you say where the others are. The dots are your `sparse_code` on LeNet's first layer; below the
# black line a "sparse" file is *larger* than the dense one.

# %%
sparsity = torch.linspace(0, 0.99, 200)
ax = plt.subplots(figsize=(6.4, 3.2))[1]
ax.plot(sparsity, 1 / (1 - sparsity), ":", color="#7A7A7A", label="if zeros were free")
ax.plot(sparsity, 32 / (1 + 32 * (1 - sparsity)), "-", color="#0072B2", label="1-bit mask")
ax.plot(sparsity, 32 / (160 * (1 - sparsity)), "--", color="#D55E00", label="to_sparse()")
points = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98]
codes = [sparse_code(drop_smallest(dense, s).fc1.weight.detach()) for s in points]
ratios = [32 * dense.fc1.weight.numel() / storage_bits(code) for code in codes]
ax.plot(points, ratios, "o", color="#0072B2", label="your code")
ax.axhline(1, color="black", linewidth=0.8)
ax.set(xlabel="sparsity (fraction of zeros)", ylabel="times smaller", yscale="log", ylim=(0.18, 50))
ax.set_yticks([0.2, 0.5, 1, 2, 5, 10, 20, 50], ["0.2", "0.5", "1", "2", "5", "10", "20", "50"])
ax.legend();

# %% [markdown]
# Could you not just **zip** the file? Yes, a general compressor finds the zeros, too, but only on the disk: to use the network you
# must unpack all of it. Chapter 07 builds a better one, made for weights.

# %%
for name in ("dense", "dropped", "sparse", "packed"):
    content = (folder / f"{name}.safetensors").read_bytes()
    print(f"{name:8} {len(content):9,} bytes, zipped {len(zlib.compress(content, 6)):9,}")

# %% [markdown]
# ## 5 Operations and seconds
#
# A **multiply-accumulate** (**MAC**) is one multiplication and one addition; counted separately they are two **FLOPs**. A linear layer
# uses each weight once per image. A convolution uses each weight once per *output position*. With kernel $k_h \times k_w$,
# stride $s$, padding $p$, dilation $d$ and $g$ groups, from $I$ to $O$ channels:
#
# $$ \mathrm{MACs} = O\,\frac{I}{g}\,k_h k_w\,H' W', \qquad H' = \left\lfloor \frac{H + 2p - d\,(k_h - 1) - 1}{s} \right\rfloor + 1, $$
#
# and the same for $W'$. The bias is left out, as is usual.
#
# {{exercise 0.7}}
#
# Write `conv_macs` for one image of $H \times W$ pixels. `layer.kernel_size`, `.stride`, `.padding` and `.dilation` are pairs
# (for height, for width); `layer.weight` has the shape $(O, I/g, k_h, k_w)$.

# %%
def conv_macs(layer, height, width):
    """The multiply-accumulates of an nn.Conv2d for one image of height x width: a whole number."""
    ### BEGIN SOLUTION
    out = []
    for axis, size in enumerate((height, width)):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        out.append((size + 2 * layer.padding[axis] - reach) // layer.stride[axis] + 1)
    return layer.weight.numel() * out[0] * out[1]
    ### END SOLUTION

# %%
conv_macs = check("0.7", conv_macs)

# %% [markdown]
# Two famous networks: AlexNet (2012) and SqueezeNet, which was designed to need 50 times fewer parameters at AlexNet's accuracy
# (Iandola et al., 2016). On PyTorch's `meta` device networks have shapes but no numbers, so building them costs nothing.

# %%
from torchvision.models import alexnet, squeezenet1_0

with torch.device("meta"):
    famous = {"AlexNet": alexnet(), "SqueezeNet": squeezenet1_0()}
parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in famous.items()}
for name, count in parameters.items():
    print(f"{name:11} {count:11,} parameters")
print(f"{parameters['AlexNet'] / parameters['SqueezeNet']:.1f} times fewer")

# %% [markdown]
# {{prediction 0.p3}}

# %%
### BEGIN SOLUTION
p3 = (5, 60)
### END SOLUTION

# %%
p3 = predict("0.p3", p3)

# %%
def network_macs(network, size):
    """{layer: MACs}: your conv_macs for every convolution, one MAC per weight for every linear layer."""
    macs = {}

    def counter(name):
        def hook(layer, inputs, output):
            conv = isinstance(layer, nn.Conv2d)
            macs[name] = int(conv_macs(layer, *inputs[0].shape[2:])) if conv else layer.weight.numel()
        return hook

    handles = [layer.register_forward_hook(counter(name)) for name, layer in network.named_modules()
               if isinstance(layer, nn.Conv2d | nn.Linear)]
    network.eval()(torch.zeros(1, 3, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    return macs


macs = {name: network_macs(network, 224) for name, network in famous.items()}
for name, by_layer in macs.items():
    print(f"{name:11} {sum(by_layer.values()) / 1e6:6.0f} million MACs")
ratio = reveal("0.p3", sum(macs["AlexNet"].values()) / sum(macs["SqueezeNet"].values()))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.6, 2.4), sharey=True)
for place, (name, network) in enumerate(famous.items()):
    layers = dict(network.named_modules())
    for ax, amount in zip(axes, ({key: layers[key].weight.numel() for key in macs[name]}, macs[name])):
        linear = sum(value for key, value in amount.items() if isinstance(layers[key], nn.Linear)) / 1e6
        convolution = sum(amount.values()) / 1e6 - linear
        bars = [ax.barh(place, convolution, color="#0072B2"),
                ax.barh(place, linear, left=convolution, color="#E69F00", hatch="//", edgecolor="black")]
axes[0].set_yticks(range(2), list(famous))
axes[0].set_xlabel("weights (millions)")
axes[1].set_xlabel("multiply-accumulates per image (millions)")
axes[0].legend(bars, ["convolutions", "linear layers"]);

# %% [markdown]
# {{question 0.q3}}

# %%
### BEGIN SOLUTION
q3 = "a"
### END SOLUTION

# %%
q3 = answer("0.q3", q3)

# %% [markdown]
# ### A fair race
#
# Operations can be counted; seconds must be measured, and measuring is where most claims of speed go wrong. Your numbers will differ from
# ours and from your own an hour ago: another processor, other caches, a browser in the background, a hot laptop. Three rules make them useful:
#
# 1. **Warm up**: the first call allocates memory and fills caches; do not count it.
# 2. **Take turns**: run all candidates in every round, so that a slow minute hits all of them (**interleaved** timing).
# 3. **Median and quartiles**, not the mean: one interruption must not decide. And compare *ratios* of times from the same rounds.
#
# {{exercise 0.8}}
#
# Write `time_fairly`: rules 1 and 2. Read the time by calling `clock()`, right before and right after each call.

# %%
def time_fairly(functions, repeats, clock=time.perf_counter):
    """{name: function without arguments} -> {name: list of `repeats` seconds}, warmed up and in turns."""
    ### BEGIN SOLUTION
    samples = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            seconds = clock() - start
            if turn > 0:
                samples[name].append(seconds)
    return samples
    ### END SOLUTION

# %%
time_fairly = check("0.8", time_fairly)

# %% [markdown]
# The best test of a stopwatch is a race between equals: `dense` runs twice under two names. Left, as it is usually done: one
# after the other, from cold. Right, your way. Beside them runs the network with 80 % zeros.

# %%
x = test.x(slice(256))
racers = {"dense": dense, "dense again": dense, "80 % zeros": dropped}
racers = {name: partial(copy.deepcopy(model), x) for name, model in racers.items()}
repeats = 10 if quick() else 40


def time_naively(functions, repeats):
    samples = {name: [] for name in functions}
    for name, function in functions.items():
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            samples[name].append(time.perf_counter() - start)
    return samples


with torch.inference_mode():
    naive, fair = time_naively(racers, repeats), time_fairly(racers, repeats)
figure, axes = plt.subplots(1, 2, figsize=(9.6, 2.6), sharey=True, sharex=True)
figures.race(naive, axes[0], "one after the other, cold")
figures.race(fair, axes[1], "in turns, warm")
for name in ("dense again", "80 % zeros"):
    ratios = [torch.tensor(s["dense"]).median() / torch.tensor(s[name]).median() for s in (naive, fair)]
    print(f"{name:12} against dense: {ratios[0]:.2f} times as fast (naive), {ratios[1]:.2f} times (fair)")

# %% [markdown]
# Two equal networks should come out at 1.00; how far they are from it is the error of *your* stopwatch today, and no smaller speed-up
# can be claimed. And the zeros? The processor multiplies by them as diligently as by any other number. Setting weights to
# zero made this network *worse*, and neither smaller nor faster; your `sparse_code` made it smaller, not faster. So what
# takes the time?
#
# ### The roofline
#
# To multiply, a processor needs numbers, and they come from memory. So a layer has two clocks that run side by side: one for its
# operations $F$, one for the bytes $B$ that it moves. The **peak** $P$ is how many operations the processor can do per second, the
# **bandwidth** $\beta$ how many bytes arrive per second. For a linear layer with weights $W$ of shape $(O, I)$ and a batch of $N$ vectors, in float32:
#
# $$ F = 2NIO, \qquad B = 4\,(NI + IO + NO), \qquad t \ge \max\!\left(\frac{F}{P}, \frac{B}{\beta}\right) $$
#
# The **arithmetic intensity** $F/B$ says how much work each byte brings. Below $P/\beta$, the **ridge**, the layer waits
# for memory; above it, for arithmetic. This is the **roofline** model (Williams, Waterman, Patterson, 2009).
#
# {{exercise 0.9}}
#
# Write `roofline`: the intensity and the shortest time that the model allows.

# %%
def roofline(batch, inputs, outputs, peak, bandwidth):
    """(FLOP per byte, seconds) of a float32 linear layer; peak in FLOP/s, bandwidth in bytes/s."""
    ### BEGIN SOLUTION
    flops = 2 * batch * inputs * outputs
    moved = 4 * (batch * inputs + inputs * outputs + batch * outputs)
    return flops / moved, max(flops / peak, moved / bandwidth)
    ### END SOLUTION

# %%
roofline = check("0.9", roofline)

# %% [markdown]
# Now a large linear layer, $4096 \times 4096$, at batch 1 and at batch 256.
#
# {{prediction 0.p4}}

# %%
### BEGIN SOLUTION
p4 = (8, 60)
### END SOLUTION

# %%
p4 = predict("0.p4", p4)

# %% [markdown]
# First the machine. Its bandwidth: read 64 MB of numbers in ways that hardly compute, the fastest counts. Its peak: multiply two large square
# matrices. Everything takes turns with the layer itself, and we compare the *fastest* runs: a roof is about what is possible.

# %%
size, batches = 4096, (1, 4, 16, 64, 256)
generator = torch.Generator().manual_seed(0)
weight = torch.randn(size, size, generator=generator)
zeros = torch.where(torch.rand(size, size, generator=generator) < 0.9, 0.0, weight)
square = torch.randn(1024, 1024, generator=generator)
inputs = {batch: torch.randn(batch, size, generator=generator) for batch in batches}

light = {"sum": weight.sum, "mv": partial(torch.mv, zeros, inputs[1][0]),      # never the same matrix twice in a row: it may still lie in a cache
         "dot": partial(torch.dot, weight.flatten(), weight.flatten()), "90 % zeros": partial(F.linear, inputs[1], zeros),
         "batch 1": partial(F.linear, inputs[1], weight), "sum of zeros": zeros.sum}
heavy = {"multiply": partial(torch.mm, square, square)}
heavy |= {f"batch {batch}": partial(F.linear, inputs[batch], weight) for batch in batches[1:]}
with torch.inference_mode():
    seconds = time_fairly(light, 5 if quick() else 20) | time_fairly(heavy, 2 if quick() else 4)
best = {name: min(samples) for name, samples in seconds.items()}

bandwidth = weight.nbytes / min(best[read] for read in ("sum", "mv", "dot", "sum of zeros"))
peak = 2 * 1024**3 / best["multiply"]
print(f"this machine, one core: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} GFLOP/s, "
      f"ridge at {peak / bandwidth:.1f} FLOP per byte")
print("batch  FLOP/byte   roof (ms)  measured (ms)")
for batch in batches:
    intensity, seconds = roofline(batch, size, size, peak, bandwidth)
    print(f"{batch:5}  {intensity:9.2f}  {1e3 * seconds:10.2f}  {1e3 * best[f'batch {batch}']:13.2f}")
print(f"{'1, with 90 % zeros:':28}  {1e3 * best['90 % zeros']:13.2f}")
slower = reveal("0.p4", best["batch 256"] / best["batch 1"])

# %%
grid = [2 ** (e / 4) for e in range(33)]
ax = plt.subplots(figsize=(6.4, 3.4))[1]
roof = [1e3 * roofline(batch, size, size, peak, bandwidth)[1] for batch in grid]
operations = [1e3 * 2 * batch * size**2 / peak for batch in grid]
measured = [1e3 * best[f"batch {batch}"] for batch in batches]
ax.loglog(grid, roof, color="black", label="roofline")
ax.loglog(grid, operations, ":", color="#7A7A7A", label="operations / peak")
ax.loglog(batches, measured, "o", color="#D55E00", label="measured")
ax.set(xlabel="batch size", ylabel="time of one batch (ms)")
ax.set_xticks(batches, [str(batch) for batch in batches])
ax.minorticks_off()
ax.legend();

# %% [markdown]
# If operations were time, the dots would lie on the dotted line, and batch 256 would take 256 times as long. In fact the flat part
# is paid once: the weights are read, whether for one image or for several. In the middle, dots may lie above the line: it is a
# bound, and the software that rearranges the weights for the multiplication also takes its time. (A dot a little below it says that
# your machine was busier while peak and bandwidth were measured.) And the 90 % zeros changed nothing. Move along the roof of
# *your* machine:

# %%
on_my_roof = partial(curves.point_on_the_roof, inputs=size, outputs=size, peak=peak, bandwidth=bandwidth)
widgets.slider(on_my_roof, curves.draw_on_the_roof, name="log2 of the batch", low=0, high=10, step=1, start=0,
               static=(0, 4, 8))

# %% [markdown]
# {{question 0.q4}}

# %%
### BEGIN SOLUTION
q4 = "b"
### END SOLUTION

# %%
q4 = answer("0.q4", q4)

# %% [markdown]
# ## 6 Your ledger
#
# All of your ruler is in the library, a little hardened: `compresslab.core.measure` writes the file, counts, times in turns with the
# baseline, and returns one row. `encode` stores a network's weights as codes such as yours. Such a **packed** network is unpacked to
# compute, so its speed is that of the dense one, and the row says so. Your rows go into your **ledger**, which
# grows with every chapter.

# %%
from compresslab.core import SparseCode, UniformCode, encode
from compresslab.core.measure import format_rows, measure

networks = {
    "dense": ("dense", dense),
    "80 % zeros, dense file": ("pruning", dropped),
    "80 % zeros, sparse file": ("pruning", encode(dropped, SparseCode.from_dense)),
    "4-bit codes, packed": ("quantization", encode(dense, partial(UniformCode.from_dense, bits=4))),
}
repeats = 10 if quick() else 100
rows = [measure(model, test, baseline=dense, name=name, batch=64, repeats=repeats, threads=1)
        for name, (_, model) in networks.items()]
for row, (kind, _) in zip(rows, networks.values()):
    ledger.add(row, chapter="00", family=kind)
print(format_rows(rows))

# %% [markdown]
# The first row raced against itself: its distance from 1.00x is today's error of the stopwatch. Now all of them in one race. Your
# `paired_difference` supplies the intervals of the accuracy, the library's `speedup` those of the times: the figure from the
# beginning, with the column that was missing there.

# %%
from compresslab.core.layers import decompress
from compresslab.core.measure import speedup, time_models

plain = {name: decompress(model) for name, (_, model) in networks.items()}
times = time_models(plain, test.x(slice(64)), repeats=20 if quick() else 150, threads=1)
final = []
for row, (name, (kind, _)) in zip(rows, networks.items()):
    answers = predict_labels(plain[name], test)
    change, low, high = (float(v) for v in paired_difference(answers, predictions["dense"], labels))
    faster = speedup(times["dense"], times[name])
    final.append({"name": name, "family": kind, "file_bytes": row.file_bytes,
                  "change": change, "low": low, "high": high,
                  "speedup": faster.ratio, "speedup_low": faster.low, "speedup_high": faster.high})
figures.ruler(final);

# %% [markdown]
# Read it from left to right. Zeros alone: same file, worse network, same speed. The same zeros, stored well: a smaller file, and
# nothing else. Packed codes: smaller still, for a smaller loss of accuracy, and again no faster. From here on every chapter adds rows
# that do better, by training again after the cut, by choosing what to cut, by making the arithmetic itself smaller.
#
# And how well did you predict? The value should lie in four of five of your 80 % intervals. A prediction is scored by
# its **interval score**, for an interval $[l, u]$ and the value $x$ (both as base-2 logarithms for ratios):
#
# $$ S = (u - l) + 10\,(l - x)_+ + 10\,(x - u)_+ . $$
#
# A wide interval costs its width, a miss costs ten times the distance; nobody gains by claiming more, or less, than they know.

# %%
calibration();

# %% [markdown]
# All of this grows with the chapters. The **progress page** shows what you have done, how many of your intervals held the number, and
# the front of your ledger over the fronts of the course's own comparison (different networks on different data: a map, not a race).
# It also says what comes next. Run it again whenever you like: in any notebook, or in a terminal as `python -m compresslab progress`.

# %%
from compresslab.course import progress

progress.page();

# %% [markdown]
# **What was simplified.** The interval of exercise 0.2 is the textbook one (Wald's). With few flips it is too narrow, and without any it is
# $[0, 0]$; the library uses Tango's score interval, which is right there, too. The roofline knows one memory and one peak; real machines have
# several caches, each with a bandwidth of its own. LeNet-300-100 is tiny, so that you can measure everything in seconds.
#
# **Further reading.**
# - D. Blalock, J. Gonzalez Ortiz, J. Frankle, J. Guttag, *What is the State of Neural Network Pruning?*, MLSys 2020: why most published comparisons
#   cannot be compared.
# - S. Williams, A. Waterman, D. Patterson, *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, Communications of the ACM, 2009.
# - T. Dietterich, *Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms*, Neural Computation, 1998.
# - F. Iandola et al., *SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size*, arXiv, 2016.
# - T. Gneiting, A. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, Journal of the American Statistical Association, 2007.
#
# **Next:** chapter 01, pruning. You have seen zeros that save nothing; there you will learn which weights to remove, how to train the rest,
# and how to make the network really smaller *and* really faster.

# %% [markdown]
# # Quantization: from the number line to integer arithmetic
#
# After this chapter you can store each weight of a network in 4 bits or fewer, say honestly what that cost, and compute a network's
# answer with **integers alone**, bit for bit as a small chip would. You will know why the naive way is free at 8 bits and collapses
# below 4, and what puts the collapse off. This is the figure that you will understand by the end; each line is a section:

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter02 import figures
from compresslab.course.chapter02.widgets import GridLook, draw_grid

plots.style()
evidence = load_evidence("02")
figures.accuracy_bits([row for row in evidence.values() if row.get("experiment") == "resnet8"]);

# %% [markdown]
# *10,000 fresh images; short marks are single seeds, symbols their means. QAT ends above the float network because it trained on: so
# would the float network, section 12 has the control.* **Time** about two hours for the core exercises, twice that for all. **You need**
# chapter 00: the ruler (bits, bytes, a paired difference). **In a workshop** do exercises 2.1, 2.2 and 2.11 with predictions 2.p1 to
# 2.p3;
# skip sections 3, 5 and 7 to 10.
#
# Stuck? Open a new cell and run `hint("2.1")`: each call says a little more.
#
# ## The family
#
# **Quantization** replaces real numbers by members of a small set, the **levels**, and stores which one. With $b$ **bits** there are
# $2^b$ levels. The sub-families differ in *where the levels lie*:

# %%
figures.map_of_quantization();

# %% [markdown]
# They also differ in *who shares a set of levels* (a tensor, a channel, a block), in *what* is quantized (the weights; or the
# **activations**, the numbers that flow between layers, as well, and then the arithmetic) and in *when*: after training (**post-training
# quantization**, PTQ) or during it (**quantization-aware training**, QAT).
#
# Our patient is **ResNet-8** on `street_digits`. What we choose, we choose on `validation` or on training images.

# %%
from compresslab.core import named_layers
from compresslab.core.train import accuracy
from compresslab.data import load_data
from compresslab.models import load_baseline

digits = load_data("street_digits")
judges = digits.validation.take(200 if quick() else 1000)
resnet = load_baseline("resnet8")
weights = {name: layer.weight.detach() for name, layer in named_layers(resnet).items()}
print({name: tuple(weight.shape) for name, weight in weights.items()})
print(f"{sum(weight.numel() for weight in weights.values()):,} weights of 32 bits")
print(f"{accuracy(resnet, judges):.1%} of {len(judges):,} validation images right")

# %% [markdown]
# ## 1 The number line
#
# **Look.** The largest layer. Almost every weight is a number of its own, written in 32 bits:

# %%
layer = weights["stage3.0.conv2"]
print(f"{layer.numel():,} weights, {len(layer.unique()):,} different ones, from {layer.min():.4f} to {layer.max():.4f}")
print("four of them:", layer.flatten()[:4].tolist())

# %% [markdown]
# A **uniform** grid has equal steps. Jacob et al. (CVPR 2018) write a real number $r$ with a whole number $q$, $0 \le q \le 2^b - 1$:
#
# $$ r = S\,(q - Z) $$
#
# The **scale** $S$ is the real size of one step. The **zero point** $Z$ is the whole number that stands for 0. It is one of the
# levels, so
# 0 is written without any error.
#
# {{exercise 2.1}}
#
# Write `choose_scale`: the grid that covers `low` ... `high` with $2^b$ levels. Widen the range to hold 0 first. Then
#
# $$ S = \frac{high - low}{2^b - 1}, \qquad Z = \operatorname{round}\!\left(\frac{-low}{S}\right) \in \{0, \dots, 2^b - 1\} . $$
#
# A range of nothing but 0 gets $S = 1$, $Z = 0$.

# %%
def choose_scale(low, high, bits):
    """(scale, zero_point): a float and an int; the range is widened to hold 0."""
    ### BEGIN SOLUTION
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    top = 2**bits - 1
    scale = (high - low) / top
    return scale, min(max(round(-low / scale), 0), top)
    ### END SOLUTION

# %%
choose_scale = check("2.1", choose_scale)

# %% [markdown]
# {{exercise 2.2}}
#
# Write `quantize`, from reals to whole numbers of 8 bits (`torch.uint8`):
#
# $$ q = \operatorname{clamp}\!\left(\operatorname{round}(x / S) + Z,\; 0,\; 2^b - 1\right) $$
#
# Ties go to the even neighbour, as `torch.round` does it. What lies beyond the grid **saturates**: it becomes the last level. The order
# of the steps matters; a `uint8` has no 300:

# %%
print(torch.tensor([255, 256, 300]).to(torch.uint8))

# %%
def quantize(x, scale, zero_point, bits):
    """uint8, the shape of x: the nearest level of each number."""
    ### BEGIN SOLUTION
    q = torch.round(x / scale) + zero_point
    return q.clamp(0, 2**bits - 1).to(torch.uint8)
    ### END SOLUTION

# %%
quantize = check("2.2", quantize)

# %% [markdown]
# **See.** Twenty weights of the last layer (times ten), the whole numbers that are stored for them in 3 bits, and the way back.

# %%
def dequantize(q, scale, zero_point):
    """The real numbers S (q - Z). `q.float()` first: in uint8, 3 - 4 is 255."""
    return scale * (q.float() - zero_point)

def round_trip(x, bits, low=None, high=None):
    """x on the grid over low ... high (min ... max if not given), and back to real numbers."""
    ends = x.min().item() if low is None else low, x.max().item() if high is None else high
    scale, zero_point = choose_scale(*ends, bits)
    return dequantize(quantize(x, scale, zero_point, bits), scale, zero_point)

corner = 10 * weights["fc"][:4, :5]
scale, zero_point = choose_scale(corner.min().item(), corner.max().item(), 3)
q = quantize(corner, scale, zero_point, 3)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.3))
plots.tensor(axes[0], corner.round(decimals=1), "x")
plots.tensor(axes[1], q, f"q, with Z = {zero_point}")
plots.tensor(axes[2], dequantize(q, scale, zero_point).round(decimals=1), f"S (q - Z), S = {scale:.2f}");

# %% [markdown]
# No number inside the range is off by more than $S/2$, and 0 is exact. Now play: fewer bits, a narrower range, a grid that is
# **symmetric**
# around 0 ($Z$ in the middle, one level fewer) or not (**affine**). Which of the two errors grows?

# %%
look = GridLook(layer, choose_scale, quantize)
widgets.controls(look, draw_grid, widgets.Slider("bits", 2, 8, 1, start=4), widgets.Slider("range", 0.05, 1, 0.05, start=1),
                 widgets.Switch("symmetric", "affine"), static=[(3, 1, True), (3, 0.5, True), (8, 0.5, False)], panels=2)

# %% [markdown]
# {{question 2.q1}}

# %%
### BEGIN SOLUTION
q1 = "d"
### END SOLUTION

# %%
q1 = answer("2.q1", q1)

# %% [markdown]
# ## 2 Do bits decide the error?
#
# {{exercise 2.3}}
#
# Errors are compared with what they disturb. The **signal-to-noise ratio** of a copy $\hat x$, in decibels (dB):
#
# $$ \mathrm{SNR} = 10 \log_{10} \frac{\sum_i x_i^2}{\sum_i (x_i - \hat x_i)^2} $$
#
# 10 dB more is a tenth of the noise power. Write `snr_db`.

# %%
def snr_db(x, x_hat):
    """A float; inf if the copy is perfect."""
    ### BEGIN SOLUTION
    signal, noise = x.square().sum(), (x - x_hat).square().sum()
    return float(10 * torch.log10(signal / noise))
    ### END SOLUTION

# %%
snr_db = check("2.3", snr_db)

# %% [markdown]
# **Predict.** A step half as wide makes errors half as large.
#
# {{prediction 2.p1}}

# %%
### BEGIN SOLUTION
p1 = (5, 7)
### END SOLUTION

# %%
p1 = predict("2.p1", p1)

# %%
even = torch.rand(50_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
bits = (2, 3, 4, 5, 6, 7, 8)
quality = {"uniform numbers": [snr_db(even, round_trip(even, b)) for b in bits],
           "weights of one layer": [snr_db(layer, round_trip(layer, b)) for b in bits]}
for name, decibels in quality.items():
    print(f"{name:21} {(decibels[-1] - decibels[2]) / 4:.2f} dB per bit from 4 to 8 bits, {decibels[-1]:.1f} dB at 8 bits")
figures.curves({name: (bits, decibels) for name, decibels in quality.items()}, "bits", "signal-to-noise ratio (dB)")
reveal("2.p1", (quality["uniform numbers"][-1] - quality["uniform numbers"][2]) / 4);

# %% [markdown]
# $20 \log_{10} 2 = 6.02$: the famous **6 dB per bit**, whatever the distribution, as long as the steps are fine (a little more here: $b$ bits make $2^b - 1$
# steps). So bits decide the error? The two lines have one slope
# and *different heights*. Weights crowd around zero, the grid spends its levels evenly up to the largest of them. What if that one
# is larger still?
#
# {{prediction 2.p2}}

# %%
### BEGIN SOLUTION
p2 = (25, 42)
### END SOLUTION

# %%
p2 = predict("2.p2", p2)

# %%
spoiled = layer.clone()
place = int(spoiled.abs().argmax())
spoiled.view(-1)[place] *= 100
others = torch.ones(layer.numel(), dtype=torch.bool)
others[place] = False

def snr_of_others(copy_of_spoiled):
    """The SNR of all weights but the outlier."""
    return snr_db(spoiled.flatten()[others], copy_of_spoiled.flatten()[others])

before, after = snr_db(layer.flatten()[others], round_trip(layer, 8).flatten()[others]), snr_of_others(round_trip(spoiled, 8))
print(f"at 8 bits: {before:.1f} dB without the outlier, {after:.1f} dB with it")
zeros = (round_trip(spoiled, 8) == 0).double().mean().item()
print(f"{zeros:.0%} of the weights are rounded to zero")
reveal("2.p2", before - after);

# %% [markdown]
# One number took as much as almost six bits. It is still 8 bits; what decides is the *step*, and one **outlier** stretches the step
# for everybody
# who shares it. The cure: share with fewer.
#
# {{exercise 2.4}}
#
# Give each output channel $o$ its own scale. For weights the symmetric grid is usual, $Z = 0$:
#
# $$ S_o = \frac{\max |w_o|}{q_{\max}}, \qquad q = \operatorname{round}(w / S_o) \in \{-q_{\max}, \dots, q_{\max}\}, \qquad q_{\max} = 2^{b-1} - 1 . $$
#
# Write `quantize_per_channel` for weights of any shape $(O, \dots)$. A channel of zeros gets scale 1.

# %%
def quantize_per_channel(weight, bits):
    """(q, scale): int8 like the weight, and (O,) positive floats."""
    ### BEGIN SOLUTION
    qmax = 2 ** (bits - 1) - 1
    peak = weight.flatten(1).abs().amax(dim=1)
    scale = torch.where(peak > 0, peak / qmax, 1.0)
    q = torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1)))
    return q.clamp(-qmax, qmax).to(torch.int8), scale
    ### END SOLUTION

# %%
quantize_per_channel = check("2.4", quantize_per_channel)

# %% [markdown]
# {{exercise 2.5}}
#
# The outlier's own channel still suffers. **Microscaling** (the OCP MX formats; Rouhani et al., arXiv 2023) goes on: every `block`
# neighbours share a scale, and so that scales cost little, each is a power of two, stored as its exponent $e$:
#
# $$ S = 2^e, \qquad e = \left\lceil \log_2 \frac{\max |x|}{q_{\max}} \right\rceil, \qquad q = \operatorname{round}(x / 2^e) . $$
#
# That is the *smallest* power of two with which no number leaves the range. (The MX standard rounds $e$ down and lets the largest number
# saturate.) Write `quantize_blocks` for a flat tensor; a block of zeros gets $e = 0$; a length that `block` does not divide is a
# `ValueError`.

# %%
def quantize_blocks(row, block, bits):
    """(q, exponent): int8 (n,) and int8 (n / block,)."""
    ### BEGIN SOLUTION
    if len(row) % block:
        raise ValueError(f"blocks of {block} do not fit into {len(row)} numbers")
    qmax = 2 ** (bits - 1) - 1
    blocks = row.reshape(-1, block)
    peak = blocks.abs().amax(dim=1)
    exponent = torch.where(peak > 0, torch.ceil(torch.log2(peak / qmax)), 0.0)
    q = torch.round(blocks / 2.0 ** exponent[:, None])
    return q.clamp(-qmax, qmax).flatten().to(torch.int8), exponent.to(torch.int8)
    ### END SOLUTION

# %%
quantize_blocks = check("2.5", quantize_blocks)

# %% [markdown]
# **See** the weights around the outlier, and the step that each scheme gives them. **Measure** what is left of them.

# %%
def per_channel(weight, bits):
    """The weight as it comes back from `quantize_per_channel`."""
    q, scale = quantize_per_channel(weight, bits)
    return q * scale.view(-1, *[1] * (weight.dim() - 1))

def per_tensor(weight, bits):
    """One scale for the whole weight: the whole tensor as a single channel."""
    return per_channel(weight.reshape(1, -1), bits).view_as(weight)

def in_blocks(weight, bits, block=32):
    """The weight as it comes back from `quantize_blocks`."""
    q, exponent = quantize_blocks(weight.flatten(), block, bits)
    return (q.view(-1, block) * 2.0 ** exponent.float()[:, None]).view_as(weight)

channels, n = layer.shape[0], layer.numel()
schemes = {"one scale": (per_tensor, 32 / n), "a scale per channel": (per_channel, 32 * channels / n), "blocks of 32": (in_blocks, 8 / 32)}
for name, (scheme, extra) in schemes.items():
    print(f"{name:20} {8 + extra:.3f} bits per weight: {snr_db(layer, scheme(layer, 8)):.1f} dB without outlier, "
          f"{snr_of_others(scheme(spoiled, 8)):4.1f} dB with it")

flat, start = spoiled.flatten(), place // (n // channels) * (n // channels)             # of the outlier's channel
near = slice(max(start - 200, 0), start + n // channels + 200)
scale_of_channel = quantize_per_channel(spoiled, 8)[1].repeat_interleave(n // channels)
scale_of_block = (2.0 ** quantize_blocks(flat, 32, 8)[1].float()).repeat_interleave(32)
figures.step_sizes(flat[near], {"one scale": (flat.abs().max() / 127).expand(n)[near], "per channel": scale_of_channel[near],
                                "blocks of 32": scale_of_block[near]});

# %% [markdown]
# Bits do not decide the error: bits *and who shares a scale* do. A quarter of a bit per weight was worth more than four whole ones.
# (With the
# outlier, one symmetric scale does worse still than the affine grid above: the half of it on the other side of 0 stays empty.)
#
# **Apply.** Real networks have mild outliers. All layers of ResNet-8, first and last included, no training:

# %%
def quantized(model, scheme, bits, only=None):
    """A copy of the model, every weight (or those of the layers `only`) sent through the scheme."""
    model = copy.deepcopy(model)
    for name, part in named_layers(model).items():
        if only is None or name in only:
            part.weight.data = scheme(part.weight.data, bits)
    return model

widths = (8, 4, 3, 2)
found = {}
for name, scheme in {"one scale per tensor": per_tensor, "one scale per channel": per_channel}.items():
    found[name] = [100 * accuracy(quantized(resnet, scheme, b), judges) for b in widths]
    decibels = [snr_db(layer, scheme(layer, b)) for b in widths]
    print(f"{name:22}", ", ".join(f"{b} bits {right:.1f} %" for b, right in zip(widths, found[name])))
    print(f"{'  the layer above':22}", ", ".join(f"{b} bits {db:.1f} dB" for b, db in zip(widths, decibels)))
figures.curves({name: (widths, right) for name, right in found.items()}, "bits per weight", "accuracy (%)",
               f"{len(judges):,} validation images, not retrained");

# %% [markdown]
# Look at 4 bits: almost four decibels better, and not one point gained. At 3 bits the same four decibels are worth a quarter of all
# answers.
#
# {{question 2.q2}}

# %%
### BEGIN SOLUTION
q2 = "d"
### END SOLUTION

# %%
q2 = answer("2.q2", q2)

# %% [markdown]
# ## 3 Where to clip
#
# **Look.** Weights are known; activations are not. Their range must be guessed from examples, the **calibration** images. These come
# from the training images: who calibrates on test images has seen the test. Here is what flows into one convolution behind a relu:

# %%
@torch.no_grad()
def inputs_of_layers(model, images, most=8000):
    """{layer: a sample of the numbers that flow into it, the smallest and the largest included}."""
    samples, generator = {}, torch.Generator().manual_seed(0)
    def keep(name):
        def hook(layer, inputs):
            x = inputs[0].flatten()
            some = x[torch.randint(len(x), (most,), generator=generator)]
            samples[name] = torch.cat([some, torch.stack(x.aminmax())])     # the two ends are always among them
        return hook
    hooks = [part.register_forward_pre_hook(keep(name)) for name, part in named_layers(model).items()]
    model(images)
    for hook in hooks:
        hook.remove()
    return samples

calibration = digits.train.take(256)
samples = inputs_of_layers(resnet, calibration.x())
x = samples["stage1.0.conv2"]
print(f"from {x.min():.2f} to {x.max():.2f}; 99 % are below {x.quantile(0.99):.2f}")
shares = [k / 20 for k in range(2, 21)]
errors = {f"{b} bits": [(x - round_trip(x, b, share * x.min().item(), share * x.max().item())).square().mean().item()
                        for share in shares] for b in (8, 4, 3)}
figures.range_errors(shares, errors);

# %% [markdown]
# A narrow range makes small steps and cuts off the largest numbers; a wide one does the opposite. Neither end is best.
#
# {{exercise 2.6}}
#
# Write `best_clip`: of the hundred ranges $\frac{k}{100} \min x \,\dots\, \frac{k}{100} \max x$, $k = 1, \dots, 100$, the one whose
# grid has
# the smallest **mean squared error**, rounding and clipping together. Your `choose_scale` and `quantize` do the work.

# %%
def best_clip(x, bits):
    """(low, high), two floats."""
    ### BEGIN SOLUTION
    low, high = x.min().item(), x.max().item()

    def error(share):
        scale, zero_point = choose_scale(share * low, share * high, bits)
        q = quantize(x, scale, zero_point, bits)
        return (x - scale * (q.float() - zero_point)).square().mean().item()

    share = min([k / 100 for k in range(1, 101)], key=error)
    return share * low, share * high
    ### END SOLUTION

# %%
best_clip = check("2.6", best_clip)

# %%
for b in (8, 6, 4, 3):
    low, high = best_clip(x, b)
    left_out = (x > high).double().mean().item()
    print(f"{b} bits: best range 0 ... {high:.2f}, {high / x.max():.0%} of the full one; {left_out:.2%} of the numbers are clipped")

# %% [markdown]
# {{question 2.q3}}

# %%
### BEGIN SOLUTION
q3 = "b"
### END SOLUTION

# %%
q3 = answer("2.q3", q3)

# %% [markdown]
# **Apply, and measure.** The input of every layer is rounded, the weights stay as they are.

# %%
def with_rounded_inputs(model, ranges, bits):
    """A copy whose layers see their inputs through a grid; ranges: {layer: (low, high)}."""
    model = copy.deepcopy(model)
    for name, part in named_layers(model).items():
        low, high = ranges[name]
        part.register_forward_pre_hook(lambda layer, inputs, low=low, high=high: round_trip(inputs[0], bits, low, high))
    return model

full = {name: (sample.min().item(), sample.max().item()) for name, sample in samples.items()}
some = judges.take(min(500, len(judges)))
for b in (4, 3):
    clipped = {name: best_clip(sample, b) for name, sample in samples.items()}
    for name, ranges in {"min to max": full, "best clip": clipped}.items():
        print(f"activations of {b} bits, {name:10} {accuracy(with_rounded_inputs(resnet, ranges, b), some):.1%} right")

# %% [markdown]
# 256 images without labels, no training. The range that covers everything was the wrong one. (Others choose a percentile, or the range
# that keeps the distribution's entropy; `compresslab.quantization` has them all.)
#
# ## 4 Integers only
#
# So far the rounded numbers went back to floats before anything was computed. A small chip has no floats. Jacob et al. (CVPR 2018)
# compute with the whole numbers themselves. Put $r = S(q - Z)$ into $y = \sum_j x_j w_j + b$:
#
# $$ q_y = Z_y + M \Big( \sum_j (q_{x,j} - Z_x)(q_{w,j} - Z_w) + q_b \Big), \qquad M = \frac{S_x S_w}{S_y}, \quad q_b = \operatorname{round}\!\Big(\frac{b}{S_x S_w}\Big) . $$
#
# Multiplied out, the sum is $\sum q_x q_w - Z_w \sum q_x - Z_x \sum q_w + n Z_x Z_w$: the **zero-point cross terms**. With symmetric
# weights,
# $Z_w = 0$, only $Z_x \sum q_w$ is left, a constant for each output. Two things stand in the way: batch norm, and the real factor $M$.
#
# {{exercise 2.7}}
#
# In eval mode batch norm is $\gamma\,(y - \mu) / \sqrt{\sigma^2 + \varepsilon} + \beta$ in each channel. **Fold** it into the layer
# before it: write `fold_batch_norm`, which returns the weight and bias of one layer that does both. `bias` is the layer's own, or `None`.

# %%
def fold_batch_norm(weight, bias, gamma, beta, mean, var, eps):
    """(weight, bias): the shapes of the layer's weight and of mean."""
    ### BEGIN SOLUTION
    factor = gamma / torch.sqrt(var + eps)
    if bias is None:
        bias = torch.zeros_like(mean)
    return weight * factor.view(-1, *[1] * (weight.dim() - 1)), (bias - mean) * factor + beta
    ### END SOLUTION

# %%
fold_batch_norm = check("2.7", fold_batch_norm)

# %%
def fold_all(model, pairs):
    """A copy with each batch norm folded into its convolution; pairs of their names."""
    model = copy.deepcopy(model)
    for conv_name, bn_name in pairs:
        conv, bn = model.get_submodule(conv_name), model.get_submodule(bn_name)
        weight, bias = fold_batch_norm(conv.weight.data, conv.bias, bn.weight.data, bn.bias.data, bn.running_mean, bn.running_var, bn.eps)
        conv.weight.data, conv.bias = weight, nn.Parameter(bias)
        parent, _, leaf = bn_name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())
    return model

blocks = ("stage1.0.", "stage2.0.", "stage3.0.")
pairs = [("conv1", "bn1")] + [(f"{block}conv{k}", f"{block}bn{k}") for block in blocks for k in (1, 2)]
pairs += [(f"{block}shortcut.0", f"{block}shortcut.1") for block in blocks[1:]]
folded = fold_all(resnet, pairs)
frame = judges.x(slice(16))
with torch.no_grad():
    print(f"largest difference of the outputs: {(folded(frame) - resnet(frame)).abs().max():.1e}")
for name, scheme in {"one scale per tensor": per_tensor, "one scale per channel": per_channel}.items():
    before, after = found[name][widths.index(4)], 100 * accuracy(quantized(folded, scheme, 4), judges)
    print(f"4 bits, {name:22} {before:.1f} % with batch norm apart, {after:.1f} % folded")

# %% [markdown]
# In floats nothing changed. But folding multiplies each channel by a factor of its own, and channels that differ in size cannot
# share a scale: an
# outlier made by ourselves. Per channel, each scale takes its channel's factor along.
#
# {{exercise 2.8}}
#
# Now $M$, a small real number. Write it as a **fixed-point** number: an integer `m0` and a number of places to `shift`,
#
# $$ M \approx m_0 \cdot 2^{-(31 + shift)}, \qquad 2^{30} \le m_0 < 2^{31} . $$
#
# The bounds make `m0` use all 31 bits below the sign of an int32, so it must be the integer nearest to $M \cdot 2^{31 + shift}$. For
# $M = 0.3 =
# 0.6 \cdot 2^{-1}$ that is `(1288490189, 1)`. Write `fixed_point`; `math.frexp` helps.

# %%
def fixed_point(multiplier):
    """(m0, shift), two ints, for a positive float."""
    ### BEGIN SOLUTION
    mantissa, exponent = math.frexp(multiplier)
    m0 = round(mantissa * 2**31)
    if m0 == 2**31:
        m0, exponent = 2**30, exponent + 1
    return m0, -exponent
    ### END SOLUTION

# %%
fixed_point = check("2.8", fixed_point)

# %% [markdown]
# {{exercise 2.9}}

# %%
figures.integer_layer();

# %% [markdown]
# Write `integer_linear`, without one float, in these steps:
#
# 1. the **accumulator** $a = \sum_j (q_{x,j} - Z_x)\,q_{w,j} + q_b$, in `torch.int64` (hardware takes int32);
# 2. the **rescale** $\lfloor (a\,m_0 + 2^{30 + shift}) / 2^{31 + shift} \rfloor$: add a half, then shift right by $31 + shift$ places.
#    On tensors of integers `>>` divides by a power of two and rounds down;
# 3. add $Z_y$, clamp to 0 ... 255, and only then cast to `uint8`.
#
# Every bit is checked, against Python's own integers.

# %%
def integer_linear(q_x, z_x, q_w, bias_q, m0, shift, z_y):
    """uint8 (N, O) from q_x uint8 (N, I), q_w int8 (O, I), bias_q int32 (O,) and four ints."""
    ### BEGIN SOLUTION
    accumulator = (q_x.to(torch.int64) - z_x) @ q_w.to(torch.int64).T + bias_q
    half = 1 << (30 + shift)
    rescaled = (accumulator * m0 + half) >> (31 + shift)
    return (rescaled + z_y).clamp(0, 255).to(torch.uint8)
    ### END SOLUTION

# %%
integer_linear = check("2.9", integer_linear)

# %% [markdown]
# **Apply** it to the last layer, with ranges from the calibration images. Is the result the float result, rounded?

# %%
@torch.no_grad()
def last_layer(images):
    """What flows into the last layer of ResNet-8, and what comes out."""
    seen = []
    hook = resnet.fc.register_forward_hook(lambda layer, inputs, output: seen.extend((inputs[0], output)))
    resnet(images)
    hook.remove()
    return seen

x, y = last_layer(calibration.x())
s_x, z_x = choose_scale(x.min().item(), x.max().item(), 8)
s_y, z_y = choose_scale(y.min().item(), y.max().item(), 8)
q_w, s_w = quantize_per_channel(resnet.fc.weight.data.reshape(1, -1), 8)            # one scale for this small layer
q_w, s_w = q_w.view_as(resnet.fc.weight), s_w.item()
bias_q = torch.round(resnet.fc.bias.data / (s_x * s_w)).to(torch.int32)
m0, shift = fixed_point(s_x * s_w / s_y)
print(f"M = {s_x * s_w / s_y:.6f} = {m0:,} * 2^-{31 + shift}")

x, y = last_layer(judges.x(slice(200)))
q_y = integer_linear(quantize(x, s_x, z_x, 8), z_x, q_w, bias_q, m0, shift, z_y)
off = q_y.int() - quantize(y, s_y, z_y, 8).int()
print(f"{(off == 0).double().mean():.1%} of the outputs are the rounded float output, the rest are off by at most {off.abs().max()}")
print(f"{int((q_y.argmax(1) == y.argmax(1)).sum())} of {len(y)} images get the same answer")

# %% [markdown]
# Close, and not the same: the inputs and weights were rounded before they met. *Int8 is no rounded float*: it is a computation of
# its own,
# and the same to the last bit on every machine that follows the three steps.
#
# {{question 2.q4}}

# %%
### BEGIN SOLUTION
q4 = "b"
### END SOLUTION

# %%
q4 = answer("2.q4", q4)

# %% [markdown]
# Now the whole network: convolutions, the additions of the residual blocks, the average pool. The library builds it as you did the last
# layer: fold, calibrate, write every factor as an integer and a shift. (It has a scale per channel, and sends ties away from zero.)
#
# {{prediction 2.p3}}

# %%
### BEGIN SOLUTION
p3 = (1, 15)
### END SOLUTION

# %%
p3 = predict("2.p3", p3)

# %%
from compresslab.quantization import integer_network

integer_resnet = integer_network(resnet, calibration.batches(64, labels=False))
x, labels = judges.x(slice(500)), judges.y[:500]
with torch.no_grad():
    real = resnet(x).argmax(1)
    whole = torch.cat([integer_resnet(part).argmax(1) for part in x.split(100)])
print(sorted({str(q.dtype) for q in integer_resnet.tensors(x[:1]).values()}), "is all that flows between the layers")
print(f"{(real == labels).double().mean():.1%} right in floats, {(whole == labels).double().mean():.1%} in integers, of {len(x)}")
reveal("2.p3", int((real != whole).sum()));

# %% [markdown]
# Eight bits for everything, nothing trained, and hardly an answer changes; those that do are the doubtful ones. It is not *faster*
# here: PyTorch's
# CPU kernels for whole numbers are not made for speed. Chapter 11 hands the same integers to a runtime whose kernels are.

# %% [markdown]
# ## 5 Nearest is not best
#
# Your quantizer takes each weight to its nearest grid point. What could be better? Nothing, for the weight. But a network has no
# use for weights, it uses *outputs*. With the rounded row $\hat w = s\,q$ and all inputs in the columns of $X$, the error of an
# output is
#
# $$ \|\hat w^\top X - w^\top X\|^2 = d^\top H\, d, \qquad d = s\,q - w, \qquad H = X X^\top . $$
#
# $H$ is the same matrix as in chapter 01: it knows which inputs come together. A row of eight weights can be rounded in $2^8 = 256$
# ways, each weight down or up: few enough to try them all.
#
# {{prediction 2.p4}}

# %%
### BEGIN SOLUTION
p4 = (5, 40)
### END SOLUTION

# %%
p4 = predict("2.p4", p4)

# %% [markdown]
# {{exercise 2.10}}
#
# Write `best_rounding`: of all $2^n$ choices $q_j \in \{\lfloor w_j / s \rfloor, \lfloor w_j / s \rfloor + 1\}$, the one with the
# least $d^\top H\, d$. (Here the grid has no end: no clamp.)

# %%
def best_rounding(w, scale, H):
    """The integers q, an (n,) tensor: each w / scale rounded down or up, so that the output error is the least."""
    ### BEGIN SOLUTION
    n = len(w)
    ups = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1
    q = torch.floor(w / scale) + ups
    d = scale * q - w
    errors = ((d @ H) * d).sum(1)
    return q[errors.argmin()].int()
    ### END SOLUTION

# %%
best_rounding = check("2.10", best_rounding)

# %% [markdown]
# **Apply.** One hundred rows of eight weights from a convolution of ResNet-8, on the 4-bit grid of their channel. $H$ comes from
# what the layer sees on training images.

# %%
from functools import partial

import numpy as np

from compresslab.core import UniformCode, bake, convert, encode, input_moments, prepare, save, storage_report
from compresslab.core.measure import file_size, format_rows, measure
from compresslab.core.prepare import Simulated
from compresslab.core.statistics import paired_difference
from compresslab.core.store import header_bytes, load
from compresslab.core.train import correct_answers, train
from compresslab.course.chapter02 import figures_training as drawn

convolution = "stage3.0.conv1"
W = weights[convolution].flatten(1)                                    # (64, 288)
H = input_moments(resnet, [convolution], digits.train.take(100).batches(labels=False))[convolution].float()
rows = []
for n in range(100):
    output, first = n % len(W), 8 * (7 * n % 36)
    w, block, scale = W[output, first:first + 8], H[first:first + 8, first:first + 8], W[output].abs().max() / 7
    rows.append((w, scale, block, torch.round(w / scale).int(), best_rounding(w, scale, block)))

def output_error(w, scale, block, q):
    d = scale * q - w
    return (d @ block @ d).item()

same = sum(bool((nearest == best).all()) for *_, nearest, best in rows)
ratio = sorted(output_error(*row[:4]) / output_error(*row[:3], row[4]) for row in rows)
print(f"nearest is the best choice in {same} of 100 rows")
print(f"its output error is {ratio[50]:.1f} times the least in the middle row, {ratio[90]:.0f} times or more in the worst ten")
reveal("2.p4", same);

# %%
w, scale, block, nearest, best = max(rows, key=lambda row: output_error(*row[:4]) / output_error(*row[:3], row[4]))
drawn.rounded_row(w / scale, {"nearest": nearest, "best": best});

# %% [markdown]
# {{question 2.q5}}

# %%
### BEGIN SOLUTION
q5 = "d"
### END SOLUTION

# %%
q5 = answer("2.q5", q5)

# %% [markdown]
# A whole row of this layer has 288 weights: $2^{288}$ choices. **AdaRound** (Nagel et al., ICML 2020) makes each choice a number
# between 0 and 1, lets gradient descent move them all on a few hundred images, and pushes them to 0 or 1. No weight moves by more
# than one step and no label is needed:

# %%
print(drawn.methods_table(evidence.values(), ("per channel", "AdaRound"), (8, 6, 5, 4, 3, 2)))

# %% [markdown]
# *ResNet-8, 10,000 fresh images; AdaRound is the mean of three seeds.* With 5 bits and more
# nearest rounding is about as good as the float network, and little is left to gain. The fewer bits, the more it matters who is rounded up.
#
# ## 6 Training through a staircase
#
# Rounding after training asks the network to live with what it gets. Why not let it *train* with rounded weights? Because rounding
# is a staircase: flat almost everywhere. Its derivative is zero, and no gradient passes.
#
# The **straight-through estimator** (Bengio et al., arXiv 2013) cheats: going forward it rounds, going backward it pretends that it
# did not. The optimizer moves **latent** weights, exact ones in the background; the network only ever sees them rounded:
#
# $$ \hat w = s \cdot \mathrm{round}\big(\mathrm{clamp}(w/s,\, q_{min},\, q_{max})\big), \qquad
#    \frac{\partial L}{\partial w} := \frac{\partial L}{\partial \hat w} \cdot \mathbb 1[\,q_{min} \le w/s \le q_{max}\,] $$
#
# A weight beyond the range is clipped: moving it a little changes nothing, so there the gradient really is zero. That is the **clip
# mask**. The edges belong to the range. (PyTorch's own fake quantization rounds first and clamps then: to it, what lies less than half
# a step beyond is still inside. Here we clamp first.)
#
# {{exercise 2.11}}
#
# Write `fake_quantize` with plain tensor operations (`detach()` is all you need) or as a `torch.autograd.Function`.

# %%
def fake_quantize(w, scale, qmin, qmax):
    """w on the grid scale * (qmin ... qmax), ties to even, with the gradient of the formula above.

    scale is a number, or a tensor that broadcasts against w.
    """
    ### BEGIN SOLUTION
    v = (w / scale).clamp(qmin, qmax)
    rounded = v + (v.round() - v).detach()
    return scale * rounded
    ### END SOLUTION

# %%
fake_quantize = check("2.11", fake_quantize)

# %% [markdown]
# **See.** What the network sees, and what comes back.

# %%
w = torch.linspace(-2, 2, 801, requires_grad=True)
value = fake_quantize(w, 0.4, -3, 3)
(gradient,) = torch.autograd.grad(value.sum(), w)
drawn.staircase(w.detach(), value.detach(), gradient);

# %% [markdown]
# {{question 2.q6}}

# %%
### BEGIN SOLUTION
q6 = "b"
### END SOLUTION

# %%
q6 = answer("2.q6", q6)

# %% [markdown]
# **Apply.** **Quantization-aware training** at 3 bits: your staircase on every weight of ResNet-8, one scale per channel, one short
# pass over 2,000 training images. `prepare` lays it over the weights as a parametrization, as chapter 01 did with masks; `convert`
# stores the codes afterwards. It rests on a promise that the last line checks: what was trained is what is stored.

# %%
class MyStaircase(Simulated):
    """A weight as the network sees it through `fake_quantize`, one scale per output channel."""

    def __init__(self, bits):
        super().__init__()
        self.bits, self.qmax = bits, 2 ** (bits - 1) - 1

    def forward(self, weight):
        rows = weight.flatten(1)
        scale = rows.detach().abs().amax(1, keepdim=True) / self.qmax
        return fake_quantize(rows, scale, -self.qmax, self.qmax).view(weight.shape)

    def to_code(self, weight):
        return UniformCode.from_dense(weight, self.bits, axis=0)

rounded = prepare(resnet, lambda weight: MyStaircase(bits=3))
trained = train(rounded, digits.train.take(800 if quick() else 1600), epochs=1, lr=0.01, batch_size=64, progress=False)
exam = digits.test.take(300 if quick() else 1000)
right = {"float": correct_answers(resnet, exam), "3 bits, rounded": correct_answers(rounded, exam),
         "3 bits, trained": correct_answers(trained, exam)}
for name, answers in right.items():
    print(f"{name:16} {answers.double().mean():.2%} right")
print("training gained", paired_difference(right["3 bits, trained"], right["3 bits, rounded"]))
print("still missing  ", paired_difference(right["float"], right["3 bits, trained"]))
stored = convert(trained)
promise = [torch.equal(stored.get_submodule(name).weight, trained.get_submodule(name).weight) for name in weights]
print(f"stored = simulated, bit for bit, in {sum(promise)} of {len(promise)} layers")

# %% [markdown]
# {{exercise 2.12}}
#
# So far the largest weight of a channel decides on the step. **LSQ** (learned step size, Esser et al., ICLR 2020) trains the step,
# too, with the same trick: straight through the rounding, exact elsewhere. For one weight, on the grid $-Q_N \dots Q_P$:
#
# $$ \hat w = s \cdot \mathrm{round}(\mathrm{clip}(w/s, -Q_N, Q_P)), \qquad
#    \frac{\partial \hat w}{\partial s} = \begin{cases} -w/s + \mathrm{round}(w/s) & -Q_N < w/s < Q_P \\ -Q_N & w/s \le -Q_N \\ Q_P & w/s \ge Q_P \end{cases} $$
#
# One step serves $N$ weights and collects $N$ gradients, so LSQ multiplies their sum by $g = 1/\sqrt{N Q_P}$. Write `lsq_gradient`:
# $g \sum_i \frac{\partial L}{\partial \hat w_i} \frac{\partial \hat w_i}{\partial s}$, where `upstream` holds the
# $\partial L / \partial \hat w_i$.

# %%
def lsq_gradient(w, step, upstream, qn, qp):
    """One number: the gradient of the loss with respect to the step, times g = 1 / sqrt(N Qp)."""
    ### BEGIN SOLUTION
    v = w / step
    inside = (v > -qn) & (v < qp)
    slope = torch.where(inside, v.round() - v, v.clamp(-qn, qp))
    return (slope * upstream).sum() / (w.numel() * qp) ** 0.5
    ### END SOLUTION

# %%
lsq_gradient = check("2.12", lsq_gradient)

# %% [markdown]
# **Measure.** The library's `LSQ` gets its gradient by automatic differentiation, you by formula. Both, for every layer of ResNet-8
# at 3 bits and a batch of 64 images:

# %%
from compresslab.quantization import LSQ

learned = prepare(resnet, lambda weight: LSQ(weight, bits=3))
plain = bake(learned)                                            # the same rounded weights, without the trick: they get dL / d(rounded w)
x, y = next(digits.train.batches(64))
for model in (learned, plain):
    F.cross_entropy(model(x), y).backward()
for name, weight in weights.items():
    lsq = learned.get_submodule(name).parametrizations.weight[0]
    mine = lsq_gradient(weight, lsq.step.item(), plain.get_submodule(name).weight.grad, lsq.q, lsq.q)
    print(f"{name:20} step {lsq.step.item():.4f}   gradient: yours {float(mine):+.5f}, the library's {lsq.step.grad.item():+.5f}")

# %% [markdown]
# ## 7 Two and three values
#
# Here the core ends, but for exercise 2.13. What follows can be read in any order; do not miss the table of section 10.
#
# At 2 bits a symmetric grid has three points: $-\alpha, 0, \alpha$. With so few of them everything depends on where they are.
# **Ternary weights** (Li and Liu, arXiv 2016) ask for the pattern $t_i \in \{-1, 0, 1\}$ and the scale $\alpha$ with the least
# $\|w - \alpha t\|^2$. There are $3^n$ patterns. But once you know *how many* weights are kept, everything else follows: the
# largest ones, with their signs, and $\alpha$ is their mean magnitude. What is left of the error is
#
# $$ \min_\alpha \|w - \alpha t\|^2 = \|w\|^2 - \frac{S_k^2}{k}, \qquad S_k = \text{sum of the } k \text{ largest } |w_i| . $$
#
# {{exercise 2.13}}
#
# Write `ternary`: sort once, and find the best $k$.

# %%
def ternary(w):
    """(t, alpha): a tensor of -1, 0, 1 in the shape of w, and a float, which together have the least squared error."""
    ### BEGIN SOLUTION
    size, order = w.abs().flatten().sort(descending=True)
    sums = size.cumsum(0)
    best = int((sums**2 / torch.arange(1, len(size) + 1)).argmax())
    kept = order[:best + 1]
    t = torch.zeros(len(size))
    t[kept] = w.flatten()[kept].sign()
    return t.view(w.shape), float(sums[best] / (best + 1))
    ### END SOLUTION

# %%
ternary = check("2.13", ternary)

# %%
corner = weights["fc"][:4, :7]
t, alpha = ternary(corner)
figure, (left, right_side) = plt.subplots(1, 2, figsize=(8, 2.6))
plots.tensor(left, corner, "a corner of the last layer")
plots.tensor(right_side, alpha * t, f"ternary, alpha = {alpha:.2f}");

# %% [markdown]
# The paper found the exact optimum too expensive and takes a threshold of $0.7$ times the mean magnitude. Sorting costs nothing
# today. What does it buy?

# %%
def share_left(w, t, alpha):
    """How much of the squared weights the approximation misses."""
    return float(((w - alpha * t) ** 2).sum() / (w**2).sum())

for name in ("conv1", "stage1.0.conv1", "stage3.0.conv2", "fc"):
    w = weights[name]
    kept = w.abs() > 0.7 * w.abs().mean()
    rule = (w.sign() * kept, float(w.abs()[kept].mean()))
    print(f"{name:16} error left: exact {share_left(w, *ternary(w)):.4f}, 0.7 rule {share_left(w, *rule):.4f}")
cut = copy.deepcopy(resnet)
for name, w in weights.items():
    t, alpha = ternary(w)
    cut.get_submodule(name).weight.data = alpha * t
print(f"all layers ternary, not trained: {accuracy(cut, judges):.1%} right")

# %% [markdown]
# The rule of thumb was a good one, and about a fifth of the squared weights is lost either way. Without training that is the end.
# With it (the same
# straight-through trick, some epochs) three values go a long way: section 12 has the numbers.
#
# ### One bit, and no multiplication
#
# If weights *and* inputs are $\pm 1$, a dot product needs no multiplier. Store $+1$ as a set bit and $-1$ as a cleared one, 64 to a
# word. A product is $-1$ exactly where the bits differ (XNOR-Net, Rastegari et al., ECCV 2016):
#
# $$ a \cdot b = n - 2\,\mathrm{popcount}(a \oplus b) $$
#
# {{prediction 2.p5}}

# %%
### BEGIN SOLUTION
p5 = (0.02, 1)
### END SOLUTION

# %%
p5 = predict("2.p5", p5)

# %% [markdown]
# {{exercise 2.14}}
#
# Write `xnor_dot` for packed words (numpy, `uint64`, the words along the last axis); `np.bitwise_count`
# counts the set bits of each. `pack_signs` fills the last word with zeros.
# Mind the type: differences of unsigned integers cannot be negative.

# %%
def xnor_dot(a, b, n):
    """Dot products of sign vectors of length n, summed over the last axis: integers, the other axes broadcast."""
    ### BEGIN SOLUTION
    different = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)
    return n - 2 * different
    ### END SOLUTION

# %%
xnor_dot = check("2.14", xnor_dot)

# %% [markdown]
# **Measure.** The same product of two matrices of signs, three ways: your function, the library's `xnor_matmul` (the same idea,
# worked off in blocks that stay in the cache), and float32. The clock goes round and round, so that a busy machine hits all three.

# %%
from time import perf_counter

from compresslab.quantization import pack_signs, xnor_matmul

generator = torch.Generator().manual_seed(0)
A, B = torch.randn(256, 1024, generator=generator).sign(), torch.randn(256, 1024, generator=generator).sign()
a, b = pack_signs(A), pack_signs(B)
ways = {"float32 matmul": lambda: A @ B.T, "your xnor": lambda: xnor_dot(a[:, None], b[None], 1024),
        "library's xnor": lambda: xnor_matmul(a, b, 1024)}
assert all((np.asarray(way()) == (A @ B.T).numpy()).all() for way in ways.values())
samples = {name: [] for name in ways}
for _ in range(3 if quick() else 9):
    for name, way in ways.items():
        start = perf_counter()
        way()
        samples[name].append(1e3 * (perf_counter() - start))
clock = {name: float(np.median(times)) for name, times in samples.items()}
for name, milliseconds in clock.items():
    size = (a.nbytes + b.nbytes) if "xnor" in name else 4 * (A.numel() + B.numel())
    print(f"{name:16} {milliseconds:8.2f} ms on {size:9,} bytes")
reveal("2.p5", clock["float32 matmul"] / clock["your xnor"]);

# %% [markdown]
# {{question 2.q7}}

# %%
### BEGIN SOLUTION
q7 = "c"
### END SOLUTION

# %%
q7 = answer("2.q7", q7)

# %% [markdown]
# The memory is really 32 times less. The time is a promise that only a kernel written for it can keep.
#
# ## 8 Levels where the weights are
#
# A uniform grid puts its points at equal distances. Weights do not come at equal distances: most are near zero. A **codebook**
# holds any $K$ values; each weight stores the index of one, $\log_2 K$ bits (Gong et al., arXiv 2014; Han, Mao, Dally, ICLR 2016).
# Which values? Those of **k-means**. Lloyd's algorithm repeats one step: every value chooses its nearest level, every level moves
# to the mean of those that chose it.
#
# {{exercise 2.15}}
#
# Write `lloyd_step`. A level that nobody chose stays where it is.

# %%
def lloyd_step(values, codebook):
    """(indices of the nearest levels, moved codebook), for flat values and an ascending codebook."""
    ### BEGIN SOLUTION
    indices = (values[:, None] - codebook).abs().argmin(1)
    moved = codebook.clone()
    for k in range(len(codebook)):
        members = values[indices == k]
        if len(members) > 0:
            moved[k] = members.mean()
    return indices, moved
    ### END SOLUTION

# %%
lloyd_step = check("2.15", lloyd_step)

# %% [markdown]
# **Apply** it to the largest layer, eight levels, and compare with the uniform grid of 3 bits.

# %%
def lloyd(w, levels, steps=30):
    """(indices, codebook) after some steps from evenly spaced levels."""
    values = w.flatten()
    codebook = torch.linspace(values.min(), values.max(), levels)
    for _ in range(steps):
        indices, codebook = lloyd_step(values, codebook)
    return indices, codebook

w = weights["stage3.0.conv2"]
indices, codebook = lloyd(w, 8)
uniform = UniformCode.from_dense(w, 3)
print(f"uniform grid, one scale for the layer: {snr_db(w, uniform.decode()):5.2f} dB")
print(f"uniform grid, a scale per channel:     {snr_db(w, UniformCode.from_dense(w, 3, axis=0).decode()):5.2f} dB")
print(f"eight levels of its own:               {snr_db(w, codebook[indices].view(w.shape)):5.2f} dB")
drawn.levels(w, {"uniform": uniform.decode().unique(), "k-means": codebook});

# %% [markdown]
# And the network? Three bits for every weight, three ways, nothing trained:

# %%
clustered = copy.deepcopy(resnet)
for name, w in weights.items():
    indices, codebook = lloyd(w, 8, steps=12)
    clustered.get_submodule(name).weight.data = codebook[indices].view(w.shape)
coarse = encode(resnet, partial(UniformCode.from_dense, bits=3))
fine = encode(resnet, partial(UniformCode.from_dense, bits=3, axis=0))
for name, model in {"uniform, per tensor": coarse, "uniform, per channel": fine, "k-means": clustered}.items():
    print(f"{name:22} {accuracy(model, judges):.1%} right")

# %% [markdown]
# ### The file
#
# {{prediction 2.p6}}

# %%
### BEGIN SOLUTION
p6 = (6, 9)
### END SOLUTION

# %%
p6 = predict("2.p6", p6)

# %%
import tempfile
from pathlib import Path

from compresslab.quantization import fold_batch_norm as fold_network

def parts(model, entropy=False):
    """What a network's file is made of: {part: bytes}."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        size = save(model, path, entropy=entropy)
        header = header_bytes(path)
    roles = {role: bits // 8 for role, bits in storage_report(model).by_role.items()}
    rest = {"scales": roles["scales"], "biases and norms": roles["bias"] + roles.get("norm", 0), "header": header}
    return {"weights": size - sum(rest.values()), **rest}

flat = encode(fold_network(resnet), partial(UniformCode.from_dense, bits=3, axis=0))
files = {"3 bits": parts(fine), "batch norm folded": parts(flat), "and entropy-coded": parts(flat, entropy=True)}
drawn.where_the_bytes_are(files)
for name, part in files.items():
    print(f"{name:18} {sum(part.values()):6,} bytes, {file_size(resnet) / sum(part.values()):4.1f}x smaller: {', '.join(f'{what} {size:,}' for what, size in part.items())}")
reveal("2.p6", file_size(resnet) / sum(files["3 bits"].values()));

# %% [markdown]
# A small network pays for everything that is *not* a weight. Batch norms, and their entries in the header, are what the second bar
# lacks: fold them, as in section 4. **Entropy coding** (Huffman's; chapter 07) is what the third bar gains: frequent integers get
# short codes, and most 3-bit weights are 0 or next to it.
#
# ## 9 Not every layer the same
#
# The same number of bits for everybody is fair to nobody: layers differ in size and in what they lose. **Mixed precision** asks two
# questions. What does layer $l$ cost at $b$ bits, alone? Near a minimum, a random error of the weights raises the loss by about
#
# $$ \epsilon_l(b) = \tfrac12 \, \frac{\mathrm{Tr}(H_l)}{n_l} \, \|Q_b(w_l) - w_l\|^2 , $$
#
# with the Hessian $H_l$ of the loss (not the $H$ of section 5) and the $n_l$ weights of the layer (HAWQ-V2, Dong et al., NeurIPS
# 2020): $\mathrm{Tr}(H_l)/n_l$ is the mean curvature along one weight. Then, with a budget of
# $B$ bits:
#
# $$ \min_{b_1, b_2, \dots} \sum_l \epsilon_l(b_l) \qquad \text{such that} \qquad \sum_l n_l\, b_l \le B . $$
#
# That is a knapsack.
#
# {{exercise 2.16}}
#
# Write `allocate_bits`, exactly: buying the best gain first is not enough. Ten layers with four choices each are a million
# combinations; layer by layer you need not try them all. If nothing fits, raise a `ValueError`.

# %%
def allocate_bits(errors, sizes, budget):
    """{layer: bits}; errors is {layer: {bits: error}}, sizes {layer: weights}, budget a number of bits."""
    ### BEGIN SOLUTION
    best = {0: (0.0, {})}
    for layer, size in sizes.items():
        longer = {}
        for spent, (total, chosen) in best.items():
            for bits, error in errors[layer].items():
                cost = spent + size * bits
                if cost <= budget and (cost not in longer or total + error < longer[cost][0]):
                    longer[cost] = (total + error, {**chosen, layer: bits})
        best = longer
    if not best:
        raise ValueError(f"no choice of bits fits into {budget} bits")
    return min(best.values(), key=lambda found: found[0])[1]
    ### END SOLUTION

# %%
allocate_bits = check("2.16", allocate_bits)

# %%
from compresslab.quantization import hessian_errors, hutchinson_trace, quantization_errors

taste = digits.train.take(16 if quick() else 64)                 # training images: nothing is judged on them later
sizes = {name: w.numel() for name, w in weights.items()}
traces = hutchinson_trace(resnet, list(taste.batches(64)), probes=4)
errors = hessian_errors(quantization_errors(resnet, bits=(2, 3, 4, 5, 6)), traces, sizes)
answers = {}
for average in (3, 4):
    chosen = allocate_bits(errors, sizes, average * sum(sizes.values()))
    for name, bits_of in {f"{average} bits for all": dict.fromkeys(sizes, average), f"{average} on the average": chosen}.items():
        model = encode(resnet, {layer: partial(UniformCode.from_dense, bits=bits, axis=0) for layer, bits in bits_of.items()})
        expected = sum(errors[layer][bits] for layer, bits in bits_of.items())
        answers[name] = correct_answers(model, judges)
        print(f"{name:18} expected rise of the loss {expected:.3f}, {answers[name].double().mean():6.1%} right, nothing trained")
print("4 bits, given out well:", paired_difference(answers["4 on the average"], answers["4 bits for all"]))
drawn.bits_by_layer(sizes, chosen);

# %% [markdown]
# At four bits on the average (the figure) the same bytes are worth a point or two more. At three the plan promises a gain and ends in
# ruin: it gives the largest layer 2 bits. $\epsilon$ is a *second-order* estimate, good near the trained weights, and 2 bits are
# not near. The library's `measured_sensitivity` tries every layer instead of estimating; and training changes the picture once
# more.
#
# ## 10 A report to debug
#
# {{exercise 2.17}}
#
# A colleague quantizes the *inputs* of all layers to 8 bits. The ranges come from calibration images, the accuracy is reported on
# the test images. `run_with` lets a function look at, and replace, what enters each layer.

# %%
def run_with(model, x, at_input):
    """model(x); at_input(name, x) sees what enters each layer with weights, and may return something else."""
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs, name=name: at_input(name, inputs[0]))
             for name, layer in named_layers(model).items()]
    with torch.no_grad():
        output = model(x)
    for hook in hooks:
        hook.remove()
    return output

def buggy_quantize_and_report(model, calibration_x, test_x, test_y, bits=8):
    """(accuracy, {layer: range}) with the inputs of all layers rounded to a symmetric grid of so many bits."""
    model, qmax, ranges = copy.deepcopy(model), 2 ** (bits - 1) - 1, {}

    def watch(name, x):
        ranges[name] = x.abs().max().item()

    def to_grid(name, x):
        scale = ranges[name] / qmax
        q = torch.round(x / scale).int().to(torch.int8).clamp(-qmax, qmax)      # int8 is what the chip has
        return scale * q

    run_with(model, test_x, watch)
    model.eval()                                                                # no dropout, no batch statistics in the report
    right = run_with(model, test_x, to_grid).argmax(1) == test_y
    return right.double().mean().item(), ranges

just_trained = copy.deepcopy(resnet).train()                                    # as a training loop leaves a network
few, many = digits.train.take(64).x(), digits.test.take(200 if quick() else 300)
print(f"reported: {buggy_quantize_and_report(just_trained, few, many.x(), many.y)[0]:.1%}")

# %% [markdown]
# A fine number, and three bugs. Find them all and write `quantize_and_report` without them. The network that comes in may be in
# train mode and must come out as it went in.

# %%
def quantize_and_report(model, calibration_x, test_x, test_y, bits=8):
    """As above, repaired."""
    ### BEGIN SOLUTION
    model, qmax, ranges = copy.deepcopy(model).eval(), 2 ** (bits - 1) - 1, {}

    def watch(name, x):
        ranges[name] = x.abs().max().item()

    def to_grid(name, x):
        scale = ranges[name] / qmax
        q = torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8)
        return scale * q

    run_with(model, calibration_x, watch)
    right = run_with(model, test_x, to_grid).argmax(1) == test_y
    return right.double().mean().item(), ranges
    ### END SOLUTION

# %%
quantize_and_report = check("2.17", quantize_and_report)

# %%
def wrapping(model, calibration_x, test_x, test_y, bits=8):
    """One bug put back: honest mode, any calibration images, but cast before the clamp."""
    model, qmax, ranges = copy.deepcopy(model).eval(), 2 ** (bits - 1) - 1, {}
    run_with(model, calibration_x, lambda name, x: ranges.update({name: x.abs().max().item()}))

    def to_grid(name, x):
        scale = ranges[name] / qmax
        return scale * torch.round(x / scale).int().to(torch.int8).clamp(-qmax, qmax)

    return (run_with(model, test_x, to_grid).argmax(1) == test_y).double().mean().item()

exam_x, exam_y, eight = many.x(), many.y, few[:8]
print(f"float                                               {accuracy(resnet, many):.1%}")
print(f"repaired, ranges from 64 training images            {quantize_and_report(just_trained, few, exam_x, exam_y)[0]:.1%}")
print(f"repaired, ranges from 8 training images             {quantize_and_report(just_trained, eight, exam_x, exam_y)[0]:.1%}")
print(f"cast before clamp, ranges from 8 training images    {wrapping(just_trained, eight, exam_x, exam_y):.1%}")
print(f"cast before clamp, ranges from the test images      {wrapping(just_trained, exam_x, exam_x, exam_y):.1%}")

# %% [markdown]
# {{question 2.q8}}

# %%
### BEGIN SOLUTION
q8 = "d"
### END SOLUTION

# %%
q8 = answer("2.q8", q8)

# %% [markdown]
# ## 11 Your turn: 30 kB
#
# {{exercise 2.18}}
#
# Make a file of at most **30,000 bytes** that holds a network which loses at most **0.5 points** against ResNet-8, in less than a tenth of
# its bytes. The check loads the file in a fresh process into a network full of NaN, counts every byte, and lets both networks answer
# 4,000 images that nobody has seen; it fails you when the interval of the paired difference says that you lost more. You know where
# the bytes are and who minds losing bits: `prepare`, `train`, `fold_network`, `encode`, `save(..., entropy=True)`. One short
# training is enough. It is worth most when the network learns the *float network's answers* instead of the labels (`train` takes a
# `loss`; chapter 04 tells why that helps). Choose on `digits.validation`. Set `my_file` to the path.

# %%
from compresslab.course.budget import submission_path
from compresslab.quantization import FakeQuantize, Ternary

### BEGIN SOLUTION
few_bits = {"stage3.0.conv2": 2, "stage3.0.conv1": 3}                 # the two largest layers; 4 bits for the others
network = prepare(resnet, lambda weight: Ternary(axis=0), only=["stage3.0.conv2"])
network = prepare(network, lambda weight: FakeQuantize(3), only=["stage3.0.conv1"])
network = prepare(network, lambda weight: FakeQuantize(4), skip=list(few_bits))

def imitate(model, x, y):
    """The float network's answers, softened, as the target."""
    with torch.no_grad():
        wanted = (resnet(x) / 2).softmax(1)
    return 4 * F.cross_entropy(model(x) / 2, wanted)

images = digits.train.take(1000 if quick() else 5000)
network = train(network, images, epochs=1, lr=0.01, batch_size=64, loss=imitate, progress=False)
flat = fold_network(bake(network))
flat = encode(flat, {name: partial(UniformCode.from_dense, bits=few_bits.get(name, 4), axis=0) for name in weights})
save(flat, submission_path("2.18"), entropy=True)
my_file = str(submission_path("2.18"))
### END SOLUTION

# %%
my_file = check("2.18", my_file)

# %% [markdown]
# ## 12 Your ledger
#
# Three rows: the network as it was, 3 bits with your staircase, and your file. The last two are *packed*: small in the file,
# decoded to floats before they run, and so as fast as before. The clock would only measure its own noise.

# %%
judged = digits.test.take(200 if quick() else 500)
rows = [measure(resnet, judged, name="ResNet-8", repeats=0),
        measure(stored, judged, name="ResNet-8, 3 bits, QAT", repeats=0),
        measure(load(my_file), judged, name="ResNet-8, 30 kB", repeats=0, entropy=True)]
print(format_rows(rows))
for row in rows:
    ledger.add(row, chapter="02", family="quantization" if "," in row.name else "dense")

# %%
ledger.pareto();

# %% [markdown]
# Five hundred images cannot tell tenths of a point apart. The shipped evidence can: every network of the course, 50,000 fresh
# images, three seeds (`python -m compresslab evidence 02` makes it again).

# %%
print(drawn.claims_table(evidence.values()))
drawn.everything(evidence.values());

# %% [markdown]
# *8 bits: a scale per channel, not trained. 4 bits and ternary: trained straight through. Every layer is quantized, the first and
# the last too; losses are paired differences against the shipped network, intervals from the lowest to the highest end of all
# seeds. In the figure the dashed line is what this course allows itself, and at the right edge stands how many times smaller the
# file is.* A loss below zero is a gain: training went on, and a dense network trained as long gains, too: the last rows of the table are that control for the two networks that had
# most to learn. Held against it, and not against the shipped network, three values do cost them points. Eight bits are free. Four want a short training, three values a longer one, and what they cost depends on how much
# network there was to begin with.
#
# ## What was simplified
#
# - Weights are stored in few bits and *decoded* before they are multiplied. Only section 4 computes with the integers themselves.
# - Nagel et al. optimise AdaRound layer by layer with quantized inputs, for thousands of steps; `best_rounding` takes one row and
#   tries everything.
# - LSQ trains for dozens of epochs, first and last layer in 8 bits. Our live training is one short pass.
# - Li and Liu use the 0.7 rule; we sort.
# - XNOR-Net also scales its inputs and weights, and trains through both signs. We took the dot product alone.
# - HAWQ-V2 trains after it has chosen the bits, and averages its traces over far more images.
# - Published bit widths often leave out scales, codebooks, first and last layers, and headers. Our files leave out nothing.
#
# ## Further reading
#
# - Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018:
#   sections 1 to 4 of this chapter.
# - Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*, ICCV 2019, and *Up or Down? Adaptive
#   Rounding for Post-Training Quantization*, ICML 2020.
# - Esser et al., *Learned Step Size Quantization*, ICLR 2020; Choi et al., *PACT*, arXiv 2018; Zhou et al., *DoReFa-Net*, arXiv
#   2016; Zhou et al., *Incremental Network Quantization*, ICLR 2017.
# - Courbariaux et al., *BinaryConnect*, NeurIPS 2015; Rastegari et al., *XNOR-Net*, ECCV 2016; Li, Liu, *Ternary Weight Networks*,
#   arXiv 2016; Zhu et al., *Trained Ternary Quantization*, ICLR 2017.
# - Gong et al., *Compressing Deep Convolutional Networks using Vector Quantization*, arXiv 2014; Choi et al., *Towards the Limit of
#   Network Quantization*, ICLR 2017; Han, Mao, Dally, *Deep Compression*, ICLR 2016.
# - Wang et al., *HAQ*, CVPR 2019; Dong et al., *HAWQ-V2*, NeurIPS 2020.
#
# **Next:** chapter 03 builds networks that are small from the start.

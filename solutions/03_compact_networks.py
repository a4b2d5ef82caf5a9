# %% [markdown]
# # Compact networks: design for the budget
#
# After this chapter you can **predict** what a layer costs before you build it, build the blocks that made networks fit into phones, and
# choose among them for a budget that is *yours*: bytes, operations, or milliseconds. They are three different budgets. This is the
# figure that you will understand by the end: networks of eight kinds of block, all with at most 20,000 parameters, all trained alike.

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter03 import figures
from compresslab.course.chapter03.widgets import CostLook, draw_cost

plots.style()
evidence = load_evidence("03")
figures.blocks_compared(evidence.values());

# %% [markdown]
# *`street_digits`, freshly drawn images; short marks are single seeds, symbols their means; time on one thread, in batches of 64.* On
# the left all stand close together, for they were built that way. Then they part company. **Time** about two hours for the core
# exercises, twice that for all. **You need** chapter 00: MACs, fair timing, the roofline. **In a workshop** leave this chapter out, or
# do sections 1 and 4.
#
# Stuck? Open a new cell and run `hint("3.1")`: each call says a little more.
#
# ## The family
#
# Pruning and quantization start from a large trained network. A **compact** network is small *by design*, before the first training
# step. Almost everything in it is a way not to connect everything with everything:

# %%
figures.map_of_compact();

# %% [markdown]
# *Eight input channels (columns), eight output channels (rows), a green square for each kernel, as large as the kernel.* Our patients are
# ResNet-8, the VGG-like network and the MobileNet-like one, all trained on `street_digits`. What we choose, we choose on `validation`.

# %%
from compresslab.core import named_layers
from compresslab.core.measure import count_macs
from compresslab.core.train import accuracy
from compresslab.data import load_data
from compresslab.models import load_baseline

digits = load_data("street_digits")
judges = digits.validation.take(200 if quick() else 1000)
resnet, vgg, mobilenet = load_baseline("resnet8"), load_baseline("vgg"), load_baseline("mobilenet")
for name, network in {"ResNet-8": resnet, "VGG-like": vgg, "MobileNet-like": mobilenet}.items():
    print(f"{name:15} {sum(p.numel() for p in network.parameters()):9,} parameters, {count_macs(network, (3, 32, 32)).total:10,} MACs, "
          f"{accuracy(network, judges.take(200)):.1%} of 200 validation images right")

# %% [markdown]
# ## 1 What a convolution costs
#
# **Look.** The eight convolutions of the VGG-like network, and what enters them:

# %%
@torch.no_grad()
def convolutions(model, size=32):
    """{name: (layer, height, width)}: every convolution, with the size of the images that enter it."""
    found = {}
    def watch(name):
        def hook(layer, inputs):
            found[name] = (layer, *inputs[0].shape[2:])
        return hook
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    model(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return found

stack = convolutions(vgg)
whole = sum(layer.weight.numel() for layer, _, _ in stack.values())
for name, (layer, height, width) in stack.items():
    print(f"{name:12} {layer.in_channels:3} to {layer.out_channels:3} channels, {height:2} x {width:2} pixels: "
          f"{layer.weight.numel():7,} weights, {layer.weight.numel() / whole:5.1%}")

# %% [markdown]
# {{prediction 3.p1}}

# %%
### BEGIN SOLUTION
p1 = (10, 30)
### END SOLUTION

# %%
p1 = predict("3.p1", p1)

# %% [markdown]
# {{exercise 3.1}}
#
# A layer has three prices. It is stored (**parameters**), computed (**MACs**), and its numbers travel between memory and processor: in the
# best case the input is read once, the parameters once, the output written once. We call the sum of these three the numbers **moved**.
# From $I$ to $O$ channels with a $k \times k$ kernel in $g$ **groups** (each output reads the $I/g$ inputs of its own group), stride $s$
# and "same" padding, the output has $H' = \lceil H/s \rceil$ rows and $W' = \lceil W/s \rceil$ columns, and
#
# $$ \mathrm{weights} = O\,\frac{I}{g}\,k^2, \qquad \mathrm{MACs} = \mathrm{weights} \cdot H' W', \qquad
# \mathrm{moved} = I H W + \mathrm{parameters} + O H' W' . $$
#
# The parameters are the weights and, if there is one, the bias. In chapter 00 you counted for a layer that existed. A designer has only
# numbers: write `conv_cost` from them, and refuse groups that do not divide both $I$ and $O$ with a `ValueError`.

# %%
def conv_cost(in_channels, out_channels, kernel_size, height, width, stride=1, groups=1, bias=False):
    """(parameters, macs, moved), three whole numbers, for one image of height x width; kernel_size is odd."""
    ### BEGIN SOLUTION
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups must divide {in_channels} inputs and {out_channels} outputs")
    weights = out_channels * (in_channels // groups) * kernel_size**2
    positions = -(-height // stride) * -(-width // stride)
    parameters = weights + (out_channels if bias else 0)
    moved = in_channels * height * width + parameters + out_channels * positions
    return parameters, weights * positions, moved
    ### END SOLUTION

# %%
conv_cost = check("3.1", conv_cost)

# %%
def costs_of(model, size=32):
    """{name of a convolution: (parameters, macs, moved)} by your conv_cost."""
    return {name: conv_cost(layer.in_channels, layer.out_channels, layer.kernel_size[0], height, width, layer.stride[0],
                            layer.groups, layer.bias is not None)
            for name, (layer, height, width) in convolutions(model, size).items()}

costs = costs_of(vgg)
figures.cost_by_layer(costs)
macs = [macs for _, macs, _ in costs.values()]
reveal("3.p1", 100 * sum(macs[:2]) / sum(macs));

# %% [markdown]
# The prices are paid in different places: parameters at the end, where there are many channels; operations everywhere, for whenever
# the width doubles the image shrinks by four. What moves are weights here, because images are small and come one at a time; with large
# images, or in a batch that reads the weights only once, it is the activations, and they are at the front. *Which layer to make cheaper
# depends on which price you pay.*
#
# **Play** with one layer of 16 x 16 pixels: its width, its kernel size $k$, and the number of groups $g$ as a power of two. Which handle
# moves which price?

# %%
look = CostLook(conv_cost)
widgets.controls(look, draw_cost, widgets.Slider("width", 0.25, 2, 0.25, start=1.0), widgets.Slider("k", 1, 7, 2, start=3),
                 widgets.Slider("log2 g", 0, 4, 1, start=0), static=[(0.5, 3, 0), (1.0, 1, 0), (1.0, 3, 4)])

# %% [markdown]
# The **width multiplier** $\alpha$ (Howard et al., arXiv 2017) makes every layer of a network wider or thinner by the same factor. It
# is the first thing to try, and the thing every cleverer idea must beat.
#
# {{question 3.q1}}

# %%
### BEGIN SOLUTION
q1 = "c"
### END SOLUTION

# %%
q1 = answer("3.q1", q1)

# %% [markdown]
# ## 2 Squeeze, then expand
#
# A 3x3 kernel has nine times the weights of a 1x1 kernel, and a weight exists for each *pair* of channels. So: use 1x1 kernels where they
# will do, and let the 3x3 kernels read few channels. That is the **Fire** module of SqueezeNet (Iandola et al., arXiv 2016):
#
# $$ z = \mathrm{relu}(\mathrm{squeeze}_{1\times1}\, x), \qquad y = \mathrm{relu}\big(\,[\,\mathrm{expand}_{1\times1}\, z,\;
# \mathrm{expand}_{3\times3}\, z\,]\,\big) $$
#
# from $C$ channels through $s$ to $e_1 + e_3$; the brackets put channels side by side.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.6, 2.5), width_ratios=(1, 1.6))
plots.blocks(axes[0], [plots.Block("input", 128, 27, "#DDDDDD"), plots.Block("conv 3x3", 256, 27)], "plain: 3x3 kernels read 128 channels")
plots.blocks(axes[1], [plots.Block("input", 128, 27, "#DDDDDD"), plots.Block("squeeze 1x1", 32, 27, "#E69F00"),
                       plots.Block("expand: 128 by 1x1,\n128 by 3x3, side by side", 256, 27)],
             "Fire: 3x3 kernels read 32 channels");

# %% [markdown]
# {{exercise 3.2}}
#
# Write the class `Fire`: three convolutions with biases, the 1x1 channels first in the output, image size unchanged.

# %%
class Fire(nn.Module):
    """(N, in_channels, H, W) -> (N, expand1x1 + expand3x3, H, W)."""

    def __init__(self, in_channels, squeeze, expand1x1, expand3x3):
        super().__init__()
        ### BEGIN SOLUTION
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))
        ### END SOLUTION

# %%
Fire = check("3.2", Fire)

# %% [markdown]
# **Apply.** SqueezeNet 1.0 is one convolution, eight Fire modules, one convolution; the published one has 1,248,424 parameters. Count
# yours:

# %%
fires = [(96, 16, 64, 64), (128, 16, 64, 64), (128, 32, 128, 128), (256, 32, 128, 128), (256, 48, 192, 192), (384, 48, 192, 192),
         (384, 64, 256, 256), (512, 64, 256, 256)]
first, last = conv_cost(3, 96, 7, 224, 224, 2, bias=True)[0], conv_cost(512, 1000, 1, 13, 13, bias=True)[0]
with torch.device("meta"):                        # shapes without numbers
    modules = [sum(p.numel() for p in Fire(*sizes).parameters()) for sizes in fires]
print(f"{first:,} + {sum(modules):,} + {last:,} = {first + sum(modules) + last:,}")

# %% [markdown]
# **Measure.** One Fire module in its place, 27 x 27 pixels, against a plain 3x3 layer with the same input and output, and against one
# that was only made thinner until it has as few weights:

# %%
def summed(*costs):
    """The prices of several layers in a row: each adds up."""
    return tuple(sum(prices) for prices in zip(*costs))

thin = round(128 * modules[2] / conv_cost(128, 256, 3, 27, 27, bias=True)[0] * 2)
candidates = {"plain 3x3": conv_cost(128, 256, 3, 27, 27, bias=True),
              "Fire": summed(conv_cost(128, 32, 1, 27, 27, bias=True), conv_cost(32, 128, 1, 27, 27, bias=True),
                             conv_cost(32, 128, 3, 27, 27, bias=True)),
              f"plain, {thin} outputs": conv_cost(128, thin, 3, 27, 27, bias=True)}
for name, (parameters, macs, moved) in candidates.items():
    print(f"{name:18} {parameters:8,} parameters, {macs:12,} MACs, {moved:8,} numbers moved")
figures.three_prices(candidates);

# %% [markdown]
# Two prices fall together, the third hardly follows: what stands between the layers has to be written and read back. The thinner layer
# moves least, but it hands on far fewer channels. Chapter 00 had the rest of the story: SqueezeNet needs 49 times fewer parameters than
# AlexNet, and *more* multiply-accumulates, because AlexNet keeps its weights in linear layers, where each is used only once.
#
# ## 3 One kernel per channel
#
# A convolution does two things at once: it looks at the neighbourhood, and it mixes channels. A **depthwise separable** convolution
# (MobileNet; Howard et al., arXiv 2017) does them one after the other. The **depthwise** half has one $k \times k$ kernel per input
# channel and mixes nothing. The **pointwise** half is a 1x1 convolution and sees no neighbours:
#
# $$ y_n = \sum_m p_{nm} \, (d_m * x_m), \qquad \frac{\mathrm{cost}}{\mathrm{cost\ of\ the\ dense\ layer}} = \frac{M k^2 + M N}{M N k^2}
# = \frac1N + \frac1{k^2} . $$
#
# {{exercise 3.3}}
#
# Write `separable_conv`, which builds the pair, bare: no biases, nothing in between. The stride belongs where it saves most.

# %%
def separable_conv(in_channels, out_channels, kernel_size=3, stride=1):
    """A module: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)); kernel_size is odd."""
    ### BEGIN SOLUTION
    padding = kernel_size // 2
    depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(depthwise, pointwise)
    ### END SOLUTION

# %%
separable_conv = check("3.3", separable_conv)

# %%
for outputs, kernel in ((16, 3), (64, 3), (512, 3), (64, 5)):
    dense = conv_cost(64, outputs, kernel, 8, 8)[1]
    pair = count_macs(separable_conv(64, outputs, kernel), (64, 8, 8)).total
    print(f"64 to {outputs:3} channels, {kernel}x{kernel}: {dense / pair:4.1f} times fewer MACs; the formula says {1 / (1 / outputs + 1 / kernel**2):4.1f}")

# %% [markdown]
# With 3x3 kernels never more than nine times: the pointwise half is most of the cost. And the third price? An early layer and a late one
# of the VGG-like network, dense and separable:

# %%
for name, (channels, side) in {"features.3": (32, 32), "features.24": (256, 4)}.items():
    dense = conv_cost(channels, channels, 3, side, side)
    pair = summed(conv_cost(channels, channels, 3, side, side, groups=channels), conv_cost(channels, channels, 1, side, side))
    print(f"{name:11} MACs {dense[1] / pair[1]:.1f} times fewer, numbers moved {dense[2]:7,} and then {pair[2]:7,}")

# %% [markdown]
# Where images are large, the separable pair moves *more*: it writes a tensor and reads it back that the dense layer never had. Keep that
# in mind for section 7. And where are the MACs of a network that is built this way?

# %%
shares = {"1x1": 0, "depthwise": 0, "3x3, dense": 0}
for name, (layer, _, _) in convolutions(mobilenet).items():
    kind = "1x1" if layer.kernel_size == (1, 1) else "depthwise" if layer.groups > 1 else "3x3, dense"
    shares[kind] += costs_of(mobilenet)[name][1]
for kind, macs in shares.items():
    print(f"{kind:11} {macs / sum(shares.values()):6.1%} of the MACs of the MobileNet-like network")

# %% [markdown]
# ### Another species?
#
# Multiply the two halves out: $y_n = \sum_m (p_{nm} d_m) * x_m$. That is an ordinary dense convolution with the kernels
# $K_{nm} = p_{nm} d_m$. Its only peculiarity: for one input channel $m$, the kernels of all outputs are *multiples of one*.

# %%
with torch.no_grad():
    pair = separable_conv(3, 5)
    d, p = (half.weight for half in pair)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    print(f"largest difference: {(pair(x) - F.conv2d(x, p * d.transpose(0, 1), padding=1)).abs().max():.1e}")

# %% [markdown]
# Written as a matrix with one row per output, $K_{\cdot m}$ is $N \times k^2$ and has **rank** one. So any trained dense layer can be
# asked: how separable are you already?
#
# {{prediction 3.p2}}

# %%
### BEGIN SOLUTION
p2 = (30, 70)
### END SOLUTION

# %%
p2 = predict("3.p2", p2)

# %% [markdown]
# {{exercise 3.4}}
#
# Write `project_separable`: the separable convolution with the smallest squared error $\sum (K_{nm} - p_{nm} d_m)^2$. By Eckart and Young
# the nearest matrix of rank one keeps the largest **singular value** $s_1$ and its two vectors, $K_{\cdot m} \approx s_1 u_1 v_1^\top$,
# and the squared error is the sum of the squares of the others. One SVD per input channel; `torch.linalg.svd` takes them all at once.

# %%
def project_separable(weight):
    """(depthwise (M, 1, h, w), pointwise (N, M, 1, 1)) of the separable convolution nearest to weight (N, M, h, w)."""
    ### BEGIN SOLUTION
    outputs, inputs, height, width = weight.shape
    matrices = weight.transpose(0, 1).reshape(inputs, outputs, height * width)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    pointwise = u[:, :, 0] * s[:, :1]
    return vh[:, 0].reshape(inputs, 1, height, width), pointwise.T.reshape(outputs, inputs, 1, 1)
    ### END SOLUTION

# %%
project_separable = check("3.4", project_separable)

# %% [markdown]
# **See** one input channel of the largest layer of ResNet-8: its kernels for nine outputs, and the multiples of one kernel that come
# nearest.

# %%
def nearest(weight):
    """The dense weight that the nearest separable convolution stands for."""
    depthwise, pointwise = project_separable(weight)
    return pointwise * depthwise.transpose(0, 1)

layers = {name: layer.weight.detach() for name, layer in named_layers(resnet).items() if layer.weight.shape[2:] == (3, 3)}
weight = layers["stage3.0.conv2"]
channel = int(weight.square().sum((0, 2, 3)).argmax())
outputs = weight[:, channel].square().sum((1, 2)).argsort(descending=True)[:9]
figures.kernels(weight[outputs, channel], nearest(weight)[outputs, channel]);

# %%
def kept(weight):
    """The share of the squared weights that survives."""
    return (nearest(weight).square().sum() / weight.square().sum()).item()

noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
print(f"kept of a random layer: {kept(noise):.1%}")
reveal("3.p2", 100 * kept(weight));

# %% [markdown]
# Far from random, and far from separable. **Apply, and measure**: project one layer, leave the others alone; then all of them.

# %%
def projected(model, names):
    """A copy, these layers replaced by their nearest separable ones (written as dense weights)."""
    model = copy.deepcopy(model)
    for name in names:
        layer = model.get_submodule(name)
        layer.weight.data = nearest(layer.weight.data)
    return model

few = judges.take(min(300, len(judges)))
for name, weight in layers.items():
    print(f"{name:16} {tuple(weight.shape)!s:16} keeps {kept(weight):5.1%} of its squared weights; "
          f"{accuracy(projected(resnet, [name]), few):.1%} right with it")
print(f"all together: {accuracy(projected(resnet, layers), few):.1%} right; untouched {accuracy(resnet, few):.1%}")
draw = torch.Generator().manual_seed(0)
for name, (layer, _, _) in list(stack.items())[1::2]:
    noise = torch.randn(layer.weight.shape, generator=draw)
    print(f"VGG-like, {name:12} keeps {kept(layer.weight.detach()):.1%}, random numbers of its shape {kept(noise):.1%}")

# %% [markdown]
# What is kept does not say what is lost: compare the layers that keep the same share. And the VGG-like network is hardly more separable than
# noise: a network with weights to spare has no reason to be tidy.
#
# {{question 3.q2}}

# %%
### BEGIN SOLUTION
q2 = "d"
### END SOLUTION

# %%
q2 = answer("3.q2", q2)

# %% [markdown]
# ## 4 Groups are not free
#
# After the depthwise step all the cost is in 1x1 convolutions. Groups divide it: with $g$ **groups**, the channels are split into $g$ parts
# that do not see each other, and weights and MACs fall by $g$.

# %%
for groups in (1, 2, 4, 8):
    parameters, macs, moved = conv_cost(240, 240, 1, 28, 28, groups=groups)
    print(f"240 to 240 channels, 1x1, {groups} groups: {parameters:6,} parameters, {macs:11,} MACs, {moved:,} numbers moved")

# %% [markdown]
# A bargain, it seems. To see its price, ask of a block: *which outputs can depend on which inputs?* The derivative knows: what an output
# does not depend on has derivative exactly zero.
#
# {{exercise 3.5}}
#
# Write `reaches`: for each output channel $o$ and input channel $i$, is $\partial y_o / \partial x_i$ other than zero anywhere? It must
# work for any block, whatever is inside, and leave its input and the parameters as they were. (The blocks come in eval mode;
# `torch.autograd.grad` leaves the parameters alone.) You need one number per channel to differentiate. The plain sum over the positions
# will not do: if a block subtracts each channel's mean, every position depends on $x$, yet the sum is always zero. Weight the sum
# with random numbers.

# %%
def reaches(block, x):
    """Bool (outputs, inputs): does output channel o of block(x) depend on input channel i? x is (1, C, H, W)."""
    ### BEGIN SOLUTION
    x = x.clone().requires_grad_()
    rows = []
    for channel in block(x)[0]:
        weighted = (channel * torch.randn_like(channel)).sum()
        gradient, = torch.autograd.grad(weighted, x, retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=(1, 2)) > 0)
    return torch.stack(rows)
    ### END SOLUTION

# %%
reaches = check("3.5", reaches)

# %%
x = torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(0))

torch.manual_seed(0)

def grouped(groups=3, channels=12):
    """A 1x1 convolution in groups."""
    return nn.Conv2d(channels, channels, 1, groups=groups)

chains = {"dense": grouped(1), "depthwise": grouped(12), "3 groups": grouped(), "two layers of 3 groups": nn.Sequential(grouped(), grouped()),
          "five of them": nn.Sequential(*(grouped() for _ in range(5)))}
figures.connections({name: reaches(block, x) for name, block in chains.items()});

# %% [markdown]
# However many grouped layers follow each other: these are three networks side by side that never talk. Training cannot help, since where
# there is no connection there is no gradient. The cure costs no multiplication and no parameter.
#
# {{exercise 3.6}}
#
# The **channel shuffle** (ShuffleNet; Zhang et al., CVPR 2018) deals the channels like cards. With $g$ groups of $n$ channels, write
# them as $g$ rows of $n$, and read by columns: $(g, n) \to (n, g)$. Write `channel_shuffle`. Groups that do not divide the channels are a
# `ValueError`.

# %%
def channel_shuffle(x, groups):
    """The channels of x (N, C, H, W) in a new order: first the first of each group, then the second of each group, ..."""
    ### BEGIN SOLUTION
    batch, channels, height, width = x.shape
    if channels % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels")
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)
    ### END SOLUTION

# %%
channel_shuffle = check("3.6", channel_shuffle)

# %%
class Shuffle(nn.Module):
    """Your function as a layer."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        return channel_shuffle(x, self.groups)

dealt = channel_shuffle(torch.arange(12.0).reshape(1, 12, 1, 1), 3).flatten().int().tolist()
print("3 groups of 4:", dealt)
chains = {"3 groups, no shuffle": nn.Sequential(grouped(3), grouped(3)),
          "3 groups, shuffle": nn.Sequential(grouped(3), Shuffle(3), grouped(3)),
          "6 groups, shuffle": nn.Sequential(grouped(6), Shuffle(6), grouped(6)),
          "6 groups, 3 layers": nn.Sequential(grouped(6), Shuffle(6), grouped(6), Shuffle(6), grouped(6))}
tables = {name: reaches(chain, x) for name, chain in chains.items()}
figures.connections(tables);

# %% [markdown]
# {{question 3.q3}}

# %%
### BEGIN SOLUTION
q3 = "a"
### END SOLUTION

# %%
q3 = answer("3.q3", q3)

# %% [markdown]
# **Apply.** A ShuffleNet unit from the library, which is two grouped 1x1 layers, a shuffle and a depthwise layer between them, and a
# shortcut around it all; and the same unit with the shuffle taken out.

# %%
from compresslab.compact.shuffle import ChannelShuffle, ShuffleUnitV1

def unit_of(channels, shuffle=True):
    """A unit of 3 groups; its bottleneck has a quarter of the channels."""
    unit = ShuffleUnitV1(channels, channels, groups=3).eval()
    for name, part in list(unit.named_modules()):
        if isinstance(part, ChannelShuffle) and not shuffle:
            unit.set_submodule(name, nn.Identity())
    return unit

units = {"36 channels, no shuffle": unit_of(36, shuffle=False), "36 channels": unit_of(36), "24 channels": unit_of(24)}
draw = torch.Generator().manual_seed(0)
figures.connections({name: reaches(unit, torch.randn(1, int(name[:2]), 8, 8, generator=draw)) for name, unit in units.items()});

# %% [markdown]
# A quarter of 36 channels are 9, three for each group: enough for three groups. A quarter of 24 are 6, two for each group: the rule of the
# question, in the wild. (The diagonal is the shortcut.)
#
# **Measure** what a missing connection costs. The four chains learn the simplest task that needs every channel: the sum of all twelve.

# %%
def what_remains(chain, steps=200):
    """Train the chain to answer with the sum of all inputs; the share of the squared target that it misses afterwards."""
    chain, draw = copy.deepcopy(chain), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(chain.parameters(), lr=0.03)
    for side in [16] * steps + [128]:                       # every pixel is an example; the last image is only for judging
        x = torch.randn(1, 12, side, side, generator=draw)
        wanted = x.sum(1, keepdim=True)
        share = (chain(x) - wanted).square().mean() / wanted.square().mean()
        if side == 16:
            optimizer.zero_grad()
            share.backward()
            optimizer.step()
    return share.item()

for (name, chain), table in zip(chains.items(), tables.values()):
    weights = sum(layer.weight.numel() for layer in chain if isinstance(layer, nn.Conv2d))
    print(f"{name:20} {weights:3} weights; {(~table).double().mean():4.0%} of the inputs out of reach; {what_remains(chain):4.0%} of the error remains")

# %% [markdown]
# What is out of reach is lost, and no training brings it back. The shuffle restores it for no weight and no operation; but it moves every
# number once more, and none of our counts has seen that. Whether *that* is free, only a clock can say: section 7.

# %% [markdown]
# ## 5 Wide inside, thin outside
#
# A separable layer is nearly all pointwise convolution, and that costs channels *times* channels. So MobileNetV2 (Sandler et al., CVPR
# 2018) passes few channels from block to block, and widens only inside, where a depthwise layer is cheap. ResNet's
# **bottleneck** is narrow in the middle; here the shortcut joins the thin ends, and so the block is an **inverted residual**:

# %%
from compresslab.course.chapter03 import figures_networks as drawn

ax = plt.subplots(figsize=(8.6, 2.3))[1]
plots.blocks(ax, [plots.Block("input", 16, 16, "#DDDDDD"), plots.Block("1x1, ReLU6\nexpand", 96, 16),
                  plots.Block("3x3 depthwise,\nReLU6", 96, 16, "#009E73"), plots.Block("1x1, linear\nproject", 16, 16, "#E69F00")],
             "width: channels, height: pixels; the shortcut joins the two ends");

# %% [markdown]
# The end is thin, and it is **linear**: no activation behind the last convolution. Why? A ReLU erases what is negative. Put a spiral of
# two dimensions into $n$ channels by a random matrix, take the ReLU, and come back as well as a matrix can:

# %%
angle = torch.linspace(0, 4 * math.pi, 300)
spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 12
clouds = {"the spiral": spiral}
for n in (2, 3, 5, 15, 30):
    there = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    y = F.relu(spiral @ there)
    back = y @ torch.linalg.lstsq(y, spiral, driver="gelsd").solution
    clouds[f"{n} channels"] = back
    print(f"{n:2} channels: {(back - spiral).norm() / spiral.norm():5.1%} of it is lost")
drawn.thin_points(clouds);

# %% [markdown]
# {{question 3.q4}}

# %%
### BEGIN SOLUTION
q4 = "a"
### END SOLUTION

# %%
q4 = answer("3.q4", q4)

# %% [markdown]
# {{exercise 3.7}}
#
# Write the class `InvertedResidual`. With $M$ input channels, expansion $t$ and $h = tM$ hidden ones:
#
# $$ f(x) = \mathrm{BN}\, W_p\;\, \mathrm{relu6}\, \mathrm{BN}\, D\;\, \mathrm{relu6}\, \mathrm{BN}\, W_e\; x, \qquad
# y = \begin{cases} x + f(x) & \text{if } x \text{ and } f(x) \text{ have one shape} \\ f(x) & \text{else} \end{cases} $$
#
# $W_e$ is a 1x1 convolution from $M$ to $h$, $D$ a 3x3 depthwise one, which has the stride, $W_p$ a 1x1 convolution to the output
# channels. $\mathrm{relu6}(z) = \min(\max(z, 0), 6)$. Convolutions have no bias: batch norm brings its own. All three stay, also with $t = 1$.

# %%
class InvertedResidual(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, in_channels, out_channels, stride=1, expansion=6):
        super().__init__()
        ### BEGIN SOLUTION
        hidden = expansion * in_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.residual = stride == 1 and in_channels == out_channels
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        y = self.layers(x)
        return x + y if self.residual else y
        ### END SOLUTION

# %%
InvertedResidual = check("3.7", InvertedResidual)

# %% [markdown]
# **Apply.** Our trained MobileNet is made of six such blocks. What would a ReLU at their ends have thrown away?

# %%
erased = {}
hooks = [block.register_forward_hook(lambda block, inputs, y, k=k: erased.update({k: (y < 0).double().mean().item()}))
         for k, block in enumerate(mobilenet.blocks)]
with torch.no_grad():
    mobilenet(judges.x(slice(100)))
for hook in hooks:
    hook.remove()
print("below zero at the end of each block:", ", ".join(f"{share:.0%}" for share in erased.values()))

# %% [markdown]
# {{exercise 3.8}}
#
# A convolution weighs its channels alike for every image. **Squeeze-and-excitation** (Hu, Shen, Sun, CVPR 2018; a part of MobileNetV3, Howard
# et al., ICCV 2019) gives each image its own weights: *squeeze* every channel to its mean, *excite* through two small linear layers,
# multiply each channel by its **gate**:
#
# $$ z = \mathrm{up}\big(\mathrm{relu}(\mathrm{down}(\mathrm{mean}_{h,w}\, x))\big), \qquad
# \text{gate} = \frac{\mathrm{relu6}(z + 3)}{6}, \qquad y_{nchw} = \text{gate}_{nc}\; x_{nchw} . $$
#
# The gate is the **hard sigmoid**, MobileNetV3's cheap stand-in for the smooth one. Write `squeeze_excite`; `down` and `up` are
# linear layers from $C$ to few and back to $C$.

# %%
def squeeze_excite(x, down, up):
    """(N, C, H, W) -> (N, C, H, W): every channel of every image multiplied by its gate."""
    ### BEGIN SOLUTION
    squeezed = x.mean((2, 3))
    gate = F.relu6(up(F.relu(down(squeezed))) + 3) / 6
    return x * gate[:, :, None, None]
    ### END SOLUTION

# %%
squeeze_excite = check("3.8", squeeze_excite)

# %%
z = torch.linspace(-6, 6, 121)
drawn.gates(z, {"sigmoid": torch.sigmoid(z), "hard sigmoid": F.relu6(z + 3) / 6})
channels, side = 96, 16
extra = 2 * channels * channels // 4
inside = count_macs(InvertedResidual(16, 16), (16, side, side)).total
print(f"gates for {channels} channels through {channels // 4}: {extra:,} MACs, {extra / inside:.1%} of their block's, "
      f"and {extra:,} weights, {extra / sum(p.numel() for p in InvertedResidual(16, 16).parameters()):.0%} of its parameters")

# %% [markdown]
# Hardly an operation, and more weights than the block itself: a gate's weight is used once per image, a convolution's at every pixel.
# The same trick, $z \cdot \text{gate}(z)$ with $z$ itself in the place of the two layers, is the activation **hard-swish** of MobileNetV3.
#
# ## 6 Cheap ghosts
#
# **Look.** Sixteen feature maps of one image inside ResNet-8, and for some of them the one that resembles them most:

# %%
with torch.no_grad():
    maps = F.relu(resnet.bn1(resnet.conv1(judges.x(slice(1)))))[0]
flat = maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True)
alike = F.normalize(flat) @ F.normalize(flat).T - 2 * torch.eye(len(maps))
order = alike.amax(1).argsort(descending=True)[::2][:6]
drawn.twins([(maps[i], maps[alike[i].argmax()], alike[i].max().item()) for i in order.tolist()])
print("correlation of each map with its nearest:", ", ".join(f"{r:.2f}" for r in alike.amax(1).sort(descending=True).values.tolist()))

# %% [markdown]
# *Above each pair its correlation.* Some maps say much the same. GhostNet (Han et al., CVPR 2020) computes only some of them, the **real** maps,
# and makes the others, their **ghosts**, from these by filters that cost almost nothing. With ratio $s$, from $c$ to $n$ channels:
#
# $$ \text{weights} = \frac{n}{s}\, c\, k^2 + (s - 1)\, \frac{n}{s}\, 3^2 \qquad \text{instead of} \qquad n\, c\, k^2 . $$
#
# {{exercise 3.9}}
#
# Write the class `GhostModule`: a $k \times k$ convolution makes the $n/s$ real maps, a 3x3 depthwise one $s - 1$ ghosts of each. The
# output has the real maps, unchanged, then the ghosts in the order in which the grouped convolution makes them. No biases, no batch norm, no
# activations here. A ratio that does not divide $n$ is a `ValueError`.

# %%
class GhostModule(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels, out_channels, kernel_size=1, ratio=2):
        super().__init__()
        ### BEGIN SOLUTION
        if out_channels % ratio:
            raise ValueError(f"ratio {ratio} does not divide {out_channels} channels")
        real = out_channels // ratio
        self.primary = nn.Conv2d(in_channels, real, kernel_size, padding=kernel_size // 2, bias=False)
        self.cheap = nn.Conv2d(real, (ratio - 1) * real, 3, padding=1, groups=real, bias=False)
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], dim=1)
        ### END SOLUTION

# %%
GhostModule = check("3.9", GhostModule)

# %%
for inputs, outputs, kernel in ((64, 64, 1), (64, 64, 3), (16, 16, 1), (4, 64, 1)):
    plain = inputs * outputs * kernel**2
    ghosts = {s: plain / sum(p.numel() for p in GhostModule(inputs, outputs, kernel, s).parameters()) for s in (2, 4)}
    print(f"{inputs:2} to {outputs} channels, {kernel}x{kernel}: " + ", ".join(f"ratio {s} saves {saved:.2f}x" for s, saved in ghosts.items()))

# %% [markdown]
# The ratio is a promise that many input channels keep. With few of them a ghost costs as much as a real map: the last row is no saving at
# all. And the connections?

# %%
x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
figures.connections({"separable": reaches(separable_conv(4, 8), x), "ghost, ratio 2": reaches(GhostModule(4, 8), x),
                     "inverted residual": reaches(InvertedResidual(4, 4).eval(), x)});

# %% [markdown]
# Every output reads every input, in all three. What a ghost lacks cannot be seen in this table: it has no *own* mixture of the inputs, only a
# filtered copy of another's.
#
# ## 7 Equal parameters
#
# Three blocks, one budget. Each keeps its image and its channels, each is as wide as it can be with about 37,000 parameters:

# %%
side, batch = 16, 8
rivals = {"dense 3x3, 64 channels": (64, nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())),
          "separable, 187 channels": (187, nn.Sequential(separable_conv(187, 187), nn.BatchNorm2d(187), nn.ReLU())),
          "inverted, 52 channels": (52, InvertedResidual(52, 52))}
for name, (channels, block) in rivals.items():
    print(f"{name:24} {sum(p.numel() for p in block.parameters()):,} parameters")

# %% [markdown]
# {{prediction 3.p3}}

# %%
### BEGIN SOLUTION
p3 = (0.9, 1.1)
### END SOLUTION

# %%
p3 = predict("3.p3", p3)

# %% [markdown]
# {{prediction 3.p4}}

# %%
### BEGIN SOLUTION
p4 = (1.5, 8)
### END SOLUTION

# %%
p4 = predict("3.p4", p4)

# %% [markdown]
# The MACs first. Then the time, in turns as in chapter 00, and the numbers that each block *moves*: what its convolutions read and write,
# by your `conv_cost`.

# %%
from compresslab.core.measure import time_models

def moved_by(block, channels):
    """The numbers that the convolutions of a block move for one image."""
    total = 0
    def add(layer, inputs):
        nonlocal total
        total += conv_cost(layer.in_channels, layer.out_channels, layer.kernel_size[0], *inputs[0].shape[2:], layer.stride[0], layer.groups)[2]
    hooks = [layer.register_forward_pre_hook(add) for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        block.eval()(torch.zeros(1, channels, side, side))
    for hook in hooks:
        hook.remove()
    return total

class WithImages(nn.Module):
    """A block and its own input: the clock gives everybody the same one, and these differ in channels."""

    def __init__(self, block, channels):
        super().__init__()
        self.block = block
        self.register_buffer("images", torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return self.block(self.images)

times = time_models({name: WithImages(block, channels) for name, (channels, block) in rivals.items()}, torch.zeros(1),
                    repeats=5 if quick() else 30, threads=1)
rows = {name: {"parameters (thousands)": sum(p.numel() for p in block.parameters()) / 1e3,
               "MACs (millions)": count_macs(block, (channels, side, side)).total / 1e6,
               "numbers moved (thousands)": moved_by(block, channels) / 1e3,
               f"time of {batch} images (ms)": times[name].median} for name, (channels, block) in rivals.items()}
drawn.costs_side_by_side(rows)
for name, row in rows.items():
    print(f"{name:24} {batch * row['MACs (millions)'] / row[f'time of {batch} images (ms)']:5.1f} thousand million MACs a second; "
          f"quartiles {times[name].q1:.2f} to {times[name].q3:.2f} ms")

# %%
dense, separable, inverted = rows.values()
reveal("3.p3", inverted["MACs (millions)"] / dense["MACs (millions)"])
reveal("3.p4", inverted[f"time of {batch} images (ms)"] / dense[f"time of {batch} images (ms)"]);

# %% [markdown]
# At one resolution every weight is used at every pixel: *MACs = weights times pixels*, whatever the block. Equal parameters are nearly equal
# MACs (a batch norm has parameters and, folded away, no MACs). And still the times differ.
#
# {{question 3.q5}}

# %%
### BEGIN SOLUTION
q5 = "b"
### END SOLUTION

# %%
q5 = answer("3.q5", q5)

# %% [markdown]
# So why does everybody use them? Because accuracy is not in the figure. For the same parameters the separable block has three times the
# channels, and whole networks differ in where they spend: the figure at the top of the chapter has all four axes. ShuffleNetV2 (Ma et al.,
# ECCV 2018) starts from this very observation and asks for the clock, not for the count: equal widths, few groups, few
# branches, few element-wise operations.
#
# ## 8 Depth that comes and goes
#
# Blocks with a shortcut can be left out: what remains is the shortcut. **Stochastic depth** (Huang et al., ECCV 2016) leaves each of $L$ blocks out
# of a training step by chance. Block $l$ survives with probability $p_l$, which falls along a line:
#
# $$ H_l = \mathrm{relu}(b_l\, f_l(H_{l-1}) + H_{l-1}), \quad b_l \in \{0, 1\}, \quad P(b_l = 1) = p_l = 1 - \frac{l}{L}(1 - p_L) . $$
#
# At test there are no coins; each branch is scaled by how often it was there, $H_l = \mathrm{relu}(p_l\, f_l(H_{l-1}) + H_{l-1})$.
#
# {{exercise 3.10}}
#
# Write `stochastic_depth`. In training a branch that is dropped is *not computed*; draw each coin with `torch.rand(())` (not with Python's `random`, so that one seed repeats a run). The input comes from
# a relu, so it has no negative numbers.

# %%
def stochastic_depth(x, branches, last, training):
    """The output of the row of blocks; branches: the functions f_1 ... f_L in a list, last: p_L."""
    ### BEGIN SOLUTION
    for number, branch in enumerate(branches, 1):
        p = 1 - number / len(branches) * (1 - last)
        if not training:
            x = F.relu(p * branch(x) + x)
        elif torch.rand(()) < p:
            x = F.relu(branch(x) + x)
    return x
    ### END SOLUTION

# %%
stochastic_depth = check("3.10", stochastic_depth)

# %%
from compresslab.compact.depth import expected_depth, survival_probabilities

def who_was_there(blocks, last):
    """One training step: 1 for each block that was computed."""
    there = torch.zeros(blocks)
    def branch(l):
        def f(x):
            there[l] = 1
            return torch.zeros_like(x)
        return f
    stochastic_depth(torch.zeros(1), [branch(l) for l in range(blocks)], last, True)
    return there

torch.manual_seed(0)
steps = torch.stack([who_was_there(54, 0.5) for _ in range(100)])
drawn.survival(survival_probabilities(54, 0.5), steps[:60])
print(f"{steps.sum(1).mean():.1f} of 54 blocks in an average step; the sum of all p_l is {expected_depth(54, 0.5)}")

# %% [markdown]
# {{prediction 3.p5}}

# %%
### BEGIN SOLUTION
p5 = (1, 1.1)
### END SOLUTION

# %%
p5 = predict("3.p5", p5)

# %%
computed = []
branches = [lambda x, l=l: computed.append(l) or torch.zeros_like(x) for l in range(54)]
stochastic_depth(torch.zeros(1), branches, 0.5, False)
print(f"{len(computed)} blocks computed for a test image")
reveal("3.p5", 54 / len(computed));

# %% [markdown]
# {{question 3.q6}}

# %%
### BEGIN SOLUTION
q6 = "b"
### END SOLUTION

# %%
q6 = answer("3.q6", q6)

# %% [markdown]
# **LayerDrop** (Fan et al., ICLR 2020) tosses the same coins with another purpose: a network that has met its blocks missing can *lose* some of
# them. Two small towers of eight residual blocks learn scikit-learn's `digits`, one plainly, one with every block dropped in half of the
# steps. Then blocks are taken out for good, chosen at random, and nothing is trained again.

# %%
from compresslab.compact.depth import layer_drop, prune_depth, removable_blocks
from compresslab.core.train import train

class Block(nn.Module):
    """relu(f(x) + x) on vectors: small enough to train in a second."""

    residual = True

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width))

    def forward(self, x):
        return F.relu(self.branch(x) + x)

little = load_data("digits")
torch.manual_seed(0)
tower = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), *(Block(32) for _ in range(8)), nn.Linear(32, 10))
towers = {name: train(start, little.train, epochs=4 if quick() else 20, lr=0.1, batch_size=128, progress=False)
          for name, start in {"trained plainly": tower, "trained with LayerDrop": layer_drop(tower, 0.5)}.items()}
choose, left_over = torch.Generator().manual_seed(0), {}
for name, network in towers.items():
    blocks = removable_blocks(network)
    left_over[name] = {}
    for left in (8, 6, 4, 2):
        gone = [[blocks[i] for i in torch.randperm(8, generator=choose)[left:]] for _ in range(1 if left == 8 else 10)]
        left_over[name][left] = [accuracy(prune_depth(network, those), little.test) for those in gone]
drawn.missing_blocks(left_over)
small = prune_depth(towers["trained with LayerDrop"], removable_blocks(towers["trained with LayerDrop"])[1::2])
print(f"{sum(p.numel() for p in tower.parameters()):,} parameters, without every other block {sum(p.numel() for p in small.parameters()):,}")

# %% [markdown]
# *Means of ten choices each, whiskers from the worst to the best.* Same coins; here the network is really smaller.
#
# ### Enough for this image
#
# Depth may also depend on the *image*: who is sure leaves early. With **early exits** a classifier sits behind every stage
# (`compresslab.compact.early_exit`). The simplest form takes two trained networks: the narrow ResNet-8 answers, and only where its largest
# probability is below a threshold the wide one is asked.

# %%
narrow = load_baseline("resnet8_narrow")
x, labels = judges.x(), judges.y
with torch.no_grad():
    first, second = (torch.cat([network(part) for part in x.split(250)]) for network in (narrow, resnet))
cost = [count_macs(network, (3, 32, 32)).total for network in (narrow, resnet)]
route = []
for threshold in (0.5, 0.8, 0.95, 0.99, 0.999):
    sure = first.softmax(1).amax(1) > threshold
    found = torch.where(sure, first.argmax(1), second.argmax(1))
    route.append((threshold, cost[0] + (~sure).double().mean().item() * cost[1], (found == labels).double().mean().item()))
    print(f"threshold {threshold:5}: {sure.double().mean():4.0%} leave early, {route[-1][1] / 1e6:.2f} million MACs on average, {route[-1][2]:.1%} right")
drawn.thresholds(route, {"narrow alone": (cost[0], (first.argmax(1) == labels).double().mean().item()),
                         "wide alone": (cost[1], (second.argmax(1) == labels).double().mean().item())});

# %% [markdown]
# The mean cost falls (unless nearly all images ask both), the *worst* case rises: an image that asks both pays for both. On a device with a deadline the worst case is what
# counts.
#
# ## 9 Scaling and search
#
# A larger budget: spend it on depth, on width, or on resolution? MACs are linear in depth and quadratic in the other two:

# %%
from compresslab.models import from_spec

def cost_of(depth, width, side):
    """MACs of a residual network, (depth - 2) / 6 blocks in each of its three stages."""
    return count_macs(from_spec({"model": "resnet", "depth": depth, "width": width}), (3, side, side)).total

base = cost_of(14, 16, 32)
for name, changed in {"twice as deep": (26, 16, 32), "twice as wide": (14, 32, 32), "twice the resolution": (14, 16, 64)}.items():
    print(f"{name:21} {cost_of(*changed) / base:.2f} times the MACs")

# %% [markdown]
# **Compound scaling** (EfficientNet; Tan and Le, ICML 2019) raises all three together: $d = \alpha^\phi$, $w = \beta^\phi$, $r = \gamma^\phi$ with
# $\alpha\,\beta^2 \gamma^2 \approx 2$, so that $\phi$ counts doublings. The three shares come from a **grid search** on a small network:
# try all of a few, and train each. With more choices a grid explodes; then one *searches*.
#
# {{exercise 3.11}}
#
# A **candidate** is a tuple with one choice for each place: widths, depths. Its `cost` is a count and costs nothing to ask; its `score`
# may be a training. Write `evolve`:
#
# 1. start with one parent, the first choice everywhere (it fits the budget);
# 2. in each of `rounds` rounds make `children` **children**: copy a random parent, and give one random place a random choice. A child that
#    costs more than `budget` is thrown away *before anybody scores it*;
# 3. of parents and children the `keep` best scores are the next parents. At the end return the best.

# %%
def evolve(choices, score, cost, budget, rounds=20, children=20, keep=5):
    """The best candidate found, a tuple; choices: a list of options for each place. Random numbers from torch."""
    ### BEGIN SOLUTION
    def pick(options):
        return options[int(torch.randint(len(options), ()))]

    parents = [tuple(options[0] for options in choices)]
    for _ in range(rounds):
        family = list(parents)
        for _ in range(children):
            child, place = list(pick(parents)), pick(range(len(choices)))
            child[place] = pick(choices[place])
            if cost(tuple(child)) <= budget and tuple(child) not in family:
                family.append(tuple(child))
        parents = sorted(family, key=score, reverse=True)[:keep]
    return parents[0]
    ### END SOLUTION

# %%
evolve = check("3.11", evolve)

# %% [markdown]
# **Apply.** Training every candidate is out of the question, so **once-for-all** (Cai et al., ICLR 2020) trains one **supernet** whose parts are the
# candidates. Ours has three layers and learns `digits`; a candidate takes the first few neurons of each. In each step the largest, the smallest and two
# random candidates learn together.

# %%
import itertools
from functools import partial

class Supernet(nn.Module):
    """Three hidden layers of at most 64 neurons; `widths` says how many of each are used."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise((64, 64, 64, 64, 10)))
        self.widths = (64,) * 3

    def forward(self, x):
        x = x.flatten(1)
        for layer, width in zip(self.layers[:-1], self.widths):
            x = F.relu(F.linear(x, layer.weight[:width, :x.shape[1]], layer.bias[:width]))
        return F.linear(x, self.layers[-1].weight[:, :x.shape[1]], self.layers[-1].bias)

choices, coin = [(8, 12, 16, 24, 32, 64)] * 3, torch.Generator().manual_seed(0)

def together(model, x, y):
    """The mean loss of four candidates."""
    drawn_at_random = [tuple(o[int(torch.randint(6, (), generator=coin))] for o in choices) for _ in range(2)]
    total = 0
    for model.widths in [(64,) * 3, (8,) * 3, *drawn_at_random]:
        total = total + F.cross_entropy(model(x), y)
    return total / 4

torch.manual_seed(0)
adam = partial(torch.optim.AdamW, weight_decay=0.01)
supernet = train(Supernet(), little.train, epochs=6 if quick() else 24, lr=0.01, batch_size=64, optimizer=adam, loss=together, progress=False)

def score_of(widths):
    """The share of the validation images that this part of the supernet has right."""
    supernet.widths = widths
    with torch.no_grad():
        return (supernet(little.validation.x()).argmax(1) == little.validation.y).double().mean().item()

def macs_of(widths):
    """One multiply-accumulate for each weight that is used."""
    return sum(i * o for i, o in itertools.pairwise((64, *widths, 10)))

budget, asked = 2500, {}
torch.manual_seed(0)
found = evolve(choices, lambda c: asked.setdefault(c, score_of(c)), macs_of, budget, rounds=10, children=8)
every = {c: score_of(c) for c in itertools.product(*choices)}
fitting = sorted((c for c in every if macs_of(c) <= budget), key=every.get, reverse=True)
print(f"found {found}: {macs_of(found):,} MACs, score {every[found]:.1%}, after scoring {len(asked)} of {len(fitting)} candidates that fit")
print(f"by enumeration {fitting[0]}: {macs_of(fitting[0]):,} MACs, score {every[fitting[0]]:.1%}")
drawn.searched([(macs_of(c), s) for c, s in every.items()], [(macs_of(c), s) for c, s in asked.items()], (macs_of(found), every[found]), budget);

# %% [markdown]
# (The library's `SearchSpace`, `evolve` and `Supernet` do the same for convolutional networks with stages.) The score is a stand-in. Train eight
# of the candidates alone, spread over the list of all, the best score first:

# %%
def alone(widths):
    """The same network with weights of its own: the share of the validation images that it has right."""
    torch.manual_seed(1)
    layers = [part for i, o in itertools.pairwise((64, *widths, 10)) for part in (nn.Linear(i, o), nn.ReLU())]
    network = train(nn.Sequential(nn.Flatten(), *layers[:-1]), little.train, epochs=4 if quick() else 8, lr=0.02, batch_size=64,
                    optimizer=adam, progress=False)
    return accuracy(network, little.validation)

ranked = sorted(every, key=every.get, reverse=True)
places = [round(k * (len(ranked) - 1) / 7) for k in range(8)]
by_itself = {place: alone(ranked[place]) for place in places}
drawn.stand_in([every[ranked[place]] for place in places], list(by_itself.values()))
for place in places:
    print(f"place {place + 1:3} of {len(ranked)}: {str(ranked[place]):17} score {every[ranked[place]]:.1%}, alone {by_itself[place]:.1%}")

# %% [markdown]
# {{question 3.q7}}

# %%
### BEGIN SOLUTION
q7 = "c"
### END SOLUTION

# %%
q7 = answer("3.q7", q7)

# %% [markdown]
# ## 10 A stage to debug
#
# {{exercise 3.12}}
#
# A colleague writes a **stage**: several inverted residuals in a row. The first one has the stride and changes the channels, the others keep
# both. The shapes agree, the loss falls.

# %%
class BuggyStage(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        super().__init__()
        first = self.branch(in_channels, out_channels, stride, expansion)
        others = [self.branch(out_channels, out_channels, 1, expansion)] * (blocks - 1)
        self.branches = nn.ModuleList([first] + others)

    def branch(self, in_channels, out_channels, stride, expansion):
        hidden = expansion * in_channels
        norm = nn.BatchNorm2d(hidden)
        return nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), norm, nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), norm, nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU6())

    def forward(self, x):
        for branch in self.branches:
            y = branch(x)
            if y.shape[1] == x.shape[1]:                                   # the channels agree:
                y = y + x[:, :, :y.shape[2], :y.shape[3]]                  # fit the size, and add
            x = y
        return x

torch.manual_seed(0)
x = torch.randn(8, 16, 12, 12)
for stride in (1, 2):
    stage = BuggyStage(16, 16, blocks=3, stride=stride)
    print(f"stride {stride}: {tuple(stage(x).shape)}, {sum(p.numel() for p in stage.parameters()):,} parameters")

# %% [markdown]
# Four bugs. Find them all and write `Stage` without them. Three questions that find bugs in any block: how many parameters should it have?
# What must come out if all of them are zero? Can an output be negative?

# %%
class Stage(nn.Module):
    """As above, repaired."""

    def __init__(self, in_channels, out_channels, blocks, stride=1, expansion=4):
        super().__init__()
        ### BEGIN SOLUTION
        first = self.branch(in_channels, out_channels, stride, expansion)
        others = [self.branch(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1)]
        self.branches = nn.ModuleList([first] + others)
        ### END SOLUTION

    def branch(self, in_channels, out_channels, stride, expansion):
        ### BEGIN SOLUTION
        hidden = expansion * in_channels
        return nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        for branch in self.branches:
            y = branch(x)
            if y.shape == x.shape:
                y = y + x
            x = y
        return x
        ### END SOLUTION

# %%
Stage = check("3.12", Stage)

# %%
for name, make in {"buggy": BuggyStage, "repaired": Stage}.items():
    torch.manual_seed(0)
    same, wider = make(16, 16, blocks=3, stride=2), make(16, 24, blocks=3, stride=2)
    with torch.no_grad():
        lowest = wider(x).min().item()
        for parameter in same.parameters():
            parameter.zero_()
        rest = same.eval()(x)
    zeroed = "zeros" if not rest.any() else "a corner of the input" if torch.equal(rest, x[:, :, :6, :6]) else "something else"
    print(f"{name:9} {sum(p.numel() for p in same.parameters()):6,} parameters; all of them zero: {zeroed}; "
          f"16 to 24 channels: smallest output {lowest:.2f}")

# %% [markdown]
# Two of the bugs made the network *smaller* than it claimed. A table would have praised it.
#
# ## 11 Your turn: 20,000 parameters, a million MACs
#
# {{exercise 3.13}}
#
# Design a network for `ink_digits` with at least **95 %** accuracy, at most **20,000 parameters** and at most **1,000,000 MACs** per image.
# Write it as data: `from_spec` takes the shape of one image and a list of layers, among them `"conv"` (with `groups`), `"batch_norm"`, `"relu"`,
# `"separable"`, `"inverted_residual"`, `"fire"`, `"ghost"`, `"max_pool"`, `"global_pool"`, `"flatten"`, `"linear"`; or one of the course's
# networks, `{"model": "compact", "block": "inverted", "width": 8, "in_channels": 1}`. Count before you train. The check builds the network from the
# specification in your file, fills it with your weights in a fresh process, counts, and judges on 4,000 images that nobody has seen. Set `my_file`
# to the path.

# %%
from compresslab.core import save
from compresslab.course.budget import submission_path

ink = load_data("ink_digits")
largest = from_spec({"model": "lenet5"})
print(f"for comparison, LeNet-5: {sum(p.numel() for p in largest.parameters()):,} parameters, {count_macs(largest, (1, 28, 28)).total:,} MACs")

### BEGIN SOLUTION
spec = {"input": [1, 28, 28], "layers": [
    ["conv", {"out_channels": 12, "kernel_size": 3, "stride": 2, "padding": 1, "bias": False}], ["batch_norm"], ["relu"],
    ["separable", {"out_channels": 24}], ["separable", {"out_channels": 40, "stride": 2}],
    ["separable", {"out_channels": 40}], ["separable", {"out_channels": 64, "stride": 2}],
    ["flatten"], ["linear", {"out_features": 10}]]}
torch.manual_seed(0)
network = from_spec(spec)
network = train(network, ink.train.take(3000 if quick() else 6000), epochs=2, lr=0.1, batch_size=64, progress=False)
save(network, submission_path("3.13"))
my_file = str(submission_path("3.13"))
### END SOLUTION

# %%
my_file = check("3.13", my_file)

# %% [markdown]
# ## 12 Your ledger
#
# Your network beside LeNet-5, which has more than twenty times the parameters that you were allowed: one row each, one ruler. Both in float32: nothing here is compressed, it
# was *built* small, so everything of chapters 01 and 02 can still be done to it.

# %%
from compresslab.core import load
from compresslab.core.measure import format_rows, measure

judged = ink.test.take(500 if quick() else 2000)
lenet = load_baseline("lenet5")
rows = [measure(lenet, judged, name="LeNet-5", batch=16, repeats=10, threads=1),
        measure(load(my_file), judged, baseline=lenet, name="mine, 20 k parameters", batch=16, repeats=10, threads=1)]
print(format_rows(rows))
for row, family in zip(rows, ("dense", "compact")):
    ledger.add(row, chapter="03", family=family)

# %%
ledger.pareto();

# %% [markdown]
# Three ratios: bytes, operations, time. You have seen all three reasons for which they differ.
#
# ## What was simplified
#
# - SqueezeNet, the MobileNets, ShuffleNets and EfficientNets were made for ImageNet. Whole, and equal to the published parameter counts,
#   they are in `compresslab.compact`; here blocks and small skeletons stand for them.
# - MobileNetV2 has no widening layer where the expansion is 1, and MobileNetV3 chooses each block's kernel, expansion and activation by search.
# - In GhostNet the real maps and the ghosts have batch norm and relu; 1x1 is its usual kernel.
# - Huang et al. train very deep convolutional networks with stochastic depth; LayerDrop was shown for transformers. Our towers
#   have eight tiny blocks, and one seed each: only large distances mean anything.
# - Tan and Le find their shares by training; we only counted.
# - Once-for-all trains kernel sizes, depths and resolutions, shrinks progressively and learns from the largest candidate. Ours has three layers.
#
# ## Further reading
#
# - Iandola et al., *SqueezeNet*, arXiv 2016. Howard et al., *MobileNets*, arXiv 2017; Sandler et al., *MobileNetV2*, CVPR 2018; Howard et al.,
#   *Searching for MobileNetV3*, ICCV 2019.
# - Zhang et al., *ShuffleNet*, CVPR 2018; Ma et al., *ShuffleNet V2*, ECCV 2018: read the second for its measurements.
# - Han et al., *GhostNet*, CVPR 2020. Tan, Le, *EfficientNet*, ICML 2019.
# - Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016; Fan et al., *Reducing Transformer Depth on Demand*, ICLR 2020.
# - Cai et al., *Once-for-All*, ICLR 2020.
#
# **Next:** chapter 04 lets a small network learn from a large one.

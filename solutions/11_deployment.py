# %% [markdown]
# # Deployment: where compression becomes speed
#
# After this chapter you can take a compressed network to an engine that makes it fast, say beforehand what a processor can gain from it,
# measure what it did gain, and find the reason when that is nothing. "It did not get smaller or faster" is a frequent complaint about tools
# for compression. It is rarely the tool's fault.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from compresslab import core, data, deploy, lowrank, models, pruning, quantization
from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, progress, quick, reveal, solution, widgets

plots.style()
digits = data.load_data("street_digits")
net = models.load_baseline("resnet8")
x1, x32 = digits.test.x(slice(1)), digits.test.x(slice(32))

# %%
from compresslab.course.chapter11 import figures_clock

record = load_evidence("11")["speed"]
figures_clock.speed_table(record["rows"], "resnet8")
print(deploy.machine_line(record["machine"]))

# %% [markdown]
# *ResNet-8 under the methods of this course, times faster than the dense network in PyTorch, one thread, with 95 % intervals. Open symbols ran in PyTorch, filled ones in ONNX
# Runtime. Nobody retrained anything: the figure is about time only.* Look at it for a minute. Some methods that save most of the multiplications save no time; changing nothing but the
# *engine* can save more than a method does. By the end of the chapter you can explain every symbol.
#
# **Time** about three hours for the core exercises. **You need** chapters 01 (masks, removed channels), 02 (int8, folding) and 05 (low rank); 00 has the first stopwatch and the first
# roofline. **Path**: 1 the clock, 2 the engine, 3 integers, 4 what the machine allows, 5 why it did not get faster, 6 memory, 7 your own file. Section 1 can be read
# for itself; sections 3 to 6 use the file that section 2 writes, and section 5 the peaks of section 4. **In a workshop** do exercises 11.5, 11.7 and 11.10.
#
# Stuck? Open a new cell and run `hint("11.1")`: each call says a little more.
#
# ## 1 "I timed it"
#
# Every number of this chapter is a time divided by another. So first the clock. This is the machine that you are working on; no time means anything without such a line. (In brackets: the vector instructions that it has.)

# %%
machine = deploy.describe_machine()
print(deploy.machine_line(machine))
torch.set_num_threads(1)
print(f"from here on torch uses {torch.get_num_threads()} of {machine['cores']} cores: engines are only comparable with as many threads")

# %% [markdown]
# **Look.** Here is how a speed-up is easily measured: run the old network some times, run the new one some times, compare the means. Twice, and the "new" network is the old one:

# %%
def seconds_in_a_row(function, runs):
    """A list of seconds, one for each of `runs` calls."""
    out = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        out.append(time.perf_counter() - start)
    return out

@torch.inference_mode()
def run():
    """The network on one image."""
    return net(x1)

net.eval()
runs = 40 if quick() else 80
for attempt in (1, 2):
    old, new = np.array(seconds_in_a_row(run, runs)), np.array(seconds_in_a_row(run, runs))
    error = np.sqrt(old.var() / runs + new.var() / runs)
    print(f"attempt {attempt}: {1e3 * old.mean():.3f} ms and {1e3 * new.mean():.3f} ms: {old.mean() / new.mean():.3f} times faster; "
          f"the difference is {abs(old.mean() - new.mean()) / error:.1f} standard errors")
figures_clock.columns({"old, then new": {"old": old, "new": new}});

# %% [markdown]
# Timing one thing against itself is an **A/A test**. (An A/B test compares two things.) A good harness finds nothing. Beyond two standard errors this one claims a
# difference. What does it do if it is asked a hundred times?
#
# {{prediction 11.p1}}

# %%
### BEGIN SOLUTION
p1 = (0.1, 0.7)
### END SOLUTION

# %%
p1 = predict("11.p1", p1)

# %%
recorded = load_evidence("11")["aa_test"]
print(f"recorded: {recorded['network']} against itself, {len(recorded['naive'])} times, {recorded['runs']} runs each")
alarms = np.mean([not low <= 1 <= high for _, low, high in recorded["naive"]])
worst = max(abs(ratio - 1) for ratio, _, _ in recorded["naive"])
print(f"one after the other, means: {alarms:.0%} of the 95 % intervals claim a difference; the largest \"speed-up\" is {worst:.1%}")
reveal("11.p1", float(alarms));

# %% [markdown]
# Chapter 00 had three rules: warm up, take turns, compare medians. You wrote `time_fairly` there. With several *engines* and networks of a tenth of a millisecond, three more things go wrong:
#
# - **A short call.** A clock has a finest step, and reading it takes time as well. So a **sample** is several calls in a row, divided by their number.
# - **The place.** If A always comes first in a round, everything that happens between rounds hits A. So the order is *rotated*: after each round the first goes to the end.
# - **The neighbour.** When B starts, the caches hold what A left there. Whoever follows a big network or another engine pays for it, and rotating keeps the neighbours.
#   So each function runs once, uncounted, right before its sample. Call it **settling**.
#
# {{exercise 11.1}}
#
# Write `time_interleaved`, the harness for the whole chapter. `warmup` uncounted calls of each function come before anything is timed. Then, in every round and for each function: one
# uncounted call, then `calls` calls between two readings of `clock()`. Return all samples, in the order of the rounds.

# %%
def time_interleaved(functions, rounds, warmup, calls, clock=time.perf_counter):
    """{name: function without arguments} -> {name: list of `rounds` numbers, seconds per call}; the order rotates."""
    ### BEGIN SOLUTION
    for function in functions.values():
        for _ in range(warmup):
            function()
    names = list(functions)
    samples = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            functions[name]()
            start = clock()
            for _ in range(calls):
                functions[name]()
            samples[name].append((clock() - start) / calls)
        names.append(names.pop(0))
    return samples
    ### END SOLUTION

# %%
time_interleaved = check("11.1", time_interleaved)

# %% [markdown]
# **See** the two ways side by side, A against A. Expect the right-hand columns to go up and down *together* where the machine changes its speed, and the left-hand ones not:

# %%
fair = time_interleaved({"A": run, "A again": run}, runs, 5, 1)
figures_clock.columns({"one after the other": {"A": old, "A again": new}, "in turns": fair})
print("medians, in turns:", {name: f"{1e3 * np.median(values):.3f} ms" for name, values in fair.items()})

# %% [markdown]
# Is settling worth its calls? Six functions in one round, three copies of ResNet-8 in PyTorch and three in ONNX Runtime (section 2): each engine's copies are equal, so every ratio should be 1. But copy 1 always
# follows the *other* engine (from the evidence):

# %%
for row in load_evidence("11")["settling"]["rows"]:
    print(f"{row['harness']:18} {row['engine']:13} copy {row['copy']} against copy 1: {row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")

# %% [markdown]
# Without settling equal networks come out up to 16 % apart, with it at most 1.5 %.
#
# ### How sure is a speed-up?
#
# Two medians give a ratio. Run the cell again and you get another one. How far from it may the truth be? No formula is at hand for a ratio of medians of columns that go up and down
# together. But the **bootstrap** (Efron and Tibshirani 1993) needs none: pretend that your $n$ rounds are all the rounds there are, draw $n$ of them again *with replacement*, and look how much the
# ratio moves:
#
# $$ \hat r = \frac{\mathrm{median}(a)}{\mathrm{median}(b)}, \qquad r^{*} = \frac{\mathrm{median}(a_{i_1}, \dots, a_{i_n})}{\mathrm{median}(b_{i_1}, \dots, b_{i_n})}, \qquad i_k \sim \{1, \dots, n\} . $$
#
# The interval of confidence $c$ runs from the $\frac{1-c}2$ to the $\frac{1+c}2$ quantile of many $r^{*}$. The *same* $i_k$ in both columns: a round that was slow for both then stays slow for both.
#
# {{exercise 11.2}}
#
# Write `ratio_interval`, how many times faster the second one is. `slow` and `fast` are lists of the same length; draw with `generator` (`torch.randint(..., generator=generator)`). Take real medians: of an
# even number of values, the mean of the two in the middle.

# %%
def ratio_interval(slow, fast, confidence, resamples, generator):
    """(ratio, low, high), floats: median(slow) / median(fast) and its bootstrap interval, rounds drawn together."""
    ### BEGIN SOLUTION
    slow, fast = torch.tensor(slow, dtype=torch.float64), torch.tensor(fast, dtype=torch.float64)
    rounds = torch.randint(len(slow), (resamples, len(slow)), generator=generator)
    ratios = slow[rounds].quantile(0.5, dim=1) / fast[rounds].quantile(0.5, dim=1)
    tail = (1 - confidence) / 2
    ratio = slow.quantile(0.5) / fast.quantile(0.5)
    return float(ratio), float(ratios.quantile(tail)), float(ratios.quantile(1 - tail))
    ### END SOLUTION

# %%
ratio_interval = check("11.2", ratio_interval)

# %% [markdown]
# **The A/A test of your interval.** On a made-up machine the truth is known: two equal networks, a speed that drifts slowly and is shared by both, noise of their own, some pauses. An
# honest 95 % interval misses the 1 about once in twenty tests. Beside it, the same rounds judged as if the columns had nothing to do with each other (drawn apart):

# %%
def rounds_of_equals(generator, n=41):
    """Two columns of n times: shared drift, own noise, a few pauses."""
    drift = (0.04 * torch.randn(n, generator=generator)).cumsum(0).exp()
    own = 1 + 0.05 * torch.randn(2, n, generator=generator).abs() + 2.0 * (torch.rand(2, n, generator=generator) < 0.05)
    return (drift * own).tolist()

def drawn_apart(slow, fast, generator):
    """The interval from medians that know nothing of each other."""
    a, b = (torch.tensor(v)[torch.randint(len(v), (200, len(v)), generator=generator)].quantile(0.5, dim=1) for v in (slow, fast))
    return (a / b).quantile(torch.tensor([0.025, 0.975])).tolist()

generator = torch.Generator().manual_seed(11)
tests = [rounds_of_equals(generator) for _ in range(60 if quick() else 100)]
together = [ratio_interval(a, b, 0.95, 200, generator)[1:] for a, b in tests]
apart = [drawn_apart(a, b, generator) for a, b in tests]
figures_clock.interval_ladder({"rounds drawn together": together, "drawn apart": apart})
for name, ends in (("together", together), ("apart", apart)):
    print(f"{name:9} the intervals are {np.mean([high - low for low, high in ends]):.3f} wide on average")

# %% [markdown]
# Drawn apart they miss too rarely, because they are too wide: a small real gain would be lost in them. Pairing is what makes a small gain visible on a noisy machine; it is the same trick as the paired
# comparison of accuracies in chapter 00.
#
# **Apply** both of your functions to the real network. Everything from here on goes through this:

# %%
def race(functions, rounds=30, calls=1):
    """Time functions with your harness; print the median, the quartiles and the ratio to the first one. Returns {name: samples}."""
    with torch.inference_mode():
        samples = time_interleaved(functions, rounds, 3, calls)
    first = next(iter(samples.values()))
    for name, values in samples.items():
        ratio, low, high = ratio_interval(first, values, 0.95, 1000, torch.Generator().manual_seed(0))
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        print(f"{name:28} {1e3 * median:8.3f} ms (quartiles {1e3 * q1:.3f} to {1e3 * q3:.3f}), {ratio:5.2f} times faster [{low:.2f}, {high:.2f}]")
    return samples

import copy
twin = copy.deepcopy(net)
race({"ResNet-8": lambda: net(x1), "the same object again": lambda: net(x1), "a copy": lambda: twin(x1)}, rounds=20 if quick() else 40);

# %% [markdown]
# If an interval of equals leaves out the 1 by a little, that is your machine, or the addresses at which the copy's weights happen to lie. Remember the size of it: **no speed-up smaller than what the A/A test
# shows can be claimed here.** And the recorded hundred tests, with this harness (the library's `core.time_calls` and `core.speedup`) on the same machine, in the same minutes as the naive ones:

# %%
for name in ("naive", "fair"):
    rows = recorded[name]
    print(f"{name:6} {np.mean([not low <= 1 <= high for _, low, high in rows]):4.0%} of {len(rows)} intervals claim a difference; "
          f"the ratios lie between {min(r for r, _, _ in rows):.3f} and {max(r for r, _, _ in rows):.3f}")
figures_clock.interval_ladder({name: [row[1:] for row in recorded[name]] for name in ("naive", "fair")});

# %% [markdown]
# {{question 11.q1}}

# %%
### BEGIN SOLUTION
q1 = "c"
### END SOLUTION

# %%
q1 = answer("11.q1", q1)

# %% [markdown]
# ## 2 An engine
#
# PyTorch is made for research: at every call Python walks through `forward`, and each operation is looked up, checked and started on its own. It never sees what comes
# next. An **inference engine** gets the whole network as a file beforehand, rewrites it for *this* machine, and then only runs.
#
# **Look.** What an engine needs is a **graph**: a list of operations, the tensors each reads, the tensor it writes. Here is that of ResNet-8, recorded from its
# `forward`, as a list of `Node`s and a dict of the tensors whose values are known, the **constants**:

# %%
import tempfile
import textwrap
from pathlib import Path

from compresslab.course.chapter11 import figures_engine
from compresslab.course.chapter11.graphs import Node, count_operations, record_graph, run_graph

nodes, constants, outputs = record_graph(net)
for node in nodes[:5]:
    print(f"{node.output:22} = {node.op}({', '.join(node.inputs[:2])}{', ...' * (len(node.inputs) > 2)})")
print(f"... {len(nodes)} nodes: {dict(count_operations(nodes))}")
with torch.no_grad():
    print("the graph's outputs are PyTorch's:", torch.allclose(run_graph(nodes, constants, outputs, x32)[0], net(x32), atol=1e-4))

# %% [markdown]
# Nothing of Python is left. No loop, no `if`, no dropout: whatever `forward` decided while it was recorded is decided for ever. (A network whose path depends on the *numbers*
# cannot be recorded this way.) In return, a program may now change the graph, as a compiler changes code. Such a change is called a **pass**.
#
# You know a good one from chapter 02: a batch norm can be folded into the convolution before it. There you did it for one layer, which you had chosen. A compiler must find
# the layers itself, and **must not fold** where that would change what somebody else sees.
#
# {{exercise 11.3}}
#
# Write `fold_norms`. A `Node` is a named tuple `(op, inputs, output, attributes)`: a "Conv" reads `(x, weight)` or `(x, weight, bias)`, a "BatchNormalization" `(x, gamma, beta,
# mean, var)` and has the attribute "epsilon". `outputs` names the tensors that the caller wants. Return a new list and a new dict. `node._replace(output=...)` gives a changed
# copy. Constants that nobody reads any more may stay.

# %%
def fold_norms(nodes, constants, outputs):
    """(nodes, constants) without the batch norms that can go into the convolution before them."""
    ### BEGIN SOLUTION
    nodes, constants = list(nodes), dict(constants)
    for norm in [node for node in nodes if node.op == "BatchNormalization"]:
        source, gamma, beta, mean, var = norm.inputs
        conv = next((node for node in nodes if node.output == source), None)
        readers = [node for node in nodes if source in node.inputs]
        if conv is None or conv.op != "Conv" or len(readers) > 1 or source in outputs:
            continue
        factor = constants[gamma] / torch.sqrt(constants[var] + norm.attributes["epsilon"])
        old_bias = constants[conv.inputs[2]] if len(conv.inputs) == 3 else 0
        weight, bias = f"{norm.output}.weight", f"{norm.output}.bias"
        constants[weight] = constants[conv.inputs[1]] * factor.view(-1, 1, 1, 1)
        constants[bias] = (old_bias - constants[mean]) * factor + constants[beta]
        nodes[nodes.index(conv)] = conv._replace(inputs=(conv.inputs[0], weight, bias), output=norm.output)
        nodes.remove(norm)
    return nodes, constants
    ### END SOLUTION

# %%
fold_norms = check("11.3", fold_norms)

# %% [markdown]
# **See** what your pass makes of ResNet-8, and of a graph in which a shortcut reads the convolution as well:

# %%
folded, folded_constants = fold_norms(nodes, constants, outputs)
with torch.no_grad():
    moved = (run_graph(folded, folded_constants, outputs, x32)[0] - net(x32)).abs().max().item()
print(f"{len(nodes)} nodes before, {len(folded)} after: {dict(count_operations(folded))}; outputs moved by at most {moved:.1e}")

shortcut = [Node("Conv", ("x", "w"), "c", {}), Node("BatchNormalization", ("c", "g", "b", "m", "v"), "n", {"epsilon": 1e-5}), Node("Add", ("n", "c"), "y", {})]
some = {"w": torch.randn(2, 3, 1, 1), "g": torch.ones(2), "b": torch.zeros(2), "m": torch.zeros(2), "v": torch.ones(2)}
print("with a shortcut:", dict(count_operations(fold_norms(shortcut, some, ("y",))[0])))

# %% [markdown]
# **Apply.** The common format for such graphs is **ONNX**, and the engine of this chapter is ONNX Runtime. `deploy.export_onnx` lets PyTorch record the network, simplifies the
# graph with passes such as yours, checks it, and writes one file. Recording is slow. So: export once, run often.

# %%
folder = Path(tempfile.mkdtemp())
float_path = folder / "resnet8.onnx"
start = time.process_time()
deploy.export_onnx(net, float_path, (3, 32, 32))
print(f"exported in {time.process_time() - start:.1f} seconds of processor time")
start = time.process_time()
engine = deploy.OnnxModel(float_path)
print(f"loaded in   {time.process_time() - start:.2f} seconds")
numbers = sum(value.numel() for value in net.parameters())
print(f"the file has {float_path.stat().st_size:,} bytes; {numbers:,} parameters of 4 bytes are {4 * numbers:,}")
found = deploy.agreement(net, engine, digits.test.take(1000))
print(f"on {found.n} images the outputs differ by at most {found.largest:.1e}; equal labels: {found.equal_labels:.1%}")

# %% [markdown]
# `engine` is a module like others: it goes through `core.accuracy` and through your timing harness. The outputs are not equal to the last bit. Folding and another order of
# summation round differently, and that is all; after every export **compare before you measure**.
#
# What does the engine do with the file? It has passes of its own. `deploy.optimized_operations` asks it for the graph that it really runs:

# %%
figures_engine.operations({
    "recorded from PyTorch": count_operations(nodes),
    "after your pass": count_operations(folded),
    "in the file": deploy.operations(float_path),
    "in the engine": deploy.optimized_operations(float_path),
});

# %% [markdown]
# On a common x86 processor the ReLUs and the additions are gone, too. Not the arithmetic: that has moved. This is **operator fusion**: the convolution adds the shortcut and cuts at zero while a number
# is still in a register, before it is written out. Each fusion saves a pass over memory, one read and one write of a whole activation, and the cost of starting an operation.
# ("Other" in the engine is among other things a change of layout: it keeps channels in blocks as wide as the processor's vector registers.)
#
# **Measure**, with the honest harness and on as many threads each:

# %%
def milliseconds(models, x, rounds=30):
    """Median milliseconds, and how many times faster than the first, with an interval."""
    times = core.time_models(models, x, repeats=10 if quick() else rounds)
    first = next(iter(times.values()))
    for name, timing in times.items():
        gain = core.speedup(first, timing)
        print(f"{name:24} {timing.median:8.3f} ms (IQR {timing.iqr:.3f})   {gain.ratio:5.2f}x ({gain.low:.2f} to {gain.high:.2f})")

for images in (x1, x32):
    print(f"batch {len(images)}")
    milliseconds({"PyTorch, eager": net, "ONNX Runtime, float": engine}, images)

# %% [markdown]
# No weight was pruned and none was rounded: same network, same numbers, same machine. Expect the larger gain with one image, where PyTorch's cost per operation weighs most. *This*
# is the baseline that a compressed network has to beat from now on. A speed-up over eager PyTorch alone says as much about Python as about compression.
#
# ### Small is not fast
#
# Now a compressed network. Its codes are small in our own files; can an engine read them? ONNX has your uniform grid as an operation, **DequantizeLinear**: integers of 8 or 4 bits,
# scales, and $\hat w = S\,(q - Z)$. `deploy.export_stored` writes it in front of every layer that has such a code. (Other codes go into the file as the operations that decode them.)

# %%
def four_bits(weight):
    """One scale for each output channel of a convolution, one for each 32 weights in a row of a matrix."""
    group = 32 if weight.ndim == 2 else None
    return core.UniformCode.from_dense(weight, bits=4, axis=0, group_size=group)

coded = core.encode(net, four_bits)
small_path = deploy.export_stored(coded, folder / "resnet8_4bit.onnx", (3, 32, 32))
codes = core.storage_report(coded).total_bits // 8
print(f"float file {float_path.stat().st_size:,} bytes, 4-bit file {small_path.stat().st_size:,} bytes; the codes alone are {codes:,}")
print("in the file:", dict(deploy.operations(small_path)))

# %% [markdown]
# What is in such a file? In the initializer of a 4-bit weight, **two weights share a byte, the first in the low half** (the **nibble** worth 1, 2, 4, 8). A nibble is signed, in
# **two's complement**: 0 to 7 are themselves, 8 to 15 stand for -8 to -1. The weights follow each other in row-major order, and only at the very end half a byte may
# be left over. `scale` has as many axes as the weight. Along `axis` one scale serves `block` neighbours, and the last block may be shorter; along the other axes every index has its own.
# Whoever writes or reads one of these points differently gets a network that runs, and is wrong.
#
# {{exercise 11.4}}
#
# Write `read_int4`: the weights, float32 and of shape `shape`, of the bytes `raw` (uint8).

# %%
def read_int4(raw, shape, scale, axis, block):
    """The weights of a 4-bit initializer: low nibble first, signed, one scale per `block` neighbours along `axis`."""
    ### BEGIN SOLUTION
    count = torch.Size(shape).numel()
    nibbles = torch.stack([raw % 16, raw // 16], dim=1).flatten()[:count].int()
    q = torch.where(nibbles > 7, nibbles - 16, nibbles).reshape(shape)
    scales = scale.repeat_interleave(block, dim=axis).narrow(axis, 0, shape[axis])
    return q * scales
    ### END SOLUTION

# %%
read_int4 = check("11.4", read_int4)

# %% [markdown]
# **Apply** it to the real file, to its last layer. The matrix stands there transposed, (inputs, outputs), with its blocks along axis 0: the engine's product wants it so.

# %%
import onnx
from onnx import numpy_helper

file = onnx.load(small_path)
arrays = {tensor.name: tensor for tensor in file.graph.initializer}
integers, scale = arrays["fc.weight.q"], torch.from_numpy(numpy_helper.to_array(arrays["fc.weight.scale"]).copy())
raw = torch.frombuffer(bytearray(integers.raw_data), dtype=torch.uint8)
print(f"fc.weight: {len(raw)} bytes for {tuple(integers.dims)} weights, first bytes {[f'{byte:02x}' for byte in raw[:4].tolist()]}, scales {tuple(scale.shape)}")
weight = read_int4(raw, tuple(integers.dims), scale, axis=0, block=32)
print("your weights are those of the code:", torch.equal(weight.T, core.decompress(coded).fc.weight))

# %% [markdown]
# The batch norms are gone from this file as well, although its weights are integers. How? $\hat w \cdot g = (S\,g)\,(q - Z)$: the factor of the norm went into the *scales*.
#
# So the file is several times smaller. And the time?
#
# {{prediction 11.p2}}

# %%
### BEGIN SOLUTION
p2 = (0.25, 0.6)
### END SOLUTION

# %%
p2 = predict("11.p2", p2)

# %% [markdown]
# **Measure.** On your machine first: the 4-bit file as the engine runs it by default, and with `weights="unpacked"`, which lets it decode *once*, while the file is loaded.

# %%
small = deploy.OnnxModel(small_path)
unpacked = deploy.OnnxModel(small_path, weights="unpacked")
milliseconds({"float": engine, "4 bits": small, "4 bits, unpacked": unpacked}, x1)
print("in the engine:          ", dict(deploy.optimized_operations(small_path)))
print("in the engine, unpacked:", dict(deploy.optimized_operations(small_path, weights="unpacked")))
for name, model in {"4 bits": small, "4 bits, unpacked": unpacked}.items():
    print(f"{name:16} differs from its own decoded weights by at most {deploy.agreement(core.decompress(coded), model, x32).largest:.1e}")

# %% [markdown]
# And on a quiet machine, one thread, for networks of several kinds:

# %%
table = load_evidence("11")["stored"]
print(deploy.machine_line(table["machine"]))
for row in table["rows"]:
    if row["batch"] == 1:
        print(f"{row['network']:8} {row['form']:15} {row['file_bytes']:12,} bytes  {row['median_ms']:8.3f} ms (IQR {row['iqr_ms']:.3f})  {row['ratio']:5.2f}x ({row['low']:.2f} to {row['high']:.2f})")
reveal("11.p2", next(row["ratio"] for row in table["rows"] if (row["network"], row["form"], row["batch"]) == ("resnet8", "int4", 1)))
figures_engine.stored(table["rows"], {"resnet8": "ResNet-8", "vgg": "VGG-like", "mlp1024": "two layers, 1024 wide", "mlp4096": "two layers, 4096 wide"});

# %% [markdown]
# *Above the line: faster than float, below it: slower; each line of the grid is a factor of two.* Read the figure from left to right. Before convolutions, small weights cost time: the engine has no convolution that decodes, so it writes all
# float weights out, at every run, and then convolves as before. Before wide matrix products with one input they save time; there is an operation for it, `MatMulNBits`, that
# decodes inside the product. (By default that operation also rounds its *inputs* to 8 bits: this is the larger difference above. The rows *int4, exact* keep them in float. Chapter 09 asked why fewer bits write faster; this is
# the same effect.) With 32 inputs at once little or nothing of the gain is left.
#
# Unpacked, every network is as fast as float, no faster: the download is small, the weights in memory are not. That is often the right choice for a convolutional network
# when *bytes of the file* are the budget. For speed it needs something else: section 3.
#
# How fragile this is: the first file that we wrote for the wide layers ran many times *slower* than float. Its ReLU was the reason: the engine fused product, bias and ReLU
# into one operation, and then found no product any more that it could decode in. Written as $\max(x, 0)$, which it does not fuse there, the same network ran as you see. An
# engine's passes compete. So look at the graph that it runs before you blame the method.
#
# {{question 11.q2}}

# %%
### BEGIN SOLUTION
q2 = "b"
### END SOLUTION

# %%
q2 = answer("11.q2", q2)

# %% [markdown]
# ## 3 Integers
#
# Small weights did not make the convolutions faster, because the engine still convolved floats. For speed the *kernel* has to multiply integers, and then the inputs must be
# integers, too. Chapter 02 built such a network by hand: `quantization.integer_network` finds a scale for every activation on calibration images, and computes with integers only. Slowly,
# for it was written to be read. Here the same integers go to an engine.
#
# **Look.** How does one tell an engine about integers? With an ordinary float graph in which every tensor passes through a pair of nodes:
#
# $$ \textbf{QuantizeLinear}\quad q = \operatorname{clamp}\!\left(\operatorname{round}(x / S) + Z,\, 0,\, 255\right) \qquad\qquad \textbf{DequantizeLinear}\quad x = S\,(q - Z) $$
#
# Such a file is called **QDQ**. Run node by node, it would be slower than the float network. But the engine knows the pattern *dequantize, convolve, quantize*, and puts one
# integer kernel in its place:

# %%
figure, (in_file, in_engine) = plt.subplots(2, 1, figsize=(8.4, 2.5))
plots.flow(in_file, [("Dequantize\nLinear", "#D55E00"), ("Conv", ""), ("Quantize\nLinear", "#D55E00")], ["uint8", "float", "float", "uint8"], "in the file")
plots.flow(in_engine, [("QLinearConv", "#D55E00")], ["uint8", "uint8"], "in the engine");

# %%
from compresslab.course.chapter11 import figures_integer

calibration = list(digits.train.x(slice(256)).split(64))
int8_path = folder / "resnet8_int8.onnx"
integers = deploy.export_int8(net, int8_path, (3, 32, 32), calibration)
int8_engine = deploy.OnnxModel(int8_path)

for place, found in {"in the file": deploy.operations(int8_path), "in the engine": deploy.optimized_operations(int8_path)}.items():
    print(textwrap.fill(f"{place}: " + ", ".join(f"{number} {name}" for name, number in found.items()), 110, subsequent_indent="    "))
print(f"{int8_path.stat().st_size:,} bytes; as floats {float_path.stat().st_size:,}")

# %% [markdown]
# Of the 9 convolutions, none is left as a float *Conv*: they have become *QLinearConv*. (The *Transpose* nodes are new: integer kernels want the channels last.) If a tool's int8 network is not faster, look
# here first: a *Conv* between a dequantize and a quantize means that the engine did not take the offer.
#
# Now what is in the file? For each layer: the grid of its inputs, a weight, a bias. Not all of it is int8. The sum of products $\sum_j q_x q_w$ has the step $S_x S_w$: whatever is added
# to it must have that step. So the bias is an **int32** with the scale $S_x S_w$, which nobody has to choose. And there may be one $S_w$ for each *output* channel, because a sum
# can leave out a factor that all its terms share.
#
# {{exercise 11.5}}
#
# Write `numbers_in_the_file`. The inputs were seen between `low` and `high`; they become uint8, and real 0 must be an integer of their grid (a padded border is exactly 0): stretch the range if it leaves 0 out. The
# weight `(O, ...)` becomes int8, symmetric, without a zero point: the largest in size of each output channel is 127 steps (no channel is all zeros). The bias `(O,)` becomes int32. The zero point belongs into the file, not
# into the bias: the engine works it in itself. Return `scale`, `zero_point`, `weight_scale` `(O,)`, `q_weight` (torch.int8), `q_bias` (torch.int32).

# %%
def numbers_in_the_file(low, high, weight, bias):
    """scale, zero_point, weight_scale, q_weight, q_bias of a layer in an int8 file."""
    ### BEGIN SOLUTION
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    weight_scale = weight.abs().flatten(1).amax(1) / 127
    q_weight = (weight / weight_scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
    q_bias = (bias / (scale * weight_scale)).round().to(torch.int32)
    return scale, zero_point, weight_scale, q_weight, q_bias
    ### END SOLUTION

# %%
numbers_in_the_file = check("11.5", numbers_in_the_file)

# %% [markdown]
# **See.** Your numbers for the first layer, and those in the file that the library wrote:

# %%
first_layer = next(layer for layer in quantization.fold_batch_norm(net).modules() if isinstance(layer, nn.Conv2d))
images = torch.cat(calibration)
weight, bias = first_layer.weight.detach(), first_layer.bias.detach()
low, high = images.min().item(), images.max().item()
scale, zero_point, weight_scale, q_weight, q_bias = numbers_in_the_file(low, high, weight, bias)
stored, stored_layer = next(iter(integers.grids.values())), next(iter(integers.layers))
print(f"inputs from {low:.3f} to {high:.3f}: scale {scale:.5f} and zero point {zero_point}; in the file {stored.scale.item():.5f} and {int(stored.zero_point)}")
print("weights that differ by a step:", int((q_weight != stored_layer.weight).sum()), "of", q_weight.numel(), "| biases in steps:", q_bias.tolist()[:5], "...")
figures_integer.three_grids(low, high, scale, zero_point, weight[:6].numpy(), weight_scale[:6].numpy());

# %% [markdown]
# **Apply.** Does the engine compute what the integers of chapter 02 compute? Both start from the same scales. One shifts integers, the other multiplies by a float32
# factor: a sum that falls next to the middle between two integers may be rounded to the other one.

# %%
some = digits.test.x(slice(100 if quick() else 300))
step = integers.grids[integers.plan[-1][0]].scale.item()
apart = (integers(some) - int8_engine(some)).abs() / step
print(f"{len(some)} images: at most {apart.max():.2f} steps of the output apart; {(apart > 0.5).float().mean():.2%} of the outputs differ at all")
judges = digits.test.take(1000 if quick() else 2000)
for name, model in {"PyTorch, float": net, "engine, float": engine, "engine, int8": int8_engine}.items():
    print(f"{name:16} accuracy {core.accuracy(model, judges):.4f}")

# %% [markdown]
# And all four networks of the course on 1,000 images (from the evidence): floats against PyTorch, integers against the integers of chapter 02.

# %%
for row in (load_evidence("11")[f"faithful {name}"] for name in ("lenet5", "resnet8", "mobilenet", "vgg")):
    print(f"{row['network']:9} floats differ by at most {row['float_difference']:.1e}; integers by at most {row['steps']:.0f} step, in {row['other']:.2%} of the outputs")

# %% [markdown]
# One step, and no more. Hardly any accuracy is lost, as chapter 02 found. When a converted network *does* lose its accuracy, the reason is rarely that 8 bits are too few: it is a bug. Somewhere
# an integer is taken for one of another grid. To find such a bug you need to know what the kernel has to do.
#
# {{exercise 11.6}}
#
# A residual block in integers: $y = \operatorname{ReLU}(\operatorname{conv}(x)) + x$, with a 3x3 convolution that pads by 1. `q` are the uint8 integers of $x$; `x`, `mid` and `out` are the grids (scale, zero point) of $x$, of the convolution's
# *and* the ReLU's result, and of the sum. Somebody wrote it down as below. It runs, and its answers are nonsense: **five** bugs. Repair it as `integer_block`.

# %%
def buggy_block(q, x, mid, out, weight, weight_scale, bias):
    """relu(conv(x)) + x on integers, with five bugs."""
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    centred = F.pad(q.float(), (1, 1, 1, 1)) - z1
    sums = F.conv2d(centred, weight.float()) + bias.view(-1, 1, 1)
    factor = s1 * weight_scale / s3
    h = (sums * factor.view(-1, 1, 1)).round() + z2
    h = h.int().to(torch.uint8).float()
    h = h.clamp(0, 255)
    total = s1 * (h - z2 + q.float() - z1)
    return ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)


def integer_block(q, x, mid, out, weight, weight_scale, bias):
    """relu(conv(x)) + x on integers: uint8 in, uint8 out; grids are (scale, zero point)."""
    ### BEGIN SOLUTION
    (s1, z1), (s2, z2), (s3, z3) = x, mid, out
    centred = F.pad(q.float() - z1, (1, 1, 1, 1))
    sums = F.conv2d(centred, weight.float()) + bias.view(-1, 1, 1)
    factor = s1 * weight_scale / s2
    h = (sums * factor.view(-1, 1, 1)).round() + z2
    h = h.clamp(z2, 255).to(torch.uint8)
    total = s2 * (h.float() - z2) + s1 * (q.float() - z1)
    return ((total / s3).round() + z3).clamp(0, 255).to(torch.uint8)
    ### END SOLUTION

# %%
integer_block = check("11.6", integer_block)

# %% [markdown]
# **See** what the bugs do to real images, with a random convolution and with the grids that your `numbers_in_the_file` gives:

# %%
torch.manual_seed(0)
sample = images[:8]
block_weight, block_bias = 0.4 * torch.randn(3, 3, 3, 3), 0.1 * torch.randn(3)
middle = F.conv2d(sample, block_weight, block_bias, padding=1)
wanted = F.relu(middle) + sample
s_x, z_x, steps, qw, qb = numbers_in_the_file(sample.min().item(), sample.max().item(), block_weight, block_bias)
s_m, z_m, *_ = numbers_in_the_file(middle.min().item(), middle.max().item(), block_weight, block_bias)
s_y, z_y, *_ = numbers_in_the_file(wanted.min().item(), wanted.max().item(), block_weight, block_bias)
q = ((sample / s_x).round() + z_x).clamp(0, 255).to(torch.uint8)
for name, block in {"buggy": buggy_block, "repaired": integer_block}.items():
    y = s_y * (block(q, (s_x, z_x), (s_m, z_m), (s_y, z_y), qw, steps, qb).float() - z_y)
    print(f"{name:9} mean error {(y - wanted).abs().mean():.4f}, largest {(y - wanted).abs().max():.3f}; a step of the output is {s_y:.4f}")

# %% [markdown]
# {{prediction 11.p3}}

# %%
### BEGIN SOLUTION
p3 = (1.3, 4)
### END SOLUTION

# %%
p3 = predict("11.p3", p3)

# %% [markdown]
# **Measure**, on your machine, side by side, with your harness of section 1:

# %%
half = pruning.prune_channels_to_macs(net, x1, 0.5, round_to=8)
half_path = folder / "half_int8.onnx"
deploy.export_int8(half, half_path, (3, 32, 32), calibration)
forms = {"PyTorch, float": net, "engine, float": engine, "engine, int8": int8_engine, "pruned, int8": deploy.OnnxModel(half_path)}
for x in (x1, x32):
    print(f"batch {len(x)}")
    race({name: (lambda model=model, x=x: model(x)) for name, model in forms.items()}, rounds=10 if quick() else 30)

# %% [markdown]
# The pruned network lost at least half of its MACs. It was not trained again here; only its time was asked. With training, on a quiet machine:

# %%
record = {name: load_evidence("11")[f"int8 {name}"] for name in ("lenet5", "resnet8", "mobilenet", "vgg", "resnet18")}
print(deploy.machine_line(record["resnet8"]["machine"]))
for name, entry in record.items():
    for form in entry["forms"]:
        line = f"{name:9} {form['form']:13} {form['macs'] / 1e6:8.1f} M MACs {form['bytes']:12,} bytes"
        if "accuracy" in form:
            line += f"   accuracy {form['accuracy']:.4f}, lost {100 * form['lost']:5.2f} points ({100 * form['lost_low']:5.2f} to {100 * form['lost_high']:5.2f})"
        print(line)
times = [row for entry in record.values() for row in entry["times"]]
for row in times:
    if row["network"] == "resnet18":
        print(f"resnet18, 224 pixels, batch {row['batch']}: {row['form']:14} {row['median_ms']:8.2f} ms (IQR {row['iqr_ms']:.2f}), {row['gain']:5.2f}x eager PyTorch ({row['gain_low']:.2f} to {row['gain_high']:.2f})")
gains = {row["form"]: row["gain"] for row in times if (row["network"], row["batch"]) == ("resnet8", 1)}
reveal("11.p3", gains["int8"] / gains["float32"])
figures_integer.bars(times, batch=1);

# %% [markdown]
# *The line is eager PyTorch.* Three gains stack up here, and it is worth keeping them apart. The black bars are the **engine**: nothing was compressed. The orange ones add **integers**, the blue ones **pruning**, the grey ones both; the table of
# accuracies says what that costs. For the large resnet18 integers and pruning both pay, and together most. For the small networks *int8 is 4x* is nowhere to be seen, and where pruning has left narrow layers, integers add nothing to it, or slow it down.
# Why? Section 4 looks at every layer on its own.
#
# (The pruned forms were trained for some epochs under the network they came from. Read what they lost with its interval, and with how much was pruned: half of the channels is a quarter of the MACs. The resnet8 and the mobilenet were cut in multiples of
# 8 and 16 channels. Without that rule half of their MACs were gone as well, and neither was faster than before. Section 4 says why, too.)
#
# {{question 11.q3}}

# %%
### BEGIN SOLUTION
q3 = "d"
### END SOLUTION

# %%
q3 = answer("11.q3", q3)

# %% [markdown]
# ## 4 What the machine allows
#
# The engine is compiled, the integers are in. Is there more to gain, or is this network as fast as *this machine* can be? And which change
# would help: fewer bits, or fewer channels? For that you look at every layer on its own.
#
# **Look.** `deploy.profile_onnx` asks the engine itself what each operation took; `deploy.profile_layers` does the same for PyTorch, with a hook around
# every layer. From here on everything runs on one thread, so that the numbers can be compared.

# %%
from math import prod

from compresslab.course.chapter11 import figures_limits
from compresslab.course.chapter11.widgets_limits import BatchOnTheRoof

network_macs = core.count_macs(net, (3, 32, 32)).by_layer
profile = deploy.profile_onnx(float_path, x1, rounds=20 if quick() else 60)
print("ONNX Runtime, batch 1          ms   share")
for row in profile:
    print(f"{row.operation:22} {row.milliseconds:9.4f} {row.share:7.2f}")
print(f"{'sum':22} {sum(row.milliseconds for row in profile):9.4f}")

eager = deploy.profile_layers(net, x1, rounds=10, threads=1)
print("\nPyTorch, batch 1               ms   share   GMAC/s")
for row in eager:
    if row.name in network_macs:
        print(f"{row.name:22} {row.milliseconds:9.4f} {row.share:7.2f} {network_macs[row.name] / row.milliseconds / 1e6:8.1f}")
others = [row for row in eager if row.name not in network_macs]
print(f"{'all the rest':22} {sum(row.milliseconds for row in others):9.4f} {sum(row.share for row in others):7.2f}")

# %% [markdown]
# Same processor, same kind of operation, and yet the last column differs a lot from row to row. (*All the rest* is what PyTorch calls one by one: norms, ReLUs, additions, and
# the hooks, which cost some microseconds per layer and make small layers look slower than they are. In the first table norms, ReLUs and additions have no rows: they
# are fused into the convolutions.) What may a layer reach *at best*?
#
# Chapter 00 had an answer for one linear layer. The **peak** $P$ is how many multiply-accumulates (MACs) the processor does per second, the **bandwidth** $\beta$ how many
# bytes come from memory. A layer with $F$ MACs that moves $B$ bytes has the **arithmetic intensity** $F / B$, and
#
# $$ \text{MACs per second} \;\le\; \min\left(P,\; \beta \cdot \frac{F}{B}\right) $$
#
# On paper with logarithmic axes that is a slope and then a flat part: a **roofline** (Williams, Waterman, Patterson, 2009). They meet at the **ridge**, $P / \beta$. Left of it a layer waits for bytes, right
# of it for the multiplier. Now do it for convolutions, where one weight is used at many places, and for a batch: the weights are read *once* for the whole batch, inputs
# and outputs belong to each image.
#
# {{exercise 11.7}}
#
# Write `on_the_roof`. `weight`, `image` and `out` are shapes without the batch: (outputs, inputs per group, height, width), (channels, height, width), (outputs, height, width). For a
# linear layer they are (outputs, inputs), (inputs,), (outputs,), and the same formula holds. All numbers, weights and activations, have `bits` bits. The bias is left out.
# Return the intensity in MACs per byte, and the most MACs per second. `prod((2, 3))` is 6.

# %%
def on_the_roof(weight, image, out, batch, bits, peak, bandwidth):
    """(MACs per byte, the most MACs per second) of a convolution or a linear layer, from its shapes."""
    ### BEGIN SOLUTION
    macs = batch * prod(out) * prod(weight[1:])
    numbers = prod(weight) + batch * (prod(image) + prod(out))
    intensity = macs / (numbers * bits / 8)
    return intensity, min(peak, bandwidth * intensity)
    ### END SOLUTION

# %%
on_the_roof = check("11.7", on_the_roof)

# %% [markdown]
# **See** it on three layers of equal width, on a toy machine with 50 GMAC and 10 GB per second: its ridge is at 5 MACs per byte.

# %%
toy = {"3x3 convolution": ((64, 64, 3, 3), (64, 8, 8), (64, 8, 8)), "3x3 depthwise": ((64, 1, 3, 3), (64, 8, 8), (64, 8, 8)), "linear": ((64, 64), (64,), (64,))}
for name, shapes in toy.items():
    for batch in (1, 32):
        intensity, rate = on_the_roof(*shapes, batch, 32, 50e9, 10e9)
        print(f"{name:16} batch {batch:2}: {intensity:6.2f} MACs per byte, at most {rate / 1e9:5.1f} GMAC/s: waits for {'bytes' if intensity < 5 else 'the multiplier'}")

# %% [markdown]
# A large batch helps where *weights* are most of what is moved: the linear layer climbs far up the slope. The convolution moves to the right, too, but it was under the flat part already. The depthwise layer
# stays where it is: nearly all of its bytes are activations, and each image brings its own.
#
# **Apply** it. First your machine: the peak is the best that it reaches in products of matrices, in floats and in 8-bit integers; the bandwidth is that of a copy. A large array
# comes from memory; one of 1 MB stays in the cache.

# %%
peaks = {32: deploy.measure_peak("float32", threads=1, repeats=3), 8: deploy.measure_peak("int8", threads=1, repeats=3)}
bandwidth = deploy.measure_bandwidth(64 if quick() else 256, threads=1, repeats=3)
cache = deploy.measure_bandwidth(1, threads=1)
print(f"peak: {peaks[32] / 1e9:.0f} GMAC/s in float32, {peaks[8] / 1e9:.0f} in int8: {peaks[8] / peaks[32]:.1f} times as many")
print(f"bandwidth: {bandwidth / 1e9:.1f} GB/s from memory, {cache / 1e9:.1f} from the cache")
print(f"ridge: {peaks[32] / bandwidth:.1f} MACs per byte in float32, {peaks[8] / bandwidth:.1f} in int8")


def layer_shapes(model, x):
    """(name, weight, image, out) of every convolution and linear layer, from one run."""
    rows, handles = [], []
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            def note(layer, inputs, output, name=name):
                rows.append((name, tuple(layer.weight.shape), tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))
            handles.append(layer.register_forward_hook(note))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return rows

# %% [markdown]
# Now all layers of three networks. Where each *may* be is the roof; where it *is* comes from the profile. The named ones are the slowest layer of each network, in MACs per second.

# %%
networks = {"resnet8": net, "vgg": models.load_baseline("vgg"), "mobilenet": models.load_baseline("mobilenet")}
panels = {}
for batch, x in ((1, x1), (32, x32)):
    panel = panels.setdefault(f"batch {batch}", {})
    for network, model in networks.items():
        spent = {row.name: row.milliseconds / 1e3 for row in deploy.profile_layers(model, x, rounds=3 if quick() else 6, threads=1)}
        points = []
        for name, *shapes in layer_shapes(model, x1):
            intensity = on_the_roof(*shapes, batch, 32, peaks[32], bandwidth)[0]
            points.append((name, intensity, batch * prod(shapes[2]) * prod(shapes[0][1:]) / spent[name]))
        worst = min(points, key=lambda point: point[2])
        panel[network] = [(name if name == worst[0] else "", *rest) for name, *rest in points]
        left = sum(intensity < peaks[32] / bandwidth for _, intensity, _ in points)
        print(f"batch {batch:2}, {network:9}: {left:2} of {len(points)} layers left of the ridge")
figures_limits.layers_on_the_roof(panels, peaks[32], bandwidth, cache);

# %% [markdown]
# How to read it. The *gap* between a dot and the roof is lost time: calls, layouts, kernels that do not fit the shape. Expect the largest gaps for the smallest layers at
# batch 1, where a call costs more than its arithmetic. That gap no compression closes, but a compiled graph does, or a batch. A dot *above the black slope* is no miracle: these networks are small, one layer
# leaves its output in the cache, the next finds it there, and the dotted line is its roof. (A dot above the flat part, too? Then your machine was busier while the peak was measured, or a kernel gets by with fewer
# multiplications than we count.)
#
# **Play** with the batch of the vgg, in floats and in 8 bits: here every layer stands *on* its roof. How many wait for bytes?

# %%
moving = BatchOnTheRoof(on_the_roof, layer_shapes(networks["vgg"], x1), peaks, bandwidth)
widgets.slider(moving, figures_limits.moving_points, name="batch", low=1, high=64, step=1, start=1, static=(1, 8, 32))

# %% [markdown]
# With 8 bits two things change: every layer moves to the *right*, four times the MACs per byte, and the flat part is *higher*. A layer on the slope gains from the first, a layer
# under the flat part from the second. But the ridge moves to the right as well, by as much as the peak grows. Where that is about four times,
# as many layers wait for bytes as before: compare the counts in the corners. Where it is more, *more* layers wait.
#
# {{question 11.q4}}

# %%
### BEGIN SOLUTION
q4 = "a"
### END SOLUTION

# %%
q4 = answer("11.q4", q4)

# %% [markdown]
# ### From layers to the network
#
# "int8 is 4x": of which layer, and of what share of the time? Layers run one after the other, so their *times* add up, and what a change does not touch stays. This is
# **Amdahl's law** (1967): if a share $s$ of the time gets $g$ times faster, the whole gets only $1 / (1 - s + s / g)$ times faster.
#
# {{exercise 11.8}}
#
# Write `predict_gain`. `before` and `after` are lists of layers, each `(macs, moved, peak)`: its MACs, its bytes, and the peak for its kind of numbers. A layer takes as long as its slower clock. `rest` are seconds
# that neither list holds, and that stay. The lists may differ in length: low rank makes two layers of one. Return how many times faster the network gets.

# %%
def predict_gain(before, after, bandwidth, rest):
    """How many times faster: layers are (MACs, bytes, peak), `rest` are seconds that stay."""
    ### BEGIN SOLUTION
    old, new = rest, rest
    for macs, moved, peak in before:
        old += max(macs / peak, moved / bandwidth)
    for macs, moved, peak in after:
        new += max(macs / peak, moved / bandwidth)
    return old / new
    ### END SOLUTION

# %%
predict_gain = check("11.8", predict_gain)

# %% [markdown]
# **See** it: three layers, of which int8 helps the first two, with a peak four times as high and a quarter of the bytes.

# %%
before = [(900, 20, 100), (100, 70, 100), (300, 50, 100)]
after = [(900, 5, 400), (100, 17.5, 400), (300, 50, 100)]
for i, (old, new) in enumerate(zip(before, after)):
    print(f"layer {i + 1} alone: {predict_gain([old], [new], 10, 0):.2f} times faster")
for rest in (0, 2, 10):
    print(f"all three, and {rest:2} s that stay: {predict_gain(before, after, 10, rest):.2f} times faster")

# %% [markdown]
# **Apply** it to the resnet8: int8, half of its channels, and both. How large is `rest`? Take the time that the engine needs today, minus what the roof says. Nobody knows how that remainder behaves. So predict twice:
#
# - *bold*: everything shrinks like the roof, `rest = 0`;
# - *careful*: all time above the roof stays.
#
# `deploy.layer_costs` counts MACs and bytes of any network, biases included.

# %%
half = pruning.prune_channels(net, x1, 0.5)
single = deploy.OnnxModel(float_path, threads=1)
macs_left = core.count_macs(half, (3, 32, 32)).total / sum(network_macs.values())
print(f"half of the channels leave {macs_left:.2f} of the MACs")


def layers_of(model, batch, bits):
    """(MACs, bytes, peak) of every layer, with all numbers in `bits` bits."""
    costs = deploy.layer_costs(model, (3, 32, 32), batch=batch, weight_bits=bits, activation_bits=bits)
    return [(cost.macs, cost.moved, peaks[bits]) for cost in costs]


changes = {"int8": (net, 8), "half the channels": (half, 32), "half, int8": (half, 8)}
for batch, x in ((1, x1), (32, x32)):
    today = core.time_calls({"float32": lambda: single.run_numpy(x.numpy())}, repeats=5 if quick() else 15)["float32"].median / 1e3
    ideal = sum(max(macs / peak, moved / bandwidth) for macs, moved, peak in layers_of(net, batch, 32))
    rest = max(0.0, today - ideal)
    print(f"batch {batch}: {1e3 * today:.3f} ms today, {1e3 * ideal:.3f} under the roof")
    for name, (model, bits) in changes.items():
        careful, bold = (predict_gain(layers_of(net, batch, 32), layers_of(model, batch, bits), bandwidth, stays) for stays in (rest, 0.0))
        print(f"    {name:18} {careful:5.2f} times faster (careful), {bold:5.2f} (bold)")

# %% [markdown]
# Where the two are far apart, much of the time is not the roof's at all: ask where it goes before you compress more. And what comes out? **Predict** one of these gains, for the machine of the recorded table:
#
# {{prediction 11.p4}}

# %%
### BEGIN SOLUTION
p4 = (1.3, 3.2)
### END SOLUTION

# %%
p4 = predict("11.p4", p4)

# %% [markdown]
# **Measure**: on a quiet machine, one thread, all four forms of each network taking turns (from the evidence). Bars are predicted with the roof of *that* machine, dots are measured.

# %%
record = load_evidence("11")["roofline"]
recorded = [row for row in record["rows"] if row["change"] != "float32"]
pruned = next(row for row in recorded if (row["network"], row["batch"], row["change"]) == ("resnet8", 1, "half the channels"))
reveal("11.p4", pruned["gain"])
print(f"{record['machine']['cpu']}, {record['roof']['threads']} thread: {record['roof']['float32_peak'] / 1e9:.0f} GMAC/s in float32, "
      f"{record['roof']['int8_peak'] / 1e9:.0f} in int8, {record['roof']['bandwidth'] / 1e9:.1f} GB/s")
for row in recorded:
    place = "below" if row["gain"] < row["careful"] else "above" if row["gain"] > row["bold"] else "within"
    print(f"{row['network']:8} batch {row['batch']:2} {row['change']:18} predicted {row['careful']:5.2f} to {row['bold']:5.2f}, "
          f"measured {row['gain']:5.2f} ({row['gain_low']:.2f} to {row['gain_high']:.2f}): {place}")
figures_limits.promises(recorded);

# %% [markdown]
# Only two of the fourteen dots lie *within* their bars: the layers got faster, some of the rest stayed. None lies *above*. Twelve lie *below*: even
# *careful* was not careful enough. Then the change brought work of its own, or left layers that the machine does not handle well. The engine's own profile says which. The resnet8, each form by operation:

# %%
def nodes_of(form, batch=1):
    """The recorded operations of the resnet8 in one form."""
    return [row for row in record["nodes"] if (row["form"], row["batch"]) == (form, batch)]


for form in dict.fromkeys(row["form"] for row in record["nodes"]):
    rows = nodes_of(form)
    by_operation = {}
    for row in rows:
        by_operation[row["operation"]] = by_operation.get(row["operation"], 0.0) + row["share"]
    largest = sorted(by_operation.items(), key=lambda item: -item[1])[:4]
    print(f"{form:18} {len(rows):3} operations: " + ", ".join(f"{name} {share:.2f}" for name, share in largest))
print("\nconvolutions one by one, in microseconds:")
for form in ("float32", "half the channels", "half, by 16"):
    print(f"{form:18}", " ".join(f"{1e3 * row['milliseconds']:4.0f}" for row in nodes_of(form) if row["operation"] == "Conv"))
by_16 = pruning.prune_channels(net, x1, 0.5, round_to=16)
for name, model in {"float32": net, "half the channels": half, "half, by 16": by_16}.items():
    share = core.count_macs(model, (3, 32, 32)).total / sum(network_macs.values())
    row = next(row for row in record["rows"] if (row["network"], row["batch"], row["change"]) == ("resnet8", 1, name))
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    print(f"{name:18} {share:.2f} of the MACs, {row['gain']:.2f} times faster; channels {widths}")

# %% [markdown]
# The first layers of the resnet8 have 16 channels, which is as many floats as one 512-bit vector of the recorded machine holds. The engine stores channels in blocks of that size. A layer of 8 channels computes
# a whole block, half of it padding, and has to bring its output into another order for the next layer (*ReorderOutput*): compare the first convolutions of the first two lines.
# The last form was pruned in multiples of 16 (`round_to=16`): more than twice the MACs of the other, for about a quarter more time. Most of those channels were nearly free. In integers the half is no faster than the whole: a vector
# holds even more of them. The halved vgg keeps at least 16 channels everywhere: look where its dots are. (Accuracy was not asked here: nothing was trained after pruning. With channels that cost little it is only easier to keep.)
#
# What this rule is worth, for two networks of which half of the MACs are to go, whatever the layer, batch 1 (from the evidence):

# %%
for row in load_evidence("11")["multiples"]["rows"]:
    print(f"{row['network']:9} in multiples of {row['multiple']:2}: {row['macs']:.2f} of the MACs, {row['gain']:.2f} times faster than the whole [{row['gain_low']:.2f}, {row['gain_high']:.2f}]")

# %% [markdown]
# With every channel that is worth least removed, wherever it stands, the networks have half of the MACs, and the one takes as long as before, the other longer. A part of what the larger multiples gain
# is fewer MACs, as the column shows. But the mobilenet in multiples of 4 and of 8 has about as many MACs as in multiples of 1, and little more than half of the time. **Prune in multiples of the vector.**
#
# So "int8 is 4x" is a statement about one number, the peak, of one machine, for layers that reach it. What a network gets is a sum over its layers. The roofline cannot tell you how fast it *will* be; it tells
# you what it *cannot* be, which of the two clocks to work on, and, where a dot falls short of it, in which layer to look for the reason.

# %% [markdown]
# ## 5 Why did it not get faster?
#
# Six patients, some in several forms. Each had fewer numbers, fewer bits or fewer multiplications, and somebody hoped for a speed-up. First one that seems hopeless to doubt: a sparse product
# really does multiply only what is not zero.
#
# {{prediction 11.p5}}

# %%
### BEGIN SOLUTION
p5 = (0.8, 5.0)
### END SOLUTION

# %%
p5 = predict("11.p5", p5)

# %% [markdown]
# **Look** how such a product stores a matrix. **Compressed sparse rows** are three lists: the values, the column of each, and where each row starts. The loop over them reads an index, fetches the number that stands
# there, multiplies, goes on. A dense kernel reads sixteen neighbours at once, multiplies all of them in one instruction, and needs no index.

# %%
tiny = torch.tensor([[0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0], [2.0, 0.0, 7.0, 0.0]])
csr = deploy.to_csr(tiny)
print("values ", csr.values().tolist())
print("columns", csr.col_indices().tolist())
print("starts ", csr.crow_indices().tolist())
from compresslab.deploy.facts import tensor_bytes
print(f"{tensor_bytes(tiny)} bytes dense, {tensor_bytes(csr)} bytes in sparse rows")

# %%
from compresslab.course.chapter11 import figures_verdict

record = load_evidence("11")["sparse"]
figures_verdict.break_even(record["rows"])
for batch in (1, 32):
    for kernel in ("torch", "scipy"):
        rows = [row for row in record["rows"] if (row["kernel"], row["batch"]) == (kernel, batch)]
        limit = deploy.break_even_density([row["density"] for row in rows], [row["ratio"] for row in rows])
        tenth = next(row for row in rows if row["density"] == 0.1)
        print(f"{kernel:5}, {batch:2} column{'s' * (batch > 1):1}: at 90 % zeros {tenth['ratio']:5.2f} times faster [{tenth['low']:.2f}, {tenth['high']:.2f}]; "
              f"break-even at {'no' if limit is None else f'{1 - limit:.0%}'} zeros")
print(deploy.machine_line(record["machine"]))
reveal("11.p5", next(row["ratio"] for row in record["rows"] if (row["kernel"], row["batch"], row["density"]) == ("torch", 32, 0.1)));

# %% [markdown]
# The lines run along the dotted one, but far below it: each multiplication costs several times as much as a dense one, so most of the zeros only pay for the indices of the rest. At how many zeros it begins to pay depends on the
# kernel, on the batch and on the machine. Compare it with the sparsity that your networks of chapter 01 survived.
#
# That is a diagnosis in two numbers, and it fits every patient. With the MACs that the kernels *carry out*,
#
# $$ \text{speed-up} = \underbrace{\frac{\text{MACs before}}{\text{MACs after}}}_{\text{work}} \times \underbrace{\frac{\text{MACs per second after}}{\text{MACs per second before}}}_{\text{rate}} . $$
#
# Either the work did not shrink, or the rate fell. Facts for both are counted without a clock, from one run: `deploy.run_facts`.

# %%
for name, model in (("resnet8", net), ("vgg", models.load_baseline("vgg")), ("mobilenet", models.load_baseline("mobilenet"))):
    facts = deploy.run_facts(model, x1)
    print(f"{name:9} {facts.macs:11,} MACs, {facts.bytes:10,} bytes moved, {facts.operations:3} operations, {facts.intensity:5.1f} MACs per byte, {facts.zeros:.0%} zeros")

# %% [markdown]
# {{exercise 11.9}}
#
# Write `diagnose`. A case holds `hoped` (how many times faster it should be), `speedup` = (ratio, low, high) as your `ratio_interval` returns it, the `ridge` of the machine in MACs per byte, and the facts `before` and `after`: dicts
# with `macs`, `bytes`, `operations`, `zeros` (a fraction), `sparse` (was a product sparse?). Return (work, rate, cause). Ask in this order; the first "yes" is the cause:
#
# 1. Does the interval reach the hope, or lie above it? `"as hoped"`
# 2. More MACs than before? `"more work"`
# 3. As many MACs, in more operations? `"simulated"`: something is computed around float kernels.
# 4. As many MACs, and more zeros by over a tenth of the weights? `"zeros are multiplied"`
# 5. As many MACs? `"no fast kernel"`: none that is that much faster for this kind of number.
# 6. Fewer MACs, sparse? `"indices"`
# 7. Fewer MACs, and the network after the change has fewer MACs per byte than the ridge? `"memory"`
# 8. Otherwise `"small kernels"`: too little to do in each call.

# %%
def diagnose(case):
    """(work, rate, cause): how many times fewer MACs, how many times faster each, and why that is less than hoped for."""
    ### BEGIN SOLUTION
    before, after = case["before"], case["after"]
    speedup, low, high = case["speedup"]
    work = before["macs"] / after["macs"]
    rate = speedup / work
    if high >= case["hoped"]:
        cause = "as hoped"
    elif work < 1:
        cause = "more work"
    elif work == 1 and after["operations"] > before["operations"]:
        cause = "simulated"
    elif work == 1:
        cause = "zeros are multiplied" if after["zeros"] > before["zeros"] + 0.1 else "no fast kernel"
    elif after["sparse"]:
        cause = "indices"
    else:
        cause = "memory" if after["macs"] / after["bytes"] < case["ridge"] else "small kernels"
    return work, rate, cause
    ### END SOLUTION

# %%
diagnose = check("11.9", diagnose)

# %% [markdown]
# **Apply** it to the patients, on *your* machine, in PyTorch. `cases.patients` makes them from the VGG-like network, one linear layer and one convolution; `cases.examine` runs `deploy.run_facts` and the library's harness. Your own times decide:

# %%
from compresslab.course.chapter11 import cases

def doctor(case):
    """The case with your diagnosis beside it."""
    work, rate, cause = diagnose(case)
    return case | {"work": work, "rate": rate, "cause": cause}

def print_cases(rows):
    """A line per case: work and rate multiply to the speed-up."""
    print(f"{'':30}{'hoped':>6} {'work':>7} x {'rate':>5} = {'faster [95 %]':25}cause")
    for row in rows:
        ratio, low, high = row["speedup"]
        print(f"{row['name']:30}{row['hoped']:6.1f} {row['work']:7.2f} x {row['rate']:5.2f} = {ratio:5.2f} [{low:.2f}, {high:.2f}]".ljust(78) + row["cause"])

ridge = peaks[32] / bandwidth                                        # of section 4
mine = [doctor(cases.examine(patient, ridge, repeats=5 if quick() else 9)) for patient in cases.patients(digits.test.x(slice(4)))]
print_cases(mine)

# %%
figures_verdict.work_and_rate(mine);

# %% [markdown]
# And on the quiet machine of the record, eight images, with more rounds. (Where your own interval is so wide that it reaches the hope, `"as hoped"` means "not refuted": your machine was busy; run the cell again.)

# %%
record = load_evidence("11")["six_cases"]
print_cases([doctor(row) for row in record["rows"]])
print(deploy.machine_line(record["machine"]))

# %% [markdown]
# **Case by case**, whatever your clock says today:
#
# - **Mask only.** Zeros in a dense tensor are numbers like any other. A mask is a promise to a file format (chapter 01) or to a special kernel. The cure: remove channels, or patterns that a kernel knows.
# - **16-bit floats on a CPU.** Half the bytes; but who multiplies? Some processors have instructions for bfloat16, some for float16, many for neither; then every number is widened first. In the line of your machine above, `avx512_bf16`,
#   `amx_bf16` mean bfloat16. Without them expect a rate of at most 1.
# - **Simulated int8.** Everything is rounded, kept in float32, and multiplied in float32: it *measures accuracy*, and was never meant to be fast. The cure is section 3: integer kernels.
# - **Sparse product.** The work shrinks as promised and the rate falls, because indices are read and numbers are fetched one by one. The cure: far more zeros, or blocks.
# - **Low rank above break-even.** Two thin layers at nine tenths of the rank are *more* MACs than the layer. Chapter 05 gave the break-even rank; and below it two kernels still start instead of one, and the numbers between them are written and
#   read.
# - **Depthwise, few channels.** The MACs go where the processor was good, and the bytes stay: few MACs per byte, on the slope of the roofline. An engine that fuses the two layers, or keeps them in the cache, gets some of it back; wide layers more.
#
# The order of the questions is a doctor's, not a proof: a patient can have two illnesses, and the bytes of `run_facts` are counted as if nothing stayed in a cache. Cure the first, measure, ask again.
#
# ### What gives speed where
#
# The opening figure as a table. `work` counts MACs, the same in both engines; the other columns say how many times faster than the *dense network in the same engine* it is, so that the engine's own gain is not credited to the method:

# %%
record = load_evidence("11")["speed"]
for network in ("resnet8", "vgg"):
    rows = {(row["engine"], row["method"], row["batch"]): row for row in record["rows"] if row["network"] == network}
    gain = {batch: rows["onnxruntime", "dense", batch] for batch in (1, 32)}
    print(f"{network}: ONNX Runtime over PyTorch, dense: " + ", ".join(f"{row['ratio']:.2f} at batch {batch}" for batch, row in gain.items()))
    print(f"{'':26}{'work':>5}   {'PyTorch, batch 1':19}{'PyTorch, batch 32':19}{'ORT, batch 1':19}{'ORT, batch 32':19}")
    for method in dict.fromkeys(method for _, method, _ in rows):
        if method == "dense":
            continue
        cells = []
        for engine in ("torch", "onnxruntime"):
            for batch in (1, 32):
                row = rows.get((engine, method, batch))
                cells.append(f"{row['engine_ratio']:.2f} [{row['engine_low']:.2f}, {row['engine_high']:.2f}]" if row else "no kernels")
        print(f"  {method:24}{rows['onnxruntime', method, 1]['work']:5.1f}   " + "".join(f"{cell:19}" for cell in cells))
print(f"one thread; {deploy.machine_line(record['machine'])}")

# %%
figures_clock.speed_table(record["rows"], "vgg");

# %% [markdown]
# Read it by columns, with your A/A margin in mind. Masks, of either kind, stay within 5 % of 1, which is no more than equal networks showed in section 1: no kernel on this CPU asks for zeros. Methods that leave *dense, smaller* tensors can gain in both engines, if rarely as much as their MACs
# promise. Methods that cut a layer into several gain where calls are cheap, in the engine, and where there is enough to do in each call. And int8 needs integer kernels: PyTorch's modules have none here. Where a row contradicts you, `diagnose` it.
#
# {{question 11.q5}}

# %%
### BEGIN SOLUTION
q5 = "a"
### END SOLUTION

# %%
q5 = answer("11.q5", q5)

# %% [markdown]
# ### On a GPU (optional)
#
# What this table cannot show, a GPU can: kernels for 16-bit floats, for **2:4 sparsity** (two zeros in every four neighbours, chapter 01; the sparse tensor cores skip them), for 8-bit and 4-bit weights. The next cell measures them on a
# transformer block of width 4,096, for one token and for 2,048. Without such a GPU it says so and is done, and the course goes on without it.

# %%
def print_gpu(rows):
    """One line per form and number of tokens; a form that cannot be had says why."""
    for row in rows:
        if row["reason"]:
            print(f"{row['tokens']:5} tokens  {row['form']:32} not here: {row['reason'][:90]}")
        else:
            print(f"{row['tokens']:5} tokens  {row['form']:32} {row['median']:8.3f} ms, {row['ratio']:6.2f} times faster [{row['low']:.2f}, {row['high']:.2f}], "
                  f"error {row['difference']:.1e}, {row['weight_bytes'] / 1e6:6.1f} MB")

if torch.cuda.is_available():
    from dataclasses import asdict
    print(machine["gpu"])
    print_gpu([asdict(row) for row in deploy.gpu_block_table(4096, repeats=5 if quick() else 20)])
else:
    print("no CUDA GPU here: nothing to measure")

# %% [markdown]
# What to expect of such a table, from section 4: one token reads every weight once and multiplies it once, so it waits for bytes, and 4-bit weights should come near the ratio of the bytes, as far as starting the kernels allows. 2,048 tokens multiply every weight 2,048
# times: there bytes hardly matter, tensor cores do; 2:4 may at best double the rate, and weights that are unpacked before a 16-bit product gain nothing.

# %% [markdown]
# ## 6 Memory: what has to be there at once
#
# "The network has 0.3 MB, so it needs 0.3 MB." That is the file. A device has two kinds of memory. In the **flash** lies what does not change: the weights; on a microcontroller they are read where
# they lie. In the **RAM** lies what the network makes while it runs: the **activations**. One can be far too large while the other has room to spare.
#
# **Look.** Each output comes into being, waits for its last reader, and is gone; its place is free for the next. Here are the operations of the resnet8 as an engine for integers runs them (batch norm and ReLU belong to
# the convolution before them), and what lives while each of them runs. One byte is one activation:

# %%
from compresslab.course.chapter11 import figures_memory
from compresslab.course.chapter11.networks_memory import Branches

graph = deploy.graph_of(net, (3, 32, 32), bits=8)
lives = deploy.live_bytes(graph)
for operation, live in zip(graph, lives):
    print(f"{operation.name:20} reads {', '.join(operation.inputs) or '-':38} makes {operation.output_bytes:6,} bytes, {live:6,} are alive")
weights = sum(p.numel() for p in net.parameters())
print(f"\nat 8 bits: {weights:,} bytes of weights, {max(lives):,} bytes of activations at the peak, {sum(op.output_bytes for op in graph):,} bytes of activations in all")

# %% [markdown]
# Three tensors of the first stage meet at the peak: the input of the block waits for the addition while the second convolution reads one tensor and writes another. That is what a shortcut costs.
#
# {{exercise 11.10}}
#
# Write `peak_of_order`. `operations` is a dictionary: name of an operation -> (names of those whose outputs it reads, bytes of its own output). `order` lists all names, each behind those that it reads. An output lives from
# the operation that makes it to the last one that reads it, both included: while an operation runs, its inputs and its output are in memory together. What nobody reads is an output of the network and stays to the
# end. An operation that reads nothing is an input of the network; one may read the same output twice, which lies there once. Return the bytes at the peak.

# %%
def peak_of_order(operations, order):
    """The most bytes that live at once while `operations` run in `order`."""
    ### BEGIN SOLUTION
    last = dict.fromkeys(order, len(order) - 1)  # what nobody reads is an output, and stays
    for step, name in enumerate(order):
        for source in operations[name][0]:
            last[source] = step  # a later reader overwrites an earlier one
    peak = 0
    for step in range(len(order)):
        live = [name for name in order[: step + 1] if last[name] >= step]
        peak = max(peak, sum(operations[name][1] for name in live))
    return peak
    ### END SOLUTION

# %%
peak_of_order = check("11.10", peak_of_order)

# %% [markdown]
# **Apply.** Your function on three networks, at batch 1 and 32. The weights are read once for a batch; the activations belong to one image each:

# %%
def as_dictionary(graph):
    """{name: (inputs, bytes)} as your functions take it."""
    return {operation.name: (operation.inputs, operation.output_bytes) for operation in graph}


lenet = models.load_baseline("lenet5")
for name, network, shape in (("resnet8", net, (3, 32, 32)), ("vgg", models.load_baseline("vgg"), (3, 32, 32)), ("lenet5", lenet, (1, 28, 28))):
    peaks = []
    for batch in (1, 32):
        operations = as_dictionary(deploy.graph_of(network, shape, batch=batch))
        peaks.append(peak_of_order(operations, list(operations)))
    print(f"{name:8} {sum(p.numel() for p in network.parameters()):9,} bytes of weights at 8 bits, RAM at batch 1 {peaks[0]:7,}, at batch 32 {peaks[1]:9,}")

# %% [markdown]
# The lenet5 has five times the weights of the resnet8, and less than a third of its peak. Weights are many where there are many channels or units, at the end; activations are many where images are large, in front.
#
# ### The order is yours
#
# A chain leaves no choice. Branches do. `Branches` is a small detector: three branches get wide and then small again, and its code, as one would write it, runs the three wide layers first. Our device has **256 KiB** of RAM, 262,144 bytes.

# %%
branches = deploy.graph_of(Branches(), Branches.INPUT)
operations = as_dictionary(branches)
limit = 256 * 1024
for name, (sources, size) in operations.items():
    print(f"{name:8} reads {', '.join(sources) or '-':26} makes {size:7,} bytes")
print(f"as written it needs {peak_of_order(operations, list(operations)):,} bytes of {limit:,}")

# %% [markdown]
# Not a weight is too many, and it does not fit. Nothing but the order stands in the way.
#
# {{exercise 11.11}}
#
# Write `best_order`: the order of all `operations` (a dictionary as before) with the smallest peak; if several have it, any of them. Trying all orders is hopeless for more than ten operations. But what waits in memory
# depends only on *which* operations are done, not on how you got there: a **dynamic program** over sets of finished operations. (`functools.cache` remembers results; sets must be `frozenset`s for that.) Up to a dozen operations
# are checked. Rules such as "always run what leaves least behind" find good orders, often; here the best is asked.

# %%
from functools import cache


def best_order(operations):
    """An order of all `operations`, each behind what it reads, with the smallest peak of live bytes."""
    ### BEGIN SOLUTION
    readers = {name: {other for other in operations if name in operations[other][0]} for name in operations}

    @cache
    def finish(done):
        """The smallest peak of what is left to run when the set `done` has run, and its order."""
        waiting = sum(operations[name][1] for name in done if not readers[name] or readers[name] - done)
        ways = []
        for name in operations:
            if name not in done and done.issuperset(operations[name][0]):
                peak, rest = finish(done | {name})
                ways.append((max(peak, waiting + operations[name][1]), [name, *rest]))
        return min(ways, default=(0, []))

    return finish(frozenset())[1]
    ### END SOLUTION

# %%
best_order = check("11.11", best_order)

# %%
order = list(best_order(operations))
runs = {"as written": (list(operations), deploy.live_bytes(branches)), "your order": (order, deploy.live_bytes(branches, order))}
print(f"your order needs {peak_of_order(operations, order):,} bytes: {' '.join(order)}")
figures_memory.over_time(runs, limit);

# %% [markdown]
# One branch after the other: each shrinks to its small output before the next gets wide. The same weights, the same MACs, the same result to the last bit.
#
# An engine for microcontrollers fixes all this before anything runs. It takes one block of memory, the **arena**, and gives every tensor an address in it, so that two tensors that live at the same time never overlap:
# the largest first, each as low as it fits.

# %%
spans = deploy.lifetimes(branches, order)
arena = deploy.plan_arena(spans)
print(f"arena {arena.size:,} bytes, peak of live bytes {deploy.peak_bytes(branches, order):,}, all tensors side by side {sum(span.size for span in spans):,}")
figures_memory.addresses(spans, arena.offsets, order, "the arena of your order");

# %% [markdown]
# Read a column: what lives then. Read a row: which tensors share these addresses, one after the other. White between blocks is memory that nobody uses at that moment.
#
# {{question 11.q6}}

# %%
### BEGIN SOLUTION
q6 = 'd'
### END SOLUTION

# %%
q6 = answer("11.q6", q6)

# %% [markdown]
# ### A whole process
#
# A computer with an operating system counts differently: there, what matters is what the *process* took, engine and all. Its largest value so far is the **high-water mark**. It never falls, so in this notebook, which has
# trained and measured for a while, it says nothing about one network. `deploy.peak_memory` starts a fresh process, imports the engine, loads the file, runs some batches, and reads the mark behind each.
#
# {{prediction 11.p6}}

# %%
### BEGIN SOLUTION
p6 = (20, 90)
### END SOLUTION

# %%
p6 = predict("11.p6", p6)

# %%
record = load_evidence("11")["memory"]
resnet_row = next(row for row in record["rows"] if (row["network"], row["form"], row["batch"]) == ("resnet8", "ONNX Runtime float", 1))
reveal("11.p6", resnet_row["peak_bytes"] / 1e6)
print(f"{record['machine']['cpu']}, {record['threads']} thread; the median of {record['processes']} processes:")
for row in record["rows"]:
    print(f"{row['network']:8} {row['form']:20} batch {row['batch']:2}: file {row['file_bytes']:9,} bytes, process {row['peak_bytes'] / 1e6:5.1f} MB: "
          f"{row['started_bytes'] / 1e6:5.1f} before loading, {(row['peak_bytes'] - row['loaded_bytes']) / 1e6:5.1f} by running")
figures_memory.marks(record["rows"]);
mine = deploy.peak_memory(float_path, (3, 32, 32))
print(f"\nresnet8 in a fresh process on your machine: {mine.peak_bytes / 1e6:.1f} MB, {mine.started_bytes / 1e6:.1f} of them before the file was opened")

# %% [markdown]
# For networks of this size the engine is nearly everything: the code of ONNX Runtime and numpy, or of PyTorch, is there before the file is opened. No compression of the network touches that part; another engine does, and that is why
# engines for microcontrollers have only some tens of kilobytes. And look at the codes: a file a quarter of the size, and no smaller a process, for PyTorch decodes the weights to floats before it multiplies. Of the parts that the network is answerable for, compare
# what *running* adds at batch 1 and at batch 32.
#
# ## 7 Your turn: a network for a microcontroller
#
# {{exercise 11.12}}
#
# The device leaves **16,000 bytes** of flash for the file, **8,192 bytes** of RAM for the activations (8 bits each, in the best order), and time for **900,000 MACs** per image. Bring LeNet-5 there: at most **1.5 points** may be
# lost against the shipped network on 4,000 freshly drawn ink digits (a file fails only if so many images show that it lost more). Save it with `core.save` and set `my_file` to the path. `deploy.fit` says where you are:

# %%
from functools import partial

from compresslab.course.budget import submission_path

ink = data.load_data("ink_digits")
ink_x1 = ink.test.x(slice(1))
device = deploy.Budget(flash_bytes=16_000, ram_bytes=8192)
in_bits = partial(core.UniformCode.from_dense, bits=4, axis=0)
print("floats:      ", deploy.fit(lenet, (1, 28, 28), device))
print("4-bit codes: ", deploy.fit(core.encode(lenet, in_bits), (1, 28, 28), device))
lenet_graph = deploy.graph_of(lenet, (1, 28, 28))
print("alive:", {operation.name: live for operation, live in zip(lenet_graph, deploy.live_bytes(lenet_graph))})

# %%
### BEGIN SOLUTION
small = pruning.prune_channels(lenet, ink_x1, {"conv1": 9 / 20, "conv2": 30 / 50, "fc1": 460 / 500})
small = core.train(small, ink.train.take(4000 if quick() else 6000), epochs=3, lr=0.05, batch_size=64, progress=False)
small = core.encode(small, partial(core.UniformCode.from_dense, bits=5, axis=0))
core.save(small, submission_path("11.12"))
my_file = str(submission_path("11.12"))
### END SOLUTION

# %%
my_file = check("11.12", my_file)

# %%
mine = core.load(my_file)
report = deploy.fit(mine, (1, 28, 28), device)
print(report)
print(f"{report.macs:,} MACs per image; LeNet-5 has {core.count_macs(lenet, (1, 28, 28)).total:,}")

# %% [markdown]
# ## 8 Your ledger
#
# The network of your file beside the one it came from.

# %%
judged = ink.test.take(1000 if quick() else 2000)
entered = [(core.measure(lenet, judged, name="LeNet-5", repeats=0), "dense"), (core.measure(mine, judged, name="LeNet-5, microcontroller", repeats=0), "pruning")]
print(core.format_rows([measured_row for measured_row, _ in entered]))
for measured_row, family in entered:
    ledger.add(measured_row, chapter="11", family=family)

# %%
ledger.pareto();

# %% [markdown]
# ## What was simplified
#
# - The roofline here has one level of memory. Processors have several caches, each with a slope of its own, and a layer that fits a cache does better than the slope of the main memory says.
# - One thread, mostly. With more threads the peak grows faster than the bandwidth, so more layers wait for bytes.
# - The schedule moves whole operations. MCUNetV2 computes the first layers patch by patch, which lowers the peak further and costs MACs where patches overlap; engines also write element-wise operations over their inputs.
# - The arena is laid out greedily. The best layout is a packing problem; for networks of this size the greedy one is at or near the lower bound.
# - No microcontroller was used: flash and RAM are counted as its engine would need them for the network; code, stack, and the scratch buffers of its kernels come on top. Files with codes of 5 bits need a kernel that reads 5 bits.
# - Energy was not measured. Moving a byte costs far more energy than multiplying it, so the counts of bytes say more about it than the MACs do.
#
# ## Further reading
#
# - Williams, Waterman, Patterson, *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, Communications of the ACM 2009.
# - Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018.
# - Lin, Chen, Lin, Gan, Han, *MCUNet: Tiny Deep Learning on IoT Devices*, NeurIPS 2020.
# - Lin, Chen, Cai, Gan, Han, *MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning*, NeurIPS 2021.
# - Ahn et al., *Ordering Chaos: Memory-Aware Scheduling of Irregularly Wired Neural Networks for Edge Devices*, MLSys 2020.
# - Pisarchyk, Lee, *Efficient Memory Management for Deep Neural Net Inference*, 2020.
# - David et al., *TensorFlow Lite Micro: Embedded Machine Learning on TinyML Systems*, MLSys 2021.
#
# This was the last chapter. What you have now: the methods of eleven chapters, your own implementations of them, a ledger of what each of them gave you, and a way to find out what the next paper is worth.


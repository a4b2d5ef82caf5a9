# %% [markdown]
# # Knowledge distillation: what a teacher adds
#
# After this chapter you can let a small network learn from a large one, say what was transferred (and check it against controls), and tell when it is worth nothing. Each point below is one training of a student with 20 thousand
# parameters, on 4,000 images; points of one seed began with the same weights and saw the same batches:

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.course import answer, check, hint, ledger, load_evidence, plots, predict, quick, reveal
from compresslab.course import solution, widgets
from compresslab.course.chapter04 import figures
from compresslab.course.chapter04.widgets import TemperatureLook, draw_softened

plots.style()
evidence = load_evidence("04")
transfers = [row for row in evidence.values() if row.get("experiment") == "transfer"]
figures.transfer(transfers, "ResNet-8, 8 to 32 channels");

# %% [markdown]
# *`street_digits`, 20,000 fresh images judge; the interval is that of the paired gain over all seeds of a method. With few seeds
# it is wide, and if it crosses the dotted line, the verdict is "not distinguishable".* **Time** about two hours for the core
# exercises, three for all. **You need** chapter 00: the ruler (bytes, MACs, a paired difference).
#
# Stuck? Open a new cell and run `hint("4.1")`: each call says a little more.
#
# ## The family
#
# In **knowledge distillation** one network, the **teacher**, takes part in the training of another, the **student**. Pruning and
# quantization change a network that is there; distillation changes how one *comes to be*. So it makes nothing smaller by itself:
# the student is as small as you design it (chapter 03), and the teacher makes it better, or not. The idea is of 2006 (Bucilua,
# Caruana, Niculescu-Mizil, KDD), its name of 2015 (Hinton, Vinyals, Dean). The methods differ in *what* is transferred and in
# *who* teaches:

# %%
figures.map_of_distillation();

# %% [markdown]
# Our teacher is the `mobilenet` of the course on `street_digits`. What we choose, we choose on `validation`.

# %%
from compresslab.core import count_macs
from compresslab.core.statistics import paired_difference
from compresslab.core.train import accuracy, correct_answers, predict_logits
from compresslab.data import load_data
from compresslab.models import build_model, from_spec, load_baseline

digits = load_data("street_digits")
judges = digits.validation.take(200 if quick() else 1000)
few = digits.train.take(200 if quick() else 500)
teacher = load_baseline("mobilenet")
print(f"the teacher: {sum(p.numel() for p in teacher.parameters()):,} parameters, "
      f"{accuracy(teacher, judges):.1%} of {len(judges):,} validation images right")

# %% [markdown]
# ## 1 What the teacher knows
#
# **Look.** A label is one word: "4". A network's answer is a number for each class, the **logits** $z_1, \dots, z_K$; the
# **softmax** makes probabilities of them. Here are the teacher's, for one training image:

# %%
logits = predict_logits(teacher, few)
fours = [row for row in range(len(few)) if few.y[row] == 4 and logits[row].argmax() == 4]
shown = logits[fours[0]]
print("class        " + "".join(f"{k:>9}" for k in range(10)))
print("logit        " + "".join(f"{z:9.2f}" for z in shown))
print("probability  " + "".join(f"{p:9.0e}" for p in shown.softmax(0)))

# %% [markdown]
# The label says that nine classes are equally wrong. The teacher says how wrong each of them is, and by factors: one wrong class
# may be a hundred times likelier than another. But these factors hide behind the decimal point: next to a probability of nearly
# 1, they weigh nothing in any loss.
#
# {{exercise 4.1}}
#
# Hinton et al. divide the logits by a **temperature** $T$ before the softmax:
#
# $$ p_i^T = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)} $$
#
# $T = 1$ is the softmax you know; a larger $T$ makes the distribution **softer**, flatter. Write `soften`. Classes are the last
# dimension, whatever comes before it. It must survive large logits (`exp(200)` is `inf` in 32 bits) and refuse with a
# `ValueError` a temperature that is not positive.

# %%
def soften(logits, temperature):
    """Probabilities, the shape of logits: the softmax of logits / temperature over the last dimension."""
    ### BEGIN SOLUTION
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    z = logits / temperature
    weights = torch.exp(z - z.max(dim=-1, keepdim=True).values)
    return weights / weights.sum(dim=-1, keepdim=True)
    ### END SOLUTION

# %%
soften = check("4.1", soften)

# %% [markdown]
# **See.** Five training images, three of which the teacher is sure about. The hatched bar is the label's.

# %%
sureness = soften(logits, 1.0).gather(1, few.y[:, None])[:, 0]
order = sureness.argsort().tolist()
rows = [order[0], order[len(order) // 20], order[len(order) // 2], fours[0], order[-1]]
figures.softened_digits(few.images[rows], few.y[rows].tolist(), {T: soften(logits[rows], T) for T in (1.0, 4.0, 20.0)});

# %%
for T in (1.0, 2.0, 4.0, 8.0, 20.0):
    p = soften(logits, T)
    entropy = -(p * p.log2()).sum(1).mean().item()
    label = p.gather(1, few.y[:, None]).mean()
    print(f"T = {T:4g}: {label:6.1%} for the label on the average, entropy {entropy:.2f} bits of {math.log2(10):.2f}")

# %% [markdown]
# These are images that the teacher was trained on: on them it is surer than it has a right to be, and at $T = 1$ its answers are
# labels in all but name. Temperature brings out what is behind. A label tells a student at most $\log_2 10 = 3.32$ bits about an
# image. A softened answer is ten real numbers: this 4 could have been a 9, that one rather a 1. Hinton calls what is in the small
# probabilities **dark knowledge**. Whether it is what helps, section 4 will ask.
#
# ## 2 The loss
#
# The student shall imitate the softened teacher. How far apart two distributions are, the **Kullback-Leibler divergence**
# measures, $\mathrm{KL}(p \,\|\, q) = \sum_i p_i \log (p_i / q_i)$; it is 0 only where they agree. With labels $y$, student
# logits $z_s$, teacher logits $z_t$:
#
# $$ L = (1 - \alpha)\, \mathrm{CE}(y, p_s) + \alpha\, T^2\, \mathrm{KL}(p_t^T \,\|\, p_s^T) $$
#
# The **hard** half is the ordinary cross-entropy at $T = 1$; in the **soft** half both networks have the same $T$.
#
# {{exercise 4.2}}
#
# Write `distillation_loss`. Sum over the classes, average over the batch. A softmax that underflows to 0 has no logarithm:
# `F.log_softmax` has.

# %%
def distillation_loss(student_logits, teacher_logits, labels, temperature, alpha):
    """A scalar tensor; logits are (N, K), labels (N,); alpha is the weight of the teacher."""
    ### BEGIN SOLUTION
    log_s = F.log_softmax(student_logits / temperature, dim=1)
    log_t = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = (log_t.exp() * (log_t - log_s)).sum(dim=1).mean()
    hard = F.cross_entropy(student_logits, labels)
    return (1 - alpha) * hard + alpha * temperature**2 * soft
    ### END SOLUTION

# %%
distillation_loss = check("4.2", distillation_loss)

# %% [markdown]
# Why $T^2$? Because it "makes up for the softening", gradients shrink like $1/T^2$: so one reads. How well
# do you know it? Take a student that was never trained, and the gradient of KL *alone* with respect to its logits.
#
# {{prediction 4.p1}}

# %%
### BEGIN SOLUTION
p1 = (5, 12)
### END SOLUTION

# %%
p1 = predict("4.p1", p1)

# %% [markdown]
# {{exercise 4.3}}
#
# No need for autograd: this gradient has a short formula. Find it (start from the gradient of a cross-entropy with soft targets,
# and mind the chain rule through $z / T$), and write `soft_gradient`, the gradient of $T^2\, \mathrm{KL}(p_t^T \| p_s^T)$,
# averaged over the $N$ rows, with respect to $z_s$. Your `soften` does most of it.

# %%
def soft_gradient(student_logits, teacher_logits, temperature):
    """(N, K): how the soft half (alpha = 1) changes with each logit of the student."""
    ### BEGIN SOLUTION
    difference = soften(student_logits, temperature) - soften(teacher_logits, temperature)
    return temperature * difference / len(student_logits)
    ### END SOLUTION

# %%
soft_gradient = check("4.3", soft_gradient)

# %%
torch.manual_seed(0)
newborn = predict_logits(build_model("resnet", depth=8, width=8), few)                 # a student that knows nothing yet
temperatures = (1, 2, 4, 8, 16, 32, 64)
scaled = [soft_gradient(newborn, logits, T).norm(dim=1).mean().item() * len(few) for T in temperatures]      # of one image, on the average
alone = [length / T**2 for length, T in zip(scaled, temperatures)]
centred = [z - z.mean(1, keepdim=True) for z in (newborn, logits)]
limit = ((centred[0] - centred[1]) / 10).norm(dim=1).mean().item()
for T, short, length in zip(temperatures, alone, scaled):
    print(f"T = {T:2}: KL alone {short:.5f}, {alone[0] / short:7.1f} times shorter than at T = 1 (T^2 is {T * T:4}); T^2 KL {length:.3f}")
figures.gradient_lengths(temperatures, {"KL": alone, "T² KL": scaled}, limit)
reveal("4.p1", alone[0] / alone[temperatures.index(4)]);

# %% [markdown]
# The law $1/T^2$ is a law for *high* temperatures. Below, the teacher stays sure, the difference $p_s^T - p_t^T$ shrinks slowly,
# and it is the factor $1/T$ of the chain rule that counts: so with $T^2$ the soft half first becomes *stronger* when you turn $T$
# up. For large $T$, with $\exp(z/T) \approx 1 + z/T$ and bars for the mean over the $K$ classes,
#
# $$ T^2 \frac{\partial\, \mathrm{KL}}{\partial z_s} = T\,(p_s^T - p_t^T) \;\to\; \frac1K \big[ (z_s - \bar z_s) - (z_t - \bar z_t) \big] , $$
#
# the student regresses on the teacher's **logits**: matching them is distillation, too, at its hot end (Hinton et al. say so).
# Move the controls (or read the rows). Right: how hard each logit is pushed, up or (hatched) down; the short lines are the limit.
# The student has not learned anything yet.

# %%
look = TemperatureLook(newborn[rows], logits[rows], soften, soft_gradient)
widgets.controls(look, draw_softened, widgets.Slider("image", 0, 4, 1, start=3), widgets.Slider("T", 1.0, 20.0, 0.5, start=4.0),
                 widgets.Switch("times T squared", "KL alone"),
                 static=[(3, 1.0, True), (3, 4.0, True), (3, 20.0, True)], panels=2)

# %% [markdown]
# {{question 4.q1}}

# %%
### BEGIN SOLUTION
q1 = "b"
### END SOLUTION

# %%
q1 = answer("4.q1", q1)

# %% [markdown]
# ## 3 A teacher once
#
# A teacher costs, even one as small as ours. Here is one pass over 20,000 images, forward only, in multiply-accumulates:

# %%
newest = build_model("resnet", depth=8, width=8)
for name, model in {"teacher": teacher, "student": newest}.items():
    print(f"{name}: {20_000 * count_macs(model, (3, 32, 32)).total / 1e9:.0f} billion MACs for one pass over 20,000 images")

# %% [markdown]
# But the teacher does not learn: its answer to an image is the same in each epoch. Ask once, and keep the answers.
#
# {{exercise 4.4}}
#
# Write `cache_logits`. Three things go wrong here in real code: the teacher still is in train mode (dropout is on, and batch norm
# looks at the batch *and learns from it*); a graph for gradients is kept; the rows end up in another order than the images. Leave
# the caller's teacher as it was.

# %%
def cache_logits(teacher, images, batch_size):
    """(N, K): the teacher's logits for images (N, C, H, W), at most batch_size images at a time."""
    ### BEGIN SOLUTION
    teacher = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        return torch.cat([teacher(batch) for batch in images.split(batch_size)])
    ### END SOLUTION

# %%
cache_logits = check("4.4", cache_logits)

# %% [markdown]
# {{question 4.q2}}

# %%
### BEGIN SOLUTION
q2 = "d"
### END SOLUTION

# %%
q2 = answer("4.q2", q2)

# %% [markdown]
# **Apply.** A fair comparison changes one thing: same student, same first weights, same images in the same order, same number of
# steps. The trainings above take minutes; for one of a second we go to `ink_digits`, with `lenet5` for a teacher, a student of
# two convolutions, and **200 labelled images**. The library's `distill` runs the loop. Its loss is a sum of *terms*; yours is one
# of them:

# %%
from compresslab.distillation import TeacherOutputs, Term, distill

class Lesson(Term):
    """Your loss as a term of `distill`: `seen` holds what one step sees."""

    def __init__(self, temperature, alpha):
        super().__init__()
        self.temperature, self.alpha = temperature, alpha

    def forward(self, seen):
        return distillation_loss(seen.student_logits, seen.teacher_logits, seen.y, self.temperature, self.alpha)

def new_student(seed):
    """Two convolutions and a linear layer, freshly drawn."""
    def conv(out_channels, kernel_size):
        return ["conv", {"out_channels": out_channels, "kernel_size": kernel_size, "stride": 2, "padding": kernel_size // 2, "bias": False}]
    torch.manual_seed(seed)
    return from_spec({"input": [1, 28, 28], "layers": [conv(8, 5), ["batch_norm"], ["relu"], conv(16, 3), ["batch_norm"], ["relu"],
                                                       ["max_pool"], ["flatten"], ["linear", {"out_features": 10}]]})

def teach(seed, logits, temperature=4.0, alpha=1.0):
    """A student of this seed, trained on the 200 images with these logits for a teacher."""
    return distill(new_student(seed), TeacherOutputs(logits), images, [(1.0, Lesson(temperature, alpha))], epochs=2 if quick() else 20,
                   lr=0.005, batch_size=32, seed=seed, progress=False)

ink = load_data("ink_digits")
images, referees = ink.train.take(200), ink.validation.take(500 if quick() else 2000)
lenet = load_baseline("lenet5")
wisdom = cache_logits(lenet, images.x(), 100)
print(f"the teacher is {soften(wisdom, 1.0).gather(1, images.y[:, None]).mean():.2%} sure of these labels at T = 1, "
      f"{soften(wisdom, 4.0).gather(1, images.y[:, None]).mean():.1%} at T = 4")
print(f"teacher {sum(p.numel() for p in lenet.parameters()):,} parameters, {accuracy(lenet, referees):.1%} right; "
      f"student {sum(p.numel() for p in new_student(0).parameters()):,} parameters")

# %% [markdown]
# Trained on the 200 labels ($\alpha = 0$) the student gets more than every second image right. The teacher's answers to the same
# 200 images contain no new image, and not one label that differs.
#
# {{prediction 4.p2}}

# %%
### BEGIN SOLUTION
p2 = (3, 12)
### END SOLUTION

# %%
p2 = predict("4.p2", p2)

# %%
seeds = (0, 1) if quick() else (0, 1, 2)
right = {"labels": [correct_answers(teach(seed, wisdom, alpha=0.0), referees) for seed in seeds],
         "soft targets": [correct_answers(teach(seed, wisdom, alpha=1.0), referees) for seed in seeds]}
for seed, (plain, soft) in enumerate(zip(right["labels"], right["soft targets"])):
    print(f"seed {seed}: labels {plain.double().mean():.1%}, soft targets {soft.double().mean():.1%}, {paired_difference(soft, plain)}")

def as_rows(right):
    """{method: [correct answers of each seed]} as rows for a figure."""
    return [{"method": method, "seed": seed, "accuracy": correct.double().mean().item()}
            for method, runs in right.items() for seed, correct in enumerate(runs)]

gain, low, high, n = figures.gains(as_rows(right))["soft targets"]
print(f"mean gain {gain:.1f} points; over {n} seeds the interval is {low:.1f} to {high:.1f}")
reveal("4.p2", gain);

# %% [markdown]
# Two intervals, two questions. Tango's interval, from chapter 00, asks about *these two networks*: would other images tell them
# apart? The last one asks about the *method*: would other students gain as much? A paper's table with one run for each row
# answers neither.
#
# ## 4 Is it dark knowledge?
#
# The student gained, and the soft targets contain what the wrong classes look like. It does not follow that this is why. Softened
# targets differ from labels in *three* ways: they are not sure (no logit is driven to infinity), they are less sure for some
# images than for others, and they know which wrong class is near. **Look** at the third, class by class, with orange dots for the
# nearest wrong class:

# %%
def resemblance(probabilities, labels):
    """(K, K): the mean probability of each class, for the images of each label."""
    return torch.stack([probabilities[labels == k].mean(0) for k in range(10)])

p = soften(logits, 4.0)
figures.who_resembles_whom({"street_digits, T = 4": resemblance(p, few.y)});

# %% [markdown]
# It is sensible: nearest means a shape that shares strokes. A **control** takes one of the three away and keeps the rest. Then
# the comparison says what the gain is made of.
#
# {{exercise 4.5}}
#
# Write `shuffle_non_targets`: in each row, the label's probability stays where it is and the other $K - 1$ are permuted at
# random, with an order of its own for each row. What a wrong class looks like is gone; how sure the teacher was, and every
# number, is still there.

# %%
def shuffle_non_targets(probabilities, labels, generator):
    """(N, K): each row with its wrong classes in random order, drawn from `generator`; the input is left alone."""
    ### BEGIN SOLUTION
    n, classes = probabilities.shape
    wrong = F.one_hot(labels, classes) == 0
    order = torch.rand(n, classes - 1, generator=generator).argsort(dim=1)
    shuffled = probabilities.clone()
    shuffled[wrong] = probabilities[wrong].view(n, classes - 1).gather(1, order).flatten()
    return shuffled
    ### END SOLUTION

# %%
shuffle_non_targets = check("4.5", shuffle_non_targets)

# %%
shuffled = shuffle_non_targets(p, few.y, torch.Generator().manual_seed(0))
figure, axes = plt.subplots(1, 2, figsize=(12, 2.4))
plots.tensor(axes[0], p[rows[1:4]].round(decimals=2), f"softened, T = 4; labels {few.y[rows[1:4]].tolist()}")
plots.tensor(axes[1], shuffled[rows[1:4]].round(decimals=2), "shuffled")
figures.who_resembles_whom({"the teacher": resemblance(p, few.y), "shuffled": resemblance(shuffled, few.y)});

# %% [markdown]
# {{exercise 4.6}}
#
# The second control needs no teacher at all. **Label smoothing** (Szegedy et al., CVPR 2016) mixes the label with the uniform
# distribution $u_k = 1/K$:
#
# $$ q = (1 - s)\, y + s\, u $$
#
# Write `smooth_labels`; a smoothing outside $[0, 1]$ is a `ValueError`.

# %%
def smooth_labels(labels, classes, smoothing):
    """(N, classes) probabilities, floats; labels (N,), smoothing a fraction."""
    ### BEGIN SOLUTION
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
    hard = F.one_hot(labels, classes).float()
    return (1 - smoothing) * hard + smoothing / classes
    ### END SOLUTION

# %%
smooth_labels = check("4.6", smooth_labels)

# %% [markdown]
# It *is* distillation, from a teacher that knows nothing: put zeros for the teacher's logits and $T = 1$ into your own loss. The
# loss differs by a constant, the gradients do not:

# %%
z = newborn[:8].clone().requires_grad_()
smoothed = F.cross_entropy(z, smooth_labels(few.y[:8], 10, 0.1))
taught = distillation_loss(z, torch.zeros(8, 10), few.y[:8], temperature=1.0, alpha=0.1)
one, other = (torch.autograd.grad(loss, z)[0] for loss in (smoothed, taught))
print(f"losses {smoothed:.4f} and {taught:.4f}, largest difference of the gradients {(one - other).abs().max():.1e}")

# %% [markdown]
# **Measure.** A ladder, on the same 200 images, from the same first weights; each rung gives the student one thing more:
#
# 1. *label smoothing*, $s = 0.1$, the usual strength;
# 2. *one softness for all*: smoothed labels again, but imitated at $T = 4$, with the teacher's *average* probability for the label;
# 3. *shuffled non-targets*: besides, how sure the teacher is of *each* image;
# 4. *soft targets*: besides, which wrong class is near.
#
# Probabilities $p$ at temperature $T$ become logits again as $T \log p$.

# %%
def shuffled_wisdom(seed):
    """Logits whose softened probabilities are the teacher's, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    return 4.0 * shuffle_non_targets(soften(wisdom, 4.0), images.y, generator).log()

average = soften(wisdom, 4.0).gather(1, images.y[:, None]).mean().item()                    # of the label, at T = 4
same_for_all = 4.0 * smooth_labels(images.y, 10, (1 - average) * 10 / 9).log()
right["label smoothing"] = [correct_answers(teach(seed, torch.zeros_like(wisdom), temperature=1.0, alpha=0.1), referees) for seed in seeds]
right["one softness for all"] = [correct_answers(teach(seed, same_for_all), referees) for seed in seeds]
right["shuffled non-targets"] = [correct_answers(teach(seed, shuffled_wisdom(seed)), referees) for seed in seeds]
figures.transfer(as_rows(right), "200 images of ink_digits")
for method, (gain, low, high, n) in figures.gains(as_rows(right)).items():
    print(f"{method:21} {gain:+5.1f} points over labels [{low:+.1f}, {high:+.1f}], {n} seeds")
rest = figures.gains(as_rows(right), base="shuffled non-targets")["soft targets"]
print(f"soft targets over shuffled ones: {rest[0]:+.1f} points [{rest[1]:+.1f}, {rest[2]:+.1f}]")

# %% [markdown]
# Three seeds make wide intervals; only what is the same in every seed deserves belief here.
#
# {{question 4.q3}}

# %%
### BEGIN SOLUTION
q3 = "d"
### END SOLUTION

# %%
q3 = answer("4.q3", q3)

# %% [markdown]
# Does it hold elsewhere? The long runs on `street_digits`, 4,000 images, and one more control: a **wrong teacher**, whose classes
# were renamed, beside the labels.

# %%
controls = ("labels", "soft targets", "label smoothing", "shuffled non-targets", "wrong teacher")
figures.transfer([row for row in transfers if row["method"] in controls], "4,000 images of street_digits")
for method, (gain, low, high, n) in figures.gains(row for row in transfers if row["method"] in controls).items():
    print(f"{method:21} {gain:+5.1f} points over labels [{low:+.1f}, {high:+.1f}], {n} seeds")

# %% [markdown]
# Not the same mixture: here plain label smoothing, which gave nothing on `ink_digits`, is worth a good part of the gain. That is
# why it belongs into every table. (The library has these controls, and a few more, in `compresslab.distillation.controls`.)
# Whoever claims that knowledge was transferred owes such a table.

# %% [markdown]
# ## 5 Cover or choose
#
# $\mathrm{KL}(p \| q)$ is not symmetric, and so far the teacher always came first. That is **forward** KL; **reverse** KL asks the student:
#
# $$ \mathrm{KL}(p_t \| p_s) = \sum_i p_{t,i} \log \frac{p_{t,i}}{p_{s,i}}, \qquad \mathrm{KL}(p_s \| p_t) = \sum_i p_{s,i} \log \frac{p_{s,i}}{p_{t,i}} . $$
#
# Both are 0 only where the two agree. A small student cannot always agree. Then the weights in front of the logarithms decide who pays, and infinity is
# part of the answer: outcomes with $p = 0$ contribute nothing ($0 \log 0 = 0$), but $p > 0$ beside $q = 0$ costs everything.
#
# {{exercise 4.7}}
#
# Write `kl_both_ways`: both divergences of one teacher from many students, one student in each row. Add no small number against $\log 0$: the zeros are the point.

# %%
def kl_both_ways(teacher, students):
    """(forward, reverse): two (M,) tensors; teacher holds (K,) probabilities, students (M, K)."""
    ### BEGIN SOLUTION
    def kl(p, q):
        return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)

    return kl(teacher, students), kl(students, teacher)
    ### END SOLUTION

# %%
kl_both_ways = check("4.7", kl_both_ways)

# %% [markdown]
# **See.** A teacher with two peaks on a line of outcomes. Its student can only have one: a bell with a centre and a width. Every centre and width on a fine grid is
# tried. The **valley** is what lies within 1 of the middle.
#
# {{prediction 4.p3}}

# %%
### BEGIN SOLUTION
p3 = (5, 35)
### END SOLUTION

# %%
p3 = predict("4.p3", p3)

# %%
from compresslab.course.chapter04 import figures_features as drawn

x = torch.linspace(-6, 6, 121)

def bell(centre, width):
    """A bell-shaped distribution over the outcomes x."""
    heights = torch.exp(-((x - centre) / width) ** 2 / 2)
    return heights / heights.sum(-1, keepdim=True)

two_peaks = 0.6 * bell(-2.5, 0.7) + 0.4 * bell(2.5, 0.7)
centres, widths = torch.meshgrid(torch.linspace(-5, 5, 101), torch.linspace(0.3, 4, 75), indexing="ij")
students = bell(centres.reshape(-1, 1), widths.reshape(-1, 1))
forward, reverse = kl_both_ways(two_peaks, students)
chosen = {"forward: KL(teacher || student)": students[forward.argmin()], "reverse: KL(student || teacher)": students[reverse.argmin()]}
valley = x.abs() < 1.05
for name, p in {"teacher": two_peaks, **chosen}.items():
    mean = (p * x).sum()
    print(f"{name:32} mean {mean:+.2f}, standard deviation {(p * (x - mean) ** 2).sum().sqrt():.2f}, {p[valley].sum():.1%} in the valley")
drawn.two_directions(x, two_peaks, chosen)
reveal("4.p3", 100 * chosen["forward: KL(teacher || student)"][valley].sum().item());

# %% [markdown]
# Forward KL weighs with the *teacher's* probabilities: whatever the teacher says must not be impossible for the student, so it **covers**. (Among bells it matches
# the mean and the standard deviation.) Reverse KL weighs with the *student's* own: it may say nothing that the teacher would not say, and it **chooses** the
# larger peak. What would you rather have from a small model that writes text: everything that could be said, or something that is? For language models that is an
# open dispute (MiniLLM, Gu et al., ICLR 2024, argues for reverse); chapter 09 comes back to it.
#
# {{question 4.q4}}

# %%
### BEGIN SOLUTION
q4 = "b"
### END SOLUTION

# %%
q4 = answer("4.q4", q4)

# %% [markdown]
# ## 6 Inside the teacher
#
# Ten logits for an image are not all that a teacher knows: a layer in the middle says thousands of numbers. **Feature distillation** adds a term to the loss that compares
# layers. Two networks never agree in their numbers, though: other widths, other scales, channels in another order. So every method first asks *what* of a layer should
# be the same. Three answers: where it looks, what can be read from it, and how images lie to each other.
#
# `watch` catches what layers say. We compare `stage2` and `stage3` of the ResNet students with `blocks.2` and `blocks.5` of the teacher, which have the same height and width.
# `pupil` is a student like ours, trained on all labels and shipped with the course; `newborn_net` never learned anything.

# %%
from compresslab.core.calibrate import watch
from compresslab.distillation import AttentionTransfer, Hint, Labels, RelationalDistance, channel_regressor, teacher_outputs

torch.manual_seed(0)
newborn_net = build_model("resnet", depth=8, width=8).eval()
pupil = load_baseline("resnet8_narrow").eval()
x = few.x(slice(200))

def layers_of(model, names):
    """{name: output}: what these layers say of the images x."""
    with torch.no_grad(), watch(model, names) as outputs:
        model(x)
    return dict(outputs)

says = {"teacher": layers_of(teacher, ["blocks.2", "blocks.5"]), "newborn": layers_of(newborn_net, ["stage2", "stage3"]),
        "pupil": layers_of(pupil, ["stage2", "stage3"])}
for who, layers in says.items():
    print(f"{who:8}", {name: tuple(output.shape) for name, output in layers.items()})

# %% [markdown]
# ### Where it looks
#
# Channels differ, positions do not. **Attention transfer** (Zagoruyko and Komodakis, ICLR 2017) adds up the squares of all channels: one picture for each image that says *where* a
# layer $A$ responds. As a vector of length 1 it has neither scale nor channels:
#
# $$ Q = \mathrm{vec} \sum_c A_c^2, \qquad L_{AT} = \left\| \frac{Q_S}{\|Q_S\|_2} - \frac{Q_T}{\|Q_T\|_2} \right\|_2 $$

# %%
def picture(features):
    return features.pow(2).sum(1)

drawn.attention(few.images[:7], {"teacher\nblocks.2": picture(says["teacher"]["blocks.2"])[:7], "pupil\nstage2": picture(says["pupil"]["stage2"])[:7],
                                 "newborn\nstage2": picture(says["newborn"]["stage2"])[:7]});

# %% [markdown]
# {{exercise 4.8}}
#
# Write `attention_loss`, averaged over the images. The teacher is finished: no gradient may reach it.

# %%
def attention_loss(student, teacher):
    """A scalar; student is (B, C_student, H, W), teacher (B, C_teacher, H, W), of the same images."""
    ### BEGIN SOLUTION
    def attention(features):
        return F.normalize(features.pow(2).sum(1).flatten(1), dim=1)

    return (attention(student) - attention(teacher.detach())).norm(dim=1).mean()
    ### END SOLUTION

# %%
attention_loss = check("4.8", attention_loss)

# %%
pairs = (("stage2", "blocks.2"), ("stage3", "blocks.5"))
for who in ("newborn", "pupil"):
    found = [attention_loss(says[who][mine], says["teacher"][its]).item() for mine, its in pairs]
    print(f"{who:8} distance of the attention: " + ", ".join(f"{mine} {value:.3f}" for (mine, _), value in zip(pairs, found)))
turned = says["teacher"]["blocks.5"].flip(1) * 100
print(f"the teacher with its channels reversed, a hundred times as large: {attention_loss(turned, says['teacher']['blocks.5']):.3f}")

# %% [markdown]
# The pupil was never told where to look. Learning the same task has brought it part of the way; the term pulls it on.
#
# ### What can be read from it
#
# **Hints** (FitNets, Romero et al., ICLR 2015) ask for more: the teacher's very numbers $u_h$. But the student's layer $v_g$ has 32 channels where the teacher's has 64. So an
# interpreter stands between them, the **regressor** $r$, here a 1x1 convolution:
#
# $$ L_{HT} = \tfrac12 \big\| u_h(x) - r\big(v_g(x)\big) \big\|^2 $$
#
# It is trained with the student and thrown away afterwards. How good can it be, for a student as it is? A 1x1 convolution is one linear map for all positions, so
# that is a least-squares problem.
#
# {{exercise 4.9}}
#
# Write `best_regressor`: the 1x1 convolution, with bias, that has the least squared error. Every position of every image is a row. Solve with
# `torch.linalg.lstsq(X, Y, driver="gelsd")`; without `driver` PyTorch picks a method that goes wrong, without a word, when a channel is dead (all zero).

# %%
def best_regressor(student, teacher):
    """nn.Conv2d(C_student, C_teacher, 1) from the student's maps (B, C_student, H, W) to the teacher's (B, C_teacher, H, W)."""
    ### BEGIN SOLUTION
    rows = student.detach().movedim(1, -1).flatten(0, 2)
    wanted = teacher.detach().movedim(1, -1).flatten(0, 2)
    found = torch.linalg.lstsq(F.pad(rows, (0, 1), value=1.0), wanted, driver="gelsd").solution
    regressor = nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    regressor.weight.data = found[:-1].T[:, :, None, None].clone()
    regressor.bias.data = found[-1].clone()
    return regressor
    ### END SOLUTION

# %%
best_regressor = check("4.9", best_regressor)

# %% [markdown]
# **Predict.** Fit on half of the images, judge on the other half. 100 % would be a perfect reading; 0 % is what the mean of each channel gives.
#
# {{prediction 4.p4}}

# %%
### BEGIN SOLUTION
p4 = (20, 60)
### END SOLUTION

# %%
p4 = predict("4.p4", p4)

# %%
half = len(x) // 2

def share_read(mine, its):
    """The share of the variance of the teacher's maps that the best regressor explains, on images that it was not fitted to."""
    regressor = best_regressor(mine[:half], its[:half])
    with torch.no_grad():
        missed = (regressor(mine[half:]) - its[half:]).pow(2).sum()
    return 1 - (missed / (its[half:] - its[half:].mean((0, 2, 3), keepdim=True)).pow(2).sum()).item()

readable = {who: [100 * share_read(says[who][mine], says["teacher"][its]) for mine, its in pairs] for who in ("newborn", "pupil")}
drawn.shares([f"{mine} → {its}" for mine, its in pairs], readable, "variance read (%)")
reveal("4.p4", readable["pupil"][1]);

# %% [markdown]
# Two networks that share nothing but the task share part of their features; that part can be read. A hint asks for the rest.
#
# {{question 4.q5}}

# %%
### BEGIN SOLUTION
q5 = "d"
### END SOLUTION

# %%
q5 = answer("4.q5", q5)

# %% [markdown]
# ### How images lie to each other
#
# Must a student copy numbers at all? **Relational distillation** (Park et al., CVPR 2019) looks at the *cloud* that a batch of images makes, with one vector $t_i$ for
# each image, and asks for its shape: the distance of each pair, in units of the mean distance.
#
# $$ \psi(t_i, t_j) = \frac{1}{\mu} \| t_i - t_j \|, \qquad \mu = \text{mean of } \|t_i - t_j\| \text{ over all pairs}, \qquad
#    L_D = \text{mean of } l\big(\psi(t_i, t_j) - \psi(s_i, s_j)\big) $$
#
# $l$ is Huber's loss, $d^2/2$ up to $|d| = 1$ and $|d| - 1/2$ beyond (`F.smooth_l1_loss`), so that one odd pair cannot rule the batch.
#
# {{exercise 4.10}}
#
# Write `relational_loss`. Each pair $i < j$ counts once; flatten what has more than two dimensions. Two images may have the same vector: mind what the slope of a square
# root is at 0.

# %%
def relational_loss(student, teacher):
    """A scalar; student is (B, ...), teacher (B, ...), one vector for each of the same B images."""
    ### BEGIN SOLUTION
    def distances(embedding):
        pairs = F.pdist(embedding.flatten(1))
        return pairs / pairs.mean()

    return F.smooth_l1_loss(distances(student), distances(teacher.detach()))
    ### END SOLUTION

# %%
relational_loss = check("4.10", relational_loss)

# %%
cloud = {who: layers["blocks.5" if who == "teacher" else "stage3"].mean((2, 3)) for who, layers in says.items()}
for who in ("newborn", "pupil"):
    print(f"{who:8} {tuple(cloud[who].shape)}: relational loss {relational_loss(cloud[who], cloud['teacher']):.4f}")
turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q
print(f"the teacher's cloud, turned, three times as large and moved: {relational_loss(3 * cloud['teacher'] @ turn + 5, cloud['teacher']):.1e}")

# %% [markdown]
# **Apply.** In the library each of these is a `Term` that names its layers; `distill` hangs hooks on them, adds the terms, and takes the hooks away. Three terms and the labels at
# once, for one short pass. What is left of the regressor in the student?

# %%
from compresslab.core.measure import file_size

terms = [(1.0, Labels()), (1.0, Hint("stage3", "blocks.5", channel_regressor(32, 64))), (1.0, AttentionTransfer(pairs)),
         (25.0, RelationalDistance("stage3", "blocks.5"))]
lesson = few.take(100 if quick() else 200)
answers = teacher_outputs(teacher, lesson, ["blocks.2", "blocks.5"])
guided = distill(newborn_net, answers, lesson, terms, epochs=1, lr=0.01, batch_size=50, progress=False)
print(f"while it trained: {sum(p.numel() for p in guided.parameters()) + sum(p.numel() for p in terms[1][1].parameters()):,} parameters")
print(f"afterwards:       {sum(p.numel() for p in guided.parameters()):,} parameters, {file_size(guided):,} bytes; before: {file_size(newborn_net):,} bytes")
print("hooks left:", sum(len(module._forward_hooks) for module in guided.modules()))

# %% [markdown]
# Whether any of this *helps* is another matter. Below are 25 epochs on 4,000 images; each feature method has its labels beside it and the weight that its authors suggest, rescaled.
# Read the intervals.

# %%
features = ("labels", "soft targets", "hint", "attention", "flow", "relations")
figures.transfer([row for row in transfers if row["method"] in features], "what was transferred")
for method, (gain, low, high, n) in figures.gains(row for row in transfers if row["method"] in features).items():
    print(f"{method:21} {gain:+5.1f} points over labels [{low:+.1f}, {high:+.1f}], {n} seeds")

# %% [markdown]
# *Flow* (Yim et al., CVPR 2017) compares the inner products between two layers' channels, $G_{ij} = \frac{1}{hw} \sum_{s,t} F^1_{st,i} F^2_{st,j}$: not what a layer says but what
# is done between two. *Contrastive* (CRD, Tian et al., ICLR 2020) asks whether one can tell which teacher's vector belongs to which student's; it is
# in the library, not in the figure.
#
# ## 7 Two messages in one
#
# Back to the logits. In plain soft targets two messages are mixed: *is it the label?* and *if not, what else?* **Decoupled** distillation (DKD, Zhao et al., CVPR 2022)
# takes them apart. With $p_t$ for the probability of the label, $b = [p_t, 1 - p_t]$, and $\hat p$ for the softmax of the other $K - 1$ logits alone (all at temperature $T$):
#
# $$ \mathrm{TCKD} = \mathrm{KL}(b^{teacher} \| b^{student}), \qquad \mathrm{NCKD} = \mathrm{KL}(\hat p^{\,teacher} \| \hat p^{\,student}), \qquad
#    \mathrm{KD} = \mathrm{TCKD} + (1 - p_t^{teacher})\, \mathrm{NCKD} $$
#
# for *target* and *non-target class*. The identity is exact, image by image.
#
# {{exercise 4.11}}
#
# Write `decoupled_terms`: one number for each image and term, without $T^2$. Our teacher is so sure that $1 - p_t$ rounds to 0 in 32 bits: work with logits and `logsumexp`.

# %%
def decoupled_terms(student_logits, teacher_logits, labels, temperature):
    """(TCKD, NCKD): two (N,) tensors; logits are (N, K), labels (N,)."""
    ### BEGIN SOLUTION
    def kl(log_p, log_q):
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def parts(logits):
        z = logits / temperature
        target = z.gather(1, labels[:, None])
        others = z[F.one_hot(labels, z.shape[1]) == 0].view(len(z), -1)
        binary = torch.cat([target, others.logsumexp(1, keepdim=True)], 1)
        return binary.log_softmax(1), others.log_softmax(1)

    (binary_s, others_s), (binary_t, others_t) = parts(student_logits), parts(teacher_logits)
    return kl(binary_t, binary_s), kl(others_t, others_s)
    ### END SOLUTION

# %%
decoupled_terms = check("4.11", decoupled_terms)

# %% [markdown]
# The factor $1 - p_t$ is the teacher's doubt. An image about which it has none contributes nothing to the second message, whatever it may know.
#
# {{prediction 4.p5}}

# %%
### BEGIN SOLUTION
p5 = (1, 20)
### END SOLUTION

# %%
p5 = predict("4.p5", p5)

# %%
pupils = predict_logits(pupil, few)
quarters, message = ["surest quarter", "second", "third", "least sure"], {}
for T in (1.0, 4.0):
    doubt = 1 - soften(logits, T).gather(1, few.y[:, None])[:, 0]
    order = doubt.argsort().chunk(4)
    tckd, nckd = decoupled_terms(pupils, logits, few.y, T)
    plain = doubt * nckd
    message[f"(1 - p) NCKD, T = {T:g}"] = [100 * (plain[rows].sum() / plain.sum()).item() for rows in order]
    print(f"T = {T:g}: of the whole loss, {(plain.sum() / (tckd + plain).sum()):.0%} is about the other classes; mean doubt {doubt.mean():.3f}")
    if T == 1.0:
        message_of_sure = sum(message["(1 - p) NCKD, T = 1"][:2])
message["NCKD alone, T = 4"] = [100 * (nckd[rows].sum() / nckd.sum()).item() for rows in order]
drawn.shares(quarters, message, "share of the message (%)")
reveal("4.p5", message_of_sure);

# %% [markdown]
# At $T = 1$ nearly all of it comes from the few images that the teacher doubts. A temperature of 4 spreads it, since it makes the teacher less sure of everything; DKD takes the
# factor away altogether, $L = T^2 (\alpha\, \mathrm{TCKD} + \beta\, \mathrm{NCKD})$ with a constant $\beta$.
#
# {{question 4.q6}}

# %%
### BEGIN SOLUTION
q6 = "a"
### END SOLUTION

# %%
q6 = answer("4.q6", q6)

# %%
outputs = ("labels", "soft targets", "decoupled")
for method, (gain, low, high, n) in figures.gains(row for row in transfers if row["method"] in outputs).items():
    print(f"{method:21} {gain:+5.1f} points over labels [{low:+.1f}, {high:+.1f}], {n} seeds")

# %% [markdown]
# ## 8 Peers and generations
#
# Must a teacher know more? In **deep mutual learning** (Zhang et al., CVPR 2018) nobody does: $K$ networks learn at the same time, each from the labels and from all the others,
#
# $$ L_i = \mathrm{CE}(y, p_i) + \frac{1}{K - 1} \sum_{j \ne i} \mathrm{KL}(p_j \| p_i) . $$
#
# {{exercise 4.12}}
#
# Write `mutual_losses`. To network $i$ the others are targets: none of its gradient may reach them. Divergences are averaged over the batch, $T = 1$.

# %%
def mutual_losses(logits, labels):
    """A list with one scalar for each network; logits is a list of K tensors (N, classes)."""
    ### BEGIN SOLUTION
    losses = []
    for i, mine in enumerate(logits):
        others = [other.detach().log_softmax(1) for j, other in enumerate(logits) if j != i]
        apart = [F.kl_div(mine.log_softmax(1), other, log_target=True, reduction="batchmean") for other in others]
        losses.append(F.cross_entropy(mine, labels) + sum(apart) / len(others))
    return losses
    ### END SOLUTION

# %%
mutual_losses = check("4.12", mutual_losses)

# %% [markdown]
# {{question 4.q7}}

# %%
### BEGIN SOLUTION
q7 = "a"
### END SOLUTION

# %%
q7 = answer("4.q7", q7)

# %% [markdown]
# **Apply.** Two of the small `ink_digits` students of section 3 teach each other, on the same 200 labels, from the same first weights as those that were trained alone:

# %%
def grow_up_together(peers, split, epochs):
    """Peers trained by your losses, one optimizer each."""
    optimizers = [torch.optim.AdamW(peer.train().parameters(), 0.005) for peer in peers]
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for x_batch, y_batch in split.batches(32, shuffle=True, generator=generator):
            losses = mutual_losses([peer(x_batch) for peer in peers], y_batch)
            for optimizer, loss in zip(optimizers, losses):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return [peer.eval() for peer in peers]

peers = grow_up_together([new_student(0), new_student(1)], images, epochs=2 if quick() else 20)
for seed, peer in enumerate(peers):
    print(f"seed {seed}: alone {right['labels'][seed].double().mean():.1%}, with a peer {accuracy(peer, referees):.1%}, "
          f"with a teacher {right['soft targets'][seed].double().mean():.1%}")

# %% [markdown]
# Two seeds are an anecdote, and so say nothing about tenths of a point. Three relatives are in the library: `train_mutually` (this, with one schedule for all), `distill_generations`
# (**born-again** networks, Furlanello et al., ICML 2018: a student like its teacher, then a student of that student) and `distill_through` (a **teacher assistant** of middle size
# between a large teacher and a small student, Mirzadeh et al., AAAI 2020).
#
# ## 9 When it is worth nothing
#
# The gain at the top of this chapter has a context: 4,000 images and 25 epochs. What if there is less time? What if the student sees everything?

# %%
print(drawn.regime_table(evidence.values()))
drawn.regimes(evidence.values());

# %% [markdown]
# Stopped early, plain distillation **loses**, in every seed: at $T = 4$ the targets are soft, what tells the classes apart are small differences, and fitting them takes
# longer than fitting a label. It pays when the student has gone through its few images so often that labels have nothing left to say. With all 20,000 images they still
# have: they take the student as far as its teacher, who then has nothing to add. (Two seeds can say that the gain is small, not that it is zero: look at their interval.)
# A paper that shows one of these three rows has made a choice.
#
# The **optimizer** belongs to the context, too. The small student of section 3, this time without batch norm (which hides what follows, because it rescales every layer), with plain
# SGD and momentum and with AdamW:

# %%
def bare_student(seed):
    """The student of section 3 without its batch norms."""
    layers = [layer for layer in new_student(seed).spec["layers"] if layer != ["batch_norm"]]
    torch.manual_seed(seed)
    return from_spec({"input": [1, 28, 28], "layers": layers})

def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr, momentum=0.9)

def adamw(parameters, lr):
    return torch.optim.AdamW(parameters, lr, weight_decay=0.01)

print(f"{'':22}{'labels':>9}{'T² KL, T = 4':>14}")
for optimizer, lr in ((sgd, 0.01), (sgd, 0.05), (adamw, 0.005), (adamw, 0.02)):
    shares = []
    for alpha in (0.0, 1.0):
        try:
            learner = distill(bare_student(0), TeacherOutputs(wisdom), images, [(1.0, Lesson(4.0, alpha))], epochs=2 if quick() else 20, lr=lr,
                              batch_size=32, optimizer=optimizer, progress=False)
            shares.append(f"{accuracy(learner, referees):.1%}")
        except ValueError:                                   # distill stops when the loss is no number any more
            shares.append("diverged")
    print(f"{optimizer.__name__:6} at rate {lr:<8g}{shares[0]:>9}{shares[1]:>14}")
for name, alpha in {"labels": 0.0, "T² KL, T = 4": 1.0}.items():
    learner = bare_student(0)
    distillation_loss(learner(images.x()), wisdom, images.y, 4.0, alpha).backward()
    print(f"{name:14} length of the gradient at the start: {torch.cat([p.grad.flatten() for p in learner.parameters()]).norm():.2f}")

# %% [markdown]
# At the rate that is best for labels, SGD with the factor $T^2$ throws the student so far that it never comes back: one answer for all images. At a fifth of that rate it is the better student.
#
# {{question 4.q8}}

# %%
### BEGIN SOLUTION
q8 = "b"
### END SOLUTION

# %%
q8 = answer("4.q8", q8)

# %% [markdown]
# **The published record.** All methods of this chapter were published because they beat plain soft targets somewhere. Tian et al. (ICLR 2020) ran them again under one protocol
# and printed the tables (RepDistiller; DKD: mdistiller, same teachers).
#
# {{prediction 4.p6}}

# %%
### BEGIN SOLUTION
p6 = (1, 4)
### END SOLUTION

# %%
p6 = predict("4.p6", p6)

# %%
published = {"soft targets (2015)": (70.66, 73.33), "FitNets (2015)": (69.21, None), "AT (2017)": (70.55, 73.44), "FSP (2017)": (69.95, None),
             "SP (2019)": (69.67, None), "RKD (2019)": (69.61, 71.90), "CRD (2020)": (71.16, 75.51), "DKD (2022)": (71.97, 76.32)}
print(drawn.published_table(published, ("resnet56 → resnet20", "resnet32x4 → resnet8x4"), teachers=(72.34, 79.42), alone=(69.06, 72.50)))
plain, *later = (values[0] for values in published.values())
reveal("4.p6", sum(value > plain for value in later));

# %% [markdown]
# *CIFAR-100, accuracy in %, in brackets the gain over the student alone; "-": not quoted here.* Five of seven lose to the method from 2015 that they set out to improve, in the first column; and
# in the second, one of them loses to a student *without any teacher*. Each had its own paper in which it won: with its own baselines, schedules and students.
#
# {{question 4.q9}}

# %%
### BEGIN SOLUTION
q9 = "c"
### END SOLUTION

# %%
q9 = answer("4.q9", q9)

# %% [markdown]
# ## 10 A loop to debug
#
# {{exercise 4.13}}
#
# A colleague starts a new student. `batches` is a list of pairs (images, labels), `alpha` the weight of the soft targets. The loss falls like a stone, and they are pleased.

# %%
def buggy_distill(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """(a copy of the student, trained on labels and soft targets; the loss of every step)."""
    student, losses = copy.deepcopy(student).train(), []
    teacher.train()                                                         # we need its gradients
    optimizer = torch.optim.AdamW([*student.parameters(), *teacher.parameters()], lr)
    for x, y in batches:
        student_logits = student(x)
        wanted = (teacher(x) / temperature).softmax(1)
        soft = F.kl_div((student_logits / temperature).log_softmax(1), wanted, reduction="batchmean")
        hard = F.cross_entropy(student_logits.softmax(1), y)                # probabilities against labels
        loss = alpha * soft + (1 - alpha) * hard
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return student.eval(), losses

batches = list(few.batches(25))[:4 if quick() else 10]
victim = copy.deepcopy(teacher).train()                                     # as its own training left it
_, pleased = buggy_distill(newborn_net, victim, batches)
print(f"loss {pleased[0]:.2f} in the first step, {pleased[-1]:.2f} in the last")

# %% [markdown]
# Four bugs. Two spoil what the student is told, two spoil the loss. Find them, and write `distill_student` without them. Both networks that come in must go out as they were, their modes
# included; the student that comes out is in eval mode. The reported loss is that of section 2.

# %%
def distill_student(student, teacher, batches, temperature=4.0, alpha=0.9, lr=0.01):
    """As above, repaired."""
    ### BEGIN SOLUTION
    student, teacher, losses = copy.deepcopy(student).train(), copy.deepcopy(teacher).eval(), []
    optimizer = torch.optim.AdamW(student.parameters(), lr)
    for x, y in batches:
        student_logits = student(x)
        with torch.no_grad():
            wanted = (teacher(x) / temperature).softmax(1)
        soft = F.kl_div((student_logits / temperature).log_softmax(1), wanted, reduction="batchmean")
        hard = F.cross_entropy(student_logits, y)
        loss = alpha * temperature**2 * soft + (1 - alpha) * hard
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return student.eval(), losses
    ### END SOLUTION

# %%
distill_student = check("4.13", distill_student)

# %%
_, honest = distill_student(newborn_net, teacher, batches)
some = judges.take(200)
print(f"the teacher: {accuracy(teacher, some):.1%} right before, {accuracy(victim, some):.1%} after {len(batches)} steps of the buggy loop")
drawn.losses({"buggy": [100 * loss / pleased[0] for loss in pleased], "repaired": [100 * loss / honest[0] for loss in honest]});

# %% [markdown]
# After a few steps no student knows anything yet. But one of the two loops has lost its teacher: it learned from its student, and from the statistics of small batches. Where both may move, agreeing
# is easy, and that is what the falling loss says. The honest loss has hardly moved: a few steps are few.
#
# ## 11 Your turn: a pile without labels
#
# {{exercise 4.14}}
#
# Labels cost money, images do not. You have the 200 labelled images of section 3, its teacher, `lenet`, and 6,000 images that nobody labelled. Make a file of at most **12,000 bytes**
# with at least **95 %** on 4,000 fresh images. The student of section 3 is a little too large for that, and 200 labels did not carry it far. Design a smaller one (`from_spec`), and think
# what soft targets need, and what they do not need. `distill` takes the terms from `compresslab.distillation`. Choose on `referees`. Set `my_file` to the path.

# %%
from dataclasses import replace

from compresslab.core import save
from compresslab.course.budget import submission_path
from compresslab.distillation import SoftTargets

pile = ink.train.take(1500 if quick() else 6000)
pile = replace(pile, labels=torch.zeros(len(pile), dtype=torch.int64))           # the labels are gone
print(f"{len(pile):,} images, their labels: {pile.y.unique().tolist()}; the student of section 3 takes {file_size(new_student(0)):,} bytes")

### BEGIN SOLUTION
def conv(out_channels, kernel_size):
    return ["conv", {"out_channels": out_channels, "kernel_size": kernel_size, "stride": 2, "padding": kernel_size // 2, "bias": False}]

torch.manual_seed(0)
student = from_spec({"input": [1, 28, 28], "layers": [conv(8, 5), ["batch_norm"], ["relu"], conv(12, 3), ["batch_norm"], ["relu"],
                                                      ["max_pool"], ["flatten"], ["linear", {"out_features": 10}]]})
student = distill(student, lenet, pile, [(1.0, SoftTargets(4.0))], epochs=1 if quick() else 3, lr=0.02, batch_size=64, progress=False)
save(student, submission_path("4.14"))
my_file = str(submission_path("4.14"))
### END SOLUTION

# %%
my_file = check("4.14", my_file)

# %% [markdown]
# No label went into it. That is where distillation is used most: where the data for a label were never there (private, expensive, or too many), a teacher can still answer.
#
# ## 12 Your ledger
#
# Three rows: the teacher, a student of 200 labels, and your file.

# %%
from compresslab.core.measure import format_rows, measure
from compresslab.core.store import load

judged = ink.test.take(200 if quick() else 500)
rows = [measure(lenet, judged, name="LeNet-5", repeats=0), measure(teach(0, wisdom, alpha=0.0), judged, name="student, 200 labels", repeats=0),
        measure(load(my_file), judged, name="student, taught", repeats=0)]
print(format_rows(rows))
for row in rows:
    ledger.add(row, chapter="04", family="distillation" if row.name == "student, taught" else "dense" if row.name == "LeNet-5" else "compact")

# %%
ledger.pareto();

# %% [markdown]
# The teacher's row and the student's differ by a factor of more than a hundred in bytes. Distillation did not make it: the *design* did. The teacher made the design usable.
#
# ## What was simplified
#
# - Hinton et al. tune $T$ and $\alpha$ for each pair of networks; here $T = 4$ throughout.
# - Romero et al. train the layers up to the hint first, and with soft targets afterwards; here the hint is one term among others.
# - Park et al. add angles between triples of images to the distances; the library has both, you wrote the distances.
# - Zhao et al. choose $\beta$ for each teacher. We showed the identity, and one value.
# - Zhang et al. let the peers step in turn, each seeing the others' newest answers; here all step at once.
# - Tian et al. keep a memory of thousands of negatives; the library's contrastive term takes them from the batch.
# - All networks here are small, and images are 28 or 32 pixels wide. Which method wins is a fact about a setting, not about the methods.
#
# ## Further reading
#
# - Buciluă, Caruana, Niculescu-Mizil, *Model Compression*, KDD 2006; Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, 2015.
# - Romero et al., *FitNets: Hints for Thin Deep Nets*, ICLR 2015; Zagoruyko, Komodakis, *Paying More Attention to Attention*, ICLR 2017; Yim et al., *A Gift from Knowledge
#   Distillation*, CVPR 2017.
# - Park et al., *Relational Knowledge Distillation*, CVPR 2019; Tung, Mori, *Similarity-Preserving Knowledge Distillation*, ICCV 2019; Tian, Krishnan, Isola, *Contrastive Representation
#   Distillation*, ICLR 2020.
# - Zhao et al., *Decoupled Knowledge Distillation*, CVPR 2022; Zhang et al., *Deep Mutual Learning*, CVPR 2018.
# - The published numbers: the tables in the READMEs of RepDistiller (Tian et al.) and mdistiller (Zhao et al.).
#
# **Next:** chapter 05 takes a trained layer apart, into factors of low rank.

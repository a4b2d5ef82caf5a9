"""What a right answer to exercises 4.1 to 4.6 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.trial import Trial


def _softmax(z: Tensor, temperature: float) -> Tensor:
    return torch.softmax(z.double() / temperature, dim=-1)


def _kl(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """KL(softmax(first / T) || softmax(second / T)) of each row, in double precision."""
    log_p, log_q = (torch.log_softmax(z.double() / temperature, dim=-1) for z in (first, second))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


# -- what the teacher says ---------------------------------------------------------------------------

def verify_soften(t: Trial) -> str:
    cases = [(torch.tensor([math.log(9.0), 0.0]), 2.0), (torch.tensor([1.0, -1.0, 0.0]), 1.0), (t.randn(3, 4), 4.0)]
    cases += [(3 * t.randn(2, 5), t.uniform(0.3, 0.9)), (t.randn(2, 3, 4), 2.5), (4 * t.randn(6, 10), 20.0), (t.randn(0, 3), 2.0)]
    for logits, temperature in cases:
        got = t.tensor(t.call(logits, temperature), shape=logits.shape)
        t.expect(got.is_floating_point() and not got.isnan().any(), "probabilities are real numbers, without nan")
        t.expect(got >= 0, "a probability cannot be negative: return probabilities, not their logarithms")
        t.close(got.double().sum(-1), torch.ones(logits.shape[:-1], dtype=torch.float64), "the probabilities over the last dimension must add up to 1")
        t.close(got, _softmax(logits, temperature), f"these are not the probabilities at temperature {temperature:g}", atol=1e-5)
    large = [(torch.tensor([500.0, 490.0, 0.0]), 2.0), (torch.tensor([[-900.0, -901.0], [200.0, 201.0]]), 1.0),
             (torch.tensor([[3000.0, 2000.0, 0.0], [1.0, 2.0, 3.0]]), 10.0), (torch.tensor([[400.0, 0.0], [0.0, 300.0]]), 4.0),
             (torch.tensor([1000.0, 0.0, -1000.0]), 500.0)]
    for logits, temperature in large:
        got = t.tensor(t.call(logits, temperature), shape=logits.shape)
        t.expect(torch.isfinite(got), "large logits overflow in exp: subtract the largest logit of each row before it")
        t.close(got, _softmax(logits, temperature), "with large logits the probabilities are wrong", atol=1e-5)
    for temperature in (0.0, -1.0, math.nan):
        t.raises(ValueError, t.randn(2, 3), temperature)
    return f"{len(cases) + len(large)} tensors, sharp and flat, logits up to 3,000; temperatures 0, below 0 and nan are refused"


# -- what the student is told ------------------------------------------------------------------------

def _gradient(function, student_logits: Tensor, *args):
    """The gradient of the loss for the student's logits; a word where there is none."""
    z = student_logits.clone().requires_grad_()
    loss = function(z, *args)
    return torch.autograd.grad(loss, z)[0] if isinstance(loss, Tensor) and loss.requires_grad else "no gradient"


def verify_distillation_loss(t: Trial) -> str:
    cases = [(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0]), 1.0, 1.0),
             (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0]), 4.0, 0.0)]
    cases += [(t.randn(n, k), 2 * t.randn(n, k), t.integers(0, k - 1, (n,)), temperature, alpha)
              for n, k, temperature, alpha in [(1, 3, 2.0, 1.0), (3, 4, 4.0, 0.9), (2, 5, 0.5, 0.3), (8, 10, 8.0, 0.7), (5, 3, 20.0, 0.5)]]
    for z_s, z_t, labels, temperature, alpha in cases:
        loss = t.tensor(t.call(z_s, z_t, labels, temperature, alpha))
        hard = F.cross_entropy(z_s.double(), labels)
        wanted = (1 - alpha) * hard + alpha * temperature**2 * _kl(z_t, z_s, temperature).mean()
        t.expect(loss.numel() == 1, f"the loss is one number for the whole batch, yours has shape {tuple(loss.shape)}")
        what = {0.0: "at alpha = 0 only the cross-entropy of the student with the labels is left", 1.0: "at alpha = 1 only T^2 KL(p_t || p_s) is left"}
        t.close(loss.reshape(()), wanted, what.get(alpha, f"the loss at T = {temperature:g}, alpha = {alpha:g} is wrong"), rtol=1e-3, atol=1e-5)
        slope = (1 - alpha) * (_softmax(z_s, 1.0) - F.one_hot(labels, z_s.shape[1])) / len(labels)
        slope = slope + alpha * temperature * (_softmax(z_s, temperature) - _softmax(z_t, temperature)) / len(labels)
        gradient = t.use(_gradient, z_s, z_t, labels, temperature, alpha)
        t.expect(isinstance(gradient, Tensor), "no gradient reaches the student's logits: nothing would be learned")
        t.close(gradient, slope, "the loss is right, but its gradient for the student's logits is not", rtol=1e-3, atol=1e-5)
    z, labels = t.randn(3, 4), t.integers(0, 3, (3,))
    same = t.number(t.call(z, z + 2.0, labels, 3.0, 1.0))
    t.expect(abs(same) < 1e-4, f"where student and teacher agree, nothing is left to learn: the soft term must be 0, yours is {same:.4g}")
    mild, sure = t.randn(2, 3), torch.tensor([[300.0, 0.0, -300.0], [0.0, 250.0, 1.0]])
    surer = torch.tensor([[0.0, 200.0, -200.0], [2.0, 500.0, 0.0]])
    for z_s, z_t in [(mild, sure), (sure, mild), (sure, surer), (surer, sure)]:
        loss = t.number(t.call(z_s, z_t, torch.tensor([1, 1]), 2.0, 0.9))
        t.expect(math.isfinite(loss), "with sure networks the loss is no longer finite: a softmax that underflows has no logarithm; "
                                      "use log_softmax")
        wanted = 0.1 * F.cross_entropy(z_s, torch.tensor([1, 1])) + 3.6 * _kl(z_t, z_s, 2.0).mean()
        t.close(loss, wanted, "with large logits the loss is wrong", rtol=1e-3)
    return f"value and gradient in {len(cases)} cases, 0 where both agree, finite for logits of 500"


def verify_soft_gradient(t: Trial) -> str:
    cases = [(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]), 1.0), (torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]), 2.0)]
    cases += [(2 * t.randn(n, k), 3 * t.randn(n, k), temperature)
              for n, k, temperature in [(3, 4, 4.0), (2, 5, 0.5), (6, 10, 8.0), (4, 2, 3.0), (1, 7, t.uniform(1.5, 6))]]
    for z_s, z_t, temperature in cases:
        got = t.tensor(t.call(z_s, z_t, temperature), shape=z_s.shape).detach()
        z = z_s.double().requires_grad_()
        wanted = torch.autograd.grad(temperature**2 * _kl(z_t, z, temperature).mean(), z)[0]
        t.close(got, wanted, f"at T = {temperature:g} that is not what autograd finds", rtol=2e-3, atol=1e-5)
    z_s, z_t = t.randn(4, 5), 2 * t.randn(4, 5)
    got = t.tensor(t.call(z_s.double(), z_t.double(), 1e4), shape=z_s.shape).detach()
    centred = [z.double() - z.double().mean(1, keepdim=True) for z in (z_s, z_t)]
    t.close(got, (centred[0] - centred[1]) / z_s.numel(), "at T = 10,000 it is not the difference of the centred logits over N K", rtol=1e-2, atol=1e-5)
    return f"what autograd finds, in {len(cases)} cases, and the matching of logits at a very high temperature"


# -- a teacher once ----------------------------------------------------------------------------------

class _Log(list):
    """A list that is shared by all copies of the module that holds it."""

    def __deepcopy__(self, memo: dict) -> _Log:
        return self


class SmallTeacher(nn.Module):
    """A small network with batch norm and dropout that remembers the sizes of the batches that it, or a copy, saw."""

    def __init__(self, t: Trial, channels: int, classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, classes))
        self.sizes = _Log()
        for parameter in self.parameters():
            parameter.data = t.randn(*parameter.shape)
        self.norm.running_mean, self.norm.running_var = t.randn(4), 0.5 + t.randn(4).abs()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.head(F.relu(self.norm(self.conv(x))))


def graph_modes_batches(function, teacher: nn.Module, images: Tensor, batch_size: int):
    """Whether gradients hang on what `function` returns, the modes in which it leaves the teacher, the batches seen."""
    teacher.sizes.clear()
    output = function(teacher, images, batch_size)
    return isinstance(output, Tensor) and output.requires_grad, [m.training for m in teacher.modules()], list(teacher.sizes)


def verify_cache_logits(t: Trial) -> str:
    cases = [(5, 2, 3, "train"), (6, 3, 4, "eval"), (7, 10, 2, "train"), (9, 4, 5, "mixed"), (12, 1, 3, "train"), (8, 8, 10, "train")]
    for number, batch_size, classes, mode in cases:
        teacher = SmallTeacher(t, 2, classes).train(mode != "eval")
        if mode == "mixed":
            teacher.norm.eval()                               # a frozen batch norm in a network that trains
        modes = [module.training for module in teacher.modules()]
        images = t.randn(number, 2, 4, 4)
        output = t.call(teacher, images, batch_size)
        t.expect(isinstance(output, Tensor), f"return one tensor with a row for each image, yours is of type {type(output).__name__}")
        output = t.tensor(output, shape=(number, classes))
        wanted = t.reference(teacher, images, batch_size)
        t.close(output, wanted, f"these are not the logits of the {number} images in their order, from the teacher in eval mode", atol=1e-5)
        needs_gradient, left, sizes = t.use(graph_modes_batches, teacher, images, batch_size)
        t.expect(not needs_gradient, "a graph for gradients hangs on your logits: it keeps every activation in memory")
        t.expect(sizes and max(sizes) <= batch_size, f"batches of at most {batch_size} images were asked for, the teacher got {max(sizes, default=0)} at once")
        t.expect(left == modes, "the teacher comes back in another mode (train or eval) than it went in: work on a copy, or put it back")
    return f"{len(cases)} teachers, with last batches of every size: eval mode inside, as it was outside, no gradients"


# -- controls ----------------------------------------------------------------------------------------

def _first_and_again(function, probabilities: Tensor, labels: Tensor, seeds: tuple[int, ...]):
    """What `function` returns for each of the seeds."""
    return [function(probabilities.clone(), labels, torch.Generator().manual_seed(seed)) for seed in seeds]


def verify_shuffle_non_targets(t: Trial) -> str:
    first = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])
    cases = [(first, torch.tensor([0, 2])), (first, torch.tensor([1, 0]))]
    cases += [(torch.softmax(2 * t.randn(n, k), 1), t.integers(0, k - 1, (n,))) for n, k in [(1, 4), (6, 5), (20, 10), (4, 2)]]
    for p, labels in cases:
        generator = torch.Generator().manual_seed(t.integer(0, 999))
        got = t.tensor(t.call(p, labels, generator), shape=p.shape)
        rows = torch.arange(len(p))
        t.expect(got[rows, labels] == p[rows, labels], "the probability of the label must stay where it is")
        t.expect(got.sort(1).values == p.sort(1).values, "a row must keep its own probabilities, only their places change")
    p, labels = torch.softmax(t.randn(40, 8), 1), t.integers(0, 7, (40,))
    one, again, other = t.use(_first_and_again, p, labels, (5, 5, 6))
    t.expect(torch.equal(one, again), "with the same generator, the same order must come out")
    t.expect(not torch.equal(one, other), "another generator gives the same order: draw from the generator that you are given")
    n, k = 1200, 4
    p = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(n, k).contiguous()
    labels = t.integers(0, k - 1, (n,))
    got = t.tensor(t.call(p, labels, torch.Generator().manual_seed(t.integer(0, 999))), shape=p.shape)
    for label in range(k):
        mine = got[labels == label]
        orders, times = torch.unique(mine, dim=0, return_counts=True)
        t.expect(len(orders) > 1, "all rows with one label got the same order: draw a new order for each row")
        t.expect(len(orders) == 6 and times.min() > len(mine) / 12 and times.max() < len(mine) / 3.5,
                 f"not every order of the wrong classes is equally likely: of 6 orders {len(orders)} came out, from {int(times.min())} to "
                 f"{int(times.max())} times")
    return f"{len(cases)} sets of rows keep the label's probability and their own numbers; all orders equally often"


def verify_smooth_labels(t: Trial) -> str:
    cases = [(torch.tensor([1, 0]), 2, 0.2), (torch.tensor([2]), 4, 0.4), (torch.tensor([0, 1, 0]), 5, 0.0), (torch.tensor([3, 0]), 4, 1.0)]
    cases += [(t.integers(0, k - 2, (n,)), k, t.uniform(0.05, 0.6)) for n, k in [(6, 10), (3, 3), (9, 7), (0, 4)]]
    for labels, classes, smoothing in cases:
        got = t.tensor(t.call(labels, classes, smoothing), shape=(len(labels), classes))
        t.expect(got.is_floating_point(), "probabilities are real numbers: a one-hot tensor of integers needs .float()")
        t.close(got.double().sum(1), torch.ones(len(labels), dtype=torch.float64), "each row must add up to 1", atol=1e-5)
        wanted = (1 - smoothing) * F.one_hot(labels, classes).double() + smoothing / classes
        t.close(got, wanted, f"with smoothing {smoothing:.3g} over {classes} classes the probabilities are wrong", atol=1e-5)
        if len(labels):
            z = t.randn(len(labels), classes)
            t.close(F.cross_entropy(z, got.float()), F.cross_entropy(z, labels, label_smoothing=smoothing),
                    "F.cross_entropy(z, labels, label_smoothing=s) gives another loss", rtol=1e-3)
    for smoothing in (-0.1, 1.5, 10):
        t.raises(ValueError, torch.tensor([0, 1]), 3, smoothing)
    return f"{len(cases)} batches, as F.cross_entropy smooths them; fractions outside [0, 1] are refused"

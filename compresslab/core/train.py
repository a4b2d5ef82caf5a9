"""Training and prediction: the one loop that every chapter uses.

Stochastic gradient descent with momentum, unless another optimizer is asked for. The learning rate rises
along a line for the first W of T steps, then falls along half a cosine, step by step:

    lr_t = lr * (t + 1) / W                                  t < W = warmup * T
    lr_t = lr * (1 + cos(pi * (t - W) / (T - W))) / 2        t = W ... T-1

Without the rise, a plain network of eight convolutions stayed at chance on street_digits for six epochs.

Convolutional networks are trained in the `channels_last` memory format, which is about 40 % faster on a CPU.
A pruned or fake-quantized network trains here unchanged, because a mask is a parametrization of its weight.

Source: Loshchilov, Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, eq. 5 (one
    cycle, down to 0); Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2 (gradual warm-up).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from compresslab.core.progress import progress_bar

if TYPE_CHECKING:
    from compresslab.data import Split

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The default loss, -log softmax(model(x))_y averaged over the batch: a scalar."""
    return F.cross_entropy(model(x), y)


def cosine_lr(lr: float, step: int, steps: int, warmup: float = 0.0) -> float:
    """The learning rate at `step` of `steps`: a linear rise over a fraction `warmup`, then half a cosine.

    Example:
        >>> [round(cosine_lr(0.1, step, 4), 3) for step in range(4)]
        [0.1, 0.085, 0.05, 0.015]
        >>> [round(cosine_lr(0.1, step, 4, warmup=0.5), 3) for step in range(4)]
        [0.05, 0.1, 0.1, 0.05]
    """
    rise = int(warmup * steps)
    if step < rise:
        return lr * (step + 1) / rise
    return lr * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2


def train(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    lr: float = 0.05,
    warmup: float = 0.1,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: MakeOptimizer | None = None,
    loss: Loss | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    progress: bool = True,
    history: list[dict] | None = None,
) -> nn.Module:
    """Train a copy of a model, and return it in eval mode. The model given is left as it was.

    Args:
        model: any network; parameters with `requires_grad=False` stay as they are.
        split: the training images.
        epochs: passes over `split`, >= 0; 0 returns a plain copy.
        lr: the largest learning rate, > 0.
        warmup: fraction of the steps over which the learning rate rises to `lr`, in [0, 1).
        batch_size: images per step; the last, smaller batch of an epoch is used too.
        momentum, weight_decay: of SGD; the decay acts on every parameter.
        optimizer: `optimizer(parameters, lr)` makes another one, such as
            `partial(torch.optim.AdamW, weight_decay=0.01)`; its learning rate follows the same schedule, and
            `momentum` and `weight_decay` are then not used.
        loss: `loss(model, x, y)`, a scalar; cross-entropy where None. Distillation comes in here.
        after_step: called as `after_step(model, step)` after every update, step from 0.
        augment: `augment(x, generator)` returns changed images, drawn anew for every batch.
        seed: of the order of the images, the augmentation and dropout.
        progress: show a bar.
        history: a list that receives {"epoch", "loss", "lr"} once per epoch.
    Returns:
        the trained copy.
    Raises:
        ValueError: negative epochs, an lr, a warmup or a batch_size out of range, an empty split, or a
            loss that became nan or infinite.
    """
    _check(epochs, lr, warmup, batch_size, split)
    model = copy.deepcopy(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    per_epoch = -(-len(split) // batch_size)
    if not trainable or epochs == 0:
        return model.eval()
    if optimizer is None:
        updates = torch.optim.SGD(trainable, lr, momentum, weight_decay=weight_decay)
    else:
        updates = optimizer(trainable, lr)
    generator = torch.Generator().manual_seed(seed)
    batches = _endless(split, batch_size, generator)
    device, recorder = device_of(model), _Recorder(per_epoch, history)
    model.train().to(memory_format=torch.channels_last)
    steps = range(epochs * per_epoch)
    with _seeded(seed), progress_bar(steps, "training", unit="step", show=progress) as bar:
        for step in bar:
            x, y = next(batches)
            x = x if augment is None else augment(x, generator)
            for group in updates.param_groups:
                group["lr"] = cosine_lr(lr, step, len(steps), warmup)
            value = (loss or cross_entropy)(model, channels_last(x.to(device)), y.to(device))
            updates.zero_grad()
            value.backward()
            updates.step()
            if after_step is not None:
                after_step(model, step)
            recorder.record(step, value.detach(), group["lr"], bar)
    return model.to(memory_format=torch.contiguous_format).eval()


def _check(epochs: int, lr: float, warmup: float, batch_size: int, split: Split) -> None:
    if epochs < 0:
        raise ValueError(f"epochs must be 0 or more, got {epochs}")
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be in [0, 1), got {warmup}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if len(split) == 0:
        raise ValueError("there is nothing to train on: the split is empty")


def _endless(split: Split, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from split.batches(batch_size, shuffle=True, generator=generator)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, and put its old state back at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _Recorder:
    """Averages the loss over an epoch, shows it, writes it into `history`, and stops at nan."""

    def __init__(self, per_epoch: int, history: list[dict] | None) -> None:
        self.per_epoch, self.history, self.total = per_epoch, history, 0.0

    def record(self, step: int, value: Tensor, lr: float, bar: tqdm) -> None:
        value = value.item()
        if not math.isfinite(value):
            raise ValueError(f"the loss became {value} in step {step}; try a smaller lr")
        self.total += value
        epoch, rest = divmod(step + 1, self.per_epoch)
        if rest == 0:
            row = {"epoch": epoch, "loss": self.total / self.per_epoch, "lr": lr}
            bar.set_postfix(epoch=epoch, loss=f"{row['loss']:.3f}")
            self.total = 0.0
            if self.history is not None:
                self.history.append(row)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's tensors live; the CPU for a model without any."""
    tensor = next(model.parameters(), next(model.buffers(), torch.empty(0)))
    return tensor.device


def channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) with the channels innermost in memory; anything else unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every module has its old mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict_logits(model: nn.Module, split: Split, batch_size: int = 512) -> Tensor:
    """The model's outputs for every image, in eval mode: float32 on the CPU, (N, classes)."""
    device = device_of(model)
    with evaluating(model):
        outputs = [model(channels_last(x.to(device))).cpu() for x in split.batches(batch_size, labels=False)]
    if not outputs:
        raise ValueError("there is nothing to predict: the split is empty")
    return torch.cat(outputs)


def predict_labels(model: nn.Module, split: Split, batch_size: int = 512) -> Tensor:
    """The most likely class of every image: int64, (N,)."""
    return predict_logits(model, split, batch_size).argmax(1)


def correct_answers(model: nn.Module, split: Split, batch_size: int = 512) -> Tensor:
    """Whether the model labels each image correctly: bool, (N,); what `paired_difference` compares."""
    return predict_labels(model, split, batch_size) == split.y


def accuracy(model: nn.Module, split: Split, batch_size: int = 512) -> float:
    """The fraction of images that the model labels correctly, in [0, 1]."""
    return correct_answers(model, split, batch_size).double().mean().item()

"""The widget of chapter 04: temperature against the softened distribution and the gradient that it gives. Tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"


@dataclass(frozen=True)
class Softened:
    """One position of the controls: two softened distributions, the gradient between them, and where it tends to."""

    teacher: Sequence[float]
    student: Sequence[float]
    gradient: Sequence[float]
    limit: Sequence[float]
    entropy: float


class TemperatureLook:
    """`look(image, temperature, scaled)`: what a student reads in one image, and what it feels.

    Args:
        student_logits, teacher_logits: (N, K), of the same N images.
        soften, soft_gradient: the learner's own functions (exercises 4.1 and 4.3).
    """

    def __init__(self, student_logits: Tensor, teacher_logits: Tensor, soften: Callable[..., Tensor],
                 soft_gradient: Callable[..., Tensor]) -> None:
        self.student, self.teacher = student_logits.detach().double(), teacher_logits.detach().double()
        self.soften, self.soft_gradient = soften, soft_gradient

    def __call__(self, image: int, temperature: float, scaled: bool) -> Softened:
        """Both networks on one image.

        Args:
            image: row of the logits. temperature: T > 0.
            scaled: the gradient of T^2 KL, as in the loss; if not, of KL alone.
        """
        z_s, z_t = self.student[image:image + 1], self.teacher[image:image + 1]
        p_s, p_t = (self.soften(z, temperature)[0] for z in (z_s, z_t))
        gradient = self.soft_gradient(z_s, z_t, temperature)[0] / (1 if scaled else temperature**2)
        limit = ((z_s - z_s.mean()) - (z_t - z_t.mean()))[0] / z_s.shape[1]
        entropy = -sum(p * math.log2(p) for p in p_t.tolist() if p > 0)
        return Softened(p_t.tolist(), p_s.tolist(), gradient.tolist(), limit.tolist(), entropy)


def draw_softened(axes: Sequence[Any], data: Softened) -> None:
    """Left the two distributions; right minus the gradient of each class, with its limit for T to infinity as a short line."""
    left, right = axes
    classes = range(len(data.teacher))
    left.bar(classes, data.teacher, 0.7, color=BLUE, edgecolor="black", linewidth=0.5, label="teacher")
    left.plot(classes, data.student, "D", color="white", markeredgecolor="black", markersize=5, label="student")
    left.set(xlabel="class", ylabel="probability", ylim=(0, 1.05), xticks=classes)
    left.set_title(f"entropy of the teacher: {data.entropy:.2f} bits", fontsize=9)
    left.legend(fontsize=8, loc="upper right")
    bars = right.bar(classes, [-slope for slope in data.gradient], 0.7, color=ORANGE, edgecolor="black", linewidth=0.5)
    for bar, slope in zip(bars, data.gradient):
        bar.set_hatch("//" if slope > 0 else "")
    right.hlines([-slope for slope in data.limit], [k - 0.45 for k in classes], [k + 0.45 for k in classes], color="black", linewidth=1.6)
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="class", ylabel="push (minus the gradient)", xticks=classes)
    norm = math.sqrt(sum(slope**2 for slope in data.gradient))
    right.set_title(f"length of the gradient: {norm:.3f}", fontsize=9)

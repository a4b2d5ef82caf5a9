"""What a right answer to exercises 9.10 to 9.12 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compresslab.course.trial import Trial

# -- 9.10 head_scores ----------------------------------------------------------------------------------------


def verify_head_scores(t: Trial) -> str:
    cases = [(2, 2, 2, 2), (2, 1, 2, 1), (1, 3, 1, 4), (3, 4, 2, 3), (4, 5, 3, 2), (6, 7, 4, 8)]  # texts, places, heads, size
    for texts, places, heads, size in cases:
        output, gradient = t.randn(texts, places, heads * size), t.randn(texts, places, heads * size)
        got = t.tensor(t.call(output, gradient, heads), shape=(heads,))
        wanted = torch.zeros(heads, dtype=torch.float64)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for text in range(texts):
                wanted[head] += abs((output[text, :, part].double() * gradient[text, :, part].double()).sum()) / texts
        t.close(got.double(), wanted, f"the scores of {heads} heads", rtol=1e-4, atol=1e-5)
    output, gradient = t.randn(2, 3, 4), t.randn(1, 3, 4).expand(2, 3, 4).contiguous()
    opposite = torch.cat([output[:1], -output[:1]])
    got = t.tensor(t.call(opposite, gradient, 2), shape=(2,))
    t.expect((got > 1e-3).all(), "these heads help one text as much as they harm the other: that is important, not 0")
    masked = output.clone()
    masked[:, :, :2] = 0
    got = t.tensor(t.call(masked, gradient, 2), shape=(2,))
    t.expect(got[0] == 0 and got[1] > 0, "a head whose output is zero everywhere has the score 0, the other has not")
    return f"the scores of {len(cases)} layers, heads that help and harm, a head that is silent"


# -- 9.11 reverse_kl -----------------------------------------------------------------------------------------


def value_and_gradient(function: Any, student: Tensor, teacher: Tensor) -> list[Any]:
    """The loss, and its gradient with respect to the student's logits."""
    logits = student.clone().requires_grad_(True)
    value = function(logits, teacher.clone())
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        return [value, None]
    return [value.detach(), torch.autograd.grad(value, logits)[0]]


def _by_hand(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q || p) and its gradient, q (log q - log p - KL) / places, in float64 and without autograd."""
    log_q = student.double() - student.double().logsumexp(-1, keepdim=True)
    log_p = teacher.double() - teacher.double().logsumexp(-1, keepdim=True)
    q = log_q.exp()
    places = (q * (log_q - log_p)).sum(-1, keepdim=True)
    return places.mean(), q * (log_q - log_p - places) / places.numel()


def verify_reverse_kl(t: Trial) -> str:
    cases = [(t.randn(*shape), 2 * t.randn(*shape)) for shape in ((1, 3), (2, 2), (3, 4), (2, 3, 5), (4, 1, 7), (2, 6, 97))]
    cases.append((torch.tensor([[300.0, 0.0, -300.0], [0.0, 250.0, 1.0]]), torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])))
    cases.append((torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([[60.0, 0.0, -40.0]])))  # the teacher never says what the student does
    for student, teacher in cases:
        value, gradient = t.use(value_and_gradient, student, teacher)
        t.expect(isinstance(value, Tensor) and value.ndim == 0, "return one number as a tensor, which `backward` can start from: the mean over all places")
        wanted, slope = _by_hand(student, teacher)
        t.expect(not value.isnan() and not value.isinf(), "the loss is not finite for logits that are far apart: where a probability rounds to 0, log 0 is infinite")
        t.close(value.double(), wanted, "KL(q || p), the mean over all places", rtol=1e-4, atol=1e-5)
        t.expect(gradient is not None, "no gradient reaches the student's logits")
        t.close(gradient.double(), slope, "the value is right, its gradient with respect to the student's logits is not", rtol=1e-3, atol=1e-6)
    z = t.randn(3, 4)
    t.expect(abs(t.number(t.call(z, z + 5))) < 1e-5, "two networks that agree up to a constant have the same distribution: the loss is 0")
    return f"value and gradient on {len(cases)} sets of logits, far apart ones too"


# -- 9.12 quantize_layer -------------------------------------------------------------------------------------


def _text(t: Trial, weight: Tensor, tokens: int, noise: float) -> tuple[Tensor, Tensor]:
    """Inputs of a layer, and the tokens that come next: what the layer itself expects, up to noise."""
    x = t.randn(tokens, weight.shape[1])
    return x, (x @ weight.T + noise * t.randn(tokens, len(weight))).argmax(1)


def _texts(t: Trial, weight: Tensor, group: int, clips: list[float], tokens: int) -> tuple[Any, Any]:
    """(calibration, test): for more than one clip, texts that would choose different ones."""
    for attempt in range(60):
        noise = (1.0, 40.0) if attempt % 2 else (40.0, 1.0)
        calibration, test = (_text(t, weight, tokens, level) for level in noise)
        chosen = [t.reference(weight, group, clips, text, text)[0] for text in (calibration, test)]
        if len(clips) == 1 or not torch.equal(*chosen):
            break
    return calibration, test


def verify_quantize_layer(t: Trial) -> str:
    cases = []
    for outputs, inputs, group, clips, tokens in ((2, 4, 2, [1.0], 5), (4, 4, 2, [1.0, 0.7, 0.4], 12), (6, 8, 4, [0.9, 1.0, 0.6, 0.3], 20),
                                                  (8, 6, 3, [0.5, 0.75, 1.0], 30), (5, 16, 8, [1.0, 0.8, 0.6, 0.4, 0.2], 25), (10, 12, 12, [0.3, 0.6, 0.9], 40)):
        for _ in range(2):
            weight = t.randn(outputs, inputs) * (1 + 4 * (t.randn(outputs, inputs) > 1.2))
            cases.append((weight, group, clips, *_texts(t, weight, group, clips, tokens)))
    for case in cases:
        weight, group = case[:2]
        output = t.call(*case)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 3, "return (the weight as it is stored, bits per character on the test text, bits per weight)")
        stored, told, stored_bits = t.tensor(output[0], shape=weight.shape), t.number(output[1]), t.number(output[2])
        wanted, right, per_weight = t.reference(*case)
        t.close(stored.float(), wanted, "the weight as it is stored", rtol=1e-4, atol=1e-5)
        t.expect(math.isclose(told, right, rel_tol=1e-4), f"this weight needs {right:.4f} bits per character on the test text, you report {told:.4f}")
        t.expect(math.isclose(stored_bits, per_weight, rel_tol=1e-6), f"groups of {group} with 4 bits each and a scale of 16 take {per_weight:g} bits per weight, you report {stored_bits:g}")
    return f"{len(cases)} layers: groups along the inputs, both signs, chosen on calibration text, told on test text, scales counted"

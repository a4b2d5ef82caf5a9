"""What a right answer to exercises 4.7 to 4.13 must do. Small inputs first: the last one tried is shown."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.course.trial import Trial


# -- two directions ----------------------------------------------------------------------------------

def verify_kl_both_ways(t: Trial) -> str:
    even = torch.tensor([0.5, 0.5])
    cases = [(even, torch.tensor([[0.9, 0.1], [0.5, 0.5]])), (torch.tensor([0.9, 0.1]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])),
             (torch.tensor([0.5, 0.5, 0.0]), torch.tensor([[0.25, 0.75, 0.0]])),           # both say 0
             (torch.tensor([0.5, 0.5, 0.0]), torch.tensor([[0.25, 0.25, 0.5]])),           # the teacher says 0
             (even, torch.tensor([[1.0, 0.0]]))]                                           # the student says 0
    cases += [(t.randn(k).softmax(0), (2 * t.randn(m, k)).softmax(1)) for k, m in ((4, 3), (10, 1), (100, 20))]
    for teacher, students in cases:
        output = t.call(teacher, students)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return two tensors: (forward, reverse)")
        wide = teacher.double().expand(len(students), -1)
        for got, name, p, q in ((output[0], "forward, KL(teacher || student),", wide, students.double()),
                                (output[1], "reverse, KL(student || teacher),", students.double(), wide)):
            got = t.tensor(got, shape=(len(students),)).double()
            wanted = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1)
            t.close(got, wanted, f"{name} of each row", rtol=1e-3, atol=1e-5)
    return f"both directions for {len(cases)} teachers and their students, 0 log 0 = 0, infinite where it must be"


# -- from inside the teacher -------------------------------------------------------------------------

def loss_and_gradients(function, student: Tensor, teacher: Tensor):
    """The value, and what reaches the student and the teacher when it is differentiated."""
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    value = function(student, teacher)
    if not isinstance(value, Tensor):
        return value, None, None
    if value.requires_grad and value.numel() == 1:
        value.backward()
    return value.detach().clone(), student.grad, teacher.grad


def _loss(t: Trial, student: Tensor, teacher: Tensor, kind: str) -> float:
    """The value of the learner's loss, its gradient compared with the reference's."""
    value, to_student, to_teacher = t.use(loss_and_gradients, student, teacher)
    t.expect(isinstance(value, Tensor) and value.numel() == 1, "return one number, a tensor that can be differentiated")
    wanted, gradient, _ = loss_and_gradients(t.reference, student, teacher)
    t.close(value, wanted, f"the {kind} is not that of the formula", rtol=1e-3, atol=1e-5)
    t.expect(to_teacher is None or bool((to_teacher == 0).all()), "a gradient reaches the teacher: it is finished, `detach()` it")
    t.expect(to_student is not None, "no gradient reaches the student")
    t.expect(to_student.isfinite(), "the gradient of the student is not finite")
    off = (to_student - gradient).abs().max() > 1e-3 * gradient.abs().max() + 1e-6
    t.expect(not off, "the value is right, but the gradient that reaches the student is not")
    return float(value)


def verify_attention_loss(t: Trial) -> str:
    left, right = torch.tensor([[[[3.0, 0.0, 1.0]]]]), torch.tensor([[[[0.0, 1.0, 2.0]]]])
    cases = [(left, right), (torch.tensor([[[[1.0, 2.0]], [[-1.0, 0.5]]]]), torch.tensor([[[[0.5, -1.0]], [[1.0, 2.0]]]])),
             (torch.tensor([[[[1.0, 2.0]]], [[[30.0, 10.0]]]]), torch.tensor([[[[2.0, 1.0]]], [[[1.0, 1.0]]]]))]
    for n, c, d, h, w in ((1, 2, 3, 2, 2), (4, 3, 5, 4, 4), (6, 8, 2, 3, 5)):
        cases.append((t.randn(n, c, h, w), t.randn(n, d, h, w)))
    cases.append((t.randn(5, 4, 3, 3).relu() * torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0])[:, None, None, None], t.randn(5, 2, 3, 3).relu() + 0.1))
    for student, teacher in cases:
        _loss(t, student, teacher, "distance of the attention maps")
    features = t.randn(4, 3, 5, 5)
    other = -7.0 * features[:, torch.tensor([2, 0, 1])]
    value = t.number(t.call(features, other))
    t.expect(abs(value) < 1e-5, "the teacher's features are the student's in another order of channels, scaled by -7: the loss must be 0")
    return f"the formula on {len(cases)} pairs of layers, 0 for other scales and orders of channels, no gradient to the teacher"


def verify_best_regressor(t: Trial) -> str:
    v = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
    plane = torch.tensor([[0.0, 1.0, 2.0, 1.0], [1.0, 0.0, 1.0, 3.0]]).view(1, 2, 2, 2)
    cases = [(v, 3 * v), (v, 3 * v + 1), (plane, torch.cat([plane[:, :1] - plane[:, 1:], 2 * plane[:, 1:], plane[:, :1] + 5], 1))]
    for n, c, d, h, w in ((3, 2, 4, 2, 3), (5, 6, 3, 4, 4), (8, 4, 9, 3, 3)):
        student = t.randn(n, c, h, w) + 0.5
        mixed = torch.einsum("dc,nchw->ndhw", t.randn(d, c), student)
        cases.append((student, mixed + 0.7 * t.randn(n, d, h, w) + t.randn(d)[:, None, None] + 0.5 * torch.arange(float(n)).view(n, 1, 1, 1)))
    silent = (t.randn(6, 5, 3, 3) + 0.3).relu()
    silent[:, 2] = 0.0                                                          # a dead channel
    cases.append((silent, t.randn(6, 4, 3, 3) + 2))
    for student, teacher in cases:
        layer = t.call(student, teacher)
        t.expect(isinstance(layer, nn.Module), "return the regressor itself: an nn.Conv2d(C_student, C_teacher, 1)")
        guided = _applied(t, layer, student, teacher)
        inputs = torch.cat([student.movedim(1, -1).flatten(0, 2).double(), torch.ones(student[:, 0].numel(), 1).double()], 1)
        wanted = teacher.movedim(1, -1).flatten(0, 2).double()
        fitted = inputs @ torch.linalg.pinv(inputs, rtol=1e-9) @ wanted
        least, error = (fitted - wanted).pow(2).mean().item(), (guided.double() - teacher).pow(2).mean().item()
        scale = (wanted - wanted.mean(0)).pow(2).mean().item()
        dead = bool((student == 0).all(0).flatten(1).all(1).any())
        t.expect(error <= least + 1e-4 * scale + 1e-6, f"{'a channel is dead, and lstsq wants driver=gelsd: ' if dead else ''}another 1x1 convolution has a mean squared error of {max(least, 1e-9):.2g}, yours has {error:.2g}")
    return f"the least squared error of all 1x1 convolutions, for {len(cases)} pairs of layers, one with a dead channel"


def _applied(t: Trial, layer: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """The layer's output on the student's maps; a complaint where it cannot be applied or is no 1x1 convolution."""
    try:
        with torch.no_grad():
            guided, pixel = layer(student), layer(student[:, :, :1, :1])
    except Exception as error:
        t.expect(False, f"your layer cannot be applied to the student's maps {tuple(student.shape)}: {str(error).splitlines()[0][:90]}")
    t.tensor(guided, shape=teacher.shape)
    t.expect((guided[:, :, :1, :1] - pixel).abs() < 1e-4 * (1 + pixel.abs()), "your layer looks at other positions too: a kernel of 1x1 is asked for")
    t.expect(guided.isfinite(), "your layer's output is not finite; where a channel is dead, (X'X) has no inverse: let lstsq decide")
    return guided


def verify_relational_loss(t: Trial) -> str:
    line = torch.tensor([[0.0], [1.0], [5.0]])
    cases = [(line, torch.tensor([[0.0], [2.0], [3.0]])), (torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), line),
             (torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [3.0, 0.0]]), torch.tensor([[0.0], [1.0], [5.0], [2.0]])),   # two equal embeddings
             (torch.tensor([[0.0], [0.0], [0.1], [30.0]]), torch.tensor([[0.0], [1.0], [2.0], [2.5]]))]                    # beyond Huber's corner
    for n, c, d in ((3, 2, 5), (8, 4, 4), (16, 10, 3)):
        cases.append((t.randn(n, c), 5 * t.randn(n, d) + 1))
    cases.append((t.randn(6, 2, 3, 3), t.randn(6, 4, 2, 2)))                                # feature maps: one vector per image
    for student, teacher in cases:
        _loss(t, student, teacher, "loss")
    cloud = t.randn(7, 3)
    turned = 4.0 * cloud @ torch.linalg.qr(t.randn(5, 3)).Q.T + t.randn(5)
    value = t.number(t.call(cloud, turned))
    t.expect(abs(value) < 1e-6, "the teacher's cloud is the student's, turned, moved and four times as large: the loss must be 0")
    return f"the formula on {len(cases)} batches, 0 for a turned, moved and scaled cloud, gradients finite where two images coincide"


# -- the loss, taken apart ---------------------------------------------------------------------------

def verify_decoupled_terms(t: Trial) -> str:
    cases = [(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), 1.0),
             (torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), 2.0),
             (torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([1]), 1.0),          # a teacher who is wrong
             (torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([[2.0, 1.0, 0.0], [-1.0, 0.0, 2.0]]), torch.tensor([0, 2]), 3.0)]
    for n, k, temperature in ((3, 4, 1.0), (8, 10, 4.0), (20, 10, 2.5)):
        cases.append((2 * t.randn(n, k), 4 * t.randn(n, k), t.integers(0, k - 1, (n,)), temperature))
    cases.append((torch.tensor([[60.0, 0.0, 1.0]]), torch.tensor([[50.0, 2.0, 0.0]]), torch.tensor([0]), 1.0))      # sure beyond float32
    for student, teacher, labels, temperature in cases:
        output = t.call(student, teacher, labels, temperature)
        t.expect(isinstance(output, (tuple, list)) and len(output) == 2, "return two tensors: (TCKD, NCKD)")
        tckd, nckd = (t.tensor(term, shape=labels.shape).double() for term in output)
        wanted = t.reference(student.double(), teacher.double(), labels, temperature)
        t.expect(tckd.isfinite() & nckd.isfinite(), "not finite for a teacher who is sure: 1 - p rounds to 0; the others' share is their logsumexp")
        t.close(tckd, wanted[0], "TCKD, the label against the rest, of each image", rtol=1e-3, atol=1e-5)
        t.close(nckd, wanted[1], "NCKD, the other classes among themselves, of each image", rtol=1e-3, atol=1e-5)
        log_s, log_t = ((z.double() / temperature).log_softmax(1) for z in (student, teacher))
        kd = (log_t.exp() * (log_t - log_s)).sum(1)
        sure = log_t.exp().gather(1, labels[:, None])[:, 0]
        t.close(tckd + (1 - sure) * nckd, kd, "TCKD + (1 - p_t) NCKD must be KL(teacher || student)", rtol=1e-3, atol=1e-5)
    return f"both terms and the identity KL = TCKD + (1 - p_t) NCKD, image by image, in {len(cases)} batches"


# -- peers -------------------------------------------------------------------------------------------

def losses_and_gradients(function, logits: list[Tensor], labels: Tensor):
    """Every loss, and the gradient of every loss for every peer's logits: a K x K table."""
    logits = [z.clone().requires_grad_() for z in logits]
    losses = function(logits, labels)
    if not isinstance(losses, (list, tuple)) and not (isinstance(losses, Tensor) and losses.ndim == 1):
        return losses, None
    table = []
    for loss in losses:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            return list(losses), None
        found = torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)
        table.append([torch.zeros_like(z) if g is None else g for z, g in zip(logits, found)])
    return [loss.detach().clone() for loss in losses], table


def verify_mutual_losses(t: Trial) -> str:
    cases = [([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])], torch.tensor([0])),
             ([torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, -1.0]])], torch.tensor([2]))]
    for k, n, classes in ((2, 4, 3), (3, 5, 10), (4, 8, 5)):
        cases.append(([2 * t.randn(n, classes) for _ in range(k)], t.integers(0, classes - 1, (n,))))
    for logits, labels in cases:
        losses, table = t.use(losses_and_gradients, logits, labels)
        t.expect(isinstance(losses, list) and len(losses) == len(logits), f"return a list of {len(logits)} losses, one for each peer")
        wanted, right = losses_and_gradients(t.reference, logits, labels)
        for i, (loss, good) in enumerate(zip(losses, wanted)):
            t.close(t.number(loss), good, f"the loss of peer {i}", rtol=1e-3, atol=1e-5)
        t.expect(table is not None, "every loss must be one number that can be differentiated")
        for i in range(len(logits)):
            for j in range(len(logits)):
                off = (table[i][j] - right[i][j]).abs().max() > 1e-4
                t.expect(not off or i == j, f"the loss of peer {i} sends a gradient to peer {j}: a peer's answer is a target, `detach()` it")
                t.expect(not off, f"the loss of peer {i} has the right value, but not the right gradient for its own logits")
    equal = t.randn(5, 4)
    labels = t.integers(0, 3, (5,))
    losses, _ = t.use(losses_and_gradients, [equal, equal.clone(), equal.clone()], labels)
    t.close([t.number(loss) for loss in losses], [float(F.cross_entropy(equal, labels))] * 3, "equal peers have nothing to tell each other: the cross-entropy alone")
    return f"values and gradients for 2 to 4 peers, {len(cases)} batches; nobody's gradient reaches a peer"


# -- a loop, repaired --------------------------------------------------------------------------------

def _networks(t: Trial, *pairs: list[nn.Module]) -> list[nn.Module]:
    """Networks in double precision with random weights, and running statistics that differ from those of any batch."""
    models = []
    for layers in pairs:
        model = nn.Sequential(*layers).double()
        for layer in model:
            for parameter in layer.parameters():
                parameter.data = 0.7 * t.randn(*parameter.shape, dtype=torch.float64)
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.weight.data = 0.5 + t.randn(*layer.weight.shape).abs().double()
                layer.running_mean = t.randn(*layer.weight.shape).double()
                layer.running_var = 0.2 + 0.5 * t.randn(*layer.weight.shape).abs().double()
        models.append(model)
    return models


def trained_and_left(function, student: nn.Module, teacher: nn.Module, batches: list, probe: Tensor, *settings: float):
    """What came of the student, the losses, its mode, and how the two networks that were given come back."""
    before = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    modes = [module.training for module in (*student.modules(), *teacher.modules())]
    output = function(student, teacher, batches, *settings)
    left = {
        "student": all(torch.equal(now, old) for now, old in zip(student.state_dict().values(), before[0].values())),
        "statistics": all(torch.equal(now, before[1][key]) for key, now in teacher.state_dict().items() if "running" in key),
        "teacher": all(torch.equal(p, before[1][key]) for key, p in teacher.named_parameters()),
        "gradients": all(p.grad is None for p in teacher.parameters()),
        "modes": modes == [module.training for module in (*student.modules(), *teacher.modules())],
    }
    if not (isinstance(output, (tuple, list)) and len(output) == 2 and isinstance(output[0], nn.Module)):
        return output, None, None, left
    trained, losses = output
    evaluated = copy.deepcopy(trained).eval()
    with torch.no_grad():
        answers = evaluated(probe)
    return answers, [float(loss) for loss in losses], any(module.training for module in trained.modules()), left


def verify_distill_student(t: Trial) -> str:
    def plain(width: int) -> list[nn.Module]:
        return [nn.Linear(3, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)]

    def images(width: int) -> list[nn.Module]:
        return [nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 5)]

    cases = [(plain, (3,), 3, 1, (3.0, 0.7, 0.01)), (images, (1, 4, 4), 5, 3, (4.0, 0.8, 0.02)), (plain, (3,), 3, 2, (1.5, 0.3, 0.01))]
    for number, (layers, shape, classes, steps, settings) in enumerate(cases):
        student, teacher = _networks(t, layers(4), layers(6))
        teacher.train(number != 2)                             # as its training loop left it
        if number == 1:
            teacher[1].eval()
        batches = [(t.randn(8, *shape).double(), t.integers(0, classes - 1, (8,))) for _ in range(steps)]
        probe = t.randn(20, *shape).double()
        answers, losses, trains, left = t.use(trained_and_left, student, teacher, batches, probe, *settings, may_change=True)
        t.expect(losses is not None, "return (the trained student, the list of losses)")
        t.expect(left["teacher"], "the teacher comes back with other weights: only the student may learn")
        t.expect(left["statistics"], "the teacher's batch norms come back with other statistics: it ran in train mode")
        t.expect(left["gradients"], "the teacher comes back with gradients: its answers belong under torch.no_grad()")
        t.expect(left["student"], "the student that came in was changed: train a copy")
        t.expect(left["modes"], "a network comes back in another mode (train or eval) than it went in")
        wanted, right, _, _ = trained_and_left(t.reference, student, teacher, batches, probe, *settings)
        t.expect(len(losses) == len(batches), f"return one loss for each of the {len(batches)} steps, you returned {len(losses)}")
        off = next((i for i, (a, b) in enumerate(zip(losses, right)) if not math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-7)), None)
        t.expect(off is None, "" if off is None else f"the loss of step {off} must be {right[off]:.5g}, yours is {losses[off]:.5g}")
        t.expect(not trains, "return the student in eval mode, ready to be used")
        t.close(answers, wanted, "the trained student answers otherwise than it should", rtol=1e-3, atol=1e-5)
    return f"the right loss in every step and the right student at the end, {len(cases)} times; both networks come back as they went in"

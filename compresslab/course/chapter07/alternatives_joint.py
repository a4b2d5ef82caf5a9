"""Right answers to exercises 7.7 to 7.12 that look different from the references: every check must let them pass."""

from __future__ import annotations

import copy

import torch
from scipy.stats import t as student
from torch.nn import functional as F

from compresslab.core import kmeans_1d
from compresslab.core.statistics import mean_interval

# -- 7.7 --------------------------------------------------------------------------------------------

def sparse_levels_in_a_loop(weight, levels, k):
    """The distances of every weight to its level and to zero, in plain Python."""
    flat, offers = weight.flatten().tolist(), []
    for place, w in enumerate(flat):
        level = min(levels.tolist(), key=lambda one: abs(one - w))
        offers.append((w * w - (w - level) ** 2, place, level))
    found = torch.zeros(len(flat), dtype=weight.dtype)
    for gain, place, level in sorted(offers, reverse=True)[:k]:
        if gain > 0:
            found[place] = level
    return found.reshape(weight.shape)


def sparse_levels_with_zero(weight, levels, k):
    """Zero is made one of the levels; gain = l (2 w - l); what gains least is set to 0."""
    table = torch.cat([levels.new_zeros(1), levels])
    rounded = table[(weight.unsqueeze(-1) - table).square().min(-1).indices]
    gain = (rounded * (2 * weight - rounded)).flatten()
    drop = gain.topk(max(weight.numel() - k, 0), largest=False).indices
    return rounded.flatten().index_fill(0, drop, 0.0).view_as(weight)


# -- 7.8 --------------------------------------------------------------------------------------------

def admm_unscaled(A, b, project, rho, steps):
    """With the multiplier itself, y = rho u."""
    z, y, gaps = torch.zeros_like(b), torch.zeros_like(b), []
    system = A + rho * torch.eye(len(b), dtype=A.dtype)
    for _ in range(steps):
        w = torch.linalg.solve(system, b + rho * z - y)
        z = project(w + y / rho)
        y = y + rho * (w - z)
        gaps.append(float(torch.linalg.vector_norm(w - z)))
    return z, gaps


def admm_by_inverse(A, b, project, rho, steps):
    """Inverted once; the running sum of the differences with the other sign."""
    inverse = torch.linalg.inv(A + torch.diag(torch.full_like(b, rho)))
    z, minus_u, gaps = b * 0, b * 0, []
    for _ in range(steps):
        w = inverse @ (b + rho * (z + minus_u))
        z = project(w - minus_u)
        minus_u = minus_u - (w - z)
        gaps.append((w - z).square().sum().sqrt())
    return z, gaps


# -- 7.9 --------------------------------------------------------------------------------------------

def parts_in_double(matrix, rank, nonzeros, steps):
    """By the eigenvectors of M M^T, and by a mask."""
    M = matrix.double()
    S = torch.zeros_like(M)
    for _ in range(steps):
        basis = torch.linalg.eigh((M - S) @ (M - S).T).eigenvectors.flip(1)[:, :rank]
        L = basis @ (basis.T @ (M - S))
        mask = torch.zeros(M.numel(), dtype=torch.bool)
        mask[(M - L).abs().flatten().topk(nonzeros).indices] = True
        S = (M - L) * mask.view_as(M)
    return L.to(matrix.dtype), S.to(matrix.dtype)


def parts_by_zeroing(matrix, rank, nonzeros, steps):
    S = torch.zeros_like(matrix)
    for _ in range(steps):
        U, s, Vh = torch.linalg.svd(matrix - S)
        s = torch.where(torch.arange(len(s)) < rank, s, torch.zeros_like(s))
        L = U[:, :len(s)] @ torch.diag(s) @ Vh[:len(s)]
        rest = (matrix - L).flatten()
        drop = rest.abs().argsort()[:rest.numel() - nonzeros]
        S = rest.index_fill(0, drop, 0.0).view_as(matrix)
    return L, S


# -- 7.10 -------------------------------------------------------------------------------------------

def effect_by_scipy(rows, first, second):
    """Two loops and Student's quantile."""
    means = []
    for seed in sorted({row["seed"] for row in rows}):
        own = {tuple(row["order"]): row["accuracy"] for row in rows if row["seed"] == seed}
        gains = []
        for order in own:
            i = order.index(first)
            if order[i + 1:i + 2] == (second,):
                other = list(order)
                other[i], other[i + 1] = second, first
                gains.append(own[order] - own[tuple(other)])
        means.append(sum(gains) / len(gains))
    values = torch.tensor(means, dtype=torch.float64)
    mean, n = values.mean().item(), len(values)
    half = student.ppf(0.975, n - 1) * values.std().item() / n**0.5
    return mean, mean - half, mean + half


def effect_by_joining(rows, first, second):
    """Both as one word: an order with the pair in it, and the same with the pair turned."""
    accuracy = {(" ".join(row["order"]), row["seed"]): row["accuracy"] for row in rows}
    here, turned = f"{first} {second}", f"{second} {first}"
    orders = {name for name, _ in accuracy if here in name}
    seeds = {seed for _, seed in accuracy}
    return mean_interval([sum(accuracy[o, s] - accuracy[o.replace(here, turned), s] for o in orders) / len(orders) for s in seeds])


# -- 7.11 -------------------------------------------------------------------------------------------

def clip_by_sorting(layer, action, costs, spent, budget):
    """The dearest first, down to one that leaves enough."""
    least_later = 0
    for row in costs[layer + 1:]:
        least_later += min(row)
    own = costs[layer]
    if spent + own[action] + least_later <= budget:
        return action
    for candidate in sorted(range(len(own)), key=own.__getitem__, reverse=True):
        if spent + own[candidate] + least_later <= budget:
            return candidate
    raise ValueError(f"at least {spent + min(own) + least_later:,} bytes are needed")


def clip_with_tensors(layer, action, costs, spent, budget):
    own = torch.tensor(costs[layer])
    least = spent + sum(min(row) for row in costs[layer:])
    if least > budget:
        raise ValueError(f"the budget cannot be met; the smallest that can is {int(least)}")
    room = budget - least + int(own.min())
    if own[action] <= room:
        return action
    return int(torch.where(own <= room, own, torch.full_like(own, -1)).argmax())


# -- 7.12 -------------------------------------------------------------------------------------------

def compress_by_autograd(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """The values are a parameter, masked places point at an extra value that stays 0."""
    n = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.abs().flatten().sort(stable=True).indices[:n]] = False
    values, own = kmeans_1d(weight.flatten()[mask], k)
    labels = torch.zeros(weight.numel(), dtype=torch.int64)
    labels[mask] = own + 1
    teacher = copy.deepcopy(teacher)
    teacher.train(False)
    targets = F.softmax(teacher(images), dim=1).detach()
    values, history = values.clone().requires_grad_(), []
    for step in range(steps + 1):
        decoded = torch.cat([torch.zeros(1), values])[labels].reshape(weight.shape)
        score = [((x @ decoded.T).argmax(1) == y).double().mean().item() for x, y in (validation, test)]
        history.append((-score[0], step, score[1], decoded.detach()))
        loss = -(targets * (images @ decoded.T).log_softmax(1)).sum(1).mean()
        gradient, = torch.autograd.grad(loss, values)
        values = (values - lr * gradient).detach().requires_grad_()
    _, _, accuracy, stored = min(history, key=lambda item: item[:2])
    return stored, accuracy


def compress_with_clusters_looped(weight, teacher, images, validation, test, sparsity, k, steps, lr):
    """Cluster by cluster: the gradient of a shared value is the sum over its members."""
    flat = weight.flatten().clone()
    flat[flat.abs().argsort(stable=True)[:round(sparsity * len(flat))]] = 0
    places = (flat != 0).nonzero().flatten()
    values, labels = kmeans_1d(flat[places], k)
    values = values.clone()
    members = [places[labels == j] for j in range(len(values))]
    calm = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        targets = calm(images).softmax(1)
    best = None
    for _ in range(steps + 1):
        decoded = torch.zeros_like(flat)
        for value, own in zip(values, members):
            decoded[own] = value
        decoded = decoded.view_as(weight)
        score = float(((validation[0] @ decoded.T).argmax(1) == validation[1]).sum())
        if best is None or score > best[0]:
            best = (score, decoded.clone())
        logits = images @ decoded.T
        slope = ((logits.softmax(1) - targets).T @ images / len(images)).flatten()
        for j, own in enumerate(members):
            values[j] -= lr * slope[own].sum()
    x, y = test
    return best[1], ((x @ best[1].T).argmax(1) == y).double().mean().item()

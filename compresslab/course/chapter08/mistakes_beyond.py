"""Typical wrong answers to exercises 8.6 to 8.9: each one is run, to recognise it in a learner's answer.

What a good teacher says about each stands in `exercises_beyond`.
"""

from __future__ import annotations

import math

from compresslab.course.chapter08.references_beyond import break_even as right_number
from compresslab.course.chapter08.references_beyond import changed_answers as right_changes
from compresslab.course.chapter08.references_beyond import layer_energy as right_energy


# -- 8.6 changed_answers -----------------------------------------------------------------------------

def _changes(before, after, labels, **other):
    return {**right_changes(before, after, labels), **other}


def only_right_and_wrong(before, after, labels):
    """Changed: right before, wrong now, or the other way round; nothing between wrong answers."""
    return _changes(before, after, labels, changed=((before == labels) != (after == labels)).double().mean().item())


def moved_between_wrong_is_broken(before, after, labels):
    return _changes(before, after, labels, broken=((before != after) & (after != labels)).double().mean().item())


def broken_of_the_right(before, after, labels):
    was, now = before == labels, after == labels
    return _changes(before, after, labels, broken=(was & ~now).sum().item() / max(1, was.sum().item()),
                    mended=(now & ~was).sum().item() / max(1, (~was).sum().item()))


def swapped(before, after, labels):
    found = right_changes(before, after, labels)
    return {**found, "broken": found["mended"], "mended": found["broken"]}


def counts(before, after, labels):
    found = right_changes(before, after, labels)
    return {**found, **{key: found[key] * len(labels) for key in ("changed", "broken", "mended")}}


def percent(before, after, labels):
    found = right_changes(before, after, labels)
    return {**found, **{key: found[key] * 100 for key in ("changed", "broken", "mended")}}


def _by_class(before, after, labels, classes, change):
    by_class = {}
    for label in classes.unique().tolist():
        chosen = classes == label
        by_class[label] = change((before == labels)[chosen].double(), (after == labels)[chosen].double())
    return _changes(before, after, labels, by_class=by_class, worst=min(by_class, key=by_class.get))


def classes_by_answer(before, after, labels):
    return _by_class(before, after, labels, before, lambda was, now: (now.mean() - was.mean()).item())


def before_minus_after(before, after, labels):
    found = _by_class(before, after, labels, labels, lambda was, now: (was.mean() - now.mean()).item())
    return {**found, "worst": max(found["by_class"], key=found["by_class"].get)}


def best_class(before, after, labels):
    found = right_changes(before, after, labels)
    return {**found, "worst": max(found["by_class"], key=found["by_class"].get)}


def accuracy_by_class(before, after, labels):
    return _by_class(before, after, labels, labels, lambda was, now: now.mean().item())


def share_of_all_images(before, after, labels):
    n = len(labels)
    return _by_class(before, after, labels, labels, lambda was, now: (now.sum() - was.sum()).item() / n)


def changed_by_class(before, after, labels):
    changed = right_changes(before, after, labels)
    by_class = {label: -(before != after)[labels == label].double().mean().item() for label in labels.unique().tolist()}
    return {**changed, "by_class": by_class, "worst": min(by_class, key=by_class.get)}


def broken_by_class(before, after, labels):
    broken = (before == labels) & (after != labels)
    by_class = {label: -broken[labels == label].double().mean().item() for label in labels.unique().tolist()}
    return _changes(before, after, labels, by_class=by_class, worst=min(by_class, key=by_class.get))


def all_ten(before, after, labels):
    """A class without an image gets a change, too."""
    found = right_changes(before, after, labels)
    by_class = {label: found["by_class"].get(label, 0.0) for label in range(10)}
    return {**found, "by_class": by_class, "worst": min(by_class, key=by_class.get)}


def last_of_equals(before, after, labels):
    found = right_changes(before, after, labels)
    return {**found, "worst": min(reversed(found["by_class"]), key=found["by_class"].get)}


# -- 8.7 calibration_error ---------------------------------------------------------------------------

def _grouped(confidence, right, bins, index, gap=lambda right, sure: abs(right - sure), weigh=True):
    total, groups, n = 0.0, index.unique().tolist(), len(right)
    for k in groups:
        chosen = index == k
        share = chosen.sum().item() / n if weigh else 1 / len(groups)
        total += share * gap(right[chosen].mean().item(), confidence[chosen].mean().item())
    return total


def _ready(probabilities, labels, bins):
    confidence, answers = probabilities.double().max(dim=1)
    return confidence, (answers == labels).double(), (confidence * bins).ceil().long() - 1


def signed_gaps(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, index, lambda r, c: r - c)


def signed_then_absolute(probabilities, labels, bins=15):
    """One gap for all images: over-confident and under-confident groups cancel."""
    confidence, right, _ = _ready(probabilities, labels, bins)
    return abs(right.mean() - confidence.mean()).item()


def every_group_alike(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, index, weigh=False)


def over_all_bins(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, index, weigh=False) * len(index.unique()) / bins


def summed_not_averaged(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return len(labels) * _grouped(confidence, right, bins, index)


def empty_groups_are_nan(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, index) if len(index.unique()) == bins else math.nan


def largest_gap(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return max(abs(right[index == k].mean() - confidence[index == k].mean()).item() for k in index.unique().tolist())


def squared_gaps(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, index, lambda r, c: (r - c) ** 2)


def probability_of_the_label(probabilities, labels, bins=15):
    confidence = probabilities.double().gather(1, labels[:, None]).squeeze(1)
    right = (probabilities.argmax(1) == labels).double()
    return _grouped(confidence, right, bins, (confidence * bins).ceil().long() - 1)


def low_end_belongs(probabilities, labels, bins=15):
    confidence, right, _ = _ready(probabilities, labels, bins)
    return _grouped(confidence, right, bins, (confidence * bins).floor().long().clamp(max=bins - 1))


def sure_ones_lost(probabilities, labels, bins=15):
    """low <= confidence < high: nobody takes the images with confidence 1."""
    confidence, right, _ = _ready(probabilities, labels, bins)
    n, seen = len(labels), confidence < 1
    if not seen.any():
        return 0.0
    return _grouped(confidence[seen], right[seen], bins, (confidence[seen] * bins).floor().long()) * int(seen.sum()) / n


def equally_many(probabilities, labels, bins=15):
    confidence, right, _ = _ready(probabilities, labels, bins)
    order = confidence.argsort(stable=True)
    index = confidence.new_zeros(len(order)).long()
    index[order] = (order.new_tensor(range(len(order))) * bins) // len(order)
    return _grouped(confidence, right, bins, index)


def middle_of_the_bin(probabilities, labels, bins=15):
    _, right, index = _ready(probabilities, labels, bins)
    return _grouped((index + 0.5).double() / bins, right, bins, index)


def softmax_again(probabilities, labels, bins=15):
    confidence, right, index = _ready(probabilities.softmax(1), labels, bins)
    return _grouped(confidence, right, bins, index)


def in_percent(probabilities, labels, bins=15):
    return 100 * _grouped(*(ready := _ready(probabilities, labels, bins))[:2], bins, ready[2])


# -- 8.8 layer_energy --------------------------------------------------------------------------------

def narrower_unit(macs, weights, activations, bits, costs):
    """The unit that the smaller of the two kinds of numbers would fit into."""
    width = min(width for width in costs["mac"] if width >= min(bits))
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][width]}


def weights_decide(macs, weights, activations, bits, costs):
    width = min(width for width in costs["mac"] if width >= bits[0])
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][width]}


def always_the_widest(macs, weights, activations, bits, costs):
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][max(costs["mac"])]}


def exact_widths_only(macs, weights, activations, bits, costs):
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][max(bits)]}


def next_narrower(macs, weights, activations, bits, costs):
    fitting = [width for width in costs["mac"] if width <= max(bits)] or [min(costs["mac"])]
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][max(fitting)]}


def first_listed(macs, weights, activations, bits, costs):
    """The first unit in the order of the dict that is wide enough."""
    width = next(width for width in costs["mac"] if width >= max(bits))
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][width]}


def scaled_with_bits(macs, weights, activations, bits, costs):
    return {**right_energy(macs, weights, activations, bits, costs), "compute": macs * costs["mac"][max(costs["mac"])] * max(bits) / max(costs["mac"])}


def levels_swapped(macs, weights, activations, bits, costs):
    return right_energy(macs, weights, activations, bits, {**costs, "dram": costs["sram"], "sram": costs["dram"]})


def all_from_dram(macs, weights, activations, bits, costs):
    return right_energy(macs, weights, activations, bits, {**costs, "sram": costs["dram"]})


def bits_swapped(macs, weights, activations, bits, costs):
    return right_energy(macs, weights, activations, bits[::-1], costs)


def bytes_not_bits(macs, weights, activations, bits, costs):
    found = right_energy(macs, weights, activations, bits, costs)
    return {**found, "weights": found["weights"] / 8, "activations": found["activations"] / 8}


def numbers_not_bits(macs, weights, activations, bits, costs):
    return {**right_energy(macs, weights, activations, bits, costs), "weights": weights * costs["dram"], "activations": activations * costs["sram"]}


def words_not_bits(macs, weights, activations, bits, costs):
    found = right_energy(macs, weights, activations, bits, costs)
    return {**found, "weights": found["weights"] / 32, "activations": found["activations"] / 32}


def fetched_for_every_mac(macs, weights, activations, bits, costs):
    return {**right_energy(macs, weights, activations, bits, costs), "weights": macs * bits[0] * costs["dram"]}


def one_total(macs, weights, activations, bits, costs):
    return sum(right_energy(macs, weights, activations, bits, costs).values())


# -- 8.9 break_even ----------------------------------------------------------------------------------

def not_rounded(cost_once, cost_before, cost_after):
    return right_number(cost_once, cost_before, cost_after) if cost_once <= 0 or cost_before <= cost_after else cost_once / (cost_before - cost_after)


def rounded_down(cost_once, cost_before, cost_after):
    exact = not_rounded(cost_once, cost_before, cost_after)
    return exact if exact == math.inf else math.floor(exact)


def rounded_to_nearest(cost_once, cost_before, cost_after):
    exact = not_rounded(cost_once, cost_before, cost_after)
    return exact if exact == math.inf else round(exact)


def strictly_ahead(cost_once, cost_before, cost_after):
    """The first use that leaves something over."""
    exact = not_rounded(cost_once, cost_before, cost_after)
    return exact if exact == math.inf else math.floor(exact) + 1


def use_is_free_afterwards(cost_once, cost_before, cost_after):
    return math.ceil(cost_once / cost_before) if cost_before > 0 else math.inf if cost_once > 0 else 0


def paid_by_use_afterwards(cost_once, cost_before, cost_after):
    return math.ceil(cost_once / cost_after) if cost_after > 0 else math.inf if cost_once > 0 else 0


def divided_by_the_ratio(cost_once, cost_before, cost_after):
    return math.ceil(cost_once / (cost_before / cost_after)) if cost_after > 0 and cost_before > 0 else math.inf if cost_once > 0 else 0


def negative_number(cost_once, cost_before, cost_after):
    """No look at the sign of the saving."""
    saving = cost_before - cost_after
    return math.ceil(cost_once / saving) if saving else math.inf if cost_once > 0 else 0


def division_by_zero(cost_once, cost_before, cost_after):
    return math.ceil(cost_once / (cost_before - cost_after))


def absolute_saving(cost_once, cost_before, cost_after):
    saving = abs(cost_before - cost_after)
    return math.ceil(cost_once / saving) if saving else math.inf if cost_once > 0 else 0


def never_is_none(cost_once, cost_before, cost_after):
    paid = right_number(cost_once, cost_before, cost_after)
    return None if paid == math.inf else paid


def never_is_zero(cost_once, cost_before, cost_after):
    paid = right_number(cost_once, cost_before, cost_after)
    return 0 if paid == math.inf else paid


def free_and_never(cost_once, cost_before, cost_after):
    """Infinity wherever nothing is saved, even if nothing was spent."""
    saving = cost_before - cost_after
    return math.ceil(cost_once / saving) if saving > 0 else math.inf


def at_least_once(cost_once, cost_before, cost_after):
    return max(1, right_number(cost_once, cost_before, cost_after))

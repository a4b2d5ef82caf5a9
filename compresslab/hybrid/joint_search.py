r"""One byte budget for everything: a sparsity and a bit width for every layer, searched together.

.. math:: \max_a \mathrm{score}(a) \quad \text{s.t.} \quad \sum_l \mathrm{bytes}_l(a_l) \le B

where an action :math:`a_l` is a pair (sparsity, bits). ``allocate`` takes the errors of single layers as
additive and is then exact; ``evolve_settings`` scores whole networks; ``uniform_settings`` is the control
that both must beat; ``clip_action`` lets any searcher, random or learned, keep the budget while it walks
through the layers. What a choice costs was measured before: ``joint_options``.
"""

from collections.abc import Callable, Sequence

from torch import nn

from compresslab.core.errors import check_int, where
from compresslab.core.evolution import SearchResult, evolve_genes
from compresslab.core.knapsack import check_budget, choose_within_budget, smallest_budget
from compresslab.core.layers import decompress
from compresslab.core.train import accuracy
from compresslab.data import Split
from compresslab.hybrid.joint_options import (
    Options,
    Setting,
    Settings,
    apply_settings,
    option_bytes,
    settings_bytes,
    settings_error,
)

Score = Callable[[Settings], float]


def allocate(options: Options, budget_bytes: int) -> Settings:
    """The settings of least total error within a budget for the codes: exact, an integer program.

    Args:
        options: from ``layer_options``; the errors of layers are taken as additive.
        budget_bytes: for the codes alone; ``file_budget`` makes it of a budget for the file.

    Raises:
        ValueError: the budget cannot be met; the message says the smallest that can.

    Example:
        >>> from compresslab.hybrid.joint_options import Option
        >>> a = {(0.0, 4): Option(40, 1.0), (0.9, 2): Option(5, 4.0)}
        >>> b = {(0.0, 4): Option(40, 1.0), (0.9, 2): Option(5, 9.0)}
        >>> allocate({"a": a, "b": b}, 50)
        {'a': (0.9, 2), 'b': (0.0, 4)}
    """
    costs = _checked_costs(options, budget_bytes)
    errors = {layer: {s: option.error for s, option in row.items()} for layer, row in options.items()}
    return choose_within_budget(errors, costs, budget_bytes)


def _checked_costs(options: Options, budget_bytes: int) -> dict[str, dict[Setting, int]]:
    costs = option_bytes(options)
    check_int("budget_bytes", budget_bytes, 0)
    check_budget(costs, budget_bytes, "bytes")
    return costs


def uniform_settings(
    options: Options, budget_bytes: int, *, score: Score | None = None
) -> Settings:
    """The best single setting for all layers within a budget: the control of every search.

    Args:
        options: from ``layer_options``; only settings that every layer offers come into question.
        budget_bytes: for the codes.
        score: settings -> higher is better; None takes the least total error.

    Raises:
        ValueError: no single setting keeps the budget; the message says the smallest that one does.
    """
    option_bytes(options)
    check_int("budget_bytes", budget_bytes, 0)
    rows = list(options.values())
    everywhere = [dict.fromkeys(options, s) for s in rows[0] if all(s in row for row in rows)]
    if not everywhere:
        raise ValueError("no setting is offered by every layer")
    fitting = [one for one in everywhere if settings_bytes(options, one) <= budget_bytes]
    if not fitting:
        least = min(settings_bytes(options, one) for one in everywhere)
        raise ValueError(
            f"one setting for all cannot keep a budget of {budget_bytes} bytes; "
            f"the smallest that can is {least}"
        )
    return max(fitting, key=score or (lambda one: -settings_error(options, one)))


def settings_accuracy(model: nn.Module, split: Split, options: Options | None = None) -> Score:
    """The true score: the accuracy of the network that is really compressed so.

    Args:
        model: the trained network.
        split: validation images; a search that looks at test images has chosen by them.
        options: as in ``apply_settings``: with them no layer is coded twice.

    Returns:
        settings -> accuracy, in [0, 1].
    """

    def score(settings: Settings) -> float:
        return accuracy(decompress(apply_settings(model, settings, options=options)), split)

    return score


def evolve_settings(
    options: Options,
    score: Score,
    budget_bytes: int,
    *,
    start: Sequence[Settings] = (),
    population: int = 16,
    parents: int = 5,
    generations: int = 8,
    mutation: float = 0.2,
    seed: int = 0,
) -> SearchResult:
    """Look for the settings of highest score within a budget, by evolution; no additivity is assumed.

    Args:
        options: from ``layer_options``; their errors are not used, only their bytes.
        score: settings -> higher is better, such as ``settings_accuracy``; called once for each candidate.
        budget_bytes: for the codes; ``file_budget`` makes it of a budget for the file.
        start: settings of the first generation; with those of ``allocate`` in it the result is never worse.
        population, parents, generations, mutation, seed: as in ``core.evolution.evolve_genes``.

    Returns:
        a ``SearchResult``: ``best`` (settings), ``score``, ``history``, and ``scores`` by tuples of
        (layer, setting) pairs.

    Raises:
        TypeError, ValueError: the budget cannot be met (the message says the smallest that can), an argument
            out of range, settings in ``start`` that are not offered, or a score that is nan.

    Source:
        T. Wang et al., "APQ: Joint Search for Network Architecture, Pruning and Quantization Policy", CVPR
        2020, for evolution over prunings and bit widths together.
    Differs: no architecture is searched, and the score is the caller's, not a learned predictor.

    Example:
        >>> from compresslab.hybrid.joint_options import Option
        >>> row = {(0.9, 2): Option(5, 4.0), (0.5, 4): Option(20, 2.0), (0.0, 4): Option(40, 1.0)}
        >>> found = evolve_settings({"a": row, "b": row}, lambda s: 2 * s["a"][1] + s["b"][1], 45)
        >>> found.best["a"], found.score
        ((0.5, 4), 12.0)
    """
    costs = _checked_costs(options, budget_bytes)
    rows = {layer: sorted(row, key=lambda s, row=row: (row[s], s)) for layer, row in costs.items()}

    def decode(genes: tuple[int, ...]) -> tuple[tuple[str, Setting], ...]:
        return tuple((layer, row[i]) for (layer, row), i in zip(rows.items(), genes, strict=True))

    def encoded(settings: Settings) -> list[int]:
        settings_bytes(options, settings)
        return [row.index(settings[layer]) for layer, row in rows.items()]

    found = evolve_genes(
        [range(len(row)) for row in rows.values()],
        decode,
        lambda pairs: score(dict(pairs)),
        lambda pairs: sum(costs[layer][setting] for layer, setting in pairs),
        budget_bytes,
        start=[encoded(settings) for settings in start],
        population=population,
        parents=parents,
        generations=generations,
        mutation=mutation,
        seed=seed,
    )
    return SearchResult(dict(found.best), found.score, found.scores, found.history)


def clip_action(layer: str, action: Setting, options: Options, spent: int, budget_bytes: int) -> Setting:
    r"""AMC's rule: change an action just so much that the budget can still be met.

    A searcher walks through the layers in their order. What it may spend here is what is left when all the
    layers to come are compressed as much as they can be:

    .. math:: \mathrm{bytes}_l(a) \le B - \mathrm{spent} - \sum_{l' > l} \min_{a'} \mathrm{bytes}_{l'}(a')

    An action that keeps this stays. Otherwise the dearest setting that keeps it takes its place (of equally
    dear ones that of the least error).

    Args:
        layer: the one whose turn it is.
        action: the (sparsity, bits) that was proposed for it, one of those offered.
        options: layer -> setting -> ``Option``; the order of the walk is that of the table.
        spent: bytes of the layers before.
        budget_bytes: B, for the codes of all layers.

    Returns:
        the action, or what took its place.

    Raises:
        TypeError, ValueError: an unknown layer or action, or a budget that can no longer be met; the message
            says the smallest that can.

    Source:
        Y. He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018.
    Differs: the paper clips a channel ratio against a budget of operations; here it is bytes, with bits.

    Example:
        >>> from compresslab.hybrid.joint_options import Option
        >>> row = {(0.9, 2): Option(5, 4.0), (0.5, 4): Option(20, 2.0), (0.0, 4): Option(40, 1.0)}
        >>> clip_action("a", (0.0, 4), {"a": row, "b": row}, spent=0, budget_bytes=30)  # 25 are left for a
        (0.5, 4)
    """
    costs = option_bytes(options)
    check_int("spent", spent, 0)
    check_int("budget_bytes", budget_bytes, 0)
    if layer not in costs:
        raise ValueError(f"there is no layer {layer!r}; the options are of {', '.join(costs)}")
    if action not in costs[layer]:
        offered = ", ".join(map(str, costs[layer]))
        raise ValueError(f"the action must be one of {offered}, got {action}{where(layer)}")
    order = list(costs)
    later = smallest_budget({name: costs[name] for name in order[order.index(layer) + 1 :]})
    room = budget_bytes - spent - later
    fitting = [setting for setting, size in costs[layer].items() if size <= room]
    if not fitting:
        least = spent + later + min(costs[layer].values())
        raise ValueError(
            f"a budget of {budget_bytes} bytes cannot be met; the smallest that can is {least}{where(layer)}"
        )
    if action in fitting:
        return action
    return max(fitting, key=lambda setting: (costs[layer][setting], -options[layer][setting].error))


def clip_settings(options: Options, proposed: Settings, budget_bytes: int) -> Settings:
    """Walk through the layers, each proposed action clipped by ``clip_action``: the budget is always met.

    Args:
        options: layer -> setting -> ``Option``, in the order of the walk.
        proposed: layer -> (sparsity, bits), as bold as it likes.
        budget_bytes: for the codes.

    Raises:
        TypeError, ValueError: as ``clip_action``; or a layer without a proposal.
    """
    settings_bytes(options, proposed)
    spent, settings = 0, {}
    for layer in options:
        settings[layer] = clip_action(layer, proposed[layer], options, spent, budget_bytes)
        spent += options[layer][settings[layer]].bytes
    return settings

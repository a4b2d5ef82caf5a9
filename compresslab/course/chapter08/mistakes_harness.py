"""Typical half-repaired comparisons of exercise 8.10: each one is run, to recognise it in a learner's answer.

All are `compare_fairly` with one or more of its parts exchanged.
"""

from __future__ import annotations


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def first_best(run):
    """The test accuracy after the epoch that was best on validation images."""
    return run["test"][run["validation"].index(max(run["validation"]))]


def _groups(runs, keep_failed=True):
    tried = {}
    for run in runs:
        if run["method"] != "dense" and (keep_failed or not run["failed"]):
            tried.setdefault(run["method"], {}).setdefault(run["setting"], []).append(run)
    return tried


def _whole(settings):
    return {setting: group for setting, group in settings.items() if not any(run["failed"] for run in group)}


def _validated(group):
    return _mean(max(run["validation"]) for run in group)


def _paired(dense, group, judge):
    return _mean(judge(dense[run["seed"]]) - judge(run) for run in group)


def _harness(runs, *, score=_validated, judge=first_best, usable=_whole, size=lambda group: _mean(run["file_bytes"] for run in group), loss=None, keep_failed=True):
    """The repaired comparison with some of its parts exchanged."""
    dense, table = {run["seed"]: run for run in runs if run["method"] == "dense"}, {}
    for method, settings in _groups(runs, keep_failed).items():
        settings, table[method] = usable(settings), None
        if settings:
            setting, group = max(settings.items(), key=lambda item: score(item[1]))
            lost = loss(dense, group) if loss else _paired(dense, group, judge)
            table[method] = {"setting": setting, "file_bytes": size(group), "loss": lost}
    return table


def all_bugs(runs):
    """The buggy function of the notebook."""
    dense = next(run["test"][-1] for run in runs if run["method"] == "dense")
    return _harness(runs, score=lambda group: _mean(max(run["test"]) for run in group), usable=dict, keep_failed=False,
                    size=lambda group: 4 * _mean(run["nonzeros"] for run in group), loss=lambda _, group: dense - _mean(max(run["test"]) for run in group))


def setting_on_test(runs):
    return _harness(runs, score=lambda group: _mean(first_best(run) for run in group))


def setting_on_best_test(runs):
    return _harness(runs, score=lambda group: _mean(max(run["test"]) for run in group))


def epoch_on_test(runs):
    return _harness(runs, loss=lambda dense, group: _mean(first_best(dense[run["seed"]]) - max(run["test"]) for run in group))


def epoch_on_test_for_all(runs):
    return _harness(runs, judge=lambda run: max(run["test"]))


def setting_and_epoch_on_test(runs):
    return _harness(runs, judge=lambda run: max(run["test"]), score=lambda group: _mean(max(run["test"]) for run in group))


def last_epoch_for_all(runs):
    return _harness(runs, judge=lambda run: run["test"][-1])


def setting_by_last_epoch(runs):
    return _harness(runs, score=lambda group: _mean(run["validation"][-1] for run in group))


def setting_by_best_seed(runs):
    return _harness(runs, score=lambda group: max(max(run["validation"]) for run in group))


def setting_by_sum(runs):
    return _harness(runs, score=lambda group: sum(max(run["validation"]) for run in group))


def dense_after_last_epoch(runs):
    return _harness(runs, loss=lambda dense, group: _mean(dense[run["seed"]]["test"][-1] - first_best(run) for run in group))


def dense_of_one_seed(runs):
    return _harness(runs, loss=lambda dense, group: first_best(next(iter(dense.values()))) - _mean(map(first_best, group)))


def dense_of_all_seeds(runs):
    return _harness(runs, loss=lambda dense, group: _mean(map(first_best, dense.values())) - _mean(map(first_best, group)))


def dense_at_its_best(runs):
    """Unfair in the other direction: the best test epoch of the dense network."""
    return _harness(runs, loss=lambda dense, group: _mean(max(dense[run["seed"]]["test"]) - first_best(run) for run in group))


def nonzeros_only(runs):
    return _harness(runs, size=lambda group: 4 * _mean(run["nonzeros"] for run in group))


def smallest_file(runs):
    return _harness(runs, size=lambda group: min(run["file_bytes"] for run in group))


def summed_files(runs):
    return _harness(runs, size=lambda group: sum(run["file_bytes"] for run in group))


def survivors_only(runs):
    """Failed runs are dropped, and the others speak for the setting; a method without any is not in the table."""
    return _harness(runs, usable=dict, keep_failed=False)


def survivors_or_none(runs):
    """Failed runs are dropped; a method without any other has the row None."""
    def alive(settings):
        kept = {setting: [run for run in group if not run["failed"]] for setting, group in settings.items()}
        return {setting: group for setting, group in kept.items() if group}

    return _harness(runs, usable=alive)


def failed_methods_forgotten(runs):
    return {method: row for method, row in _harness(runs).items() if row is not None}


def one_failure_fails_the_method(runs):
    return _harness(runs, usable=lambda settings: settings if settings == _whole(settings) else {})


def gain_not_loss(runs):
    return _harness(runs, loss=lambda dense, group: -_paired(dense, group, first_best))


def accuracy_not_loss(runs):
    return _harness(runs, loss=lambda _, group: _mean(map(first_best, group)))


def worst_seed(runs):
    return _harness(runs, loss=lambda dense, group: max(first_best(dense[run["seed"]]) - first_best(run) for run in group))


def best_seed(runs):
    return _harness(runs, loss=lambda dense, group: min(first_best(dense[run["seed"]]) - first_best(run) for run in group))


def last_of_equal_epochs(runs):
    def last_best(run):
        top = max(run["validation"])
        return [test for validation, test in zip(run["validation"], run["test"]) if validation == top][-1]

    return _harness(runs, judge=last_best)


def dense_in_the_table(runs):
    dense = {run["seed"]: run for run in runs if run["method"] == "dense"}
    own = {"setting": "", "file_bytes": _mean(run["file_bytes"] for run in dense.values()), "loss": 0.0}
    return {"dense": own, **_harness(runs)}

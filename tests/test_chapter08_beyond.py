"""Chapter 08, second half: its answers against the library, and what its tables and figures say."""

import matplotlib.pyplot as plt
import pytest
import torch

from compresslab.compare.beyond import calibration_error, changed_answers, class_damage, worst_class
from compresslab.compare.energy import access_energy, energy, mac_energy
from compresslab.compare.pareto import break_even
from compresslab.compare.results import pack_correct
from compresslab.course.chapter08 import figures_beyond as drawn
from compresslab.course.chapter08 import references_beyond as references
from compresslab.course.chapter08.mistakes_harness import all_bugs

COSTS = {"mac": {8: mac_energy("int8"), 16: mac_energy("float16"), 32: mac_energy("float32")},
         "dram": access_energy(1, "dram"), "sram": access_energy(1, "sram_1m")}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def draw(n: int, classes: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(classes, (n,), generator=generator) for _ in range(3))


@pytest.mark.parametrize("seed", range(3))
def test_changed_answers_are_the_library_s(seed):
    before, after, labels = draw(200, 5, seed)
    found, library = references.changed_answers(before, after, labels), changed_answers(labels, before, after)
    assert (found["changed"], found["broken"], found["mended"]) == pytest.approx((library.changed, library.broken, library.mended))
    damage = class_damage(labels, before, after)
    assert found["by_class"] == pytest.approx({label: change.difference for label, change in damage.items()})
    assert found["worst"] == worst_class(damage)[0]


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_is_the_library_s(bins):
    probabilities = torch.randn(300, 10, generator=torch.Generator().manual_seed(bins)).mul(2).softmax(1)
    labels = draw(300, 10, bins)[2]
    assert references.calibration_error(probabilities, labels, bins) == pytest.approx(calibration_error(probabilities, labels, bins))


@pytest.mark.parametrize(("bits", "arithmetic"), [((32, 32), "float32"), ((4, 32), "float32"), ((8, 8), "int8"), ((12, 16), "float16")])
def test_energy_is_the_library_s(bits, arithmetic):
    library = energy(1000, 200, 30, weight_bits=bits[0], activation_bits=bits[1], arithmetic=arithmetic)
    found = references.layer_energy(1000, 200, 30, bits, COSTS)
    assert found == pytest.approx({"compute": library.compute_pj, "weights": library.weights_pj, "activations": library.activations_pj})


@pytest.mark.parametrize(("once", "before", "after"), [(10, 3, 1), (9, 4, 1), (0, 1, 2), (5, 1, 1), (5, 1, 2), (100, 2.5, 2.25)])
def test_break_even_is_the_library_s(once, before, after):
    assert references.break_even(once, before, after) == break_even(once, before - after)


def row(family: str, correct: torch.Tensor, **more: float) -> dict:
    return {"network": "toy", "family": family, "n": len(correct), "accuracy": correct.double().mean().item(), "answers": pack_correct(correct),
            "flips": 0.01, "worst_class_change": -0.01, "kl": 0.1, "ece": 0.02, "corrupted_accuracy": 0.5} | more


def test_rows_that_cannot_be_told_from_their_original_are_found_and_summarised():
    right = torch.arange(1000) >= 50
    dense = row("dense", right)
    near, far = row("pruning", right.roll(3), flips=0.02, corrupted_accuracy=0.4), row("pruning", torch.arange(1000) >= 150)
    assert drawn.like_the_original([dense, near, far]) == [near]
    line = drawn.changes_by_family([near], {"toy": dense}).splitlines()[1].split()
    assert line[:6] == ["pruning", "1", "+0.00", "p", "2.00", "%"] and line[-2:] == ["-10.00", "p"]
    assert len(drawn.changed_against_lost([near, far], {"toy": dense}).axes[0].lines) == 3  # one row within 3 points, and two guides


def test_a_form_that_is_not_possible_says_why():
    measured = {"network": "net", "form": "dense", "parameters": 10, "file_bytes": 2**20, "macs": 10**9, "latency_ms": 1.0, "speedup": 1.0,
                "speedup_low": 0.9, "speedup_high": 1.1, "peak_activation_bytes": 2**21, "note": ""}
    gone = dict.fromkeys(measured) | {"network": "net", "form": "decomposed", "note": "not possible: no layer"}
    lines = drawn.public_table([measured, gone]).splitlines()
    assert "1.00 (?)" in lines[1] and lines[2].endswith("not possible: no layer")
    assert len(drawn.public([measured, gone]).axes) == 4


def test_choosing_on_test_images_makes_gains_out_of_nothing():
    """The claim of the debugging task, on its own kind of data: every accuracy has the same true value."""
    generator, gains = torch.Generator().manual_seed(0), {all_bugs: [], references.compare_fairly: []}

    def curve() -> list[float]:
        return (torch.binomial(torch.full((8,), 2000.0), torch.full((8,), 0.98), generator=generator) / 2000).tolist()

    for _ in range(20):
        runs = [{"method": method, "setting": setting, "seed": seed, "failed": False, "validation": curve(), "test": curve(), "nonzeros": 1, "file_bytes": 4}
                for method in ("dense", "a") for setting in ("1", "2", "3")[: 1 if method == "dense" else 3] for seed in range(3)]
        for harness, values in gains.items():
            values.append(-100 * harness(runs)["a"]["loss"])
    buggy, fair = (sum(values) / len(values) for values in gains.values())
    assert buggy > 0.3 and abs(fair) < 0.15

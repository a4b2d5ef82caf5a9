"""The patients of chapter 11, and the intervals of its A/A test: facts that hold on every machine, no times."""

import pytest
import torch

from compresslab.course.chapter11 import cases, evidence_clock, evidence_verdict
from compresslab.course.chapter11.references_verdict import diagnose
from compresslab.deploy.facts import run_facts
from compresslab.models import load_baseline


@pytest.fixture(scope="module")
def patients():
    return cases.patients(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_each_patient_has_its_illness_if_it_stays_as_fast_as_before(patients):
    wanted = ["zeros are multiplied", "no fast kernel", "no fast kernel", "simulated", "indices", "indices", "indices", "more work", "memory"]
    for patient, cause in zip(patients, wanted, strict=True):
        facts = {name: vars(run_facts(getattr(patient, name), getattr(patient, f"x_{name}"))) for name in ("before", "after")}
        work, rate, found = diagnose({"hoped": patient.hoped, "speedup": (1.0, 0.9, 1.1 if patient.hoped > 1.2 else 1.05), "ridge": 4.0, **facts})
        assert found == cause, patient.name
        assert work * rate == pytest.approx(1)


def test_patients_that_compute_the_same(patients):
    for patient, limit in zip(patients, (None, 0.05, 0.5, None, 1e-4, 1e-4, 1e-4, None, None), strict=True):
        with torch.no_grad():
            before, after = patient.before(patient.x_before), patient.after(patient.x_after).float()
        assert before.shape == after.shape
        if limit is not None:
            torch.testing.assert_close(after, before, rtol=limit, atol=limit)



def test_naive_interval_by_hand():
    ratio, low, high = evidence_clock.naive_interval([3.0, 5.0], [1.0, 3.0])  # means 4, 2; variances 2, 2; error sqrt 2
    assert ratio == pytest.approx(2.0)
    assert (low, high) == (pytest.approx(1 + (2 - 1.96 * 2**0.5) / 2, abs=1e-5), pytest.approx(1 + (2 + 1.96 * 2**0.5) / 2, abs=1e-5))


def test_variants_have_the_shape_of_the_network():
    net, x = load_baseline("resnet8"), torch.zeros(2, 3, 32, 32)
    made = evidence_verdict.variants(net, x)
    with torch.no_grad():
        assert {variant.train(False)(x).shape for variant in made.values()} == {(2, 10)}
    macs = {name: run_facts(variant, x).macs for name, variant in made.items()}
    assert macs["90 % zeros"] == macs["2:4 zeros"] == macs["dense"] > 2 * macs["half the channels"]
    assert macs["dense"] > 2 * macs["low rank"] and macs["dense"] > 4 * macs["compact"]

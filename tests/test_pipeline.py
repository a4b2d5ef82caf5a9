"""The pipeline: a row before the first step and after each, and steps that are wrong."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from compresslab.core import UniformCode, apply_mask_, encode
from compresslab.core.measure import Measurement
from compresslab.core.pipeline import pipeline, step_name
from compresslab.core.train import train
from compresslab.data import load_data


def mask_small(model: nn.Module, sparsity: float) -> nn.Module:
    model = copy.deepcopy(model)
    weight = model[1].weight
    apply_mask_(model[1], weight.abs() > weight.abs().quantile(sparsity))
    return model


def test_mask_train_and_code_give_four_rows():
    data = load_data("digits")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = copy.deepcopy(model.state_dict())
    model = train(model, data.train, epochs=5, progress=False)
    finetune = partial(train, split=data.train, epochs=2, progress=False)
    code = partial(encode, make_code=partial(UniformCode.from_dense, bits=4))
    final, rows = pipeline(model, [partial(mask_small, sparsity=0.5), finetune, code], data.test, repeats=0)
    assert [row.name for row in rows] == ["start", "mask_small", "train", "encode"]
    assert [row.form for row in rows] == ["plain", "simulated", "simulated", "packed"]
    assert all(isinstance(row, Measurement) and row.n == 400 for row in rows)
    assert rows[0].file_bytes == rows[1].file_bytes == rows[2].file_bytes > rows[3].file_bytes
    assert rows[2].accuracy > rows[1].accuracy - 0.02
    assert final(data.test.x()).shape == (400, 10)
    assert (final[1].weight == 0).float().mean() >= 0.49
    assert model.state_dict().keys() == before.keys()


def test_every_row_is_timed_beside_the_first_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    _, rows = pipeline(model, [copy.deepcopy], load_data("digits").test, repeats=2, batch=3)
    assert [row.batch for row in rows] == [3, 3]
    assert all(row.baseline_latency_ms > 0 for row in rows)


def test_without_steps_the_model_comes_back_with_one_row():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    final, rows = pipeline(model, [], load_data("digits").test, repeats=0)
    assert final is model
    assert len(rows) == 1


def test_a_step_that_is_none_or_returns_none_is_named():
    model, split = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), load_data("digits").test
    ran = []
    with pytest.raises(TypeError, match="a step is a function from a model to a new model, got 0.9"):
        pipeline(model, [ran.append, 0.9], split)
    assert ran == []

    def forgets_to_return(model):
        model.eval()

    with pytest.raises(TypeError, match="step 'forgets_to_return' must return a network, got NoneType"):
        pipeline(model, [forgets_to_return], split, repeats=0)


def test_steps_are_named_after_their_function():
    class Step:
        def __call__(self, model):
            return model

    assert step_name(partial(partial(mask_small, sparsity=0.1))) == "mask_small"
    assert step_name(Step()) == "Step"

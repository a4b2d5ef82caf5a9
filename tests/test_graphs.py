"""The small graphs of chapter 11: recorded networks compute what they computed, broken graphs say what is missing."""

import pytest
import torch
from torch import nn

from compresslab.course.chapter11.graphs import Node, count_operations, record_graph, run_graph
from compresslab.course.chapter11.references_engine import fold_norms
from compresslab.models import load_baseline


@pytest.mark.parametrize("name", ["resnet8", "mobilenet"])
def test_a_recorded_baseline_computes_the_same_before_and_after_folding(name):
    net, x = load_baseline(name), torch.randn(2, 3, 32, 32)
    nodes, constants, outputs = record_graph(net)
    folded, folded_constants = fold_norms(nodes, constants, outputs)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    assert count_operations(nodes)["BatchNormalization"] == norms > 0
    assert count_operations(folded)["BatchNormalization"] == 0 and len(folded) == len(nodes) - norms
    with torch.no_grad():
        for graph in ((nodes, constants), (folded, folded_constants)):
            assert torch.allclose(run_graph(*graph, outputs, x)[0], net(x), atol=1e-3)


@pytest.mark.parametrize(
    "nodes, outputs, words",
    [
        ([Node("Sin", ("x",), "y", {})], ("y",), "operation 'Sin' is unknown; known are Conv"),
        ([Node("Relu", ("z",), "y", {})], ("y",), "Relu reads 'z', which nothing has written"),
        ([Node("Relu", ("x",), "y", {})], ("w",), "output 'w' is not written"),
    ],
)
def test_broken_graphs_are_refused(nodes, outputs, words):
    with pytest.raises(ValueError, match=words):
        run_graph(nodes, {}, outputs, torch.ones(1))


def test_other_layers_are_refused_by_name():
    with pytest.raises(ValueError, match="Sigmoid has no node here"):
        record_graph(nn.Sequential(nn.Sigmoid()))

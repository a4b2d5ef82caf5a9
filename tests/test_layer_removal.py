"""Removing residual blocks: which ones can go, which one matters least, and what is refused."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compresslab  # noqa: F401  (before torchvision)

import torchvision
from compresslab.models import ResNet
from compresslab.pruning.layers import ablation_importance, prune_layers, remove_layers, residual_blocks


def data(n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(6, 3, 32, 32, generator=generator), torch.randint(10, (6,), generator=generator))
        for _ in range(n)
    ]


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return ResNet(depth=20, width=4).eval()


def test_residual_blocks_are_those_with_an_identity_shortcut(resnet):
    blocks = residual_blocks(resnet)
    assert len(blocks) == 7  # nine blocks, two of which change the shape
    x = data(1)[0][0]
    for block in blocks:
        assert remove_layers(resnet, [block], x)(x).shape == (6, 10)


@pytest.mark.parametrize(
    ("name", "count"), [("mobilenet_v2", 10), ("efficientnet_b0", 9), ("vgg11", 0), ("densenet121", 0)]
)
def test_residual_blocks_of_torchvision(name, count):
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(weights=None)
    assert len(residual_blocks(model)) == count


def test_removed_block_is_the_identity(resnet):
    x, name = data(1)[0][0], residual_blocks(resnet)[1]
    zeroed = copy.deepcopy(resnet)
    block = zeroed.get_submodule(name)
    last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][1]
    last.weight.data.zero_(), last.bias.data.zero_()  # f(x) = 0, and x after ReLU is x
    torch.testing.assert_close(remove_layers(resnet, [name], x)(x), zeroed(x))


def test_ablation_is_the_rise_of_the_loss(resnet):
    batches, blocks = data(), residual_blocks(resnet)
    before = copy.deepcopy(resnet.state_dict())
    rise = ablation_importance(resnet.train(), blocks, batches)
    assert resnet.training and all(
        torch.equal(before[name], value) for name, value in resnet.state_dict().items()
    )
    x, y = (torch.cat(parts) for parts in zip(*batches))
    resnet.eval()
    with torch.no_grad():
        for block in blocks[:2]:
            without = remove_layers(resnet, [block], x[:1])
            expected = F.cross_entropy(without(x), y) - F.cross_entropy(resnet(x), y)
            assert rise[block] == pytest.approx(expected.item(), abs=1e-6)


def test_pruning_takes_the_least_important_each_time(resnet):
    batches = data()
    rise = ablation_importance(resnet, residual_blocks(resnet), batches)
    one, two = prune_layers(resnet, batches, 1), prune_layers(resnet, batches, 2)
    least = min(rise, key=rise.get)
    assert isinstance(one.get_submodule(least), nn.Identity) and isinstance(
        two.get_submodule(least), nn.Identity
    )
    gone = [
        sum(isinstance(m.get_submodule(b), nn.Identity) for b in residual_blocks(resnet)) for m in (one, two)
    ]
    assert gone == [1, 2]
    x = batches[0][0]
    assert torch.equal(prune_layers(resnet, batches, 0)(x), resnet(x))
    F.cross_entropy(two.train()(x), batches[0][1]).backward()


def test_shared_block_goes_everywhere():
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(block, nn.Linear(4, 4), block)
    removed = remove_layers(model, ["0"], torch.zeros(1, 4))
    assert isinstance(removed[0], nn.Identity) and removed[0] is removed[2]


def test_refusals(resnet):
    x = data(1)[0][0]
    changes = next(name for name, m in resnet.named_modules() if isinstance(m, nn.Conv2d))
    with pytest.raises(
        ValueError, match=rf"module '{changes}' cannot be removed: it turns shape \(6, 3, 32, 32\) into"
    ):
        remove_layers(resnet, [changes], x)
    with pytest.raises(ValueError, match="the model has no module 'layer9' that can be removed"):
        remove_layers(resnet, ["layer9"], x)
    with pytest.raises(ValueError, match="names must be a collection of names, got the string"):
        remove_layers(resnet, residual_blocks(resnet)[0], x)
    block = residual_blocks(resnet)[0]
    with pytest.raises(ValueError, match=f"module '{block}.bn1' is inside '{block}', which is removed, too"):
        remove_layers(resnet, [block, block + ".bn1"], x)
    with pytest.raises(ValueError, match="count must be a whole number from 0 to 7, got 8"):
        prune_layers(resnet, data(), 8)
    with pytest.raises(ValueError, match="no data: batches is empty"):
        ablation_importance(resnet, [block], [])


def test_modules_that_are_no_function_of_one_tensor():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.unused = Two(), nn.Linear(3, 3)

        def forward(self, x):
            return self.two(x, x)

    with pytest.raises(
        ValueError, match="module 'two' cannot be removed: it is not a function of one tensor"
    ):
        remove_layers(Net(), ["two"], torch.zeros(1, 3))
    with pytest.raises(ValueError, match="module 'unused' is not called in eval mode"):
        remove_layers(Net(), ["unused"], torch.zeros(1, 3))

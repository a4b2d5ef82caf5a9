"""The mixture prior: its density by scipy, its pull by hand, training that clusters, a codebook at the end."""

import copy
import math

import pytest
import scipy.stats
import torch
from torch import nn

from compresslab.core.train import train
from compresslab.data import Split
from compresslab.sharing.clusters import ClusterCode
from compresslab.sharing.soft_sharing import MixturePrior, SoftSharing, soft_sharing_loss


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prior(components=3, **options):
    mixture = MixturePrior(components, -1.0, 1.5, **{"zero_proportion": 0.6, "deviation": 0.4, **options})
    with torch.no_grad():
        mixture.logits.copy_(randn(components, seed=5))
        mixture.log_excess.add_(randn(components + 1, seed=6))
    return mixture


def test_density_by_scipy():
    mixture, w = prior(), randn(4, 5)
    normal = scipy.stats.norm(mixture.means.detach().numpy(), mixture.variances.detach().sqrt().numpy())
    density = (mixture.proportions.detach().numpy() * normal.pdf(w.reshape(-1, 1).numpy())).sum(1)
    assert mixture(w).item() == pytest.approx(-sum(math.log(p) for p in density), rel=1e-5)
    assert mixture(w[:2], w[2:]).item() == pytest.approx(mixture(w).item(), rel=1e-6)
    r = mixture.responsibilities(w).detach()
    torch.testing.assert_close(r.sum(1), torch.ones(20))
    joint = torch.tensor(mixture.proportions.detach().numpy() * normal.pdf(w.reshape(-1, 1).numpy()))
    torch.testing.assert_close(r, (joint / joint.sum(1, keepdim=True)).float())


def test_the_pull_on_a_weight_and_on_a_centre():
    """d/dw = sum_j r_j (w - mu_j) / sigma_j^2, and d/dmu_j = -sum_i r_ij (w_i - mu_j) / sigma_j^2."""
    mixture, w = prior(), randn(50).requires_grad_()
    mixture(w).backward()
    r, pull = mixture.responsibilities(w), (w[:, None] - mixture.means) / mixture.variances
    torch.testing.assert_close(w.grad, (r * pull).sum(1).detach())
    torch.testing.assert_close(mixture.free_means.grad, -(r * pull).sum(0)[1:].detach())


def test_the_zero_component_is_fixed_and_the_rest_is_learned():
    mixture = prior()
    assert mixture.means[0] == 0 and mixture.proportions[0].item() == pytest.approx(0.6)
    torch.testing.assert_close(mixture.proportions.sum(), torch.tensor(1.0))
    optimizer, w = torch.optim.SGD(mixture.parameters(), 0.01), randn(30)
    for _ in range(5):
        optimizer.zero_grad()
        mixture(w).backward()
        optimizer.step()
    assert mixture.means[0] == 0 and mixture.proportions[0].item() == pytest.approx(0.6)
    assert sum(parameter.numel() for parameter in mixture.parameters()) == 3 + 3 + 4


def test_a_learned_mixture_finds_planted_centres():
    w = torch.cat([0.02 * randn(300), -0.8 + 0.02 * randn(60, seed=1), 0.5 + 0.02 * randn(60, seed=2)])
    mixture = MixturePrior.from_weights([w[:200], w[200:]], 2, zero_proportion=0.7, deviation=0.2, floor=0.002)
    optimizer = torch.optim.Adam(mixture.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        mixture(w).backward()
        optimizer.step()
    torch.testing.assert_close(mixture.means.detach(), torch.tensor([0.0, -0.8, 0.5]), atol=0.01, rtol=0)
    torch.testing.assert_close(mixture.variances.detach().sqrt(), torch.full((3,), 0.02), atol=0.01, rtol=0)


def test_deviations_stay_above_the_floor():
    """One weight on a centre: without a floor the density would grow for ever."""
    mixture = MixturePrior(1, 0.5, 1.5, deviation=0.1, floor=0.01)
    with torch.no_grad():
        mixture.log_excess.fill_(-1000.0)
    assert mixture.variances.min().item() == pytest.approx(1e-4) and torch.isfinite(mixture(torch.ones(1)))
    start = MixturePrior(3, -1, 1, deviation=0.1)
    torch.testing.assert_close(start.variances.detach(), torch.full((4,), 0.01))


def test_collapse_gives_each_weight_the_mean_of_its_component():
    mixture = MixturePrior(4, -1.0, 1.0, zero_proportion=0.5, deviation=0.05)
    w = torch.tensor([[0.02, -0.98, 1.03], [0.3, -0.4, 0.01]])
    code = mixture.collapse(w)
    assert isinstance(code, ClusterCode)
    torch.testing.assert_close(
        code.decode().detach(), torch.tensor([[0, -1, 1], [1 / 3, -1 / 3, 0]])
    )
    few = mixture.collapse(torch.tensor([0.01, 1.0, -0.01]))
    assert len(few.codebook) == 2 and few.bits == 1  # components that nobody needs are not stored
    assert len(mixture.collapse(torch.zeros(3)).codebook) == 1


def test_training_pulls_the_weights_to_the_centres_and_collapses_to_a_codebook():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 3))
    images = torch.randint(0, 256, (240, 1, 2, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = ((images.flatten(1).float() - 128) @ randn(10, 3, seed=1)).argmax(1)
    split = Split(images, labels, (0.5,), (0.3,))
    model = train(model, split, epochs=15, lr=0.1, progress=False)
    options = dict(epochs=20, lr=0.02, batch_size=60, optimizer=torch.optim.Adam, progress=False)
    accuracy = lambda net: (net(split.x()).argmax(1) == split.y).double().mean().item()  # noqa: E731
    wrapped = SoftSharing(model, MixturePrior.from_weights([model[1].weight, model[3].weight], 8, zero_proportion=0.5))
    before = copy.deepcopy(wrapped.state_dict())
    soft = train(wrapped, split, loss=soft_sharing_loss(0.3, len(split)), **options)
    assert all(torch.equal(before[name], value) for name, value in wrapped.state_dict().items())
    assert not torch.equal(soft.prior.free_means, wrapped.prior.free_means)
    moved = lambda net: sum(  # noqa: E731
        (net.prior.collapse(weight).decode() - weight).square().sum().item() for weight in net.weights()
    )
    assert moved(soft) < 0.4 * moved(wrapped)
    coded = soft.collapse()
    assert len(torch.cat([coded[1].weight.flatten(), coded[3].weight.flatten()]).unique()) <= 9
    assert accuracy(coded) > accuracy(wrapped.collapse()) and isinstance(soft.model[1], nn.Linear)


def test_only_some_layers_and_without_the_prior_the_plain_loss():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    wrapped = SoftSharing(model, MixturePrior.from_weights([model[2].weight], 3), only=["2"])
    assert [weight is model[2].weight for weight in wrapped.weights()] == [True]
    assert isinstance(wrapped.collapse()[0], nn.Linear) and isinstance(wrapped.collapse()[2].coded, ClusterCode)
    x, y = randn(6, 4), torch.arange(6) % 3
    plain = nn.functional.cross_entropy(model(x), y)
    torch.testing.assert_close(soft_sharing_loss(0.0, 10)(wrapped, x, y), plain)
    torch.testing.assert_close(
        soft_sharing_loss(0.5, 10)(wrapped, x, y), plain + 0.05 * wrapped.prior(model[2].weight)
    )


def test_errors():
    with pytest.raises(ValueError, match="components must be a whole number from 1 to 255, got 0"):
        MixturePrior(0, -1, 1)
    with pytest.raises(ValueError, match="low must be below high, both finite, got 1 and 1"):
        MixturePrior(2, 1, 1)
    for bad in (0, 1, 90):
        with pytest.raises(ValueError, match="zero_proportion must be between 0 and 1"):
            MixturePrior(2, -1, 1, zero_proportion=bad)
    for options in (dict(deviation=-1.0), dict(deviation=0.1, floor=0.1), dict(floor=0.0), dict(deviation=math.inf)):
        with pytest.raises(ValueError, match="floor and deviation must be positive"):
            MixturePrior(2, -1, 1, **options)
    with pytest.raises(ValueError, match="at least one number"):
        MixturePrior.from_weights([], 2)
    with pytest.raises(ValueError, match="low must be below high"):
        MixturePrior.from_weights([torch.ones(4)], 2)
    with pytest.raises(ValueError, match="no such layer"):
        SoftSharing(nn.Sequential(nn.Linear(2, 2)), prior(), only=["3"])
    with pytest.raises(ValueError, match="tau must be finite and at least 0, got -1"):
        soft_sharing_loss(-1, 5)
    with pytest.raises(ValueError, match="images must be"):
        soft_sharing_loss(1.0, 0)

"""A basis of filters in common: the best one by SVD, one object in all codes and in the file, every error."""

import pytest
import torch
from torch import nn

from compresslab.core import decompress, load, save, storage_bits
from compresslab.sharing.basis import Basis, BasisCode, share_basis, spectrum
from compresslab.sharing.cross_layer import unique_parameters, virtual_parameters


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3, dilation=2)
    )


def stacked(model, names):
    return torch.cat([model.get_submodule(name).weight.detach().reshape(-1, 9) for name in names])


@pytest.mark.parametrize("size", [1, 4, 8])
def test_error_is_the_tail_of_the_spectrum(size):
    model, names = net(), ["0", "2", "4"]
    shared = share_basis(model, names, size)
    error = (stacked(shared, names) - stacked(model, names)).norm()
    values = torch.linalg.svdvals(stacked(model, names).double())
    assert error.item() == pytest.approx(values[size:].square().sum().sqrt().item(), rel=1e-5)
    torch.testing.assert_close(spectrum(model, names), values)


def test_full_size_is_exact_and_dilation_and_groups_are_kept():
    model, x = net(), randn(2, 2, 12, 12)
    shared = share_basis(model, ["0", "2", "4"], 9)
    torch.testing.assert_close(shared(x), model(x))
    torch.testing.assert_close(decompress(shared)(x), model(x))
    assert isinstance(decompress(shared)[2], nn.Conv2d) and decompress(shared)[2].groups == 2


def test_whole_filters_and_linear_rows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    shared, x = share_basis(model, ["0", "2", "4"], 5, unit="filter"), randn(4, 8)
    assert shared[0].coded.basis is shared[4].coded.basis and shared[4].coded.coefficients.shape == (3, 5)
    exact = share_basis(model, ["0", "2", "4"], 8, unit="filter")
    torch.testing.assert_close(exact(x), model(x))
    planted = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(4, 7, 3))
    atoms = randn(3, 36)
    for i, layer in enumerate(planted):
        layer.weight.data = (randn(len(layer.weight), 3, seed=i) @ atoms).view_as(layer.weight)
    again = share_basis(planted, ["0", "1"], 3, unit="filter")
    torch.testing.assert_close(again[1].weight, planted[1].weight, rtol=1e-4, atol=1e-5)


def test_counted_once_stored_once_restored_shared(tmp_path):
    model, x = net(), randn(2, 2, 12, 12)
    names = ["0", "2", "4"]
    shared = share_basis(model, names, 4)
    kernels = len(stacked(model, names))
    assert unique_parameters(shared) == 4 * 9 + 4 * kernels + 6 + 4  # basis, coefficients, biases
    assert storage_bits(shared) == 32 * unique_parameters(shared)
    assert virtual_parameters(shared) == virtual_parameters(model)
    save(shared, tmp_path / "net")
    loaded = load(tmp_path / "net", model)
    assert loaded[0].coded.basis is loaded[2].coded.basis is loaded[4].coded.basis
    assert torch.equal(loaded(x), shared(x)) and isinstance(loaded[0].coded.basis.atoms, nn.Parameter)
    assert storage_bits(loaded) == storage_bits(shared)


def test_gradient_of_the_atoms_is_the_sum_over_the_layers():
    shared, x = share_basis(net(), ["0", "2", "4"], 4), randn(3, 2, 12, 12)
    dense = decompress(shared)
    for model in (shared, dense):
        model(x).square().sum().backward()
    expected = sum(
        shared[i].coded.coefficients.T @ dense[i].weight.grad.reshape(-1, 9) for i in (0, 2, 4)
    )
    torch.testing.assert_close(shared[0].coded.basis.atoms.grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        shared[2].coded.coefficients.grad,
        dense[2].weight.grad.reshape(-1, 9) @ shared[0].coded.basis.atoms.T, rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_from_dense_is_least_squares():
    basis, weight = Basis(randn(3, 5)), randn(4, 10, seed=1)
    code = BasisCode.from_dense(weight, basis)
    expected = torch.linalg.lstsq(basis.atoms.detach().T, weight.reshape(-1, 5).T).solution.T
    torch.testing.assert_close(code.coefficients.detach(), expected)
    doubled = Basis(torch.cat([basis.atoms.detach()] * 2))  # atoms that say the same twice
    torch.testing.assert_close(BasisCode.from_dense(weight, doubled).decode(), code.decode())


def test_the_model_is_not_changed():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shared = share_basis(model, ["0"], 2)
    for parameter in shared.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert isinstance(shared[4], nn.Conv2d)


def test_errors():
    model = net()
    with pytest.raises(ValueError, match="size must be a whole number from 1 to 9, got 10"):
        share_basis(model, ["0", "2"], 10)
    with pytest.raises(ValueError, match="size must be a whole number from 1 to 9, got 0"):
        share_basis(model, ["0", "2"], 0)
    with pytest.raises(ValueError, match="unit must be one of"):
        share_basis(model, ["0"], 2, unit="row")
    with pytest.raises(ValueError, match="layers must name at least one layer"):
        share_basis(model, [], 2)
    with pytest.raises(ValueError, match="no such layer: '1'"):
        share_basis(model, ["1"], 2)
    with pytest.raises(ValueError, match=r"write \['0'\]"):
        share_basis(model, "0", 2)
    with pytest.raises(ValueError, match="18 numbers in layer '0', got 27 in layer '2'"):
        share_basis(model, ["0", "2"], 2, unit="filter")
    with pytest.raises(ValueError, match="9 numbers in layer '0', got 25 in layer '1'"):
        share_basis(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 5)), ["0", "1"], 2)
    with pytest.raises(TypeError, match="no k x k kernels; use unit='filter' in layer '0'"):
        share_basis(nn.Sequential(nn.Linear(3, 3)), ["0"], 2)


def test_constructor_errors():
    basis = Basis(randn(2, 3))
    with pytest.raises(TypeError, match="basis must be a Basis, got Tensor"):
        BasisCode(randn(2, 2), (2, 3), randn(2, 3))
    for shape, coefficients in (((2, 3), (3, 2)), ((2, 3), (2, 3)), ((2, 4), (2, 2))):
        with pytest.raises(ValueError, match="weights in pieces of 3 take coefficients of shape"):
            BasisCode(randn(*coefficients), shape, basis)
    with pytest.raises(TypeError, match="coefficients must be floating-point"):
        BasisCode(torch.ones(2, 2, dtype=torch.int), (2, 3), basis)
    with pytest.raises(TypeError, match="atoms must be floating-point"):
        Basis(torch.ones(2, 2, dtype=torch.int))
    for bad in (randn(3), randn(0, 3)):
        with pytest.raises(ValueError, match="atoms must have shape"):
            Basis(bad)
    with pytest.raises(ValueError, match=r"atoms of 3 numbers cannot make up a weight of shape \(2, 4\)"):
        BasisCode.from_dense(randn(2, 4), basis)


def test_a_file_gives_the_same_outputs_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 4))
    shared, x = share_basis(model, ["0", "1"], 4), randn(8, 1, 4, 4)
    assert shared[0].coded.basis.atoms.is_contiguous()
    save(shared, tmp_path / "net")
    assert torch.equal(load(tmp_path / "net", model)(x), shared(x))


def test_a_basis_is_frozen_only_if_all_its_layers_are():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
    model[0].weight.requires_grad_(False)
    half = share_basis(model, ["0", "1"], 4)
    assert half[0].coded.basis.atoms.requires_grad and half[1].coded.coefficients.requires_grad
    assert not half[0].coded.coefficients.requires_grad
    frozen = share_basis(model.requires_grad_(False), ["0", "1"], 4)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_the_spectrum_makes_the_same_checks():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 5))
    with pytest.raises(ValueError, match="unit must be one of"):
        spectrum(model, ["0"], unit="row")
    with pytest.raises(ValueError, match="at least one layer, got none"):
        spectrum(model, [])
    with pytest.raises(ValueError, match="pieces of one size, 9 numbers in layer '0', got 25 in layer '1'"):
        spectrum(model, ["0", "1"])
    with pytest.raises(ValueError, match="got the string"):
        spectrum(model, "0")

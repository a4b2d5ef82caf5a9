"""Product quantization: bits by the formula, look-up equal to the decoded product, responses kept, every error."""

import copy
import math
from functools import partial

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from compresslab.core import decompress, encode, load, save, storage_bits
from compresslab.core.bits import pack_bits
from compresslab.core.calibrate import input_moments
from compresslab.core.codes import CodebookCode
from compresslab.core.macs import count_macs
from compresslab.sharing.product import LookupLinear, ProductCode, response_codebooks


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestProductCode:
    @pytest.mark.parametrize("m, n, s, k", [(40, 12, 3, 4), (64, 24, 8, 16), (300, 6, 2, 256), (16, 8, 8, 2)])
    def test_bits_by_the_formula(self, m, n, s, k):
        """m s log2 k + 32 k n, exactly (these sizes fill whole bytes)."""
        code = ProductCode.from_dense(randn(m, n), s, k)
        assert storage_bits(code) == m * s * math.log2(k) + 32 * k * n
        shared = ProductCode.from_dense(randn(m, n), s, k, shared=True)
        assert storage_bits(shared) == m * s * math.log2(k) + 32 * k * n / s

    def test_an_odd_number_of_centroids_takes_the_next_whole_bit(self):
        code = ProductCode.from_dense(randn(32, 6), 2, 5)
        assert code.bits == 3 and storage_bits(code) == 32 * 2 * 3 + 32 * 5 * 6
        assert ProductCode.from_dense(randn(8, 6), 2, 1).bits == 1

    def test_decodes_strip_by_strip(self):
        code = ProductCode.from_dense(randn(20, 12), 3, 4)
        decoded = code.decode()
        for i in range(20):
            for j in range(3):
                assert torch.equal(decoded[i, 4 * j : 4 * j + 4], code.codebooks[j, code.indices[i, j]])

    def test_strips_are_clustered_as_well_as_by_scikit_learn(self):
        weight = randn(200, 8)
        code = ProductCode.from_dense(weight, 2, 8, iterations=100)
        for j in range(2):
            strip = weight[:, 4 * j : 4 * j + 4]
            ours = (strip - code.decode()[:, 4 * j : 4 * j + 4]).square().sum().item()
            assert ours <= 1.1 * KMeans(8, n_init=10, random_state=0).fit(strip.numpy()).inertia_

    def test_sub_vectors_of_length_one_with_one_code_book_are_the_codebook_of_scalars(self):
        weight = randn(9, 14)
        scalar = CodebookCode.from_dense(weight, 4)
        same = ProductCode(scalar.codebook[None, :, None], scalar.packed, weight.shape)
        assert torch.equal(same.decode(), scalar.decode()) and storage_bits(same) == storage_bits(scalar)
        own = ProductCode.from_dense(weight, 14, 16, shared=True, iterations=200)
        error = lambda code: (code.decode() - weight).square().sum().item()  # noqa: E731
        assert error(own) < 1.3 * error(scalar)

    @pytest.mark.parametrize("shape", [(12, 8), (12, 2, 3, 3), (12, 4, 5)])
    def test_exact_with_a_centroid_for_every_row(self, shape):
        weight = randn(*shape)
        code = ProductCode.from_dense(weight, 2, 200)
        torch.testing.assert_close(code.decode(), weight)
        assert code.codebooks.shape[1] == 12  # no more are stored than there are rows

    def test_a_vector_is_one_column(self):
        weight = torch.tensor([1.0, 1.0, 5.0, 5.0])
        assert ProductCode.from_dense(weight, 1, 2).decode().tolist() == [1, 1, 5, 5]

    def test_more_centroids_lose_less(self):
        weight = randn(128, 16)
        errors = [(ProductCode.from_dense(weight, 4, k).decode() - weight).norm().item() for k in (1, 4, 16, 64, 128)]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-5
        torch.testing.assert_close(ProductCode.from_dense(weight, 4, 1).decode()[0], weight.mean(0))

    @pytest.mark.parametrize("shared", [False, True])
    def test_gradient_of_a_centroid_is_the_sum_over_its_uses(self, shared):
        code, g = ProductCode.from_dense(randn(30, 12), 4, 5, shared=shared), randn(30, 12, seed=1)
        code.decode().backward(g)
        expected = torch.zeros_like(code.codebooks)
        for i in range(30):
            for j in range(4):
                expected[0 if shared else j, code.indices[i, j]] += g[i, 3 * j : 3 * j + 3]
        torch.testing.assert_close(code.codebooks.grad, expected)

    def test_keep_scale_has_the_weights_root_mean_square(self):
        weight = randn(50, 20)
        plain, scaled = (ProductCode.from_dense(weight, 5, 4, keep_scale=keep).decode() for keep in (False, True))
        torch.testing.assert_close(scaled.square().mean(), weight.square().mean())
        torch.testing.assert_close(scaled / scaled.norm(), plain / plain.norm())

    def test_the_global_generator_is_untouched_and_the_seed_decides(self):
        weight, state = randn(60, 8), torch.get_rng_state()
        one, two, other = (ProductCode.from_dense(weight, 2, 7, seed=seed).decode() for seed in (0, 0, 1))
        assert torch.equal(one, two) and not torch.equal(one, other)
        assert torch.equal(state, torch.get_rng_state())

    def test_trains_in_a_network_and_comes_back_from_a_file(self, tmp_path):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
        coded = encode(model, partial(ProductCode.from_dense, subspaces=3, k=4))
        x, y = randn(32, 1, 5, 5), torch.arange(32) % 4
        optimizer, losses = torch.optim.SGD(coded.parameters(), 0.1), []
        before = coded[3].coded.decode().detach()
        for _ in range(8):
            loss = nn.functional.cross_entropy(coded(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] and not torch.equal(before, coded[3].weight)
        assert coded[3].weight.view(4, 3, 24).transpose(0, 1).flatten(1).unique(dim=0).shape[0] <= 12
        save(coded, tmp_path / "net")
        loaded = load(tmp_path / "net", model)
        assert torch.equal(loaded(x), coded(x)) and torch.equal(decompress(coded)(x), coded(x))
        assert isinstance(loaded[3].coded, ProductCode) and isinstance(loaded[3].coded.codebooks, nn.Parameter)

    def test_what_is_kept_follows_the_packed_indices(self):
        one, two = (ProductCode.from_dense(randn(8, 6, seed=seed), 2, 4) for seed in (0, 1))
        old, new = one.decode().detach(), two.decode().detach()
        one.table_rows
        one.load_state_dict(two.state_dict())
        assert torch.equal(one.decode(), new) and not torch.equal(old, new)
        assert torch.equal(one.table_rows, two.table_rows)
        twin = copy.deepcopy(one)
        twin.packed.zero_()
        assert torch.equal(one.decode(), new) and not torch.equal(twin.decode(), new)

    @pytest.mark.parametrize(
        "weight, arguments, error, message",
        [
            ((8, 6), (4, 2), ValueError, r"subspaces must divide the 6 columns, got 4; these do: \[1, 2, 3, 6\]"),
            ((8, 6), (0, 2), ValueError, "subspaces must be a whole number of at least 1"),
            ((8, 6), (2, 0), ValueError, "k must be a whole number from 1 to 256, got 0"),
            ((8, 6), (2, 257), ValueError, "k must be a whole number from 1 to 256, got 257"),
            ((8, 6), (2.0, 2), TypeError, "subspaces must be a whole number"),
            ((0, 6), (2, 2), ValueError, "one element, got shape"),
        ],
    )
    def test_from_dense_errors(self, weight, arguments, error, message):
        with pytest.raises(error, match=message):
            ProductCode.from_dense(randn(*weight), *arguments)

    def test_the_layer_is_named(self):
        with pytest.raises(ValueError, match="must divide the 6 columns.* in layer '1'"):
            encode(nn.Sequential(nn.ReLU(), nn.Linear(6, 4)), partial(ProductCode.from_dense, subspaces=4, k=2))

    def test_constructor_errors(self):
        packed = pack_bits(torch.zeros(8, 2, dtype=torch.uint8), 1)
        ProductCode(torch.zeros(2, 2, 3), packed, (8, 6))
        for shape in [(2, 2, 4), (3, 2, 3), (2, 257, 3), (2, 3), (2, 0, 3)]:
            with pytest.raises(ValueError, match="codebooks for 6 columns must have shape"):
                ProductCode(torch.zeros(shape), packed, (8, 6))
        with pytest.raises(TypeError, match="codebooks must be floating-point"):
            ProductCode(torch.zeros(2, 2, 3, dtype=torch.int), packed, (8, 6))
        with pytest.raises(ValueError, match="16 codes of 1 bits take shape"):
            ProductCode(torch.zeros(2, 2, 3), packed[:1], (8, 6))
        with pytest.raises(TypeError, match="packed must be uint8"):
            ProductCode(torch.zeros(2, 2, 3), packed.int(), (8, 6))


class TestResponses:
    def data(self):
        x = randn(300, 12) @ randn(12, 12, seed=1)  # correlated inputs
        return randn(60, 12, seed=2), x, x.T.double() @ x.double()

    def error(self, weight, codebooks, indices, H):
        strips = [codebooks[j][indices[:, j]] for j in range(len(codebooks))]
        E = (weight - torch.cat(strips, 1)).double()
        return float((E @ H * E).sum())

    def test_error_never_rises_and_ends_below_plain_clustering(self):
        weight, x, H = self.data()
        damped = H + 0.01 * H.diagonal().mean() * torch.eye(12)
        errors = [
            self.error(weight, *response_codebooks(weight, H, 4, 8, sweeps=sweeps, iterations=40), damped)
            for sweeps in range(5)
        ]
        assert all(after <= before * (1 + 1e-6) for before, after in zip(errors, errors[1:]))
        assert errors[1] < 0.99 * errors[0]
        plain = ProductCode.from_dense(weight, 4, 8)
        with_moments = ProductCode.from_dense(weight, 4, 8, moments=H)
        response = lambda code: ((weight - code.decode()) @ x.T).norm().item()  # noqa: E731
        assert response(with_moments) < 0.9 * response(plain)
        assert (weight - with_moments.decode()).norm() > (weight - plain.decode()).norm()

    def test_with_uncorrelated_inputs_it_is_plain_clustering(self):
        weight = randn(50, 6)
        plain = ProductCode.from_dense(weight, 1, 5)
        white = ProductCode.from_dense(weight, 1, 5, moments=7 * torch.eye(6), sweeps=0)
        torch.testing.assert_close(white.decode(), plain.decode())
        silent = ProductCode.from_dense(weight, 1, 5, moments=torch.zeros(6, 6), sweeps=0)
        torch.testing.assert_close(silent.decode(), plain.decode())

    def test_exact_stays_exact_and_dead_inputs_do_no_harm(self):
        weight, _, H = self.data()
        H[:, 3] = H[3] = 0
        torch.testing.assert_close(ProductCode.from_dense(weight, 4, 60, moments=H).decode(), weight)
        assert torch.isfinite(ProductCode.from_dense(weight, 4, 8, moments=H).decode()).all()

    def test_moments_of_a_convolution(self):
        conv = nn.Sequential(nn.Conv2d(2, 16, 3))
        x = randn(20, 2, 8, 8).cumsum(3)
        moments = input_moments(conv, ["0"], [x])["0"]
        codes = [ProductCode.from_dense(conv[0].weight, 2, 4, moments=h) for h in (None, moments)]
        plain, aware = (
            nn.functional.conv2d(x, code.decode() - conv[0].weight).norm().item() for code in codes
        )
        assert aware < plain

    def test_errors(self):
        weight, _, H = self.data()
        with pytest.raises(ValueError, match=r"moments must be finite, of shape \(12, 12\), got \(6, 6\)"):
            ProductCode.from_dense(weight, 4, 8, moments=torch.eye(6))
        with pytest.raises(ValueError, match="nan or inf"):
            ProductCode.from_dense(weight, 4, 8, moments=torch.full((12, 12), math.nan))
        with pytest.raises(ValueError, match="not positive definite"):
            ProductCode.from_dense(weight, 4, 8, moments=torch.eye(12) - 0.5 * torch.ones(12, 12))
        with pytest.raises(ValueError, match="every strip needs its own code book"):
            ProductCode.from_dense(weight, 4, 8, moments=H, shared=True)
        with pytest.raises(ValueError, match="moments must be sums of squares on the diagonal.*got -1"):
            ProductCode.from_dense(weight, 4, 8, moments=-torch.eye(12))
        with pytest.raises(ValueError, match="subspaces must divide the 12 columns, got 5"):
            response_codebooks(weight, H, 5, 8)

    def test_no_input_at_all_counts_every_weight_alike(self):
        weight, _, _ = self.data()
        zero, identity = (response_codebooks(weight, H, 4, 8, damp=0.0) for H in (torch.zeros(12, 12), torch.eye(12)))
        assert torch.equal(zero[0], identity[0]) and torch.equal(zero[1], identity[1])


class TestLookupLinear:
    @pytest.mark.parametrize("options", [{}, {"shared": True}])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
    def test_look_up_is_the_decoded_product(self, options, bias, batch):
        layer = LookupLinear.from_dense(nn.Linear(12, 10, bias=bias), 4, 5, **options)
        x = randn(*batch, 12)
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.code.decode(), layer.bias))
        torch.testing.assert_close(layer.to_dense()(x), layer(x))

    def test_by_the_definition(self):
        layer, x = LookupLinear.from_dense(nn.Linear(6, 7), 3, 4), randn(6)
        table = layer.table(x).detach()[..., 0]
        for j in range(3):
            for centroid in range(4):
                inner = x[2 * j : 2 * j + 2] @ layer.code.codebooks[j, centroid]
                torch.testing.assert_close(table[j, centroid], inner.detach())
        for i in range(7):
            y = layer.bias[i] + sum(table[j, layer.code.indices[i, j]] for j in range(3))
            torch.testing.assert_close(layer(x)[i], y)

    def test_gradients_are_those_of_the_decoded_layer(self):
        layer, x = LookupLinear.from_dense(nn.Linear(12, 10), 4, 5), randn(6, 12).requires_grad_()
        g = randn(6, 10, seed=1)
        layer(x).backward(g)
        found = [x.grad.clone(), layer.code.codebooks.grad.clone(), layer.bias.grad.clone()]
        layer.zero_grad()
        x.grad = None
        nn.functional.linear(x, layer.code.decode(), layer.bias).backward(g)
        torch.testing.assert_close(found, [x.grad, layer.code.codebooks.grad, layer.bias.grad])

    def test_macs_are_the_table_and_the_look_ups(self):
        model = nn.Sequential(LookupLinear.from_dense(nn.Linear(784, 784), 98, 16), nn.ReLU())
        assert count_macs(model, (784,)).total == 16 * 784 + 784 * 98
        assert count_macs(model, (784,)).total < count_macs(model[0].to_dense(), (784,)).total / 6

    def test_comes_back_from_a_file(self, tmp_path):
        model = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4, bias=False))
        fast = nn.Sequential(*(LookupLinear.from_dense(model[i], 2, 3) if i != 1 else model[1] for i in range(3)))
        save(fast, tmp_path / "net")
        loaded, x = load(tmp_path / "net", model), randn(5, 12)
        assert isinstance(loaded[0], LookupLinear) and torch.equal(loaded(x), fast(x))
        assert loaded[2].bias is None

    def test_errors(self):
        code = ProductCode.from_dense(randn(8, 6), 2, 4)
        with pytest.raises(TypeError, match="code must be a ProductCode, got CodebookCode"):
            LookupLinear(CodebookCode.from_dense(randn(8, 6)))
        with pytest.raises(ValueError, match="code must be of a matrix"):
            LookupLinear(ProductCode.from_dense(randn(8, 2, 3), 2, 4))
        with pytest.raises(ValueError, match=r"bias must have shape \(8,\), got \(6,\)"):
            LookupLinear(code, torch.zeros(6))
        with pytest.raises(ValueError, match="x must have 6 features"):
            LookupLinear(code)(randn(3, 8))
        with pytest.raises(TypeError, match="layer must be an nn.Linear, got Conv2d"):
            LookupLinear.from_dense(nn.Conv2d(1, 1, 1), 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_look_up_layers_keep_type_mode_and_what_is_frozen(dtype):
    dense = nn.Linear(12, 10, dtype=dtype).train(False)
    dense.weight.requires_grad_(False)
    layer = LookupLinear.from_dense(dense, 3, 4)
    assert not layer.training and not layer.code.codebooks.requires_grad and layer.bias.requires_grad
    plain, x = layer.to_dense(), randn(5, 12).to(dtype)
    assert plain.weight.dtype == dtype and not plain.training
    torch.testing.assert_close(plain(x), layer(x))
    assert layer.to("meta").to_dense().weight.is_meta
    assert LookupLinear.from_dense(nn.Linear(4, 4), 2, 2).code.codebooks.requires_grad

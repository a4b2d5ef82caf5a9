"""The data sets: drawn ones and their cache, and the readers of the genuine files, on small files written here."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from scipy.io import savemat

from compresslab.core.progress import SILENCING_VARIABLES, progress_bar
from compresslab.data import DATA_NAMES, Split, fresh_data, load_data
from compresslab.data import cache as cache_module
from compresslab.data import drawing, genuine, loaders

SHAPES = {"street_digits": (3, 32, 32), "ink_digits": (1, 28, 28)}


@pytest.fixture
def small_parts(monkeypatch):
    """Draw in parts of 50 images, so that a test sees several parts."""
    monkeypatch.setattr(loaders, "PART", 50)


@pytest.fixture
def drawn_parts(monkeypatch):
    """A list that receives the size of every part that is drawn, and so stays empty where the cache serves."""
    parts = []

    def counting(draw):
        return lambda n, generator: parts.append(n) or draw(n, generator)

    monkeypatch.setattr(loaders, "PART", 50)
    monkeypatch.setattr(loaders, "DRAW", {name: counting(draw) for name, draw in drawing.DRAW.items()})
    return parts


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- split


def split_of(n: int) -> Split:
    images = torch.arange(n * 3 * 2 * 2).remainder(256).to(torch.uint8).view(n, 3, 2, 2)
    return Split(images, torch.arange(n), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))


def test_images_are_normalised_per_channel():
    split = split_of(5)
    expected = (split.images.numpy() / 255 - np.array(split.mean).reshape(3, 1, 1)) / np.array(split.std).reshape(3, 1, 1)
    assert split.x().dtype == torch.float32
    np.testing.assert_allclose(split.x().numpy(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(split.x([3, 1]), split.x()[[3, 1]])
    torch.testing.assert_close(split.x(slice(2)), split.x()[:2])


def test_batches_visit_every_image_once():
    split = split_of(10)
    assert [len(y) for _, y in split.batches(4)] == [4, 4, 2]
    assert torch.cat([y for _, y in split.batches(4)]).tolist() == list(range(10))
    shuffled = [torch.cat([y for _, y in split.batches(4, shuffle=True)]) for _ in range(2)]
    assert shuffled[0].sort().values.tolist() == list(range(10))
    assert shuffled[0].tolist() != list(range(10))
    assert shuffled[0].equal(shuffled[1])
    other = torch.cat([y for _, y in split.batches(4, shuffle=True, generator=torch.Generator().manual_seed(5))])
    assert not other.equal(shuffled[0])
    for x, y in split.batches(4, shuffle=True):
        torch.testing.assert_close(x, split.x(y))
    torch.testing.assert_close(torch.cat(list(split.batches(3, labels=False))), split.x())
    assert list(split.take(0).batches()) == []


def test_shuffling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(split_of(10).batches(shuffle=True))
    assert torch.get_rng_state().equal(before)


def test_a_split_refuses_what_does_not_fit():
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match="uint8 images and int64 labels"):
        Split(images.float(), labels, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="images \\(N, C, H, W\\) and labels"):
        Split(images, labels[:1], (0.0,), (1.0,))
    with pytest.raises(ValueError, match="mean and std need 1 numbers"):
        Split(images, labels, (0.0, 0.0), (1.0,))
    with pytest.raises(ValueError, match="std > 0"):
        Split(images, labels, (0.0,), (0.0,))
    with pytest.raises(ValueError, match="between 0 and the 2 images"):
        Split(images, labels, (0.0,), (1.0,)).take(3)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Split(images, labels, (0.0,), (1.0,)).batches(0)


# ---------------------------------------------------------------- drawing


def test_every_digit_of_every_font_is_there_and_none_is_cut_off():
    glyphs = drawing.glyphs()
    assert glyphs.shape == (len(drawing.FONTS), 10, drawing.GLYPH, drawing.GLYPH)
    assert (glyphs > 0.5).sum((2, 3)).min() > 80
    border = torch.cat([glyphs[..., 0, :], glyphs[..., -1, :], glyphs[..., :, 0], glyphs[..., :, -1]], -1)
    assert border.max() == 0
    flat = glyphs.flatten(0, 1).flatten(1)
    distances = torch.cdist(flat, flat) + 1e6 * torch.eye(len(flat))
    assert distances.min() > 1  # no two bitmaps alike, so no font falls back to another or to empty boxes


def test_place_moves_a_bitmap_where_the_shift_says():
    bitmap = torch.zeros(1, drawing.GLYPH, drawing.GLYPH)
    bitmap[0, 22:26, 22:26] = 1
    still, shift = torch.zeros(1, 2, 32, 32), torch.tensor([[0.5, -0.25]])
    image = drawing.place(bitmap, torch.eye(2)[None], shift, still)[0, 0]
    rows, columns = image.sum(1), image.sum(0)
    centre = torch.arange(32) + 0.5
    assert (rows @ centre / rows.sum()).item() == pytest.approx(16 - 4, abs=0.01)
    assert (columns @ centre / columns.sum()).item() == pytest.approx(16 + 8, abs=0.01)


def test_affine_inverts_rotation_and_scale():
    one = torch.ones(1)
    inverse = drawing.affine(one * torch.pi / 2, one * 0, one * drawing.GLYPH_HEIGHT / drawing.GLYPH, one)
    torch.testing.assert_close(inverse[0] @ torch.tensor([1.0, 0.0]), torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_drawn_images_have_balanced_classes_and_the_stated_statistics(name):
    data = fresh_data(name, 2000, seed=3)
    assert data.shape == SHAPES[name]
    counts = data.y.bincount(minlength=10)
    assert len(counts) == 10
    assert counts.min() > 150
    x = data.x()
    assert x.mean().abs() < 0.05
    assert abs(x.std() - 1) < 0.05
    assert data.images.float().std((1, 2, 3)).min() > 1  # no image is blank


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_seed_draws_the_same_images_and_another_others(name, small_parts):
    first, again, other = (fresh_data(name, 60, seed=seed) for seed in (1, 1, 2))
    assert first.images.equal(again.images)
    assert first.y.equal(again.y)
    assert not first.images.equal(other.images)


FINGERPRINTS = {
    "street_digits": [73.65, 72.53, 99.54, 139.67, 83.31, 154.74, 126.45, 93.92],
    "ink_digits": [34.70, 21.81, 31.40, 26.32, 14.65, 12.44, 38.26, 20.02],
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_drawings_are_those_of_this_version(name):
    """Mean brightness of eight images. A change of the drawing shows here: raise VERSION, or old caches mix with new."""
    images, _ = drawing.DRAW[name](drawing.PART, drawing.stream(99))
    assert loaders.VERSION == 2
    assert images[:8].float().mean((1, 2, 3)).tolist() == pytest.approx(FINGERPRINTS[name], abs=0.03)


def test_drawing_leaves_the_global_generator_alone(small_parts):
    before = torch.get_rng_state()
    fresh_data("street_digits", 10, seed=0)
    assert torch.get_rng_state().equal(before)


def test_a_smaller_request_is_the_beginning_of_a_larger_one(small_parts, tmp_path):
    small = load_data("ink_digits", train=30, validation=0, test=7, cache=tmp_path / "a")
    large = load_data("ink_digits", train=130, validation=20, test=60, cache=tmp_path / "b")
    assert [len(part) for part in (small.train, small.validation, small.test)] == [30, 0, 7]
    assert small.train.images.equal(large.train.images[:30])
    assert small.test.images.equal(large.test.images[:7])
    assert small.train.x().equal(large.train.x(slice(30)))


def test_the_splits_and_the_fresh_images_are_disjoint(small_parts, tmp_path):
    data = load_data("street_digits", train=100, validation=100, test=100, cache=tmp_path)
    splits = [data.train, data.validation, data.test, *(fresh_data("street_digits", 100, seed=seed) for seed in (0, 1))]
    images = torch.cat([split.images for split in splits])
    assert len(images.flatten(1).unique(dim=0)) == 500


# ---------------------------------------------------------------- cache


def test_a_second_load_draws_nothing_and_a_larger_one_only_what_is_missing(drawn_parts, tmp_path):
    first = load_data("ink_digits", train=80, validation=1, test=1, cache=tmp_path)
    assert len(drawn_parts) == 4
    again = load_data("ink_digits", train=80, validation=1, test=1, cache=tmp_path)
    assert len(drawn_parts) == 4
    assert again.train.images.equal(first.train.images)
    load_data("ink_digits", train=150, validation=1, test=1, cache=tmp_path)
    assert len(drawn_parts) == 5
    load_data("ink_digits", train=80, validation=1, test=1, cache=tmp_path, seed=1)
    assert len(drawn_parts) == 9


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit flipped": flip_a_byte,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "checksum missing": lambda path: path.with_name(path.name + ".sha256").unlink(),
    "checksum not text": lambda path: path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_is_drawn_again_and_replaced(damage, drawn_parts, tmp_path):
    first = load_data("ink_digits", train=50, validation=0, test=0, cache=tmp_path)
    path = next(path for path in files(tmp_path) if "train" in path.name and path.suffix == ".safetensors")
    whole = path.read_bytes()
    DAMAGE[damage](path)
    drawn_parts.clear()
    again = load_data("ink_digits", train=50, validation=0, test=0, cache=tmp_path)
    assert drawn_parts == [50]
    assert again.train.images.equal(first.train.images)
    assert path.read_bytes() == whole
    load_data("ink_digits", train=50, validation=0, test=0, cache=tmp_path)
    assert drawn_parts == [50]


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(monkeypatch, tmp_path):
    path = tmp_path / "file"
    cache_module.write_atomic(path, b"old")

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache_module.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == [path]


def test_where_the_cache_cannot_be_written_one_line_is_printed_and_nothing_fails(drawn_parts, tmp_path, capsys):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    expected = load_data("ink_digits", train=60, validation=0, test=0, cache=tmp_path / "good")
    capsys.readouterr()
    for _ in range(2):
        data = load_data("ink_digits", train=60, validation=0, test=0, cache=blocked)
        assert data.train.images.equal(expected.train.images)
    output = capsys.readouterr()
    assert output.out.count("cannot be written") == 1
    assert "COMPRESSLAB_CACHE" in output.out


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path))
    assert cache_module.cache_folder() == tmp_path
    assert cache_module.cache_folder("elsewhere").name == "elsewhere"
    monkeypatch.delenv("COMPRESSLAB_CACHE")
    assert "compresslab" in str(cache_module.cache_folder())


def test_the_progress_bar_goes_to_standard_output_and_is_silent_when_graded(monkeypatch, capsys):
    for name in SILENCING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    list(progress_bar(range(3), "drawing"))
    output = capsys.readouterr()
    assert "drawing" in output.out
    assert output.err == ""
    for name in SILENCING_VARIABLES:
        monkeypatch.setenv(name, "1")
        list(progress_bar(range(3), "drawing"))
        monkeypatch.delenv(name)
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- load_data


def test_a_wrong_name_or_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set 'minst'; choose one of street_digits, ink_digits"):
        load_data("minst")
    with pytest.raises(ValueError, match="train must be a number of images, 0 or more, got -1"):
        load_data("digits", train=-1)
    with pytest.raises(ValueError, match="test must be a number of images"):
        load_data("digits", test=0.5)
    with pytest.raises(ValueError, match="between 0 and the 1097 images"):
        load_data("digits", train=1098)
    with pytest.raises(ValueError, match="fresh images can be drawn for street_digits and ink_digits"):
        fresh_data("mnist", 5, seed=0)
    with pytest.raises(ValueError, match="0 or more, got -5"):
        fresh_data("ink_digits", -5, seed=0)


def test_scikit_learns_digits_are_split_without_overlap():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    sizes = [len(part) for part in (data.train, data.validation, data.test)]
    assert sum(sizes) == 1797
    counts = sum(part.y.bincount(minlength=10) for part in (data.train, data.validation, data.test))
    assert counts.tolist() == np.bincount(load_digits().target).tolist()
    assert data.train.images.max() == 255
    assert abs(data.train.x().mean()) < 1e-4
    assert abs(data.train.x().std() - 1) < 1e-3
    assert load_data("digits", train=10).train.images.equal(data.train.images[:10])
    assert not load_data("digits", seed=1).test.images.equal(data.test.images)


# ---------------------------------------------------------------- genuine files

RNG = np.random.default_rng(0)
COUNTS = {"train": 40, "test": 12}


def write_idx(path, array, compress=False):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(cache, images, labels, folder="MNIST/raw"):
    (cache / folder).mkdir(parents=True)
    for part, name in (("train", "train"), ("test", "t10k")):
        write_idx(cache / folder / f"{name}-images-idx3-ubyte", images[part][:, 0], compress=part == "test")
        write_idx(cache / folder / f"{name}-labels-idx1-ubyte", labels[part])


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 did, where text and bytes were one type: so the batches of CIFAR-10 were written."""

    def save_string(self, text):
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}


def write_cifar(cache, images, labels):
    folder = cache / "cifar-10-batches-py"
    folder.mkdir()
    pieces = [(f"data_batch_{i + 1}", images["train"][8 * i : 8 * i + 8], labels["train"][8 * i : 8 * i + 8]) for i in range(5)]
    for name, x, y in [*pieces, ("test_batch", images["test"], labels["test"])]:
        batch = {"batch_label": name, "labels": y.tolist(), "data": x.reshape(len(x), -1), "filenames": ["a.png"] * len(x)}
        with (folder / name).open("wb") as file:
            Python2Pickler(file, protocol=2).dump(batch)


def write_svhn(cache, images, labels):
    (cache / "SVHN").mkdir()
    for part in COUNTS:
        y = np.where(labels[part] == 0, 10, labels[part]).astype(np.uint8)[:, None]
        savemat(cache / "SVHN" / f"{part}_32x32.mat", {"X": images[part].transpose(2, 3, 1, 0), "y": y})


WRITERS = {
    "mnist": write_mnist,
    "fashion_mnist": lambda cache, images, labels: write_mnist(cache, images, labels, "FashionMNIST/raw"),
    "cifar10": write_cifar,
    "svhn": write_svhn,
}


def written(name, cache):
    shape = (1, 28, 28) if "mnist" in name else (3, 32, 32)
    images = {part: RNG.integers(0, 256, (n, *shape)).astype(np.uint8) for part, n in COUNTS.items()}
    labels = {part: np.arange(n) % 10 for part, n in COUNTS.items()}
    WRITERS[name](cache, images, labels)
    return images, labels


def by_image(images, labels):
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("name", WRITERS)
def test_genuine_files_are_read_split_and_shuffled(name, tmp_path):
    images, labels = written(name, tmp_path)
    data = load_data(name, cache=tmp_path, download=False)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [32, 8, 12]
    train = torch.cat([data.train.images, data.validation.images]), torch.cat([data.train.y, data.validation.y])
    assert by_image(train[0].numpy(), train[1]) == by_image(images["train"], labels["train"])
    assert by_image(data.test.images.numpy(), data.test.y) == by_image(images["test"], labels["test"])
    assert data.train.x().mean().abs() < 1e-4
    few = load_data(name, train=5, cache=tmp_path, download=False)
    assert few.train.x().equal(data.train.x(slice(5)))


def test_torchvision_reads_the_idx_and_mat_files_written_here_alike(tmp_path, monkeypatch):
    from torchvision import datasets

    write_mnist(tmp_path, *(given := ({k: RNG.integers(0, 256, (n, 1, 28, 28)) for k, n in COUNTS.items()},
                                      {k: np.arange(n) % 10 for k, n in COUNTS.items()})))  # fmt: skip
    raw = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    raw.write_bytes(gzip.decompress(raw.with_name(raw.name + ".gz").read_bytes()))
    peer = datasets.MNIST(tmp_path, train=True)
    assert peer.data.numpy().tolist() == given[0]["train"][:, 0].tolist()
    (train, labels), _ = genuine.read_genuine("mnist", tmp_path, download=False)
    assert train[:, 0].equal(peer.data)
    assert labels.equal(peer.targets)
    written("svhn", tmp_path)
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    peer = datasets.SVHN(tmp_path / "SVHN", split="test")
    _, (test, labels) = genuine.read_genuine("svhn", tmp_path, download=False)
    assert np.array_equal(test.numpy(), peer.data)
    assert np.array_equal(labels.numpy(), peer.labels)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_reading_a_cifar_batch_never_runs_code(protocol, tmp_path):
    proof, batch = tmp_path / "code was run", tmp_path / "batch"
    batch.write_bytes(pickle.dumps({"data": [0] * 3072, "labels": [Malicious(proof)]}, protocol))
    with pytest.raises(ValueError, match="is not a batch of CIFAR-10: it asks for (posix|nt).mkdir"):
        genuine.read_cifar_batch(batch)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"labels": []}), pickle.dumps([1]), b"\x80\x02}q\x00."])
def test_a_file_that_is_no_cifar_batch_is_refused(content, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="data_batch_1 is not a batch of CIFAR-10"):
        genuine.read_cifar_batch(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (b"\0\0\x0d\1\0\0\0\1\0", "not an idx file"),
        (b"\0\0\x08\3\0\0\0\1", "not an idx file"),
        (b"\0\0\x08\1\0\0\0\5abc", "should hold \\(5,\\) bytes after its header, got 3"),
        (b"\0\0\x08\1\0\0\0\2abc", "got 3"),
    ],
)
def test_a_damaged_idx_file_is_refused(content, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        genuine.read_idx(path)


def test_a_download_that_broke_off_is_refused_with_the_way_out(tmp_path):
    written("mnist", tmp_path)
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:2000], whole[:5], b"<html>not found</html>", whole[:500] + b"????" + whole[504:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="ubyte.gz is damaged: .*; delete that file and it is downloaded again"):
            load_data("mnist", cache=tmp_path, download=False)


def test_a_damaged_svhn_file_and_labels_that_do_not_match_are_refused(tmp_path):
    written("svhn", tmp_path)
    path = tmp_path / "SVHN/test_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((3, 1))})
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        load_data("svhn", cache=tmp_path, download=False)
    for content in (b"", b"not matlab" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of SVHN"):
            load_data("svhn", cache=tmp_path, download=False)


@pytest.mark.parametrize("name", WRITERS)
def test_without_a_network_the_error_names_the_stand_in(name, tmp_path, monkeypatch):
    import urllib.request
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    stand_in = "ink_digits" if "mnist" in name else "street_digits"
    assert SHAPES[stand_in] == ((1, 28, 28) if "mnist" in name else (3, 32, 32))
    for download, reason in ((True, "no network"), (False, "download=False")):
        with pytest.raises(ConnectionError, match=f"{name} is not in .*{reason}.*load_data\\('{stand_in}'\\)"):
            load_data(name, cache=tmp_path, download=download)


def test_every_data_set_has_its_loader():
    assert set(DATA_NAMES) == {"street_digits", "ink_digits", "digits", *WRITERS}

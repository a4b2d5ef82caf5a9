"""Damaged and hostile files for `core.load`: made from good ones, at random, and what became of each.

    python tests/fuzz_load.py --files 12000 --seed 0 --record tests/FUZZING.md

Every file must either load, or raise one `CompressedFileError` whose message is short. Nothing may be executed,
opened for writing or imported from elsewhere (an audit hook watches), no load may take longer than SECONDS, and
all of them together may not take more memory than HEADROOM above what stood there before (a limit of the process).
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import random
import resource
import signal
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from store_models import Net, Tied, build, pruned
from torch import nn

from compresslab.core import (
    CompressedFileError,
    DenseCode,
    UniformCode,
    encode,
    load,
    save,
    sparse_codebook,
    store,
)
from compresslab.models import build_model
from compresslab.sharing import HashedCode

SECONDS, HEADROOM, LONGEST = 5, 1 << 30, 600  # of one load; bytes above the start; characters of a message
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, -0.5, "", "os:system", "builtins:eval", "../../etc/passwd", "a.b.c", "Linear", "fc1", "weight",
    [], {}, [2**40, 2**40], [-3], [[[[]]]], {"__class__": "os.system"}, ["os.system", {"cmd": "false"}], ["Linear", {"in_features": 10**12, "out_features": 10**12}],
    ["Sequential", ["0"] * 1000], ["UniformCode", {"shape": [10**9, 10**9], "bits": 4}], "\x00", "层",
)  # fmt: skip
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class", "shutil.rmtree", "os.remove", "os.rename")
Mutation = Callable[[random.Random, bytes], bytes]


class Tripped(BaseException):
    """Something that no file may cause. No `except Exception` of the library can hide it."""


# -- good files --------------------------------------------------------------------------------------------------


def originals(folder: Path) -> dict[str, tuple[bytes, nn.Module | None]]:
    """Name -> the bytes of a saved file, and the skeleton it needs (None: it says itself what it holds)."""
    coded = partial(UniformCode.from_dense, bits=3, axis=0)
    small = build(lambda: build_model("resnet", depth=8, width=4))
    made = {
        "plain": (build(Net), build(Net), False),
        "tied": (build(Tied), build(Tied), False),
        "float16": (encode(build(Net), DenseCode.from_dense), build(Net), False),
        "uniform": (encode(build(Net), coded), build(Net), False),
        "code book, sparse, Huffman": (encode(pruned(build(Net)), sparse_codebook(bits=4)), build(Net), True),
        "hashed": (encode(build(Net), partial(HashedCode.from_dense, fraction=0.5), only=["head"]), build(Net), False),
        "with a spec": (small, None, False),
        "with a spec, Huffman": (encode(pruned(small), sparse_codebook(bits=2)), None, True),
    }
    files = {}
    for name, (model, skeleton, entropy) in made.items():
        save(model, folder / "f", entropy=entropy)
        files[name] = ((folder / "f").read_bytes(), skeleton)
    return files


# -- mutations ---------------------------------------------------------------------------------------------------


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    start, size = rng.randrange(len(data)), rng.choice((1, 4, 16, 256))
    return data[:start] + rng.choice((b"\x00", b"\xff", b"{", b"9"))[:1] * min(size, len(data) - start) + data[start + size :]


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 7, 8, 100))) + data[place:]


def delete(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice((1, 4, 64)) :]


def header_length(rng: random.Random, data: bytes) -> bytes:
    """Another length of the safetensors header."""
    return struct.pack("<Q", rng.choice((0, 1, 7, len(data), len(data) - 8, 2**31, 2**40, 2**63, 2**64 - 1))) + data[8:]


def header_entry(rng: random.Random, data: bytes) -> bytes:
    """Other types, shapes or offsets in the safetensors header."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    key = rng.choice([name for name in header if name != "__metadata__"])
    header[key][rng.choice(("dtype", "shape", "data_offsets"))] = rng.choice(
        ("F64", "U8", "BOOL", "F4", [2**62], [2**40, 2**40], [-1], [0], [0, 2**63], [5, 1], None, [1e9], "x" * 100)
    )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def forge(change: Callable[[random.Random, dict, dict], None]) -> Mutation:
    """Change metadata and arrays, and write a checksum that fits."""

    def mutation(rng: random.Random, data: bytes) -> bytes:
        info, tensors = store._parse(data)
        change(rng, info, tensors)
        info["crc32"] = store._checksum({key: value for key, value in info.items() if key != "crc32"}, tensors)
        return safetensors.torch.save(tensors, {"compresslab": json.dumps(info)})

    mutation.__name__ = change.__name__
    return mutation


@forge
def swap_arrays(rng: random.Random, info: dict, tensors: dict) -> None:
    a, b = rng.choice(sorted(tensors)), rng.choice(sorted(tensors))
    tensors[a], tensors[b] = tensors[b].clone(), tensors[a].clone()


@forge
def rename_array(rng: random.Random, info: dict, tensors: dict) -> None:
    name = rng.choice(sorted(tensors))
    tensors[rng.choice(("", ".", "..", "__class__", "forward", "a" * 300, "../../x", name + ".weight", "fc1.weight"))] = tensors.pop(name).clone()


@forge
def reshape_array(rng: random.Random, info: dict, tensors: dict) -> None:
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    tensors[name] = rng.choice((value.flatten(), value[None].clone(), value.flatten()[:1].clone(), value.new_zeros(0), torch.zeros(3), value.double() if value.is_floating_point() else value.long()))


@forge
def fill_array(rng: random.Random, info: dict, tensors: dict) -> None:
    """Largest, smallest or random values: positions and counts that lead out of range."""
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    raw = torch.tensor(list(rng.randbytes(value.nbytes)), dtype=torch.uint8) if value.numel() else torch.zeros(0, dtype=torch.uint8)
    fill = rng.choice((0, 127, 128, 255, None))
    raw = raw if fill is None else torch.full_like(raw, fill)
    tensors[name] = value.clone() if value.dtype is torch.bool or not value.numel() else raw.view(value.dtype).reshape(value.shape).clone()


@forge
def drop_array(rng: random.Random, info: dict, tensors: dict) -> None:
    del tensors[rng.choice(sorted(tensors))]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of nested lists and objects."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from places(item)


@forge
def hostile_value(rng: random.Random, info: dict, tensors: dict) -> None:
    """One to three places of the metadata hold something else."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        container, key = rng.choice([(c, k) for c, k in places(info) if k not in ("crc32", "version")] or [(info, "layers")])
        container[key] = json.loads(json.dumps(rng.choice(HOSTILE)))


@forge
def hostile_entry(rng: random.Random, info: dict, tensors: dict) -> None:
    """An entry more: a layer of a class of somebody's choice, a view, a tie, a stream, a spec."""
    kind = rng.choice(("layers", "ties", "views", "huffman", "spec"))
    name = rng.choice((*sorted(tensors), "", "fc1", "..", "head"))
    value = rng.choice((*HOSTILE, [name, "float32", 0, [2**40], [1]], [name, "uint8", 0, [4], [2**40]], [name, "uint8", -5, [2], [1]], [8, "int64", 2**40], [64, "uint8", 3], [2, "uint8", -1]))
    info.setdefault(kind, {})
    if isinstance(info[kind], dict):
        info[kind][rng.choice((name, "name", "depth", "width", "channels", "hidden", "x"))] = json.loads(json.dumps(value))


@forge
def deep_nesting(rng: random.Random, info: dict, tensors: dict) -> None:
    """Lists in lists in lists."""
    value: Any = []
    for _ in range(rng.choice((50, 500))):
        value = [value]
    info[rng.choice(("layers", "ties", "spec", "extra"))] = {"fc1": value}


def deepest_nesting(rng: random.Random, data: bytes) -> bytes:
    """JSON so deep that a parser that recurses fails."""
    depth = rng.choice((10_000, 100_000))
    text = b'{"__metadata__":{"compresslab":"' + b"[" * depth + b"]" * depth + b'"}}'
    return struct.pack("<Q", len(text)) + text


MUTATIONS: tuple[Mutation, ...] = (
    truncate, flip_bits, overwrite, insert, delete, header_length, header_entry, swap_arrays, rename_array, reshape_array, fill_array, drop_array,
    hostile_value, hostile_value, hostile_value, hostile_entry, hostile_entry, deep_nesting, deepest_nesting,
)  # fmt: skip


# -- the run -----------------------------------------------------------------------------------------------------


class Watch:
    """While on: no code, no process, no writing, no module from elsewhere; and a limit of time."""

    def __init__(self) -> None:
        self.on = False
        self.known = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        foreign = event == "import" and str(args[0]).partition(".")[0] not in self.known and not by_torch()
        if event in WATCHED or writes or foreign:
            raise Tripped(f"{event} {str(args)[:100]}")

    def __enter__(self) -> None:
        signal.alarm(SECONDS)
        self.on = True

    def __exit__(self, *_: object) -> None:
        self.on = False
        signal.alarm(0)


def by_torch() -> bool:
    """Whether the import under way was asked for by torch, which imports some of its own needs late."""
    frame = sys._getframe(2)
    while frame and "importlib" in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] not in ("torch", "compresslab", "__main__", "fuzz_load"):
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].partition(".")[0] == "torch"


def too_long(*_: object) -> None:
    raise Tripped(f"longer than {SECONDS} s")


def judge(path: Path, skeleton: nn.Module | None, watch: Watch) -> str:
    """ "loaded" or "refused", or what went wrong."""
    try:
        with watch:
            model = load(path, skeleton)
        return "loaded" if isinstance(model, nn.Module) else "no network"
    except CompressedFileError as error:
        message = str(error)
        if "alloc" in message.lower() or isinstance(error.__cause__, MemoryError):
            return f"too much memory: {message[:200]}"
        return "refused" if message and len(message) <= LONGEST else f"a message of {len(message)} characters"
    except Tripped as tripped:
        return f"tripped: {tripped}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def fuzz(files: int, seed: int) -> tuple[collections.Counter, list[str]]:
    """(how often each mutation ended how, the cases that must not be)."""
    warnings.simplefilter("ignore")  # torch's, of empty arrays
    watch, counts, bad = Watch(), collections.Counter(), []
    old_alarm = signal.signal(signal.SIGALRM, too_long)
    old_limit = resource.getrlimit(resource.RLIMIT_AS)
    with tempfile.TemporaryDirectory() as folder:
        good = originals(Path(folder))
        names, path = sorted(good), Path(folder) / "mutated.safetensors"
        for data, skeleton in good.values():  # all modules that good files need are imported now
            path.write_bytes(data)
            load(path, skeleton)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + HEADROOM, old_limit[1]))
        try:
            for index in range(files):
                rng = random.Random(f"{seed} {index}")
                name, mutate = rng.choice(names), MUTATIONS[index % len(MUTATIONS)]
                data, skeleton = good[name]
                path.write_bytes(mutate(rng, data))
                outcome = judge(path, skeleton, watch)
                counts[mutate.__name__, outcome if outcome in ("loaded", "refused") else "bad"] += 1
                if outcome not in ("loaded", "refused"):
                    bad.append(f"file {index}, {mutate.__name__} of {name!r}: {outcome}")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, old_limit)
            signal.signal(signal.SIGALRM, old_alarm)
    return counts, bad


def record(counts: collections.Counter, bad: list[str], files: int, seed: int) -> str:
    """The page: a line per mutation."""
    lines = [
        "# Fuzzing `core.load`", "",
        f"Made by `python tests/fuzz_load.py --files {files} --seed {seed} --record tests/FUZZING.md`; edit nothing here, run it again. Python {platform.python_version()}, "
        f"torch {torch.__version__.split('+')[0]}, safetensors {safetensors.__version__}.", "",
        f"{files:,} files: at most {SECONDS} s each, at most {HEADROOM >> 20} MB above the start for all; nothing executed, written or imported from elsewhere. "
        "*Loaded* are files whose change does no harm, or that a forger gave a fitting checksum.", "",
        "| mutation | files | refused | loaded | must not be |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name in dict.fromkeys(mutation.__name__ for mutation in MUTATIONS):
        refused, loaded, wrong = (counts[name, outcome] for outcome in ("refused", "loaded", "bad"))
        lines.append(f"| {name} | {refused + loaded + wrong:,} | {refused:,} | {loaded:,} | {wrong:,} |")
    total = [sum(count for (_, outcome), count in counts.items() if outcome == kind) for kind in ("refused", "loaded", "bad")]
    return "\n".join([*lines, f"| all | {sum(total):,} | {total[0]:,} | {total[1]:,} | {total[2]:,} |", *(["", *bad] if bad else []), ""])


def main() -> int:
    """0 if every file was loaded or refused."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--files", type=int, default=12_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--record", type=Path, help="write the record to this file")
    args = options.parse_args()
    counts, bad = fuzz(args.files, args.seed)
    page = record(counts, bad, args.files, args.seed)
    print(page)
    if args.record:
        args.record.write_text(page, encoding="utf-8")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())

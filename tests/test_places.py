"""The course in odd places: names that are not ASCII, a checkout that cannot be written, no home, no network, other systems."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compresslab

PACKAGE = Path(compresslab.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

TRY = r"""
import errno, os, socket, sys
from pathlib import Path

room, kind = Path(sys.argv[1]), sys.argv[2]
writable = [os.path.realpath(room), "/dev/"]

def refuse(event, arguments):
    # a disk that cannot be written outside of the room, and no network
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") and not (
        isinstance(arguments[-1], (str, bytes)) and event == "socket.connect"  # a local socket file
    ):
        raise OSError(errno.ENETUNREACH, "there is no network here")
    paths = []
    if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        paths = arguments[:1]
    if event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        paths = [one for one in arguments[:2] if isinstance(one, (str, bytes))]
    for path in map(os.path.realpath, map(os.fsdecode, paths)):
        if not any(path.startswith(place) for place in writable):
            raise OSError(errno.EROFS, "Read-only file system", path)

sys.addaudithook(refuse)
if kind == "other system":
    import signal
    sys.modules["fcntl"] = sys.modules["resource"] = None
    for name in ("pthread_kill", "setitimer", "SIGALRM", "alarm"):
        delattr(signal, name)
    del os.fork

import torch
from compresslab.core import encode, load, save, sparse_codebook
from compresslab.course import check, doctor, progress
from compresslab.data import load_data
from compresslab.deploy import OnnxModel, export_onnx
from compresslab.models import load_baseline
from compresslab.pruning import prune_magnitude

net = load_baseline("lenet300").eval()
x = load_data("ink_digits").test.x(slice(4))
small = encode(prune_magnitude(net, sparsity=0.9), make_code=sparse_codebook(bits=4))
path = room / "small and fast.safetensors"
save(small, path)
assert torch.equal(load(path)(x), small(x))
if sys.getfilesystemencoding() == "utf-8":  # ONNX Runtime takes no other names
    export_onnx(net, path.with_suffix(".onnx"), tuple(x.shape[1:]))
    assert torch.allclose(OnnxModel(path.with_suffix(".onnx"))(x), net(x), atol=1e-4)

def compression_ratio(dense_bits, compressed_bits):
    return dense_bits.sum() / compressed_bits.sum()

check("0.1", compression_ratio)
print("state", progress.states().get("0.1"))
"""


def attempt(room, kind, **changes):
    """Run `TRY` in a fresh process; a change of None takes a variable out of its environment."""
    temporary = room / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT),
                   "PYTHONIOENCODING": "utf-8", "COMPRESSLAB_HOME": str(room / "home"), **changes}  # fmt: skip
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(room), kind], env=environment, cwd=room, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["utf-8", "C"])
def test_folders_with_spaces_and_letters_of_any_language(tmp_path, locale):
    """A read-only checkout and no network besides: `TRY` may write below its room only."""
    room = tmp_path / "Übung 课程 ñ" / "a b"
    assert "state passed" in attempt(room, "usual", **locale)
    assert (room / "home" / "progress.jsonl").exists()


@pytest.mark.parametrize("home", [None, "/nonexistent/home"])
def test_without_a_home_the_check_works_and_says_that_nothing_is_saved(tmp_path, home):
    said = attempt(tmp_path, "usual", HOME=home, COMPRESSLAB_HOME=None, XDG_DATA_HOME=None, XDG_CACHE_HOME=None)
    assert "0.1 compression_ratio passed" in said
    assert said.count("Your progress is not being saved") == 1 and "Set COMPRESSLAB_HOME" in said


def test_without_what_only_unix_has(tmp_path):
    """`fcntl`, `resource`, `os.fork` and the signals that Windows lacks are hidden."""
    assert "state passed" in attempt(tmp_path, "other system")


# -- what holds for every file of the package ---------------------------------------------------------------


def text_without_encoding(source):
    """Lines where text is read or written in whatever encoding the system has."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        plain = name == "open" and isinstance(node.func, ast.Name)
        modes = [a.value for a in [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")] if isinstance(a, ast.Constant)]
        if name in ("read_text", "write_text") or (plain and not any("b" in str(mode) for mode in modes)):
            lines.append(node.lineno)
    return lines


def test_such_lines_are_found():
    source = 'open(a)\nopen(a, "rb")\nopen(a, mode="w")\np.read_text()\np.write_text(t, encoding="utf-8")\nos.open(p, flags)'
    assert text_without_encoding(source) == [1, 3, 4]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_text_files_name_their_encoding(path):
    assert text_without_encoding(path.read_text(encoding="utf-8")) == []


def test_every_file_of_the_course_can_be_checked_out_on_windows_and_macos():
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git here")
    names = [name for name in listed.split("\0") if name]
    assert len(names) > 100
    reserved = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}
    for name in names:
        for part in name.split("/"):
            assert part.isascii() and not set(part) & set('<>:"\\|?*') and part[-1] not in ". ", name
            assert part.split(".")[0].lower() not in reserved, name
        assert len(name) < 150, name
    assert len({name.lower() for name in names}) == len(names)  # two names that differ in case are one file there

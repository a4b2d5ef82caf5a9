"""A small run of the fuzzer of `core.load`, and that it notices what must not be. The large one: tests/FUZZING.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compresslab.core import CompressedFileError, load
from compresslab.models import from_spec

pytest.importorskip("resource", reason="the limits of a process are those of Unix")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")

SCRIPT = Path(__file__).with_name("fuzz_load.py")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=600,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[1])))})


def test_every_mutated_file_is_loaded_or_refused():
    done = run(str(SCRIPT), "--files", "570", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| truncate | 30 | 30 | 0 | 0 |" in done.stdout and "| all | 570 |" in done.stdout


@pytest.mark.parametrize("deed, told", [
    ("os.system('true')", "tripped: os.system"),
    ("open(path, 'w')", "tripped: open"),
    ("__import__('fuzz_target_nowhere')", "tripped: import"),
    ("torch.empty(1 << 40, dtype=torch.uint8)", "too much memory"),
    ("(_ for _ in ()).throw(KeyError('x'))", "KeyError"),
    ("(_ for _ in ()).throw(CompressedFileError('m' * 10_000))", "a message of 10000 characters"),
    ("[None for _ in iter(int, 1)]", "tripped: longer than"),
])
def test_the_fuzzer_notices(deed, told):
    code = f"""
import os, resource, signal, torch, fuzz_load
from compresslab.core import CompressedFileError
fuzz_load.SECONDS = 1
signal.signal(signal.SIGALRM, fuzz_load.too_long)
def wicked(path, skeleton):
    try:
        {deed}
    except (MemoryError, RuntimeError) as error:
        raise CompressedFileError(str(error)) from error
fuzz_load.load = wicked
print(fuzz_load.judge('f', None, fuzz_load.Watch()))
"""
    done = run("-c", code)
    assert done.stdout.startswith(told), done.stdout + done.stderr


def test_a_message_is_short_whatever_the_file_holds(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"{" * 16)
    with pytest.raises(CompressedFileError) as caught:
        load(file)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [{"model": "resnet", "depth": 6 * 10**9 + 2}, {"model": "gpt", "layers": 10**9}, {"model": "compact", "depth": 1e300}])
def test_a_network_deeper_than_any_is_refused_at_once(spec):
    with pytest.raises(ValueError, match="must be at most 1300, got"):
        from_spec(spec)

"""Answers that loop, eat memory, exit, patch PyTorch or change its settings: the check says which, and the kernel lives."""

import os
import random
import signal
import sys
import threading
import time

import jupyter_client
import numpy as np
import pytest
import torch
from toy_chapter import CHAPTER, EXERCISES, toy  # noqa: F401

from compresslab.course import guard
from compresslab.course.checking import Tail, judge
from compresslab.course.guard import OutOfTime, fresh_settings, memory_limit, replaced, settings, time_limit

KEEP = EXERCISES[0]


def learner(body):
    space = {"__name__": "__main__", "torch": torch, "np": np, "os": os, "sys": sys, "time": time}
    indented = body.replace("\n", "\n    ")
    exec(compile(f"def keep_largest(values, k):\n    {indented}", "<ipython-input-1>", "exec"), space)
    return space["keep_largest"]


RIGHT = "return torch.zeros(len(values), dtype=torch.bool).index_fill(0, values.abs().argsort(descending=True)[:k], True)"

HOSTILE = {
    "endless loop": ("while True:\n    pass", "did not come to an end within 1 s"),
    "sleep": ("time.sleep(1e6)", "did not come to an end within 1 s"),
    "loop that swallows exceptions": ("while True:\n    try:\n        time.sleep(.05)\n    except:\n        pass", "did not come to an end"),
    "print flood": ("while True:\n    print('x' * 1000)", "did not come to an end"),
    "endless recursion": ("def again(n):\n    return again(n + 1)\nreturn again(0)", "calls itself without end"),
    "huge tensor": ("return torch.zeros(10**13)", "asked for more memory than a check may use"),
    "huge array": ("return np.ones(10**13)", "asked for more memory than a check may use"),
    "sys.exit": ("sys.exit(0)", "called exit()"),
    "SystemExit": ("raise SystemExit", "called exit()"),
    "import deleted": ("return tensor_library.zeros(3)", "run the cells above again, the imports first"),
    "default dtype": ("torch.set_default_dtype(torch.float64)\n" + RIGHT, "changed PyTorch's default dtype for everything that runs after it"),
    "gradient mode": ("torch.set_grad_enabled(False)\n" + RIGHT, "changed PyTorch's gradient mode"),
    "default device": ("torch.set_default_device('meta')\nreturn values", "changed PyTorch's default device"),
    "working directory": ("os.chdir(os.sep)\n" + RIGHT, "changed the working directory"),
    "recursion limit": ("sys.setrecursionlimit(12345)\n" + RIGHT, "changed Python's recursion limit"),
    "patched function": ("torch.abs = lambda x: x\n" + RIGHT, "replaced torch.abs"),
    "patched method": ("torch.Tensor.argsort = None\nreturn values", "replaced torch.Tensor.argsort"),
    "closed stdout": ("sys.stdout.close()\nreturn values", "returns its input"),
    "changed input": ("values.zero_()\n" + RIGHT, "changed its input values"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_second(monkeypatch):
    monkeypatch.setenv("COMPRESSLAB_CHECK_SECONDS", "1")


def surroundings():
    return settings(), torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()), signal.getsignal(signal.SIGINT)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_check_says_in_one_sentence_what_a_hostile_answer_did_and_restores_everything(name):
    body, words = HOSTILE[name]
    before, start = surroundings(), time.monotonic()
    verdict = judge(KEEP, learner(body), CHAPTER)
    assert verdict.state == "wrong" and words in verdict.message
    assert len(verdict.message.splitlines()[0]) < 400
    assert surroundings() == before and replaced() == []
    assert time.monotonic() - start < 60
    assert judge(KEEP, learner(RIGHT), CHAPTER).state == "passed"


def test_an_answer_whose_text_never_ends_is_wrong_all_the_same():
    odd = "class Odd:\n    def __repr__(self):\n        while True:\n            pass\nreturn Odd()"
    verdict = judge(KEEP, learner(odd), CHAPTER)
    assert verdict.state == "wrong" and verdict.message.startswith("90.1 keep_largest")


def test_a_right_answer_passes_whatever_the_notebook_has_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    torch.set_default_dtype(torch.float64), torch.set_grad_enabled(False)
    try:
        before = surroundings()
        verdict = judge(KEEP, learner("import random\nrandom.random(), np.random.rand(), torch.rand(1)\n" + RIGHT), CHAPTER)
        assert verdict.state == "passed", verdict.message
        assert surroundings() == before
    finally:
        torch.set_default_dtype(torch.float32), torch.set_grad_enabled(True)


def test_pytorch_patched_in_a_cell_is_named_before_anything_is_judged(monkeypatch):
    monkeypatch.setattr(torch, "argsort", torch.sort)
    verdict = judge(KEEP, learner(RIGHT), CHAPTER)
    assert verdict.state == "wrong" and "torch.argsort was replaced" in verdict.message and "restart the kernel" in verdict.message


def test_replaced_functions_are_put_back():
    torch.round, torch.Tensor.abs = torch.floor, None
    assert replaced() == ["torch.round", "torch.Tensor.abs"]
    assert replaced(put_back=True) == ["torch.round", "torch.Tensor.abs"] and replaced() == []
    assert torch.round(torch.tensor(0.7)) == 1 and torch.tensor(-1.0).abs() == 1


def test_what_a_library_wraps_is_left_alone(monkeypatch):
    import functools

    wrapped = functools.wraps(torch.manual_seed)(lambda seed: None)
    monkeypatch.setattr(torch, "manual_seed", wrapped)
    assert replaced(put_back=True) == [] and torch.manual_seed is wrapped
    monkeypatch.undo()


# -- the limits by themselves -------------------------------------------------------------------------


def test_the_stop_button_still_stops():
    threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), time_limit(30):
        time.sleep(20)


def test_without_pthread_kill_a_loop_is_interrupted_too(monkeypatch):
    monkeypatch.delattr(signal, "pthread_kill")
    with pytest.raises(OutOfTime), time_limit(0.3):
        while True:
            pass


def test_the_handler_is_put_back_whenever_the_time_ends():
    """Times just above and below what the work takes: some are interrupted, some on their way out."""
    before = signal.getsignal(signal.SIGINT)
    start = time.perf_counter()
    sum(number * number for number in range(100_000))
    once = time.perf_counter() - start
    for number in range(200):
        try:
            with time_limit(once * (0.9 + 0.001 * number)):
                sum(number * number for number in range(100_000))
        except OutOfTime:
            pass
    with pytest.raises(OutOfTime), time_limit(0.05):
        time.sleep(30)
    assert signal.getsignal(signal.SIGINT) is before
    assert "time limit of a check" not in [thread.name for thread in threading.enumerate()]


def test_in_another_thread_there_is_no_limit_and_no_error():
    seen = []

    def work():
        with time_limit(0.01):
            time.sleep(0.1)
            seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["done"]


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf"])
def test_limits_refuse_what_is_no_number_above_zero(monkeypatch, value):
    monkeypatch.setenv("COMPRESSLAB_CHECK_SECONDS", value)
    with pytest.raises(ValueError, match=f"COMPRESSLAB_CHECK_SECONDS must be a number above 0, got '{value}'"), time_limit():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA limits private memory on Linux only")
def test_memory_is_refused_before_the_machine_runs_out():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    eaten = []
    with pytest.raises(MemoryError), memory_limit(0.3):
        while True:
            eaten.append(np.ones(10**6))
    assert 10 < len(eaten) < 100  # 8 MB each
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_without_resource_there_is_no_memory_limit(monkeypatch):
    monkeypatch.setattr(guard.sys, "platform", "win32")
    with memory_limit(0.000001):
        assert np.ones(10**7).sum() == 10**7


def test_a_folder_that_is_gone_does_not_stop_a_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with fresh_settings():
        pass


def test_of_a_flood_only_the_end_is_kept():
    tail = Tail()
    for number in range(100_000):
        print(number, file=tail)
    assert tail.getvalue().endswith("99998\n99999\n") and len(tail.getvalue()) < 3 * Tail.KEPT
    print("y" * 10**6, file=tail)
    assert len(tail.getvalue()) < 4 * Tail.KEPT


# -- one kernel, one hostile answer after the other -------------------------------------------------------


def test_one_kernel_lives_through_all_of_them(tmp_path):
    manager, client = jupyter_client.manager.start_new_kernel(
        kernel_name="python3",
        env={**os.environ, "COMPRESSLAB_HOME": str(tmp_path), "COMPRESSLAB_CHECK_SECONDS": "1"},
        cwd=str(tmp_path),
    )
    try:

        def run(code):
            said = []

            def hear(message):
                content = message["content"]
                said.append("\n".join(content.get("traceback", [])) + content.get("text", ""))

            reply = client.execute_interactive(code, timeout=120, output_hook=hear)
            return reply["content"]["status"], "\n".join(said)

        assert run("import os, sys, time, numpy as np, torch\nfrom compresslab.course import check")[0] == "ok"
        for name in ("endless loop", "sys.exit", "huge tensor", "endless recursion", "default dtype", "patched function",
                     "loop that swallows exceptions"):  # fmt: skip
            body, words = HOSTILE[name]
            code = body.replace(RIGHT, "return values").replace("\n", "\n    ")
            status, said = run(f"def pack_bits(values, k):\n    {code}\ncheck('0.5', pack_bits)")
            assert status == "error" and words in said, (name, said)
        status, said = run("assert torch.get_default_dtype() is torch.float32\nprint(1 + 1)")
        assert status == "ok" and said.strip() == "2"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

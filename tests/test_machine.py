"""The description of the machine: what explains a time, and nothing that names a person or a place."""

import getpass
import json
import os
import platform
import socket
import sys
from pathlib import Path

import pytest
import torch

from compresslab.deploy import machine


def test_description_can_be_written_as_json_and_holds_what_explains_a_time():
    found = machine.describe_machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["cores"] >= 1
    assert found["torch"] and found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["python"] == platform.python_version()
    assert (found["gpu"] is None) == (not torch.cuda.is_available())


def test_no_host_user_or_path():
    text = json.dumps(machine.describe_machine())
    for secret in (socket.gethostname(), getpass.getuser()):
        assert len(secret) < 3 or f'"{secret}"' not in text
    for place in (str(Path.home()), os.getcwd(), sys.prefix):
        assert len(place) < 3 or place not in text


def test_processor_read_from_the_kernels_file(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Toy 9000 @ 1: 2 GHz\nflags\t\t: fpu avx2 amx_int8 avx512f_not\n\nmodel name: second\n")
    monkeypatch.setattr(machine, "CPU_INFO", file)
    found = machine.describe_machine()
    assert found["cpu"] == "Toy 9000 @ 1: 2 GHz"
    assert found["instructions"] == ["avx2", "amx_int8"]


def test_arm_names_its_features_differently(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nFeatures : fp asimd asimddp i8mm\n")
    monkeypatch.setattr(machine, "CPU_INFO", file)
    assert machine.describe_machine()["instructions"] == ["asimddp", "i8mm"]


def test_without_the_kernels_file(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    found = machine.describe_machine()
    assert found["cpu"] and found["instructions"] == []


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(machine, "ENGINES", ("torch", "no_such_package"))
    assert machine.describe_machine()["no_such_package"] is None


@pytest.mark.parametrize(("gpu", "wanted"), [(None, "Toy, 1 cores (no vector instructions reported), torch 1"),
                                             ("GPU 7", "Toy, 1 cores (no vector instructions reported), GPU 7, torch 1")])  # fmt: skip
def test_line(gpu, wanted):
    assert machine.machine_line({"cpu": "Toy", "cores": 1, "instructions": [], "gpu": gpu, "torch": "1", "torchao": None}) == wanted

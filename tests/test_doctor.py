"""The doctor: sees what is wrong, and each repair line is exact."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
from toy_chapter import toy  # noqa: F401

from compresslab.course import doctor


def test_this_machine_is_examined_without_changing_it(toy, capsys):
    doctor.report()
    out = capsys.readouterr().out
    for word in (
        "Python",
        "torch ",
        "torchvision operators",
        "threads",
        "memory",
        "fonts",
        "(data sets)",
        "(progress)",
    ):
        assert word in out
    assert not toy.exists()


def test_all_is_well_on_a_good_machine(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("torch", "2.13.0")])
    assert doctor.report() is True and "All is well" in capsys.readouterr().out


def test_a_missing_package_names_the_install_line(monkeypatch, capsys):
    def version(name):
        if name == "nbval":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    bad = [finding for finding in doctor.packages() if not finding.ok]
    assert [(f.name, f.found) for f in bad] == [("nbval", "missing")] and bad[0].repair.endswith(
        "-m pip install -e . -c constraints.txt"
    )
    assert bad[0].repair.startswith(Path(sys.executable).name)
    assert doctor.report() is False and "NO  nbval" in capsys.readouterr().out


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "_available_memory", lambda: int(1e9))
    assert "Shut Down All Kernels" in doctor.memory().repair
    monkeypatch.setattr(doctor, "_available_memory", lambda: None)
    assert doctor.memory().ok


def test_an_unwritable_folder_names_its_variable(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    finding = doctor.writable("progress", blocked / "home", "COMPRESSLAB_HOME")
    assert not finding.ok and finding.repair.startswith('export COMPRESSLAB_HOME="$HOME/compresslab_home"')
    assert (
        doctor.writable("progress", tmp_path / "not" / "yet", "COMPRESSLAB_HOME").ok
        and not (tmp_path / "not").exists()
    )
    monkeypatch.setattr(
        doctor.tempfile,
        "NamedTemporaryFile",
        lambda **kw: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    assert "Permission denied" in doctor.writable("progress", tmp_path, "COMPRESSLAB_HOME").found


def test_old_python_and_missing_fonts(monkeypatch, tmp_path):
    import matplotlib

    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert "environment.yml" in doctor.python_version().repair
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    assert doctor.fonts().repair.endswith("-m pip install --force-reinstall matplotlib")


def test_a_look_that_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "threads", lambda: 1 / 0)
    assert any("ZeroDivisionError" in finding.found and not finding.ok for finding in doctor.examine())


@pytest.mark.parametrize("present, word", [(True, "present"), (False, "absent, not needed here")])
def test_torchvision_without_its_operators_is_fine(monkeypatch, present, word):
    import torchvision.extension

    monkeypatch.setattr(torchvision.extension, "_has_ops", lambda: present)
    finding = doctor.torchvision_operators()
    assert finding.ok and word in finding.found


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSLAB_CACHE", os.fspath(tmp_path))
    assert str(tmp_path) in doctor.cache().found

"""runtime/task.py: a task's directory goes, whatever else comes and goes in it meanwhile."""

from __future__ import annotations

import os

from pynetns.runtime.task import delete_bundle, task_directory


def filled(tmp_path):
    directory = task_directory(str(tmp_path), "c")
    os.makedirs(f"{directory}/exec")
    for name in ("config.json", "exit.tmp", "exec/exit"):
        with open(f"{directory}/{name}", "w"):
            pass
    os.mkfifo(f"{directory}/exec.fifo")
    return directory


def test_it_goes_with_all_that_is_in_it(tmp_path):
    directory = filled(tmp_path)
    delete_bundle(str(tmp_path), "c")
    assert not os.path.exists(directory)
    delete_bundle(str(tmp_path), "c")  # absent is fine


def test_a_record_that_is_renamed_meanwhile(tmp_path, monkeypatch):
    """As the shim does it: between our look and our removal."""
    directory, real = filled(tmp_path), os.unlink

    def unlink(path, **at):
        if os.path.exists(f"{directory}/exit.tmp"):
            os.rename(f"{directory}/exit.tmp", f"{directory}/exit")
        real(path, **at)

    monkeypatch.setattr(os, "unlink", unlink)
    delete_bundle(str(tmp_path), "c")
    assert not os.path.exists(directory)


def test_a_record_that_is_removed_meanwhile(tmp_path, monkeypatch):
    directory, real = filled(tmp_path), os.unlink

    def unlink(path, **at):
        if path.endswith("exit.tmp"):
            real(path, **at)
        real(path, **at)

    monkeypatch.setattr(os, "unlink", unlink)
    delete_bundle(str(tmp_path), "c")
    assert not os.path.exists(directory)

"""The header's marked region is the cdef: constants and sizes agree between C and Python."""

from __future__ import annotations

import re
from pathlib import Path

from pynetns.kernel.lib import ffi, lib, step_name

HEADER = (Path(__file__).parents[2] / "csrc" / "pynetns.h").read_text()


def test_region_has_nothing_cffi_refuses():
    region = HEADER.split("/* CDEF BEGIN */")[1].split("/* CDEF END */")[0]
    region = re.sub(r"/\*.*?\*/", "", region, flags=re.DOTALL)
    for word in ("pid_t", "#", "__attribute__", "static", "inline"):
        assert word not in region


def test_error_fits_one_atomic_pipe_write():
    assert ffi.sizeof("struct pn_error") == 256


def test_trace_array_matches_its_limit():
    assert len(ffi.new("struct pn_trace *").end) == lib.PN_TRACE_MAX


def test_key_matches_its_limit():
    assert len(ffi.new("struct pn_frame *").key) == lib.PN_KEY_MAX
    assert len(ffi.new("struct pn_task_entry *").key) == lib.PN_KEY_MAX


def test_every_step_and_operation_has_a_name():
    names = [n for n in dir(lib) if n.startswith(("PN_STEP_", "PN_OP_")) and n != "PN_STEP_NONE"]
    assert len(names) > 50
    for name in names:
        assert step_name(getattr(lib, name)) != "unknown step", name

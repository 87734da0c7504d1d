"""Describes the compiled module to cffi: the marked region of pynetns.h, verbatim, over the C units."""

from __future__ import annotations

import os
import re

from cffi import FFI

HERE = os.path.dirname(os.path.abspath(__file__))
CHILD_UNITS = "child child_path child_tty child_mount child_cred"
OVERLAY_UNITS = "overlay overlay_links overlay_blame"
UNITS = (
    f"error cleanup thread namespace netlink link mount foreign_proc {OVERLAY_UNITS} bpf plan spawn "
    f"{CHILD_UNITS} frame"
).split()
SHIM_UNITS = (
    "shim shim_clean shim_home shim_setup shim_store shim_conn shim_request shim_spawn shim_task shim_exit "
    "shim_report shim_stream shim_sink shim_feed shim_log shim_lines shim_logfile shim_encode keeper "
    f"frame spawn plan {CHILD_UNITS} error cleanup"
).split()
CFLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wmissing-prototypes",
    "-Wincompatible-pointer-types",
]
# PYNETNS_SANITIZE=1 builds both programs with the address and undefined-behaviour sanitizers.
SANITIZE = ["-fsanitize=address,undefined", "-g"] if os.environ.get("PYNETNS_SANITIZE") else []


def cdef() -> str:
    """The declarations between the markers, without comments (cffi takes them, but not all)."""
    with open(os.path.join(HERE, "pynetns.h"), encoding="utf-8") as header:
        text = header.read()
    region = text.split("/* CDEF BEGIN */")[1].split("/* CDEF END */")[0]
    return re.sub(r"/\*.*?\*/", "", region, flags=re.DOTALL)


ffi = FFI()
ffi.cdef(cdef())
ffi.set_source(
    "pynetns._core",
    '#include "pynetns.h"',
    sources=[f"csrc/{unit}.c" for unit in UNITS],
    include_dirs=["csrc"],
    extra_compile_args=[*CFLAGS, *SANITIZE],
    extra_link_args=SANITIZE,
    py_limited_api=True,
)

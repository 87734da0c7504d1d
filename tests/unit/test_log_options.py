"""runtime/shim/log_options.py: what the shim is told about a log."""

from __future__ import annotations

import pytest

from pynetns.kernel import frame
from pynetns.kernel.lib import ffi
from pynetns.model.log_config import LogOptions
from pynetns.runtime.shim.log_options import encode_log_options


def told(options: LogOptions, name: str = "x-json.log"):
    encoded = encode_log_options(options, name)
    assert len(encoded) == ffi.sizeof("struct pn_log_options")
    structure = ffi.new("struct pn_log_options *")
    ffi.memmove(structure, encoded, len(encoded))
    return structure


def test_every_option_is_told() -> None:
    options = told(LogOptions("local", 1 << 40, 7, True, 4 << 20), "local-logs/container.log")
    assert (options.driver, options.mode) == (frame.LOG_LOCAL, frame.LOG_NON_BLOCKING)
    assert (options.max_size, options.max_file, options.max_buffer) == (1 << 40, 7, 4 << 20)
    assert ffi.string(options.name) == b"local-logs/container.log"


def test_a_blocking_log_without_limit() -> None:
    options = told(LogOptions("json-file"))
    assert (options.driver, options.mode) == (frame.LOG_JSON_FILE, frame.LOG_BLOCKING)
    assert (options.max_size, options.max_file) == (0, 1)


def test_the_longest_name_of_a_container_fits() -> None:
    assert ffi.string(told(LogOptions("json-file"), f"{'f' * 64}-json.log").name).endswith(b".log")
    with pytest.raises(ValueError, match="too long"):
        told(LogOptions("json-file"), "f" * 104)

"""kernel/operations.py against csrc/plan.c: what Python writes C accepts, what is damaged C refuses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.kernel.lib import ffi, lib
from pynetns.kernel.operations import Plan, exec_candidates


def check(encoded: bytes, nfds: int = 3) -> int:
    """What C says of a plan; nothing is executed."""
    buffer = ffi.new("uint64_t[]", (len(encoded) + 7) // 8 or 1)
    ffi.memmove(buffer, encoded, len(encoded))
    error = ffi.new("struct pn_error *")
    return int(lib.pn_plan_check(ffi.cast("uint8_t *", buffer), len(encoded), nfds, error))


def small_plan() -> Plan:
    plan = Plan(0)
    plan.hostname("x")
    plan.exec(["/nonexistent/program"], [])
    return plan


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda b: b[:-8], "truncated"),
        (lambda b: b[48:], "no clone first"),
        (lambda b: b + b, "operation after exec"),
        (lambda b: b[:40], "no exec"),
        (lambda b: b"\xff\xff" + b[2:], "unknown operation"),
        (lambda b: b.replace(b"x\0\0\0\0\0\0\0", b"xyzzyxyz"), "string without end"),
        (lambda b: b"", "empty"),
    ],
)
def test_damaged_plan_is_refused(damage, why):
    assert check(damage(small_plan().encode())) == -22, why


def test_descriptor_index_out_of_range_is_refused():
    plan = Plan(0)
    plan.setns(7, 0)
    plan.exec(["/bin/true"], [])
    assert check(plan.encode(), nfds=3) == -22


@pytest.mark.parametrize("late", [False, True])
def test_sockets_are_of_the_table_and_not_for_later_than_the_working_directory(late):
    """But those of `wait`, which stay open so long."""
    plan = Plan(0)
    if late:
        plan.cwd("/")
    plan.tty(24, 80, socket=9)
    plan.wait(5, 6)
    plan.exec(["/bin/true"], [])
    assert plan.fds == [9, 5, 6]
    assert check(plan.encode(), nfds=6) == (-22 if late else 0)
    assert check(plan.encode(), nfds=5) == -22  # the third is not in the table


@given(st.binary(max_size=400))
def test_noise_is_refused(noise):
    assert check(noise) == -22


@given(st.binary(min_size=1, max_size=64), st.integers(0, 200))
def test_overwritten_plan_is_checked_without_reading_past_its_end(noise, where):
    encoded = bytearray(small_plan().encode())
    where = min(where, len(encoded) - 1)
    encoded[where : where + len(noise)] = noise[: len(encoded) - where]
    assert check(bytes(encoded)) in (0, -22)


def test_a_good_plan_passes():
    assert check(small_plan().encode()) == 0


def test_strings_with_nul_are_refused():
    plan = Plan(0)
    with pytest.raises(ValueError, match="NUL"):
        plan.hostname("a\0b")


def test_layout_is_that_of_the_header():
    plan = Plan(0x20000)
    code, nstr, size, _, flags, cgroup, *_ = struct.unpack("=IIII4q", plan.encode())
    assert (code, nstr, size, flags, cgroup) == (1, 0, 0, 0x20000, -1)
    assert ffi.sizeof("struct pn_op") == 48


def test_exec_candidates_follow_path():
    assert exec_candidates("ls", ["PATH=/a::/b"]) == ["/a/ls", "./ls", "/b/ls"]
    assert exec_candidates("./ls", ["PATH=/a"]) == ["./ls"]
    assert "/usr/bin/ls" in exec_candidates("ls", [])


def test_describe_names_operation_and_subject():
    plan = Plan(0)
    plan.mount("proc", "proc", "/proc", 0)
    plan.mask("/proc/kcore")
    assert plan.describe(1) == ("mount", "/proc")
    assert plan.describe(2) == ("mask", "/proc/kcore")

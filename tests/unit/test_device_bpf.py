"""pynetns/runtime/cgroups/device_bpf.py: the program does what the rules say.

The generated instructions are run by a small interpreter and compared with a model of the rules.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter
from pynetns.runtime.cgroups.device_bpf import RUNTIME_RULES, assemble, v1_lines
from pynetns.runtime.spec.devices import DEFAULT_RULES

BITS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}


def execute(program: bytes, kind: str, access: int, major: int, minor: int) -> int:
    """Run a device program; r0 at its exit. Every instruction but those used here is an error."""
    context = struct.pack("<III", access << 16 | TYPES[kind], major, minor)
    code = list(struct.iter_unpack("<BBhi", program))
    registers = dict.fromkeys(range(11), None)
    registers[1] = "context"
    position = steps = 0
    while True:
        opcode, names, offset, immediate = code[position]
        dst, src = names & 15, names >> 4
        position += 1
        steps += 1
        assert steps <= len(code), "a jump backwards"
        match opcode:
            case 0x61:
                assert registers[src] == "context"
                registers[dst] = struct.unpack_from("<I", context, offset)[0]
            case 0xBF:
                registers[dst] = registers[src]
            case 0xB7:
                registers[dst] = immediate
            case 0x57:
                registers[dst] &= immediate
            case 0x77:
                registers[dst] >>= immediate
            case 0x05:
                position += offset
            case 0x55:
                position += offset if registers[dst] != immediate else 0
            case 0x45:
                position += offset if registers[dst] & immediate else 0
            case 0x95:
                assert registers[0] in (0, 1)
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


def speaks_of(rule: dict, kind: str, major: int, minor: int) -> bool:
    return (
        rule.get("type", "a") in ("a", kind)
        and rule.get("major", -1) in (-1, major)
        and rule.get("minor", -1) in (-1, minor)
    )


def model(rules, kind: str, access: int, major: int, minor: int) -> bool:
    """Each kind of access by the last rule that speaks of it; all must be allowed."""
    for bit in BITS.values():
        if not access & bit:
            continue
        verdict = False
        for rule in [*rules, *RUNTIME_RULES]:
            covers = any(BITS[letter] == bit for letter in rule.get("access", "rwm"))
            if covers and speaks_of(rule, kind, major, minor):
                verdict = rule["allow"]
        if not verdict:
            return False
    return True


numbers = st.sampled_from([-1, 0, 1, 5, 7, 136])
rules_strategy = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans()},
        optional={
            "type": st.sampled_from("abc"),
            "major": numbers,
            "minor": numbers,
            "access": st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
        },
    ),
    max_size=8,
)
requests = st.tuples(
    st.sampled_from("bc"),
    st.integers(0, 7),
    st.sampled_from([0, 1, 5, 7, 136, 4095]),
    st.sampled_from([0, 1, 2, 7, 9, 1 << 20]),
)


@given(rules_strategy, st.lists(requests, min_size=1, max_size=20))
def test_program_is_the_model(rules, asked):
    program = assemble(rules)
    for request in asked:
        assert execute(program, *request) == model(rules, *request), request


@given(rules_strategy)
def test_every_instruction_can_be_reached(rules):
    """The verifier refuses a program otherwise."""
    code = list(struct.iter_unpack("<BBhi", assemble(rules)))
    reached, todo = set(), [0]
    while todo:
        position = todo.pop()
        if position in reached:
            continue
        reached.add(position)
        opcode, _, offset, _ = code[position]
        if opcode == 0x95:
            continue
        if opcode == 0x05:
            todo.append(position + 1 + offset)
            continue
        todo.append(position + 1)
        if opcode in (0x55, 0x45):
            todo.append(position + 1 + offset)
    assert reached == set(range(len(code)))


@pytest.mark.parametrize(
    ("device", "access", "allowed"),
    [
        (("c", 1, 3), "rw", True),  # null
        (("c", 1, 7), "r", True),  # full
        (("c", 5, 2), "rw", True),  # ptmx
        (("c", 136, 4), "rw", True),  # a terminal
        (("c", 1, 1), "r", False),  # mem
        (("c", 1, 11), "r", False),  # kmsg
        (("c", 10, 229), "rw", False),  # fuse
        (("b", 8, 0), "r", False),
        (("b", 8, 0), "m", True),
        (("b", 8, 0), "rm", False),
    ],
)
def test_default_rules(device, access, allowed):
    bits = sum(BITS[letter] for letter in access)
    assert execute(assemble(DEFAULT_RULES), device[0], bits, *device[1:]) == allowed


def test_privileged_allows_all():
    program = assemble([{"allow": True, "access": "rwm"}])
    assert execute(program, "b", 7, 8, 0) == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "x"},
        {"allow": True, "access": "rx"},
        {"allow": True, "type": "c", "major": 1 << 40},
    ],
)
def test_bad_rule(rule):
    with pytest.raises(InvalidParameter, match="device rule"):
        assemble([rule])
    with pytest.raises(InvalidParameter, match="device rule"):
        v1_lines([rule])


def test_v1_lines():
    lines = v1_lines(
        [
            {"allow": True, "access": "rwm"},
            {"allow": False},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": True, "major": 9, "access": "r"},
        ]
    )
    assert lines[:4] == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
        ("devices.allow", "b 9:* r"),
        ("devices.allow", "c 9:* r"),
    ]
    assert ("devices.allow", "c 136:* rwm") in lines

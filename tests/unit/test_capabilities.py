"""capabilities.py: the table, the default set, --cap-add and --cap-drop."""

import pytest

from pynetns.errors import InvalidParameter
from pynetns.runtime.security import capabilities as caps

ALL = caps.NAMES
WITHOUT_RESOURCE = tuple(name for name in ALL if name != "CAP_SYS_RESOURCE")


def test_numbers_are_the_kernels():
    assert len(ALL) == 41
    assert caps.NUMBERS["CAP_CHOWN"] == 0
    assert caps.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert caps.NUMBERS["CAP_SYS_RESOURCE"] == 24
    assert caps.NUMBERS["CAP_SYSLOG"] == 34
    assert caps.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_default_is_dockers_fourteen():
    assert len(caps.DEFAULT) == 14
    assert caps.to_mask(caps.DEFAULT) == 0xA80425FB


def test_masks_round_trip():
    assert caps.from_mask(caps.to_mask(ALL)) == ALL
    assert caps.from_mask(1 << 60 | 1) == ("CAP_CHOWN",)


def test_machine_capabilities_are_within_what_the_kernel_has():
    assert set(caps.machine_capabilities()) <= set(ALL)


@pytest.mark.parametrize("spelling", ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin"])
def test_spellings(spelling):
    assert caps.tweak_capabilities([spelling], have=ALL) == (*caps.DEFAULT, "CAP_NET_ADMIN")


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], caps.DEFAULT),
        (["CHOWN"], [], caps.DEFAULT),
        ([], ["all"], ()),
        (["chown", "CHOWN"], ["ALL"], ("CAP_CHOWN",)),
        (["ALL"], ["ALL"], ALL),
        (["ALL"], ["sys_admin"], tuple(name for name in ALL if name != "CAP_SYS_ADMIN")),
        ([], ["MKNOD"], tuple(name for name in caps.DEFAULT if name != "CAP_MKNOD")),
        # What is both dropped and added is added, at the end, as in Docker.
        (["kill"], ["kill"], (*(n for n in caps.DEFAULT if n != "CAP_KILL"), "CAP_KILL")),
    ],
)
def test_tweak(add, drop, expected):
    assert caps.tweak_capabilities(add, drop, have=ALL) == expected


def test_privileged_and_all_are_what_the_machine_has():
    assert caps.tweak_capabilities(privileged=True, have=WITHOUT_RESOURCE) == WITHOUT_RESOURCE
    assert caps.tweak_capabilities(["ALL"], have=WITHOUT_RESOURCE) == WITHOUT_RESOURCE


def test_a_default_one_that_the_machine_lacks_is_left_out():
    have = tuple(name for name in ALL if name != "CAP_MKNOD")
    assert "CAP_MKNOD" not in caps.tweak_capabilities(have=have)


@pytest.mark.parametrize("privileged", [False, True])
def test_asking_by_name_for_what_the_machine_lacks_is_refused(privileged):
    with pytest.raises(InvalidParameter, match=r"--cap-add.*CAP_SYS_RESOURCE"):
        caps.tweak_capabilities(["SYS_RESOURCE"], privileged=privileged, have=WITHOUT_RESOURCE)


@pytest.mark.parametrize(
    ("add", "drop", "option"), [(["FLY"], [], "--cap-add"), ([], ["CAP_FLY"], "--cap-drop")]
)
def test_unknown_names_the_option_and_the_choice(add, drop, option):
    with pytest.raises(InvalidParameter, match=rf"{option}.*FLY.*SYS_ADMIN"):
        caps.tweak_capabilities(add, drop, have=ALL)

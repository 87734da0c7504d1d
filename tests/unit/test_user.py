"""user.py: --user against the text of passwd and group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import StartFailed
from pynetns.runtime.user import MAX_ID, User, get_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bob:x:1000:1001:Bob,,,:/home/bob:/bin/sh
1234:x:77:78::/seven:/bin/sh
homeless:x:1500:1500:::
broken line
short:x:9
"""
GROUP = """\
root:x:0:
bob:x:1001:
audio:x:29:bob,alice
video:x:44:bob
wheel:x:10:root
empty:x:45
"""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", User(0, 0, (10,), "/root")),
        ("root", User(0, 0, (10,), "/root")),
        ("0", User(0, 0, (10,), "/root")),
        ("bob", User(1000, 1001, (29, 44), "/home/bob")),
        ("1000", User(1000, 1001, (29, 44), "/home/bob")),
        ("bob:audio", User(1000, 29, (), "/home/bob")),
        ("bob:55", User(1000, 55, (), "/home/bob")),
        ("bob:", User(1000, 1001, (29, 44), "/home/bob")),
        ("4242", User(4242, 0, (), "/")),
        ("4242:4243", User(4242, 4243, (), "/")),
        ("4242:video", User(4242, 44, (), "/")),
        (":audio", User(0, 29, (), "/root")),
        ("1234", User(77, 78, (), "/seven")),  # a name that is a number comes first
        ("homeless", User(1500, 1500, (), "/")),
        (str(MAX_ID), User(MAX_ID, 0, (), "/")),
    ],
)
def test_get_user(spec, expected):
    assert get_user(PASSWD, GROUP, spec) == expected


def test_no_files_at_all():
    assert get_user("", "", "") == User(0, 0, (), "/")
    assert get_user("", "", "5:6") == User(5, 6, (), "/")


def test_group_add_by_name_and_number_without_repetition():
    user = get_user(PASSWD, GROUP, "bob", ["audio", "77", "77", "1001", "wheel"])
    assert user.groups == (29, 44, 77, 10)
    assert user.additional_gids == (1001, 29, 44, 77, 10)


@pytest.mark.parametrize(
    ("spec", "group_add", "message"),
    [
        ("eve", [], "unable to find user eve: no matching entries in passwd file"),
        ("short", [], "unable to find user short"),
        ("bob:eve", [], "unable to find group eve: no matching entries in group file"),
        ("bob", ["eve"], "unable to find group eve"),
        ("9" * 5000, [], "unable to find user 999"),
        ("-1", [], "range"),
        (str(MAX_ID + 1), [], "range"),
        ("0:-5", [], "range"),
        ("0", [str(1 << 40)], "range"),
    ],
)
def test_refused_with_126(spec, group_add, message):
    with pytest.raises(StartFailed, match=message) as caught:
        get_user(PASSWD, GROUP, spec, group_add)
    assert caught.value.exit_code == 126


@given(passwd=st.text(), group=st.text(), uid=st.integers(0, MAX_ID), gid=st.integers(0, MAX_ID))
def test_any_text_of_the_files_leaves_numbers_usable_or_is_refused(passwd, group, uid, gid):
    try:
        user = get_user(passwd, group, f"{uid}:{gid}")
    except StartFailed:
        return
    assert 0 <= user.uid <= MAX_ID
    assert 0 <= user.gid <= MAX_ID

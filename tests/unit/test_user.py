"""user.py: --user against the text of passwd and group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import StartFailed
from pynetns.runtime.spec.user import MAX_ID, User, get_user

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
1234:x:0:
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
        ("1234", User(1234, 0, (), "/")),  # digits are an id, also where a name looks like it
        ("77", User(77, 78, (), "/seven")),
        ("bob:1234", User(1000, 1234, (), "/home/bob")),
        ("0001000", User(1000, 1001, (29, 44), "/home/bob")),
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


def test_digits_of_group_add_are_ids():
    assert get_user(PASSWD, GROUP, "bob:1001", ["1234"]).groups == (1234,)


@pytest.mark.parametrize(
    ("spec", "group_add", "message"),
    [
        ("eve", [], "unable to find user eve: no matching entries in passwd file"),
        ("short", [], "unable to find user short"),
        ("bob:eve", [], "unable to find group eve: no matching entries in group file"),
        ("bob", ["eve"], "unable to find group eve"),
        ("9" * 5000, [], "user 99999.*range 0-2147483647"),
        ("-1", [], "user -1: uids and gids must be in range 0-2147483647"),
        (str(MAX_ID + 1), [], "range"),
        ("0:-5", [], "group -5: .*range"),
        ("0", [str(1 << 40)], "range"),
        ("0", ["-5"], "range"),
        ("+5", [], "unable to find user"),
        ("٣", [], "unable to find user"),
    ],
)
def test_what_was_asked_for_is_refused(spec, group_add, message):
    with pytest.raises(StartFailed, match=message) as caught:
        get_user(PASSWD, GROUP, spec, group_add)
    assert caught.value.exit_code == 128


@pytest.mark.security
@pytest.mark.parametrize(
    ("passwd", "group", "spec", "message"),
    [
        ("bob:x:-5:0::/:", "", "bob", "passwd entry of bob: '-5' is no id"),
        ("bob:x:1000:-5::/:", "", "1000", "passwd entry of bob: '-5' is no id"),
        ("bob:x:1000:::/:", "", "bob", "passwd entry of bob: '' is no id"),
        ("bob:x::5::/:", "", "bob", "passwd entry of bob: '' is no id"),
        ("bob:x:4294967296:5::/:", "", "bob", "is no id"),
        ("bob:x:" + "0" * 100000 + "x:5::/:", "", "bob", "is no id"),
        ("bob:x:5:5::/ho\0me:", "", "bob", "NUL"),
        ("", "wheel:x:-1:", "0:wheel", "group entry of wheel: '-1' is no id"),
        ("", "wheel:x:root:", "0:wheel", "group entry of wheel: 'root' is no id"),
    ],
)
def test_an_entry_without_valid_ids_is_never_read_as_root(passwd, group, spec, message):
    with pytest.raises(StartFailed, match=message) as caught:
        get_user(passwd, group, spec)
    assert len(str(caught.value)) < 300


@pytest.mark.security
def test_a_membership_in_a_group_without_a_valid_id_counts_for_nothing():
    group = "a:x:-1:bob\nb:x:9999999999:bob\nc:x:7:bob\n"
    assert get_user("bob:x:5:6::/:", group, "bob").groups == (7,)


@given(passwd=st.text(), group=st.text(), uid=st.integers(0, MAX_ID), gid=st.integers(0, MAX_ID))
def test_any_text_of_the_files_leaves_numbers_usable_or_is_refused(passwd, group, uid, gid):
    try:
        user = get_user(passwd, group, f"{uid}:{gid}")
    except StartFailed:
        return
    assert (user.uid, user.gid) == (uid, gid)

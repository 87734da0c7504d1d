"""runtime/spec/propagation.py: which mount a source lies on, and what it can propagate."""

from __future__ import annotations

import pytest

from pynetns.errors import InvalidParameter
from pynetns.model.config import Mount
from pynetns.runtime.spec import propagation

TABLE = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda rw
30 22 0:30 / /srv rw shared:5 - tmpfs tmpfs rw
31 30 0:31 / /srv/a\\040b rw master:5 - tmpfs tmpfs rw
32 22 0:32 / /both rw shared:7 master:5 - tmpfs tmpfs rw
33 22 0:33 / /twice rw shared:8 - tmpfs tmpfs rw
34 33 0:34 / /twice rw - tmpfs tmpfs rw
35 22 0:35 / /closed rw unbindable - tmpfs tmpfs rw
cut off
"""


@pytest.mark.parametrize(
    ("path", "point", "fields"),
    [
        ("/", "/", set()),
        ("/srvx/y", "/", set()),
        ("/srv", "/srv", {"shared"}),
        ("/srv/deep/er", "/srv", {"shared"}),
        ("/srv/a b/c", "/srv/a b", {"master"}),
        ("/both", "/both", {"shared", "master"}),
        ("/twice/x", "/twice", set()),
        ("/closed", "/closed", {"unbindable"}),
    ],
)
def test_the_mount_of_a_source(path, point, fields):
    assert propagation.source_mount(TABLE, path) == (point, fields)


def test_only_what_needs_a_peer_is_looked_at(tmp_path):
    propagation.check_propagation([Mount("tmpfs", "", "/t", propagation="rslave")])
    propagation.check_propagation([Mount("bind", "/no/such", "/t", propagation="rprivate")])


@pytest.mark.parametrize("word", sorted(propagation.NEEDS))
def test_a_private_source_is_refused_by_name(word, monkeypatch, tmp_path):
    monkeypatch.setattr(propagation, "source_mount", lambda table, path: ("/mnt", frozenset()))
    with pytest.raises(InvalidParameter, match="is mounted on /mnt but it is not a shared"):
        propagation.check_propagation([Mount("bind", str(tmp_path), "/t", propagation=word)])
    slave = "slave" in word
    monkeypatch.setattr(
        propagation, "source_mount", lambda table, path: ("/mnt", frozenset(["master"]))
    )
    if slave:
        propagation.check_propagation([Mount("bind", str(tmp_path), "/t", propagation=word)])
    else:
        with pytest.raises(InvalidParameter, match=word):
            propagation.check_propagation([Mount("bind", str(tmp_path), "/t", propagation=word)])

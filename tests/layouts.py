"""Which cgroup layouts this machine has or can show, and the mark of tests that are for some only.

A hybrid machine shows the other two in a private mount namespace: v1 by hiding the v2 hierarchy, v2
(whose controllers stay with v1 there) by hiding the rest. Nothing is mounted anew: the options of a
cgroup2 mount are its super block's, hence the machine's.
"""

from __future__ import annotations

import pytest

from pynetns.runtime.cgroups.hierarchy import detect

LAYOUT = detect().layout

# the machine's layout -> layout shown -> the shell commands that show it, "" for as it is
SHOWN: dict[str, dict[str, str]] = {
    "hybrid": {
        "hybrid": "",
        "v1": "umount {v2}",
        "v2 without controllers": "held=$(mktemp -d) && mount --bind {v2} $held && "
        "umount -R /sys/fs/cgroup && mount --bind $held /sys/fs/cgroup && "
        "umount $held && rmdir $held",
    },
    "v2": {"v2": ""},
    "v1": {"v1": ""},
}
ALL = ("hybrid", "v1", "v2", "v2 without controllers")


def commands(layout: str) -> str:
    """What shows `layout` on this machine; run in a mount namespace of one's own."""
    return SHOWN[LAYOUT][layout].format(v2=detect().v2)


def only_on(*layouts: str) -> pytest.MarkDecorator:
    """For machines of these layouts; on others the test is counted as not applicable."""
    reason = f"for cgroup layout {' or '.join(layouts)}, this machine's is {LAYOUT}"
    return pytest.mark.skipif(LAYOUT not in layouts, reason=reason)


def shown(*layouts: str) -> list[object]:
    """Parameters for the layouts; one that this machine cannot show is counted as not applicable.

    A machine without any hierarchy fails: nothing runs there.
    """
    reason = f"a machine of layout {LAYOUT} cannot show it"
    return [
        pytest.param(
            name, marks=pytest.mark.skipif(name not in SHOWN.get(LAYOUT, ALL), reason=reason)
        )
        for name in layouts or ALL
    ]

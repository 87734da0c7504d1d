"""A root that an earlier release wrote: opened, read and used, with nothing lost.

`tests/data/root-<version>.tar.gz` was made by that version's command line (make_root.sh beside it): image
`bb:1` (a shell and /etc/passwd), and three containers: `made` (created only, with limits and a port),
`ended` (exit code 3) and `live` (running when the root was copied). One file is added with each release,
and one (`development-<schema>`) when the store's schema changes between releases.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pynetns.engine.verbs.inspect import list_json
from pynetns.errors import Conflict

pytestmark = pytest.mark.root
DATA = Path(__file__).parents[1] / "data"
ROOTS = sorted(path.name for path in DATA.glob("root-*.tar.gz"))


@pytest.fixture(params=ROOTS)
def engine(request, place):
    """An engine on a copy of the old root, as if that had always been here: records name their layers
    by absolute paths. The shell of its image is this machine's busybox."""
    root = Path(place.root)
    root.mkdir(mode=0o711)
    subprocess.run(
        ["tar", "-xzf", DATA / request.param, "--xattrs", "--xattrs-include=*", "-C", root],
        check=True,
    )
    for record in root.glob("containers/*/*.json"):
        text = record.read_text().replace("/var/lib/pynetns/", f"{place.root}/")
        record.write_text(text.replace("/run/pynetns/", f"{place.exec_root}/"))
    shell = next(root.glob("overlay2/*/diff/etc/passwd")).parents[1] / "bin/sh"
    shutil.copy("/bin/busybox", shell)
    return place.engine()


def test_there_is_a_root_of_every_release():
    assert ROOTS[0] == "root-0.1.0.tar.gz"


def test_containers_are_as_they_were(engine):
    found = {c.name: c for c in engine.containers.list(all=True)}
    assert set(found) == {"made", "ended", "live"}
    made = found["made"].attrs
    assert made["State"]["Status"] == "created"
    assert made["HostConfig"]["Memory"] == 64 << 20
    assert made["Config"]["Labels"] == {"x": "y"}
    assert "A=1" in made["Config"]["Env"]
    assert found["ended"].attrs["State"]["ExitCode"] == 3
    assert found["ended"].logs() == b"out\n"


def test_they_are_listed(engine):
    """Without a look at their files, as those of this version are."""
    found = {c.name: list_json(c.row) for c in engine.containers.list(all=True)}
    assert [found[name]["Image"] for name in ("made", "ended", "live")] == ["bb:1", "bb:1", "host"]
    assert found["made"]["Command"] == "sh -c echo hi" and found["made"]["Labels"] == {"x": "y"}
    assert found["ended"]["Status"].startswith("Exited (3) ")
    assert [c.name for c in engine.containers.list(all=True, filters={"label": "x=y"})] == ["made"]
    for name in ("made", "ended", "live"):
        assert engine.containers.get(name).attrs["Path"] == found[name]["Command"].split()[0]


def test_their_image_is_theirs(engine):
    with pytest.raises(Conflict, match="is used by container"):
        engine.images.remove("bb:1", force=True)


def test_what_ran_when_it_was_copied_has_ended(engine):
    """Another boot, or no such process: its exit code is unknown, its resources are free."""
    live = engine.containers.get("live")
    assert live.status == "exited"
    assert live.attrs["State"]["ExitCode"] == 255


def test_containers_start_again(engine):
    made = engine.containers.get("made")
    made.start()
    assert made.wait()["StatusCode"] == 0
    assert made.logs() == b"hi\n"


def test_its_images_and_names_go_on(engine):
    assert engine.containers.run("bb:1", ["sh", "-c", "echo new"], remove=True) == b"new\n"
    for container in engine.containers.list(all=True):
        container.remove(force=True)
    engine.images.remove("bb:1")
    assert engine.containers.create("host", ["true"], name="made").name == "made"

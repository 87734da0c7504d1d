"""masked_paths.py: what depends on the machine."""

import json
from pathlib import Path

import pytest

from pynetns.runtime.spec import masked_paths
from pynetns.runtime.spec.masked_paths import MASKED_PATHS, machine_masked_paths, thermal_paths


def cpus(root, possible, throttled):
    (root / "possible").write_text(possible)
    for number in throttled:
        (root / f"cpu{number}" / "thermal_throttle").mkdir(parents=True)


@pytest.mark.parametrize(
    ("possible", "throttled", "found"),
    [
        ("0\n", [], []),
        ("0\n", [0], [0]),
        ("0-3\n", [0, 2], [0, 2]),
        ("0-1,8,10-11\n", [0, 1, 2, 8, 9, 11], [0, 1, 8, 11]),
        ("what\n", [0], []),
    ],
)
def test_thermal_paths_are_those_that_exist(tmp_path, possible, throttled, found):
    cpus(tmp_path, possible, throttled)
    assert thermal_paths(str(tmp_path)) == tuple(
        f"{tmp_path}/cpu{number}/thermal_throttle" for number in found
    )


def test_without_a_list_of_cpus_there_are_none(tmp_path):
    assert thermal_paths(str(tmp_path)) == ()


def test_the_machine_is_looked_at_once(tmp_path, monkeypatch):
    cpus(tmp_path, "0", [0])
    machine_masked_paths.cache_clear()
    monkeypatch.setattr(masked_paths, "_CPUS", str(tmp_path))
    try:
        first = machine_masked_paths()
        assert first == (*MASKED_PATHS, f"{tmp_path}/cpu0/thermal_throttle")
        assert machine_masked_paths() is first
    finally:
        machine_masked_paths.cache_clear()


def test_the_golden_spec_masks_what_docker_masks():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "spec_default.json").read_text())
    assert golden["linux"]["maskedPaths"] == list(MASKED_PATHS)
    assert {"/proc/interrupts", "/sys/devices/virtual/powercap"} <= set(MASKED_PATHS)

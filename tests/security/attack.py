"""What an attack is to its test, and the table of all of them.

Owns: the record of attacks tried in this session, the host side that an attack must not reach (`Victim`).
Knows nothing of how attacks are made.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

# What `bare` and the shim hold descriptors on lies at most this deep below the host's root.
UP = "/".join([".."] * 16)


@dataclass
class Attack:
    """One attack: `name` is its CVE or kind. It counts as stopped only by a verdict that the test
    drew from what happened; an attack without one did not run."""

    name: str
    tried: str
    result: str = "DID NOT RUN"
    evidence: str = ""

    def control(self, worked: object, what: str) -> None:
        """The mechanism, shown where nothing protects. If it fails there, the attack shows nothing."""
        if not worked:
            pytest.fail(f"{self.name}: the attack does not even work {what}")

    def verdict(self, succeeded: object, evidence: object = "") -> None:
        """Did it get what it wanted? `evidence` is shown when it did."""
        if self.result != "SUCCEEDED":  # one success among several tries is one
            self.result = "SUCCEEDED" if succeeded else "stopped"
            self.evidence = str(evidence)
        if succeeded:
            pytest.fail(f"{self.name}: {self.tried}: SUCCEEDED: {self.evidence[-2000:]}")


class Attacks:
    """Every attack of this session, in the order tried."""

    def __init__(self) -> None:
        self.all: list[Attack] = []

    def __call__(self, name: str, tried: str) -> Attack:
        attack = Attack(name, tried)
        self.all.append(attack)
        return attack

    @staticmethod
    def judge(*verdicts: tuple[Attack, object, object]) -> None:
        """The verdicts on several attacks of one test: (attack, succeeded, evidence) each."""
        failed = []
        for attack, succeeded, evidence in verdicts:
            try:
                attack.verdict(succeeded, evidence)
            except pytest.fail.Exception as failure:
                failed.append(str(failure))
        if failed:
            pytest.fail("\n".join(failed))

    def table(self) -> list[str]:
        """The lines of the summary: one for each attack, and the total."""
        width = max(len(attack.name) for attack in self.all)
        text = max(len(attack.tried) for attack in self.all)
        lines = [f"{a.name:<{width}}  {a.tried:<{text}}  {a.result}" for a in self.all]
        count = {kind: 0 for kind in ("stopped", "SUCCEEDED", "DID NOT RUN")}
        for attack in self.all:
            count[attack.result] += 1
        total = (
            f"{len(self.all)} attacks tried, {count['stopped']} stopped, "
            f"{count['SUCCEEDED']} succeeded"
        )
        if count["DID NOT RUN"]:
            total += f", {count['DID NOT RUN']} did not run"
        return [*lines, "", total]


class Victim:
    """A directory of the host with a program and a secret, which no container was given."""

    SECRET = "the secret of the host"

    def __init__(self, top: Path, program: Path, loader: Path) -> None:
        self.path = top / "victim"
        self.path.mkdir(mode=0o755)
        (self.path / "secret").write_text(self.SECRET)
        self.program = self.path / "program"
        self.program.write_bytes(program.read_bytes())
        self.program.chmod(0o755)
        (self.path / "loader").write_bytes(loader.read_bytes())
        (self.path / "loader").chmod(0o755)
        (self.path / "directory").mkdir()
        self._before = self._look()

    def _look(self) -> dict[str, tuple[int, str]]:
        found = {}
        for directory, names, files in os.walk(self.path):
            for name in (*names, *files):
                path = os.path.join(directory, name)
                mode = os.lstat(path).st_mode
                data = Path(path).read_bytes() if stat.S_ISREG(mode) else b""
                found[path] = (mode, hashlib.sha256(data).hexdigest())
        return found

    def changes(self) -> list[str]:
        """What is there and was not, is gone, or is different."""
        now = self._look()
        paths = {*now, *self._before}
        return sorted(path for path in paths if now.get(path) != self._before.get(path))

    def from_descriptor(self, number: int, name: str = "") -> str:
        """The path to it that a process with a descriptor on any directory of the host has."""
        return f"/proc/self/fd/{number}/{UP}{self.path}/{name}".rstrip("/")

    @property
    def relative(self) -> str:
        """The secret, as seen from any directory of the host."""
        return f"{UP}{self.path}/secret"

"""The state of a container: a frozen value, its transitions, its JSON.

Owns: the statuses, which may follow which, Docker's State object, what the store keeps of it. Knows
nothing of processes, clocks or files.
Source: moby container/state.go; Docker Engine API 1.41, `ContainerState`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from ..errors import System

NEVER = "0001-01-01T00:00:00Z"

# What may follow each status; `State.become` holds to it. A start that fails leaves the status it came
# from, as in Docker. "removing" ends with the row gone, or "dead" when a resource could not be given
# back; a removal that died half way is begun again.
TRANSITIONS: dict[str, frozenset[str]] = {
    "created": frozenset({"running", "removing"}),
    "running": frozenset({"exited", "removing"}),
    "exited": frozenset({"running", "removing"}),
    "removing": frozenset({"removing", "dead"}),
    "dead": frozenset({"removing"}),
}


@dataclass(frozen=True, slots=True)
class State:
    """One container's state. Times are RFC 3339 with nanoseconds, UTC; `NEVER` for not yet.

    `start_ticks` is field 22 of /proc/<pid>/stat and `boot_id` that of the running kernel: with
    `pid` they name one process for ever, so that a reused pid or a reboot is never mistaken for it.
    `run` counts the container's starts: 0 before the first, one more with each that succeeds. Who
    waits for an end, or starts a program inside, means the run that it found.
    """

    status: str = "created"
    pid: int = 0
    start_ticks: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    started_before: bool = False
    boot_id: str = ""
    run: int = 0

    @property
    def running(self) -> bool:
        """Whether the container has a process."""
        return self.status == "running"

    @property
    def removal_in_progress(self) -> bool:
        return self.status == "removing"

    @property
    def dead(self) -> bool:
        return self.status == "dead"

    def become(self, status: str, **changes: Any) -> State:
        """This state with another status, and fields that change with it. System when that status
        cannot follow."""
        if status not in TRANSITIONS[self.status]:
            raise System(f"a container that is {self.status} cannot become {status}")
        return replace(self, status=status, **changes)

    def docker_json(self) -> dict[str, Any]:
        """Docker's `State` object of `inspect`."""
        return {
            "Status": self.status,
            "Running": self.running,
            "Paused": False,
            "Restarting": False,
            "OOMKilled": self.oom_killed,
            "Dead": self.dead,
            "Pid": self.pid,
            "ExitCode": self.exit_code,
            "Error": self.error,
            "StartedAt": self.started_at,
            "FinishedAt": self.finished_at,
        }

    def to_columns(self) -> tuple[str, int, int, str, str]:
        """For the store: status, pid, start_ticks and boot_id, and one line of JSON for the rest."""
        rest = {
            "exit_code": self.exit_code,
            "error": self.error,
            "oom_killed": self.oom_killed,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "started_before": self.started_before,
            "run": self.run,
        }
        return self.status, self.pid, self.start_ticks, self.boot_id, _encode(rest)

    @classmethod
    def from_columns(
        cls, status: str, pid: int, start_ticks: int, boot_id: str, rest: str
    ) -> State:
        """The inverse of `to_columns`; what an older version did not write is its default. ValueError,
        TypeError or KeyError on a damaged document."""
        TRANSITIONS[status]
        return cls(
            status=status,
            pid=pid,
            start_ticks=start_ticks,
            boot_id=boot_id,
            **json.loads(rest),
        )


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since the epoch as Docker writes a time: `2024-05-01T12:00:00.123456789Z`."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z"

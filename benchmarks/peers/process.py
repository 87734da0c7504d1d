"""A long-lived helper program that is told what to do by lines and answers by lines."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class LineProcess:
    """`command` must print "ready" first. Its error output goes to the file `log`."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._log = log
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str) -> list[str]:
        """Send a line; the words of the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        return self._read().split()

    def _read(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(self.errors() or f"ended with {self._process.wait()}")
        return answer

    def errors(self) -> str:
        """What it has written to its error output, the last part."""
        return self._log.read_text(errors="replace")[-2000:].strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

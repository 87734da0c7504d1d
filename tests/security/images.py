"""Hostile root file systems: built from Debian's static busybox and the programs beside this file.

Owns: compiling, once a session, and laying out trees. What makes a tree hostile its test adds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
ATTACK = ("main.c", "files.c", "mounts.c", "processes.c", "state.c", "gates.c")
CFLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror")

# Descriptors an attacker tries: where a shim that has just started holds the interesting ones. Lists
# that cost nothing (a PATH) try all others too.
DESCRIPTORS = range(3, 17)
SOME_DESCRIPTORS = (3, 4, 8, 11, 12, 15)


def compile_program(output: Path, *sources: str, flags: tuple[str, ...] = ()) -> Path:
    """Compile `sources` of `programs/`; `flags` come last."""
    paths = [str(PROGRAMS / source) for source in sources]
    subprocess.run(["gcc", *CFLAGS, "-o", output, *paths, *flags], check=True)
    return output


def busybox() -> str:
    """Debian's static busybox. AssertionError when it is not installed."""
    path = shutil.which("busybox")
    assert path, "these tests need the package busybox-static"
    return path


class Workshop:
    """The compiled programs, and trees made of them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.attack = compile_program(top / "attack", *ATTACK, flags=("-static",))
        self.bare = compile_program(top / "bare", "bare.c")
        self.evil = compile_program(top / "evil.so", "evil.c", flags=("-shared", "-fPIC"))
        self.program = compile_program(top / "program", "victim.c")
        alone = ("-static", "-nostdlib", "-fno-stack-protector")
        self.loader = compile_program(top / "loader", "loader.c", flags=alone)
        # an ELF program with room for any interpreter
        linker = "-Wl,--dynamic-linker=/" + "i" * 400
        self.interpreted = compile_program(top / "interpreted", "victim.c", flags=(linker,))
        ldd = subprocess.run(["ldd", self.program], check=True, capture_output=True, text=True)
        self.libraries = re.findall(r"(/\S+) \(0x", ldd.stdout)
        self._trees = 0

    def tree(self, *, preload: bool = False) -> Path:
        """A small, honest root file system with /attack in it; `preload`: it takes over every dynamic
        program that is executed over it."""
        self._trees += 1
        root = self.top / f"tree{self._trees}"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            (root / name).mkdir(parents=True)
        os.link(self.attack, root / "attack")
        shutil.copy(busybox(), root / "bin/busybox")
        for applet in (
            "sh",
            "cat",
            "ls",
            "true",
            "sleep",
            "id",
            "echo",
            "stat",
            "mkdir",
            "mknod",
            "yes",
        ):
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"
        )
        (root / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
        if preload:
            self._add_preload(root)
        return root

    def _add_preload(self, root: Path) -> None:
        for library in self.libraries:
            target = root / library[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        os.link(self.evil, root / "evil.so")
        (root / "etc/ld.so.preload").write_text("/evil.so\n")

    def run_bare(
        self,
        root: Path,
        host_dir: Path,
        cwd: str,
        path: str,
        *command: str,
        bare: Path | None = None,
    ) -> str:
        """What `command` prints under the runtime with all the faults."""
        argv = [bare or self.bare, root, host_dir, cwd, path, *command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, errors="replace")
        return done.stdout + done.stderr

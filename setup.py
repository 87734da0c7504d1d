"""Builds the two programs of csrc/: the cffi extension (abi3) and the shim. The rest is pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

from setuptools import setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "csrc"))
import build_core


class BuildWithShim(build_ext):
    """build_ext that also compiles pynetns/pynetns-shim, static where the C library allows it."""

    def run(self) -> None:
        super().run()
        package = "pynetns" if self.inplace else os.path.join(self.build_lib, "pynetns")
        os.makedirs(package, exist_ok=True)
        self.compile_shim(os.path.join(package, "pynetns-shim"))

    def compile_shim(self, target: str) -> None:
        compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
        if not os.environ.get("CC"):
            compiler = compiler[:1]
        sources = [f"csrc/{unit}.c" for unit in build_core.SHIM_UNITS]
        flags = [*build_core.CFLAGS, "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
        command = [*compiler, *flags, *build_core.SANITIZE, *sources, "-o", target]
        if build_core.SANITIZE:
            subprocess.run(command, check=True)
        elif subprocess.run([*command, "-static", "-s"]).returncode != 0:
            # no static C library here (Debian has it in libc6-dev): larger in memory, else the same
            subprocess.run([*command, "-s"], check=True)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), os.path.join(self.build_lib, "pynetns", "pynetns-shim")]


setup(
    cffi_modules=["csrc/build_core.py:ffi"],
    cmdclass={"build_ext": BuildWithShim},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)

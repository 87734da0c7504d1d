"""dockerd with a root, a socket and a network of its own; containers are started by the API.

The connection is kept open and no client program is started, so that the daemon alone is measured.
"""

from __future__ import annotations

import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

from . import Peer, Times

_API = "/v1.41"
_START_SECONDS = 60


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Dockerd(Peer):
    name = "dockerd"
    does = "POST /containers/{id}/start: overlay, bridge, veth, iptables, containerd, runc"
    helper = "containerd-shim"

    _process: subprocess.Popen[bytes] | None = None

    def available(self) -> str | None:
        for program in ("dockerd", "containerd", "runc", "iptables"):
            if shutil.which(program) is None:
                return f"{program} is not installed (Debian: benchmarks/setup.sh --peers)"
        return None

    def prepare(self) -> None:
        self._home = self.work.directory("dockerd")
        self._ids: dict[int, str] = {}
        # in the harness's own network namespace: the machine's rules and sysctls are not touched
        try:
            self._launch()
        except RuntimeError as error:
            if "iptables" not in str(error).lower():
                raise
            self._stop()
            self.does += "; without iptables rules, which it could not set here"
            self._launch("--iptables=false")
        self._import_image()

    def _launch(self, *more: str) -> None:
        home = self._home
        self._socket = str(home / "sock")
        command: list[str | Path] = [
            "dockerd",
            "--data-root",
            home / "data",
            "--exec-root",
            home / "exec",
        ]
        command += ["--pidfile", home / "pid", "-H", f"unix://{self._socket}"]
        command += ["--bip", "172.29.0.1/16", "--ip-forward=false", "--ip6tables=false"]
        command += ["--cgroup-parent", f"/{self.work.name}", "--storage-driver", "overlay2"]
        command += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "warn", *more]
        with open(home / "log", "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._connection = _Connection(self._socket)
        self._await_ready()

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(Path(self._home / "log").read_text(errors="replace")[-2000:])
            try:
                self._call("GET", "/_ping")
                return
            except (OSError, http.client.HTTPException):
                self._connection.close()
                time.sleep(0.1)
        raise RuntimeError("dockerd does not answer")

    def _call(self, verb: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        self._connection.request(verb, _API + path, body, {"Content-Type": kind} if kind else {})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{verb} {path}: {data.decode(errors='replace')}")
        if answer.headers.get("Content-Type", "").startswith("application/json") and data:
            return json.loads(data.splitlines()[-1])
        return None

    def _import_image(self) -> None:
        """What `docker import` does, from a tar file made in memory."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            tar.add(self.work.plain, arcname=".")
        path = "/images/create?fromSrc=-&repo=pnbench&tag=latest"
        self._call("POST", path, data.getvalue(), "application/x-tar")

    def create(self, i: int) -> None:
        body = {
            "Image": "pnbench",
            "Cmd": self.work.plain_command(),
            "HostConfig": {"Binds": [f"{self.work.mark}:/mark"], "NetworkMode": "bridge"},
        }
        text = json.dumps(body).encode()
        self._ids[i] = self._call("POST", "/containers/create", text, "application/json")["Id"]

    def start(self, i: int) -> Times:
        path = f"/containers/{self._ids[i]}/start"
        called = time.monotonic_ns()
        self._call("POST", path)
        return Times(called, time.monotonic_ns())

    def remove(self, i: int) -> None:
        identity = self._ids.pop(i)
        if not self.work.stay:
            self._call("POST", f"/containers/{identity}/wait")
        self._call("DELETE", f"/containers/{identity}?force=1")

    def close(self) -> None:
        if self._process is not None:
            for i in list(self._ids):
                self.remove(i)
            self._stop()

    def _stop(self) -> None:
        assert self._process is not None
        self._connection.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

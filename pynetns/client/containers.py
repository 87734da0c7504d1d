"""`engine.containers` and Container: docker-py's objects over the engine's functions.

Owns: the public shape (names, keywords, return values), nothing of the work. Each method is one call
into the module of the same verb. Source: docker-py's models/containers.py, by its documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, overload

from ..engine.lookup import get_container_id
from ..engine.recover import read_row, restore
from ..engine.summaries import complete_summaries
from ..engine.verbs.create import container_create
from ..engine.verbs.exec import Exec, ExecConfig, container_exec
from ..engine.verbs.inspect import inspect_json
from ..engine.verbs.logs import copy_logs
from ..engine.verbs.remove import container_remove
from ..engine.verbs.start import container_start
from ..engine.verbs.stop import container_kill, container_stop
from ..engine.verbs.wait import container_wait
from ..errors import Conflict, InvalidParameter, NotFound, NotModified, PynetnsError, clear_errors
from ..model.parse import build_configs, parse_environment, parse_user, split_words
from ..model.summary import Summary
from ..runtime.spec.checks import check_path
from ..runtime.task import Attach
from .filters import compile_filters
from .output import collect

if TYPE_CHECKING:
    from ..engine.services import Services
    from ..store import ContainerRow
    from ..streams.logs import Moment


class ContainerError(PynetnsError):
    """`run` of a container that ended with another exit code than 0. `exit_status`, `stderr`."""

    def __init__(self, container: Container, exit_status: int, stderr: bytes) -> None:
        self.container, self.exit_status, self.stderr = container, exit_status, stderr
        command = " ".join(container.attrs["Args"]) if container._exists() else ""
        super().__init__(
            f"container {container.short_id} {command} ended with exit code {exit_status}: "
            f"{stderr.decode('utf-8', 'replace').strip()}"
        )


class Container:
    """One container. `attrs` is Docker's inspect object as of the last `reload`."""

    def __init__(self, engine: Services, row: ContainerRow) -> None:
        self._engine = engine
        self._row = row
        self.id = row.id

    # ---- what it is ----

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def name(self) -> str:
        return self._row.name

    @property
    def status(self) -> str:
        """created, running, exited, removing or dead, as of the last reload."""
        return self._row.state.status

    @property
    def image(self) -> str:
        """The image's name as given at create."""
        return self._summary.image

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._summary.labels)

    @property
    def _summary(self) -> Summary:
        return self._row.summary or Summary()

    @property
    def attrs(self) -> dict[str, Any]:
        return inspect_json(self._engine, self._row)

    @property
    def row(self) -> ContainerRow:
        """The store's row, for callers within the package."""
        return self._row

    def reload(self) -> None:
        """Read the state again. NotFound when the container is gone."""
        self._row = read_row(self._engine, self.id)

    def _exists(self) -> bool:
        return self._engine.store.container(self.id) is not None

    def _reload_if_there(self) -> None:
        row = self._engine.store.container(self.id)
        if row is not None:
            self._row = row

    # ---- verbs ----

    def start(self, attach: Attach | None = None) -> None:
        """Start it; returns when the program has been executed. A running one is left alone.

        `attach`: pipes to hand over, see Attach. Raises StartFailed, Conflict.
        """
        try:
            container_start(self._engine, self.id, attach or Attach())
        except NotModified:
            pass
        finally:
            self._reload_if_there()

    def stop(self, timeout: float | None = None) -> None:
        """Its stop signal, then SIGKILL after `timeout` seconds (default 10)."""
        container_stop(self._engine, self.id, timeout)
        self._reload_if_there()

    def restart(self, timeout: float | None = None) -> None:
        """Stop, then start."""
        container_stop(self._engine, self.id, timeout)
        self.start()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal. Conflict when it does not run."""
        container_kill(self._engine, self.id, signal)
        self._reload_if_there()

    def wait(self, timeout: float | None = None, condition: str = "not-running") -> dict[str, int]:
        """Wait for its end: `{"StatusCode": exit code}`, of the run it is in now, whoever restarts
        it meanwhile. TimeoutError after `timeout` seconds.

        condition: "not-running" (one that does not run answers at once), "next-exit" (where it does
        not run, that of the next run), "removed".
        """
        code = container_wait(self._engine, self.id, timeout, condition)
        self._reload_if_there()
        return {"StatusCode": code}

    def remove(self, force: bool = False, v: bool = False) -> None:
        """Remove it; `force` kills it first. `v` also its anonymous volumes (it has none)."""
        container_remove(self._engine, self.id, force=force)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters."""
        self._engine.shim.resize(self.id, rows, columns)

    @overload
    def logs(
        self, stdout: bool = True, stderr: bool = True, stream: Literal[False] = False,
        timestamps: bool = False, tail: str | int = "all", since: Moment | None = None,
        follow: bool | None = None, until: Moment | None = None, *, details: bool = False,
    ) -> bytes: ...  # fmt: skip
    @overload
    def logs(
        self, stdout: bool = True, stderr: bool = True, *, stream: Literal[True],
        timestamps: bool = False, tail: str | int = "all", since: Moment | None = None,
        follow: bool | None = None, until: Moment | None = None, details: bool = False,
    ) -> Iterator[bytes]: ...  # fmt: skip
    def logs(
        self,
        stdout: bool = True,
        stderr: bool = True,
        stream: bool = False,
        timestamps: bool = False,
        tail: str | int = "all",
        since: Moment | None = None,
        follow: bool | None = None,
        until: Moment | None = None,
        *,
        details: bool = False,
    ) -> bytes | Iterator[bytes]:
        """Its output as bytes, or with `stream` as an iterator of lines as they come.

        tail: "all" or a number of lines. since, until: seconds since the epoch or a datetime (UTC
        when it has no zone). follow: until the container ends; None is the value of `stream`, as in
        docker-py. NotSupported when its log driver keeps none.
        """
        chunks = copy_logs(
            self._engine,
            self.id,
            stdout=stdout,
            stderr=stderr,
            timestamps=timestamps,
            details=details,
            tail=tail,
            since=since,
            until=until,
            follow=stream if follow is None else follow,
            apart=stream,
        )
        lines = (data for _, data in chunks)
        return lines if stream else b"".join(lines)

    @clear_errors
    def exec_run(
        self,
        cmd: str | Sequence[str],
        *,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
        privileged: bool = False,
        user: str = "",
        environment: Mapping[str, str] | Sequence[str] = (),
        workdir: str = "",
        detach: bool = False,
    ) -> tuple[int | None, bytes]:
        """Run a command inside and wait: (exit code, output). With `detach` (None, b"") at once."""
        if detach:
            self.exec_start(
                cmd, tty=tty, privileged=privileged, user=user,
                environment=environment, workdir=workdir, detach=True,
            )  # fmt: skip
            return None, b""
        with collect(stdout, stderr and not tty, merge=True) as output:
            process = self.exec_start(
                cmd, tty=tty, privileged=privileged, user=user,
                environment=environment, workdir=workdir, attach=output.attach,
            )  # fmt: skip
            with process.ending() as ended:
                output.read_all(ended)
            return process.wait(), output.merged

    def exec_start(
        self,
        cmd: str | Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        environment: Mapping[str, str] | Sequence[str] = (),
        workdir: str = "",
        user: str = "",
        privileged: bool = False,
        attach: Attach | None = None,
        winsize: tuple[int, int] = (0, 0),
        detach: bool = False,
    ) -> Exec:
        """Start a command inside; the running Exec. `winsize`: rows, columns of the terminal.
        `detach`: how it ends is not kept for anybody."""
        if workdir:
            check_path("--workdir", workdir)
        config = ExecConfig(
            cmd=split_command(cmd),
            env=parse_environment(environment),
            user=parse_user(user),
            working_dir=workdir,
            tty=tty,
            stdin=stdin,
            privileged=privileged,
            winsize=winsize,
            detach=detach,
        )
        return container_exec(self._engine, self.id, config, attach or Attach())

    def __repr__(self) -> str:
        return f"<Container: {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class ContainerCollection:
    """The containers of an engine."""

    def __init__(self, engine: Services) -> None:
        self._engine = engine

    def create(
        self, image: str = "", command: str | Sequence[str] | None = None, **options: Any
    ) -> Container:
        """Create a container without starting it. Options are docker-py's: model/parse.py lists them.

        Raises NotFound (image), InvalidParameter, Conflict (name); nothing is left then.
        """
        name = options.pop("name", None)
        config, host_config = build_configs(image, command, **options)
        return self._get(container_create(self._engine, config, host_config, name))

    @clear_errors
    def run(
        self,
        image: str = "",
        command: str | Sequence[str] | None = None,
        *,
        detach: bool = False,
        remove: bool = False,
        stdout: bool = True,
        stderr: bool = False,
        **options: Any,
    ) -> bytes | Container:
        """Create and start. With `detach` the Container; else its output once it has ended.

        ContainerError when it ends with another exit code than 0. `remove`: remove it at its end,
        which with `detach` is what `auto_remove` says as well.
        """
        if detach:
            options["auto_remove"] = remove or options.get("auto_remove", False)
            container = self.create(image, command, detach=True, **options)
            container.start()
            return container
        container = self.create(image, command, **options)
        try:
            with collect(stdout, True) as output:
                container.start(output.attach)
                output.read_all()
                code = container.wait()["StatusCode"]
            if code != 0:
                raise ContainerError(container, code, output.stderr)
            return (output.stdout if stdout else b"") + (output.stderr if stderr else b"")
        finally:
            if remove and container._exists():
                container.remove(force=True)

    def get(self, name_or_id: str) -> Container:
        """By id, name or unique id prefix. NotFound, InvalidParameter (empty, ambiguous)."""
        return self._get(get_container_id(self._engine.store, name_or_id))

    def list(
        self, all: bool = False, filters: Mapping[str, Any] | None = None, limit: int = -1
    ) -> list[Container]:
        """The running containers, or `all`, newest first. Filters, one value or a list for each key:
        name, id, status, label, ancestor, exited. InvalidParameter."""
        passes = compile_filters(filters or {})
        every = all or "status" in (filters or {})
        settled = restore(self._engine)
        rows = [
            row
            for known in self._rows(running=not every)
            for row in (settled.get(known.id, known),)
            if (row.summary is not None or row.state.started_before)  # else it is being created
            and (every or row.state.running)
            and passes(row)
        ]
        rows.sort(key=lambda row: row.created, reverse=True)
        return [Container(self._engine, row) for row in (rows[:limit] if limit > 0 else rows)]

    def _rows(self, *, running: bool) -> Sequence[ContainerRow]:
        rows = self._engine.store.containers(running=running)
        if any(row.summary is None for row in rows):
            complete_summaries(self._engine)
            rows = self._engine.store.containers(running=running)
        return rows

    def prune(self) -> dict[str, Any]:
        """Remove every container that does not run: `{"ContainersDeleted": [id…]}`."""
        deleted = []
        for container in self.list(all=True):
            if container.row.state.running:
                continue
            with suppress(NotFound, Conflict):  # removed by somebody else, or started
                container_remove(self._engine, container.id)
                deleted.append(container.id)
        return {"ContainersDeleted": deleted}

    def _get(self, container_id: str) -> Container:
        row = read_row(self._engine, container_id)
        if row.summary is None:
            complete_summaries(self._engine)
            row = self._engine.store.container(container_id) or row
        return Container(self._engine, row)


def split_command(cmd: str | Sequence[str]) -> list[str]:
    """A command as a list; a string is split as a shell would."""
    words = list(split_words(cmd, "command"))
    if not words:
        raise InvalidParameter("exec : No exec command specified")
    return words

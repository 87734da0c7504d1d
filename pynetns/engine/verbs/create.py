"""Creating a container: everything is checked, then everything that a start need not do is done.

Owns: the order of a create and its undo. The name is taken first (one row in the store), so that a
crash leaves either a whole container or a row that gc removes. moby daemon/create.go.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import (
    Conflict,
    InvalidParameter,
    NotFound,
    System,
    Unavailable,
    clear_errors,
    shortage,
)
from ...files import make_directory, set_mode
from ...model.config import Config, HostConfig
from ...model.log_config import resolve
from ...model.parse import validate_name
from ...model.state import State, rfc3339
from ...network.host_files import create_files
from ...network.request import container_options
from ...runtime.security.seccomp import inline_profiles
from ...runtime.spec.create import validate_host_config
from ...runtime.spec.devices import resolve_devices
from ...runtime.spec.propagation import check_propagation
from ...trace import step
from ...undo import Undo
from ..lock import container_lock, remove_lock
from ..names import numbered_name, random_name
from ..record import (
    SUBDIRECTORIES,
    ContainerRecord,
    container_directory,
    log_path,
    remove_container_directory,
    summarize,
    write_record,
)
from ..recover import refresh

if TYPE_CHECKING:
    from ...storage.images import Image
    from ..services import Services

_NAME_TRIES = 8
log = logging.getLogger("pynetns")


@clear_errors
def container_create(
    engine: Services, config: Config, host_config: HostConfig, name: str | None = None
) -> str:
    """Create a container; its id. Configuration is durable when this returns.

    Raises NotFound (image), InvalidParameter (a value), Conflict (the name); nothing is left then.
    """
    with step("container_create"):
        engine.check_configuration()
        if name is not None:
            name = validate_name(name.removeprefix("/"))
        image = resolve_image(engine, config, host_config)
        config = merge_image_config(config, image)
        host_config = replace(
            host_config,
            security_opt=inline_profiles(host_config.security_opt),
            log_config=resolve(host_config.log_config, engine.settings.log_config),
        )
        validate(engine, config, host_config)
        record = make_record(config, host_config, image, engine)
        try:
            make_container(engine, record, name, image)
        except OSError as error:
            raise shortage(error) or System(
                f"{error.filename or 'create'}: {error.strerror}"
            ) from error
        return record.id


def make_container(
    engine: Services, record: ContainerRecord, name: str | None, image: Image | None
) -> None:
    """Name, row and files; all or nothing. From the row on, the image cannot be removed."""
    with container_lock(engine.exec_root, record.id), Undo() as undo, undo:
        undo.push(remove_lock, engine.exec_root, record.id)
        undo.push(give_back_name, engine, record.id)
        on_record = image.id if image is not None and image.on_record else ""
        name = register_name(engine, record, name, on_record)
        create_files_of(engine, record, name, undo)
        record_created(engine, record, name)
        undo.dismiss()


def record_created(engine: Services, record: ContainerRecord, name: str) -> None:
    """That its files are there: from here on it is listed."""
    attributes = {"name": name, "image": record.config.image}

    def complete() -> None:
        engine.store.set_summary(record.id, summarize(record))
        engine.store.add_event("container", "create", record.id, attributes)

    engine.store.atomically(complete)


def resolve_image(engine: Services, config: Config, host_config: HostConfig) -> Image | None:
    """The image, None with --rootfs. Raises NotFound `No such image`."""
    if host_config.rootfs:
        engine.rootfs.check_directory(host_config.rootfs)
        return None
    if not config.image:
        raise InvalidParameter("image : name one, e.g. host, or give --rootfs DIR")
    try:
        return engine.image_store.resolve(config.image)
    except NotFound as error:
        raise NotFound(
            f"{error} : import one (pynetns import FILE|DIR NAME), use image host, which is this "
            "machine's own files, or give --rootfs DIR"
        ) from error


def merge_image_config(config: Config, image: Image | None) -> Config:
    """What the user left open is the image's. moby mergeAndVerifyConfig."""
    base = image.config if image is not None else {}
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        if not cmd:
            cmd = tuple(base.get("Cmd") or ())
        entrypoint = tuple(base.get("Entrypoint") or ())
    elif entrypoint == ("",):  # --entrypoint "": none at all
        entrypoint = ()
    if not entrypoint and not cmd:
        raise InvalidParameter("command : No command specified")
    own = {entry.split("=", 1)[0] for entry in config.env}
    inherited = tuple(e for e in base.get("Env") or () if e.split("=", 1)[0] not in own)
    labels = dict(base.get("Labels") or {})
    labels.update(config.labels)
    ports = tuple(dict.fromkeys((*(base.get("ExposedPorts") or ()), *config.exposed_ports)))
    return replace(
        config,
        entrypoint=entrypoint,
        cmd=cmd,
        env=(*inherited, *config.env),
        working_dir=config.working_dir or base.get("WorkingDir") or "",
        user=config.user or base.get("User") or "",
        labels=tuple(labels.items()),
        exposed_ports=ports,
        stop_signal=config.stop_signal or base.get("StopSignal") or "",
    )


def validate(engine: Services, config: Config, host_config: HostConfig) -> None:
    """Everything that can be known to be wrong before anything is made."""
    validate_host_config(config, host_config)
    engine.network.validate(container_options(config, host_config))
    engine.cgroups.validate(host_config)
    resolve_devices(host_config.devices)
    for mount in host_config.mounts:
        if mount.type == "bind" and not mount.create_source and not os.path.exists(mount.source):
            raise InvalidParameter(f"--mount : bind source path does not exist: {mount.source}")
    check_propagation(host_config.mounts)


def make_record(
    config: Config, host_config: HostConfig, image: Image | None, engine: Services
) -> ContainerRecord:
    args = (*config.entrypoint, *config.cmd)
    return ContainerRecord(
        id=secrets.token_hex(32),
        created=rfc3339(time.time_ns()),
        path=args[0],
        args=args[1:],
        image_id=image.id if image is not None else "",
        lowers=image.lowers if image is not None else (os.path.realpath(host_config.rootfs),),
        config=config,
        host_config=host_config,
    )


def register_name(
    engine: Services, record: ContainerRecord, name: str | None, image_id: str
) -> str:
    """Take the name, or find a free one; and keep the image, which is `image_id` on record."""

    def take(name: str) -> None:
        engine.store.add_container(record.id, name, record.created, State(), image_id)

    if name is not None:
        try:
            take(name)
        except Conflict:
            holder = engine.store.container_by_name(name)
            if holder is not None and refresh(engine, holder) is not None:
                raise  # else its create or its removal died half way, or it has ended with --rm
            take(name)
        return name
    for attempt in range(_NAME_TRIES):
        candidate = random_name() if attempt < _NAME_TRIES - 1 else numbered_name()
        try:
            take(candidate)
            return candidate
        except Conflict:
            continue
    raise Conflict("name : no free one found, give --name")


def give_back_name(engine: Services, container_id: str) -> None:
    """Undo of `register_name`. On a full disk it may not be possible: then the name is a ghost's,
    and whoever wants it next has it."""
    try:
        engine.store.remove_container(container_id)
    except Unavailable as error:
        log.info("the name of container %s is not given back : %s", container_id, error)


def create_files_of(engine: Services, record: ContainerRecord, name: str, undo: Undo) -> None:
    """The container's directory and writable layer, as far as they can be made beforehand."""
    directory = container_directory(engine.root, record.id)
    undo.push(remove_container_directory, engine.root, record.id)
    make_directory(directory, 0o710)
    for sub in SUBDIRECTORIES:
        make_directory(f"{directory}/{sub}", 0o700)
    create_files(directory, record.hostname)
    create_log(log_path(engine.root, record))
    undo.push(engine.rootfs.remove_layer, record.id)
    engine.rootfs.create_layer(record.id)
    write_record(engine.root, record, name)
    engine.remember_record(record)
    undo.push(engine.forget_record, record.id)


def create_log(path: str) -> None:
    """An empty log, so that a reader finds one from the beginning; "" is none."""
    if not path:
        return
    with suppress(FileExistsError):
        make_directory(os.path.dirname(path), 0o700)  # local-logs
    log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640)
    try:
        set_mode(log, 0o640)
    finally:
        os.close(log)

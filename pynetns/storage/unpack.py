"""Unpacking the members of an archive into a directory, as tar would inside a chroot to it.

Owns: what becomes of a member. Knows nothing of archives' bytes nor of images. moby pkg/archive,
UnpackLayer and createTarFile, whose rules these are: names are cleaned, links on the way lead to where
they would inside, a later member replaces an earlier one (directories are merged), devices are made
(the device rules of a container, and the directory around the layers, keep them harmless), `.wh.name`
is a whiteout.

Safety: every path is resolved by the kernel below the target's descriptor (openat2, RESOLVE_IN_ROOT,
no magic links), or by walking one name after the other without following links. What is made is made
by its last name in the directory found so, never by a path, and never through a link of that name.
Who renames directories meanwhile can only mislead within the target.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tarfile
import tempfile
from collections.abc import Callable
from typing import IO, TypeVar

from ..errors import InvalidParameter, KernelError, PynetnsError, System, Unavailable
from ..kernel.mount import open_in_root
from .layers import remove_tree
from .member import (
    Reader,
    change_time,
    clean,
    copy_data,
    copy_sparse,
    set_attributes,
    set_owner_and_times,
    set_time,
    to_bytes,
    to_path,
    to_text,
)

T = TypeVar("T")
_LINKS_MAX = 40  # as the kernel's MAXSYMLINKS
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # resolved in the root
_STEP = _WAY | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT, _WHITEOUT_META, _OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"
_TIME = struct.Struct("=qII")  # seconds, ns, size of the path that follows
_UNAVAILABLE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO))


class Unpacker:
    """Members into the directory `target`, one after the other; `finish` after the last."""

    def __init__(self, target: str, *, whiteouts: bool) -> None:
        """`whiteouts`: members named `.wh.…` are those of an image's layer, not files."""
        self._whiteouts = whiteouts
        self._root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[tuple[bytes, ...], int] = ((), -1)  # of the last member
        self._moved = False  # something was removed that the way to it may lead through
        self._times: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  of directories, see _TIME

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget_parent()
        os.close(self._root)
        self._times.close()

    def add(self, member: tarfile.TarInfo, read: Reader) -> None:
        """Make one member; `read` gives its data. InvalidParameter, Unavailable, System."""
        try:
            self._add(member, read)
        except (OSError, KernelError, ValueError, OverflowError) as error:
            raise _fault(member.name, error) from error

    def finish(self) -> None:
        """The directories' times, which their contents have changed."""
        self._times.seek(0)
        while head := self._times.read(_TIME.size):
            seconds, nanoseconds, size = _TIME.unpack(head)
            parts = tuple(self._times.read(size).split(b"\0"))
            try:
                parent = open_in_root(self._root, to_path(parts[:-1]), _WAY)
            except KernelError:
                continue  # replaced by a later member
            try:
                if stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode):
                    set_time(parts[-1], seconds * 10**9 + nanoseconds, parent)
            except OSError:
                continue
            finally:
                os.close(parent)

    # ---- one member ----

    def _add(self, member: tarfile.TarInfo, read: Reader) -> None:
        parts = clean(to_bytes(member.name))
        if member.size < 0:
            raise ValueError(f"has {member.size} bytes")
        if not parts:
            if not member.isdir():
                raise ValueError("is the root directory, and no directory")
            self._set_up_directory(self._root, b".", member)
            return
        parent, name = self._find_parent(parts), parts[-1]
        if self._whiteouts and name.startswith(_WHITEOUT):
            self._add_whiteout(parent, name)
        elif member.isreg():
            self._add_file(parent, name, member, read)
        elif member.isdir():
            self._add_directory(parent, parts, member)
        elif member.issym():
            self._new(
                parent, name, lambda: os.symlink(to_bytes(member.linkname), name, dir_fd=parent)
            )
            set_owner_and_times(parent, name, member)
        elif member.islnk():
            self._add_hard_link(parent, parts, member)
        elif member.ischr() or member.isblk() or member.isfifo():
            self._add_special(parent, name, member)
        elif member.type != b"V":  # a volume's label is no file
            raise ValueError(f"is of unknown type {member.type!r}")

    def _add_file(self, parent: int, name: bytes, member: tarfile.TarInfo, read: Reader) -> None:
        fd = self._new(parent, name, lambda: os.open(name, _NEW_FILE, 0o600, dir_fd=parent))
        try:
            if member.sparse is None:
                copy_data(fd, member.size, read)
            else:
                copy_sparse(fd, member, read)
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            set_attributes(parent, name, member)
            moment = change_time(member)
            os.utime(fd, ns=(moment, moment))
        finally:
            os.close(fd)

    def _add_directory(
        self, parent: int, parts: tuple[bytes, ...], member: tarfile.TarInfo
    ) -> None:
        name = parts[-1]
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                self._remove(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._set_up_directory(parent, name, member)
        seconds, nanoseconds = divmod(change_time(member), 10**9)
        path = b"\0".join(parts)
        self._times.write(_TIME.pack(seconds, nanoseconds, len(path)))
        self._times.write(path)

    def _set_up_directory(self, parent: int, name: bytes, member: tarfile.TarInfo) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
        finally:
            os.close(fd)
        set_attributes(parent, name, member)

    def _add_special(self, parent: int, name: bytes, member: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
        self._new(parent, name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        fd = os.open(name, _ENTRY, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{fd}", member.mode & 0o7777)  # whatever the umask
        finally:
            os.close(fd)
        set_owner_and_times(parent, name, member, owner=False)

    def _add_hard_link(
        self, parent: int, parts: tuple[bytes, ...], member: tarfile.TarInfo
    ) -> None:
        """Of a link itself, not of what it leads to, as docker."""
        target = clean(to_bytes(member.linkname))
        if not target:
            raise ValueError("is a hard link to the root directory")
        try:
            where = open_in_root(self._root, to_path(target[:-1]), _WAY)
            try:
                self._link(where, target[-1], parent, parts[-1])
            finally:
                os.close(where)
        except (OSError, KernelError) as error:
            code = error.errno or errno.EIO
            what = f"hard link to {to_text(member.linkname)}: {os.strerror(code)}"
            raise OSError(code, what) from error

    def _link(self, where: int, target: bytes, parent: int, name: bytes) -> None:
        info = os.lstat(target, dir_fd=where)
        try:
            if os.path.samestat(info, os.lstat(name, dir_fd=parent)):
                return  # the member names itself, or came twice
        except FileNotFoundError:
            pass
        self._new(
            parent,
            name,
            lambda: os.link(
                target, name, src_dir_fd=where, dst_dir_fd=parent, follow_symlinks=False
            ),
        )

    def _add_whiteout(self, parent: int, name: bytes) -> None:
        """moby overlayWhiteoutConverter.ConvertRead."""
        if name == _OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
        elif not name.startswith(_WHITEOUT_META):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise ValueError("is a whiteout of nothing")
            mode = stat.S_IFCHR
            self._new(parent, hidden, lambda: os.mknod(hidden, mode, 0, dir_fd=parent))

    # ---- making room ----

    def _new(self, parent: int, name: bytes, make: Callable[[], T]) -> T:
        """What `make` makes, in the place of whatever is there."""
        try:
            return make()
        except FileExistsError:
            self._remove(parent, name)
            return make()

    def _remove(self, parent: int, name: bytes) -> None:
        mode = os.lstat(name, dir_fd=parent).st_mode
        self._moved = self._moved or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        if stat.S_ISDIR(mode):
            # by number: rm, which helps out with deep trees, is another process
            remove_tree(f"/proc/{os.getpid()}/fd/{parent}/{os.fsdecode(name)}")
        else:
            os.unlink(name, dir_fd=parent)

    # ---- ways ----

    def _find_parent(self, parts: tuple[bytes, ...]) -> int:
        """The directory that a member is made in, itself made where it is missing."""
        way = parts[:-1]
        if self._parent[1] < 0 or self._parent[0] != way or self._moved:
            self._forget_parent()
            self._parent = (way, self._find_directory(way))
        return self._parent[1]

    def _forget_parent(self) -> None:
        fd = self._parent[1]
        self._parent, self._moved = ((), -1), False
        if fd >= 0:
            os.close(fd)

    def _find_directory(self, way: tuple[bytes, ...]) -> int:
        try:
            return open_in_root(self._root, to_path(way), _WAY)
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
        return self._make_directories(way)

    def _make_directories(self, way: tuple[bytes, ...]) -> int:
        """Step by step, making what is missing: also what a link on the way leads to."""
        rest, links = list(reversed(way)), 0
        names: list[bytes] = []  # from the root to here, without links
        fd = self._reopen(names)
        try:
            while rest:
                name = rest.pop()
                if name == b"..":
                    del names[-1:]
                    fd = _instead(fd, self._reopen(names))
                    continue
                try:
                    fd = _instead(fd, _open_or_make(name, fd))
                    names.append(name)
                except NotADirectoryError:
                    link = _read_link(name, fd)
                    links += 1
                    if links > _LINKS_MAX:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                    if link.startswith(b"/"):
                        names.clear()
                        fd = _instead(fd, self._reopen(names))
                    rest += [part for part in reversed(link.split(b"/")) if part not in (b"", b".")]
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _reopen(self, names: list[bytes]) -> int:
        fd = os.open(".", _STEP, dir_fd=self._root)
        for name in names:
            fd = _instead(fd, _open_closing(name, fd))
        return fd


def _instead(old: int, new: int) -> int:
    os.close(old)
    return new


def _open_closing(name: bytes, fd: int) -> int:
    try:
        return os.open(name, _STEP, dir_fd=fd)
    except BaseException:
        os.close(fd)
        raise


def _open_or_make(name: bytes, parent: int) -> int:
    """0755 like docker's, whatever the umask. NotADirectoryError: a link, or a file."""
    try:
        return os.open(name, _STEP, dir_fd=parent)
    except FileNotFoundError:
        pass
    os.mkdir(name, 0o755, dir_fd=parent)
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(fd, 0o755)
        return os.open(".", _STEP, dir_fd=fd)
    finally:
        os.close(fd)


def _read_link(name: bytes, parent: int) -> bytes:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _fault(name: str, error: Exception) -> PynetnsError:
    """Whose fault a member's failure is."""
    code = (error.errno or 0) if isinstance(error, OSError | KernelError) else 0
    reason = str(error)
    if isinstance(error, OSError):
        reason = error.strerror or reason
    elif isinstance(error, KernelError):
        reason = os.strerror(code)
    kind: type[PynetnsError] = InvalidParameter
    if code in _UNAVAILABLE:
        kind = Unavailable
    elif code in _OURS:
        kind = System
    return kind(f"import: member {to_text(name)}: {reason}")

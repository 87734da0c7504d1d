"""Between clone and exec only async-signal-safe functions, and paths only where they are looked up safely.

The lists are the proof: a call that is not on them fails these tests, whoever adds it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
UNITS = ("child", "child_path", "child_tty", "child_mount", "child_cred")

# System calls behind thin wrappers, and memory functions. signal-safety(7).
ALLOWED = set(
    """_exit chdir chroot clock_gettime clone close dup2 execve fchdir fchown fchownat fcntl fstat
    fstatfs ioctl memcmp memcpy memmove memset mkdirat mknodat mount open openat prctl read
    readlinkat sendmsg setdomainname sethostname setns setsid sigemptyset sigprocmask strcmp strlen
    symlinkat syscall umask umount2 unshare write __errno_location""".split()
)

# Every call that takes a path, by the names used for it in these units.
PATH_CALLS = """access bpf chdir chmod chown chroot creat execve execveat faccessat fchmodat fchownat
    fstatat getxattr inotify_add_watch lchown link linkat lstat mkdir mkdirat mkfifo mknod mknodat
    mount name_to_handle_at open openat opendir pivot_root quotactl readlink readlinkat realpath
    rename renameat renameat2 rmdir setxattr stat statfs statvfs statx swapon symlink symlinkat
    truncate umount umount2 unlink unlinkat utimensat uselib sys_openat2 sys_open_tree
    sys_move_mount sys_mount_setattr""".split()

# What may be called with a path, and how. Outside child_path.c a path is a constant of ours, "" or
# "." (the descriptor itself), a name in a directory that child_path.c opened, or the program.
PATHS = {
    "child": {
        "chroot(pn_op_payload(op))",  # of low-level plans: the caller's own word
        'chdir("/")',
        "execve(plan->candidates[i], plan->argv, plan->envp)",  # with nothing else open
    },
    "child_path": {
        'open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)',
        "sys_openat2(dir, path, flags | O_CLOEXEC, resolve)",  # the one look-up
        "openat(dir, component, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644)",
        "mkdirat(dir, component, mode)",
        "mkdirat(dir, name, mode)",
        'readlinkat(fd, "", target, sizeof(target) - 1)',
        'mknodat(mount, "null", S_IFCHR | 0666, makedev(1, 3))',
    },
    "child_tty": {
        'sys_open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)',
        'sys_move_mount(console, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)',
    },
    "child_mount": {
        'mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)',
        'sys_move_mount(fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)',
        'umount2(".", MNT_DETACH)',
        'chdir("/")',
        'mount(source, ".", type, (unsigned long)op->arg[0], *data ? data : NULL)',
        'sys_move_mount(mount_fd, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)',
        "mknodat(dir, name, (mode_t)op->arg[0], (dev_t)op->arg[1])",
        "sys_openat2(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, RESOLVE_BENEATH)",
        'fchownat(fd, "", (uid_t)op->arg[2], (gid_t)op->arg[3], AT_EMPTY_PATH)',
        "symlinkat(target, dir, name)",
        'sys_open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)',
        'sys_move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)',
        'sys_open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH)',
        'sys_mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr)',
        'sys_mount_setattr(AT_FDCWD, "/", 0, &attr)',
    },
    "child_cred": set(),
}

RAW_CALLS = {
    "child": "clone close_range futex getcwd rt_sigaction",
    "child_path": "statx",
    "child_tty": "",
    "child_mount": "fsconfig fsmount fsopen pivot_root",
    "child_cred": "capset keyctl prlimit64 seccomp setgroups setresgid setresuid",
}


def undefined_symbols(tmp_path: Path) -> set[str]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed (it was, to build the package)"
    objects = []
    for unit in UNITS:
        target = tmp_path / f"{unit}.o"
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fno-stack-protector", "-c"]
        subprocess.run([compiler, *flags, CSRC / f"{unit}.c", "-o", target], check=True)
        objects.append(target)
    out = subprocess.run(["nm", "-u", *objects], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\bU (\w+)", out))


def source(unit: str) -> str:
    """A unit without comments, white space folded."""
    text = re.sub(r"/\*.*?\*/", " ", (CSRC / f"{unit}.c").read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def calls(text: str, names: list[str]) -> set[str]:
    """Every call of one of `names`, from the name to its closing parenthesis."""
    found = set()
    for match in re.finditer(rf"(?<![\w.>])(?:{'|'.join(names)})\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found.add(text[match.start() : end])
    return found


def test_child_calls_only_what_is_safe(tmp_path):
    symbols = {s.removesuffix("64") for s in undefined_symbols(tmp_path)}
    assert "execve" in symbols
    foreign = {s for s in symbols if not s.startswith("pn_")} - ALLOWED
    assert not foreign


@pytest.mark.parametrize("unit", UNITS)
def test_child_calls_only_its_own_units(unit, tmp_path):
    own = set()
    for other in UNITS:
        own |= set(re.findall(r"^\w.*?\b(pn_\w+)\(", (CSRC / f"{other}.c").read_text(), re.M))
    called = {s for s in undefined_symbols(tmp_path) if s.startswith("pn_")}
    assert called <= own


@pytest.mark.parametrize("unit", UNITS)
def test_paths_are_looked_up_in_one_place(unit):
    assert calls(source(unit), PATH_CALLS) == PATHS[unit]


@pytest.mark.parametrize("unit", UNITS)
def test_raw_system_calls_are_listed(unit):
    assert set(re.findall(r"\bSYS_(\w+)", source(unit))) == set(RAW_CALLS[unit].split())


def test_every_look_up_stays_below_the_root():
    """Whoever opens a path says how far it may lead: inside the root, and by no magic link."""
    header = (CSRC / "child.h").read_text()
    assert "PN_RESOLVE_INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)" in header
    assert "PN_RESOLVE_EXACT (PN_RESOLVE_INSIDE | RESOLVE_NO_SYMLINKS)" in header
    seen = set()
    for unit in UNITS:
        for call in calls(source(unit), ["pn_path_open", "open_below"]):
            if "struct pn_child *child" in call or "int dir, const char" in call:
                continue  # the definition
            assert re.search(r"(PN_RESOLVE_|RESOLVE_BENEATH|RESOLVE_NO_MAGICLINKS|resolve\))", call)
            seen.add(call.split("(")[0])
    assert seen == {"pn_path_open", "open_below"}

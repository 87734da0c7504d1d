/* The one header of the C core: every type and function that crosses a file's border.
 *
 * The region between CDEF BEGIN and CDEF END is, verbatim, what setup.py hands to cffi: plain
 * declarations only (no pid_t, no #ifdef, no attribute, no computed #define).
 *
 * Error convention: a function returns >= 0 and leaves reterr untouched, or returns -errno and
 * fills reterr. Nothing allocates for the caller, nothing logs, nothing is kept between calls.
 * File descriptors given in stay the caller's; those handed out are O_CLOEXEC and the caller's.
 */
#ifndef PYNETNS_H
#define PYNETNS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* CDEF BEGIN */

/* ---- error.c: what failed, where; 256 bytes, so that it fits one atomic pipe write ---- */
struct pn_error {
	int32_t errnum; /* positive errno */
	uint32_t step;  /* enum pn_step, or a pn_opcode when index is set */
	int32_t index;  /* the plan operation that failed, -1 outside a plan */
	char detail[244];
};

enum pn_step {
	PN_STEP_NONE = 0,
	PN_STEP_OPEN = 100,
	PN_STEP_CLONE,
	PN_STEP_UNSHARE,
	PN_STEP_SETNS,
	PN_STEP_MOUNT,
	PN_STEP_UMOUNT,
	PN_STEP_OVERLAY,
	PN_STEP_OPEN_TREE,
	PN_STEP_MOUNT_ATTR,
	PN_STEP_RESOLVE,
	PN_STEP_SOCKET,
	PN_STEP_NETLINK,
	PN_STEP_VETH,
	PN_STEP_BRIDGE,
	PN_STEP_LINK,
	PN_STEP_ADDRESS,
	PN_STEP_ROUTE,
	PN_STEP_SYSCTL,
	PN_STEP_BPF,
	PN_STEP_PLAN,
	PN_STEP_MEMORY,
	PN_STEP_WAIT,
	PN_STEP_FRAME
};

/* "mount", "veth", …; the name of an enum pn_step or a pn_opcode. */
const char *pn_step_name(uint32_t step);

/* ---- namespace.c ---- */
enum pn_netns_flags {
	PN_NETNS_IPV6_OFF = 1, /* disable_ipv6 on all interfaces, now and later */
	PN_NETNS_LO_UP = 2
};

/* A new network namespace. ret_nl, where not NULL, is an rtnetlink socket living in it. The calling thread never
 * leaves its own namespace. */
int pn_netns_create(uint32_t flags, int *ret_fd, int *ret_nl, struct pn_error *reterr);
/* The same on a thread of its own, so that the caller can do other work meanwhile: begin, and finish exactly once,
 * also when the namespace is no longer wanted. ret_times: CLOCK_MONOTONIC ns of the thread's start and end, or NULL. */
struct pn_netns_job;
int pn_netns_begin(uint32_t flags, struct pn_netns_job **ret_job, struct pn_error *reterr);
int pn_netns_finish(struct pn_netns_job *job, int *ret_fd, int *ret_nl, int64_t *ret_times, struct pn_error *reterr);
/* Bind mounts the namespace fd on path (the file is made; it must not exist). */
int pn_ns_pin(int fd, const char *path, struct pn_error *reterr);
/* Lazily unmounts and unlinks path; an absent path succeeds. */
int pn_ns_unpin(const char *path, struct pn_error *reterr);
/* Opens a namespace file; nstype is a CLONE_NEW* constant the file must be of, 0 for any. */
int pn_ns_open(const char *path, uint32_t nstype, int *ret_fd, struct pn_error *reterr);
/* Moves the calling thread into the namespace. */
int pn_ns_enter(int fd, uint32_t nstype, struct pn_error *reterr);

/* ---- netlink.c ---- */
/* An rtnetlink socket in the calling thread's network namespace. */
int pn_nl_open(int *ret_fd, struct pn_error *reterr);

/* What the kernel says to one request. */
struct pn_nl_ack {
	uint32_t seq;
	int32_t errnum; /* positive; 0: done */
	char text[128]; /* its reason; "" where it gave none */
};

/* The next acknowledgement in one datagram of size bytes, from *at on, which moves behind it. 1; 0 when there is none
 * left; -EBADMSG. No byte outside the datagram is looked at, whatever the lengths in it say. netlink(7) */
int pn_nl_next_ack(const uint8_t *data, uint32_t size, uint32_t *at, struct pn_nl_ack *ret_ack);

/* ---- link.c: nl is an rtnetlink socket; it acts in the namespace it was opened in ---- */
enum pn_port_flags {
	PN_PORT_HAIRPIN = 1,
	PN_PORT_NO_IPV6 = 2, /* no link-local address on the host's end */
	PN_PORT_ISOLATED = 4
};

struct pn_veth {
	char host_name[16];
	char peer_name[16];
	int32_t peer_netns;  /* fd of the namespace where the peer is made; -1: here */
	uint32_t master;     /* ifindex of the bridge; 0: none */
	uint32_t mtu;        /* 0: the kernel's default */
	uint32_t port_flags; /* enum pn_port_flags */
	uint8_t peer_mac[6]; /* all zero: random */
	uint8_t up;          /* bring the host's end up */
	uint8_t pad;
};

struct pn_ifconfig {
	char name[16];        /* the interface to configure and bring up */
	uint8_t address[4];   /* IPv4, network order */
	uint8_t gateway[4];   /* all zero: no default route */
	uint8_t broadcast[4]; /* all zero: none */
	uint32_t prefix;
};

/* One veth pair, its peer made in place; the host's end is a port of master with its flags, and up. On failure nothing
 * is left. */
int pn_veth_create(int nl, const struct pn_veth *veth, struct pn_error *reterr);
/* Address, up, default route: one send for all. ifindex of the interface on success. */
int pn_link_configure(int nl, const struct pn_ifconfig *config, struct pn_error *reterr);
/* A bridge, up, with the address; ifindex on success, -EEXIST when the name is taken. alias may be NULL. */
int pn_bridge_create(int nl, const char *name, const char *alias, uint32_t mtu, const uint8_t *address, uint32_t prefix,
		     struct pn_error *reterr);
/* ifindex of a link by name; -ENODEV when absent. */
int pn_link_index(int nl, const char *name, struct pn_error *reterr);
int pn_link_set_up(int nl, const char *name, int up, struct pn_error *reterr);
/* Deletes by name; an absent link succeeds. */
int pn_link_delete(int nl, const char *name, struct pn_error *reterr);
int pn_address_add(int nl, const char *name, const uint8_t *address, uint32_t prefix, struct pn_error *reterr);
/* A route to destination/prefix by gateway (all zero: on link). */
int pn_route_add(int nl, const char *name, const uint8_t *destination, uint32_t prefix, const uint8_t *gateway,
		 struct pn_error *reterr);

/* ---- overlay.c, mount.c: detached mounts, handed over as fds ---- */
enum pn_overlay_flags {
	PN_OVERLAY_READONLY = 1,
	PN_OVERLAY_NO_APPEND = 2 /* as if the kernel had no "lowerdir+" (before Linux 6.7) */
};

/* lowers: 1 to 500 paths, top layer first. upper and work "" for a read-only union. The detail of an error names the
 * directory at fault where that can be told. */
int pn_overlay_mount(const char *const *lowers, uint32_t nlowers, const char *upper, const char *work, uint32_t flags,
		     int *ret_fd, struct pn_error *reterr);
/* A detached copy of the tree (or file) at path. attr_set: MOUNT_ATTR_* bits; propagation: MS_PRIVATE, MS_SLAVE,
 * MS_SHARED or 0. */
int pn_tree_clone(int dirfd, const char *path, int recursive, uint64_t attr_set, uint32_t propagation, int *ret_fd,
		  struct pn_error *reterr);
/* A detached copy of /proc in another mount namespace, alone; -EXDEV when what is there is no procfs. */
int pn_proc_clone(int mount_namespace, int *ret_fd, struct pn_error *reterr);
/* Attaches a detached mount at path (a directory for a directory, a file for a file). */
int pn_mount_attach(int fd, const char *path, struct pn_error *reterr);
int pn_tmpfs_mount(const char *path, const char *options, struct pn_error *reterr);
/* Lazy unmount; succeeds when path is absent or no mount point. */
int pn_umount(const char *path, struct pn_error *reterr);
/* openat2 with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS below root; flags as open(2). */
int pn_open_in_root(int root, const char *path, uint64_t flags, int *ret_fd, struct pn_error *reterr);

/* ---- bpf.c: the device policy of a v2 cgroup ---- */
/* insns: count struct bpf_insn of 8 bytes, a BPF_PROG_TYPE_CGROUP_DEVICE program. */
int pn_bpf_device_load(const uint8_t *insns, uint32_t count, int *ret_fd, struct pn_error *reterr);
/* flags: BPF_F_ALLOW_OVERRIDE or 0. */
int pn_bpf_device_attach(int cgroup, int prog, uint32_t flags, struct pn_error *reterr);

/* ---- plan.c: what a child does between clone and exec, as data ----
 * A plan is a sequence of operations, native byte order, each padded to 8 bytes: the header below, then `size`
 * bytes of payload: nstr NUL-terminated strings, or raw bytes where the operation takes a blob. A descriptor is
 * named by its index in the table given with the plan; indexes 0, 1, 2 are the program's stdin, stdout, stderr. */
struct pn_op {
	uint32_t code; /* enum pn_opcode */
	uint32_t nstr;
	uint32_t size; /* of the payload, without padding */
	uint32_t pad;
	int64_t arg[4];
};

enum pn_opcode {
	PN_OP_CLONE = 1, /* first, exactly once: flags, cgroup fd index or -1 */
	PN_OP_PDEATHSIG, /* signal */
	PN_OP_STDIO,     /* uid, gid for its pipes, 1: null devices from the root: table entries 0-2 become 0-2 */
	PN_OP_SETSID,    /* 1: make stdin the controlling terminal, else 0 */
	PN_OP_TTY,       /* rows << 16 | columns, fd index of a console socket or -1, uid, 1 to bind /dev/console: a pty
			  as stdio, its master sent to that socket, or to the spawner */
	PN_OP_SETNS,     /* fd index, CLONE_NEW* flags */
	PN_OP_UNSHARE,   /* CLONE_NEW* flags */
	PN_OP_FORK,      /* cgroup fd index or -1: go on in a child of the spawner (after setns of a pid namespace) */
	PN_OP_CGROUP,    /* fd index of a cgroup.procs: join it */
	PN_OP_HOSTNAME,  /* name */
	PN_OP_DOMAINNAME, /* name */
	PN_OP_PRIVATE,    /* make every mount of this namespace private */
	PN_OP_ROOT,       /* fd index of a detached root: pivot into it, drop the old one */
	PN_OP_CHROOT,     /* path */
	PN_OP_MOUNT,      /* flags, dest mode; strings type, source, destination, data */
	PN_OP_ATTACH,     /* fd index, S_IFDIR or S_IFREG, dest mode; destination */
	PN_OP_MKDIR,      /* mode; path; parents are made, an existing directory is fine */
	PN_OP_MKNOD,      /* mode, device number, uid, gid; path */
	PN_OP_SYMLINK,    /* target, path */
	PN_OP_MASK,       /* path: /dev/null over a file, an empty tmpfs over a directory; absent is fine */
	PN_OP_READONLY,   /* path; absent is fine */
	PN_OP_ROOT_ATTR,  /* MOUNT_ATTR_* to set on /, propagation or 0 */
	PN_OP_SYSCTL,     /* path below /proc/sys, value */
	PN_OP_OOM_SCORE,  /* fd index of a procfs that shows this process, or -1: /proc; value as string */
	PN_OP_RLIMIT,     /* resource, soft, hard */
	PN_OP_UMASK,      /* mode */
	PN_OP_NO_NEW_PRIVS,
	PN_OP_SECCOMP,  /* flags; blob: struct sock_filter[] */
	PN_OP_BOUNDING, /* mask: drop every other capability from the bounding set */
	PN_OP_GROUPS,   /* blob: uint32_t gids */
	PN_OP_USER,     /* uid, gid; capabilities are kept until PN_OP_CAPSET */
	PN_OP_CAPSET,   /* effective, permitted, inheritable, ambient masks */
	PN_OP_KEYRING,  /* a session keyring of its own */
	PN_OP_CWD,      /* path, inside the root. From here on only stdio, report and the pipe of WAIT are open */
	PN_OP_WAIT,     /* fd index of a pipe: go on at its first byte, give up at its end. Second: fd index of a socket
			 that is told before that everything is prepared, or -1 */
	PN_OP_READY,    /* signal mask and trace now, so that nothing but execve is left after a filter */
	PN_OP_EXEC      /* last, exactly once: candidates, argc, envc; that many strings each */
};

enum pn_dest_mode {
	PN_DEST_CREATE = 1, /* make a missing mount point */
	/* For /proc, /sys and /dev: refuse a symlink on the way. Without it links are followed inside the root, and a
	 * destination that turns out to be in one of these three, or the root itself, is refused. */
	PN_DEST_NO_SYMLINK = 2
};

/* Whether a plan is well formed for a table of nfds descriptors; nothing is executed. */
int pn_plan_check(const uint8_t *plan, uint32_t size, uint32_t nfds, struct pn_error *reterr);

/* ---- spawn.c ---- */
enum pn_limits { PN_TRACE_MAX = 128, PN_PLAN_FDS = 240 };

/* Times (CLOCK_MONOTONIC, ns) at which each operation of a plan ended. */
struct pn_trace {
	uint32_t count;
	uint32_t pad;
	int64_t cloned;
	int64_t end[128];
};

/* Runs a plan from this process; returns when the program was executed or has failed to be.
 * fds: the table of the plan. The address space is shared until exec (no copy of a large caller), so the calling
 * thread waits. The exit status is the caller's to collect by waitid(P_PIDFD). trace may be NULL. */
int pn_spawn(const uint8_t *plan, uint32_t size, const int *fds, uint32_t nfds, int *ret_pidfd, int *ret_pid,
	     struct pn_trace *trace, struct pn_error *reterr);

/* ---- frame.c: messages between an engine and the shim, one SOCK_SEQPACKET datagram each ---- */
enum pn_frame_kind {
	PN_FRAME_HELLO = 1, /* arg protocol version; answered HELLO */
	PN_FRAME_SPAWN,     /* payload plan, value the run (the client's own number); answered SPAWNED or ERROR */
	PN_FRAME_WAIT,      /* value the run's pid, 0: any; answered EXITED, at once or later, or ERROR with ESRCH */
	PN_FRAME_ATTACH,    /* fds stdin?, stdout?, stderr?; answered OK */
	PN_FRAME_SIGNAL,    /* arg signal number, value as WAIT's; answered OK or ERROR */
	PN_FRAME_RESIZE,    /* arg rows << 16 | columns; answered OK */
	PN_FRAME_CLOSE_STDIN,
	PN_FRAME_LIST, /* value: where to go on, 0 at first; answered by one TASK */
	PN_FRAME_OK,
	PN_FRAME_ERROR,   /* payload struct pn_error */
	PN_FRAME_SPAWNED, /* value pid; payload struct pn_trace when asked for */
	PN_FRAME_EXITED,  /* arg exit code; value time of exit, ns since the epoch */
	PN_FRAME_TASK,    /* payload struct pn_task_entry[]; value: where to go on, 0 when that was the last */
	PN_FRAME_FDS,     /* descriptors of the SPAWN that follows on this connection, before its own; no answer */
	PN_FRAME_STARTED, /* value the run, 0: any; answered as the SPAWN of the key is or was, or ERROR with ESRCH */
	PN_FRAME_HOME,    /* fd of the exec root, in which there is no socket: listen there; answered OK or ERROR */
	PN_FRAME_RECORD   /* fd of a directory: record the end of the task there; answered OK, or ERROR with ESRCH */
};

enum pn_spawn_flags {
	PN_SPAWN_STDIN = 1,      /* keep the program's stdin open; else it is /dev/null */
	PN_SPAWN_STDIN_ONCE = 2, /* close it when the attached client's ends */
	PN_SPAWN_TTY = 4,        /* the plan has PN_OP_TTY */
	PN_SPAWN_LOG = 8,        /* an fd: the directory of the log; struct pn_log_options in front of the plan */
	PN_SPAWN_RECORD = 16,    /* an fd: the directory that gets the file "exit" */
	PN_SPAWN_ATTACH_IN = 32, /* an fd each, in this order */
	PN_SPAWN_ATTACH_OUT = 64,
	PN_SPAWN_ATTACH_ERR = 128,
	PN_SPAWN_TRACE = 256,
	PN_SPAWN_MEMFD = 512,   /* the plan is in an fd, not in the frame */
	PN_SPAWN_DIRECT = 1024, /* the attach fds are the program's own stdio: the shim copies nothing */
	PN_SPAWN_CGROUP = 2048  /* an fd, after record: the cgroup directory whose processes die with the program */
};

enum pn_frame_limits { PN_PROTOCOL = 2, PN_KEY_MAX = 72, PN_FRAME_MAX = 131072 };

enum pn_log_driver { PN_LOG_NONE = 0, PN_LOG_JSON_FILE, PN_LOG_LOCAL };
enum pn_log_mode { PN_LOG_BLOCKING = 0, PN_LOG_NON_BLOCKING };

/* How a task's output is logged. It stands before the plan, in the frame or in the memory file. */
struct pn_log_options {
	uint32_t driver;     /* enum pn_log_driver */
	uint32_t mode;       /* enum pn_log_mode */
	uint64_t max_size;   /* bytes of one file; 0: unlimited */
	uint32_t max_file;   /* files kept, the one being written included; at least 1 */
	uint32_t pad;        /* 0 */
	uint64_t max_buffer; /* bytes that may wait for the disk, PN_LOG_NON_BLOCKING only */
	char name[104];      /* path below the directory: "<id>-json.log", "local-logs/container.log"; the file and its
				parent are made when missing; rotated to name.1, name.2, ... */
};

/* The fds of a SPAWN come in this order: memfd, log, record, cgroup, attach in/out/err, `hold` fds that the shim keeps
 * open while the task lives (reserved host ports), then table entries 3… of the plan. What does not fit into one
 * datagram (253) goes ahead in FDS frames. */
struct pn_frame {
	uint16_t kind;
	uint16_t flags;
	uint32_t serial; /* echoed in the answer */
	int32_t arg;
	uint32_t hold;
	int64_t value;
	int64_t received; /* CLOCK_MONOTONIC ns at which the shim had the request */
	char key[72];     /* the task: a container's or an exec's id, NUL-terminated */
};

struct pn_task_entry {
	char key[72];
	int32_t pid;
	int32_t pad;
};

/* Sends one frame with its payload and fds / receives one. Receive returns the payload's size, or -EPIPE at the
 * other side's end. */
int pn_frame_send(int sock, const struct pn_frame *frame, const uint8_t *payload, uint32_t size, const int *fds,
		  uint32_t nfds, struct pn_error *reterr);
int pn_frame_recv(int sock, struct pn_frame *frame, uint8_t *payload, uint32_t capacity, int *fds,
		  uint32_t fds_capacity, uint32_t *ret_nfds, struct pn_error *reterr);

/* CDEF END */

/* ---- shared by C units only ---- */
#define PN_EXPORT __attribute__((visibility("default")))

/* error.c */
int pn_fail(struct pn_error *reterr, int errnum, uint32_t step, const char *detail);

/* cleanup.c */
void pn_close(int *fd);
#define _cleanup_close_ __attribute__((cleanup(pn_close)))
#define TAKE_FD(fd)                                                                                                    \
	({                                                                                                             \
		int *owner_ = &(fd);                                                                                   \
		int taken_ = *owner_;                                                                                  \
		*owner_ = -1;                                                                                          \
		taken_;                                                                                                \
	})

#endif

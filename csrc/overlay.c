/* Overlay mounts, made detached: how layers are named to the kernel, and what it says when it refuses.
 *
 * Nothing made here is visible in any mount namespace until somebody attaches it; it goes away with its last
 * descriptor. Knows nothing of images or containers. Documentation/filesystems/overlayfs.rst
 */
#include "overlay.h"
#include "syscalls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* fsconfig(2) takes values below 256 bytes, and overlayfs gives these characters a meaning that differs between
 * kernels. Any other path goes to it as the magic link of a descriptor. */
#define VALUE_MAX 255
#define SPECIAL ":,\\"
#define FD_PATH_MAX 40

/* How the lower layers are named to the kernel; the next one is tried where a value gets too long or the kernel lacks
 * the option. */
enum spelling {
	JOINED,       /* "lowerdir=a:b", the paths as they are */
	JOINED_SHORT, /* the same by descriptors */
	EACH,         /* "lowerdir+=a", since Linux 6.7 */
	LINKS         /* overlay_links.c */
};

static int sys_fsconfig(int fd, unsigned int command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fd, command, key, value, 0);
}

/* What the kernel wrote about the failure: messages "e overlay: text", one per read. */
static int fail_overlay(struct pn_error *reterr, int errnum, int fs, const char *what)
{
	char line[244];
	ssize_t size = read(fs, line, sizeof(line) - 1);

	if (size > 2) {
		line[size] = '\0';
		if (line[size - 1] == '\n')
			line[size - 1] = '\0';
		what = line + 2;
	}
	return pn_fail(reterr, errnum, PN_STEP_OVERLAY, what);
}

/* A spelling of path that every kernel takes literally: itself, or buffer with the name of *ret_fd. */
static const char *literal_path(const char *path, int shorten, char *buffer, int *ret_fd)
{
	if (!shorten && strlen(path) <= VALUE_MAX && !strpbrk(path, SPECIAL))
		return path;
	*ret_fd = open(path, O_PATH | O_CLOEXEC);
	if (*ret_fd < 0)
		return NULL;
	snprintf(buffer, FD_PATH_MAX, "/proc/thread-self/fd/%d", *ret_fd);
	return buffer;
}

/* One directory option. Before 6.5 the kernel looks the path up only in CREATE: *keep is open until then. */
static int set_directory(int fs, const char *key, const char *path, int *keep, struct pn_error *reterr)
{
	char buffer[FD_PATH_MAX];
	const char *value = literal_path(path, 0, buffer, keep);

	if (!value)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY, path);
	if (sys_fsconfig(fs, PN_FSCONFIG_SET_STRING, key, value) < 0)
		return fail_overlay(reterr, errno, fs, path);
	return 0;
}

static int add_lowers_each(int fs, const char *const *lowers, uint32_t nlowers, struct pn_error *reterr)
{
	for (uint32_t i = 0; i < nlowers; i++) {
		_cleanup_close_ int keep = -1;
		int ret = set_directory(fs, "lowerdir+", lowers[i], &keep, reterr);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/* value has room for VALUE_MAX + 1 bytes, keep for nlowers descriptors. E2BIG: the value gets too long. */
static int join_lowers(const char *const *lowers, uint32_t nlowers, int shorten, char *value, int *keep,
		       struct pn_error *reterr)
{
	char buffer[FD_PATH_MAX];
	size_t used = 0;

	for (uint32_t i = 0; i < nlowers; i++) {
		const char *path = literal_path(lowers[i], shorten, buffer, &keep[i]);
		int size;

		if (!path)
			return pn_fail(reterr, errno, PN_STEP_OVERLAY, lowers[i]);
		size = snprintf(value + used, VALUE_MAX + 1 - used, "%s%s", i ? ":" : "", path);
		if (size < 0 || (size_t)size > VALUE_MAX - used)
			return pn_fail(reterr, E2BIG, PN_STEP_OVERLAY, "too many layers");
		used += (size_t)size;
	}
	return 0;
}

static int set_lowers(int fs, const char *value, struct pn_error *reterr)
{
	if (sys_fsconfig(fs, PN_FSCONFIG_SET_STRING, "lowerdir", value) < 0)
		return fail_overlay(reterr, errno, fs, value);
	return 0;
}

static int open_overlay(struct pn_error *reterr)
{
	int fs = (int)syscall(SYS_fsopen, "overlay", PN_FSOPEN_CLOEXEC);

	if (fs < 0)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY, "fsopen");
	/* what /proc/mounts shows as the device */
	if (sys_fsconfig(fs, PN_FSCONFIG_SET_STRING, "source", "overlay") < 0) {
		int ret = fail_overlay(reterr, errno, fs, "source");

		close(fs);
		return ret;
	}
	return fs;
}

/* upper, work, and the super block. An inode index would make a directory per mount and refuse layers that were
 * copied; nobody exports containers by NFS. */
static int create_overlay(int fs, const char *upper, const char *work, struct pn_error *reterr)
{
	_cleanup_close_ int upper_fd = -1;
	_cleanup_close_ int work_fd = -1;
	int ret;

	if (*upper) {
		ret = set_directory(fs, "upperdir", upper, &upper_fd, reterr);
		if (ret == 0)
			ret = set_directory(fs, "workdir", work, &work_fd, reterr);
		if (ret < 0)
			return ret;
		if (sys_fsconfig(fs, PN_FSCONFIG_SET_STRING, "index", "off") < 0)
			return fail_overlay(reterr, errno, fs, "index=off");
	}
	if (syscall(SYS_fsconfig, fs, PN_FSCONFIG_CREATE, NULL, NULL, 0) < 0)
		return fail_overlay(reterr, errno, fs, *upper ? upper : "union");
	return 0;
}

static int finish_overlay(int fs, uint32_t flags, int *ret_fd, struct pn_error *reterr)
{
	unsigned int attributes = flags & PN_OVERLAY_READONLY ? MOUNT_ATTR_RDONLY : 0;
	int fd = (int)syscall(SYS_fsmount, fs, PN_FSMOUNT_CLOEXEC, attributes);

	if (fd < 0)
		return fail_overlay(reterr, errno, fs, "fsmount");
	*ret_fd = fd;
	return 0;
}

static int overlay_by_fsconfig(enum spelling spelling, const struct pn_overlay *overlay, int *ret_fd,
			       struct pn_error *reterr)
{
	_cleanup_close_ int fs = -1;
	uint32_t nlowers = overlay->nlowers;
	char value[VALUE_MAX + 1];
	int ret = 0, keep[PN_LOWERS_MAX];

	memset(keep, -1, sizeof(keep[0]) * nlowers);
	if (spelling != EACH)
		ret = join_lowers(overlay->lowers, nlowers, spelling == JOINED_SHORT, value, keep, reterr);
	if (ret == 0) /* not before: often the value is too long */
		ret = fs = open_overlay(reterr);
	if (ret >= 0)
		ret = spelling == EACH ? add_lowers_each(fs, overlay->lowers, nlowers, reterr)
				       : set_lowers(fs, value, reterr);
	if (ret == 0)
		ret = create_overlay(fs, overlay->upper, overlay->work, reterr);
	for (uint32_t i = 0; i < nlowers; i++)
		pn_close(&keep[i]);
	return ret < 0 ? ret : finish_overlay(fs, overlay->flags, ret_fd, reterr);
}

/* EINVAL is how a kernel answers that does not know "lowerdir+". Without /proc no descriptor has a name. */
static int is_worth_another(enum spelling failed, int ret)
{
	return ret == -E2BIG || (failed == EACH && ret == -EINVAL) ||
	       (ret == -ENOENT && access("/proc/thread-self/fd", F_OK) < 0);
}

static int overlay_spelled(const struct pn_overlay *overlay, int *ret_fd, struct pn_error *reterr)
{
	int ret;

	for (enum spelling spelling = JOINED; spelling < LINKS; spelling++) {
		if (spelling == EACH && overlay->flags & PN_OVERLAY_NO_APPEND)
			continue;
		ret = overlay_by_fsconfig(spelling, overlay, ret_fd, reterr);
		if (ret >= 0 || !is_worth_another(spelling, ret))
			return ret;
	}
	return pn_overlay_by_links(overlay, ret_fd, reterr);
}

PN_EXPORT int pn_overlay_mount(const char *const *lowers, uint32_t nlowers, const char *upper, const char *work,
			       uint32_t flags, int *ret_fd, struct pn_error *reterr)
{
	const struct pn_overlay overlay = {
		.lowers = lowers,
		.nlowers = nlowers,
		.upper = upper,
		.work = work,
		.flags = flags,
	};
	struct pn_error error = { 0 };
	int ret;

	if (nlowers == 0 || nlowers > PN_LOWERS_MAX)
		return pn_fail(reterr, EINVAL, PN_STEP_OVERLAY, "takes 1 to 500 layers");
	ret = overlay_spelled(&overlay, ret_fd, &error);
	if (ret >= 0)
		return ret;
	if (error.step == PN_STEP_OVERLAY)
		pn_overlay_blame(&overlay, &error);
	*reterr = error;
	return -error.errnum;
}

/* Which directory a failed overlay mount failed for: up to Linux 6.4 the kernel says so in its log alone.
 *
 * Looks at what is there after the failure and changes nothing. Knows nothing of how the mount was tried. */
#include "overlay.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* A long path keeps its end, which tells one layer from another. */
static void say(struct pn_error *reterr, const char *role, const char *path, const char *why)
{
	size_t room = sizeof(reterr->detail) - 1 - strlen(role) - strlen(why) - sizeof(" ...: ");
	size_t length = strlen(path);
	const char *cut = "";

	if (length > room) {
		path += length - room;
		cut = "...";
	}
	snprintf(reterr->detail, sizeof(reterr->detail), "%s %s%s%s%s", role, cut, path, *why ? ": " : "", why);
}

/* Whether path is no directory at all; says so. */
static int is_absent(struct pn_error *reterr, const char *role, const char *path, struct stat *ret_info)
{
	if (stat(path, ret_info) < 0) {
		reterr->errnum = errno;
		say(reterr, role, path, "");
		return 1;
	}
	if (!S_ISDIR(ret_info->st_mode)) {
		reterr->errnum = ENOTDIR;
		say(reterr, role, path, "");
		return 1;
	}
	return 0;
}

/* The file systems that cannot hold the writable layer: no whiteouts, no trusted attributes, no O_TMPFILE. */
static const struct {
	unsigned long magic;
	const char *name;
} unfit[] = {
	{ OVERLAYFS_SUPER_MAGIC, "overlay" },
	{ NFS_SUPER_MAGIC, "nfs" },
	{ MSDOS_SUPER_MAGIC, "vfat" },
	{ 0x2011BAB0, "exfat" },
	{ 0x65735546, "fuse" },
	{ 0xFF534D42, "cifs" },
	{ V9FS_MAGIC, "9p" },
	{ PROC_SUPER_MAGIC, "proc" },
	{ SYSFS_MAGIC, "sysfs" },
	{ SQUASHFS_MAGIC, "squashfs" },
	{ ISOFS_SUPER_MAGIC, "iso9660" },
};

static int is_unfit(struct pn_error *reterr, const char *upper)
{
	char why[80];
	struct statfs fs;

	if (statfs(upper, &fs) < 0)
		return 0;
	for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++) {
		if ((unsigned long)fs.f_type != unfit[i].magic)
			continue;
		snprintf(why, sizeof(why), "file system %s is not supported as upperdir", unfit[i].name);
		say(reterr, "upperdir", upper, why);
		return 1;
	}
	return 0;
}

/* For a refusal that names no path of its own: EINVAL and kin. */
static void blame_upper(const struct pn_overlay *overlay, const struct stat *upper, const struct stat *work,
			struct pn_error *reterr)
{
	if (upper->st_dev != work->st_dev)
		say(reterr, "workdir", overlay->work, "must be on the file system of upperdir");
	else if (upper->st_ino == work->st_ino)
		say(reterr, "workdir", overlay->work, "must not be the upperdir");
	else if (reterr->errnum == EROFS)
		say(reterr, "upperdir", overlay->upper, "");
	else if (!is_unfit(reterr, overlay->upper) && !*reterr->detail)
		say(reterr, "upperdir", overlay->upper, "");
}

void pn_overlay_blame(const struct pn_overlay *overlay, struct pn_error *reterr)
{
	struct stat info, upper, work;

	for (uint32_t i = 0; i < overlay->nlowers; i++)
		if (is_absent(reterr, "lowerdir", overlay->lowers[i], &info))
			return;
	if (*overlay->upper) {
		if (is_absent(reterr, "upperdir", overlay->upper, &upper) ||
		    is_absent(reterr, "workdir", overlay->work, &work))
			return;
		if (reterr->errnum != ELOOP)
			blame_upper(overlay, &upper, &work, reterr);
	}
	if (!*reterr->detail)
		say(reterr, "lowerdir", overlay->lowers[0],
		    reterr->errnum == ELOOP ? "or another one lies inside one of the others" : "");
}

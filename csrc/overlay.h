/* What overlay.c asks of its other two halves. Private to csrc. */
#ifndef PN_OVERLAY_H
#define PN_OVERLAY_H

#include "pynetns.h"

#define PN_LOWERS_MAX 500 /* OVL_MAX_STACK */

struct pn_overlay {
	const char *const *lowers; /* top layer first */
	uint32_t nlowers;
	const char *upper; /* "": a read-only union */
	const char *work;
	uint32_t flags; /* enum pn_overlay_flags */
};

/* overlay_links.c: the mount made by mount(2), whose options may be a page long. */
int pn_overlay_by_links(const struct pn_overlay *overlay, int *ret_fd, struct pn_error *reterr);
/* overlay_blame.c: says in reterr, which holds the kernel's refusal, which directory is at fault where that can be
 * told, and corrects the errno where a directory is missing. */
void pn_overlay_blame(const struct pn_overlay *overlay, struct pn_error *reterr);

#endif

/* What the units of the log's writer share. Private to shim_log.c, shim_lines.c and shim_logfile.c. */
#ifndef PN_SHIM_LOG_H
#define PN_SHIM_LOG_H

#include "shim.h"

#define MOST_SEGMENTS 4

struct segment {
	const uint8_t *bytes;
	uint32_t size, offset; /* offset: of bytes within the chunk */
	const struct kept_chunk *chunk;
};

/* One stream's bytes that are not in the log yet. */
struct cursor {
	struct segment seg[MOST_SEGMENTS];
	uint32_t nseg, at, off;
	uint64_t pos;
	bool final; /* nothing follows: a line without end is complete */
	uint8_t joined[LINE_MAX_BYTES];
	/* the entry found */
	const uint8_t *line;
	uint32_t size, next_at, next_off;
	uint64_t next_pos;
	bool found, newline;
	int64_t time;
};

/* shim_lines.c: entries out of chunks */
/* All that is there now; under the lock, under which chunks are linked and unlinked. */
void lines_open(struct cursor *c, const struct kept_stream *stream, bool final);
/* Which of two streams has the older entry, found in its cursor; -1: neither has a whole one. */
int lines_pick(struct cursor cursors[2]);
void lines_take(struct cursor *c); /* goes behind the entry found */

/* shim_logfile.c: the file and its older ones */
/* Opened, a rotation that was under way finished; its size, or -1. */
int64_t logfile_ready(struct pn_log *log);
/* Was the write done that a predecessor had announced? Notes it, or cuts off what there is of it. */
void logfile_finish_write(struct pn_log *log);
void logfile_rotate(struct pn_log *log);
void logfile_write(int fd, const char *bytes, size_t size, int64_t start);

#endif

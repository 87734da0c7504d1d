/* Lines out of the chunks of a task's streams, for its log. Copies only a line that lies in two chunks; remembers
 * nothing but what its cursor holds: an unfinished line stays in the store. */
#include "shim_log.h"

#include <string.h>

void lines_open(struct cursor *c, const struct kept_stream *stream, bool final)
{
	uint64_t pos = stream->logged;
	uint32_t i = stream->head;

	c->nseg = c->at = c->off = 0;
	c->pos = pos;
	c->found = false;
	for (; i && c->nseg < MOST_SEGMENTS; i = store->chunks[i].next) {
		const struct kept_chunk *chunk = &store->chunks[i];
		uint32_t size = KEPT(chunk->size), skip;

		if (pos >= chunk->start + size)
			continue;
		skip = (uint32_t)(pos - chunk->start);
		c->seg[c->nseg++] = (struct segment){ store->data[i] + skip, size - skip, skip, chunk };
		pos = chunk->start + size;
	}
	c->final = final && i == 0;
}

static int64_t arrival(const struct segment *seg, uint32_t off)
{
	const struct kept_chunk *chunk = seg->chunk;
	uint32_t byte = seg->offset + off, i = 0;

	while (i + 1 < chunk->nmarks && chunk->mark[i] <= byte)
		i++;
	return chunk->time[i];
}

static bool entry_found(struct cursor *c, const uint8_t *line, uint32_t size, bool newline, uint32_t at, uint32_t off)
{
	c->line = line;
	c->size = size;
	c->newline = newline;
	c->next_at = at;
	c->next_off = off;
	c->next_pos = c->pos + size + newline;
	c->time = arrival(&c->seg[at], off - 1);
	return c->found = true;
}

/* The next line, or the piece of a long one; copied only where it lies in two chunks. */
static bool next_entry(struct cursor *c)
{
	uint32_t size = 0, off = c->off, at;

	if (c->found)
		return true;
	for (at = c->at; at < c->nseg; at++, off = 0) {
		const uint8_t *bytes = c->seg[at].bytes + off;
		uint32_t have = c->seg[at].size - off, room = LINE_MAX_BYTES - size, n = have < room ? have : room;
		const uint8_t *end = memchr(bytes, '\n', n);
		uint32_t len = end ? (uint32_t)(end - bytes) : n;
		bool whole = end || n == room;

		if (size == 0 && whole)
			return entry_found(c, bytes, len, end, at, off + len + !!end);
		memcpy(c->joined + size, bytes, len);
		size += len;
		if (whole)
			return entry_found(c, c->joined, size, end, at, off + len + !!end);
	}
	if (size == 0 || !c->final)
		return false;
	return entry_found(c, c->joined, size, false, c->nseg - 1, c->seg[c->nseg - 1].size);
}

void lines_take(struct cursor *c)
{
	c->at = c->next_at;
	c->off = c->next_off;
	c->pos = c->next_pos;
	c->found = false;
}

int lines_pick(struct cursor cursors[2])
{
	bool has[2] = { next_entry(&cursors[0]), next_entry(&cursors[1]) };

	if (has[0] && has[1])
		return cursors[1].time < cursors[0].time;
	return has[0] ? 0 : has[1] ? 1 : -1;
}

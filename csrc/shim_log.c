/* The json-file log of a task, in Docker's format: one JSON object a line.
 *
 * A line of the program is one entry; one longer than 16 KiB is cut, the pieces but the last without newline, as
 * Docker does. Bytes that are no UTF-8 become U+FFFD.
 */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 16384

/* Six bytes for each of the line's, and the frame around it. */
static char entry[LINE_MAX_BYTES * 6 + 128];

/* Length of the valid UTF-8 sequence at s, 0 when there is none. Table 3-7 of the Unicode standard. */
static size_t utf8_length(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))
		return 0;
	if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static char *escape_ascii(char *out, unsigned char c)
{
	static const char short_form[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	for (size_t i = 0; i + 1 < sizeof(short_form); i += 2) {
		if ((unsigned char)short_form[i] == c) {
			*out++ = '\\';
			*out++ = short_form[i + 1];
			return out;
		}
	}
	if (c < 0x20 || c == 0x7f)
		return out + sprintf(out, "\\u%04x", c);
	*out++ = (char)c;
	return out;
}

static char *escape(char *out, const char *bytes, size_t size)
{
	const unsigned char *s = (const unsigned char *)bytes;

	for (size_t i = 0, n; i < size; i += n ? n : 1) {
		n = utf8_length(s + i, size - i);
		if (n == 1) {
			out = escape_ascii(out, s[i]);
		} else if (n == 0) {
			memcpy(out, "\\ufffd", 6);
			out += 6;
		} else {
			memcpy(out, s + i, n);
			out += n;
		}
	}
	return out;
}

static char *append_time(char *out)
{
	struct timespec now;
	struct tm utc;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	return out + sprintf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
			     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec);
}

/* All or nothing: a full disk must not leave half a JSON object in the middle of the file. */
static void write_whole(int fd, const char *bytes, size_t size)
{
	off_t start = lseek(fd, 0, SEEK_END);
	ssize_t written = write(fd, bytes, size);

	if (written >= 0 && (size_t)written < size && start >= 0)
		(void)!ftruncate(fd, start);
}

static void write_entry(const struct pn_stream *stream, const char *bytes, size_t size, bool newline)
{
	char *out = entry + sprintf(entry, "{\"log\":\"");

	out = escape(out, bytes, size);
	if (newline) {
		*out++ = '\\';
		*out++ = 'n';
	}
	out += sprintf(out, "\",\"stream\":\"%s\",\"time\":\"", stream->name);
	out = append_time(out);
	memcpy(out, "\"}\n", 3);
	write_whole(stream->task->log, entry, (size_t)(out + 3 - entry));
}

/* Keeps the start of a line until its end arrives. */
static void keep(struct pn_stream *stream, const char *bytes, size_t size)
{
	char *line = realloc(stream->line, stream->line_size + size);

	if (!line) { /* out of memory: an early cut loses nothing */
		log_end(stream);
		write_entry(stream, bytes, size, false);
		return;
	}
	memcpy(line + stream->line_size, bytes, size);
	stream->line = line;
	stream->line_size += size;
}

static void write_line(struct pn_stream *stream, const char *bytes, size_t size, bool newline)
{
	if (stream->line_size == 0) {
		write_entry(stream, bytes, size, newline);
		return;
	}
	keep(stream, bytes, size);
	if (stream->line_size)
		write_entry(stream, stream->line, stream->line_size, newline);
	free(stream->line);
	stream->line = NULL;
	stream->line_size = 0;
}

void log_chunk(struct pn_stream *stream, const char *bytes, size_t size)
{
	if (stream->task->log < 0)
		return;
	while (size > 0) {
		size_t room = LINE_MAX_BYTES - stream->line_size;
		size_t take = size < room ? size : room;
		const char *newline = memchr(bytes, '\n', take);

		if (newline) {
			take = (size_t)(newline - bytes);
			write_line(stream, bytes, take, true);
			take++;
		} else if (take == room) {
			write_line(stream, bytes, take, false);
		} else {
			keep(stream, bytes, take);
		}
		bytes += take;
		size -= take;
	}
}

void log_end(struct pn_stream *stream)
{
	if (stream->line_size && stream->task->log >= 0)
		write_entry(stream, stream->line, stream->line_size, false);
	free(stream->line);
	stream->line = NULL;
	stream->line_size = 0;
}

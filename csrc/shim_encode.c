/* Entries of a log, in Docker's two formats: json-file (one JSON object a line) and local (length, protobuf message,
 * length). Pure functions of bytes and time, but for the text of the last time, which is kept.
 *
 * https://github.com/moby/moby: daemon/logger/jsonfilelog/jsonlog, daemon/logger/local, api/types/plugins/logdriver.
 */
#include "shim.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- json-file ---- */

/* What becomes of a byte below 0x80: 0 itself, 'u' \u00xx, another letter a backslash and that. As encoding/json of Go
 * does it, with <, > and & escaped. */
static const char escapes[128] = {
	'u', 'u', 'u', 'u', 'u', 'u', 'u',         'u',           'u',         'u',         'n',         'u', 'u',
	'r', 'u', 'u', 'u', 'u', 'u', 'u',         'u',           'u',         'u',         'u',         'u', 'u',
	'u', 'u', 'u', 'u', 'u', 'u', ['"'] = '"', ['\\'] = '\\', ['<'] = 'u', ['>'] = 'u', ['&'] = 'u',
};

/* Length of the valid UTF-8 sequence at s, 0 when there is none. Table 3-7 of the Unicode standard. */
static size_t utf8_length(const uint8_t *s, size_t left)
{
	size_t n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

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

typedef int8_t bytes16 __attribute__((vector_size(16)));

/* Whether one of sixteen bytes needs more than being copied. Signed: bytes from 0x80 on are below 0x20. */
static bool plain16(bytes16 v)
{
	bytes16 special = (v < 0x20) | (v == '"') | (v == '\\') | (v == '<') | (v == '>') | (v == '&');
	uint64_t half[2];

	memcpy(half, &special, sizeof(half));
	return !(half[0] | half[1]);
}

/* Copies from the start what needs no more than that; how many bytes. Beyond them it may write some more. */
static size_t copy_plain(char *out, const uint8_t *s, size_t size)
{
	size_t i = 0;

	for (; i + 16 <= size; i += 16) {
		bytes16 v;

		memcpy(&v, s + i, sizeof(v));
		memcpy(out + i, &v, sizeof(v));
		if (!plain16(v))
			break;
	}
	for (; i < size && s[i] < 0x80 && !escapes[s[i]]; i++)
		out[i] = (char)s[i];
	return i;
}

static char *append_unicode(char *out, const char *prefix, unsigned int low)
{
	static const char hex[] = "0123456789abcdef";

	memcpy(out, prefix, 4);
	out[4] = hex[low >> 4 & 15];
	out[5] = hex[low & 15];
	return out + 6;
}

/* One character that is not plain; how many bytes of the line it was. */
static size_t escape_one(char **out, const uint8_t *s, size_t left)
{
	size_t n;

	if (s[0] < 0x80) {
		if (escapes[s[0]] == 'u') {
			*out = append_unicode(*out, "\\u00", s[0]);
		} else {
			*(*out)++ = '\\';
			*(*out)++ = escapes[s[0]];
		}
		return 1;
	}
	n = utf8_length(s, left);
	if (n == 0) {
		*out = append_unicode(*out, "\\uff", 0xfd);
		return 1;
	}
	if (n == 3 && s[0] == 0xe2 && s[1] == 0x80 && (s[2] & 0xfe) == 0xa8) { /* line and paragraph separator */
		*out = append_unicode(*out, "\\u20", 0x20 | (s[2] & 0xf));
		return 3;
	}
	memcpy(*out, s, n);
	*out += n;
	return n;
}

static char *escape(char *out, const uint8_t *s, size_t size)
{
	size_t i = 0;

	while (i < size) {
		size_t run = copy_plain(out, s + i, size - i);

		out += run;
		i += run;
		if (i < size)
			i += escape_one(&out, s + i, size - i);
	}
	return out;
}

/* RFC 3339 with nine digits. */
static const char *time_text(int64_t time)
{
	static char text[64];
	static int64_t of = -1;
	time_t seconds = (time_t)(time / 1000000000);
	struct tm utc;

	if (time == of)
		return text;
	gmtime_r(&seconds, &utc);
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
		 utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (long)(time % 1000000000));
	of = time;
	return text;
}

static char *append(char *out, const char *text, size_t size)
{
	memcpy(out, text, size);
	return out + size;
}

static size_t encode_json(char *out, const uint8_t *line, size_t size, bool newline, int stream, int64_t time)
{
	char *at = append(out, "{\"log\":\"", 8);

	at = escape(at, line, size);
	if (newline)
		at = append(at, "\\n", 2);
	at = append(at, stream ? "\",\"stream\":\"stderr\",\"time\":\"" : "\",\"stream\":\"stdout\",\"time\":\"", 28);
	at = append(at, time_text(time), 30);
	at = append(at, "\"}\n", 3);
	return (size_t)(at - out);
}

/* ---- local ---- */

static char *append_varint(char *out, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*out++ = (char)(value | 0x80);
	*out++ = (char)value;
	return out;
}

static char *append_length(char *out, size_t size)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*out++ = (char)(size >> shift);
	return out;
}

/* LogEntry { 1: source, 2: time_nano, 3: line, 4: partial } */
static size_t encode_local(char *out, const uint8_t *line, size_t size, bool newline, int stream, int64_t time)
{
	char *start = out + 4, *at = start;

	at = append(at, stream ? "\x0a\x06stderr" : "\x0a\x06stdout", 8);
	*at++ = 0x10;
	at = append_varint(at, (uint64_t)time);
	if (size) {
		*at++ = 0x1a;
		at = append_varint(at, size);
		at = append(at, (const char *)line, size);
	}
	if (!newline)
		at = append(at, "\x20\x01", 2);
	append_length(out, (size_t)(at - start));
	at = append_length(at, (size_t)(at - start));
	return (size_t)(at - out);
}

size_t encode_entry(uint32_t driver, char *out, const uint8_t *line, size_t size, bool newline, int stream,
		    int64_t time)
{
	if (driver == PN_LOG_LOCAL)
		return encode_local(out, line, size, newline, stream, time);
	return encode_json(out, line, size, newline, stream, time);
}

/* libFuzzer: the parser of csrc/netlink.c. Input: one datagram. */
#include "netlink.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size);
	struct pn_nl_ack ack;
	uint32_t at = 0, before = 0;

	if (size)
		memcpy(exact, data, size);
	while (pn_nl_next_ack(exact, (uint32_t)size, &at, &ack) == 1) {
		if (at <= before || at > size || ack.errnum < 0 || ack.errnum > 4095)
			abort();
		if (!memchr(ack.text, '\0', sizeof(ack.text)))
			abort();
		before = at;
	}
	free(exact);
	return 0;
}

/* Threads of the C core's own, for what a thread does once and ends with: entering a namespace. Private to csrc. */
#ifndef PN_THREAD_H
#define PN_THREAD_H

#include "pynetns.h"

#include <pthread.h>
#include <stdbool.h>

/* Starts run(data) with all signals blocked, so that no handler of the caller's ever runs there. other_cpu: not on the
 * CPU of the caller. Positive errno; pthread_join ends it. */
int pn_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *data, bool other_cpu);
/* The same, waited for: 0, or -errno with reterr filled when no thread could be made. */
int pn_thread_run(void *(*run)(void *), void *data, struct pn_error *reterr);

#endif

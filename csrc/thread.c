/* Starting the core's own threads. Knows nothing of what they do. */
#include "thread.h"

#include <sched.h>
#include <signal.h>

/* What runs there needs some 8 KiB, but the C library takes the static thread-local storage of every library in the
 * process out of it, of which a Python process with numerical libraries has hundreds of KiB: with too little, the
 * thread cannot be made (EINVAL). Address space only, and below it the guard page that pthread puts there. */
#define STACK_SIZE (1024 * 1024)

/* On another CPU than ours: left to itself the scheduler often queues a new thread behind its creator. */
static void prefer_other_cpu(pthread_attr_t *attr)
{
	cpu_set_t cpus;
	int here = sched_getcpu();

	if (here < 0 || sched_getaffinity(0, sizeof(cpus), &cpus) < 0 || CPU_COUNT(&cpus) < 2)
		return;
	CPU_CLR(here, &cpus);
	pthread_attr_setaffinity_np(attr, sizeof(cpus), &cpus);
}

int pn_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *data, bool other_cpu)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	if (other_cpu)
		prefer_other_cpu(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited */
	ret = pthread_create(ret_thread, &attr, run, data);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return ret;
}

int pn_thread_run(void *(*run)(void *), void *data, struct pn_error *reterr)
{
	pthread_t thread;
	int errnum = pn_thread_start(&thread, run, data, false);

	if (errnum)
		return pn_fail(reterr, errnum, PN_STEP_CLONE, "thread");
	pthread_join(thread, NULL);
	return 0;
}

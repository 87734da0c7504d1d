/* The table of attacks. */
#include "attack.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

volatile int stopped;

static void on_term(int sig)
{
	(void)sig;
	stopped = 1;
}

void stop_on_term(void)
{
	struct sigaction action = { .sa_handler = on_term };

	sigaction(SIGTERM, &action, NULL);
}

static int cmd_sleep(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	stop_on_term();
	puts("sleeping");
	fflush(stdout);
	while (!stopped)
		pause();
	return 0;
}

static int cmd_say(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		puts(argv[i]);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "chroot", cmd_chroot },
	{ "connect", cmd_connect },
	{ "descriptors", cmd_descriptors },
	{ "forks", cmd_forks },
	{ "gates", cmd_gates },
	{ "handle", cmd_handle },
	{ "ids", cmd_ids },
	{ "inject", cmd_inject },
	{ "inotify", cmd_inotify },
	{ "integrity", cmd_integrity },
	{ "keys", cmd_keys },
	{ "mounts", cmd_mounts },
	{ "open", cmd_open },
	{ "overwrite", cmd_overwrite },
	{ "release-agent", cmd_release_agent },
	{ "reopen", cmd_reopen },
	{ "say", cmd_say },
	{ "sleep", cmd_sleep },
	{ "state", cmd_state },
	{ "swap", cmd_swap },
	{ "walk", cmd_walk },
	{ "watch", cmd_watch },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	fprintf(stderr, "attack: no such attack\n");
	return 64;
}

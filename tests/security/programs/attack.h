/* The attack program: one static binary, put into hostile images; its first argument names the attack.
 *
 * What an attack finds is printed, one finding a line; the test decides what it means. Nothing is written but what the
 * tests made for it: where a system call could harm the machine, arguments are such that the kernel refuses them after
 * the gate under test has let them through.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include <stddef.h>

int cmd_chroot(int argc, char **argv);
int cmd_connect(int argc, char **argv);
int cmd_descriptors(int argc, char **argv);
int cmd_forks(int argc, char **argv);
int cmd_gates(int argc, char **argv);
int cmd_handle(int argc, char **argv);
int cmd_ids(int argc, char **argv);
int cmd_inject(int argc, char **argv);
int cmd_inotify(int argc, char **argv);
int cmd_integrity(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_mounts(int argc, char **argv);
int cmd_open(int argc, char **argv);
int cmd_overwrite(int argc, char **argv);
int cmd_release_agent(int argc, char **argv);
int cmd_reopen(int argc, char **argv);
int cmd_state(int argc, char **argv);
int cmd_swap(int argc, char **argv);
int cmd_walk(int argc, char **argv);
int cmd_watch(int argc, char **argv);

/* 1 from the moment that SIGTERM has arrived; `stop_on_term` arranges for it. */
extern volatile int stopped;
void stop_on_term(void);

#endif

/* The memory that a shim shares with its keeper, and what a new shim makes of it. shim_store.h tells the idea.
 *
 * Owns allocation (the free lists are private: what no list reaches is free) and the end of interrupted transfers.
 */
#include "shim_store.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LOWEST_KEPT_FD 1024

struct store *store;
bool store_untrimmed;
static uint32_t free_tasks, free_cells, free_chunks; /* heads, linked through `next` (tasks: `holds`) */
static uint32_t resident_chunks;

int store_create(void)
{
	int fd = memfd_create("pynetns-store", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*store)) < 0)
		return -1;
	store = mmap(NULL, sizeof(*store), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (store == MAP_FAILED)
		return -1;
	store->ntasks = store->ncells = store->nchunks = 1; /* index 0 means none */
	return 0;
}

int store_fd_up(int fd)
{
	int up = fd < 0 || fd >= LOWEST_KEPT_FD ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, LOWEST_KEPT_FD);

	if (up < 0)
		return fd;
	close(fd);
	return up;
}

/* ---- allocation ---- */

struct kept_task *store_new_task(void)
{
	uint32_t index = free_tasks;
	struct kept_task *task;

	if (index)
		free_tasks = store->tasks[index].holds;
	else if (store->ntasks < STORE_TASKS)
		index = store->ntasks++;
	else
		return NULL;
	task = &store->tasks[index];
	memset(task, 0, sizeof(*task));
	task->pidfd = task->report = task->input = task->source = task->record = task->record_file = -1;
	task->cgroup = task->log.directory = task->stream[0].fd = task->stream[1].fd = -1;
	return task;
}

static void free_list(uint32_t *head)
{
	while (*head) {
		uint32_t cell = *head;

		*head = store->cells[cell].next;
		store_free_cell(cell);
	}
}

void store_free_task(struct kept_task *task)
{
	KEEP(task->state, KEPT_FREE);
	for (int i = 0; i < 2; i++) {
		struct kept_stream *stream = &task->stream[i];

		free_list(&stream->sinks);
		while (stream->head) {
			uint32_t chunk = stream->head;

			stream->head = store->chunks[chunk].next;
			store_free_chunk(chunk);
		}
	}
	free_list(&task->holds);
	task->holds = free_tasks;
	free_tasks = (uint32_t)(task - store->tasks);
}

uint32_t store_new_cell(void)
{
	uint32_t index = free_cells;

	if (index)
		free_cells = store->cells[index].next;
	else if (store->ncells < STORE_CELLS)
		index = store->ncells++;
	if (index)
		store->cells[index] = (struct kept_cell){ .fd = -1 };
	return index;
}

void store_free_cell(uint32_t cell)
{
	store->cells[cell].fd = -1;
	store->cells[cell].next = free_cells;
	free_cells = cell;
}

uint32_t store_new_chunk(uint64_t start)
{
	uint32_t index = free_chunks;

	if (index)
		free_chunks = store->chunks[index].next;
	else if (store->nchunks < STORE_CHUNKS)
		index = store->nchunks++;
	if (index) {
		struct kept_chunk *chunk = &store->chunks[index];

		chunk->next = chunk->size = chunk->nmarks = 0;
		chunk->start = start;
		resident_chunks++;
	}
	return index;
}

void store_free_chunk(uint32_t chunk)
{
	store->chunks[chunk].next = free_chunks;
	free_chunks = chunk;
	store_untrimmed = true;
}

/* The last one freed is the next one used: it stays, so that a quiet program's lines cost no page fault. */
void store_trim(void)
{
	uint32_t chunk = free_chunks ? store->chunks[free_chunks].next : 0;

	for (; chunk && resident_chunks; chunk = store->chunks[chunk].next, resident_chunks--)
		madvise(store->data[chunk], CHUNK_SIZE, MADV_REMOVE);
	if (free_chunks)
		madvise(store->data[free_chunks] + 4096, CHUNK_SIZE - 4096, MADV_REMOVE);
	resident_chunks = 0;
	store_untrimmed = false;
}

/* ---- recovery ---- */

static uint32_t bytes_in(int pipe)
{
	int bytes = 0;

	return ioctl(pipe, FIONREAD, &bytes) == 0 && bytes > 0 ? (uint32_t)bytes : 0;
}

static void empty_pipe(int pipe)
{
	char scratch[4096];
	uint32_t left = bytes_in(pipe);

	while (left > 0) {
		ssize_t n = read(pipe, scratch, left < sizeof(scratch) ? left : sizeof(scratch));

		if (n <= 0)
			return;
		left -= (uint32_t)n;
	}
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* From the program: what is no longer in the pipe is in the chunk; what still is gets there now. */
static void recover_take(void)
{
	struct kept_transfer *t = &store->taking;
	struct kept_chunk *chunk = &store->chunks[t->busy];
	uint32_t left = bytes_in(store->take[0]);

	if (!t->busy)
		return;
	if (!t->bytes) /* killed between the splice and the note of its result */
		t->bytes = left;
	chunk->size = (uint32_t)t->from + t->bytes - left;
	while (left > 0) {
		ssize_t n = read(store->take[0], store->data[t->busy] + chunk->size, left);

		if (n <= 0)
			break;
		KEEP(chunk->size, chunk->size + (uint32_t)n);
		left -= (uint32_t)n;
	}
	if (chunk->nmarks == 0 || chunk->mark[chunk->nmarks - 1] < chunk->size) {
		uint32_t at = chunk->nmarks < STORE_MARKS ? chunk->nmarks : STORE_MARKS - 1;

		chunk->mark[at] = chunk->size;
		chunk->time[at] = now();
		chunk->nmarks = at + 1;
	}
	KEEP(t->busy, 0);
}

/* To a client: what is no longer in the pipe was delivered. bytes is 0 while the pipe is being filled. */
static void recover_give(void)
{
	struct kept_transfer *t = &store->giving;

	if (t->busy && t->bytes)
		store->cells[t->busy].pos = t->from + t->bytes - bytes_in(store->give[0]);
	KEEP(t->busy, 0);
	empty_pipe(store->give[0]);
}

struct census {
	uint8_t *cells;
	uint8_t *chunks;
	int *fds;
	uint32_t nfds, capacity;
};

static void count_fd(struct census *census, int fd)
{
	if (fd < 0)
		return;
	if (census->nfds == census->capacity) {
		int *grown = realloc(census->fds, (census->capacity * 2 + 64) * sizeof(int));

		if (!grown)
			abort(); /* the keeper tries again */
		census->fds = grown;
		census->capacity = census->capacity * 2 + 64;
	}
	census->fds[census->nfds++] = fd;
}

static void count_cells(struct census *census, uint32_t cell)
{
	for (; cell; cell = store->cells[cell].next) {
		census->cells[cell] = 1;
		count_fd(census, store->cells[cell].fd);
	}
}

static void count_task(struct census *census, const struct kept_task *task)
{
	const int fds[] = {
		task->pidfd,       task->report, task->input,         task->source,       task->record,
		task->record_file, task->cgroup, task->log.directory, task->stream[0].fd, task->stream[1].fd
	};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		count_fd(census, fds[i]);
	count_cells(census, task->holds);
	for (int i = 0; i < 2; i++) {
		count_cells(census, task->stream[i].sinks);
		for (uint32_t c = task->stream[i].head; c; c = store->chunks[c].next)
			census->chunks[c] = 1;
	}
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

/* A predecessor may have been killed between making a descriptor and noting it. */
static void close_unnamed(struct census *census)
{
	unsigned int from = 3;

	qsort(census->fds, census->nfds, sizeof(int), by_number);
	for (uint32_t i = 0; i < census->nfds; i++) {
		unsigned int fd = (unsigned int)census->fds[i];

		if (fd > from)
			syscall(SYS_close_range, from, fd - 1, 0);
		if (fd >= from)
			from = fd + 1;
	}
	syscall(SYS_close_range, from, ~0U, 0);
}

/* A child that was just cloned may still use the table: nothing is closed under its feet. It has one of its own after
 * its first system call, or is dead. */
static void wait_for_child(struct kept_task *task)
{
	struct timespec moment = { .tv_nsec = 1000000 };
	struct pollfd end = { .fd = task->pidfd, .events = POLLIN };

	while (KEPT(task->child_word) == 0 && poll(&end, 1, 0) == 0)
		syscall(SYS_futex, &task->child_word, FUTEX_WAIT, 0, &moment, NULL, 0);
}

static void free_uncounted(const struct census *census)
{
	free_tasks = free_cells = free_chunks = 0;
	for (uint32_t i = store->ntasks - 1; i > 0; i--) {
		if (store->tasks[i].state == KEPT_FREE) {
			store->tasks[i].holds = free_tasks;
			free_tasks = i;
		}
	}
	for (uint32_t i = store->ncells - 1; i > 0; i--)
		if (!census->cells[i])
			store_free_cell(i);
	for (uint32_t i = store->nchunks - 1; i > 0; i--)
		if (!census->chunks[i])
			store_free_chunk(i);
	resident_chunks = store->nchunks;
}

void store_recover(void)
{
	struct census census = { 0 };
	const int ours[] = { store->listener, store->home,    store->kick,    store->devnull,
			     store->take[0],  store->take[1], store->give[0], store->give[1] };

	recover_take();
	recover_give();
	census.cells = calloc(store->ncells, 1);
	census.chunks = calloc(store->nchunks, 1);
	if (!census.cells || !census.chunks)
		abort();
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		count_fd(&census, ours[i]);
	count_cells(&census, store->conns);
	for (uint32_t i = 1; i < store->ntasks; i++) {
		struct kept_task *task = &store->tasks[i];

		if (task->state == KEPT_SPAWNING && task->pid == 0)
			KEEP(task->state, KEPT_FREE); /* never cloned: its client asks again */
		if (task->state == KEPT_SPAWNING)
			wait_for_child(task);
		if (task->state != KEPT_FREE)
			count_task(&census, task);
	}
	free_uncounted(&census);
	close_unnamed(&census);
	free(census.cells);
	free(census.chunks);
	free(census.fds);
}

// SPDX-License-Identifier: Apache-2.0
// Replays a block trace (the array OP of fleetsim/allocators/trace.py, as bytes) on the malloc of this machine, or the one preloaded.
//   malloc_replay TRACE OPS BLOCKS THREADS EVERY > ANSWER
// ANSWER: per op two int64 (address returned, 0: none; usable size), then per sample five int64: ops done, break and pages of the heap
// that are resident (mincore), resident pages of the process that no file backs, address space in pages; both from the start on.
// Its own tables are mapped and populated before the first malloc, so that nothing but malloc moves the figures (and stacks of threads).
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MALLOC, CALLOC, MEMALIGN, REALLOC, FREE, TOUCH, TRIM, SLEEP, EXIT };
#define THREADS_MAX 4096
#define PAGE 4096L

typedef struct {
  int16_t op, thread;
  int32_t block;
  int64_t size, written, argument, time_ns;
} Op;

static Op *ops;
static long count, every, sleeps;
static struct { char *at; int64_t size; } *blocks;
static int64_t (*answers)[2], (*samples)[5];
static unsigned char *residence;
static long nr_samples;
static char *heap;
static int64_t resident0, size0;

static pthread_t threads[THREADS_MAX];
static char started[THREADS_MAX];
static sem_t turn[THREADS_MAX], done;
static long from, to;

static void *table(size_t bytes) {
  void *p = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (p == MAP_FAILED) _exit(3);
  return p;
}

static void statm(int64_t *size, int64_t *anonymous) {  // without stdio: its buffers would lie in the heap
  char text[128];
  long all, resident, shared;
  int file = open("/proc/self/statm", O_RDONLY);
  ssize_t n = read(file, text, sizeof text - 1);
  close(file);
  text[n > 0 ? n : 0] = 0;
  char *p = text;
  all = strtol(p, &p, 10);
  resident = strtol(p, &p, 10);
  shared = strtol(p, &p, 10);
  *size = all;
  *anonymous = resident - shared;
}

static void sample(long n) {
  int64_t *s = samples[nr_samples++];
  int64_t size, anonymous;
  char *end = sbrk(0);
  statm(&size, &anonymous);
  s[0] = n;
  s[1] = end - heap;
  s[2] = 0;
  for (char *p = heap; p < end; p += PAGE << 16) {
    long pages = (end - p + PAGE - 1) / PAGE < 1 << 16 ? (end - p + PAGE - 1) / PAGE : 1 << 16;
    if (mincore(p, pages * PAGE, residence) != 0) _exit(4);
    for (long k = 0; k < pages; k++) s[2] += residence[k] & 1;
  }
  s[3] = anonymous - resident0;
  s[4] = size - size0;
}

static void put(char *p, int64_t begin, int64_t end) {  // a byte into each page of p[begin..end)
  for (int64_t x = begin; x < end; x = (((int64_t)p + x + PAGE) & -PAGE) - (int64_t)p) *(volatile char *)(p + x) = 1;
}

static void perform(long i) {
  Op *o = &ops[i];
  int64_t begin = 0;
  char *p = 0;
  if (o->op == MALLOC) p = malloc(o->size);
  if (o->op == CALLOC) p = calloc(1, o->size);
  if (o->op == MEMALIGN) p = memalign(o->argument, o->size);
  if (o->op == REALLOC) {
    begin = blocks[o->block].size;
    p = realloc(blocks[o->block].at, o->size);
  }
  if (o->op <= REALLOC) {
    blocks[o->block].at = p;
    blocks[o->block].size = o->size;
    put(p, begin, o->written);
    answers[i][0] = (int64_t)p;
    answers[i][1] = malloc_usable_size(p);
  }
  if (o->op == FREE) free(blocks[o->block].at);
  if (o->op == TOUCH) put(blocks[o->block].at, o->argument, o->argument + o->size);
  if (o->op == TRIM) malloc_trim(o->size);
  if (o->op == SLEEP && sleeps) {
    struct timespec t = {o->size / 1000000000, o->size % 1000000000};
    nanosleep(&t, 0);
  }
}

static void look(long i) {
  if ((i + 1) % every == 0 || i + 1 == count) sample(i + 1);
}

static void perform_all(void) {
  for (long i = from; i < to; i++) {
    perform(i);
    if (ops[i].op != EXIT) look(i);  // of an exit once the thread is gone
  }
}

static void *worker(void *self) {
  for (;;) {
    sem_wait(&turn[(long)self]);
    perform_all();
    int leaving = ops[to - 1].op == EXIT;
    if (leaving) return 0;
    sem_post(&done);
  }
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  count = atol(argv[2]);
  long nr_blocks = atol(argv[3]), nr_threads = atol(argv[4]);
  every = atol(argv[5]);
  sleeps = argc > 6;
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  ops = table((count + 1) * sizeof(Op));
  answers = table((count + 1) * sizeof *answers);
  samples = table((count / every + 2) * sizeof *samples);
  blocks = table((nr_blocks + 1) * sizeof *blocks);
  residence = table(1 << 16);
  memset(threads, 0, sizeof threads);
  memset(started, 0, sizeof started);
  for (long t = 0; t < nr_threads; t++) sem_init(&turn[t], 0, 0);
  sem_init(&done, 0, 0);
  int file = open(argv[1], O_RDONLY);
  if (read(file, ops, count * sizeof(Op)) != (ssize_t)(count * sizeof(Op))) return 3;
  close(file);
  statm(&size0, &resident0);
  statm(&size0, &resident0);
  heap = sbrk(0);
  for (from = 0; from < count; from = to) {
    int t = ops[from].thread;
    for (to = from + 1; to < count && ops[to].thread == t && ops[to - 1].op != EXIT; to++) {
    }
    if (t == 0) {
      perform_all();
    } else {
      if (!started[t]) {
        started[t] = 1;
        if (pthread_create(&threads[t], 0, worker, (void *)(long)t) != 0) return 3;
      }
      sem_post(&turn[t]);
      if (ops[to - 1].op == EXIT) {
        pthread_join(threads[t], 0);
        look(to - 1);
      } else {
        sem_wait(&done);
      }
    }
  }
  int64_t base = (int64_t)heap;
  if (write(1, &base, 8) != 8) return 3;
  const char *parts[2] = {(char *)answers, (char *)samples};
  size_t bytes[2] = {count * sizeof *answers, nr_samples * sizeof *samples};
  for (int k = 0; k < 2; k++)
    for (size_t n = 0; n < bytes[k];) {
      ssize_t wrote = write(1, parts[k] + n, bytes[k] - n);
      if (wrote <= 0) return 3;
      n += wrote;
    }
  return 0;
}

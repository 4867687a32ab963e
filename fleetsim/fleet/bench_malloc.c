// SPDX-License-Identifier: Apache-2.0
// The calls of a block trace (the array OP of fleetsim/allocators/trace.py) on the malloc of this machine, by one thread.
//   bench_malloc TRACE OPS BLOCKS     prints nanoseconds of processor time for all of them
// The program writes the first and the last byte of each block, as little as one can do with it.
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
  int16_t op, thread;
  int32_t block;
  int64_t size, written, argument, time_ns;
} Op;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  long count = atol(argv[2]);
  Op *ops = malloc((count + 1) * sizeof(Op));
  char **blocks = calloc(atol(argv[3]) + 1, sizeof *blocks);
  FILE *file = fopen(argv[1], "rb");
  if (!ops || !blocks || !file || fread(ops, sizeof(Op), count, file) != (size_t)count) return 3;
  int64_t began = now();
  for (long i = 0; i < count; i++) {
    Op *o = &ops[i];
    char *p = o->block >= 0 ? blocks[o->block] : 0;
    switch (o->op) {
      case 0: p = malloc(o->size); break;
      case 1: p = calloc(1, o->size); break;
      case 2: p = memalign(o->argument, o->size); break;
      case 3: p = realloc(p, o->size); break;
      case 4: free(p); p = 0; break;
      case 6: malloc_trim(o->size); break;
    }
    if (o->op <= 3 && o->size > 0) {
      if (!p) return 3;
      *(volatile char *)p = 1;
      *(volatile char *)(p + o->size - 1) = 1;
    }
    if (o->block >= 0) blocks[o->block] = p;
  }
  printf("%lld\n", (long long)(now() - began));
  return 0;
}

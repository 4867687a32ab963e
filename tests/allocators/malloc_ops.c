// SPDX-License-Identifier: Apache-2.0
// The ops malloc, mfree and mtrim on the C library of this machine: what its process holds after each, one line per op.
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POINTERS 8000000ULL

static uint64_t seed = 88172645463325252ULL;

static uint64_t next_random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static void tell(void) {  // without stdio: its buffers would lie in the heap that is looked at
  char text[256];
  long size, resident, shared;
  int file = open("/proc/self/statm", O_RDONLY);
  int n = read(file, text, sizeof text - 1);
  close(file);
  text[n > 0 ? n : 0] = 0;
  sscanf(text, "%ld %ld %ld", &size, &resident, &shared);
  n = snprintf(text, sizeof text, "%ld %ld\n", size, resident - shared);
  if (write(1, text, n) != n) _exit(1);
}

int main(int argc, char **argv) {
  static void **pointers;
  static uint64_t count;
  seed ^= 0x9E3779B97F4A7C15ULL;
  pointers = mmap(0, POINTERS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  tell();
  for (int i = 1; i < argc; i++) {
    uint64_t n, every = 0, low = 0, high = count;
    int least, most;
    double part;
    if (!strncmp(argv[i], "malloc", 6)) {
      if (sscanf(argv[i], "malloc %lu %d-%d", &n, &least, &most) < 3) most = least;
      for (uint64_t k = 0; k < n && count < POINTERS; k++) {
        int bytes = least + (most > least ? next_random() % (most - least + 1) : 0);
        char *p = malloc(bytes);
        for (int x = 0; x < bytes; x += 2048) p[x] = 1;
        p[bytes - 1] = 1;
        pointers[count++] = p;
      }
    } else if (!strncmp(argv[i], "mfree", 5)) {
      if (sscanf(argv[i], "mfree keep_every:%lu", &every) == 1) {
      } else if (sscanf(argv[i], "mfree first:%lf", &part) == 1) {
        high = count * part;
      } else if (sscanf(argv[i], "mfree last:%lf", &part) == 1) {
        low = count * (1 - part);
      }
      for (uint64_t k = low; k < high; k++)
        if (pointers[k] && !(every && k % every == 0)) {
          free(pointers[k]);
          pointers[k] = 0;
        }
    } else {
      malloc_trim(0);
    }
    tell();
  }
  return 0;
}

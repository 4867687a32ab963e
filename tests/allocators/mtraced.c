// SPDX-License-Identifier: Apache-2.0
// A program that traces its own malloc with mtrace(): 200 blocks, some made larger, some freed, one not.
#include <mcheck.h>
#include <stdlib.h>

int main(void) {
  static void *p[200];
  mtrace();
  for (int k = 0; k < 200; k++) p[k] = malloc(100 + 10 * k);
  for (int k = 0; k < 200; k += 5) p[k] = realloc(p[k], 5000 + k);
  for (int k = 0; k < 199; k++) free(p[k]);
  muntrace();
  return 0;
}

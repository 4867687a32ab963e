// SPDX-License-Identifier: Apache-2.0
// Replays a block trace with whatever malloc is loaded, and writes what the process and the allocator then say of themselves.
//
//   replay_trace OPS BLOCKS EVERY SAMPLES ADDRESSES
//
// OPS is the trace's array as in fleetsim/allocators/trace.py. SAMPLES gets a row of 10 int64 at the start, each EVERY ops
// (0: before and after each sleep) and at the end: ops done, anonymous resident bytes, break, then six numbers of jemalloc's mallctl or of tcmalloc's MallocExtension
// (0 with glibc), and 0; seven numbers of Google's tcmalloc, whose sampling is switched off. ADDRESSES gets two int64 per op: address and malloc_usable_size. The program itself calls no malloc
// besides the trace's: its tables are mapped, and threads hand over one op after the other.
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MALLOC, CALLOC, MEMALIGN, REALLOC, FREE, TOUCH, TRIM, SLEEP, EXIT };
enum { THREADS = 4096, ROW = 10 };

struct op {
    int16_t op, thread;
    int32_t block;
    int64_t size, written, argument, time_ns;
} __attribute__((packed));

static struct op *ops;
static int64_t (*out)[2];
static void **blocks;
static size_t *sizes;
static long count, every, next_op;
static int samples_fd, statm_fd;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn[THREADS];
static pthread_t handles[THREADS];
static char started[THREADS];
static int current, finished, exiting;
extern int mallctl(const char *, void *, size_t *, void *, size_t) __attribute__((weak)); // a dlsym() that fails calls malloc
extern int MallocExtension_GetNumericProperty(const char *, size_t *) __attribute__((weak));
extern _Bool MallocExtension_Internal_GetNumericProperty(const char *, size_t, size_t *) __attribute__((weak)); // Google's
extern void MallocExtension_Internal_SetProfileSamplingInterval(int64_t) __attribute__((weak));
extern size_t MallocExtension_Internal_ReleaseMemoryToSystem(size_t) __attribute__((weak));
static const char *je_names[6] = {"stats.allocated", "stats.active", "stats.metadata", "stats.resident", "stats.mapped", "stats.retained"};
static const char *tc_names[6] = {"generic.current_allocated_bytes", "generic.heap_size", "tcmalloc.pageheap_free_bytes",
                                  "tcmalloc.pageheap_unmapped_bytes", "tcmalloc.current_total_thread_cache_bytes",
                                  "tcmalloc.central_cache_free_bytes"};
static const char *google_names[7] = {"generic.current_allocated_bytes", "generic.heap_size", "tcmalloc.pageheap_free_bytes",
                                      "tcmalloc.pageheap_unmapped_bytes", "tcmalloc.cpu_free", "tcmalloc.central_cache_free",
                                      "tcmalloc.transfer_cache_free"};
static int cpus;             // REPLAY_CPUS: thread i runs on CPU i modulo these; 0: anywhere
static long release_on_trim; // REPLAY_RELEASE: bytes that a trim op asks Google's tcmalloc to release, instead of malloc_trim()'s none

static void pin(int thread) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(thread % cpus, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void die(const char *what) {
    perror(what);
    _exit(3);
}

static void sample(void) {
    int64_t row[ROW] = {next_op};
    char text[256];
    long total, resident, shared;
    ssize_t n = pread(statm_fd, text, sizeof text - 1, 0);
    if (n <= 0) die("statm");
    text[n] = 0;
    char *p = text;
    total = strtol(p, &p, 10), resident = strtol(p, &p, 10), shared = strtol(p, &p, 10);
    (void)total;
    row[1] = (resident - shared) * 4096;
    row[2] = (int64_t)(intptr_t)sbrk(0);
    if (mallctl) {
        uint64_t epoch = 1;
        size_t length = sizeof epoch;
        mallctl("epoch", &epoch, &length, &epoch, length);
        for (int i = 0; i < 6; i++) {
            size_t value = 0, size = sizeof value;
            if (mallctl(je_names[i], &value, &size, NULL, 0)) die(je_names[i]);
            row[3 + i] = (int64_t)value;
        }
    } else if (MallocExtension_Internal_GetNumericProperty) {
        for (int i = 0; i < 7; i++) {
            size_t value = 0;
            MallocExtension_Internal_GetNumericProperty(google_names[i], strlen(google_names[i]), &value);
            row[3 + i] = (int64_t)value;
        }
    } else if (MallocExtension_GetNumericProperty) {
        for (int i = 0; i < 6; i++) {
            size_t value = 0;
            MallocExtension_GetNumericProperty(tc_names[i], &value);
            row[3 + i] = (int64_t)value;
        }
    }
    if (write(samples_fd, row, sizeof row) != sizeof row) die("samples");
}

static void one(struct op *o) {
    void *p = NULL;
    switch (o->op) {
    case MALLOC: p = malloc(o->size); break;
    case CALLOC: p = calloc(1, o->size); break;
    case MEMALIGN: p = memalign(o->argument, o->size); break;
    case REALLOC: p = realloc(blocks[o->block], o->size); break;
    case FREE: free(blocks[o->block]); blocks[o->block] = NULL; return;
    case TOUCH: memset((char *)blocks[o->block] + o->argument, 1, o->size); return;
    case TRIM:
        if (release_on_trim)
            MallocExtension_Internal_ReleaseMemoryToSystem(release_on_trim);
        else
            malloc_trim(o->size);
        return;
    case SLEEP: {
        struct timespec t = {o->size / 1000000000L, o->size % 1000000000L};
        nanosleep(&t, NULL);
        return;
    }
    default: return;
    }
    size_t from = o->op == REALLOC ? sizes[o->block] : 0;
    if ((size_t)o->written > from) memset((char *)p + from, 1, o->written - from);
    blocks[o->block] = p;
    sizes[o->block] = o->size;
    if (out) {
        out[next_op][0] = (int64_t)(intptr_t)p;
        out[next_op][1] = (int64_t)malloc_usable_size(p);
    }
}

static void *work(void *argument);

static void pass_to(int t) { // the lock is held
    current = t;
    if (t > 0 && !started[t]) {
        started[t] = 1;
        if (pthread_create(&handles[t], NULL, work, (void *)(intptr_t)t)) die("pthread_create");
    }
    pthread_cond_signal(&turn[t]);
}

static void *work(void *argument) {
    int self = (int)(intptr_t)argument;
    if (cpus) pin(self);
    pthread_mutex_lock(&lock);
    while (1) {
        while (current != self && !finished) pthread_cond_wait(&turn[self], &lock);
        if (finished) break;
        if (exiting && self == 0) { // its own end must be over before the next op
            pthread_join(handles[exiting], NULL);
            exiting = 0;
        }
        if (next_op == count) {
            finished = 1;
            sample();
            for (int t = 0; t < THREADS; t++) pthread_cond_signal(&turn[t]);
            break;
        }
        struct op *o = &ops[next_op];
        if (o->thread != self) {
            pass_to(o->thread);
            continue;
        }
        if (!every && o->op == SLEEP) sample();
        one(o);
        next_op++;
        if (!every && o->op == SLEEP) sample();
        if (every && next_op % every == 0) sample();
        if (o->op == EXIT && self > 0) {
            started[self] = 0;
            exiting = self;
            pass_to(0);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *mapped(const char *path, size_t bytes, int flags) {
    int fd = open(path, flags, 0600);
    if (fd < 0 || (flags != O_RDONLY && ftruncate(fd, bytes))) die(path);
    void *p = mmap(NULL, bytes, flags == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) die(path);
    close(fd);
    return p;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    if (getenv("REPLAY_CPUS")) cpus = atoi(getenv("REPLAY_CPUS"));
    if (getenv("REPLAY_RELEASE")) release_on_trim = atol(getenv("REPLAY_RELEASE"));
    if (MallocExtension_Internal_SetProfileSamplingInterval) MallocExtension_Internal_SetProfileSamplingInterval(0);
    struct stat st;
    if (stat(argv[1], &st)) die(argv[1]);
    count = st.st_size / (long)sizeof(struct op);
    ops = mapped(argv[1], st.st_size, O_RDONLY);
    long numbers = atol(argv[2]);
    every = atol(argv[3]);
    samples_fd = open(argv[4], O_CREAT | O_TRUNC | O_WRONLY, 0600);
    statm_fd = open("/proc/self/statm", O_RDONLY);
    if (samples_fd < 0 || statm_fd < 0) die(argv[4]);
    if (strcmp(argv[5], "-")) out = mapped(argv[5], count * sizeof *out, O_CREAT | O_TRUNC | O_RDWR);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    blocks = mmap(NULL, numbers * sizeof *blocks, PROT_READ | PROT_WRITE, flags, -1, 0);
    sizes = mmap(NULL, numbers * sizeof *sizes, PROT_READ | PROT_WRITE, flags, -1, 0);
    for (int t = 0; t < THREADS; t++) pthread_cond_init(&turn[t], NULL);
    sample();
    work((void *)0);
    for (int t = 1; t < THREADS; t++)
        if (started[t]) pthread_join(handles[t], NULL);
    return 0;
}

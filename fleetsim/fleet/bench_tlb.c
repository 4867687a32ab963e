// SPDX-License-Identifier: Apache-2.0
// The TLB simulator as plain C, for `fleetsim bench tlb`: 4 KiB pages, data only, one task; two levels and three paging-structure
// caches, true LRU per set kept as order in an array; sets of MANY ways or more are, as in the simulator, a ring with a hash beside it.
// Prints hits of both levels, walks, loads, and the least processor time of three runs.
//
//     bench_tlb ADDRESSES COUNT MANY  SETS WAYS (level 1)  SETS WAYS (level 2)  SETS WAYS (PDE)  SETS WAYS (PDPTE)  SETS WAYS (PML4E)
//
// ADDRESSES is a file of COUNT int64. No ways: there is no such cache. Only one set of MANY ways or more.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { L1, L2, PDE, PDPTE, PML4E, PARTS };
static const int SHIFT[PARTS] = {12, 12, 21, 30, 39};

struct node {
    int64_t number;
    struct node *older, *newer, *next, **chain;
};

struct cache {
    int64_t *entries;
    int64_t sets, ways;
    struct node *nodes, *newest, **chains; // of many ways, else none
    uint64_t chain_mask;
};

static int look_up_hashed(struct cache *cache, int64_t number) {
    struct node **chain = &cache->chains[(uint64_t)(uint32_t)number * 2654435769u >> 16 & cache->chain_mask];
    struct node *node = *chain, *newest = cache->newest;
    while (node && node->number != number)
        node = node->next;
    int known = node != NULL;
    if (known) {
        if (node == newest)
            return 1;
        node->newer->older = node->older;
        node->older->newer = node->newer;
        node->newer = newest->newer;
        node->older = newest;
        newest->newer->older = node;
        newest->newer = node;
    } else {
        node = newest->newer;
        if (node->number != -1) {
            struct node **at = node->chain;
            while (*at != node)
                at = &(*at)->next;
            *at = node->next;
        }
        node->number = number;
        node->next = *chain;
        node->chain = chain;
        *chain = node;
    }
    cache->newest = node;
    return known;
}

static void make_many(struct cache *cache) {
    int64_t chains = 16;
    while (chains < 16 * cache->ways)
        chains *= 2;
    cache->chain_mask = chains - 1;
    cache->chains = calloc(chains, sizeof(struct node *));
    cache->nodes = calloc(cache->ways, sizeof(struct node));
    for (int64_t way = 0; way < cache->ways; way++) {
        struct node *node = &cache->nodes[way];
        node->number = -1;
        node->older = &cache->nodes[(way + 1) % cache->ways];
        node->newer = &cache->nodes[(way + cache->ways - 1) % cache->ways];
    }
    cache->newest = cache->nodes;
}

static int look_up(struct cache *cache, int64_t number) {
    if (cache->chains)
        return look_up_hashed(cache, number);
    int64_t *set = cache->entries + (number & (cache->sets - 1)) * cache->ways;
    int64_t carried = number;
    for (int64_t way = 0; way < cache->ways; way++) {
        int64_t found = set[way];
        set[way] = carried;
        if (found == number)
            return 1;
        if (found == -1)
            return 0;
        carried = found;
    }
    return 0;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void run(struct cache *caches, const int64_t *addresses, long count, long *result) {
    int64_t last = -1;
    for (long i = 0; i < count; i++) {
        int64_t address = addresses[i];
        if (address >> 12 == last) {
            result[0]++;
            continue;
        }
        last = address >> 12;
        if (look_up(&caches[L1], last)) {
            result[0]++;
        } else if (look_up(&caches[L2], last)) {
            result[1]++;
        } else {
            result[2]++;
            result[3]++;
            for (int part = PDE; part < PARTS && !look_up(&caches[part], address >> SHIFT[part]); part++)
                result[3]++;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4 + 2 * PARTS)
        return 2;
    long count = atol(argv[2]);
    int64_t *addresses = malloc(sizeof(int64_t) * count);
    FILE *file = fopen(argv[1], "rb");
    if (!addresses || !file || fread(addresses, sizeof(int64_t), count, file) != (size_t)count)
        return 3;
    double least = 1e9;
    long result[4];
    for (int round = 0; round < 3; round++) {
        struct cache caches[PARTS] = {0};
        for (int part = 0; part < PARTS; part++) {
            caches[part].sets = atol(argv[4 + 2 * part]);
            caches[part].ways = atol(argv[5 + 2 * part]);
            int64_t size = caches[part].sets * caches[part].ways;
            caches[part].entries = malloc(sizeof(int64_t) * (size + 1));
            for (int64_t i = 0; i < size; i++)
                caches[part].entries[i] = -1;
            if (caches[part].sets == 1 && caches[part].ways >= atol(argv[3]))
                make_many(&caches[part]);
        }
        for (int i = 0; i < 4; i++)
            result[i] = 0;
        double began = seconds();
        run(caches, addresses, count, result);
        double took = seconds() - began;
        if (took < least)
            least = took;
        for (int part = 0; part < PARTS; part++)
            free(caches[part].entries), free(caches[part].nodes), free(caches[part].chains);
    }
    printf("%ld %ld %ld %ld %.9f\n", result[0], result[1], result[2], result[3], least);
    return 0;
}

# SPDX-License-Identifier: Apache-2.0
"""malloc of glibc 2.36 in formulas: sizes of chunks, and what is free when blocks of a kind are.

Sizes are bytes. Blocks of a loop are taken as uniform between two sizes; expected values, no luck.
Source: malloc/malloc.c of glibc 2.36 (64-bit); kernel-laws §15.1.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import int_sqrt

PAGE = 4096
ALIGNMENT, OVERHEAD, MINSIZE = 16, 8, 32
CHUNK_HEADER = 48  # sizeof(struct malloc_chunk): what a free chunk needs at its begin
TCACHE_MAX, TCACHE_COUNT = 1040, 7  # largest chunk a tcache takes, and how many of a size
FASTBIN_MAX = 128  # largest chunk of a fastbin (M_MXFAST 128 B asked for)
MMAP_THRESHOLD, MMAP_THRESHOLD_MAX = 128 << 10, 32 << 20
TRIM_THRESHOLD, TOP_PAD = 128 << 10, 128 << 10
LARGE = 1024  # from this chunk on a request merges the fastbins first
CONSOLIDATION = 64 << 10  # a free that makes so large a chunk empties the fastbins
N_MMAPS_MAX = 65_536
NORMAL = (-1907, -1350, -1034, -795, -593, -412, -243, -80, 80, 243, 412, 593, 795, 1034, 1350, 1907)
"""Middles of the sixteenths of a normal distribution, 1024ths of its deviation."""


@law
def chunk_size(request):
    """Bytes of the chunk that serves a request.

        max(32, request + 8 rounded up to 16)

    Source: malloc/malloc.c request2size; kernel-laws §15.1.
    """
    return max(MINSIZE, (request + OVERHEAD + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


@law
def mapped_pages(chunk):
    """Pages of a chunk of `chunk` bytes that has a mapping of its own.

    Source: malloc/malloc.c sysmalloc_mmap (one size word on top, rounded up to pages); T-15.1.
    """
    return (chunk + OVERHEAD + PAGE - 1) // PAGE


@law
def smallest_request(chunk):
    """Bytes of the smallest request that a chunk of `chunk` bytes serves.

    Source: malloc/malloc.c request2size.
    """
    return 0 if chunk <= MINSIZE else chunk - OVERHEAD - ALIGNMENT + 1


@law
def mean_chunk_q(least, most):
    """Mean chunk of requests uniform in least..most, 1024ths of a byte.

        Σ chunk_size(s) / (most − least + 1), in closed form

    Source: malloc/malloc.c request2size.
    """
    total = 0
    for k in range(2):
        t = most + OVERHEAD if k == 0 else least + OVERHEAD - 1
        q, r = t // ALIGNMENT, t % ALIGNMENT
        part = ALIGNMENT * (ALIGNMENT * (q * (q + 1) // 2) + r * (q + 1))
        total += part if k == 0 else -part
    total += ALIGNMENT * max(0, min(most, 8) - least + 1)  # below 9 bytes the minimum of 32 counts
    return total * 1024 // (most - least + 1)


@law
def share_up_to(least, most, limit):
    """Share of requests uniform in least..most whose chunk is at most `limit` bytes, 1024ths.

    Source: malloc/malloc.c request2size.
    """
    largest = limit // ALIGNMENT * ALIGNMENT - OVERHEAD  # the largest request that such a chunk serves
    if limit < MINSIZE or largest < least:
        return 0
    return 1024 * (min(most, largest) - least + 1) // (most - least + 1)


@law
def deviation(blocks, least, most):
    """Standard deviation of the bytes of `blocks` adjacent chunks, for requests uniform in least..most.

    Source: variance of a sum of uniforms, blocks · (most − least)² / 12.
    """
    return int_sqrt(blocks * (most - least) * (most - least) // 12)


@law
def gap_sample(k, mean, blocks, least, most):
    """One of sixteen equally likely sizes of a gap of `blocks` freed chunks, `mean` bytes on average.

    Source: uniform for one block, normal for more (central limit).
    """
    if blocks <= 1:
        return mean + (most - least) * (2 * k - 15) // 32
    return mean + deviation(blocks, least, most) * NORMAL[k] // 1024


@law
def whole_pages_q(mean, blocks, least, most):
    """Pages that malloc_trim can give back of one free chunk, on average, 1024ths.

        E max(0, (size − 48) / 4096 − 1)        a chunk begins anywhere in a page; its first 48 bytes stay

    mean, blocks  int64  size of the free chunk and of how many freed blocks it is made
    least, most   int64  sizes those were asked with

    Source: malloc/malloc.c mtrim; kernel-laws §15.1.
    """
    total = 0
    for k in range(16):
        total += max(0, gap_sample(k, mean, blocks, least, most) - CHUNK_HEADER - PAGE)
    return total * 1024 // (16 * PAGE)


@law
def waste_per_gap(gap, blocks, freed_least, freed_most, least, most):
    """Bytes of a free chunk that are left over when requests of least..most have used it as far as they fit.

        one size:  E (gap mod chunk)
        a range:   half the smallest chunk, times (1 − mean chunk / gap): with many sizes about, a gap of one chunk is
                   met by a request that just fits, and of a larger one the last piece by a small request

    Source: malloc/malloc.c _int_malloc (best fit, remainders go back to the bins); the half is measured with glibc 2.36: gaps of two
    to five freed blocks filled again by the same or other sizes keep 0.2 to 0.4 of the smallest chunk.
    """
    chunk = chunk_size(least)
    if chunk == chunk_size(most):
        total = 0
        for k in range(16):
            total += max(0, gap_sample(k, gap, blocks, freed_least, freed_most)) % chunk
        return total // 16
    mean = mean_chunk_q(least, most) >> 10
    return chunk // 2 * max(0, gap - mean) // max(1, gap)


@law
def coalesces(share_fast, gap):
    """True if freeing a series of blocks ends with them merged (and the top given back), not waiting in fastbins.

        (1 − share)^r ≥ 1/2,   r = chunks that make 64 KiB of merged free memory

    Once a merged chunk has 64 KiB each free empties the fastbins and merges all; a fastbin chunk (of the share) breaks the
    run, and the next such run needs r others in a row: so the fraction of the time that all is merged is (1 − share)^r.
    share_fast  int64  share of blocks whose chunk goes to a fastbin, 1024ths
    gap         int64  bytes that one more free merges: the block and the free chunk beside it

    Source: malloc/malloc.c _int_free (FASTBIN_CONSOLIDATION_THRESHOLD); the fraction is the renewal of runs.
    """
    if share_fast <= 0:
        return True
    if share_fast >= 1024:
        return False
    runs = (CONSOLIDATION + gap - 1) // max(1, gap)
    chance = 1 << 20
    for _ in range(min(runs, 1024)):
        chance = chance * (1024 - share_fast) >> 10
    return chance >= 1 << 19


@law
def multiples(first, span, every):
    """How many of the numbers first .. first+span−1 are divisible by `every`.

    Source: arithmetic.
    """
    return (first + span - 1) // every - (first - 1) // every


@law
def common_multiple(a, b):
    """Least common multiple, at most 2^30 (more than any heap has blocks).

    Source: Euclid.
    """
    x, y = a, b
    while y > 0:
        x, y = y, x % y
    return min(1 << 30, a // x * b)

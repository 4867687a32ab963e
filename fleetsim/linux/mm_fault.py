# SPDX-License-Identifier: Apache-2.0
"""Access to mapped memory: which law an access belongs to, by the kind of its area (mm/memory.c handle_mm_fault).

Leaves out: protection faults, SIGBUS beyond the end of a file on tmpfs.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import ACCESS
from fleetsim.law import Q, law
from fleetsim.linux.anon_vma import layered, push_layer
from fleetsim.linux.exit import begin_exit
from fleetsim.linux.filemap import access_mapped, access_mapped_ordered
from fleetsim.linux.hugetlb import hugetlb_fault
from fleetsim.linux.memory import access_ordered, access_uniform, read_zero, touch_new
from fleetsim.linux.mkwrite import write_mapped, write_mapped_ordered
from fleetsim.linux.mm_types import AREA_FILE, AREA_HUGETLB, AREA_SHMEM, KSWAPD_SLEEP, ORDERED, UNIFORM
from fleetsim.linux.page_io import do_sigbus
from fleetsim.linux.rmap import find_mapping
from fleetsim.linux.shmem import shmem_fault, touch_shared
from fleetsim.linux.translation import account_walks
from fleetsim.linux.wp_page import access_forked_ordered, access_forked_uniform

SIGSEGV = 128 + 11  # exit code of a task that touched what is not mapped


@law
def mapped_part(row, a, at):
    """Group of an area that position `at` is in, the position inside it, and how many of the group's pages the area reaches.

    returns  (int64 group, int64 position, int64 pages)

    Source: fleetsim's own representation (hot and cold part of an area are two groups).
    """
    area = row["areas"][a]
    g = area["group"]
    hot = row["groups"][g]["pages"]
    reach = area["touched"] if area["touched"] > 0 else area["pages"]
    if area["groups"] == 2 and at >= hot:
        return g + 1, at - hot, max(0, reach - hot)
    return g, at, min(hot, reach)


@law
def touch(row, th, a, pages):
    """Write to the next `pages` never-touched pages of an area, in order.

    returns  int64  pages done; −1 once every page was touched

    Source: mm/memory.c.
    """
    area = row["areas"][a]
    row["in_lru_fault"] = 1
    if area["touched"] >= area["pages"]:
        return -1
    if area["kind"] == AREA_HUGETLB:
        return hugetlb_fault(row, th, a, min(pages, area["pages"] - area["touched"]))
    if area["kind"] == AREA_SHMEM:
        g, at, _ = mapped_part(row, a, area["touched"])
        group = row["groups"][g]
        n = min(pages, min(area["pages"] - area["touched"], group["pages"] - at))
        if group["kind"] == UNIFORM:
            n = touch_shared(row, th, a, g, n)
        else:
            n = shmem_fault(row, th, a, g, at, n, group["pages"], 1)
        area["touched"] += max(0, n)
        return n
    if row["groups"][area["group"]]["task"] < 0 and not push_layer(row, a):
        return -1
    return touch_new(row, th, a, min(pages, area["pages"] - area["touched"]))


@law
def access_part(row, th, a, g, accesses, write):
    """Random accesses to one uniform group of an area.

    Source: mm/memory.c handle_mm_fault, mm/filemap.c filemap_fault.
    """
    area = row["areas"][a]
    if accesses == 0:
        return 0
    if area["kind"] == AREA_FILE:
        if write and area["accounted"] == 0:
            return write_mapped(row, th, find_mapping(row, a, g), accesses)
        return access_mapped(row, th, find_mapping(row, a, g), accesses)
    if area["kind"] == AREA_SHMEM:
        hot = row["groups"][area["group"]]["pages"]
        _, _, reach = mapped_part(row, a, 0 if g == area["group"] else hot)
        return shmem_fault(row, th, a, g, 0, accesses, reach, write)
    if layered(row["groups"][g]):
        return access_forked_uniform(row, th, a, g - area["group"], accesses, write)
    first = 0 if g == area["group"] else row["groups"][area["group"]]["pages"]
    span = min(row["groups"][g]["pages"], area["touched"] - first)
    if span <= 0:  # nothing of this part was touched yet
        return accesses
    return access_uniform(row, th, g, accesses, span, write)


@law
def pages_before_end(row, a, at, pages):
    """How many of `pages` pages of a mapped file that are accessed next lie before its end: it may have been truncated since it was mapped.

    Source: mm/filemap.c filemap_fault (max_idx). Of random accesses to a file that is shorter now, one soon lies beyond it.
    """
    size = row["files"][row["areas"][a]["file"]]["size"]
    if row["groups"][row["areas"][a]["group"]]["kind"] == UNIFORM:
        return pages if size >= row["areas"][a]["pages"] else 0
    return min(pages, max(0, size - at))


@law
def access(row, th, a, at, pages, hot_q, write):
    """Access `pages` pages of an area: from position `at` on if it is swept, anywhere if it is used at random.

    hot_q    int64  share of random accesses that go to the hot part, 2^20ths
    write    int64  1: the pages are written to, 0: only read
    returns  int64  pages done; −1: it was unmapped there, or lies beyond the end of the file, and the task dies of it

    Source: mm/memory.c handle_mm_fault; what the processor does of its own before any fault: translation.py.
    """
    done = access_pages(row, th, a, at, pages, hot_q, write)
    account_walks(row, th, a, done, hot_q)
    return done


@law
def access_pages(row, th, a, at, pages, hot_q, write):
    """`access`, but for its translation.

    Source: mm/memory.c handle_mm_fault, mm/filemap.c filemap_fault; arch/x86/mm/fault.c bad_area, do_sigbus.
    """
    area = row["areas"][a]
    row["in_lru_fault"] = 1
    g = area["group"]
    if area["kind"] == AREA_HUGETLB:  # always resident
        row["spent_ns"] += pages * row["cost"][ACCESS]
        return pages
    group = row["groups"][g]
    if area["cut"] > 0 and (group["kind"] == UNIFORM or at < area["cut"]):
        begin_exit(row, area["task"], SIGSEGV)
        return -1
    if area["kind"] == AREA_FILE:
        pages = pages_before_end(row, a, at, pages)
        if pages == 0:
            do_sigbus(row, area["task"])
            return -1
    if group["kind"] == ORDERED:
        if area["kind"] == AREA_FILE:
            if write and area["accounted"] == 0:
                return write_mapped_ordered(row, th, find_mapping(row, a, g), at, pages)
            return access_mapped_ordered(row, th, find_mapping(row, a, g), at, pages)
        if area["kind"] == AREA_SHMEM:
            return shmem_fault(row, th, a, g, at, pages, group["pages"], write)
        if layered(group):
            return access_forked_ordered(row, th, a, at, pages, write)
        return access_ordered(row, th, g, at, pages, area["touched"], write)
    hot = pages
    if area["groups"] == 2:
        exact = pages * hot_q + group["carry_split"]
        hot = min(pages, exact >> Q)
        group["carry_split"] = exact - (hot << Q)
    done = access_part(row, th, a, g, hot, write)
    g = area["group"]
    if hot == pages or (hot > 0 and done == 0):
        return done
    rest = pages - hot if hot == 0 else (pages - hot) * done // hot  # the cold part goes as far as the hot one did
    return done + access_part(row, th, a, g + 1, rest, write)


@law
def at_rest(row, g, groups):
    """True if every page of some groups is resident and mapped and nobody reclaims: accesses to them change nothing but accessed bits.

    Source: fleetsim's own representation (design §3.2: quiet groups are not visited).
    """
    if row["kswapd"][0]["state"] != KSWAPD_SLEEP or row["kswapd"][1]["state"] != KSWAPD_SLEEP or row["swap_cache"] + row["lazy"] > 0:
        return False
    missing = 0
    for k in range(groups):
        group = row["groups"][g + k]
        missing += group["pages"] - group["resident"]
        if group["task"] < 0:  # what is not mapped yet faults
            missing += group["resident"] - group["mapped"]
        elif group["is_file"] == 0 and layered(group):  # what is write-protected faults
            missing += 1
    return missing == 0


@law
def all_present(row, a):
    """True if every page of area `a` that was touched is mapped, whatever reclaim does elsewhere.

    Source: fleetsim's own representation.
    """
    area = row["areas"][a]
    missing = area["touched"] + row["swap_cache"] + row["lazy"]
    for k in range(area["groups"]):
        missing -= row["groups"][area["group"] + k]["resident"]
    return missing <= 0


@law
def is_resident(row, a):
    """True if every page of area `a` that was touched is resident and nobody reclaims: see `at_rest`, which asks for the others too.

    Source: fleetsim's own representation (design §3.2).
    """
    if row["kswapd"][0]["state"] != KSWAPD_SLEEP or row["kswapd"][1]["state"] != KSWAPD_SLEEP or row["swap_cache"] + row["lazy"] > 0:
        return False
    return all_present(row, a)


@law
def seldom_used(row, a, accesses):
    """True if `accesses` at random, made in one go, are to reclaim as if they were spread: all pages are there, and few of them are met.

    Source: fleetsim's own pacing: who scans then sees an eighth of the accessed bits at most sooner or later than with small batches.
    """
    return all_present(row, a) and 8 * accesses < row["areas"][a]["touched"]


@law
def access_rest(row, th, a, part, pages, left, write):
    """Visit `pages` of the `left` pages of an area used at random that a walk over them has not visited yet.

    Random accesses miss some pages and meet others twice; a walk meets each once, so what is in swap is met in proportion to what is
    left of the walk.

    part     int64  0: the hot part, or the only one; 1: the cold one
    write    int64  1: the pages are written to, 0: only read
    returns  int64  pages visited; fewer if pages could not be had at once, 0: come back

    Source: mm/memory.c handle_mm_fault, page after page. Leaves out: what was swapped out behind the walker counts as before it.
    """
    row["in_lru_fault"] = 1
    g = row["areas"][a]["group"] + part
    if layered(row["groups"][g]):
        return access_forked_uniform(row, th, a, part, pages, write)
    return access_uniform(row, th, g, pages, max(pages, left), write)


@law
def read_untouched(row, th, a, at, pages, hot_q):
    """Read `pages` pages of an area that was never written to: private anonymous memory is all zero, a shared object gets its pages.

    at       int64  position of the reader's cursor
    hot_q    int64  as for `access`
    returns  int64  pages done

    Source: mm/memory.c do_anonymous_page (read fault), mm/shmem.c shmem_fault.
    """
    area = row["areas"][a]
    if area["kind"] == AREA_HUGETLB:
        return touch(row, th, a, pages)
    if area["kind"] == AREA_SHMEM:
        return access(row, th, a, at, pages, hot_q, 0)
    ordered = row["groups"][area["group"]]["kind"] == ORDERED
    return read_zero(row, th, a, at if ordered else -1, min(pages, area["pages"]))

# SPDX-License-Identifier: Apache-2.0
"""Files by their names: open, read, write, fsync, unlink, on disk or on tmpfs (fs/open.c, fs/read_write.c, fs/namei.c).

Part of the door between workloads and the kernel: `syscalls.py` passes these on.
Leaves out: file descriptors (an op opens its file and closes it), directories, permissions.
"""

from __future__ import annotations

from fleetsim.hardware.cpu import SYSCALL
from fleetsim.law import law
from fleetsim.linux.ext4_file import ext4_buffered_write_iter
from fleetsim.linux.filemap import read_ordered
from fleetsim.linux.filemap_random import read_blocks
from fleetsim.linux.mm_types import ORDERED, UNIFORM
from fleetsim.linux.shm import shmem_create, shmem_unlink
from fleetsim.linux.shmem import LINKED, NOT_LINKED, shmem_file_io
from fleetsim.linux.sync import SYNC_DONE, vfs_fsync
from fleetsim.linux.truncate import do_truncate
from fleetsim.linux.truncate import unlink as ext4_unlink
from fleetsim.linux.vma import open_file


@law
def is_empty(row, f):
    """True for a file on disk that has no page yet, or that cannot be read because its disk fails: nothing can be read or mapped there.

    Source: mm/filemap.c filemap_read, filemap_fault (beyond i_size: SIGBUS).
    """
    file = row["files"][f]
    return file["mount"] < 0 and (file["size"] == 0 or row["disk"][0]["failing"] > 0)


@law
def file_size(row, f):
    """Size of a file, pages.

    Source: fs/stat.c (i_size).
    """
    return row["files"][f]["size"]


@law
def creat(row, th, f, kind, truncate):
    """open(O_WRONLY | O_CREAT), with O_TRUNC if `truncate` is 1.

    kind     int64  ORDERED or UNIFORM: how the file is accessed, decided by whoever opens it first
    returns  int64  1: it is open; 0: come back when the bill is paid; −1: it cannot be opened (a table is full)

    Source: fs/open.c do_sys_openat2.
    """
    file = row["files"][f]
    if file["mount"] >= 0:
        return 1 if shmem_create(row, f, kind, truncate) else -1
    row["spent_ns"] += row["cost"][SYSCALL]
    if truncate and file["size"] > 0 and not do_truncate(row, th, f):
        return 0
    file["linked"] = LINKED
    return 1 if open_file(row, f, kind, 0) else -1


@law
def read_file(row, th, f, at, pages, fresh, kind):
    """read() of up to `pages` pages of a file from page `at`, or anywhere if it is a file read at random.

    kind     int64  ORDERED or UNIFORM: how the file is read, decided by whoever opens it first

    returns  (int64 pages done, int64 of them from disk); (0, 0): come back; −1: it cannot be read (nothing is in it, or EIO)

    Source: mm/filemap.c filemap_read.
    """
    file = row["files"][f]
    row["in_lru_fault"] = 0
    if file["linked"] == NOT_LINKED or is_empty(row, f) or not open_file(row, f, kind, 0):
        return -1, 0
    if file["mount"] >= 0:
        return shmem_file_io(row, th, f, at, pages, 0), 0
    g = file["group"]
    if row["groups"][g]["kind"] == ORDERED:
        return read_ordered(row, th, g, at, pages, fresh)
    if file["groups"] == 2 and at >= row["groups"][g]["pages"]:
        g += 1
    done, _ = read_blocks(row, th, g, pages, 0, 1)
    return done, 0


@law
def open_random(row, f, hot_pages):
    """open() of a file on disk that is read and written at random, the first `hot_pages` pages of it more often than the rest.

    returns  bool  False: nothing is in it, or a table is full

    Source: fs/open.c; hot and cold part are two groups (design §3.2), cut by whoever opens it first.
    """
    file = row["files"][f]
    return file["linked"] != NOT_LINKED and not is_empty(row, f) and open_file(row, f, UNIFORM, hot_pages)


@law
def pread(row, th, f, at, pages, block, at_once):
    """pread() of `pages` pages at random places of the part of a file that page `at` is in, `block` pages each, by `at_once` threads.

    returns  (int64 pages done, int64 of them from disk); (0, 0): come back; −1: it cannot be read (EIO)

    Source: mm/filemap.c filemap_read.
    """
    file = row["files"][f]
    row["in_lru_fault"] = 0
    if file["group"] < 0 or is_empty(row, f):
        return -1, 0
    g = file["group"]
    if file["groups"] == 2 and at >= row["groups"][g]["pages"]:
        g += 1
    return read_blocks(row, th, g, pages, block, at_once)


@law
def write_file(row, th, f, at, pages):
    """write() of up to `pages` pages to a file from page `at`.

    returns  int64  pages done; 0: come back; −1: ENOSPC, or it cannot be written

    Source: fs/read_write.c vfs_write; mm/shmem.c shmem_file_write_iter.
    """
    file = row["files"][f]
    row["in_lru_fault"] = 0
    if file["mount"] < 0:
        if file["group"] < 0 and not open_file(row, f, ORDERED, 0):  # somebody unlinked it meanwhile: it is written all the same
            return -1
        return ext4_buffered_write_iter(row, th, f, min(at, file["size"]), pages)
    n = -1
    if at < file["pages"]:
        n = shmem_file_io(row, th, f, at, pages, 1)
    file["size"] = max(file["size"], at + n)
    return n


@law
def fsync(row, th, f, stage):
    """fsync(), step by step: SYNC_DATA at first, then what the last call returned, until that is SYNC_DONE. tmpfs has nothing to do.

    Source: fs/sync.c vfs_fsync.
    """
    row["spent_ns"] += row["cost"][SYSCALL]
    return vfs_fsync(row, th, f, stage) if row["files"][f]["mount"] < 0 else SYNC_DONE


@law
def unlink(row, th, f):
    """unlink() of a file.

    returns  bool  False: come back when the bill is paid

    Source: fs/namei.c do_unlinkat.
    """
    if row["files"][f]["mount"] < 0:
        return ext4_unlink(row, th, f)
    shmem_unlink(row, f)
    return True

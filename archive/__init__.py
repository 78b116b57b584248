"""Trees of files as a stream of records: made of a tree, and made into one, by descriptors and never by paths.

A library of its own, with no knowledge of qemubox; it takes open descriptors and functions that read or write bytes.
Host and guest use the same code, so what one of them packs the other unpacks.

    records  the stream: entries, their data, its end                          pure
    beneath  openat2(2): paths that cannot lead out of a directory
    pack     a file or a directory with all below it, into records
    unpack   records into a directory, where none of them can reach beyond it

Not tar, because both ends are ours, and what comes from a guest must be checked: here that is one fixed struct and
four kinds of records, where tar has five formats with extensions of their own. People who want tar get it
(shim/copy/tar.py).

Everything here blocks: it runs in a thread, or in a process of its own.
"""

from archive.errors import ArchiveError, CutError, MalformedError

__all__ = ["ArchiveError", "CutError", "MalformedError"]

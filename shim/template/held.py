"""The templates' memory that the service keeps sealed, for all of its shims' machines to map (memory.py).

The service reads each template's memory once, when it starts and when it is told that there are
others (SIGHUP), and keeps it open; a shim, its fork, has it without doing anything. What is kept
is known by the template's metadata: the very file, as it was hashed.
"""

import contextlib
import os

from shim.config import Config
from shim.errors import HostError, NotFoundError
from shim.log import Logger
from shim.template import memory
from shim.template.choice import open_store
from shim.template.metadata import Metadata
from shim.template.store import Template
from shim.warm.holdings import Holdings, inherited


def refresh(held: Holdings, config: Config, log: Logger) -> None:
    """Keep the memory of every template that there is now, and of no other. What cannot be read is logged."""
    store = open_store(config)
    wanted = set()
    for entry in store.entries():
        if entry.metadata is None:
            continue
        name = _name(entry.metadata)
        wanted.add(name)
        if name in held.fds:
            continue
        with contextlib.suppress(NotFoundError):  # removed while we looked
            try:
                held.hold(name, _sealed(store.open(entry.name)))
            except HostError as error:
                log.warning("a template's memory is not kept", template=entry.name, reason=error.message)
    held.keep_only(wanted)


def find(template: Template) -> int | None:
    """The template's memory, sealed; a descriptor of the caller's own. None where this shim has not inherited it."""
    fd = inherited().fds.get(_name(template.metadata))
    return None if fd is None else os.dup(fd)


def _sealed(template: Template) -> int:
    try:
        fd = memory.sealed(template.fd, template.metadata.memory_size)
        try:
            template.metadata.check_state(os.fstat(template.fd))  # nobody has written to it meanwhile
        except HostError:
            os.close(fd)
            raise
        return fd
    finally:
        template.close()


def _name(metadata: Metadata) -> str:
    return f"template {metadata.sha256} {metadata.inode} {metadata.ctime_ns}"

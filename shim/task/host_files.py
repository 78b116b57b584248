"""The small files of the host that a container gets copies of, as they are once the hooks of Create have run."""

import os

from api import guest_pb2
from shim.errors import MissingPartError, SpecError
from shim.spec import FILES_LIMIT, HostFile


def read(files: tuple[HostFile, ...]) -> list[guest_pb2.File]:
    """Their content by now. Blocks. Raises MissingPartError for one that is gone, SpecError where it is too much."""
    found = []
    left = FILES_LIMIT
    for file in files:
        try:
            with file.path.open("rb") as opened:
                status, content = os.stat(opened.fileno()), opened.read(left + 1)
        except OSError as error:
            raise MissingPartError(f"cannot read {file.path} for the container: {error.strerror}") from error
        left -= len(content)
        if left < 0:  # a hook has made it larger
            raise SpecError(f"{file.path}: the container's files have more than {FILES_LIMIT >> 20} MiB together")
        found.append(
            guest_pb2.File(
                name=file.name, content=content, mode=status.st_mode & 0o7777, uid=status.st_uid, gid=status.st_gid
            )
        )
    return found

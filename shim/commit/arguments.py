"""The command line of `qemubox commit`. Nothing of what it does is imported before it is to be done: 0.2 s."""

import argparse
import os
from typing import Final, Protocol

_ADDRESS: Final = "/run/containerd/containerd.sock"


class Groups(Protocol):
    """What argparse's add_subparsers gives."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser: ...


def add(groups: Groups) -> None:
    """Add `commit` to the commands."""
    what = "make an image of a container with all that it has written"
    parser = groups.add_parser(
        "commit",
        help=what,
        description=f"{what}, also of one that runs".capitalize(),
    )
    parser.add_argument(
        "--address", default=os.environ.get("CONTAINERD_ADDRESS") or _ADDRESS, help="containerd's socket"
    )
    namespace = os.environ.get("CONTAINERD_NAMESPACE") or "default"
    parser.add_argument("-n", "--namespace", default=namespace, help="containerd's namespace")
    parser.add_argument("-a", "--author", default="", help='for the history: "Name <mail@example.org>"')
    parser.add_argument("-m", "--message", default="", help="for the history: what was changed")
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="of a Dockerfile, how the image is run: 'CMD [\"sh\"]', 'ENV A=1'; more than once if need be",
    )
    parser.add_argument(
        "--no-pause", dest="pause", action="store_false", help="read what a container of another runtime is writing"
    )
    parser.add_argument("--uncompressed", dest="compressed", action="store_false", help="a layer that is not gzip'ed")
    parser.add_argument(
        "container", metavar="CONTAINER", help="its id, the beginning of it, or the name that nerdctl has for it"
    )
    parser.add_argument("image", metavar="IMAGE", help="the new image's name; an image that has it loses it")
    parser.set_defaults(action=_run)


def _run(arguments: argparse.Namespace) -> int:
    from shim.commit.command import run

    return run(arguments)

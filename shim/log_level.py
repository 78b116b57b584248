"""How much the shim and the guest say: containerd's level and the configured one, together.

containerd tells its level by `-debug`, and since 2.3 by a number in the bootstrap parameters
(api/bootstrap.proto). 0 there is info, and also what no number is. Pure, and imports nothing:
`start` needs it.
"""

# The least numbers, those of Go's log/slog, from which a level's name holds.
_NAMES = ((8, "error"), (4, "warning"), (0, "info"))


def of_containerd(number: int, *, debug: bool) -> str:
    """The name of containerd's level: error, warning, info or debug, which trace is to us, too."""
    if debug:
        return "debug"
    return next((name for least, name in _NAMES if number >= least), "debug")


def in_force(configured: str, containerd: str) -> str:
    """What is logged: the configured level, or containerd's where that is "auto"; containerd's debug is for all."""
    return containerd if configured == "auto" or containerd == "debug" else configured

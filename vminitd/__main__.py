"""vminitd's entry: boots the machine, serves the shim until it hangs up, powers off.

Started by the kernel as PID 1 (`init=`). The order below is the start-up time's: the kernel's file systems are there
before the long imports only where those need them, and everything is imported before vminitd waits for the host, so
that a template that is frozen while it waits has paid for it.
"""

import sys

from vminitd import milestones

milestones.mark("python")


def main() -> None:
    """Boots and serves; does not return."""
    from vminitd import power

    try:
        from vminitd.boot import boot

        boot()
        milestones.mark("booted")
        # asyncio takes `ssl` if it can be had; nothing here does, and it would be the longest import of all.
        sys.modules["ssl"] = None  # type: ignore[assignment]
        import asyncio

        from vminitd.serve import serve

        milestones.mark("imported")
        asyncio.run(serve())
    except BaseException as error:  # noqa: BLE001  PID 1 must not end
        power.off_after(error)


if __name__ == "__main__":
    main()

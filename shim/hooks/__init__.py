"""OCI hooks that run on the host: what the specification says of them, running one, those after the end.

A hook's process is a child in the journal. It does nothing before it has read the container's
state from its standard input to the end, and that is written only when the record is there.
When they run: shim/task/hooks.py.
https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
"""

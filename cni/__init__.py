"""CNI, the Container Network Interface: runs network plugins as libcni does, over asyncio subprocesses.

A library that knows nothing of qemubox, and needs nothing but the standard library.
https://github.com/containernetworking/cni/blob/main/SPEC.md
"""

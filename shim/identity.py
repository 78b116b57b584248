"""Who a shim works for: one container id, in one namespace, of one containerd.

Ids repeat between namespaces and between containerds on one host, and may be as long
as 76 + 64 characters, so everything on the host is named by a hash of all three.
"""

import os

DEFAULT_SOCKET_DIR = "/run/containerd/s"


class Identity:
    """`address` is containerd's gRPC socket, as it stands in `-address`."""

    def __init__(self, address: str, namespace: str, container_id: str) -> None:
        self.address = address
        self.namespace = namespace
        self.container_id = container_id

    @property
    def digest(self) -> str:
        """sha256 in hex over address, namespace and id, joined as containerd's own shim joins them."""
        import hashlib  # 2.5 ms, and `delete` does without

        return hashlib.sha256(os.fsencode("/".join((self.address, self.namespace, self.container_id)))).hexdigest()

    @property
    def key(self) -> str:
        """24 hex digits: the name of this container's directory, machine and disks on the host."""
        return self.digest[:24]

    def socket_path(self, socket_dir: str = DEFAULT_SOCKET_DIR) -> str:
        """Where this shim listens. In the default directory that is 82 of the 107 bytes that there are (unix(7))."""
        return f"{socket_dir}/{self.digest}"

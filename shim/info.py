"""`-info`: what containerd may expect of this runtime.

containerd 2.2 and newer ask once and remember (core/runtime/v2/task_manager.go): which
mounts the shim takes unmounted, and the OCI features document
(https://github.com/opencontainers/runtime-spec/blob/main/features.md).
"""

import json
from typing import Final

from shim import wire
from shim.version import RUNTIME_NAME, VERSION

FEATURES_TYPE_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
# containerd makes and formats the writable image of the erofs snapshotter (mkfs is not in the list); the layers,
# the templates and the directories in them come to us as they are.
ALLOWED_MOUNTS: Final = "mkdir/*,format/*,erofs"

_FEATURES: Final = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.2.1",
    # What crun in the guest understands of a mount's options (mount(8) and runtime-spec config.md).
    "mountOptions": [
        "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "loud", "mand",
        "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nomand", "norelatime", "nostrictatime", "nosuid",
        "private", "ratime", "rbind", "relatime", "remount", "rnoatime", "rnodev", "rnodiratime", "rnoexec",
        "rnorelatime", "rnostrictatime", "rnosuid", "ro", "rprivate", "rrelatime", "rro", "rrw", "rstrictatime",
        "rsuid", "rw", "silent", "strictatime", "suid", "sync", "tmpcopyup", "unbindable",
    ],
    "linux": {
        "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
        "cgroup": {"v1": False, "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
        "seccomp": {"enabled": True},
        "apparmor": {"enabled": False},
        "selinux": {"enabled": False},
        "mountExtensions": {"idmap": {"enabled": False}},
    },
}  # fmt: skip


def runtime_info() -> bytes:
    """The serialized containerd.types.RuntimeInfo."""
    return wire.runtime_info(
        name=RUNTIME_NAME,
        version=VERSION,
        features=(FEATURES_TYPE_URL, json.dumps(_FEATURES).encode()),
        annotations={"containerd.io/runtime-allow-mounts": ALLOWED_MOUNTS},
    )

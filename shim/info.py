"""`-info`: what containerd may expect of this runtime.

containerd 2.2 and newer ask once and remember (core/runtime/v2/task_manager.go): which
mounts the shim takes unmounted, and the OCI features document
(https://github.com/opencontainers/runtime-spec/blob/main/features.md).
"""

from shim import wire
from shim.version import RUNTIME_NAME, VERSION

FEATURES_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
# containerd makes and formats the writable image of the erofs snapshotter (mkfs is not in the list); the layers,
# the templates and the directories in them come to us as they are.
ALLOWED_MOUNTS = "mkdir/*,format/*,erofs"

# What crun in the guest understands (of a mount's options: mount(8) and runtime-spec config.md). As text, because
# making it would import json.
FEATURES = """{
  "ociVersionMin": "1.0.0",
  "ociVersionMax": "1.2.1",
  "mountOptions": [
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "loud", "mand", "noatime",
    "nodev", "nodiratime", "noexec", "noiversion", "nomand", "norelatime", "nostrictatime", "nosuid", "private",
    "ratime", "rbind", "relatime", "remount", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime",
    "rnostrictatime", "rnosuid", "ro", "rprivate", "rrelatime", "rro", "rrw", "rslave", "rstrictatime", "rsuid",
    "runbindable", "rw", "silent", "slave", "strictatime", "suid", "sync", "tmpcopyup", "unbindable"
  ],
  "linux": {
    "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
    "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
    "seccomp": {"enabled": true},
    "apparmor": {"enabled": false},
    "selinux": {"enabled": false},
    "mountExtensions": {"idmap": {"enabled": false}}
  }
}"""


def runtime_info() -> bytes:
    """The serialized containerd.types.RuntimeInfo."""
    return wire.runtime_info(
        name=RUNTIME_NAME,
        version=VERSION,
        features=(FEATURES_TYPE_URL, FEATURES.encode()),
        annotations={"containerd.io/runtime-allow-mounts": ALLOWED_MOUNTS},
    )

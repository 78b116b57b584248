"""A host for install.sh, and a release small enough to be installed in a moment.

The host is a namespace of mounts and one of processes: /etc, /usr/local, /usr/share, /var, /run, /dev and what /sys
tells are file systems of its own, so that the real script runs as root with its real paths, and everything there is can
be compared before and after. Programs of the host that would reach outside are replaced by scripts in /usr/local/sbin,
which is first in install.sh's PATH. The release has the real install.sh and deploy/, and small scripts for the programs
of its tree.
"""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PREFIX: Final = Path("/usr/share/qemubox")
_OWN: Final = ("/etc", "/usr/local", "/usr/share", "/var", "/run", "/dev")
_HOLD: Final = r"""
set -e
copy=$(mktemp -d)
cp -a /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/nsswitch.conf /etc/ld.so.cache /etc/os-release \
    /etc/login.defs /etc/alternatives "$copy"
# What others have mounted there meanwhile would still be listed.
awk '$5 ~ "^/(etc|usr/local|usr/share|var|run)/" { print $5 }' /proc/self/mountinfo | sort -r |
    while read -r path; do umount -l "$path"; done
for path in /etc /usr/local /usr/share /var /run /dev /sys/fs /sys/module /sys/kernel/security; do
    mount -t tmpfs -o mode=755 tmpfs $path
done
cp -a "$copy"/. /etc/
rm -r "$copy"
sed -i /^qemubox:/d /etc/passwd /etc/group /etc/shadow /etc/gshadow
mkdir -p /usr/local/bin /usr/local/sbin /var/lib /var/cache /var/tmp /run/lock /dev/net
for node in "null 1 3" "zero 1 5" "random 1 8" "urandom 1 9" "kvm 10 232" "net/tun 10 200" "vhost-net 10 238" \
    "vhost-vsock 10 241"; do
    set -- $node
    mknod -m 666 /dev/$1 c $2 $3
done
ln -s /proc/self/fd /dev/fd
for module in sch_ingress cls_u32 act_mirred; do mkdir /sys/module/$module; done
ip link set lo up
echo
read -r _
"""
_MAP: Final = """
import mmap, sys, time
with open(sys.argv[1]) as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(flush=True)
time.sleep(60)
"""
# What the fake programs note of how they were called.
CALLS: Final = "/run/lock/calls"
_CLI: Final = """
import os, sys
def main(link):
    if sys.argv[1] == "path":
        print(os.environ["PATH"])
        return 0
    with open("/run/lock/calls", "a") as calls:
        print("qemubox", *sys.argv[1:], file=calls)
    return 0
"""


def make_release(directory: Path, *, version: str = "1.0", further: dict[str, str] | None = None) -> Path:
    """An unpacked release in `directory`; `further` are files of its tree, by their path, beside the usual ones."""
    directory.mkdir()
    shutil.copy(ROOT / "install.sh", directory / "install.sh")
    ignored = shutil.ignore_patterns("__pycache__", "release")
    shutil.copytree(ROOT / "deploy", directory / "deploy", ignore=ignored)
    (directory / "VERSION").write_text(f"{version}\n")
    runtime, packages = "tree/lib/qemubox/runtime", "tree/lib/qemubox/site-packages"
    program = "#!/bin/sh\necho 1.0\n"
    files = {
        f"{runtime}/bin/python3": '#!/bin/sh\nexec /usr/bin/python3 "$@"\n',
        f"{runtime}/bin/qemu-system-x86_64": program,
        f"{packages}/shim/__init__.py": "",
        f"{packages}/shim/cli.py": _CLI + f"# of {version}\n",
        "tree/bin/containerd": program,
        "tree/bin/ctr": program,
        "tree/lib/qemubox/vhost-device-vsock": program,
        "tree/share/qemubox/vmlinux": f"kernel of {version}\n",
        "tree/share/qemubox/guest.erofs": f"image of {version}\n",
        "tree/share/man/man1/qemubox.1": "manual\n",
        **{
            f"tree/lib/qemubox/cni/{name}": program
            for name in ("bridge", "portmap", "firewall", "tuning", "host-local")
        },
        **(further or {}),
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    seal(directory)
    return directory


def seal(release: Path) -> None:
    """Write its checksums anew."""
    found = sorted(path for path in release.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(release)}\n" for path in found]
    (release / "SHA256SUMS").write_text("".join(lines))


class Site:
    """The host."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def path(self, name: str | Path) -> Path:
        """A path of the host's, as it is seen from outside; links in it lead outside, too."""
        return Path(f"/proc/{self._pid}/root/{str(name).lstrip('/')}")

    def run(self, *words: str | Path, timeout_s: float = 50) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        inside = ["nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--", *map(str, words)]
        env = {"PATH": os.environ["PATH"], "TMPDIR": "/var/tmp"}
        return subprocess.run(inside, check=False, capture_output=True, text=True, timeout=timeout_s, env=env, cwd="/")

    def tell(self, *words: str | Path) -> str:
        """What a command says that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def process(self, mapped: Path, *words: str) -> Iterator[None]:
        """A process there with this file in its memory and these words in its command line, ended behind the block."""
        self.tell("sh", "-c", f"head -c 4096 /dev/zero >{mapped}")
        inside = ["nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--"]
        inside += ["/usr/bin/python3", "-c", _MAP, str(mapped), *words]
        with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "\n"
                yield
            finally:
                os.kill(_child_of(child.pid), signal.SIGKILL)  # nsenter ends with it

    def install(self, release: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the release's installer."""
        return self.run("sh", release / "install.sh", *options)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file of the host's."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def program(self, name: str, script: str) -> None:
        """A program that install.sh finds before the host's own."""
        self.write(f"/usr/local/sbin/{name}", f"#!/bin/sh\n{script}\n", 0o755)

    def calls(self) -> list[str]:
        """How the fake programs were called, in order."""
        path = self.path(CALLS)
        return path.read_text().splitlines() if path.exists() else []

    def with_systemd(self) -> None:
        """As if systemd ran: its directory, and a systemctl that does what units' files and links tell of it."""
        self.path("/run/systemd/system").mkdir(parents=True)
        self.path("/etc/systemd/system").mkdir(parents=True)
        self.program("systemctl", _SYSTEMCTL)

    def tree(self) -> dict[str, str]:
        """Everything there is, by path: kind, mode, owner, and content or target. Not what the fakes have noted."""
        found = {}
        for top in _OWN:
            for path in [self.path(top), *self.path(top).rglob("*")]:
                name = str(path).partition("/root/")[2]
                if not name.startswith(("run/lock/", "run/fake")) and name not in _BACKUPS:
                    found[name] = _described(path)
        return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The paths of what is another, or on one side only."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


# What useradd and userdel keep of what was before.
_BACKUPS: Final = ("etc/.pwd.lock", *(f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")))


def _described(path: Path) -> str:
    status = path.lstat()
    kind, owner = stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}"
    if path.is_symlink():
        return f"{kind} {owner} -> {path.readlink()}"
    if stat.S_ISREG(status.st_mode):
        return f"{kind} {owner} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return f"{kind} {owner}"


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


# Enabled is a link below /etc, as with the real one; active is a file below /run.
_SYSTEMCTL: Final = rf"""
echo systemctl "$@" >>{CALLS}
[ "$1" != --quiet ] || shift
wants=/etc/systemd/system/multi-user.target.wants
active=/run/fake/active
mkdir -p $active
verb=$1
shift
for unit; do
    case $unit in *.service) ;; *) unit=$unit.service ;; esac
    [ ! -e "/run/fake/fail-$verb-$unit" ] || exit 1
    case $verb in
    enable) mkdir -p $wants && ln -sf "/etc/systemd/system/$unit" "$wants/$unit" ;;
    disable) rm -f "$wants/$unit"; rmdir $wants 2>/dev/null || true ;;
    is-enabled) [ -L "$wants/$unit" ] || exit 1 ;;
    is-active) [ -e "$active/$unit" ] || exit 3 ;;
    start | restart | reload-or-restart) : >"$active/$unit" ;;
    stop) rm -f "$active/$unit" ;;
    esac
done
"""


@contextmanager
def site() -> Iterator[Site]:
    """A host, gone at the end with whatever is on it."""
    words = [
        "unshare",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    with subprocess.Popen(
        [*words, "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "\n"
            yield Site(_child_of(child.pid))
        finally:
            child.kill()

"""One virtual machine of one shim, from QEMU's start to its end, with vminitd answering.

Puts together what shim/vm/ offers: which machine, which vsock, which devices; then the
first call to the guest, which makes the machine itself (name, time, randomness, size).
It is called a sandbox because a Kubernetes pod's containers share one.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from api import guest_pb2
from shim import deadlines
from shim.config import Config
from shim.errors import BootError, GuestError, MachineError, MissingPartError
from shim.guest import Guest
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.rootfs import plan
from shim.sizing import Size
from shim.task.stdio import ProcessStreams
from shim.vm.timeline import Timeline
from ttrpc import Client

_ENTROPY_BYTES: Final = 64
_TOKEN_BYTES: Final = 16

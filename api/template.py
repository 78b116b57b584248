"""What vminitd and the shim say to each other before they can talk: one line on the guest's console."""

from typing import Final

# Printed once by a guest that finds no vsock device when it is up: from here on it only waits, and may be frozen.
READY: Final = "template: warmed up, waiting for a host"

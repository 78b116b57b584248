"""What a machine is given of its container's network."""

from dataclasses import dataclass, field

from api import guest_pb2
from shim.vm.devices import Nic


@dataclass(frozen=True, slots=True)
class Connection:
    """Its network interfaces, whose descriptors are open, and what the guest is to make of them."""

    nics: tuple[Nic, ...] = ()
    message: guest_pb2.NetworkConfig = field(default_factory=guest_pb2.NetworkConfig)

"""Changes the specification of a container that has no task yet, where `ctr` has no option for it.

    spec_client.py NAMESPACE ID CHANGES        a JSON object to be merged into it (RFC 7386)

Of containerd.services.containers.v1 this needs three messages, all of whose fields are strings or messages:
GetContainerRequest{1 id}, GetContainerResponse{1 container} and UpdateContainerRequest{1 container, 2 mask{1 path}},
with Container{1 id, 5 spec}, and spec an Any{1 type_url, 2 value}.
"""

import json
import sys

import grpc

SOCKET = "unix:///run/containerd/containerd.sock"
SERVICE = "/containerd.services.containers.v1.Containers"
DEADLINE_S = 30


def varint(number: int) -> bytes:
    high, low = number >> 7, number & 0x7F
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def field(number: int, data: bytes) -> bytes:
    """One field of the wire format, length-delimited."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data: bytes) -> dict[int, bytes]:
    """The fields of a message that has only length-delimited ones; of a repeated one the last."""
    found = {}
    while data:
        tag, data = _number(data)
        size, data = _number(data)
        found[tag >> 3], data = data[:size], data[size:]
    return found


def _number(data: bytes) -> tuple[int, bytes]:
    number = shift = 0
    while True:
        number |= (data[0] & 0x7F) << shift
        more, data = data[0] & 0x80, data[1:]
        shift += 7
        if not more:
            return number, data


def merged(document: object, changes: object) -> object:
    if not isinstance(document, dict) or not isinstance(changes, dict):
        return changes
    return {**document, **{key: merged(document.get(key), value) for key, value in changes.items()}}


def main() -> int:
    namespace, container, changes = sys.argv[1:]
    metadata = (("containerd-namespace", namespace),)
    with grpc.insecure_channel(SOCKET) as channel:
        got = channel.unary_unary(f"{SERVICE}/Get")(field(1, container.encode()), timeout=DEADLINE_S, metadata=metadata)
        spec = fields(fields(fields(got)[1])[5])
        document = merged(json.loads(spec[2]), json.loads(changes))
        changed = field(1, spec[1]) + field(2, json.dumps(document).encode())
        update = field(1, field(1, container.encode()) + field(5, changed)) + field(2, field(1, b"spec"))
        channel.unary_unary(f"{SERVICE}/Update")(update, timeout=DEADLINE_S, metadata=metadata)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Calls containerd's task service, where `ctr` has no command for it.

    task_client.py NAMESPACE update ID RESOURCES                new limits, an OCI LinuxResources as JSON
    task_client.py NAMESPACE create ID TYPE SOURCE OPTIONS      a task of a container, on one mount, not started

A program of its own, because gRPC's threads and the tests' forks do not go together. The messages are those of the
task API: the fields used here have the same numbers in containerd.services.tasks.v1.
An error is told as `ctr` tells one.
"""

import sys

import grpc
from google.protobuf.message import Message

from api import task_pb2, types_pb2

SOCKET = "unix:///run/containerd/containerd.sock"
RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
DEADLINE_S = 110


def call(namespace: str, method: str, request: Message) -> None:
    """One call of Tasks, whose answer nobody needs."""
    with grpc.insecure_channel(SOCKET) as channel:
        unary = channel.unary_unary(f"/containerd.services.tasks.v1.Tasks/{method}")
        unary(request.SerializeToString(), timeout=DEADLINE_S, metadata=(("containerd-namespace", namespace),))


def update(namespace: str, container: str, resources: str) -> None:
    request = task_pb2.UpdateTaskRequest(id=container)
    request.resources.type_url = RESOURCES
    request.resources.value = resources.encode()
    call(namespace, "Update", request)


def create(namespace: str, container: str, fstype: str, source: str, options: str) -> None:
    mount = types_pb2.Mount(type=fstype, source=source, options=options.split(","))
    call(namespace, "Create", task_pb2.CreateTaskRequest(id=container, rootfs=[mount]))


def main() -> int:
    namespace, command, *arguments = sys.argv[1:]
    try:
        if command == "update":
            update(namespace, *arguments)
        else:
            create(namespace, *arguments)
    except grpc.RpcError as error:
        print(f"ctr: {error.details()} [{error.code().name}]", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Calls containerd's task service, where `ctr` has no command for it.

    task_client.py NAMESPACE update ID RESOURCES                new limits, an OCI LinuxResources as JSON
    task_client.py NAMESPACE create ID TYPE SOURCE OPTIONS      a task of a container, on one mount, not started
    task_client.py NAMESPACE start ID                           start such a task
    task_client.py NAMESPACE kill ID NUMBERS [all]              one signal after the other, of any numbers: "1,-9,65"
    task_client.py NAMESPACE wait ID COUNT                      so many waits at once; says so, then each exit status

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


def start(namespace: str, container: str) -> None:
    call(namespace, "Start", task_pb2.StartRequest(id=container))


def kill(namespace: str, container: str, numbers: str, everyone: str = "") -> None:
    for number in numbers.split(","):
        call(namespace, "Kill", task_pb2.KillRequest(id=container, signal=int(number) % (1 << 32), all=bool(everyone)))


def wait(namespace: str, container: str, count: str) -> None:
    # Of WaitResponse, exit_status has the same number in both services.
    with grpc.insecure_channel(SOCKET) as channel:
        unary = channel.unary_unary("/containerd.services.tasks.v1.Tasks/Wait")
        request, metadata = task_pb2.WaitRequest(id=container), (("containerd-namespace", namespace),)
        calls = [
            unary.future(request.SerializeToString(), timeout=DEADLINE_S, metadata=metadata) for _ in range(int(count))
        ]
        print("waiting", flush=True)
        print(*(task_pb2.WaitResponse.FromString(each.result()).exit_status for each in calls))


def main() -> int:
    namespace, command, *arguments = sys.argv[1:]
    try:
        match command:
            case "update":
                update(namespace, *arguments)
            case "create":
                create(namespace, *arguments)
            case "start":
                start(namespace, *arguments)
            case "kill":
                kill(namespace, *arguments)
            case "wait":
                wait(namespace, *arguments)
            case _:
                sys.exit(f"there is no command {command}")
    except grpc.RpcError as error:
        print(f"ctr: {error.details()} [{error.code().name}]", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

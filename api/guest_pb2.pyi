# mypy: disable-error-code="type-arg"
import datetime

from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConfigureRequest(_message.Message):
    __slots__ = ("hostname", "entropy", "wall_clock_ns", "vcpus", "memory_mib", "log_level", "network")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    WALL_CLOCK_NS_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    entropy: bytes
    wall_clock_ns: int
    vcpus: int
    memory_mib: int
    log_level: str
    network: NetworkConfig
    def __init__(self, hostname: _Optional[str] = ..., entropy: _Optional[bytes] = ..., wall_clock_ns: _Optional[int] = ..., vcpus: _Optional[int] = ..., memory_mib: _Optional[int] = ..., log_level: _Optional[str] = ..., network: _Optional[_Union[NetworkConfig, _Mapping]] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ("kernel_release", "vminitd_version", "milestones", "nonce", "boottime_ns", "began_ns")
    KERNEL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    VMINITD_VERSION_FIELD_NUMBER: _ClassVar[int]
    MILESTONES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_NS_FIELD_NUMBER: _ClassVar[int]
    kernel_release: str
    vminitd_version: str
    milestones: _containers.RepeatedCompositeFieldContainer[Milestone]
    nonce: int
    boottime_ns: int
    began_ns: int
    def __init__(self, kernel_release: _Optional[str] = ..., vminitd_version: _Optional[str] = ..., milestones: _Optional[_Iterable[_Union[Milestone, _Mapping]]] = ..., nonce: _Optional[int] = ..., boottime_ns: _Optional[int] = ..., began_ns: _Optional[int] = ...) -> None: ...

class Milestone(_message.Message):
    __slots__ = ("name", "boottime_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    boottime_ns: int
    def __init__(self, name: _Optional[str] = ..., boottime_ns: _Optional[int] = ...) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("vcpus",)
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    vcpus: int
    def __init__(self, vcpus: _Optional[int] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("grace_ms",)
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    def __init__(self, grace_ms: _Optional[int] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("serial", "partition", "fstype", "options", "disk_bytes")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FSTYPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    serial: str
    partition: int
    fstype: str
    options: _containers.RepeatedScalarFieldContainer[str]
    disk_bytes: int
    def __init__(self, serial: _Optional[str] = ..., partition: _Optional[int] = ..., fstype: _Optional[str] = ..., options: _Optional[_Iterable[str]] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class Rootfs(_message.Message):
    __slots__ = ("lower", "writable", "whole", "mapped", "uid_map", "gid_map")
    LOWER_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    MAPPED_FIELD_NUMBER: _ClassVar[int]
    UID_MAP_FIELD_NUMBER: _ClassVar[int]
    GID_MAP_FIELD_NUMBER: _ClassVar[int]
    lower: _containers.RepeatedCompositeFieldContainer[Layer]
    writable: Layer
    whole: bool
    mapped: int
    uid_map: str
    gid_map: str
    def __init__(self, lower: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., writable: _Optional[_Union[Layer, _Mapping]] = ..., whole: _Optional[bool] = ..., mapped: _Optional[int] = ..., uid_map: _Optional[str] = ..., gid_map: _Optional[str] = ...) -> None: ...

class Stdio(_message.Message):
    __slots__ = ("terminal", "stdin", "stdout", "stderr")
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    terminal: bool
    stdin: bytes
    stdout: bytes
    stderr: bytes
    def __init__(self, terminal: _Optional[bool] = ..., stdin: _Optional[bytes] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("container_id", "spec", "rootfs", "stdio", "files", "volumes", "block_volumes")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROOTFS_FIELD_NUMBER: _ClassVar[int]
    STDIO_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_VOLUMES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    spec: bytes
    rootfs: Rootfs
    stdio: Stdio
    files: _containers.RepeatedCompositeFieldContainer[File]
    volumes: str
    block_volumes: _containers.RepeatedCompositeFieldContainer[BlockVolume]
    def __init__(self, container_id: _Optional[str] = ..., spec: _Optional[bytes] = ..., rootfs: _Optional[_Union[Rootfs, _Mapping]] = ..., stdio: _Optional[_Union[Stdio, _Mapping]] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., volumes: _Optional[str] = ..., block_volumes: _Optional[_Iterable[_Union[BlockVolume, _Mapping]]] = ...) -> None: ...

class BlockVolume(_message.Message):
    __slots__ = ("name", "disk")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    name: str
    disk: Layer
    def __init__(self, name: _Optional[str] = ..., disk: _Optional[_Union[Layer, _Mapping]] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("name", "content", "mode", "uid", "gid", "dispensable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    DISPENSABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    content: bytes
    mode: int
    uid: int
    gid: int
    dispensable: bool
    def __init__(self, name: _Optional[str] = ..., content: _Optional[bytes] = ..., mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., dispensable: _Optional[bool] = ...) -> None: ...

class CreateResponse(_message.Message):
    __slots__ = ("pid", "milestones", "boottime_ns", "began_ns")
    PID_FIELD_NUMBER: _ClassVar[int]
    MILESTONES_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_NS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    milestones: _containers.RepeatedCompositeFieldContainer[Milestone]
    boottime_ns: int
    began_ns: int
    def __init__(self, pid: _Optional[int] = ..., milestones: _Optional[_Iterable[_Union[Milestone, _Mapping]]] = ..., boottime_ns: _Optional[int] = ..., began_ns: _Optional[int] = ...) -> None: ...

class ExecRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "process", "stdio")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    STDIO_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    process: bytes
    stdio: Stdio
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., process: _Optional[bytes] = ..., stdio: _Optional[_Union[Stdio, _Mapping]] = ...) -> None: ...

class ProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "wall_clock_ns", "network")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    WALL_CLOCK_NS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    wall_clock_ns: int
    network: NetworkConfig
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., wall_clock_ns: _Optional[int] = ..., network: _Optional[_Union[NetworkConfig, _Mapping]] = ...) -> None: ...

class ContainerRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ("pid", "milestones", "boottime_ns", "began_ns")
    PID_FIELD_NUMBER: _ClassVar[int]
    MILESTONES_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_NS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    milestones: _containers.RepeatedCompositeFieldContainer[Milestone]
    boottime_ns: int
    began_ns: int
    def __init__(self, pid: _Optional[int] = ..., milestones: _Optional[_Iterable[_Union[Milestone, _Mapping]]] = ..., boottime_ns: _Optional[int] = ..., began_ns: _Optional[int] = ...) -> None: ...

class WaitResponse(_message.Message):
    __slots__ = ("exit_status", "exited_at", "oom_kills")
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    EXITED_AT_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLS_FIELD_NUMBER: _ClassVar[int]
    exit_status: int
    exited_at: _timestamp_pb2.Timestamp
    oom_kills: int
    def __init__(self, exit_status: _Optional[int] = ..., exited_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., oom_kills: _Optional[int] = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "signal", "all")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    signal: int
    all: bool
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., signal: _Optional[int] = ..., all: _Optional[bool] = ...) -> None: ...

class PidsResponse(_message.Message):
    __slots__ = ("processes",)
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    def __init__(self, processes: _Optional[_Iterable[_Union[Process, _Mapping]]] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "exec_id")
    PID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    exec_id: str
    def __init__(self, pid: _Optional[int] = ..., exec_id: _Optional[str] = ...) -> None: ...

class ResizePtyRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "width", "height")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    width: int
    height: int
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("container_id", "resources")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    resources: bytes
    def __init__(self, container_id: _Optional[str] = ..., resources: _Optional[bytes] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("files",)
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.ScalarMap[str, bytes]
    def __init__(self, files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class OomKillsRequest(_message.Message):
    __slots__ = ("container_id", "known")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    known: int
    def __init__(self, container_id: _Optional[str] = ..., known: _Optional[int] = ...) -> None: ...

class OomKillsResponse(_message.Message):
    __slots__ = ("kills",)
    KILLS_FIELD_NUMBER: _ClassVar[int]
    kills: int
    def __init__(self, kills: _Optional[int] = ...) -> None: ...

class RewriteRequest(_message.Message):
    __slots__ = ("container_id", "files")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    files: _containers.RepeatedCompositeFieldContainer[File]
    def __init__(self, container_id: _Optional[str] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ...) -> None: ...

class NetworkConfig(_message.Message):
    __slots__ = ("interfaces", "routes", "rules", "sysctls")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    interfaces: _containers.RepeatedCompositeFieldContainer[Interface]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    sysctls: _containers.ScalarMap[str, str]
    def __init__(self, interfaces: _Optional[_Iterable[_Union[Interface, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., sysctls: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Interface(_message.Message):
    __slots__ = ("mac", "name", "mtu", "addresses", "neighbours", "up", "ipv6", "link_local", "promiscuous", "all_multicast", "tx_queue_length", "queues")
    MAC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    IPV6_FIELD_NUMBER: _ClassVar[int]
    LINK_LOCAL_FIELD_NUMBER: _ClassVar[int]
    PROMISCUOUS_FIELD_NUMBER: _ClassVar[int]
    ALL_MULTICAST_FIELD_NUMBER: _ClassVar[int]
    TX_QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    mac: str
    name: str
    mtu: int
    addresses: _containers.RepeatedCompositeFieldContainer[Address]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    up: bool
    ipv6: bool
    link_local: bool
    promiscuous: bool
    all_multicast: bool
    tx_queue_length: int
    queues: int
    def __init__(self, mac: _Optional[str] = ..., name: _Optional[str] = ..., mtu: _Optional[int] = ..., addresses: _Optional[_Iterable[_Union[Address, _Mapping]]] = ..., neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., up: _Optional[bool] = ..., ipv6: _Optional[bool] = ..., link_local: _Optional[bool] = ..., promiscuous: _Optional[bool] = ..., all_multicast: _Optional[bool] = ..., tx_queue_length: _Optional[int] = ..., queues: _Optional[int] = ...) -> None: ...

class Address(_message.Message):
    __slots__ = ("address", "peer", "broadcast", "scope")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    address: str
    peer: str
    broadcast: str
    scope: int
    def __init__(self, address: _Optional[str] = ..., peer: _Optional[str] = ..., broadcast: _Optional[str] = ..., scope: _Optional[int] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("destination", "gateway", "interface", "scope", "metric", "on_link", "source", "family", "table", "type", "mtu")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    ON_LINK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    destination: str
    gateway: str
    interface: str
    scope: int
    metric: int
    on_link: bool
    source: str
    family: int
    table: int
    type: int
    mtu: int
    def __init__(self, destination: _Optional[str] = ..., gateway: _Optional[str] = ..., interface: _Optional[str] = ..., scope: _Optional[int] = ..., metric: _Optional[int] = ..., on_link: _Optional[bool] = ..., source: _Optional[str] = ..., family: _Optional[int] = ..., table: _Optional[int] = ..., type: _Optional[int] = ..., mtu: _Optional[int] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("family", "priority", "table", "source", "destination", "input", "output", "mark", "mask")
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    family: int
    priority: int
    table: int
    source: str
    destination: str
    input: str
    output: str
    mark: int
    mask: int
    def __init__(self, family: _Optional[int] = ..., priority: _Optional[int] = ..., table: _Optional[int] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., input: _Optional[str] = ..., output: _Optional[str] = ..., mark: _Optional[int] = ..., mask: _Optional[int] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("address", "mac")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    address: str
    mac: str
    def __init__(self, address: _Optional[str] = ..., mac: _Optional[str] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("address", "port", "streams")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    streams: Stdio
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., streams: _Optional[_Union[Stdio, _Mapping]] = ...) -> None: ...

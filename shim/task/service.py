"""The task API: what each call does, and the one place where errors become statuses.

Every call of containerd.task.v2.Task and v3.Task has its method here; one that is left
out answers Unimplemented, from the generated base.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Concatenate, ParamSpec, TypeVar, cast

from google.protobuf.empty_pb2 import Empty

from api import runc_options_pb2, task_pb2, task_types_pb2
from api.task_ttrpc import TaskBase
from shim import resizing
from shim.errors import AlreadyExistsError, GuestError, NotFoundError, QemuboxError, UnsupportedError
from shim.log import Logger
from shim.task.container import Container
from shim.task.create import Creator
from shim.task.process import Process
from shim.task.state import State
from shim.typed import typed
from shim.version import VERSION
from ttrpc import Code, Context, StatusError

_Service = TypeVar("_Service", bound="TaskService")
_Arguments = ParamSpec("_Arguments")
_Reply = TypeVar("_Reply")
_Method = Callable[Concatenate[_Service, _Arguments], Coroutine[object, object, _Reply]]


def _edge(method: _Method[_Service, _Arguments, _Reply]) -> _Method[_Service, _Arguments, _Reply]:
    """Turn an error of the tree in shim/errors.py into a status, and anything else into Internal, logged."""

    @functools.wraps(method)
    async def call(self: _Service, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Reply:
        name = method.__name__
        try:
            return await method(self, *args, **kwargs)
        except QemuboxError as error:
            code = error.status if isinstance(error, GuestError) else error.code
            self.log.info("call failed", call=name, code=code.name, error=str(error))
            raise StatusError(code, str(error)) from error
        except (StatusError, asyncio.CancelledError):
            raise
        except Exception as error:
            self.log.exception("call failed unexpectedly", call=name)
            raise StatusError(Code.INTERNAL, f"{name}: {type(error).__name__}: {error}") from error

    return cast("_Method[_Service, _Arguments, _Reply]", call)


def _whole(method: _Method[_Service, _Arguments, _Reply]) -> _Method[_Service, _Arguments, _Reply]:
    """Let a call go on to its end when its caller goes away, as containerd does in a restart.

    Half a Start would be a process that runs and whose start nobody hears of, half a Delete
    a machine that was killed before its file systems were written back, half a Shutdown a shim
    that nobody can reach and that never ends. (Half a Create is undone instead: nobody would
    ever delete the other half.)
    """

    @functools.wraps(method)
    async def call(self: _Service, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Reply:
        task = asyncio.create_task(method(self, *args, **kwargs), name=method.__name__)
        self.going_on.add(task)
        task.add_done_callback(self.going_on.discard)
        return await asyncio.shield(task)

    return cast("_Method[_Service, _Arguments, _Reply]", call)


class TaskService(TaskBase):
    """The containers of one shim. `stop` is called once, by Shutdown, when there are none left."""

    def __init__(self, creator: Creator, *, shim_pid: int, stop: Callable[[], Awaitable[None]], log: Logger) -> None:
        self.log = log
        # The calls that go on without a caller, too; the loop alone would not keep them.
        self.going_on: set[asyncio.Task[object]] = set()
        self._creator = creator
        self._shim_pid = shim_pid
        self._stop = stop
        # Those that Create has made and Delete has not removed, by id.
        self.containers: dict[str, Container] = {}
        # Ids whose Create is under way; a second Create, and Shutdown, must see them.
        self._creating: set[str] = set()
        self._stopping = False

    @_edge
    async def Create(self, request: task_pb2.CreateTaskRequest, context: Context) -> task_pb2.CreateTaskResponse:
        if request.checkpoint:
            raise UnsupportedError(f"restoring from the checkpoint {request.checkpoint} is not supported")
        if self._stopping:
            raise NotFoundError("the shim is shutting down")
        if request.id in self.containers or request.id in self._creating:
            raise AlreadyExistsError(f"container {request.id} exists already")
        if self.containers or self._creating:
            raise UnsupportedError("a second container in one virtual machine (a pod) is not supported yet")
        self._creating.add(request.id)
        try:
            container = await self._creator.create(request)
            self.containers[request.id] = container
        finally:
            self._creating.discard(request.id)
        container.publish_create()
        return task_pb2.CreateTaskResponse(pid=container.init.pid)

    @_edge
    async def Exec(self, request: task_pb2.ExecProcessRequest, context: Context) -> Empty:
        self._container(request.id).add(request)
        return Empty()

    @_whole
    @_edge
    async def Start(self, request: task_pb2.StartRequest, context: Context) -> task_pb2.StartResponse:
        return task_pb2.StartResponse(pid=await self._container(request.id).start(request.exec_id))

    @_edge
    async def State(self, request: task_pb2.StateRequest, context: Context) -> task_pb2.StateResponse:
        container = self._container(request.id)
        process = container.process(request.exec_id)
        response = task_pb2.StateResponse(
            id=request.id,
            bundle=container.bundle,
            pid=process.pid,
            status=container.status(process),
            stdin=process.paths.stdin,
            stdout=process.paths.stdout,
            stderr=process.paths.stderr,
            terminal=process.paths.terminal,
            exec_id=request.exec_id,
        )
        if process.exit is not None:
            response.exit_status = process.exit.status
            response.exited_at.FromNanoseconds(process.exit.at_ns)
        return response

    @_edge
    async def Wait(self, request: task_pb2.WaitRequest, context: Context) -> task_pb2.WaitResponse:
        end = await self._container(request.id).process(request.exec_id).wait()
        response = task_pb2.WaitResponse(exit_status=end.status)
        response.exited_at.FromNanoseconds(end.at_ns)
        return response

    @_edge
    async def Kill(self, request: task_pb2.KillRequest, context: Context) -> Empty:
        await self._container(request.id).kill(request.exec_id, request.signal, everyone=request.all)
        return Empty()

    @_whole
    @_edge
    async def Pause(self, request: task_pb2.PauseRequest, context: Context) -> Empty:
        await self._container(request.id).pause()
        return Empty()

    @_whole
    @_edge
    async def Resume(self, request: task_pb2.ResumeRequest, context: Context) -> Empty:
        await self._container(request.id).resume()
        return Empty()

    @_edge
    async def ResizePty(self, request: task_pb2.ResizePtyRequest, context: Context) -> Empty:
        await self._container(request.id).process(request.exec_id).resize(request.width, request.height)
        return Empty()

    @_whole
    @_edge
    async def Update(self, request: task_pb2.UpdateTaskRequest, context: Context) -> Empty:
        await self._container(request.id).update(resizing.read(request.resources))
        return Empty()

    @_edge
    async def Stats(self, request: task_pb2.StatsRequest, context: Context) -> task_pb2.StatsResponse:
        return task_pb2.StatsResponse(stats=await self._container(request.id).stats())

    @_edge
    async def CloseIO(self, request: task_pb2.CloseIORequest, context: Context) -> Empty:
        process = self._container(request.id).process(request.exec_id)
        if request.stdin and process.streams is not None:
            process.streams.finish_input()
        return Empty()

    @_edge
    async def Pids(self, request: task_pb2.PidsRequest, context: Context) -> task_pb2.PidsResponse:
        processes = self._container(request.id).processes
        return task_pb2.PidsResponse(processes=[_process_info(each) for each in processes])

    @_edge
    async def Connect(self, request: task_pb2.ConnectRequest, context: Context) -> task_pb2.ConnectResponse:
        container = self.containers.get(request.id)
        return task_pb2.ConnectResponse(
            shim_pid=self._shim_pid, task_pid=container.init.pid if container else 0, version=VERSION
        )

    @_whole
    @_edge
    async def Delete(self, request: task_pb2.DeleteRequest, context: Context) -> task_pb2.DeleteResponse:
        container = self._container(request.id)
        process = container.process(request.exec_id)
        try:
            end = await container.delete(request.exec_id)
        finally:
            # What could not be let go of is in the journal, and containerd's `delete` plays it.
            if container.init.state is State.DELETED:
                self.containers.pop(request.id, None)
        response = task_pb2.DeleteResponse(pid=process.pid, exit_status=end.status)
        response.exited_at.FromNanoseconds(end.at_ns)
        return response

    @_whole
    @_edge
    async def Shutdown(self, request: task_pb2.ShutdownRequest, context: Context) -> Empty:
        if self.containers or self._creating or self._stopping:
            return Empty()
        self._stopping = True
        await self._stop()
        return Empty()

    def _container(self, container_id: str) -> Container:
        container = self.containers.get(container_id)
        if container is None:
            raise NotFoundError(f"container {container_id} not found")
        return container


def _process_info(process: Process) -> task_types_pb2.ProcessInfo:
    """One line of Pids; an exec's says whose pid it is."""
    info = task_types_pb2.ProcessInfo(pid=process.pid)
    if process.exec_id:
        details = runc_options_pb2.ProcessDetails(exec_id=process.exec_id)
        info.info.CopyFrom(typed(details))
    return info

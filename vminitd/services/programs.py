"""qemubox.guest.v1.Programs."""

from api import programs_pb2 as pb
from api.programs_ttrpc import ProgramsBase
from ttrpc import Context
from vminitd.errors import RequestError
from vminitd.programs import Programs
from vminitd.services.containers import wish


class ProgramsService(ProgramsBase):
    """What an administrator runs in the machine."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def Run(self, request: pb.RunRequest, context: Context) -> pb.RunResponse:
        if not request.limit_ms:
            raise RequestError("a program has a time after which it is ended")
        number, program = await self._programs.run(request.arguments, wish(request.streams), request.limit_ms / 1000)
        return pb.RunResponse(program=number, pid=program.pid)

    async def Ended(self, request: pb.EndedRequest, context: Context) -> pb.EndedResponse:
        end = await self._programs.ended(request.program)
        return pb.EndedResponse(status=end.status, late=end.late)

    async def End(self, request: pb.EndRequest, context: Context) -> pb.EndResponse:
        self._programs.end(request.program)
        return pb.EndResponse()

"""A service whose calls are spans."""

from collections.abc import Mapping

from shim.tracing.tracer import Tracer
from ttrpc.service import Exchange, Method, Service


class TracedService(Service):
    """`service`, as it is, but each call of it is one of the tracer's."""

    def __init__(self, service: Service, tracer: Tracer) -> None:
        self._service = service
        self._tracer = tracer

    def service_methods(self) -> Mapping[str, Method]:
        """Service.service_methods."""
        return {
            path: _TracedMethod(path, method, self._tracer) for path, method in self._service.service_methods().items()
        }


class _TracedMethod(Method):
    def __init__(self, path: str, method: Method, tracer: Tracer) -> None:
        self.streams_in, self.streams_out = method.streams_in, method.streams_out
        self._path = path
        self._method = method
        self._tracer = tracer

    async def run(self, exchange: Exchange) -> bytes:
        """Method.run."""
        with self._tracer.call(self._path, exchange.context.metadata):
            return await self._method.run(exchange)

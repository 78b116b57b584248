"""protoc-gen-ttrpc: typed stubs and bases of the services in .proto files.

protoc writes a CodeGeneratorRequest to the standard input and reads a CodeGeneratorResponse from the standard
output. For `api/guest.proto` this makes `api/guest_ttrpc.py`: for each service `Xxx` a class `XxxBase`, whose
methods a server overrides, and a class `XxxStub`, which calls them through a `ttrpc.Client`. Files without
services give nothing. The comments of the .proto become docstrings.
"""

import keyword
import sys
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from ttrpc.plugin_text import Method, Service, file_text

# Field numbers, which make up a comment's path: FileDescriptorProto.service, ServiceDescriptorProto.method.
_SERVICE_FIELD = 6
_METHOD_FIELD = 2

Comments = Mapping[tuple[int, ...], str]
"""The comment before a declaration, by its path in the file."""


class Types:
    """Where the messages of all files live in Python, and by which names one generated file calls them.

    A module is imported as `from api import types_pb2`. Where two have the same last part, the later one is
    named by its whole path, with underscores.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._homes: dict[str, tuple[str, str]] = {}
        self._aliases: dict[str, str] = {}
        for file in files:
            prefix = f".{file.package}" if file.package else ""
            for name in message_names(file.message_type):
                self._homes[f"{prefix}.{name}"] = (module_name(file.name, "_pb2"), name)

    def expression(self, message: str) -> str:
        """`message` (".package.Outer.Inner") as it is written in the generated file; remembers the import."""
        module, name = self._homes[message]
        if module not in self._aliases:
            short = module.rpartition(".")[2]
            taken = short in self._aliases.values()
            self._aliases[module] = module.replace(".", "_") if taken else short
        return f"{self._aliases[module]}.{name}"

    def imports(self) -> list[str]:
        """The import statements for everything that `expression` was asked for, sorted."""
        return sorted(import_line(module, alias) for module, alias in self._aliases.items())


def import_line(module: str, alias: str) -> str:
    package, _, short = module.rpartition(".")
    renamed = "" if alias == short else f" as {alias}"
    return f"from {package} import {short}{renamed}" if package else f"import {short}{renamed}"


def message_names(messages: Iterable[DescriptorProto], outer: str = "") -> Iterator[str]:
    """The names of all messages, nested ones as "Outer.Inner"."""
    for message in messages:
        yield f"{outer}{message.name}"
        yield from message_names(message.nested_type, f"{outer}{message.name}.")


def module_name(proto: str, suffix: str) -> str:
    """ "api/guest.proto" with suffix "_pb2" is "api.guest_pb2", as protoc's own Python generator has it."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + suffix


def python_name(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def read_comments(file: FileDescriptorProto) -> Comments:
    return {
        tuple(location.path): location.leading_comments.strip()
        for location in file.source_code_info.location
        if location.leading_comments
    }


def read_services(file: FileDescriptorProto, types: Types) -> list[Service]:
    """What the texts are made of: the file's services, with all names as Python has them."""
    comments = read_comments(file)
    services = []
    for at, service in enumerate(file.service):
        full_name = f"{file.package}.{service.name}" if file.package else service.name
        methods = [
            Method(
                name=python_name(method.name),
                path=f"/{full_name}/{method.name}",
                request=types.expression(method.input_type),
                reply=types.expression(method.output_type),
                streams_in=method.client_streaming,
                streams_out=method.server_streaming,
                comment=comments.get((_SERVICE_FIELD, at, _METHOD_FIELD, number), ""),
            )
            for number, method in enumerate(service.method)
        ]
        services.append(Service(service.name, full_name, methods, comments.get((_SERVICE_FIELD, at), "")))
    return services


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """One `*_ttrpc.py` for each file to generate that has a service."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    for file in request.proto_file:
        if file.name in request.file_to_generate and file.service:
            types = Types(request.proto_file)
            services = read_services(file, types)
            path = module_name(file.name, "_ttrpc").replace(".", "/") + ".py"
            response.file.add(name=path, content=file_text(file.name, services, types.imports()))
    return response


def main() -> None:
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


if __name__ == "__main__":
    main()

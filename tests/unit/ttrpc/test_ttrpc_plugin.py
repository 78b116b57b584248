"""The protoc plugin: what it makes of a .proto is imported, type-checked, served and called."""

import asyncio
import importlib
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from ttrpc import Client, Server, StatusError
from ttrpc.plugin import Types, generate, message_names, python_name
from ttrpc.plugin_text import Method, Service, file_text

ROOT = Path(__file__).resolve().parents[3]

PROTO = """
syntax = "proto3";
package acme.echo.v1;
import "google/protobuf/empty.proto";
import "plugin_sample/other/echo.proto";

// Says things again.
//
// Or "not".
service Echo {
  // Once.
  rpc Say(Words) returns (Words);
  rpc Repeat(Words.Count) returns (stream Words);
  // Many into one, "quoted"
  rpc Join(stream Words) returns (Words);
  rpc Talk(stream Words) returns (stream acme.other.Words);
  // Not in Python under this name.
  rpc import(google.protobuf.Empty) returns (google.protobuf.Empty);
}

service Nothing {}

message Words {
  message Count { string text = 1; uint32 times = 2; }
  string text = 1;
}
"""

OTHER = """
syntax = "proto3";
package acme.other;
message Words { string text = 1; }
"""

# Uses every kind, so that the type checker sees the bases and the stubs from a user's side.
USER = """
from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from plugin_sample.echo_pb2 import Words
from plugin_sample.echo_ttrpc import EchoBase, EchoStub
from plugin_sample.other import echo_pb2 as other
from ttrpc import Client, Context


class Echo(EchoBase):
    async def Say(self, request: Words, context: Context) -> Words:
        return Words(text=f"{request.text} {context.metadata.get('tone')}")

    async def Repeat(self, request: Words.Count, context: Context) -> AsyncIterator[Words]:
        for _ in range(request.times):
            yield Words(text=request.text)

    async def Join(self, requests: AsyncIterator[Words], context: Context) -> Words:
        return Words(text=" ".join([request.text async for request in requests]))

    async def Talk(self, requests: AsyncIterator[Words], context: Context) -> AsyncIterator[other.Words]:
        async for request in requests:
            yield other.Words(text=request.text.upper())


async def use(client: Client) -> list[str]:
    stub = EchoStub(client)
    said = [(await stub.Say(Words(text="a"), timeout_s=5.0, metadata={"tone": "low"})).text]
    async with stub.Repeat(Words.Count(text="b", times=2)) as repeated:
        said += [reply.text async for reply in repeated]
    async with stub.Join(timeout_s=5.0) as joined:
        await joined.send(Words(text="c"))
        await joined.send(Words(text="d"))
        said.append((await joined.reply()).text)
    async with stub.Talk(metadata={"k": ["1", "2"]}) as talk:
        await talk.send(Words(text="e"))
        answer: other.Words | None = await talk.receive()
        assert answer is not None
        said.append(answer.text)
    return said


async def unimplemented(client: Client) -> None:
    await EchoStub(client).import_(Empty())
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the package `plugin_sample`, made by protoc and our plugin, importable."""
    root = tmp_path_factory.mktemp("plugin")
    package = root / "plugin_sample"
    (package / "other").mkdir(parents=True)
    (package / "echo.proto").write_text(PROTO)
    (package / "other" / "echo.proto").write_text(OTHER)
    (package / "user.py").write_text(USER)
    plugin = root / "protoc-gen-ttrpc"
    plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ttrpc.plugin\n')
    plugin.chmod(0o755)
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={root}", f"--plugin={plugin}"),
        *(f"--{kind}_out={root}" for kind in ("python", "pyi", "ttrpc")),
        *("plugin_sample/echo.proto", "plugin_sample/other/echo.proto"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=50)
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.split(".")[0] == "plugin_sample"]:
        del sys.modules[name]


@pytest.fixture
def generated(sample: Path) -> ModuleType:
    return importlib.import_module("plugin_sample.echo_ttrpc")


async def test_every_kind_works(sample: Path) -> None:
    user = importlib.import_module("plugin_sample.user")
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(Server([user.Echo()]).serve(theirs))
    client = Client(ours)
    assert await user.use(client) == ["a ['low']", "b", "b", "c d", "E"]
    with pytest.raises(StatusError, match=r"UNIMPLEMENTED: /acme\.echo\.v1\.Echo/import is not implemented"):
        await user.unimplemented(client)
    await client.close()
    await serving


@pytest.mark.parametrize("kind", ["Say", "Repeat", "Join", "Talk"])
async def test_base_answers_unimplemented(generated: ModuleType, kind: str) -> None:
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(Server([generated.EchoBase()]).serve(theirs))
    client = Client(ours)
    words = importlib.import_module("plugin_sample.echo_pb2").Words
    stub = generated.EchoStub(client)
    calls = {
        "Say": lambda: stub.Say(words()),
        "Repeat": lambda: stub.Repeat(words.Count()).receive(),
        "Join": lambda: stub.Join().reply(),
        "Talk": lambda: stub.Talk().receive(),
    }
    with pytest.raises(StatusError, match=f"UNIMPLEMENTED: /acme.echo.v1.Echo/{kind} is not implemented"):
        await calls[kind]()
    await client.close()
    await serving


def test_type_checker_is_content(sample: Path, tmp_path: Path) -> None:
    """As strict as for our own code, but for protoc's own stubs."""
    command = [sys.executable, "-m", "mypy", "--strict", "--disallow-any-explicit", "--explicit-package-bases"]
    command += [f"--cache-dir={tmp_path}", "--no-error-summary", "plugin_sample/user.py", "plugin_sample/echo_ttrpc.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=sample, env=environment, capture_output=True, text=True, timeout=55, check=False
    )
    assert result.stdout + result.stderr == ""


def test_formatter_is_content(sample: Path) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=120", "--diff"]
    command += ["plugin_sample/echo_ttrpc.py"]
    result = subprocess.run(command, cwd=sample, capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout == ""
    assert result.returncode == 0


def test_comments_become_docstrings(generated: ModuleType) -> None:
    assert inspect.getdoc(generated.EchoBase) == 'Says things again.\n\nOr "not".'
    assert generated.EchoBase.Say.__doc__ == "Once."
    assert generated.EchoStub.Join.__doc__ == 'Many into one, "quoted" '
    assert generated.NothingBase.__doc__ == "acme.echo.v1.Nothing, to be served."


def test_file_without_services_gives_nothing(sample: Path) -> None:
    assert not list((sample / "plugin_sample" / "other").glob("*_ttrpc.py"))


def test_only_files_asked_for_are_made() -> None:
    request = CodeGeneratorRequest(file_to_generate=["b.proto"])
    for name in "a", "b":
        file = request.proto_file.add(name=f"{name}.proto", package=name)
        file.service.add(name="S")
    assert [file.name for file in generate(request).file] == ["b_ttrpc.py"]


def test_no_package() -> None:
    file = FileDescriptorProto(name="dir/some-thing.proto")
    file.message_type.add(name="M")
    file.service.add(name="S").method.add(name="Do", input_type=".M", output_type=".M")
    request = CodeGeneratorRequest(file_to_generate=["dir/some-thing.proto"], proto_file=[file])
    made = generate(request).file[0]
    assert made.name == "dir/some_thing_ttrpc.py"
    assert '"/S/Do": Unary(some_thing_pb2.M, self.Do),' in made.content
    assert "from dir import some_thing_pb2\n" in made.content


def test_modules_with_one_last_name() -> None:
    files = [FileDescriptorProto(name=f"{place}/x.proto", package=place) for place in ("a", "b")]
    for file in files:
        file.message_type.add(name="M")
    types = Types(files)
    assert [types.expression(".a.M"), types.expression(".b.M"), types.expression(".a.M")] == [
        "x_pb2.M",
        "b_x_pb2.M",
        "x_pb2.M",
    ]
    assert types.imports() == ["from a import x_pb2", "from b import x_pb2 as b_x_pb2"]


def test_nested_names() -> None:
    file = FileDescriptorProto()
    outer = file.message_type.add(name="A")
    outer.nested_type.add(name="B").nested_type.add(name="C")
    assert list(message_names(file.message_type)) == ["A", "A.B", "A.B.C"]


def test_keywords() -> None:
    assert [python_name("import"), python_name("Import")] == ["import_", "Import"]


def test_hostile_comment_stays_in_its_docstring() -> None:
    method = Method("M", "/s.S/M", "x_pb2.M", "x_pb2.M", False, False, 'ends here """ + \\')
    source = file_text("x.proto", [Service("S", "s.S", [method], "")], ["import x_pb2"])
    compile(source, "x_ttrpc.py", "exec")

"""`--change`: each instruction, what it does to what was there, and what is refused."""

import pytest

from shim.commit.change import Json, changed
from shim.errors import SpecError


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, 'CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ({"Cmd": ["x"]}, "CMD a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ({"Cmd": ["x"]}, "cmd []", {"Cmd": []}),
        ({}, "CMD [ -f /x ] && y", {"Cmd": ["/bin/sh", "-c", "[ -f /x ] && y"]}),
        ({"Cmd": ["x"]}, 'ENTRYPOINT ["/e"]', {"Entrypoint": ["/e"]}),
        ({}, "ENV A=1", {"Env": ["A=1"]}),
        ({"Env": ["A=1", "B=2"]}, 'ENV A="x y" C=3=4', {"Env": ["A=x y", "B=2", "C=3=4"]}),
        ({}, "ENV A x y", {"Env": ["A=x y"]}),
        ({}, "ENV A=", {"Env": ["A="]}),
        ({"Labels": {"a": "1"}}, "LABEL b=2 'c d'=3", {"Labels": {"a": "1", "b": "2", "c d": "3"}}),
        ({}, "EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ({}, "EXPOSE 8000-8001", {"ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}}}),
        ({}, "STOPSIGNAL sigint", {"StopSignal": "SIGINT"}),
        ({}, "STOPSIGNAL 9", {"StopSignal": "9"}),
        ({"User": "a"}, "USER 1:2", {"User": "1:2"}),
        ({"Volumes": {"/a": {}}}, "VOLUME /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ({}, 'VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ({"WorkingDir": "/a"}, "WORKDIR b", {"WorkingDir": "/a/b"}),
        ({"WorkingDir": "/a"}, "WORKDIR /b/../c", {"WorkingDir": "/c"}),
        ({}, "WORKDIR b", {"WorkingDir": "/b"}),
    ],
)
def test_an_instruction(before: Json, change: str, after: Json) -> None:
    kept = {"Kept": 1}
    assert changed({**before, **kept}, [change]) == {**after, **kept}


def test_they_are_carried_out_in_order_and_the_base_stays() -> None:
    base: Json = {"Env": ["A=1"], "Labels": {"a": "b"}}
    assert changed(base, ["ENV A=2", "ENV A=3", "LABEL a=c"]) == {"Env": ["A=3"], "Labels": {"a": "c"}}
    assert base == {"Env": ["A=1"], "Labels": {"a": "b"}}


@pytest.mark.parametrize(
    "change",
    [
        *("", "RUN x", "HEALTHCHECK NONE", "ONBUILD RUN x", "CMD", "ENV", "ENV A", "LABEL =x", "USER", "USER a b"),
        *("EXPOSE http", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 9-8", "EXPOSE 80/icmp", "VOLUME a", "VOLUME", "WORKDIR"),
        *("STOPSIGNAL a b", "STOPSIGNAL §", "ENV A='x", "ENV A=1 B"),
    ],
)
def test_a_bad_one_is_refused_by_name(change: str) -> None:
    with pytest.raises(SpecError) as error:
        changed({}, [change])
    assert repr(change) in str(error.value)

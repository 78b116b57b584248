"""Names of images, as docker and nerdctl read them."""

import pytest

from shim.commit.reference import full_name
from shim.errors import SpecError

_LONG = "a" * 128


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1", "docker.io/library/web:1"),
        ("team/web", "docker.io/team/web:latest"),
        ("localhost/web", "localhost/web:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
        ("registry.example/a/b/c:v1.0-x_Y", "registry.example/a/b/c:v1.0-x_Y"),
        ("registry.example:443/a", "registry.example:443/a:latest"),
        ("docker.io/web:2", "docker.io/library/web:2"),
        ("a__b-c.d--e:1", "docker.io/library/a__b-c.d--e:1"),
        ("[::1]:5000/web:1", "[::1]:5000/web:1"),
        (f"web:{_LONG}", f"docker.io/library/web:{_LONG}"),
    ],
)
def test_a_name_is_made_whole(name: str, full: str) -> None:
    assert full_name(name) == full
    assert full_name(full) == full


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ":",
            "Web",
            "team/Web",
            "web:",
            ":1",
            "web:-1",
            "web:a b",
            "a//b",
            "/web",
            "web/",
            "-web",
            "a___b",
            "a..b",
        ),
        *("registry.example/", "web:1:2", "web\n", "wéb", f"web:{_LONG}a", "a" * 300, "0" * 64),
        "web@sha256:" + "0" * 64,
    ],
)
def test_what_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(SpecError) as error:
        full_name(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)

"""Mount templates: exactly containerd's four functions, and nothing else of text/template."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import SpecError, UnsupportedError
from shim.rootfs.template import ActiveMount, expand

MOUNTS = [ActiveMount(f"source{i}", f"target{i}", f"/point/{i}") for i in range(4)]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("{{ mount 0 }}/upper", "/point/0/upper"),
        ("X-containerd.mkdir.path={{ mount 0 }}/work:0755", "X-containerd.mkdir.path=/point/0/work:0755"),
        ("lowerdir={{ overlay 1 3 }}", "lowerdir=/point/1:/point/2:/point/3"),
        ("lowerdir={{ overlay 3 1 }}", "lowerdir=/point/3:/point/2:/point/1"),
        ("{{ overlay 2 2 }}", "/point/2"),
        ("{{ source 1 }} {{ target 2 }}", "source1 target2"),
        ("{{mount 0}}{{\t mount\n1 }}", "/point/0/point/1"),
        ("nothing } to }} do {", "nothing } to }} do {"),
        ("", ""),
    ],
)
def test_what_containerd_writes(text: str, expanded: str) -> None:
    assert expand(text, MOUNTS) == expanded


@pytest.mark.parametrize("text", ["{{ mount 4 }}", "{{ mount -1 }}", "{{ overlay 0 4 }}", "{{ overlay 4 0 }}"])
def test_a_mount_that_is_not_there(text: str) -> None:
    with pytest.raises(SpecError, match=r"names a mount beyond the 4 before it"):
        expand(text, MOUNTS)


@pytest.mark.parametrize(
    "text",
    [
        "{{ mount }}",
        "{{ mount 0 1 }}",
        "{{ overlay 0 }}",
        "{{ mount0 }}",
        "{{ mount 00 }}",
        "{{ mount 0x1 }}",
        "{{ mount 0 | printf }}",
        "{{- mount 0 -}}",
        "{{ if true }}x{{ end }}",
        '{{ "text" }}',
        "{{ mount 0",
        "{{",
        "{{}}",
        "{{ umount 0 }}",
        "{{ mount 0 } }",
        "{{ mount ٣ }}",
    ],
)
def test_any_other_template_is_refused_whole(text: str) -> None:
    with pytest.raises(UnsupportedError, match="mount template"):
        expand(f"before {text}", MOUNTS)


_SPACE = st.text(" \t\r\n", max_size=3)
_LITERALS = st.text(max_size=20).map(lambda text: text.replace("{", "("))


@st.composite
def _actions(draw: st.DrawFn) -> tuple[str, str]:
    name = draw(st.sampled_from(["source", "target", "mount", "overlay"]))
    numbers = draw(st.lists(st.integers(0, 3), min_size=1 + (name == "overlay"), max_size=1 + (name == "overlay")))
    words = [name, *map(str, numbers)]
    space = draw(_SPACE) + " "
    text = "{{" + draw(_SPACE) + space.join(words) + draw(_SPACE) + "}}"
    if name == "overlay":
        first, last = numbers
        chosen = MOUNTS[first : last + 1] if first <= last else MOUNTS[last : first + 1][::-1]
        return text, ":".join(mount.mount_point for mount in chosen)
    field = "mount_point" if name == "mount" else name
    return text, str(getattr(MOUNTS[numbers[0]], field))


@given(st.lists(_LITERALS.map(lambda text: (text, text)) | _actions()))
def test_literals_stay_and_actions_are_replaced_in_place(pieces: list[tuple[str, str]]) -> None:
    text = "".join(piece[0] for piece in pieces)
    assert expand(text, MOUNTS) == "".join(piece[1] for piece in pieces)


@given(st.text(st.sampled_from("{} mountsurceagly0123-|\n"), max_size=40))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expanded = expand(text, MOUNTS)
    except (SpecError, UnsupportedError):
        assert "{{" in text
    else:
        assert "{{" in text or expanded == text

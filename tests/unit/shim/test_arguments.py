"""The command line is read as Go's flag package reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.arguments import Arguments, ArgumentsError, parse

_FIELDS = {
    "namespace": "namespace",
    "address": "address",
    "publish-binary": "publish_binary",
    "id": "container_id",
    "bundle": "bundle",
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def test_what_containerd_writes() -> None:
    words = "-namespace default -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id c1"
    arguments = parse([*words.split(), "-debug", "start"])
    assert vars(arguments) == vars(
        Arguments(
            action="start",
            namespace="default",
            address="/run/containerd/containerd.sock",
            publish_binary="/usr/bin/containerd",
            container_id="c1",
            debug=True,
        )
    )


def test_delete_names_its_bundle() -> None:
    arguments = parse(["-id", "c1", "-bundle", "/run/b", "delete"])
    assert (arguments.action, arguments.bundle) == ("delete", "/run/b")


def test_no_words_ask_for_nothing() -> None:
    assert vars(parse([])) == vars(Arguments())


@given(
    values=st.dictionaries(st.sampled_from(sorted(_FIELDS)), st.text()),
    forms=st.lists(st.sampled_from(["-{} ", "--{} ", "-{}=", "--{}="]), min_size=5, max_size=5),
    debug=st.sampled_from([None, *_TRUE, *_FALSE]),
    action=st.sampled_from(["", "start", "delete"]),
)
def test_every_way_to_write_a_flag_means_the_same(
    values: dict[str, str], forms: list[str], debug: str | None, action: str
) -> None:
    words: list[str] = []
    for form, (name, value) in zip(forms, values.items(), strict=False):
        flag = form.format(name)
        words += [flag + value] if flag.endswith("=") else [flag.rstrip(), value]
    if debug is not None:
        words.append(f"-debug={debug}")
    arguments = parse([*words, *([action] if action else [])])
    expected = Arguments(action=action, debug=debug in _TRUE)
    for name, value in values.items():
        setattr(expected, _FIELDS[name], value)
    assert vars(arguments) == vars(expected)


@given(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(["-id", "-debug", "--", "-", "start", "-v=1"]))))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        action = parse(words).action
    except ArgumentsError:
        return
    assert action in ("", "start", "delete")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-nonsense", "start"], "flag provided but not defined: -nonsense"),
        (["---id", "x"], "flag provided but not defined: --id"),
        (["-id"], "flag needs an argument: -id"),
        (["-debug=maybe"], "invalid boolean value 'maybe' for -debug"),
        (["-debug="], "invalid boolean value '' for -debug"),
        (["-debug", "false"], "unknown action 'false'"),
        (["stop"], "unknown action 'stop': expected one of start, delete"),
        (["-"], "unknown action '-'"),
    ],
)
def test_what_containerd_would_not_write_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse(words)
    assert str(caught.value).startswith(message)


def test_a_value_may_look_like_a_flag_or_be_empty() -> None:
    assert parse(["-id", "-debug", "-bundle", "", "start"]).container_id == "-debug"


def test_the_last_of_two_flags_counts() -> None:
    arguments = parse(["-debug", "-id", "a", "-debug=false", "-id=b", "start"])
    assert (arguments.debug, arguments.container_id) == (False, "b")


def test_two_dashes_end_the_flags() -> None:
    assert parse(["-id", "a", "--", "start"]).action == "start"


@pytest.mark.parametrize("word", ["-v", "-version", "--version", "-v=true"])
def test_version(word: str) -> None:
    assert parse([word]).version


def test_help_and_info() -> None:
    assert parse(["-h"]).help
    assert parse(["-help"]).help
    assert parse(["-info"]).info

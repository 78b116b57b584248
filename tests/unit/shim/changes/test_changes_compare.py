"""What is to be done, of what was applied and what is listed: a tree in a record and a tree in a listing. Pure."""

import stat

from hypothesis import given
from hypothesis import strategies as st

from shim.changes.beneath import Names
from shim.changes.compare import Comparison, Step, What
from shim.changes.listing import RACY, Item
from shim.changes.record import Known

_NAMES = st.lists(st.sampled_from([b"a", b"b", b"\xff"]), max_size=4).map(tuple)


def item(names: Names, digest: bytes = b"d" * 16, *, directory: bool = True, inode: int = 0) -> Item:
    """A directory, or one of two names of a file."""
    mode = stat.S_IFDIR if directory else stat.S_IFREG
    return Item(
        names=names,
        packed=b"",
        mode=mode,
        uid=0,
        gid=0,
        rdev=0,
        size=0,
        mtime_ns=0,
        ctime_ns=0,
        inode=inode,
        links=1 if directory else 2,
        target=b"",
        xattrs={},
        opaque=False,
        needless=False,
        brief=False,
        inline=b"",
        digest=digest,
    )


def steps(known: list[Known], items: list[Item]) -> list[Step]:
    """All of a comparison."""
    comparison = Comparison(iter(known))
    return [*comparison.steps(items), *comparison.rest()]


def done(known: list[Known], items: list[Item]) -> list[tuple[What, Names]]:
    return [(step.what, step.names) for step in steps(known, items)]


def closed(names: set[Names]) -> list[Names]:
    """With all directories that lead to them, in order."""
    return sorted({each[:depth] for each in {*names, ()} for depth in range(len(each) + 1)})


@given(st.sets(_NAMES), st.sets(_NAMES), st.sets(_NAMES))
def test_every_name_is_kept_put_or_removed(before: set[Names], now: set[Names], changed: set[Names]) -> None:
    was, is_, other = closed(before), closed(now), set(changed)
    known = [Known(each, b"d" * 16, covers=False) for each in was]
    found = done(known, [item(each, b"e" * 16 if each in other else b"d" * 16) for each in is_])
    assert [names for _, names in found] == sorted(names for _, names in found)
    put = {names for what, names in found if what is What.PUT}
    removed = {names for what, names in found if what is What.REMOVE}
    assert put == {each for each in is_ if each in other or each not in was}
    # Of what is gone only the uppermost: the rest goes with it.
    gone = set(was) - set(is_)
    assert removed == {each for each in gone if each[:-1] not in gone}
    assert len(found) == len(is_) + len(removed)


def test_what_is_in_a_directory_goes_with_it_also_when_a_file_takes_its_place() -> None:
    known = [Known(names, b"d" * 16, covers=False) for names in ((), (b"a",), (b"a", b"x"), (b"b",))]
    now = [item(()), item((b"a",), b"e" * 16, directory=False)]
    assert done(known, now) == [(What.KEEP, ()), (What.PUT, (b"a",)), (What.REMOVE, (b"b",))]


def test_what_may_have_changed_is_put() -> None:
    assert done([Known((), RACY, covers=False)], [item((), RACY)]) == [(What.PUT, ())]
    assert done([Known((), b"d" * 16, covers=False)], [item((), RACY)]) == [(What.PUT, ())]


def test_all_names_of_a_file_that_is_made_anew_are() -> None:
    first, second = item((b"a",), directory=False, inode=5), item((b"b",), directory=False, inode=5)
    second.same_as = (b"a",)
    both = [Known((b"a",), RACY, covers=False), Known((b"b",), b"d" * 16, covers=False)]
    assert [what for what, _ in done(both, [first, second])] == [What.PUT, What.PUT]
    both[0] = Known((b"a",), b"d" * 16, covers=False)
    assert [what for what, _ in done(both, [first, second])] == [What.KEEP, What.KEEP]
    assert [what for what, _ in done(both[:1], [first, second])] == [What.KEEP, What.PUT]


def test_pages_make_no_difference() -> None:
    known = [Known(names, b"d" * 16, covers=False) for names in ((), (b"a",), (b"a", b"x"), (b"b",), (b"c",))]
    items = [item(()), item((b"a",)), item((b"c",)), item((b"d",))]
    comparison = Comparison(iter(known))
    apart = [step for each in items for step in comparison.steps([each])] + list(comparison.rest())
    assert apart == steps(known, items)

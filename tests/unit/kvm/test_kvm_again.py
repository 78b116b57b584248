"""What of the kvm lane is done once more after a failure."""

from tests.kvm.harness.again import is_wanted

_BOOKWORM = "tests/kvm/test_bookworm.py::TestBookworm"
_ALONE = "tests/kvm/test_release_archive.py::test_checksums"


def test_the_whole_suite_of_a_step_that_failed_and_no_other() -> None:
    failed = [f"{_BOOKWORM}::test_exec"]
    assert is_wanted(f"{_BOOKWORM}::test_host_is_clean", failed)
    assert is_wanted(f"{_BOOKWORM}::test_exec", failed)
    assert not is_wanted("tests/kvm/test_trixie.py::TestTrixie::test_exec", failed)
    assert not is_wanted(_ALONE, failed)


def test_a_test_of_no_suite_is_done_alone() -> None:
    assert is_wanted(_ALONE, [_ALONE])
    assert not is_wanted("tests/kvm/test_release_archive.py::test_sbom", [_ALONE])


def test_all_of_a_file_that_could_not_be_read() -> None:
    assert is_wanted(f"{_BOOKWORM}::test_exec", ["tests/kvm/test_bookworm.py"])


def test_nothing_where_nothing_failed() -> None:
    assert not is_wanted(_ALONE, [])

"""Everything on the host is named by a hash of containerd, namespace and id."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from shim.identity import DEFAULT_SOCKET_DIR, Identity

_WORDS = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=76)


def test_the_digest_is_that_of_the_joined_names() -> None:
    identity = Identity("/run/containerd/containerd.sock", "k8s.io", "c1")
    assert identity.digest == hashlib.sha256(b"/run/containerd/containerd.sock/k8s.io/c1").hexdigest()
    assert identity.key == identity.digest[:24]
    assert identity.socket_path() == f"/run/containerd/s/{identity.digest}"
    assert identity.socket_path("/x") == f"/x/{identity.digest}"


@given(_WORDS, _WORDS, _WORDS, _WORDS)
def test_other_names_have_other_keys(namespace: str, container_id: str, other_namespace: str, other_id: str) -> None:
    one, other = Identity("/a", namespace, container_id), Identity("/a", other_namespace, other_id)
    assert (one.key == other.key) == ((namespace, container_id) == (other_namespace, other_id))
    assert Identity("/b", namespace, container_id).key != one.key


def test_the_longest_names_leave_the_socket_short() -> None:
    path = Identity("/run/containerd/containerd.sock", "n" * 76, "i" * 64).socket_path()
    assert len(path) == len(DEFAULT_SOCKET_DIR) + 1 + 64 == 82


def test_names_that_are_no_utf_8_have_a_key() -> None:
    assert len(Identity("/a", "n", "\udcff").key) == 24

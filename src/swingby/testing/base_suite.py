"""What every base must do, as tests: subclass `BaseSuite`, give it `make_base`, and let pytest collect it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from swingby.errors import BaseNotFoundError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.base.contract import Base

ODD_KEYS = (
    b"a b/c d.txt",
    "ü/ñ 😀.txt".encode(),
    b"100%25",
    b"q?x=1&y",
    b"h#1",
    b"plus+minus-tilde~",
    b"star*'(quote)!",
    b"back\\slash",
    b"new\nline",
    b"tab\there",
    b"..hidden",
    b"dots...",
    b" lead",
    b"trail ",
)


class BaseSuite(ABC):
    """The contract of `Base`, sentence by sentence.

    Attributes:
        prefix: all keys of the suite begin with it; it ends in a slash.
        odd_keys: keys that the base must store; a subclass may leave out what its storage forbids.
        has_flat_keys: whether `a` and `a/b` can both be objects.
    """

    prefix = b"suite/"
    odd_keys = ODD_KEYS
    has_flat_keys = True

    @abstractmethod
    def make_base(self) -> Base:
        """A base in which nothing lies under `prefix`."""

    @pytest.fixture
    def base(self) -> Iterator[Base]:
        """The base of one test."""
        made = self.make_base()
        yield made
        made.close()

    def test_what_was_written_is_read(self, base: Base) -> None:
        """And the write tells size and version."""
        info = base.write(self.prefix + b"a", b"hello")
        payload = base.read(self.prefix + b"a")
        assert bytes(payload.data) == b"hello"
        assert payload.info == info == base.stat(self.prefix + b"a")
        assert info.size == 5

    def test_ranges_end_where_the_object_ends(self, base: Base) -> None:
        """Also ranges that begin behind it."""
        base.write(self.prefix + b"a", b"0123456789")

        def read(start: int, size: int | None) -> bytes:
            return bytes(base.read(self.prefix + b"a", start, size).data)

        assert read(2, 3) == b"234"
        assert read(8, 100) == b"89"
        assert read(10, 5) == read(50, 5) == read(3, 0) == b""
        assert read(4, None) == b"456789"
        assert base.read(self.prefix + b"a", 50, 5).info.size == 10

    def test_an_empty_object_is_an_object(self, base: Base) -> None:
        """It is listed, found and read."""
        base.write(self.prefix + b"empty", b"")
        assert bytes(base.read(self.prefix + b"empty").data) == b""
        assert base.stat(self.prefix + b"empty").size == 0
        assert self._keys(base) == [self.prefix + b"empty"]

    def test_a_large_object_comes_whole_and_in_ranges(self, base: Base) -> None:
        """Nine MiB, to pass every buffer's size."""
        data = bytes(range(251)) * (9 << 12)
        base.write(self.prefix + b"large", data)
        assert bytes(base.read(self.prefix + b"large").data) == data
        assert bytes(base.read(self.prefix + b"large", 5 << 20, 1 << 20).data) == data[5 << 20 : 6 << 20]

    def test_an_absent_object_is_not_found(self, base: Base) -> None:
        """By read and stat; deleting it is success."""
        for call in (base.read, base.stat):
            with pytest.raises(ObjectNotFoundError) as error:
                call(self.prefix + b"absent")
            assert error.value.key is not None
            assert "absent" in error.value.key
        base.delete(self.prefix + b"absent")

    def test_a_deleted_object_is_gone(self, base: Base) -> None:
        """From reads and listings."""
        base.write(self.prefix + b"a", b"x")
        base.delete(self.prefix + b"a")
        assert self._keys(base) == []
        with pytest.raises(ObjectNotFoundError):
            base.read(self.prefix + b"a")

    def test_another_version_is_refused(self, base: Base) -> None:
        """Whole and in ranges; without a version asked for it is read."""
        old = base.write(self.prefix + b"a", b"old bytes")
        new = base.write(self.prefix + b"a", b"new bytes!")
        assert old.version != new.version
        with pytest.raises(ObjectChangedError):
            base.read(self.prefix + b"a", version=old.version)
        with pytest.raises(ObjectChangedError):
            base.read(self.prefix + b"a", 1, 2, old.version)
        assert bytes(base.read(self.prefix + b"a", version=new.version).data) == b"new bytes!"

    def test_a_create_only_write_meets_an_object(self, base: Base) -> None:
        """And leaves it as it is."""
        base.write(self.prefix + b"a", b"first", if_absent=True)
        with pytest.raises(ObjectExistsError):
            base.write(self.prefix + b"a", b"second", if_absent=True)
        assert bytes(base.read(self.prefix + b"a").data) == b"first"

    def test_odd_keys_are_kept(self, base: Base) -> None:
        """Spaces, unicode, percent signs, control characters: listed, found and read."""
        for key in self.odd_keys:
            base.write(self.prefix + key, key)
        assert self._keys(base) == sorted(self.prefix + key for key in self.odd_keys)
        for key in self.odd_keys:
            assert bytes(base.read(self.prefix + key).data) == key
            assert base.stat(self.prefix + key).size == len(key)

    def test_a_listing_is_in_byte_order_and_tells_versions(self, base: Base) -> None:
        """`a.b` comes before `a/b`, and `a/` before `a0`."""
        keys = [self.prefix + key for key in (b"a/b", b"a.b", b"a0", b"a/a/z", b"b", b"A", b"a-/x")]
        written = {key: base.write(key, key * 3) for key in keys}
        pages = list(base.list(self.prefix))
        assert [key for page in pages for key in page.keys] == sorted(keys)
        for page in pages:
            for key, size, version in zip(page.keys, page.sizes.tolist(), page.versions, strict=True):
                assert written[key] == (size, version.tobytes())

    def test_a_listing_can_go_on_after_a_key(self, base: Base) -> None:
        """The key itself is not listed again."""
        keys = [self.prefix + b"d%d/k%02d" % (number % 3, number) for number in range(30)]
        for key in keys:
            base.write(key, b"x")
        keys.sort()
        assert self._keys(base, keys[11]) == keys[12:]
        assert self._keys(base, keys[-1]) == []

    def test_only_the_prefix_is_listed(self, base: Base) -> None:
        """Not what begins alike."""
        base.write(self.prefix + b"in/a", b"x")
        base.write(self.prefix + b"in2/a", b"x")
        if self.has_flat_keys:
            base.write(self.prefix + b"in", b"x")
        assert [key for page in base.list(self.prefix + b"in/") for key in page.keys] == [self.prefix + b"in/a"]

    def test_threads_may_share_it(self, base: Base) -> None:
        """Reads of many threads give each its own bytes."""
        for number in range(16):
            base.write(self.prefix + b"%02d" % number, b"%02d" % number * 1000)
        wrong: list[int] = []

        def read(number: int) -> None:
            got = [bytes(base.read(self.prefix + b"%02d" % number).data) for _ in range(20)]
            wrong.extend(number for data in got if data != b"%02d" % number * 1000)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_an_absent_container_is_said(self, base: Base) -> None:
        """Where prefixes are folders, or buckets can be absent."""
        missing, prefix = self.make_absent(base)
        with pytest.raises(BaseNotFoundError):
            list(missing.list(prefix))
        missing.close()

    def make_absent(self, base: Base) -> tuple[Base, bytes]:
        """A base and a prefix whose container does not exist."""
        return base, b"missing/"

    def _keys(self, base: Base, after: bytes = b"") -> list[bytes]:
        return [key for page in base.list(self.prefix, after) for key in page.keys]

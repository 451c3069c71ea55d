"""The public functions. Each states how fresh its bytes are."""

from __future__ import annotations

import contextlib
import copy
import os
from typing import TYPE_CHECKING

from swingby import assemble, sessions
from swingby.core.containers.layouts import bad_containers, hidden_by
from swingby.core.selection import select
from swingby.core.url import parse, shown, shown_url
from swingby.data.dataset import Dataset
from swingby.data.opening import Opener
from swingby.data.prefetch import Prefetch, Target
from swingby.data.progress import Reached, Reporter
from swingby.errors import EmptyDatasetError, UrlError
from swingby.keeper.protocol import Selection
from swingby.path.url_reader import UrlReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from swingby.config import Overrides
    from swingby.data.progress import Bar, ProgressCall

REFRESH_MODES = ("auto", "always", "never")


def open(
    url: str | os.PathLike[str],
    manifest: str | None = None,
    refresh: str = "auto",
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    *,
    layout: str = "objects",
    on_bad: str = "raise",
    progress: ProgressCall | Bar | None = None,
    settings: Overrides = None,
) -> Dataset:
    """A snapshot of everything under a prefix.

    Args:
        url: a directory, `s3://bucket/prefix` (az, gs alike), where the prefix is a folder, with or without the last slash; or
            the `https://` URL of a list of files.
        manifest: digest of an earlier snapshot to open again.
        refresh: "auto" lists again unless the last listing is younger than ten times what it took (at most ten minutes), and uses
            it if the base is down; "always" lists; "never" uses the last listing.
        include, exclude: one or more `fnmatch` patterns over keys relative to the URL, where `*` crosses slashes. The key of
            a sample in a container begins with the container's.
        layout: "objects": each object is a sample; "tar", "webdataset", "zip", "tfrecord", "parquet": the objects named so are
            containers, and what is in them are the samples; see docs/containers.md. A saved manifest brings its own.
        on_bad: "raise": a container that is damaged is an error that names all such; "skip": they are left out, and
            `dataset.bad_containers` names them.
        progress: called with objects and bytes while a listing goes on; or a bar, as `tqdm(unit=" objects")`: anything with
            `total`, `update(n)` and `close()`, told of objects.
        settings: dotted keys to values; see `swingby.config`.

    Raises:
        UrlError: a URL nobody reads.
        BaseNotFoundError, EmptyDatasetError: no such bucket or directory; nothing in it.
        ManifestNotFoundError: `manifest`, or refresh="never", and none is saved.
        BadContainerError: containers are damaged, or not what their names say.
        AccessDeniedError, AuthenticationError, BaseUnavailableError: the base's.
        ConfigError: a setting is wrong.
    """
    if refresh not in REFRESH_MODES:
        raise ValueError(f"refresh={refresh!r}; it is one of {', '.join(REFRESH_MODES)}")
    if on_bad not in {"raise", "skip"}:
        raise ValueError(f"on_bad={on_bad!r}; it is one of raise, skip")
    filters = Selection(_patterns(include), _patterns(exclude))
    text = os.fspath(url)
    session = sessions.session(settings)
    location = assemble.locate(parse(text), session.settings, folder=True)
    opener = Opener(session.settings, session.client, location, session.fallback(location), layout)
    with contextlib.closing(Reporter(progress, in_bytes=False)) as report:
        reader = opener.open(manifest, refresh, lambda *done: report.tell(Reached(*done), 2))
        report.finish(len(reader.manifest))
    if on_bad == "raise" and (error := bad_containers(reader.manifest.root)):
        raise error
    hidden = [pattern for pattern in hidden_by(reader.manifest.root.layout) if pattern not in filters.exclude]
    filters = Selection(filters.include, [*filters.exclude, *hidden])
    selection = select(reader.manifest.keys(), filters.include, filters.exclude)
    if selection is not None and not len(selection):
        raise EmptyDatasetError(f"the filters leave nothing of {location.name}", remedy="Check include= and exclude=")
    again = (_open_again, (text, reader.manifest.digest, filters, session.settings))
    return Dataset(text, reader, filters, selection, again)


def read(
    url: str | os.PathLike[str],
    start: int = 0,
    stop: int | None = None,
    *,
    max_age_seconds: float = 0.0,
    settings: Overrides = None,
) -> bytes:
    """The bytes [start, stop) of one object; fewer where it ends before.

    Args:
        url: of the object.
        start, stop: in bytes; stop None: to the end.
        max_age_seconds: what is cached is used without asking the base if it was validated so recently; 0: always asked.
        settings: as in `open`.

    Raises:
        ObjectNotFoundError: no such object.
        ValueError: a range that makes no sense.
        AccessDeniedError, AuthenticationError, BaseUnavailableError: the base's.
    """
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"bytes from {start} to {stop}: give 0 <= start <= stop")
    return _reader(url, max_age_seconds, settings).read(start, stop)


def read_into(
    url: str | os.PathLike[str],
    buffer: Buffer,
    start: int = 0,
    *,
    max_age_seconds: float = 0.0,
    settings: Overrides = None,
) -> int:
    """Fill a writable buffer with an object's bytes from `start` on; how many, fewer than asked where the object ends.

    Args and errors are those of `read`; ValueError also for a buffer that is read-only or not contiguous.
    """
    view = memoryview(buffer)
    if view.readonly or not view.contiguous:
        raise ValueError("the buffer must be writable and contiguous")
    if start < 0:
        raise ValueError(f"start={start}: it is not negative")
    return _reader(url, max_age_seconds, settings).read_into(view.cast("B"), start)


def prefetch(
    urls: str | os.PathLike[str] | Dataset | Sequence[str | os.PathLike[str] | Dataset],
    *,
    pin: bool = True,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    progress: ProgressCall | Bar | None = None,
    settings: Overrides = None,
) -> Prefetch:
    """Begin to make objects and datasets present, one after another, and return at once.

    Args:
        urls: of objects or prefixes, or datasets; one or several. `https://` URLs are of objects: of a list, open the dataset.
        pin: keep what comes as long as the handle lives: of each level three quarters at most.
        include, exclude: as in `open`, of every prefix.
        progress: called with objects, bytes, and the totals of both as far as they are known; or a bar, as
            `tqdm(unit="B", unit_scale=True)`: anything with `total`, `update(n)` and `close()`, told of bytes. From another thread.
        settings: as in `open`.

    Returns:
        A handle: `progress`, `done`, `wait(timeout)`, `cancel()`, and a context manager.

    Raises:
        UrlError: it is no URL.
        ConfigError: a setting is wrong.
        ValueError: nothing is given, or `progress` is neither function nor bar.
    """
    given = [urls] if isinstance(urls, str | os.PathLike | Dataset) else list(urls)
    if not given:
        raise ValueError("prefetch takes one URL at least")
    report = Reporter(progress, in_bytes=True)
    return Prefetch([_target(one, _patterns(include), _patterns(exclude), settings) for one in given], report, pin=pin)


def _target(
    one: str | os.PathLike[str] | Dataset, include: list[str], exclude: list[str], settings: Overrides
) -> Target:
    if isinstance(one, Dataset):
        return Target(
            shown_url(one.url), one.client, None, lambda: copy.copy(one)
        )  # opened again, as a keeper may be new
    session = sessions.session(settings)
    address = parse(os.fspath(one))
    is_folder = bool(include or exclude) or not address.path or address.path.endswith("/")
    location = assemble.locate(address, session.settings, folder=is_folder)
    return Target(
        shown(address),
        session.client,
        None if is_folder else location,
        lambda: open(one, include=include, exclude=exclude, settings=session.settings),
    )


def _reader(url: str | os.PathLike[str], max_age_seconds: float, settings: Overrides) -> UrlReader:
    session = sessions.session(settings)
    address = parse(url)
    if not address.path or address.path.endswith("/"):
        raise UrlError(f"{shown(address)!r} is a folder", remedy="Give the URL of one object, or use swingby.open")
    location = assemble.locate(address, session.settings, folder=False)
    seconds = session.settings.client.deadline_seconds
    return UrlReader(session.client, location, session.fallback(location), seconds, max_age_seconds)


def _open_again(url: str, digest: str, filters: Selection, settings: Overrides) -> Dataset:
    """What a pickled dataset becomes."""
    return open(url, digest, "never", filters.include, filters.exclude, on_bad="skip", settings=settings)


def _patterns(given: str | Sequence[str] | None) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(given)

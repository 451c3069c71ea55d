"""What fsspec's users say of a target, as settings of ours; and their paths."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from swingby.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = "swingby"
_TARGET = re.compile(r"([a-z][a-z0-9+.-]*)://")

# Options of s3fs and of its client that say where and as whom. Others are refused unless they say nothing of what is read.
_S3: dict[str, str] = {
    "key": "access_key_id",
    "username": "access_key_id",
    "secret": "secret_access_key",
    "password": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "anon": "anonymous",
}
_S3_CLIENT: dict[str, str] = {
    "endpoint_url": "endpoint",
    "region_name": "region",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
# Also what belongs to `open` in text mode: Hugging Face datasets, streaming, gives that to the file system.
WITHOUT_MEANING = {
    "asynchronous",
    "auto_mkdir",
    "batch_size",
    "block_size",
    "cache_regions",
    "default_block_size",
    "default_cache_type",
    "default_fill_cache",
    "encoding",
    "errors",
    "fixed_upload_size",
    "listings_expiry_time",
    "loop",
    "max_concurrency",
    "max_paths",
    "newline",
    "protocol",
    "skip_instance_cache",
    "use_listings_cache",
}


def scheme_of(target_protocol: str) -> str:
    """The scheme that a protocol of fsspec means."""
    return {"local": "file", "s3a": "s3"}.get(target_protocol, target_protocol)


def overrides(scheme: str, options: Mapping[str, Any], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings by dotted key.

    Args:
        scheme: of the target.
        options: `target_options`, as one would give them to the target's own file system.
        settings: more, by dotted key; stronger.

    Raises:
        ConfigError: an option that cannot be honoured.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name in WITHOUT_MEANING or value is None:
            continue
        if scheme == "s3" and name in _S3:
            found["s3." + _S3[name]] = value
        elif scheme == "s3" and name == "client_kwargs":
            found |= {"s3." + _known(_S3_CLIENT, inner, name): one for inner, one in value.items() if one is not None}
        elif scheme == "s3" and name == "config_kwargs":
            found |= _addressing(value)
        else:
            _refuse(name)
    return found | dict(settings or {})


def split(path: str | os.PathLike[str]) -> tuple[str, str]:
    """A path or URL as the target's protocol, where it says so, and the rest without it and us."""
    text = os.fspath(path).removeprefix(f"{PROTOCOL}::").removeprefix(f"{PROTOCOL}://")
    found = _TARGET.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def path_of(scheme: str, path: str | os.PathLike[str]) -> str:
    """The target's own form of a path or URL: an absolute path for files, else "bucket/key"."""
    _, text = split(path)
    if scheme == "file":
        return os.path.abspath(os.path.expanduser(text)) if text else "/"
    return text.strip("/")


def _addressing(options: Mapping[str, Any]) -> dict[str, Any]:
    style = (options.get("s3") or {}).get("addressing_style")
    for name in options:
        if name != "s3":
            _known({"max_pool_connections": "", "connect_timeout": "", "read_timeout": "", "retries": ""}, name, "")
    return {} if style in {None, "auto"} else {"s3.path_style": style == "path"}


def _known(names: Mapping[str, str], name: str, group: str) -> str:
    if name not in names:
        _refuse(f"{group}[{name!r}]" if group else name)
    return names[name]


def _refuse(name: str) -> None:
    raise ConfigError(
        f"the target's option {name!r} is not understood here",
        remedy='Say it with settings={…}, as in settings={"s3.endpoint": "http://…"}; see docs/configuration.md',
    )

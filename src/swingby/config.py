"""Settings: one frozen tree, and the only place that reads the environment and configuration files.

A value is taken from the first of: a keyword (`settings={"memory.budget_bytes": "8GiB"}`), `SWINGBY_MEMORY_BUDGET_BYTES`,
`./swingby.toml`, `~/.config/swingby/config.toml`, for S3, Azure and Google their usual variables and files, the
default written here.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from swingby.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


class Keeper(msgspec.Struct, frozen=True):
    """The process behind the library."""

    mode: Literal["auto", "inline", "off"] = "auto"  # inline: threads of this process; off: read the base directly
    idle_exit_seconds: float = 600.0  # without clients this long it leaves; starting it again takes 0.2 s
    start_seconds_max: float = 10.0
    clients_max: int = 4096  # connections at once
    boot_id: str | None = None  # tests of power cuts set it; otherwise the kernel's


class Memory(msgspec.Struct, frozen=True):
    """Level 1."""

    budget_bytes: int | None = None  # None: a quarter of the memory this process may use, as far as /dev/shm holds it
    directory: str | None = None  # a tmpfs; None: /dev/shm
    headroom_bytes: int | None = None  # left free in the cgroup: a full cgroup kills, it does not answer ENOSPC


class Burst(msgspec.Struct, frozen=True):
    """Level 2."""

    budget_bytes: int | None = None  # None: half of what is free when first used
    directory: str | None = None  # None: inside home
    free_floor_ratio: float = 0.1  # this share of the file system stays free, whatever the budget says


class Fetch(msgspec.Struct, frozen=True):
    """Reading from a base."""

    inflight_bytes_max: int = 256 * MIB
    inflight_count_min: int = 16
    inflight_count_max: int = 256  # a base 50 ms away needs this many to give 5,000 small objects a second
    range_bytes: int = 16 * MIB  # of large objects, a request
    request_seconds_max: float = 60.0
    connect_seconds_max: float = 5.0
    retry_count_max: int = 5
    retry_delay_seconds_max: float = 5.0
    retry_seconds_max: float = 60.0


class Client(msgspec.Struct, frozen=True):
    """The library's side."""

    deadline_seconds: float = 300.0  # the longest one read may take, retries included
    mapped_bytes_max: int = 64 * GIB  # of level 1, a process; page tables take 1/512 of it


class Listing(msgspec.Struct, frozen=True):
    """Manifests."""

    reuse_cost_ratio: float = 10.0  # refresh="auto" reuses a listing for this many times the time that it took
    reuse_seconds_max: float = 600.0
    threads_max: int = 16
    manifests_kept_max: int = 8  # of one prefix


class S3(msgspec.Struct, frozen=True):
    """Credentials and addressing of `s3://`; None: what the base or the AWS environment says."""

    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    path_style: bool | None = None  # None: path style wherever an endpoint is given
    unsigned_payload: bool = False
    anonymous: bool = False

    def __repr__(self) -> str:
        return f"S3(endpoint={self.endpoint!r}, region={self.region!r}, anonymous={self.anonymous})"


class Azure(msgspec.Struct, frozen=True):
    """Account and credentials of `az://`; None: what the Azure environment says."""

    account: str | None = None
    account_key: str | None = None
    sas_token: str | None = None
    connection_string: str | None = None
    endpoint: str | None = None  # None: https://<account>.blob.core.windows.net
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    anonymous: bool = False

    def __repr__(self) -> str:
        return f"Azure(account={self.account!r}, endpoint={self.endpoint!r}, anonymous={self.anonymous})"


class Google(msgspec.Struct, frozen=True):
    """Credentials of `gs://`; None: what the Google environment says."""

    credentials_file: str | None = None
    endpoint: str | None = None  # of an emulator
    anonymous: bool = False


class Settings(msgspec.Struct, frozen=True):
    """All settings. `load()` makes one."""

    home: str = ""
    scope: str = ""  # separates those who must not share cached bytes
    keeper: Keeper = Keeper()
    memory: Memory = Memory()
    burst: Burst = Burst()
    fetch: Fetch = Fetch()
    client: Client = Client()
    listing: Listing = Listing()
    s3: S3 = S3()
    az: Azure = Azure()
    gs: Google = Google()


Overrides: TypeAlias = "Settings | Mapping[str, Any] | None"

_SIZE_UNITS = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_SIZE_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def load(overrides: Overrides = None, given_by: str = "settings=") -> Settings:
    """The settings in force here and now.

    Args:
        overrides: dotted keys to values, as `{"s3.endpoint": "http://…"}`; a Settings is returned as it is.
        given_by: what error messages call the overrides.

    Raises:
        ConfigError: an unknown key (the text names the nearest valid one) or a value of the wrong kind.
    """
    if isinstance(overrides, Settings):
        return overrides
    merged: dict[str, Any] = {}
    for source, values in (*_sources(), (given_by, dict(overrides or {}))):
        merged |= {key: _convert(key, value, source) for key, value in values.items()}
    merged.setdefault("home", default_home())
    merged["home"] = os.path.abspath(os.path.expanduser(merged["home"]))
    return _build(merged)


def origins(overrides: Mapping[str, Any], given_by: str = "settings=") -> dict[str, str]:
    """Where each setting that is not a default comes from, by dotted key: the path of a file, "the environment" or `given_by`."""
    return {key: source for source, values in (*_sources(), (given_by, overrides)) for key in values}


def _sources() -> list[tuple[str, dict[str, Any]]]:
    """Weakest first."""
    environment = {_key_of(name): value for name, value in os.environ.items() if _is_setting(name)}
    user = os.path.join(_xdg("XDG_CONFIG_HOME", ".config"), "swingby", "config.toml")
    return [
        ("the AWS environment", _aws()),
        ("the Azure environment", _named(_AZURE_VARIABLES)),
        ("the Google environment", _named(_GOOGLE_VARIABLES)),
        (user, _read_toml(user)),
        ("swingby.toml", _read_toml("swingby.toml")),
        ("the environment", environment),
    ]


def _is_setting(name: str) -> bool:
    return name.startswith("SWINGBY_") and name != "SWINGBY_RUNTIME_DIR"


@functools.cache
def keys() -> dict[str, Any]:
    """Every dotted key with its type."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= {f"{field.name}.{inner.name}": inner.type for inner in msgspec.structs.fields(field.type)}
        else:
            found[field.name] = field.type
    return found


def is_secret(key: str) -> bool:
    """Whether the value of a setting is shown to nobody."""
    return any(word in key for word in ("key", "token", "secret", "connection_string"))


def _key_of(variable: str) -> str:
    name = variable.removeprefix("SWINGBY_").lower()
    return {key.replace(".", "_"): key for key in keys()}.get(name, name)


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    import tomllib

    try:
        tree = tomllib.loads(content.decode())
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _convert(key: str, value: Any, source: str) -> Any:
    known = keys()
    if key not in known:
        import difflib

        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(known)}"
        raise ConfigError(f"unknown setting {key!r} in {source}; {hint}", key=key)
    try:
        if isinstance(value, str) and "_bytes" in key:
            value = parse_size(value)
        return msgspec.convert(value, known[key], strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        shown = "…" if is_secret(key) else repr(value)
        raise ConfigError(f"setting {key!r} in {source} cannot be {shown}: {error}", key=key) from None


def _build(flat: dict[str, Any]) -> Settings:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return msgspec.convert(tree, Settings)


def parse_size(text: str) -> int:
    """Bytes of "512", "64MiB", "8 GiB", "1.5TB".

    Raises:
        ValueError: not a number with a known unit.
    """
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().lower()
    if unit not in _SIZE_UNITS or not number:
        raise ValueError(f"{text!r} is no size; write it as 512MiB or 8GiB")
    return int(float(number) * _SIZE_UNITS[unit])


def _aws() -> dict[str, Any]:
    """What the AWS command line would use: variables, then ~/.aws/credentials and config of the profile."""
    get = os.environ.get
    found = {
        "s3.endpoint": get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL"),
        "s3.region": get("AWS_REGION") or get("AWS_DEFAULT_REGION"),
        "s3.access_key_id": get("AWS_ACCESS_KEY_ID"),
        "s3.secret_access_key": get("AWS_SECRET_ACCESS_KEY"),
        "s3.session_token": get("AWS_SESSION_TOKEN"),
    }
    profile = get("AWS_PROFILE", "default")
    if not found["s3.access_key_id"]:
        secrets = _ini_section(get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), profile)
        found["s3.access_key_id"] = secrets.get("aws_access_key_id")
        found["s3.secret_access_key"] = secrets.get("aws_secret_access_key")
        found["s3.session_token"] = secrets.get("aws_session_token")
    section = profile if profile == "default" else f"profile {profile}"
    shared = _ini_section(get("AWS_CONFIG_FILE", "~/.aws/config"), section)
    found["s3.region"] = found["s3.region"] or shared.get("region")
    found["s3.endpoint"] = found["s3.endpoint"] or shared.get("endpoint_url")
    return {key: value for key, value in found.items() if value}


_AZURE_VARIABLES = {
    "az.account": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "az.account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"),
    "az.sas_token": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
    "az.connection_string": ("AZURE_STORAGE_CONNECTION_STRING",),
    "az.endpoint": ("AZURE_STORAGE_ENDPOINT",),
    "az.tenant_id": ("AZURE_TENANT_ID",),
    "az.client_id": ("AZURE_CLIENT_ID",),
    "az.client_secret": ("AZURE_CLIENT_SECRET",),
}
_GOOGLE_VARIABLES = {
    "gs.credentials_file": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "gs.endpoint": ("STORAGE_EMULATOR_HOST",),
}


def _named(variables: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Settings from variables of the environment, the first of each that is set."""
    found = {key: next(filter(None, map(os.environ.get, names)), None) for key, names in variables.items()}
    return {key: value for key, value in found.items() if value}


def _ini_section(path: str, section: str) -> dict[str, str]:
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        return {}
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
        return dict(parser.items(section)) if parser.has_section(section) else {}
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}


def _xdg(variable: str, below_home: str) -> str:
    value = os.environ.get(variable, "")
    return value if os.path.isabs(value) else os.path.join(os.path.expanduser("~"), below_home)


def default_home() -> str:
    """Where levels and manifests go: the user's cache directory."""
    return os.path.join(_xdg("XDG_CACHE_HOME", ".cache"), "swingby")


def runtime_directory() -> str:
    """Where sockets go: short, node-local, the user's own; the same for every process of the user on this machine."""
    user = os.getuid()
    for candidate in (
        os.environ.get("SWINGBY_RUNTIME_DIR", ""),
        os.environ.get("XDG_RUNTIME_DIR", ""),
        f"/run/user/{user}",
    ):
        if os.path.isabs(candidate) and os.path.isdir(candidate) and os.stat(candidate).st_uid == user:
            return os.path.join(candidate, "swingby")
    return f"/tmp/swingby-{user}"


def proxy_variables() -> dict[str, str]:
    """The proxy settings of the environment, by scheme."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: value for name in names if (value := os.environ.get(name) or os.environ.get(name.upper()))}


def spawn_environment(import_path: str) -> dict[str, str]:
    """This process's environment, with `import_path` first in PYTHONPATH, for a process of ours."""
    paths = [import_path, *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}


def to_json(settings: Settings) -> str:
    """Settings without the bases' credentials, for a command line."""
    plain = msgspec.to_builtins(msgspec.structs.replace(settings, s3=S3(), az=Azure(), gs=Google()))
    return msgspec.json.encode(plain).decode()


def keeper_json(settings: Settings) -> str:
    """The part of the settings that a keeper is started with, to compare."""
    return to_json(msgspec.structs.replace(settings, client=Client()))


def from_json(text: str) -> Settings:
    """The inverse of `to_json`."""
    return msgspec.json.decode(text, type=Settings)

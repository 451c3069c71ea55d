"""`az://` containers of Azure Blob Storage, through obstore.

Credentials are the first there is of: connection string, account key, SAS, anonymous access, a service principal, and what obstore
finds by itself: workload and managed identity.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

from swingby.base.obstore_base import Container, ObstoreBase
from swingby.base.services import AZURE
from swingby.errors import AuthenticationError, ConfigError

if TYPE_CHECKING:
    from obstore.store import AzureStore

    from swingby.config import Azure, Fetch


class Account(NamedTuple):
    """A storage account and what opens it.

    Attributes:
        name: of the account.
        endpoint: URL, without a slash at the end.
        key: base64; None: another way.
        sas_token: without the question mark; None: another way.
    """

    name: str
    endpoint: str
    key: str | None
    sas_token: str | None

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.endpoint!r})"


def azure_base(container: str, options: Azure, limits: Fetch) -> ObstoreBase:
    """The base of one container.

    Raises:
        AuthenticationError: nothing says which account.
        ConfigError: a setting that cannot be meant.
    """
    account = account_of(options)
    name = Container(AZURE, container, f"az:{account.endpoint}/{container}", b"\\")
    return ObstoreBase(name, lambda: _make_store(container, account, options, limits))


def account_of(options: Azure) -> Account:
    """The account that settings mean.

    Raises:
        AuthenticationError: nothing says which.
        ConfigError: a connection string, an account key or an endpoint that is none.
    """
    parts = _connection_parts(options.connection_string or "")
    name = parts.get("accountname") or options.account
    key = parts.get("accountkey") or (None if parts else options.account_key)
    token = parts.get("sharedaccesssignature") or (None if parts else options.sas_token)
    endpoint = parts.get("blobendpoint") or options.endpoint
    if not name and endpoint:
        name = endpoint.rstrip("/").rpartition("/")[2].partition(".")[0]
    if not name:
        raise AuthenticationError(
            "no Azure storage account is given",
            remedy="Set AZURE_STORAGE_ACCOUNT (az.account), or AZURE_STORAGE_CONNECTION_STRING",
        )
    protocol, suffix = parts.get("defaultendpointsprotocol", "https"), parts.get("endpointsuffix", "core.windows.net")
    endpoint = (endpoint or f"{protocol}://{name}.blob.{suffix}").rstrip("/")
    if "://" not in endpoint or "?" in endpoint or "@" in endpoint:
        raise ConfigError(
            "the Azure endpoint is no plain URL", remedy="Write it as https://account.blob.core.windows.net"
        )
    try:
        base64.b64decode(key or "", validate=True)
    except binascii.Error:
        raise ConfigError(
            "the Azure account key is not base64", remedy="Copy it whole, with its last = signs"
        ) from None
    return Account(name, endpoint, key, token.removeprefix("?") if token else None)


def _connection_parts(text: str) -> dict[str, str]:
    """The parts of a connection string, by lower-case name."""
    parts = [part.partition("=") for part in text.strip().split(";") if part.strip()]
    found = {name.strip().lower(): value.strip() for name, _, value in parts}
    if text and not {"accountkey", "sharedaccesssignature"} & set(found):
        raise ConfigError(
            "the Azure connection string holds neither AccountKey nor SharedAccessSignature",
            remedy="Copy it from the storage account's access keys",
        )
    return found


def _make_store(container: str, account: Account, options: Azure, limits: Fetch) -> AzureStore:
    from obstore.store import AzureStore

    # Credentials of the environment would win over settings if they were not handed over in this way.
    credentials: dict[str, Any] = {}
    if account.key:
        credentials = {"credential_provider": lambda: {"access_key": account.key, "expires_at": None}}
    elif account.sas_token:
        credentials = {"credential_provider": lambda: {"sas_token": account.sas_token, "expires_at": None}}
    elif options.anonymous:
        credentials = {"skip_signature": True}
    else:
        named = {"tenant_id": options.tenant_id, "client_id": options.client_id, "client_secret": options.client_secret}
        credentials = {name: value for name, value in named.items() if value}
    return AzureStore(
        container,
        account_name=account.name,
        endpoint=account.endpoint,
        client_options={
            "allow_http": account.endpoint.startswith("http://"),
            "timeout": f"{limits.request_seconds_max}s",
            "connect_timeout": f"{limits.connect_seconds_max}s",
        },
        retry_config={"max_retries": 0},
        **credentials,
    )

"""`az://` on a real Azurite: ways to be let in, names that obstore cannot tell, and what is said when it goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from obstore.exceptions import GenericError

import swingby
from swingby import config
from swingby.base.azure import account_of, azure_base
from swingby.base.services import AZURE
from swingby.base.translate import raise_obstore
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseNotFoundError,
    BaseUnavailableError,
    ConfigError,
    ForkError,
    UrlError,
)
from swingby.testing import azurite as azurite_blobs
from swingby.testing.azurite import ACCOUNT, ACCOUNT_KEY

SECRET = "aHVzaCBodXNo"


def base_of(container, settings):
    loaded = config.load(settings)
    return azure_base(container, loaded.az, loaded.fetch)


def keys_of(base, prefix=b""):
    return [key for page in base.list(prefix) for key in page.keys]


def test_a_connection_string_opens_it(azurite, container):
    text = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={azurite.endpoint};"
    )
    base = base_of(container, {"az.connection_string": text})
    base.write(b"a", b"x")
    assert keys_of(base) == [b"a"]


def test_a_shared_access_signature_opens_what_it_says(azurite, container):
    base_of(container, azurite.settings()).write(b"a", b"x")
    token = azurite.sas_token(container, "rl")
    reader = base_of(container, {"az.endpoint": azurite.endpoint, "az.account": ACCOUNT, "az.sas_token": "?" + token})
    assert keys_of(reader) == [b"a"]
    assert bytes(reader.read(b"a").data) == b"x"
    with pytest.raises(AccessDeniedError) as error:
        reader.write(b"b", b"x")
    assert token.rpartition("sig=")[2] not in str(error.value)


def test_a_public_container_is_read_without_credentials(azurite, container):
    azurite.make_container(container + "-public", is_public=True)
    azurite.put(container + "-public", "a", b"x")
    anonymous = {"az.endpoint": azurite.endpoint, "az.anonymous": True}
    assert bytes(base_of(container + "-public", anonymous).read(b"a").data) == b"x"
    with pytest.raises(AccessDeniedError):
        keys_of(base_of(container, anonymous))


def test_a_wrong_key_is_said_and_not_shown(azurite, container):
    base = base_of(container, azurite.settings() | {"az.account_key": SECRET})
    with pytest.raises(AuthenticationError, match="AZURE_STORAGE_ACCOUNT_KEY") as error:
        keys_of(base)
    assert SECRET not in str(error.value) + repr(error.value.facts())


def test_no_server_is_said(azurite, container):
    token = "sv=2020&sig=" + SECRET
    settings = {"az.account": ACCOUNT, "az.endpoint": "http://127.0.0.1:1/" + ACCOUNT, "az.sas_token": token}
    with pytest.raises(BaseUnavailableError) as error:
        keys_of(base_of(container, settings))
    assert SECRET not in str(error.value) + repr(error.value.facts())


def test_what_obstore_says_of_a_url_is_shown_without_its_query():
    said = GenericError(f"Error performing GET https://host/c/a?sv=2020&sig={SECRET} in 3 ms")
    with pytest.raises(BaseUnavailableError, match=r"https://host/c/a\?… in 3 ms") as error:
        raise_obstore(said, b"a", "c", AZURE)
    assert SECRET not in str(error.value)


def test_an_absent_container_is_said_by_reads_too(azurite):
    with pytest.raises(BaseNotFoundError, match="container not found"):
        base_of("no-such-container", azurite.settings()).read(b"a")


def test_empty_folders_are_left_out_and_empty_objects_are_not(azurite, container):
    base = base_of(container, azurite.settings())
    for name in ("folder/", "folder/a", "both", "both/", "lone/", "deep/", "deep/er/a"):
        azurite.put(container, name, b"x" if name.endswith("a") else b"")
    assert keys_of(base) == [b"both", b"deep/er/a", b"folder/a"]


def test_an_object_that_obstore_tells_by_another_name_is_an_error(azurite, container):
    base = base_of(container, azurite.settings())
    azurite.put(container, "a/", b"bytes")
    azurite.put(container, "a/b", b"x")
    with pytest.raises(UrlError, match=r"'az://.*/a/' cannot be named"):
        keys_of(base)


@pytest.mark.parametrize("name", ["a//b", "new\nline"])
def test_a_listing_with_a_name_that_obstore_refuses_is_an_error(azurite, container, name):
    azurite.put(container, "in/" + name, b"x")
    with pytest.raises(UrlError):
        keys_of(base_of(container, azurite.settings()))


@pytest.mark.parametrize("key", [b"a//b", b"a/../b", b"/a", b"a/", b"line\nbreak", b"back\\slash", b"\xff"])
def test_keys_that_would_become_others_are_refused(azurite, container, key):
    base = base_of(container, azurite.settings())
    for call in (base.read, base.stat, base.delete, lambda key: base.write(key, b"x")):
        with pytest.raises(UrlError, match="cannot be named"):
            call(key)
    with pytest.raises(UrlError):
        keys_of(base, key.rstrip(b"/") + b"//")


def test_a_listing_is_in_byte_order_where_the_service_orders_by_other_rules(azurite, container):
    base = base_of(container, azurite.settings())
    keys = ["\uffee", "\U0001f600", "z", "Z", "é"]  # UTF-16 orders the second before the first
    for key in keys:
        base.write(key.encode(), b"x")
    assert keys_of(base) == sorted(key.encode() for key in keys)


def test_a_dataset_and_an_object_are_read_through_a_keeper(azurite, container, home):
    settings = azurite.settings() | {"home": home}
    azurite.put(container, "photos/a.jpg", b"first")
    azurite.put(container, "photos/b.jpg", b"second")
    with swingby.open(f"az://{container}/photos", settings=settings) as dataset:
        assert [bytes(view) for view in dataset.batch([1, 0]).views] == [b"second", b"first"]
    url = f"az://{container}/photos/a.jpg"
    assert swingby.read(url, 1, 3, settings=settings) == b"ir"
    azurite.put(container, "photos/a.jpg", b"changed")
    assert swingby.read(url, settings=settings) == b"changed"
    with pytest.raises(FileNotFoundError):
        swingby.read(url + "x", settings=settings)


def test_an_object_that_changed_under_a_snapshot_is_an_error(azurite, container, home):
    settings = azurite.settings() | {"home": home, "memory.budget_bytes": 0, "burst.budget_bytes": 0}
    azurite.put(container, "in/a", b"first")
    with swingby.open(f"az://{container}/in", settings=settings) as dataset:
        azurite.put(container, "in/a", b"other")
        with pytest.raises(swingby.errors.ObjectChangedError):
            _ = dataset[0].data


def test_a_fork_of_a_process_that_used_obstore_is_told(azurite, container):
    program = """
import os, sys
from swingby import config
from swingby.base.azure import azure_base
settings = config.load({"az.account": sys.argv[1], "az.account_key": sys.argv[2], "az.endpoint": sys.argv[3]})
base = azure_base(sys.argv[4], settings.az, settings.fetch)
base.write(b"a", b"x")
child = os.fork()
if not child:
    try:
        base.read(b"a")
    except Exception as error:
        os._exit(7 if type(error).__name__ == "ForkError" else 8)
    os._exit(9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", program, ACCOUNT, ACCOUNT_KEY, azurite.endpoint, container]
    assert subprocess.run(command, timeout=30, check=False).returncode == 7
    assert issubclass(ForkError, RuntimeError)


def test_settings_that_cannot_be_meant_are_said_without_them():
    for wrong in (
        {"az.account": "a", "az.account_key": "no base64!"},
        {"az.connection_string": "hush"},
        {"az.account": "a", "az.endpoint": "https://a.blob.core.windows.net/?sig=hush"},
        {"az.account": "a", "az.endpoint": "a.blob.core.windows.net"},
    ):
        with pytest.raises(ConfigError) as error:
            account_of(config.load(wrong).az)
        assert "hush" not in str(error.value)
        assert "no base64!" not in str(error.value)
    with pytest.raises(AuthenticationError, match="AZURE_STORAGE_ACCOUNT"):
        account_of(config.Azure())


def test_the_account_is_found_in_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "there")
    monkeypatch.setenv("AZURE_STORAGE_KEY", SECRET)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=" + SECRET)
    settings = config.load()
    account = account_of(settings.az)
    assert (account.name, account.endpoint) == ("there", "https://there.blob.core.windows.net")
    assert (account.key, account.sas_token) == (SECRET, "sig=" + SECRET)
    assert SECRET not in repr(account) + repr(settings) + config.to_json(settings)


def test_doctor_shows_no_credential(azurite, container, home):
    azurite.put(container, "in/a", b"x")
    names = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": ACCOUNT_KEY, "AZURE_CLIENT_SECRET": SECRET}
    environment = os.environ | names | {"AZURE_STORAGE_ENDPOINT": azurite.endpoint, "SWINGBY_HOME": home}
    program = "import sys; from swingby.doors.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "doctor", f"az://{container}/in"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "1 object" in done.stdout, done.stderr
    assert "az.account_key = (set)" in done.stdout
    assert ACCOUNT_KEY[:20] not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_azurite_ends_with_its_block():
    if azurite_blobs.missing():
        pytest.skip(azurite_blobs.missing())
    with azurite_blobs.running() as found:
        process = found._process.pid
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIGCONT)

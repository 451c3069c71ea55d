"""A real Azurite, Microsoft's emulator of Azure Storage, on this machine.

It needs the npm package `azurite`, listens on loopback, and loses everything when it stops.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import shutil
import subprocess
import tempfile
import threading
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "azurite-blob"
ACCOUNT = "devstoreaccount1"
# No secret: every Azurite has this key, and this one lives for a test run, on loopback.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ARGUMENTS = ("--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--skipApiVersionCheck", "--silent")
START_SECONDS_MAX = 60.0

_API = "2023-11-03"
_LISTENS = "successfully listens on "
_UNSIGNED_HEADERS = 8  # of a string to sign, between the body's length and the x-ms- headers


def missing() -> str:
    """What is not installed; empty when all is there."""
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} (npm install -g azurite)"


class Azurite:
    """A running Azurite.

    Attributes:
        endpoint: URL of its account.
    """

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="swingby-azurite-")
        self._process = subprocess.Popen(
            [PROGRAM, *ARGUMENTS, "--location", self._folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader: threading.Thread | None = None
        watch = threading.Timer(START_SECONDS_MAX, self._process.kill)
        watch.start()
        try:
            self.endpoint = self._await_address() + "/" + ACCOUNT
        except BaseException:
            self.stop()
            raise
        finally:
            watch.cancel()
        self._reader = threading.Thread(target=self._drain, name="azurite-output", daemon=True)
        self._reader.start()

    def settings(self) -> dict[str, Any]:
        """For `settings=`."""
        return {"az.account": ACCOUNT, "az.account_key": ACCOUNT_KEY, "az.endpoint": self.endpoint}

    def make_container(self, name: str, *, is_public: bool = False) -> None:
        """Make a container."""
        headers = {"x-ms-blob-public-access": "container"} if is_public else {}
        self.request("PUT", name, {"restype": "container"}, headers)

    def put(self, container: str, name: str, data: bytes) -> None:
        """Store a blob under any name, also one that obstore refuses."""
        self.request("PUT", f"{container}/{quote(name)}", {}, {"x-ms-blob-type": "BlockBlob"}, data)

    def request(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes = b""
    ) -> bytes:
        """A request that is signed with the account's key; source: Azure's "Authorize with Shared Key"."""
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _API, **headers}
        resource = f"/{ACCOUNT}{urlsplit(self.endpoint).path}/{path}"
        resource += "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        ours = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        length = str(len(body)) if body else ""
        text = "\n".join([method, "", "", length, *[""] * _UNSIGNED_HEADERS]) + "\n" + ours + resource
        sent["authorization"] = f"SharedKey {ACCOUNT}:{_signature(text)}"
        answer = urllib3.request(method, f"{self.endpoint}/{path}?{urlencode(query)}", headers=sent, body=body or None)
        if answer.status >= 300:
            raise RuntimeError(f"Azurite: HTTP {answer.status} {answer.data[:300]!r}")
        return answer.data

    def sas_token(self, container: str, rights: str) -> str:
        """A shared access signature for a container, good for an hour; source: Azure's "Create a service SAS"."""
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        version = "2020-12-06"
        fields = [rights, "", expiry, f"/blob/{ACCOUNT}/{container}", "", "", "", version, "c", *[""] * 7]
        signature = _signature("\n".join(fields))
        return urlencode({"sp": rights, "se": expiry, "sv": version, "sr": "c", "sig": signature})

    def stop(self) -> None:
        """End the process that this object started, and remove its data."""
        self._process.kill()
        self._process.wait()
        if self._reader:
            self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _await_address(self) -> str:
        said = []
        for line in self._process.stdout or ():
            said.append(line)
            if _LISTENS in line:
                return line.partition(_LISTENS)[2].strip().rstrip("/")
        raise RuntimeError(f"{PROGRAM} does not start: {''.join(said)[-500:]}")

    def _drain(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for _ in self._process.stdout or ():
                pass


def _signature(text: str) -> str:
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), "sha256")
    return base64.b64encode(digest).decode()


@contextlib.contextmanager
def running() -> Iterator[Azurite]:
    """An Azurite for the length of a block."""
    found = Azurite()
    try:
        yield found
    finally:
        found.stop()

"""A real Ceph with an S3 gateway on this machine, in about a second: one mon, memory-backed OSDs, radosgw.

It needs Debian's ceph-mon, ceph-osd, radosgw, ceph-common and python3-rados, listens on loopback without authentication between its
daemons, and loses everything when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
SYSTEM_PYTHON = "/usr/bin/python3"
ACCESS_KEY_ID = "swingbytest"
SECRET_ACCESS_KEY = "loopback-" + ACCESS_KEY_ID  # no secret: the store lives for one test run, on loopback
START_SECONDS_MAX = 60.0
POOLS = {
    ".rgw.root": 4,
    "default.rgw.log": 4,
    "default.rgw.control": 4,
    "default.rgw.meta": 4,
    "default.rgw.buckets.index": 8,
    "default.rgw.buckets.data": 32,
    "default.rgw.buckets.non-ec": 4,
}

_CONFIGURATION = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v1:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
run dir = {folder}/run
pid file = {folder}/run/$type.$id.pid
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
crash dir = {folder}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.02
mon data avail warn = 2
mon data avail crit = 1
mon data = {folder}/mon.a
[osd]
osd data = {folder}/osd.$id
osd objectstore = memstore
memstore device bytes = {osd_bytes}
osd class update on start = false
osd crush update on start = false
osd max object name len = 1024
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw_port} tcp_nodelay=1
rgw dns name = localhost
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw dynamic resharding = false
"""

# One client for all commands: each start of the `ceph` program takes a third of a second.
_COMMANDS = """
import json, rados, sys, time
cluster = rados.Rados(conffile=sys.argv[1]); cluster.connect(timeout=20)
def run(command):
    for _ in range(300):
        code, out, error = cluster.mon_command(json.dumps(command), b"", timeout=30)
        if code != -1: break  # EPERM: sent before the first map of monitors came
        time.sleep(0.02)
    if code not in (0, -17): sys.exit(f"{command}: {code} {error}")
    return out
for command in json.loads(sys.argv[2]):
    if "wait for OSDs" in command:
        for _ in range(600):
            if json.loads(run({"prefix": "osd stat", "format": "json"})).get("num_up_osds", 0) >= command["wait for OSDs"]: break
            time.sleep(0.05)
        else: sys.exit("the OSDs did not come up")
    else: run(command)
"""


def missing() -> str:
    """What is not installed; empty when all is there."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    has_rados = subprocess.run([SYSTEM_PYTHON, "-c", "import rados"], capture_output=True, check=False).returncode == 0
    return ", ".join(absent + ([] if has_rados else ["python3-rados"]))


class CephS3:
    """A running Ceph.

    Attributes:
        endpoint: URL of the gateway.
        processes: ids of its daemons, for pinning.
    """

    def __init__(self, osds: int = 3, osd_bytes: int = 6 << 30) -> None:
        self._folder = tempfile.mkdtemp(prefix="swingby-ceph-")
        self._osds = osds
        mon_port, rgw_port = _free_ports(2)
        self._address = ("127.0.0.1", rgw_port)
        self.endpoint = f"http://127.0.0.1:{rgw_port}"
        for name in ("run", "log", "mon.a", "rgw", *(f"osd.{number}" for number in range(osds))):
            os.mkdir(os.path.join(self._folder, name))
        self._fsid = str(uuid.uuid4())
        self._conf = os.path.join(self._folder, "ceph.conf")
        with open(self._conf, "w") as file:
            file.write(
                _CONFIGURATION.format(
                    fsid=self._fsid, mon_port=mon_port, rgw_port=rgw_port, folder=self._folder, osd_bytes=osd_bytes
                )
            )
        try:
            self._start(mon_port)
        except BaseException:
            self.stop()
            raise

    @property
    def processes(self) -> list[int]:
        """Ids of the daemons."""
        found = []
        for name in os.listdir(os.path.join(self._folder, "run")):
            if name.endswith(".pid"):
                with contextlib.suppress(OSError, ValueError), open(os.path.join(self._folder, "run", name)) as file:
                    found.append(int(file.read()))
        return found

    def settings(self) -> dict[str, Any]:
        """For `settings=`."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": "us-east-1",
            "s3.access_key_id": ACCESS_KEY_ID,
            "s3.secret_access_key": SECRET_ACCESS_KEY,
        }

    def stop(self) -> None:
        """Kill the daemons that this object started, and remove their data."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                with open(f"/proc/{process}/cmdline", "rb") as file:
                    is_ours = self._conf.encode() in file.read()
                if is_ours:
                    os.kill(process, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, mon_port: int) -> None:
        monmap = os.path.join(self._folder, "monmap")
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", f"[v1:127.0.0.1:{mon_port}]", monmap)
        self._run("ceph-mon", "-c", self._conf, "-i", "a", "--mkfs", "--monmap", monmap)
        self._run("ceph-mon", "-c", self._conf, "-i", "a")
        ids = [str(uuid.uuid4()) for _ in range(self._osds)]
        made = [
            subprocess.Popen(
                ["ceph-osd", "-c", self._conf, "-i", str(number), "--mkfs", "--osd-uuid", identity],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number, identity in enumerate(ids)
        ]
        commands: list[dict[str, Any]] = []
        for number, identity in enumerate(ids):
            commands.append({"prefix": "osd create", "uuid": identity, "id": number})
            place = ["root=default", "host=here"]
            commands.append({"prefix": "osd crush add", "id": number, "weight": 1.0, "args": place})
        self._command(commands)
        if any(process.wait(START_SECONDS_MAX) for process in made):
            raise RuntimeError(f"an OSD cannot be made; see {self._folder}/log")
        for number in range(self._osds):
            self._run("ceph-osd", "-c", self._conf, "-i", str(number))
        commands = [{"wait for OSDs": self._osds}]
        for pool, groups in POOLS.items():
            commands.append({"prefix": "osd pool create", "pool": pool, "pg_num": groups, "pgp_num": groups})
            commands.append({"prefix": "osd pool application enable", "pool": pool, "app": "rgw"})
        self._command(commands)
        user = ("--uid=swingby", "--display-name=swingby", "--max-buckets=0")
        keys = (f"--access-key={ACCESS_KEY_ID}", f"--secret={SECRET_ACCESS_KEY}")
        self._run("radosgw-admin", "-c", self._conf, "-n", "client.rgw.a", "user", "create", *user, *keys)
        self._run("radosgw", "-c", self._conf, "-n", "client.rgw.a")
        self._await_gateway()

    def _await_gateway(self) -> None:
        until = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                socket.create_connection(self._address, 1).close()
            except OSError:
                if time.monotonic() > until:
                    raise RuntimeError(f"radosgw does not answer; see {self._folder}/log") from None
                time.sleep(0.02)
            else:
                return

    def _command(self, commands: list[dict[str, Any]]) -> None:
        self._run(SYSTEM_PYTHON, "-c", _COMMANDS, self._conf, json.dumps(commands))

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextlib.contextmanager
def running(osds: int = 3) -> Iterator[CephS3]:
    """A Ceph for the length of a block."""
    ceph = CephS3(osds)
    try:
        yield ceph
    finally:
        ceph.stop()


def make_bucket(ceph: CephS3, name: str) -> None:
    """Make a bucket."""
    from swingby.base.s3 import S3Base
    from swingby.config import load

    settings = load(ceph.settings())
    base = S3Base(name, settings.s3, settings.fetch)
    base.make_bucket()
    base.close()

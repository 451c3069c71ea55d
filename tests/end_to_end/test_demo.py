"""The demo: what it measures is what happened, what it writes says the same, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from swingby import config
from swingby.doors.cli import removal
from swingby.doors.cli.demo.charts import WAY_NAMES
from swingby.doors.cli.demo.epochs import Checker
from swingby.doors.cli.demo.far import FarBase
from swingby.doors.cli.demo.report import render
from swingby.doors.cli.demo.run import Demo, Terms
from swingby.doors.cli.demo.source import Choice, Source
from swingby.doors.cli.quantities import duration, number, size
from swingby.doors.cli.terminal import consoles
from swingby.doors.cli.waiting import Waiting
from swingby.keeper.place import place_of

SWINGBY = [sys.executable, "-c", "from swingby.doors.cli.main import main; main()"]
GIB = 1 << 30
SLOW = ("--epochs", "2", "--include", "00*", "--latency-ms", "100")  # 10 files: file by file 2 s


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files & <more>"
    path.mkdir()
    rng = random.Random(0)
    for count in range(150):
        (path / f"{count:03d}.bin").write_bytes(rng.randbytes(rng.randint(1, 30_000)))
    (path / "empty").touch()
    return path


def total(folder):
    return sum(one.stat().st_size for one in folder.iterdir())


def demo(home, folder, latency_seconds=0.0, epochs=2, **settings):
    with Waiting(consoles()[1], "listing") as waiting:
        choice = Choice(str(folder), [], [], GIB)
        return Demo(choice, config.load({"home": home} | settings), Terms(latency_seconds, epochs), waiting).run()


def of(results, way):
    return [epoch for epoch in results.epochs if epoch.way == way]


# -- what is measured --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency_seconds", [0.0, 0.02])
def test_every_epoch_loads_everything_and_a_base_that_is_far_is_asked_once(home, folder, latency_seconds):
    results = demo(home, folder, latency_seconds, epochs=3)
    assert not (latency_seconds and results.is_near)
    ways = [epoch.way for epoch in results.epochs]
    assert ways[:6] == ["file by file"] * 3 + ["cold"] + ["warm"] * 2
    assert ways[6:] == ([] if results.is_near else ["burst"])
    for epoch in results.epochs:
        assert (epoch.objects, epoch.bytes, epoch.wrong_objects) == (151, total(folder), 0)
        assert epoch.objects_per_second == pytest.approx(epoch.objects / epoch.seconds)
        assert epoch.bytes_per_second == pytest.approx(epoch.bytes / epoch.seconds)
        split = epoch.split
        assert split.latency + split.base + split.keeper + split.process + split.check == pytest.approx(
            epoch.seconds, abs=1e-3
        )
        assert epoch.progress[-1] == (epoch.seconds, 151)
    assert {epoch.base_requests for epoch in of(results, "file by file")} == {151}
    (cold,) = of(results, "cold")
    times_max = 2 if results.is_near else 1  # readers overtake what is near
    assert 150 <= cold.base_requests <= 150 * times_max  # the empty file needs none
    assert total(folder) <= cold.base_bytes <= total(folder) * times_max
    assert {epoch.base_requests for epoch in of(results, "warm")} == {0}


def test_a_far_base_takes_its_time_and_the_burst_level_replaces_it(home, folder):
    results = demo(home, folder, latency_seconds=0.004)
    for epoch in of(results, "file by file"):
        assert epoch.seconds > 151 * 0.004
    (burst,) = of(results, "burst")
    assert (burst.base_requests, burst.burst_bytes) == (0, total(folder))
    assert not results.is_near
    assert results.speedups.cold > 1
    assert results.speedups.warm > results.speedups.burst > 1


def test_both_sides_read_in_the_same_order_and_list_once(home, folder, monkeypatch):
    read, lists, orders = Source.reader, FarBase.list, {}

    def watched(source, latency_seconds):
        plain, found = read(source, latency_seconds), orders.setdefault("plain", [])
        return lambda key: (found.append(key), plain(key))[1]

    def check(checker, indices, views):
        if len(indices) > 1:
            orders.setdefault("ours", []).extend(checker._keys[index] for index in indices)
        return checked(checker, indices, views)

    def listed(base, *args):
        orders.setdefault("lists", []).append(args)
        return lists(base, *args)

    checked = Checker.check
    monkeypatch.setattr(Source, "reader", watched)
    monkeypatch.setattr(Checker, "check", check)
    monkeypatch.setattr(FarBase, "list", listed)
    results = demo(home, folder, epochs=2)
    assert orders["plain"][:151] != orders["plain"][151:302]
    assert orders["ours"][:302] == orders["plain"]
    assert len(orders["lists"]) == 1
    assert 0 < results.listing.by_file < results.listing.by_swingby


def test_files_that_may_not_be_read_are_left_out_and_named(home, folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: b"[odd]" not in os.fsencode(path))
    (folder / "[odd].bin").write_bytes(b"odd")
    results = demo(home, folder)
    assert results.unreadable == ["[odd].bin"]
    assert results.objects == 151


def test_bytes_that_change_behind_the_base_are_found(home, folder, monkeypatch):
    cold = Demo._cold

    def tamper(*args):
        victim = folder / "007.bin"
        before = victim.stat()
        with open(victim, "r+b") as file:
            file.write(bytes([victim.read_bytes()[0] ^ 1]))
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
        return cold(*args)

    monkeypatch.setattr(Demo, "_cold", tamper)
    results = demo(home, folder)
    assert results.wrong_keys == ["007.bin"]
    assert {epoch.wrong_objects for epoch in of(results, "warm")} == {1}
    assert results.verdicts[-1].startswith("Wrong bytes:")


def test_without_levels_the_demo_is_slow_and_right(home, folder):
    results = demo(home, folder, 0.001, **{"memory.budget_bytes": 0, "burst.budget_bytes": 0})
    assert {epoch.wrong_objects for epoch in results.epochs} == {0}
    assert {epoch.base_requests for epoch in of(results, "warm")} == {150}
    assert results.levels == []


# -- what it writes ----------------------------------------------------------------------------------------------------


class Texts(HTMLParser):
    """The text of every element, by tag, and every address an element names."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.addresses, self._open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and data.strip():
            self.texts.append((self._open[-1], data.strip()))


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """Results and page of one demo of a far base."""
    place = tmp_path_factory.mktemp("demo")
    path = place / "files & <more>"
    path.mkdir()
    for count in range(60):
        (path / f"{count}.bin").write_bytes(random.Random(count).randbytes(20_000))
    results = demo(str(place / "home"), path, latency_seconds=0.002)
    return results, render(results)


def test_the_report_is_well_formed_and_asks_no_server_for_anything(run_once):
    _, page = run_once
    ET.fromstring(page)
    assert Texts(page).addresses == []
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script", page)


def test_the_reports_figures_are_those_of_the_results(run_once):
    results, page = run_once
    cells = [text for tag, text in Texts(page).texts if tag == "td"]
    for epoch in results.epochs:
        start = cells.index(f"{WAY_NAMES[epoch.way]} {epoch.number}")
        assert cells[start + 1 : start + 7] == [
            duration(epoch.seconds),
            number(epoch.objects_per_second),
            f"{epoch.bytes_per_second / 1e6:,.1f}",
            number(epoch.base_requests),
            size(epoch.base_bytes),
            size(epoch.burst_bytes),
        ]
    items = [text for tag, text in Texts(page).texts if tag == "li"]
    assert items[: len(results.verdicts)] == results.verdicts
    assert "files & <more>" in "".join(text for tag, text in Texts(page).texts if tag == "p")


def test_bars_are_as_long_as_what_they_stand_for(run_once):
    results, page = run_once
    bars = [one for one in ET.fromstring(page).iter("rect") if one.get("class").startswith("bar")]
    assert len(bars) == len(results.epochs)
    order = [epoch for way in ("file by file", "cold", "warm", "burst") for epoch in of(results, way)]
    longest = max(range(len(order)), key=lambda at: order[at].seconds)
    for bar, epoch in zip(bars, order, strict=True):
        ratio = percent(bar) / percent(bars[longest])
        assert ratio == pytest.approx(epoch.seconds / order[longest].seconds, abs=0.01)
    parts = [one for one in ET.fromstring(page).iter("rect") if one.get("class").startswith("part")]
    assert sum(map(percent, parts[:5])) == pytest.approx(100, abs=0.1)
    split = of(results, "cold")[0].split
    assert percent(parts[5]) == pytest.approx(100 * split.latency / of(results, "cold")[0].seconds, abs=0.01)
    assert split.latency > 0


def percent(bar):
    return float(bar.get("width").removesuffix("%"))


def test_every_chart_is_described_for_those_who_cannot_see_it(run_once):
    results, page = run_once
    charts = [one for one in ET.fromstring(page).iter("svg") if one.get("role") == "img"]
    assert len(charts) == 3
    for chart in charts:
        assert chart.find("title").text == chart.get("aria-label")
        assert duration(of(results, "file by file")[0].seconds)[-2:] in chart.find("desc").text


# -- what it leaves ----------------------------------------------------------------------------------------------------


def test_the_command_writes_report_and_json_and_removes_the_rest(home, folder, tmp_path):
    done = subprocess.run(
        [*SWINGBY, "--home", home, "demo", str(folder), "--json", "--epochs", "2"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(done.stdout)
    assert results["objects"] == 151
    assert duration(results["epochs"][0]["seconds"]) in (tmp_path / "swingby-demo.html").read_text()
    assert not os.path.exists(home)


def test_the_summary_says_it_in_words(home, folder, tmp_path):
    done = subprocess.run(
        [*SWINGBY, "--home", home, "demo", str(folder), "--epochs", "2"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0
    for word in ("File by file 1", "Swingby, cold", "Swingby, warm", "none wrong", str(tmp_path / "swingby-demo.html")):
        assert word in done.stdout


def test_on_a_terminal_of_40_columns_the_demo_shows_how_far_it_is(home, folder, in_terminal):
    said, code = in_terminal([*SWINGBY, "--home", home, "demo", str(folder), "--latency-ms", "1"], columns=40)
    assert code == 0
    for word in ("listing", "file by file", "cold", "Report:"):
        assert word in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_cleans_up(home, folder, number, code):
    started = subprocess.Popen(
        [*SWINGBY, "--home", home, "demo", str(folder), *SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for_levels(home)
    sent_at = time.monotonic()
    started.send_signal(number)
    _, said = started.communicate(timeout=30)
    assert time.monotonic() - sent_at < 1
    assert started.returncode == code, said
    assert said == b""
    assert not os.path.exists(home)


def test_what_a_killed_demo_left_is_removed_by_the_next_one_and_by_clean(home, folder):
    for command in (["demo", str(folder)], ["clean", "--yes"]):
        started = subprocess.Popen([*SWINGBY, "--home", home, "demo", str(folder), *SLOW])
        wait_for_levels(home)
        started.kill()
        started.wait()
        (left,) = removal.abandoned_demos(config.load({"home": home}))
        subprocess.run([*SWINGBY, "--home", home, *command], check=True, capture_output=True)
        assert not [path for path in place_of(left) if os.path.exists(path)]
        assert not os.path.exists(home)


def wait_for_levels(home):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for name in os.listdir(home) if os.path.isdir(home) else ():
            memory = place_of(config.load({"home": os.path.join(home, name)})).memory
            if os.path.isdir(memory) and len(os.listdir(memory)) > 2:
                return
        time.sleep(0.01)
    raise AssertionError("the demo did not begin")


def test_a_dataset_too_large_for_a_demo_is_refused_with_a_remedy(home, folder):
    done = subprocess.run(
        [*SWINGBY, "--home", home, "demo", str(folder), "--bytes-max", "1MB"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--include" in done.stderr

"""Frames: whatever comes in, the parser answers with messages or a ProtocolError."""

from __future__ import annotations

import os
import socket
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swingby.config import S3
from swingby.errors import ProtocolError
from swingby.keeper import frames as keeper_frames
from swingby.keeper import protocol
from swingby.keeper.frames import Frames
from swingby.keeper.protocol import Follow, Location, Need, Open, Plan, Selection, Supplied, Upcoming


def through(frames, data, descriptors=()):
    """Everything that comes out of `data` sent through a socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        keeper_frames.send(theirs, data, descriptors) if descriptors else theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        found = []
        while frames.receive(ours):
            while (one := frames.next()) is not None:
                found.append(one)
        return found


MESSAGES = [
    protocol.Hello(1, 5),
    Open(Location("s3", "bucket", b"a/\xff", S3(endpoint="http://x", secret_access_key="s")), "auto", None),
    Need("digest", b"\0" * 80, 3.5, doubt=True),
    protocol.NeedRange(1, -1, 2.0, location=Location("file", "", b"x")),
    Plan("d", Selection(["a*"], []), "global", 1, -2, (32, 0, 4, False, 0), 1 << 30),
    Follow("d", 1 << 30),
    Upcoming(b"\0" * 16),
    protocol.Status(),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_comes_out_as_it_went_in(message):
    assert through(Frames.of_requests(), keeper_frames.encode(message)) == [(message, [])]


def test_messages_come_apart_wherever_the_stream_is_cut():
    data = b"".join(map(keeper_frames.encode, MESSAGES))
    frames, found = Frames.of_requests(), []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        for byte in data:
            theirs.send(bytes([byte]))
            frames.receive(ours)
            if (one := frames.next()) is not None:
                found.append(one[0])
    assert found == MESSAGES


def test_descriptors_travel_with_their_message():
    reader, writer = os.pipe()
    frame = keeper_frames.encode(Supplied(), 2)
    ((_, descriptors),) = through(Frames.of_replies(), frame, [reader, writer])
    os.write(descriptors[1], b"through")
    assert os.read(reader, 10) == b"through"
    keeper_frames.close_all([reader, writer, *descriptors])


def test_descriptors_that_were_promised_must_come():
    with pytest.raises(ProtocolError, match="descriptors are missing"):
        through(Frames.of_replies(), keeper_frames.encode(Supplied(), 2))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_for(noise):
    try:
        through(Frames.of_requests(), noise)
    except ProtocolError:
        return


@given(
    st.integers(0, len(MESSAGES) - 1),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=400)
def test_a_damaged_message_is_understood_or_refused_and_nothing_else(number, damages):
    data = bytearray(keeper_frames.encode(MESSAGES[number]))
    for place, value in damages:
        data[place % len(data)] = value
    try:
        found = through(Frames.of_requests(), bytes(data))
    except ProtocolError:
        return
    assert all(isinstance(message, protocol.Message) for message, _ in found)


def test_a_frame_beyond_the_bound_is_refused_before_it_is_read():
    header = struct.pack("<HHI", 0x5942, 0, keeper_frames.FRAME_BYTES_MAX + 1)
    with pytest.raises(ProtocolError, match="not of our protocol"):
        through(Frames.of_requests(), header)
    with pytest.raises(ProtocolError, match="too large"):
        keeper_frames.encode(Need("d", bytes(keeper_frames.FRAME_BYTES_MAX), 1.0))


def test_deep_nesting_is_refused():
    body = b"\x91" * 100_000
    with pytest.raises(ProtocolError):
        through(Frames.of_requests(), struct.pack("<HHI", 0x5942, 0, len(body)) + body)


def test_a_message_of_the_other_side_is_refused():
    with pytest.raises(ProtocolError):
        through(Frames.of_requests(), keeper_frames.encode(Supplied()))


def test_an_unknown_field_is_refused():
    body = msgspec.msgpack.encode(["Status", 1])
    with pytest.raises(ProtocolError):
        through(Frames.of_requests(), struct.pack("<HHI", 0x5942, 0, len(body)) + body)


def test_credentials_do_not_show_in_a_location():
    assert "hush" not in repr(MESSAGES[1]) + repr(Location("s3", "b", b"k", S3(secret_access_key="hush")))


def test_descriptors_that_no_frame_announces_end_the_connection_and_are_closed():
    before = len(os.listdir("/proc/self/fd"))
    frames = Frames.of_requests()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, open(os.devnull) as nothing:
        keeper_frames.send(theirs, struct.pack("<HHI", 0x5942, 1, 1 << 20))
        for _ in range(3):
            keeper_frames.send(theirs, b"x", [nothing.fileno()] * protocol.DESCRIPTORS_MAX)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ProtocolError, match="more descriptors"):
            list(iter(lambda: frames.receive(ours), False))
    frames.close()
    assert len(os.listdir("/proc/self/fd")) == before

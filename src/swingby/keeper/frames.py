"""How messages travel: frames with descriptors. Format: docs/formats/protocol.md.

A frame is a header (magic, body length, number of descriptors) and a msgpack body, one message; descriptors travel with the
header's bytes. Everything is bounded; a frame outside the bounds ends the connection.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from swingby.errors import ProtocolError
from swingby.keeper.protocol import DESCRIPTORS_MAX, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from swingby.keeper.protocol import Message

FRAME_BYTES_MAX = 16 << 20
DESCRIPTORS_WAITING_MAX = 2 * DESCRIPTORS_MAX  # of a frame that is not whole, and of the one before it

_MAGIC = 0x5942
_HEADER = struct.Struct("<HHI")  # magic, descriptors, body bytes

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Message, descriptor_count: int = 0) -> bytes:
    """The bytes of a frame.

    Raises:
        ProtocolError: the message is larger than a frame may be.
    """
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX or descriptor_count > DESCRIPTORS_MAX:
        raise ProtocolError(f"a {type(message).__name__} message is too large: {len(body)} bytes")
    return _HEADER.pack(_MAGIC, descriptor_count, len(body)) + body


class Frames:
    """Takes frames apart as bytes and descriptors come in; the same for both sides.

    Args:
        decoder: of requests or replies.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    @classmethod
    def of_requests(cls) -> Frames:
        """For the keeper."""
        return cls(_requests)

    @classmethod
    def of_replies(cls) -> Frames:
        """For the client."""
        return cls(_replies)

    def receive(self, connection: socket.socket) -> bool:
        """Take in what has arrived; False at the end of the stream.

        Raises:
            ProtocolError: it is out of bounds.
        """
        room = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)
        data, ancillary, _, _ = connection.recvmsg(1 << 16, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
                self._descriptors += found
        if len(self._descriptors) > DESCRIPTORS_WAITING_MAX:
            raise ProtocolError("more descriptors than frames announce")
        self._buffer += data
        return bool(data)

    def next(self) -> tuple[Any, list[int]] | None:
        """The next whole message with its descriptors, or None.

        Raises:
            ProtocolError: not our protocol, or out of bounds.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        magic, count, size = _HEADER.unpack_from(self._buffer)
        if magic != _MAGIC or size > FRAME_BYTES_MAX or count > DESCRIPTORS_MAX:
            raise ProtocolError("a frame is not of our protocol")
        if len(self._buffer) < _HEADER.size + size:
            return None
        if count > len(self._descriptors):
            raise ProtocolError("descriptors are missing; is the limit of open files too low?")
        try:
            message = self._decoder.decode(memoryview(self._buffer)[_HEADER.size : _HEADER.size + size])
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ProtocolError(f"a message cannot be understood: {error}") from None
        del self._buffer[: _HEADER.size + size]
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return message, descriptors

    def close(self) -> None:
        """Close descriptors that nobody took."""
        close_all(self._descriptors)
        self._descriptors = []


def send(connection: socket.socket, frame: Buffer, descriptors: Sequence[int] = ()) -> int:
    """Send as much of a frame as goes; how many bytes went. Descriptors go with the first byte."""
    if not descriptors:
        return connection.send(frame)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return connection.sendmsg([frame], rights)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors, whatever happens."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)

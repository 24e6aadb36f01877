"""Receives one pushed model: as many bytes as its header announces, within a time of its own.

The memory that it takes grows with the bytes that have come, whatever the header announces.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from ousel.v1 import model_service_pb2

from engine.config import ModelConfig
from engine.serving.errors import InvalidRequest, PushInProgress
from engine.serving.requests import read_request

_BLOCK_BYTES = 2**20
# A push is slow that takes longer than this for so many bytes.
_PACE_BYTES, _PACE_S = 2**18, 5.0


class Blocks:
    """Bytes that have come, in pieces of which none is small: a piece has a cost beside its bytes."""

    def __init__(self) -> None:
        self.size = 0
        # As bytes, since a join of anything that can change keeps the interpreter: for 400 MB, a third of a second.
        self._blocks: list[bytes] = []
        self._last = bytearray()

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._last += chunk
        if len(self._last) >= _BLOCK_BYTES:
            self._blocks.append(bytes(self._last))
            self._last = bytearray()

    def verified(self, announced: bytes) -> bytearray:
        """All of them as one, where `announced` is their SHA-256; takes long, and lets other threads run meanwhile.

        Raises:
            InvalidRequest: they have another digest.
        """
        # A join of this size lets go of the interpreter, and so does the digest. A copy of the whole would not.
        data = bytearray().join([*self._blocks, bytes(self._last)])
        while self._blocks:  # One by one, since to free them all at once keeps the interpreter, too.
            self._blocks.pop()
        got = hashlib.sha256(data).digest()
        if got != announced:
            raise InvalidRequest(
                f"sha256 must be the digest of the weights, got {announced.hex()} for {got.hex()}", "header.sha256"
            )
        return data


async def read_header(context: Any, config: ModelConfig) -> model_service_pb2.WeightsHeader:
    """The first message, as it comes.

    Raises:
        InvalidRequest: it is no header.
        TimeoutError: it did not come in time.
    """
    try:
        async with asyncio.timeout(config.push_silence_s):
            message = await read_request(context)
    except TimeoutError:
        raise TimeoutError(_silent(config)) from None
    if message is None or message.WhichOneof("message") != "header":
        got = "nothing" if message is None else message.WhichOneof("message") or "neither header nor chunk"
        raise InvalidRequest(f"the first message must be header, got {got}", "header")
    header: model_service_pb2.WeightsHeader = message.header
    return header


class Reception:
    """One push of which the bytes come in. While it is slow, it gives way to another."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._blocks = Blocks()
        self._wait: asyncio.Timeout | None = None
        self._gave_way = False
        self._paced_s, self._paced_bytes = 0.0, 0

    @property
    def slow(self) -> bool:
        """Whether its latest bytes took too long for others to wait."""
        return self._wait is not None and asyncio.get_running_loop().time() - self._paced_s > _PACE_S

    def give_way(self) -> bool:
        """Ends this push if it is slow; whether it does. Only one other push may take its place.

        A caller that sends a byte now and then could otherwise keep the only place until the deadline of its push, and
        take it again before anybody else.
        """
        if self._wait is None or self._gave_way or not self.slow:
            return False
        self._gave_way = True
        self._wait.reschedule(asyncio.get_running_loop().time())
        return True

    async def read(self, context: Any, size_bytes: int) -> Blocks:
        """Receives the chunks behind the header: the announced number of bytes, no more and no fewer.

        Raises:
            InvalidRequest: more or fewer bytes came, or another message than a chunk.
            TimeoutError: nothing came for `model.push_silence_s`, or not all within `model.push_receive_s`.
            PushInProgress: it gave way to another push.
        """
        config, blocks = self._config, self._blocks
        loop = asyncio.get_running_loop()
        self._paced_s = loop.time()
        until_s = self._paced_s + config.push_receive_s
        try:
            async with asyncio.timeout_at(min(until_s, loop.time() + config.push_silence_s)) as self._wait:
                while (message := await read_request(context)) is not None:
                    if not self._gave_way:
                        self._wait.reschedule(min(until_s, loop.time() + config.push_silence_s))
                    if (got := message.WhichOneof("message")) != "chunk":
                        raise InvalidRequest(
                            f"messages after the header must be chunk, got {got or 'neither'}", "chunk"
                        )
                    blocks.add(message.chunk)
                    if blocks.size > size_bytes:
                        raise InvalidRequest(
                            f"weights are too long: size_bytes says {size_bytes}, got {blocks.size} or more",
                            "header.size_bytes",
                        )
                    if blocks.size >= self._paced_bytes + _PACE_BYTES:
                        self._paced_s, self._paced_bytes = loop.time(), blocks.size
        except TimeoutError:
            raise self._too_slow(size_bytes, all_s=loop.time() >= until_s) from None
        finally:
            self._wait = None
        if blocks.size < size_bytes:
            raise InvalidRequest(
                f"weights are truncated: size_bytes says {size_bytes}, got {blocks.size}", "header.size_bytes"
            )
        return blocks

    def _too_slow(self, size_bytes: int, *, all_s: bool) -> Exception:
        came = f"{self._blocks.size} of {size_bytes} bytes had come"
        if self._gave_way:
            return PushInProgress(
                f"another push took the place of this one, which took longer than {_PACE_S:g} s for {_PACE_BYTES}"
                f" bytes, and {came}; try again later"
            )
        if not all_s:
            return TimeoutError(_silent(self._config))
        receive_s = self._config.push_receive_s
        return TimeoutError(f"the push took longer than {receive_s:g} s (model.push_receive_s), and {came}")


def _silent(config: ModelConfig) -> str:
    return f"the push was silent for {config.push_silence_s:g} s (model.push_silence_s)"

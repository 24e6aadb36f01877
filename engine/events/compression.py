"""Kafka's four codecs, read in bounded steps: a batch of a few kB may hold gigabytes, so nobody may unpack it at once.

A codec's package is imported when the first batch needs it, so an installation without it reads everything else.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

_STEP_BYTES = 1 << 20  # The most that one step unpacks.
_INPUT_BYTES = 64 * 1024  # A codec is fed in pieces of this size, since it copies what it has not used yet.
_MAX_WINDOW_BYTES = 128 << 20  # zstd's own limit; a frame that needs a longer look back is refused.
# A block of snappy can only be unpacked as a whole. Kafka's own producers write blocks of 32 kB; librdkafka writes one
# block for a batch, which can be at most 21 times as long as its compressed form.
_MAX_SNAPPY_BLOCK_BYTES = 64 << 20
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_BLOCK_LENGTH = struct.Struct(">i")
_GZIP_WINDOW_BITS = 31  # the largest window, with gzip's header

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
_NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
_MODULES = {SNAPPY: ("snappy", "python-snappy"), LZ4: ("lz4.frame", "lz4"), ZSTD: ("zstandard", "zstandard")}


class CodecMissing(Exception):
    """The package that reads a codec is not installed; the message names the codec and the package."""


class Undecodable(ValueError):
    """Compressed data is not what its codec writes; the message says where it fails."""


class Decompressor:
    """The bytes of one compressed batch, in steps.

    Args:
        codec: the number that the batch's attributes give.

    Raises:
        CodecMissing: its package is not installed.
        Undecodable: Kafka has no codec of this number.
    """

    def __init__(self, codec: int, data: memoryview) -> None:
        if codec not in _NAMES:
            raise Undecodable(f"codec must be one of 1 to 4, got {codec}")
        self._name = _NAMES[codec]
        self._module = _import(codec)
        readers = {GZIP: self._gzip, SNAPPY: self._snappy, LZ4: self._lz4, ZSTD: self._zstd}
        self._chunks = readers[codec](data)

    def read(self, at_least: int) -> bytes:
        """Returns so many bytes or some more, and fewer only where the data ends.

        Raises:
            Undecodable: the data is damaged.
        """
        chunks: list[bytes] = []
        size = 0
        while size < at_least:
            try:
                chunk = next(self._chunks, None)
            except Undecodable:
                raise
            except Exception as error:  # Each package raises errors of its own kinds.
                raise Undecodable(f"{self._name} can't be unpacked: {error}") from error
            if chunk is None:
                break
            chunks.append(chunk)
            size += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _gzip(self, data: memoryview) -> Iterator[bytes]:
        decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
        for piece in _pieces(data):
            rest: bytes | memoryview = piece
            while len(rest):
                yield decoder.decompress(rest, _STEP_BYTES)
                rest = decoder.unconsumed_tail
                if decoder.eof:  # A stream may have several members.
                    rest = decoder.unused_data.lstrip(b"\0")
                    decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
        if not decoder.eof:
            while tail := decoder.decompress(b"", _STEP_BYTES):
                yield tail

    def _lz4(self, data: memoryview) -> Iterator[bytes]:
        decoder = self._module.LZ4FrameDecompressor()
        for piece in _pieces(data):
            rest: bytes | memoryview = piece
            while len(rest) or not decoder.needs_input:
                yield decoder.decompress(rest, max_length=_STEP_BYTES)
                rest = b""
                if decoder.eof:
                    rest = decoder.unused_data or b""
                    decoder = self._module.LZ4FrameDecompressor()

    def _zstd(self, data: memoryview) -> Iterator[bytes]:
        decoder = self._module.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        with decoder.stream_reader(data, read_across_frames=True) as reader:
            while chunk := reader.read(_STEP_BYTES):
                yield chunk

    def _snappy(self, data: memoryview) -> Iterator[bytes]:
        if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
            yield self._snappy_block(data)
            return
        at = _XERIAL_HEADER_BYTES
        while at < len(data):
            if bytes(data[at : at + len(_XERIAL_MAGIC)]) == _XERIAL_MAGIC:  # streams may be joined
                at += _XERIAL_HEADER_BYTES
                continue
            (length,) = _BLOCK_LENGTH.unpack_from(data, at)
            at += _BLOCK_LENGTH.size
            if not 0 <= length <= len(data) - at:
                raise Undecodable(f"snappy has a block of {length} bytes where {len(data) - at} are left")
            yield self._snappy_block(data[at : at + length])
            at += length

    def _snappy_block(self, block: memoryview) -> bytes:
        size = _snappy_length(block)
        if size > _MAX_SNAPPY_BLOCK_BYTES:
            raise Undecodable(
                f"snappy has a block of {size} bytes unpacked, at most {_MAX_SNAPPY_BLOCK_BYTES} are read"
            )
        unpacked: bytes = self._module.decompress(bytes(block))
        return unpacked


def _import(codec: int) -> Any:
    if codec not in _MODULES:
        return None
    module, package = _MODULES[codec]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        importlib.invalidate_caches()  # It may be installed before the next try.
        name = _NAMES[codec]
        raise CodecMissing(f"it is compressed with {name}, install the package {package} to read it") from error


def _pieces(data: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(data), _INPUT_BYTES):
        yield data[at : at + _INPUT_BYTES]


def _snappy_length(block: memoryview) -> int:
    """The length that a block of snappy has once it is unpacked; its first bytes say it."""
    length = 0
    for position, byte in enumerate(bytes(block[:5])):
        length |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return length
    raise Undecodable("snappy has a block without its length")

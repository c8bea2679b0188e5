"""Files compressed with zstd, with windows of any length, read to their end."""

import io
from typing import BinaryIO

import zstandard

_LONGEST_WINDOW = 2**31
"""Bytes: what `zstd --ultra --long=31` makes. Memory is taken as a file needs it."""
_PIECE = 1 << 17


class ZstdFile(io.RawIOBase):
    """The content of a file, frame after frame.

    Unlike `zstandard`'s own reader it takes no file cut short for a whole one.

    Args:
        file: compressed; closed with this one.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._rest, self._ready = file, b"", memoryview(b"")
        self._context = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of every raw file.

        Raises:
            EOFError: the file ends within a frame.
            zstandard.ZstdError: it is no zstd file, or damaged.
        """
        while not self._ready and (piece := self._rest or self._file.read(_PIECE)):
            self._rest = b""
            frame = self._frame = self._frame or self._context.decompressobj()
            self._ready = memoryview(frame.decompress(piece))
            if frame.eof:
                self._frame, self._rest = None, frame.unused_data
        if not self._ready and self._frame:
            raise EOFError("the file ends within a frame")
        n = min(len(buffer), len(self._ready))
        memoryview(buffer)[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    def close(self) -> None:
        """The file too."""
        self._file.close()
        super().close()

"""From bytes to text, whatever encoding a page says or has."""

import zlib

import zstandard

from pretrain.base.optional import extra

DAMAGED = (EOFError, OSError, zlib.error, zstandard.ZstdError)  # what a broken stream raises


def decode(data: bytes) -> str:
    """Text of a page: UTF-8 where it is that, else what its bytes look like, never an error."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = extra("resiliparse.parse.encoding", "crawl")
        return encoding.bytes_to_str(data, encoding.detect_encoding(data) or "utf-8", errors="replace")

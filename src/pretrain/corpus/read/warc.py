"""Web archives: WARC and WET (ISO 28500:2017), gzip, Zstandard, LZ4 or plain, and their ancestor ARC."""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from pretrain.base.optional import extra
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

STARTS = (b"\x1f\x8b\x08", b"WARC/", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # of a record, or of its compression
WINDOW = 1 << 20  # bytes searched at a time


@dataclass(frozen=True)
class Warc:
    """Responses, resources and conversions (WET); a damaged stretch is skipped to the next record, and counted."""

    payloads: ClassVar[bool] = True

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """Records at their byte offsets, their HTTP encodings undone."""
        with file.open() as raw:
            start = raw.read(10)
            raw.seek(0)
            old = start.startswith(b"filedesc:") or (start[:2] == b"\x1f\x8b" and _is_arc(file))
            yield from _arc(file, raw) if old else _apart(_warc(file, raw))


def _is_arc(file: SourceFile) -> bool:
    try:
        with file.plain() as stream:
            return stream.read(9) == b"filedesc:"
    except (OSError, EOFError, zlib.error):
        return False


def _apart(found: Iterator[Record | Flaw]) -> Iterator[Record | Flaw]:
    """Places of their own also for the records of one gzip member, which share its offset."""
    before = -1
    for one in found:
        before = max(one.place, before + 1)
        yield type(one)(**{**vars(one), "place": before})


def _warc(file: SourceFile, raw: BinaryIO) -> Iterator[Record | Flaw]:
    """A record is held back until the next one is found, or its own bytes are known to be whole."""
    warc = extra("fastwarc.warc", "crawl")
    types = warc.WarcRecordType
    kinds = types.response | types.resource | types.conversion | types.revisit | types.unknown
    start: int | None = 0
    while start is not None and start < file.bytes:
        held: Record | Flaw | None = None
        at, ended = -1, False
        raw.seek(start)
        try:
            for record in warc.ArchiveIterator(
                _From(raw), parse_http=True, auto_decode="all", record_types=types.any_type
            ):
                if held is not None:
                    yield held
                at = start + record.stream_pos
                held = _record(file, record, at, types) if record.record_type & kinds else None
            ended = True
        except (OSError, EOFError, ValueError, RuntimeError):
            pass
        end = start if at < 0 else _end(raw, at, file.bytes, ended=ended)
        if end is None:
            yield Flaw(at, held.url if held else f"{file.url}#{at}", "damaged record")
            start = _next(raw, at + 1)
            continue
        if held is not None:
            yield held
        start = _next(raw, max(end, start + 1))
        if end < (stop := file.bytes if start is None else start):
            yield Flaw(end, f"{file.url} bytes {end} to {stop}", "unreadable bytes")


class _From(io.RawIOBase):
    """The rest of a file, as if it began here."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._start = raw, raw.tell()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def tell(self) -> int:
        return self._raw.tell() - self._start


def _end(raw: BinaryIO, place: int, size: int, *, ended: bool) -> int | None:
    """Where the record at `place` ends; None if it is damaged or cut short."""
    raw.seek(place)
    head, found, _ = raw.read(1 << 16).partition(b"\r\n\r\n")
    if head.startswith(b"\x1f\x8b"):
        return _member_end(raw, place)
    if not head.startswith(b"WARC/"):
        return size if ended else place + 1  # other compressions check themselves
    length = re.search(rb"(?im)^content-length:\s*(\d{1,18})\s*$", head)
    end = place + len(head) + len(found) + int(length[1]) if length else size + 1
    if end > size:
        return None
    raw.seek(end)
    after = raw.read(4)
    return end + len(after) - len(after.lstrip(b"\r\n"))


def _member_end(raw: BinaryIO, place: int) -> int | None:
    raw.seek(place)
    member, read = zlib.decompressobj(31), 0
    try:
        while not member.eof and (data := raw.read(WINDOW)):
            read += len(data)
            while data and not member.eof:
                member.decompress(data, WINDOW)
                data = member.unconsumed_tail
    except zlib.error:
        return None
    return place + read - len(member.unused_data) if member.eof else None


def _next(raw: BinaryIO, start: int) -> int | None:
    """Where the next record may begin."""
    raw.seek(start)
    window, longest = raw.read(WINDOW), max(map(len, STARTS))
    while window:
        found = [place for sign in STARTS if (place := window.find(sign)) >= 0]
        if found:
            return start + min(found)
        more = raw.read(WINDOW)
        if not more:
            return None
        start += len(window) - longest + 1
        window = window[-longest + 1 :] + more
    return None


def _record(file: SourceFile, record: Any, place: int, types: Any) -> Record | Flaw:
    headers = record.headers
    url = headers.get("WARC-Target-URI", "").strip("<>") or f"{file.url}#{place}"
    if record.record_type & (types.revisit | types.unknown):
        return Flaw(place, url, "a revisit" if record.record_type & types.revisit else "of unknown type")
    status = record.http_headers.status_code if record.http_headers else None
    if status is not None and not 200 <= status < 300:
        return Flaw(place, url, f"HTTP status {status}")
    try:
        data = record.reader.read(LONGEST + 1)
    except (OSError, EOFError, ValueError, RuntimeError):
        return Flaw(place, url, "damaged payload")
    if len(data) > LONGEST:
        return Flaw(place, url, "too large")
    if record.http_headers is None and len(data) < record.content_length:
        return Flaw(place, url, "truncated record")
    media_type = (record.http_content_type or headers.get("Content-Type", "")).partition(";")[0].strip().lower()
    language = (headers.get("WARC-Identified-Content-Language") or "").partition(",")[0] or None
    return Record(place, url, None, data, media_type, language=language, date=headers.get("WARC-Date"))


def _arc(file: SourceFile, raw: BinaryIO) -> Iterator[Record | Flaw]:
    """What came before WARC; warcio reads it, fastwarc does not."""
    archive = extra("warcio.archiveiterator", "crawl").ArchiveIterator(raw, arc2warc=True)
    place = -1
    try:
        for record in archive:
            data = record.content_stream().read(LONGEST + 1)
            place = max(archive.get_record_offset(), place + 1)  # which reads to the record's end
            url = record.rec_headers.get_header("WARC-Target-URI") or f"{file.url}#{place}"
            if record.rec_type != "response":
                continue
            status = record.http_headers.get_statuscode() if record.http_headers else "200"
            if not status.startswith("2"):
                yield Flaw(place, url, f"HTTP status {status}")
                continue
            if len(data) > LONGEST:
                yield Flaw(place, url, "too large")
                continue
            media = record.http_headers.get_header("Content-Type") if record.http_headers else None
            media_type = (media or "").partition(";")[0].strip().lower()
            yield Record(place, url, None, data, media_type, date=record.rec_headers.get_header("WARC-Date"))
    except Exception:  # warcio raises what it meets: zlib errors, its own, broken ints
        yield Flaw(place + 1, f"{file.url} bytes {place + 1} to {file.bytes}", "unreadable bytes")

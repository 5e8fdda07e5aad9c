"""Web archives: WARC and WET (ISO 28500:2017), gzip, Zstandard, LZ4 or plain, and their ancestor ARC."""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, ClassVar

from pretrain.base.optional import extra
from pretrain.corpus.document import LONGEST, Flaw, Record
from pretrain.corpus.sources import SourceFile

STARTS = (b"\x1f\x8b\x08", b"WARC/", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # of a record, or of its compression
ARC = b"filedesc:"  # how an ARC file begins
ARC_HEAD = re.compile(rb"\S+ \S+ \d{14} [^\r\n]*?(\d{1,18})\r?\n")  # of its records: address, host, time, type, length
WINDOW = 1 << 20  # bytes searched at a time


@dataclass(frozen=True)
class Warc:
    """Responses, resources and conversions (WET); a damaged stretch is skipped to the next record, and counted."""

    payloads: ClassVar[bool] = True
    places: ClassVar[str] = "byte offset"

    def read(self, file: SourceFile) -> Iterator[Record | Flaw]:
        """Records at their byte offsets, their HTTP encodings undone."""
        with file.open() as raw:
            for _, one in _walk(file, raw):
                if one is not None:
                    yield one

    def spans(self, file: SourceFile, size: int) -> Iterator[tuple[int, int, int]]:
        """Runs of whole records of about `size` bytes: (first byte, where it ends, first byte again).

        The file is walked as it is read, and cut where the reader found a record at the very byte at which the one
        before it ends, both alone in their gzip members, whose checksum is right: what only looks like a start is none.
        A file that is compressed as a whole has no such place.
        """
        start, before, last = 0, -1, -1  # of the span, of the record before, and the place that this one was given
        found: int | None = None  # where the file is cut if no other record is found there
        with file.open() as raw, file.open() as beside:
            if not raw.read(10).startswith((*STARTS[:2], ARC)):
                return
            raw.seek(0)
            for at, one in _walk(file, raw):
                if found is not None and at > found:
                    yield start, found, start
                    start = found
                far = at >= start + size and max(before, last) < at
                found = at if far and _ends_at(file, beside, before, at) else None
                before, last = at, last if one is None else one.place
        yield start, file.bytes, start


def _ends_at(file: SourceFile, raw: BinaryIO, place: int, end: int) -> bool:
    """Whether the record at a place ends there, and no other one before it."""
    if _end(raw, place, file.bytes, ended=False) != end:
        return False
    raw.seek(0)
    return len(list(_walk(replace(file, span=(place, end, place)), raw))) == 1


def _walk(file: SourceFile, raw: BinaryIO) -> Iterator[tuple[int, Record | Flaw | None]]:
    """(byte offset, what is there) of all records of a file or of a span of it; None for those of no interest."""
    old = raw.read(len(ARC)) == ARC or _is_arc(file)
    raw.seek(0)
    yield from _arc(file, raw) if old else _apart(_warc(file, raw))


def _is_arc(file: SourceFile) -> bool:
    try:
        with file.plain() as stream:
            return stream.read(len(ARC)) == ARC
    except (OSError, EOFError, zlib.error):
        return False


def _apart(found: Iterator[tuple[int, Record | Flaw | None]]) -> Iterator[tuple[int, Record | Flaw | None]]:
    """Places of their own also for the records of one gzip member, which share its offset."""
    before = -1
    for at, one in found:
        if one is not None:
            before = max(one.place, before + 1)
        yield at, None if one is None else type(one)(**{**vars(one), "place": before})


def _warc(file: SourceFile, raw: BinaryIO) -> Iterator[tuple[int, Record | Flaw | None]]:
    """A record is held back until the next one is found, or its own bytes are known to be whole."""
    warc = extra("fastwarc.warc", "crawl")
    types = warc.WarcRecordType
    kinds = types.response | types.resource | types.conversion | types.revisit | types.unknown
    start: int | None
    start, stop = file.span[:2] if file.span else (0, file.bytes)
    while start is not None and start < stop:
        held: Record | Flaw | None = None
        at, ended = -1, False
        raw.seek(start)
        try:
            for record in warc.ArchiveIterator(
                _From(raw, stop), parse_http=True, auto_decode="all", record_types=types.any_type
            ):
                if at >= 0:
                    yield at, held
                at = start + record.stream_pos
                held = _record(file, record, at, types) if record.record_type & kinds else None
            ended = True
        except (OSError, EOFError, ValueError, RuntimeError):
            pass
        end = start if at < 0 else _end(raw, at, stop, ended=ended)
        if end is None:
            yield at, Flaw(at, held.url if held else f"{file.url}#{at}", "damaged record")
            start = _next(raw, at + 1)
            continue
        if at >= 0:
            yield at, held
        start = _next(raw, max(end, start + 1))
        if end < (beyond := stop if start is None else min(start, stop)):
            yield end, Flaw(end, f"{file.url} bytes {end} to {beyond}", "unreadable bytes")


class _From(io.RawIOBase):
    """A file from here to `stop`, as if it were one."""

    def __init__(self, raw: BinaryIO, stop: int) -> None:
        self._raw, self._start, self._stop = raw, raw.tell(), stop

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = max(self._stop - self._raw.tell(), 0)
        return self._raw.read(left if size < 0 else min(size, left))

    def tell(self) -> int:
        return self._raw.tell() - self._start


def _end(raw: BinaryIO, place: int, size: int, *, ended: bool) -> int | None:
    """Where the record at `place` ends; None if it is damaged or cut short."""
    raw.seek(place)
    head, found, _ = raw.read(1 << 16).partition(b"\r\n\r\n")
    if head.startswith(b"\x1f\x8b"):
        return _member_end(raw, place)
    if old := ARC_HEAD.match(head + found):
        end = place + old.end() + int(old[1])
    elif head.startswith(b"WARC/"):
        length = re.search(rb"(?im)^content-length:\s*(\d{1,18})\s*$", head)
        end = place + len(head) + len(found) + int(length[1]) if length else size + 1
    else:
        return size if ended else place + 1  # other compressions check themselves
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


def _arc(file: SourceFile, raw: BinaryIO) -> Iterator[tuple[int, Record | Flaw | None]]:
    """What came before WARC; warcio reads it, fastwarc does not."""
    start, stop = file.span[:2] if file.span else (0, file.bytes)
    raw.seek(start)
    archive = extra("warcio.archiveiterator", "crawl").ArchiveIterator(_From(raw, stop), arc2warc=True)
    place = start - 1
    try:
        for record in archive:
            data = record.content_stream().read(LONGEST + 1)
            at = start + archive.get_record_offset()  # which reads to the record's end
            place = max(at, place + 1)
            url = record.rec_headers.get_header("WARC-Target-URI") or f"{file.url}#{place}"
            if record.rec_type != "response":
                yield at, None
                continue
            status = record.http_headers.get_statuscode() if record.http_headers else "200"
            if not status.startswith("2"):
                yield at, Flaw(place, url, f"HTTP status {status}")
                continue
            if len(data) > LONGEST:
                yield at, Flaw(place, url, "too large")
                continue
            media = record.http_headers.get_header("Content-Type") if record.http_headers else None
            media_type = (media or "").partition(";")[0].strip().lower()
            yield at, Record(place, url, None, data, media_type, date=record.rec_headers.get_header("WARC-Date"))
    except Exception:  # warcio raises what it meets: zlib errors, its own, broken ints
        yield place + 1, Flaw(place + 1, f"{file.url} bytes {place + 1} to {stop}", "unreadable bytes")

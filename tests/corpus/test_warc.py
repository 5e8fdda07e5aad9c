"""Oracle and ordeal: what warcio reads we read, byte for byte; damage takes down the records that it touches."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.sources import SourceFile

pytest.importorskip("fastwarc", reason="reads web archives: pip install 'pretrain[crawl]'")
warcio = pytest.importorskip("warcio.archiveiterator", reason="the independent reader")
MUTANTS = [
    ("src/pretrain/corpus/read/warc.py", "if end is None:\n            yield", "if False:\n            yield"),
    ("src/pretrain/corpus/read/warc.py", "start = _next(raw, max(end, start + 1))", "start = None"),
]
Warc = find("corpus.read", "warc").Warc
DATA = Path(__file__).parents[3] / "shared" / "data" / "warc"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the archives in ../shared/data")


def read(path: Path) -> list[Record | Flaw]:
    return list(Warc().read(SourceFile(path, path.name, path.stat().st_size, "0" * 32)))


def theirs(path: Path) -> list[tuple[str, bytes]]:
    out = []
    with path.open("rb") as file:
        for record in warcio.ArchiveIterator(file, arc2warc=True):
            if record.rec_type in ("response", "conversion") and (
                record.http_headers is None or record.http_headers.get_statuscode().startswith("2")
            ):
                out.append((record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read()))
    return out


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "example.warc",
        "example.warc.gz",
        "example.arc",
        "example.arc.gz",
        "post-test.warc.gz",
        "warcfile.warc.gz",
        "whirlwind.warc.gz",
        "whirlwind.warc.wet.gz",
    ],
)
def test_payloads_are_those_that_warcio_reads(name: str) -> None:
    ours = [(one.url, one.data) for one in read(DATA / name) if isinstance(one, Record)]
    assert ours == theirs(DATA / name) and ours


@needs_data
def test_other_compressions_and_damaged_files() -> None:
    same = [one.data for one in read(DATA / "warcfile.warc.lz4") if isinstance(one, Record)]
    assert same == [one.data for one in read(DATA / "warcfile.warc.gz") if isinstance(one, Record)]
    (wet,) = read(DATA / "whirlwind.warc.wet.gz")
    assert isinstance(wet, Record) and wet.media_type == "text/plain" and wet.date and len(wet.data) == 4456
    found = read(DATA / "example-trunc.warc")
    assert [type(one) for one in found] == [Record, Flaw] and found[1].reason == "unreadable bytes"
    for name in ("example-bad.warc.gz.bad", "example-bad-non-chunked.warc.gz"):  # all records in one member
        found = read(DATA / name)
        assert len(found[0].data) == 1270 and len({one.place for one in found}) == len(found)


@needs_data
def test_damage_costs_what_it_touches(tmp_path: Path) -> None:
    data = (DATA / "warcfile.warc.gz").read_bytes()
    whole = [one for one in read(DATA / "warcfile.warc.gz") if isinstance(one, Record)]
    bounds = [one.place for one in whole] + [len(data)]
    path = tmp_path / "damaged.warc.gz"
    for i, record in enumerate(whole[:6]):
        middle = record.place + 200
        path.write_bytes(data[:middle] + b"####" + data[middle + 4 :])
        found = read(path)
        left = [one.data for one in found if isinstance(one, Record)]
        assert left == [one.data for one in whole if one is not record]
        assert any(isinstance(one, Flaw) and record.place <= one.place < bounds[i + 1] for one in found)
        path.write_bytes(data[:middle])
        found = read(path)
        assert [one.data for one in found if isinstance(one, Record)] == [one.data for one in whole[:i]]
        assert isinstance(found[-1], Flaw)


def record(number: int, body: bytes, extra: bytes = b"", kind: bytes = b"response") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + extra + b"\r\n" + body
    head = b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Target-URI: http://a/%d\r\n" % (kind, number)
    return head + b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (
        len(http),
        http,
    )


def test_a_bomb_is_too_large_and_no_more(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * (40 * 2**20))
    path = tmp_path / "a.warc.gz"
    records = [record(0, b"<p>one"), record(1, bomb, b"Content-Encoding: gzip\r\n"), record(2, b"<p>two")]
    path.write_bytes(b"".join(map(gzip.compress, records)))
    found = read(path)
    assert [getattr(one, "reason", None) or one.data for one in found] == [b"<p>one", "too large", b"<p>two"]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_mutilated_archives_harm_nobody(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, zipped: bool
) -> None:
    pack = gzip.compress if zipped else bytes
    whole = b"".join(pack(record(i, b"<p>page %d</p>" % i * 20)) for i in range(5))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole) - 1))
        stop = data.draw(st.integers(start, min(len(whole), start + 400)))
        whole = whole[:start] + data.draw(st.binary(max_size=40)) + whole[stop:]
        if not whole:
            return
    path = tmp_path_factory.mktemp("x") / "a.warc"
    path.write_bytes(whole)
    found = read(path)
    assert len({one.place for one in found}) == len(found)
    assert all(b"page" in one.data or len(one.data) < 400 for one in found if isinstance(one, Record))

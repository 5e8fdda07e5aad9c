"""Oracle and ordeal: what warcio reads we read, byte for byte; damage takes down the records that it touches."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import find
from pretrain.corpus.build import Build
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Flaw, Record
from pretrain.corpus.ledger import entries
from pretrain.corpus.parts import Steps
from pretrain.corpus.sources import SourceFile, source_files
from pretrain.recipe.read import load

pytest.importorskip("fastwarc", reason="reads web archives: pip install 'pretrain[crawl]'")
warcio = pytest.importorskip("warcio.archiveiterator", reason="the independent reader")
MUTANTS = [
    ("src/pretrain/corpus/read/warc.py", "if end is None:\n            yield", "if False:\n            yield"),
    ("src/pretrain/corpus/read/warc.py", "start = _next(raw, max(end, start + 1))", "start = None"),
    ("src/pretrain/corpus/read/warc.py", "if _end(raw, place, file.bytes, ended=False) != end", "if False"),
    ("src/pretrain/corpus/read/warc.py", "if found is not None and at > found", "if found is not None"),
    ("src/pretrain/corpus/read/warc.py", "max(before, last) < at", "before < at"),
    ("src/pretrain/corpus/read/warc.py", "_From(raw, stop), parse_http", "_From(raw, file.bytes), parse_http"),
]
Warc = find("corpus.read", "warc").Warc
DATA = Path(__file__).parents[3] / "shared" / "data" / "warc"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the archives in ../shared/data")


def read(path: Path) -> list[Record | Flaw]:
    return list(Warc().read(SourceFile(path, path.name, path.stat().st_size, "0" * 32)))


def in_parts(path: Path, size: int) -> tuple[list[Record | Flaw], list[tuple[int, int, int]]]:
    """What is read span by span, and the spans, which cover the file without a gap."""
    file = SourceFile(path, path.name, path.stat().st_size, "0" * 32)
    spans = list(Warc().spans(file, size))
    ends = [0, *(stop for _, stop, _ in spans)]
    assert [start for start, _, _ in spans] == ends[:-1] and ends[-1] in (file.bytes, 0)
    return [one for span in spans or [None] for one in Warc().read(replace(file, span=span))], spans


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
@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("example.warc", True),
        ("example.warc.gz", True),
        ("post-test.warc.gz", True),
        ("warcfile.warc.gz", True),
        ("whirlwind.warc.gz", True),
        ("example-trunc.warc", True),
        ("warcfile.warc.lz4", False),
        ("example-bad.warc.gz.bad", False),  # one member over all
        ("example-bad-non-chunked.warc.gz", False),
    ],
)
def test_parts_of_an_archive_hold_what_the_whole_holds(name: str, some: bool) -> None:
    whole = read(DATA / name)
    for size in (1, 3000, 10**9):
        found, spans = in_parts(DATA / name, size)
        assert found == whole and (size > 1 or (len(spans) > 1) == some)
    with (DATA / name).open("rb") as file:
        starts = set()
        if some and "trunc" not in name:
            archive = warcio.ArchiveIterator(file, arc2warc=True)
            starts = {(archive.read_to_end(), archive.get_record_offset())[1] for _ in archive}
    assert not starts or {start for start, _, _ in in_parts(DATA / name, 1)[1]} <= starts


@needs_data
@pytest.mark.parametrize("zipped", [True, False])
def test_parts_of_an_old_archive(tmp_path: Path, zipped: bool) -> None:
    whole = (DATA / "example.arc").read_bytes()
    at = whole.index(b"http://example.com/")
    lying = b"http://a/ 1.2.3.4 20140216050221 text/html %d\n" % (len(whole) + 19) + b"HTTP/1.1 200 OK\r\n\r\n" + whole
    records = [whole[:at], *[whole[at:]] * 3, lying + b"\n", *[whole[at:]] * 3]
    packed, starts = members(records, 0) if zipped else (b"".join(records), [])
    for end in (len(packed), len(packed) - 700):
        (tmp_path / "a.arc").write_bytes(packed[:end])
        found, spans = in_parts(tmp_path / "a.arc", 1)
        assert found == read(tmp_path / "a.arc") and len(found) > 5
        assert len(spans) > 5 and (not zipped or {start for start, _, _ in spans} <= set(starts))


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


def members(records: list[bytes], level: int = 9) -> tuple[bytes, list[int]]:
    """Records as gzip members, and where each starts."""
    packed = [gzip.compress(one, level) for one in records]
    return b"".join(packed), [sum(map(len, packed[:i])) for i in range(len(packed))]


@pytest.mark.parametrize("zipped", [True, False])
def test_archives_inside_an_archive_are_no_place_to_cut(tmp_path: Path, zipped: bool) -> None:
    inner, _ = members([record(i, b"<p>inner %d" % i * 20) for i in range(30)])
    plain = b"".join(record(i, b"<p>plain %d" % i) for i in range(9))
    bodies = [b"<p>one", inner, b"<p>two", plain, inner[:-9], b"\x1f\x8b\x08" * 99, b"<p>three"]
    records = [record(i, body) for i, body in enumerate(bodies)]
    whole, starts = members(records, 0) if zipped else (b"".join(records), [])
    starts = starts or [sum(map(len, records[:i])) for i in range(len(records))]
    path = tmp_path / "a.warc"
    path.write_bytes(whole)
    assert inner in whole and [one.data for one in read(path)] == bodies
    found, spans = in_parts(path, 1)
    assert found == read(path) and [start for start, _, _ in spans] == starts[:-1]
    for size in (100, 3000, 10_000):
        found, spans = in_parts(path, size)
        assert found == read(path) and {start for start, _, _ in spans} <= set(starts)
        assert all(stop - start >= size for start, stop, _ in spans[:-1])


def test_records_that_share_a_member_stay_together(tmp_path: Path) -> None:
    some = [record(i, b"<p>page %d" % i) for i in range(12)]
    whole, starts = members([b"".join(some[i : i + 3]) for i in range(0, 12, 3)])
    (tmp_path / "a.warc.gz").write_bytes(whole)
    found, spans = in_parts(tmp_path / "a.warc.gz", 1)
    assert found == read(tmp_path / "a.warc.gz") and len(found) == 12
    assert len(spans) == 1
    more, starts = members([*some, b"".join(some[:2]), *some[2:5]])
    (tmp_path / "c.warc.gz").write_bytes(more)
    found, spans = in_parts(tmp_path / "c.warc.gz", 1)
    assert found == read(tmp_path / "c.warc.gz") and [start for start, _, _ in spans] == [*starts[:12], *starts[14:-1]]
    many = gzip.compress(b"".join([record(0, b"<p>same")] * 3000))  # more records than bytes: their places run on
    (tmp_path / "b.warc.gz").write_bytes(many + members(some)[0])
    assert len(many) < 3000 and in_parts(tmp_path / "b.warc.gz", 1)[0] == read(tmp_path / "b.warc.gz")


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
    for size in (1, 300):
        assert in_parts(path, size)[0] == found
    assert all(b"page" in one.data or len(one.data) < 400 for one in found if isinstance(one, Record))


RECIPE = """
[run]
name = "x"
[[corpus.sources]]
name = "web"
read = "warc"
paths = ["*.warc.gz"]
extract = "plain"
[corpus]
dropped_text = true
[[corpus.steps]]
use = "exact"
[train]
steps = 1
batch = 64
sequence = 64
"""


def test_one_large_file_is_the_work_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [record(i, b"<p>the text of page %d " % (i % 50) * 5, b"", (b"response", b"request")[i % 5 == 0])
            for i in range(90)]  # fmt: skip
    packed = [gzip.compress(one) for one in some]
    packed[40] = packed[40][:60] + b"####" + packed[40][64:]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(packed))
    (tmp_path / "x.toml").write_text(RECIPE)
    made = load(str(tmp_path / "x.toml"))
    found = {}
    for part_bytes, processes in ((2**25, 0), (2000, 2)):
        monkeypatch.setattr("pretrain.corpus.parts.PART_BYTES", part_bytes)
        folder = tmp_path / f"{part_bytes} {processes}"
        (folder / "cut").mkdir(parents=True)
        with find("corpus.engine", "local").Local(processes).open(folder) as pool:
            files = {"web": source_files(made.corpus.sources[0])}
            Build(made.corpus, 5, Steps(folder / "steps"), pool, lambda said: None).run(files, folder / "cut")
        cut = Cut(folder / "cut")
        parts = len(json.loads((cut.folder / "parts.json").read_bytes()))
        found[part_bytes, processes] = [list(cut.verdicts()), cut.summary, list(cut.documents("train"))]
        assert parts == 1 if part_bytes == 2**25 else parts >= 5
    assert found[2**25, 0] == found[2000, 2]
    verdicts, summary, _ = found[2000, 2]
    assert len(verdicts) > 60 and summary["web"]["dropped_for"]["exact copy"] > 5
    one = verdicts[-1]
    [entry] = entries(cut.folder, one["id"])
    assert packed and entry.place == f"byte offset {sum(map(len, packed[:-1]))}" and one["url"] == "http://a/89"
    assert any(one["reason"] in ("damaged record", "unreadable bytes") for one in verdicts)

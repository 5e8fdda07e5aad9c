"""The same WARC through our corpus stage and through datatrove's FineWeb steps: pages per CPU-second, and F1.

    python -m venv DIR && DIR/bin/pip install "datatrove[io,processing]==0.10.1" spacy orjson lxml_html_clean
    python benchmarks/corpus.py DIR/bin/python [trafilatura] [blocks] [--times 3]

Same steps (extraction, Gopher repetition and quality, C4 without its terminal rule, FineWeb, MinHash 14 x 8 of 5-word
shingles), one worker each, alternating, CPU time of the whole process with its children, imports included. The F1 of
`blocks` printed here is on pages that it was trained on: benchmarks/extraction.py measures it on sites that it was not.
"""

import argparse
import gzip
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
COPIES = 4  # of the 257 pages, so that starting up does not count for most
RECIPE = """
[run]
name = "bench"
[corpus]
measure = "until_dropped"
sample = 0.0
engine = {{ use = "local", processes = 1 }}
[[corpus.sources]]
name = "web"
read = "warc"
extract = {{ use = "{extractor}" }}
paths = ["{warcs}/*.warc.gz"]
[[corpus.steps]]
use = "gopher_repetition"
[[corpus.steps]]
use = "gopher_quality"
[[corpus.steps]]
use = "c4"
terminal = false
min_line_words = 3
min_sentences = 5
[[corpus.steps]]
use = "fineweb"
[[corpus.steps]]
use = "minhash"
[train]
steps = 1
batch = 64
sequence = 64
"""


def make_warc(path: Path) -> int:
    truth = json.loads((DATA / "html_articles" / "ground-truth.json").read_text())
    records = []
    for folder in ("html_articles", "html_multilingual"):
        for page in sorted((DATA / folder / "html").glob("*.gz")):
            body = gzip.decompress(page.read_bytes())
            url = truth.get(page.name.partition(".")[0], {}).get("url") or f"https://pages.org/{page.name}"
            http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
            head = (
                f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{len(records):032}>\r\n"
                f"WARC-Target-URI: {url}\r\nWARC-Date: 2025-03-01T00:00:00Z\r\n"
                "WARC-Identified-Payload-Type: text/html\r\n"  # as Common Crawl has it; datatrove skips pages without
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
            )
            records.append(gzip.compress(head.encode() + http + b"\r\n\r\n"))
    with path.open("wb") as file:
        for _ in range(COPIES):
            file.writelines(records)
    return len(records) * COPIES


def cpu_seconds(command: list[str], folder: Path) -> float:
    hush = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT / "src")}  # not an installed one
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=hush)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shingles(text: str) -> Counter:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(len(words) - 3, min(len(words), 1))))


def f1(found: dict[str, str]) -> float:
    truth = json.loads((DATA / "html_articles" / "ground-truth.json").read_text())
    precisions, recalls = [], []
    for name, said in truth.items():
        ours, theirs = shingles(found[name]), shingles(said["articleBody"])
        common = sum((ours & theirs).values())
        precisions.append(common / max(sum(ours.values()), 1))
        recalls.append(common / max(sum(theirs.values()), 1))
    precision, recall = statistics.mean(precisions), statistics.mean(recalls)
    return 2 * precision * recall / (precision + recall)


def our_texts(name: str) -> dict[str, str]:
    from pretrain.base.extension import leaf
    from pretrain.corpus.document import Record

    extractor, found = leaf("corpus.extract", name)(), {}
    for page in sorted((DATA / "html_articles" / "html").glob("*.gz")):
        one = extractor.extract(Record(0, "", None, gzip.decompress(page.read_bytes()), "text/html"))
        found[page.name.partition(".")[0]] = getattr(one, "text", "") or ""
    return found


def main(python: str, extractors: list[str], times: int) -> None:
    peer = str(ROOT / "benchmarks" / "peers" / "datatrove_fineweb.py")
    ours, theirs, kept = defaultdict[str, list[float]](list), [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "warcs").mkdir()
        pages = make_warc(folder / "warcs" / "pages.warc.gz")
        for turn in range(times):
            for extractor in extractors:
                (folder / "bench.toml").write_text(RECIPE.format(warcs=folder / "warcs", extractor=extractor))
                shutil.rmtree(folder / "store", ignore_errors=True)
                shutil.rmtree(folder / "runs", ignore_errors=True)
                command = [sys.executable, "-m", "pretrain", "run", "bench.toml", "--to", "corpus"]
                ours[extractor].append(cpu_seconds(command, folder))
                kept[extractor] = json.loads(next((folder / "store").glob("corpus-*/summary.json")).read_text())["web"]
            theirs.append(cpu_seconds([python, peer, str(folder / "warcs"), str(folder / f"out-{turn}")], folder))
            took = ", ".join(f"{one} {ours[one][-1]:.1f}" for one in extractors)
            print(f"run {turn + 1}: CPU s for {pages} pages: {took}, datatrove {theirs[-1]:.1f}", flush=True)
        kept_there = (folder / "out-0" / "kept").glob("*.gz")
        lines = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in kept_there)
        read_there = json.loads((folder / "out-0" / "log" / "stats.json").read_text())[0]["stats"]["documents"]["total"]
        cpu_seconds([python, peer, "-", str(folder / "texts.json"), str(DATA / "html_articles" / "html")], folder)
        score = f1(json.loads((folder / "texts.json").read_text()))
    b = statistics.median(theirs)
    print(f"datatrove: {pages / b:.1f} pages per CPU-second, F1 {score:.4f}, read {read_there}, kept {lines}")
    for extractor in extractors:
        a, rows = statistics.median(ours[extractor]), kept[extractor]
        stay = rows["train"]["documents"] + rows["held_out"]["documents"]
        said = f"F1 {f1(our_texts(extractor)):.4f}, read {pages}, kept {stay}"
        print(f"{extractor}: {pages / a:.1f} pages per CPU-second, ratio {b / a:.2f}, {said}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of the venv that datatrove is in")
    parser.add_argument("extractors", nargs="*", default=["trafilatura", "blocks"])
    parser.add_argument("--times", type=int, default=3)
    said = parser.parse_args()
    main(said.python, said.extractors, said.times)

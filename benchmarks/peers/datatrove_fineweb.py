"""FineWeb's steps by datatrove, in its own venv: `python datatrove_fineweb.py WARC_FOLDER OUT [ARTICLES]`."""

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


def main(warcs: str, out: str) -> None:
    Trafilatura().extract("<p>text</p>")  # what is missing in this venv is said here: in its child it would hang
    LocalPipelineExecutor(
        [
            WarcReader(warcs, glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=10),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(f"{out}/kept"),
        ],
        tasks=1,
        logging_dir=f"{out}/log",
    ).run()
    signature = MinhashDedupSignature(
        f"{out}/signatures", config=MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    )
    LocalPipelineExecutor([JsonlReader(f"{out}/kept"), signature], tasks=1, logging_dir=f"{out}/log2").run()


def texts(articles: Path, out: Path) -> None:
    extractor = Trafilatura(favour_precision=True)
    import gzip

    found = {}
    for path in sorted(articles.glob("*.html.gz")):
        page = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        found[path.name.removesuffix(".html.gz")] = extractor.extract(page) or ""
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    if len(sys.argv) > 3:
        texts(Path(sys.argv[3]), Path(sys.argv[2]))
    else:
        main(sys.argv[1], sys.argv[2])

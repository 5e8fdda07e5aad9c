"""How time and peak memory of the corpus stage grow with its input: the benchmark's WARC file, 1, 10 and 100 times.

    python benchmarks/corpus_growth.py [EXTRACTOR] [TIMES ...]

Peak resident memory is the largest process's (one worker), or this one's where that is more: a child takes over the
peak of the process that starts it, which therefore holds no more than one copy of the pages. Copies are of the same 257
pages, so that all of the second and later ones are duplicates, found as such.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import corpus


def main(extractor: str, times: list[int]) -> None:
    for copies in times:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "warcs").mkdir()
            corpus.COPIES = copies
            pages = corpus.make_warc(folder / "warcs" / "pages.warc.gz")
            (folder / "bench.toml").write_text(corpus.RECIPE.format(warcs=folder / "warcs", extractor=extractor))
            hush = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(corpus.ROOT / "src")}
            command = [sys.executable, "-m", "pretrain", "run", "bench.toml", "--to", "corpus"]
            with (folder / "log").open("wb") as log:
                child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=hush)
                _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit((folder / "log").read_text())
            seconds = used.ru_utime + used.ru_stime
            print(
                f"{pages} pages: {seconds:.1f} CPU s, {pages / seconds:.0f} a second, {used.ru_maxrss / 1024:.0f} MiB"
            )
            shown = subprocess.run(
                [*command[:3], "inspect", next((folder / "store").glob("corpus-*"))],
                cwd=folder,
                capture_output=True,
                text=True,
                env=hush,
                check=False,
            )
            print(shown.stdout + shown.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "trafilatura", [int(one) for one in sys.argv[2:]] or [1, 10, 100])

"""Which languages are taken for which: a confusion table over sentences whose language is known.

python benchmarks/language.py SENTENCES.tsv[.gz] [--model langid] [--every 1] [--worst 100]

A line of the file is a language's ISO 639 code, a tab and a sentence.
"""

import argparse
import gzip
import time
from pathlib import Path

from pretrain.base.extension import leaf
from pretrain.corpus.confusion import confusion, table

SAME = {"nb": "no"}  # Norwegian as it is written by most, under either code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--model", default="langid", help="or a fastText model's file")
    parser.add_argument("--every", type=int, default=1, help="of so many sentences one")
    parser.add_argument("--worst", type=int, default=100, help="languages shown, the worst recall first")
    arguments = parser.parse_args()
    opened = gzip.open if arguments.sentences.suffix == ".gz" else open
    with opened(arguments.sentences, "rt", encoding="utf-8") as file:
        pairs = [line.rstrip("\n").split("\t") for line in file][:: arguments.every]
    model = leaf("corpus.edits", "language")(model=arguments.model)
    model.identify("Loads the model.")
    start = time.process_time()
    said = [model.identify(text)[0] or "none" for _, text in pairs]
    seconds = time.process_time() - start
    truths = [SAME.get(truth, truth) for truth, _ in pairs]
    print(table(confusion(zip(truths, (SAME.get(one, one) for one in said), strict=True)), arguments.worst))
    print(f"\n{len(pairs) / seconds:,.0f} sentences a CPU-second")


if __name__ == "__main__":
    main()

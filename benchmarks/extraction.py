"""The block extractor's model: trained on pages with known main text, and measured on pages that it was not made on.

    python benchmarks/extraction.py               # k-fold cross-validation by site: F1, speed beside trafilatura
    python benchmarks/extraction.py WEIGHTS.json  # trains on all pages and writes the weights

Truth is the text of the articles, and, on the multilingual pages, weak labels: what trafilatura takes, corrected by the
snippets that a page's text must and must not have. A block counts as far as its words align with the truth; the loss is
one minus the soft F1 of each page (words in chosen blocks), plus cross-entropy. So that a net does not learn 257 pages
by heart, some of what it sees is hidden, for a whole page at a time, and its weights are the mean over the second half
of the training.
"""

import gc
import gzip
import hashlib
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from urllib.parse import urlsplit

import torch
import trafilatura
from torch import nn

from pretrain.base.extension import leaf
from pretrain.base.files import write
from pretrain.corpus import page as pages
from pretrain.corpus.decode import decode
from pretrain.corpus.document import Record
from pretrain.corpus.said import title

DATA = Path(__file__).parents[2] / "shared" / "data"
TRUTHS = {"html_articles": "ground-truth.json", "html_multilingual": "expected.json"}
FOLDS, SEEDS = 5, 3
WIDTH, EPOCHS, BATCH, RATE, DECAY, WEAK = 32, 24, 8, 3e-3, 0.02, 0.5
HIDE, DROP = 0.15, 0.2  # shares of the inputs and of each layer's channels that a page is trained without
WORD = re.compile(r"\w+")


@dataclass
class Example:
    """A page with what its blocks should be: words [blocks], and how many of them are in the truth."""

    name: str
    site: str
    data: bytes
    page: pages.Page
    inputs: torch.Tensor
    words: torch.Tensor
    good: torch.Tensor
    truth: str
    weak: bool


def aligned(page: pages.Page, truth: str) -> tuple[list[int], list[int]]:
    """Words of each block, and how many of them stand in the truth, in order."""
    split = [WORD.findall(text) for text in page.texts]
    owner = [i for i, words in enumerate(split) for _ in words]
    flat = [word for words in split for word in words]
    good = [0] * len(split)
    for match in SequenceMatcher(None, flat, WORD.findall(truth), autojunk=False).get_matching_blocks():
        where = owner[match.a : match.a + match.size]
        for i in set(where):
            if (hits := where.count(i)) >= min(3, len(split[i])):
                good[i] += hits
    return [len(words) for words in split], good


def example(path: Path, site: str, said: dict) -> Example | None:
    data = gzip.decompress(path.read_bytes())
    text = decode(data).replace("\0", "")
    page = pages.cut(text)
    weak = "articleBody" not in said
    truth = trafilatura.extract(text, fast=True, include_comments=False) if weak else said["articleBody"]
    if page is None or not page.texts or not truth:
        return None
    words, good = aligned(page, truth)
    for i, block in enumerate(page.texts if weak else ()):
        if any(snippet in block for snippet in said["with"]):
            good[i] = words[i]
        elif any(snippet in block for snippet in said["without"]):
            good[i] = 0
    inputs = torch.from_numpy(pages.features(page, title(text)))
    name = path.name.partition(".")[0]
    return Example(name, site, data, page, inputs, torch.tensor(words).float(), torch.tensor(good).float(), truth, weak)


def examples(folders: Iterable[str] = TRUTHS) -> list[Example]:
    out = []
    for folder in folders:
        for name, said in sorted(json.loads((DATA / folder / TRUTHS[folder]).read_text()).items()):
            site = ".".join(urlsplit(said["url"]).netloc.rsplit(".", 2)[-2:])
            out.append(example(DATA / folder / "html" / f"{name}.html.gz", site, said))
    return [one for one in out if one]


class Net(nn.Module):
    """Each block by itself, then twice with its neighbours, then with what the page is like."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, WIDTH)
        self.near = nn.Conv1d(WIDTH, WIDTH, 5, padding=2)
        self.far = nn.Conv1d(WIDTH, WIDTH, 5, padding=6, dilation=3)
        self.out = nn.Linear(4 * WIDTH, 1)

    def hide(self, x: torch.Tensor, share: float, owner: torch.Tensor) -> torch.Tensor:
        """Without a share of the columns of x [blocks, columns], others for each page."""
        if not self.training:
            return x
        return x * (torch.rand(int(owner.max()) + 2, x.shape[1]) >= share).float()[owner]

    def forward(self, x: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """Scores [blocks] of inputs [blocks, features] of the pages `owner` [blocks]; gaps are of page -1."""
        real = (owner >= 0)[:, None].float()
        keep = 1 / (1 - DROP) if self.training else 1.0
        a = self.hide(torch.relu(self.own(self.hide(x, HIDE, owner))), DROP, owner) * real * keep
        b = self.hide(torch.relu(self.near(a.T).T), DROP, owner) * real * keep
        c = self.hide(torch.relu(self.far(b.T).T), DROP, owner) * real * keep
        mean = per_page(c, owner) / per_page(real, owner).clamp_min(1)
        return self.out(torch.cat([a, b, c, mean[owner]], 1))[:, 0]


def per_page(values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Sums [pages + 1, ...] of values [blocks, ...]; the gaps' stands last."""
    out = torch.zeros(int(owner.max()) + 2, *values.shape[1:])
    return out.index_add(0, torch.where(owner < 0, len(out) - 1, owner), values)


def joined(of: list[Example]) -> tuple[torch.Tensor, ...]:
    """Inputs, owners, words and good words of pages, one after the other with a gap as wide as the net's reach."""
    gap = 6
    inputs = torch.cat([nn.functional.pad(one.inputs, (0, 0, 0, gap)) for one in of])
    owner = [nn.functional.pad(torch.full((len(one.words),), i), (0, gap), value=-1) for i, one in enumerate(of)]
    words, good = ([nn.functional.pad(getattr(one, name), (0, gap)) for one in of] for name in ("words", "good"))
    return inputs, torch.cat(owner), torch.cat(words), torch.cat(good)


def loss(net: Net, of: list[Example]) -> torch.Tensor:
    inputs, owner, words, good = joined(of)
    scores = net(inputs, owner)
    chosen = torch.sigmoid(scores)
    hits, taken, there = (per_page(one, owner)[:-1] for one in (chosen * good, chosen * words, good))
    soft = 2 * hits / (taken + there + 1e-6)
    weight = words.clamp(max=100).sqrt()
    share = good / words.clamp_min(1)
    entropy = nn.functional.binary_cross_entropy_with_logits(scores, share, weight, reduction="none")
    each = 1 - soft + per_page(entropy, owner)[:-1] / per_page(weight, owner)[:-1].clamp_min(1)
    return (each * torch.tensor([WEAK if one.weak else 1.0 for one in of])).mean()


def train(of: list[Example], seed: int) -> Net:
    torch.manual_seed(seed)
    net = Net(of[0].inputs.shape[1])
    mean = torch.optim.swa_utils.AveragedModel(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    batches = (len(of) + BATCH - 1) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(of)).tolist()
        for at in range(0, len(order), BATCH):
            optimizer.zero_grad()
            loss(net, [of[i] for i in order[at : at + BATCH]]).backward()
            optimizer.step()
            schedule.step()
            if epoch >= EPOCHS // 2:
                mean.update_parameters(net)
    return mean.module.eval()


def fold(one: Example) -> int:
    return int(hashlib.sha256(one.site.encode()).hexdigest(), 16) % FOLDS


def shingles(text: str) -> Counter:
    words = WORD.findall(text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(len(words) - 3, min(len(words), 1))))


def overlap(text: str, truth: str) -> tuple[float, float]:
    ours, theirs = shingles(text), shingles(truth)
    common = sum((ours & theirs).values())
    return common / max(sum(ours.values()), 1), common / max(sum(theirs.values()), 1)


def f1(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    precision, recall = (statistics.mean(one) for one in zip(*pairs, strict=True))
    return 2 * precision * recall / (precision + recall), precision, recall


def snippets(texts: dict[str, str]) -> tuple[float, float, float]:
    """F1, precision, recall over the snippets that a text must and must not have."""
    right = wrong = missed = 0
    for name, said in json.loads((DATA / "html_multilingual" / "expected.json").read_text()).items():
        text = texts.get(name, "")
        right += sum(one in text for one in said["with"])
        missed += sum(one not in text for one in said["with"])
        wrong += sum(one in text for one in said["without"])
    precision, recall = right / (right + wrong), right / (right + missed)
    return 2 * precision * recall / (precision + recall), precision, recall


def chosen(net: Net, one: Example) -> str:
    with torch.no_grad():
        scores = net(one.inputs, torch.zeros(len(one.words), dtype=torch.long))
    return "\n".join(text for text, score in zip(one.page.texts, scores, strict=True) if score > 0)


def weights(net: Net) -> str:
    """As main_text.py reads them: inputs first, so that a row of features is multiplied from the left."""
    said = {name: value.detach() for name, value in net.named_parameters()}
    said["own.weight"] = said["own.weight"].T
    said |= {name: said[name].permute(2, 1, 0) for name in ("near.weight", "far.weight")}
    said["out.weight"], said["out.bias"] = said["out.weight"].reshape(4, -1), said["out.bias"][0]
    short = {name: (value.double() * 1e4).round().div(1e4).tolist() for name, value in said.items()}
    return json.dumps(short, separators=(",", ":")) + "\n"


def speed(of: list[Example]) -> dict[str, float]:
    """CPU milliseconds a page of the library, bytes in and text out, and of `blocks`, turn and turn about."""
    blocks = leaf("corpus.extract", "blocks")()
    extractors: dict[str, Callable[[bytes], object]] = {
        "trafilatura": lambda data: trafilatura.extract(data, fast=True, include_comments=False),
        "blocks": lambda data: blocks.extract(Record(0, "", None, data, "text/html")),
    }
    took = dict.fromkeys(extractors, 0.0)
    gc.freeze()  # the examples would be looked through again and again
    for turn in range(3):
        for one in of:
            for name, extract in extractors.items():
                before = time.process_time()
                extract(one.data)
                took[name] += (time.process_time() - before) * bool(turn)
    return {name: seconds * 1000 / (2 * len(of)) for name, seconds in took.items()}


def cross_validate(of: list[Example], seed: int) -> None:
    pairs, texts = [], {}
    for k in range(FOLDS):
        net = train([one for one in of if fold(one) != k], seed)
        for one in of:
            if fold(one) == k and one.weak:
                texts[one.name] = chosen(net, one)
            elif fold(one) == k:
                pairs.append(overlap(chosen(net, one), one.truth))
    print("seed {}, 88 articles, held out by site: F1 {:.4f}, precision {:.4f}, recall {:.4f}".format(seed, *f1(pairs)))
    print(
        "snippets of the multilingual pages: F1 {:.4f}, precision {:.4f}, recall {:.4f}".format(*snippets(texts)),
        flush=True,
    )


def main(path: Path | None) -> None:
    torch.set_num_threads(1)
    of = examples()
    if path:
        return write(path, weights(train(of, seed=0)))
    for name, took in speed([one for one in of if not one.weak]).items():
        print(f"{name}: {took:.2f} ms of CPU a page of the articles", flush=True)
    for seed in range(SEEDS):
        cross_validate(of, seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

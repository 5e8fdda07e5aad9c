"""A sample of the mixture: each source gives text by its weight, the first of its documents in their keyed order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pretrain.base.units import show_bytes
from pretrain.corpus.cut import Cut
from pretrain.corpus.document import Document


def shares(size: int, weights: Mapping[str, float], there: Mapping[str, int]) -> dict[str, int]:
    """Bytes that each source gives: `size` by weight; what one has too little of falls to the others by theirs."""
    out = dict.fromkeys(weights, 0)
    left = [name for name, weight in weights.items() if weight > 0]
    while left:
        total = sum(weights[name] for name in left)
        given = {name: int(size * weights[name] / total) for name in left}
        dry = [name for name in left if there[name] <= given[name]]
        if not dry:
            return out | given
        out |= {name: there[name] for name in dry}
        size -= sum(there[name] for name in dry)
        left = [name for name in left if name not in dry]
    return out


@dataclass(frozen=True)
class Sample:
    """Training documents up to so many bytes of each source; read anew each time, a batch in memory."""

    cut: Cut
    bytes: Mapping[str, int]

    @classmethod
    def of(cls, cut: Cut, size: int, weights: Mapping[str, float]) -> "Sample":
        """`size` bytes of the training documents, by the weights of the sources."""
        there = {name: counts["train"]["bytes"] for name, counts in cut.summary.items()}
        return cls(cut, shares(size, weights, there))

    def __iter__(self) -> Iterator[str]:
        """The texts of the documents."""
        return (document.text for document in self.documents())

    def documents(self) -> Iterator[Document]:
        """Documents, source after source; the last of a source is cut where its share ends."""
        for name, left in self.bytes.items():
            documents = self.cut.documents("train", name) if left else iter(())
            for document in documents:
                data = document.text.encode()
                whole = len(data) <= left
                yield document if whole else replace(document, text=data[:left].decode("utf-8", "ignore"))
                left -= len(data)
                if left <= 0:
                    break

    def describe(self) -> str:
        """What is sampled, by source."""
        whole = {name: counts["train"]["bytes"] for name, counts in self.cut.summary.items()}
        said = [
            f"{show_bytes(size)} of {name}" + (" (all of it)" if size == whole[name] else "")
            for name, size in self.bytes.items()
        ]
        return f"{show_bytes(sum(self.bytes.values()))} of text: {', '.join(said)}"

"""Rows of a source: contiguous windows inside each shard, each with the token after it as its last target."""

from pathlib import Path

import numpy as np

from pretrain.base.errors import UserError
from pretrain.shards.catalogue import Catalogue
from pretrain.shards.read import Shard


class Rows:
    """The windows of `row` tokens in a folder of shards; what does not fill one at a shard's end is dropped."""

    def __init__(self, folder: Path, row: int) -> None:
        self.row, self.catalogue = row, Catalogue.load(folder)
        counts = [max(entry.tokens - 1, 0) // row for entry in self.catalogue.shards]
        self._firsts = np.cumsum([0, *counts])
        self._shards: dict[int, Shard] = {}
        if not self._firsts[-1]:
            what = f"{self.catalogue.tokens} tokens fill no row of {row}"
            raise UserError(what, where=str(folder), expected="more text, or a shorter tokens.row")

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def dropped_tokens(self) -> int:
        """Tokens that stand in no row."""
        return self.catalogue.tokens - len(self) * self.row

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [row + 1] of a row, and for each which document of the row it belongs to, int32 [row + 1]."""
        which = int(np.searchsorted(self._firsts, number, "right")) - 1
        if which not in self._shards:
            self._shards[which] = Shard(self.catalogue.folder / self.catalogue.shards[which].name)
        shard = self._shards[which]
        start = (number - int(self._firsts[which])) * self.row
        places = np.arange(start, start + self.row + 1, dtype=np.uint64)
        documents = np.searchsorted(shard.bounds, places, "right")
        return shard.tokens[start : start + self.row + 1], (documents - documents[0]).astype(np.int32)

"""Oracle: docs/models.md has a row for every family, and a difference for every one that others have, too."""

import re
from pathlib import Path

import pytest

from pretrain.base.extension import find, names

transformers = pytest.importorskip("transformers", reason="the published implementation is not installed")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("name", names("model.families"))
def test_every_family_has_its_row(name: str) -> None:
    row = re.search(
        rf"^\| `{name}` \| \[{name}\.py\].*\| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (\d+) \|$", PAGE.read_text(), re.M
    )
    assert row, "make models writes it"
    if hasattr(transformers, find("model.families", name).ARCHITECTURE):
        variations, *differences, sizes = row.groups()
        assert int(variations) and int(sizes) and max(map(float, differences)) <= 1e-5

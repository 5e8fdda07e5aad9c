"""Which blocks of a page are its main text: a small net over the blocks' features.

Shallow features of each block (Kohlschütter et al. 2010, "Boilerplate detection using shallow text features", WSDM) go
through a small convolutional net over the page's blocks (Vogels et al. 2018, "Web2Text", ECIR), trained on the soft F1
of each page by benchmarks/extraction.py. Its weights lie beside this file.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from pretrain.corpus.page import Page, cut, features
from pretrain.corpus.said import title


def main_text(page: str) -> str:
    """The main text of a page, a line a block; "" where there is none."""
    found = cut(page)
    return "\n".join(found.texts[block] for block in chosen(found, title(page))) if found else ""


def chosen(page: Page, named: str) -> list[int]:
    """The blocks that are main text of a page with this title, in order."""
    return np.flatnonzero(scores(features(page, named)) > 0).tolist() if page.texts else []


def scores(inputs: np.ndarray) -> np.ndarray:
    """How much each block looks like main text (above 0: yes), [blocks] of inputs [blocks, features]."""
    net = weights()
    own = np.maximum(inputs @ net["own.weight"] + net["own.bias"], 0)
    near = np.maximum(_convolved(own, net["near.weight"], 1) + net["near.bias"], 0)
    far = np.maximum(_convolved(near, net["far.weight"], 3) + net["far.bias"], 0)
    mine, by_near, by_far, by_mean = net["out.weight"]
    return own @ mine + near @ by_near + far @ by_far + far.mean(0) @ by_mean + net["out.bias"]


@cache
def weights() -> dict[str, np.ndarray]:
    """The net's."""
    said = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return {name: np.array(value, np.float32) for name, value in said.items()}


def _convolved(x: np.ndarray, weight: np.ndarray, step: int) -> np.ndarray:
    """[blocks, out] of x [blocks, in] and weight [taps, in, out]; zeros stand around the page."""
    taps, count = len(weight), len(x)
    wide = np.zeros((count + (taps - 1) * step, x.shape[1]), np.float32)
    wide[taps // 2 * step :][:count] = x
    return sum(wide[tap * step :][:count] @ weight[tap] for tap in range(taps))

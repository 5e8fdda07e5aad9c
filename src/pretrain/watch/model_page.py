"""A model at a glance: its weights drawn to scale in the order that a token meets them, and the table of them."""

import html
from collections.abc import Iterator
from itertools import groupby

from pretrain.base.units import show_bytes, show_count, show_flops
from pretrain.model.anatomy import Anatomy, Part
from pretrain.watch.corpus_page import STYLE

COLOURS = {"embed": "#3d7ea6", "head": "#3d7ea6", "attention": "#c8553d", "scores": "#e0a08f", "mlp": "#5b8c5a"}
OTHER = "#8a7aa8"
WIDTH, GAP, LONGEST = 900, 14, 130  # of the picture, in pixels; the longest side of a matrix
BAR = 420


def page(found: Anatomy, title: str) -> str:
    """The whole page."""
    rows = "".join(
        f"<tr><td>{_text(one.part)}</td><td>{_text(one.name)}</td><td class=n>{shape(one)}</td>"
        + "".join(f"<td class=n>{_text(cell)}</td>" for cell in cells(one, found))
        + "</tr>"
        for one in found.parts
    )
    heads = "".join(f"<th class=n>{name}</th>" for name in ("shape", *HEADS))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title><style>{STYLE}</style>'
        f"<body><h1>{_text(title)}</h1><p>{_text(headline(found))}</p>{picture(found)}<h2>Shares</h2>{_bars(found)}"
        f"<h2>Weights</h2><table><tr><th>part</th><th>weight</th>{heads}</tr>{rows}</table></body></html>\n"
    )


HEADS = ("layers", "parameters", "share", "bytes", "FLOP a token")


def headline(found: Anatomy) -> str:
    """The model in a line."""
    active = "" if found.active == found.parameters else f", {show_count(found.active)} active"
    return (
        f"{found.architecture}: {found.parameters:,} parameters{active}, {show_bytes(found.bytes)} in {found.dtype}; "
        f"{flops(found.flops)} a token forward, three times that to train, at {found.sequence:,} tokens"
    )


def flops(count: float) -> str:
    """1.5e9 -> "1.50 GFLOP"."""
    return show_flops(count).removesuffix("/s")


def shape(one: Part) -> str:
    """Rows × columns."""
    return " × ".join(map(str, one.shape))


def cells(one: Part, found: Anatomy) -> list[str]:
    """What a table says of a weight, under `HEADS`."""
    share = f"{one.parameters / found.parameters:.1%}"
    size, count = (f"is {one.tied}", "") if one.tied else (show_bytes(one.bytes), f"{one.parameters:,}")
    return [str(one.layers), count, share, size, flops(one.flops) if one.flops else ""]


def picture(found: Anatomy) -> str:
    """An SVG: every weight a box, its sides the roots of its sizes; a part a row, those of every layer framed."""
    largest = max(max(one.shape[-2:]) for one in found.parts)
    out, y, frame = list[str](), 20.0, list[float]()
    for _, group in groupby(found.parts, key=lambda one: (one.part, one.layers > 1)):
        row = list(group)
        inside, deep = "".join(_row(row, y, largest)), _depth(row, largest)
        out.append(inside)
        if row[0].layers > 1:
            frame += [y - 16, y + deep + 20]
        y += deep + GAP + 26
    if frame:
        size = max(frame) - min(frame)
        out.append(
            f'<rect x="118" y="{min(frame):.0f}" width="{WIDTH - 130}" height="{size:.0f}" fill="none" '
            f'stroke="#9aa7b4" stroke-dasharray="5 4"/><text x="{WIDTH - 20}" y="{min(frame) + 16:.0f}" '
            f'text-anchor="end">{found.layers} layers</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {y:.0f}" width="100%" role="img">{"".join(out)}</svg>'


def _side(size: int, largest: int) -> float:
    return max(LONGEST * (size / largest) ** 0.5, 3)


def _depth(row: list[Part], largest: int) -> float:
    return max(_side(one.shape[-2], largest) if len(one.shape) > 1 else 3 for one in row)


def _row(row: list[Part], y: float, largest: int) -> Iterator[str]:
    """The weights of a part beside each other; a stack of experts casts a shadow."""
    x, colour = 130.0, COLOURS.get(row[0].part, OTHER)
    yield f'<text x="4" y="{y + 10:.0f}">{_text(row[0].part)}</text>'
    for one in row:
        high = _side(one.shape[-2], largest) if len(one.shape) > 1 else 3
        wide = _side(one.shape[-1], largest)
        style = f'fill="{"none" if one.tied else colour}" stroke="{colour}"'
        for shift in (6, 3, 0) if len(one.shape) > 2 else (0,):
            place = f'x="{x + shift:.0f}" y="{y - shift:.0f}" width="{wide:.1f}" height="{high:.1f}"'
            depth = 0.3 if shift else 0.8
            yield f'<rect {place} {style} fill-opacity="{depth}"><title>{_text(_said(one))}</title></rect>'
        name = one.name.removeprefix(f"{one.part}.")
        yield f'<text x="{x:.0f}" y="{y + high + 13:.0f}">{_text(name)}</text>'
        x += max(wide, 7.0 * len(name)) + GAP


def _said(one: Part) -> str:
    tied = f", is {one.tied}" if one.tied else f", {one.parameters:,} parameters"
    return f"{one.name}: {shape(one)}{tied}"


def _bars(found: Anatomy) -> str:
    """Of each part, its share of parameters, of those a token meets, and of the arithmetic."""
    totals = (found.parameters, found.active, found.flops)
    lines = []
    for part, counts in found.by_part().items():
        colour = COLOURS.get(part, OTHER)
        bars = "".join(
            f'<td><span style="display:inline-block;height:.7em;margin-right:.4em;background:{colour};'
            f'width:{BAR / 3 * count / total:.0f}px"></span>{count / total:.1%}</td>'
            for count, total in zip(counts, totals, strict=True)
        )
        lines.append(f"<tr><td>{_text(part)}</td>{bars}</tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("parameters", "active parameters", "FLOP a token"))
    return f"<table><tr><th>part</th>{heads}</tr>{''.join(lines)}</table>"


def _text(said: str) -> str:
    return html.escape(said)

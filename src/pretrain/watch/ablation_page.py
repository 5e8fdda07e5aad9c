"""An ablation on one page that needs nothing else: every member as a dot, noise bands, verdicts."""

import html

from pretrain.evaluate.compare import Ablation, Measure, compare

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #1c2733; }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #d6dde4 }
table { border-collapse: collapse; margin: .5em 0 }
td, th { padding: .15em 1em .15em 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.muted { color: #68778a }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733 }
"""
BLUE, ROW, LEFT, WIDTH = "#3d7ea6", 34, 180, 620


def page(found: Ablation) -> str:
    """The whole page."""
    seeds = ", ".join(map(str, found.seeds))
    said = f"{len(found.facts)} cuts, seeds {seeds}, {found.budget:,} tokens each. Scored on {found.held_out}."
    facts = "".join(
        f"<tr><td>{html.escape(one.cut)}</td><td class=n>{one.documents:,.0f}</td><td class=n>{one.tokens:,.0f}</td>"
        f"<td class=n>{one.epochs:.2f}</td></tr>"
        for one in found.facts
    )
    head = "<tr><th>cut</th><th class=n>documents</th><th class=n>tokens</th><th class=n>epochs</th></tr>"
    title = html.escape(found.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Ablation {title}</title><style>{STYLE}</style>'
        f"<body><h1>Ablation {title}</h1><p>{html.escape(said)}</p><table>{head}{facts}</table>"
        f"{''.join(map(_measure, found.measures))}"
        '<p class="muted">Dots are members, bars the 95 % interval of their mean. A verdict rests on differences '
        "within a seed; the intervals of a measure hold together with 95 %.</p></body></html>\n"
    )


def _measure(measure: Measure) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(line.cut)}</td><td class=n>{line.mean:.4f}"
        f"{'' if line.band is None else f' ± {line.band:.4f}'}</td><td>{html.escape(line.verdict)}</td></tr>"
        for line in compare(measure)
    )
    better = "lower is better" if measure.lower_is_better else "higher is better"
    return (
        f"<h2>{html.escape(measure.name)}</h2><p class=muted>{html.escape(measure.unit)}, {better}</p>{_dots(measure)}"
        f"<table><tr><th>cut</th><th class=n>mean</th><th>against the first</th></tr>{rows}</table>"
    )


def _dots(measure: Measure) -> str:
    """A row a cut: its members as dots over the interval of their mean, cut off where it leaves the picture."""
    every = [value for values in measure.values.values() for value in values]
    low, high = min(every), max(every)
    room = (high - low) * 0.25 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room

    def x(value: float) -> float:
        return LEFT + WIDTH * (min(max(value, low), high) - low) / (high - low)

    out = [f'<svg width="{LEFT + WIDTH + 60}" height="{ROW * len(measure.values) + 24}" role="img">']
    for i, line in enumerate(compare(measure)):
        y = ROW * i + 18
        out.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{html.escape(line.cut)}</text>')
        start, stop = x(line.mean - (line.band or 0)), x(line.mean + (line.band or 0))
        out.append(
            f'<rect x="{start:.1f}" y="{y - 7}" width="{stop - start:.1f}" height="14" fill="{BLUE}" opacity=".2"/>'
            f'<line x1="{x(line.mean):.1f}" x2="{x(line.mean):.1f}" y1="{y - 9}" y2="{y + 9}" stroke="{BLUE}"/>'
        )
        for value in measure.values[line.cut]:
            dot = f'<circle cx="{x(value):.1f}" cy="{y}" r="4" fill="{BLUE}"><title>{value:.4f}</title></circle>'
            out.append(dot)
    y = ROW * len(measure.values) + 16
    out.append(f'<text x="{LEFT}" y="{y}">{low:.4g}</text>')
    out.append(f'<text x="{LEFT + WIDTH}" y="{y}" text-anchor="end">{high:.4g}</text></svg>')
    return "".join(out)

"""A corpus on one page that needs nothing else: what came in, where it was lost, what stands near each bound."""

import html
from collections.abc import Iterator

import numpy as np

from pretrain.base.units import show_bytes
from pretrain.corpus.survey import Bound, Sample, Score, Survey

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2em auto; padding: 0 1em; color: #1c2733; }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #d6dde4 }
table { border-collapse: collapse; margin: .5em 0 }
td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.muted { color: #68778a }
pre { white-space: pre-wrap; background: #f4f6f8; padding: .6em; margin: .2em 0 .8em }
pre { font-size: 12px; max-height: 9em; overflow: auto }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2em }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733 }
ul.worries { background: #fbf1ee; border-left: 4px solid #c8553d; padding: .6em 1em .6em 2em }
details { margin: .4em 0 } summary { cursor: pointer }
"""
KEPT, LOST = "#3d7ea6", "#c8553d"
SHOWN_HITS = 200


def page(survey: Survey, title: str) -> str:
    """The whole page."""
    body = "\n".join(
        [
            f"<h1>{_text(title)}</h1>",
            _headline(survey),
            _worries(survey),
            "<h2>From records to kept documents</h2>",
            flow(survey),
            _table_of_steps(survey),
            "<h2>Scores and their bounds</h2>",
            f'<p class="muted">Over the documents that each step saw, in {survey.looked_at} of {survey.parts} parts; '
            "the line is the bound, the samples are the nearest to it, as all edits left them. "
            "Those that drop most come first.</p>",
            *_scores(survey),
            "<h2>What is in it</h2>",
            _counts(survey),
            _clusters(survey),
            _hits(survey),
        ]
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(said: str) -> str:
    return html.escape(said)


def _headline(survey: Survey) -> str:
    records = sum(stage.account.rows_in for stage in survey.stages if stage.name.startswith("read "))
    kept = sum(one[split]["documents"] for one in survey.summary.values() for split in ("train", "held_out"))
    held = sum(one["held_out"]["documents"] for one in survey.summary.values())
    share = f"{kept / records:.1%}" if records else "none"
    return (
        f"<p>{records:,} records → <b>{kept:,} documents</b> ({share}), {show_bytes(survey.kept_bytes)} of text; "
        f"{held:,} of them held out.</p>"
    )


def _worries(survey: Survey) -> str:
    """What a person should look at first: the largest losses, sources without documents, items of evaluations."""
    said = []
    for name, came, lost in sorted(survey.losses(), key=lambda one: -one[2])[:3]:
        if lost:
            said.append(f"<b>{_text(name)}</b> drops {lost:,} of {came:,} ({lost / came:.1%})")
    for name, one in survey.summary.items():
        if not one["train"]["documents"]:
            said.append(f"<b>{_text(name)}</b> has no document to train on")
        if one["held_out"]["documents"] > one["train"]["documents"]:
            said.append(f"<b>{_text(name)}</b> has more documents held out than to train on")
    if survey.hits:
        sets = len({hit.evaluation for hit in survey.hits})
        said.append(f"<b>{len(survey.hits):,} evaluation items</b> of {sets} sets stand in its documents")
    return f"<ul class=worries>{''.join(f'<li>{one}</li>' for one in said)}</ul>" if said else ""


def flow(survey: Survey) -> str:
    """A band that narrows at each step, with what is lost turning away from it."""
    stages = survey.losses()
    widest = max((came for _, came, _ in stages), default=1) or 1
    row, left, width = 46, 250, 560
    out = [f'<svg width="1080" height="{row * (len(stages) + 1)}" role="img" aria-label="documents by step">']
    for i, (name, came, lost) in enumerate(stages):
        y, whole, stays = i * row, width * came / widest, width * (came - lost) / widest
        out.append(f'<text x="{left - 12}" y="{y + 28}" text-anchor="end">{_text(name)}</text>')
        out.append(
            f'<path d="M{left} {y} h{whole:.1f} C{left + whole:.1f} {y + row / 2} {left + stays:.1f} {y + row / 2} '
            f'{left + stays:.1f} {y + row} H{left} Z" fill="{KEPT}" opacity=".75"/>'
        )
        if lost:
            x, rest, middle, end = left + whole, left + stays, y + row / 2, y + row
            out.append(
                f'<path d="M{rest:.1f} {end} C{rest:.1f} {middle} {x:.1f} {middle} {x:.1f} {y} L{x + 14:.1f} {y + 8} '
                f'C{x + 14:.1f} {middle} {rest + 14:.1f} {middle + 8} {rest + 14:.1f} {end} Z" '
                f'fill="{LOST}" opacity=".65"/>'
            )
        share = f" ({lost / came:.1%})" if came and lost else ""
        said = f"{came:,} in" + (f", {lost:,} lost{share}" if lost else ", none lost")
        out.append(f'<text x="{left + width + 24}" y="{y + 28}">{said}</text>')
    final = stages[-1][1] - stages[-1][2] if stages else 0
    tokens = sum(survey.tokens["source"].values())
    said = f"{final:,} kept" + (f", {tokens:,} tokens to train on" if tokens else "")
    out.append(f'<text x="{left}" y="{len(stages) * row + 18}">{said}</text></svg>')
    return "".join(out)


def _table_of_steps(survey: Survey) -> str:
    rows = []
    for stage in survey.stages:
        account = stage.account
        why = ", ".join(f"{count:,} {_text(reason)}" for reason, count in account.reasons.most_common(6))
        each = f"{1000 * account.cpu_seconds / account.rows_in:.2f}" if account.rows_in else ""
        copies = survey.copies.get(stage.name, 0)
        why = f"{copies:,} copies, dropped by the cut" if copies else why
        rows.append(
            f"<tr><td>{_text(stage.name)}</td><td class=n>{account.rows_in:,}</td>"
            f"<td class=n>{account.rows_out - copies:,}</td><td class=n>{account.seconds:.1f}</td>"
            f"<td class=n>{account.cpu_seconds:.1f}</td><td class=n>{each}</td><td class=muted>{why}</td></tr>"
        )
    head = "".join(f"<th class=n>{name}</th>" for name in ("in", "out", "seconds", "CPU s", "CPU ms each"))
    head = f"<tr><th>step</th>{head}<th>why</th></tr>"
    return f"<details open><summary>Every step</summary><table>{head}{''.join(rows)}</table></details>"


def _scores(survey: Survey) -> Iterator[str]:
    """Every score that has a bound, those that drop most first; those that drop nothing are folded."""
    every = [(stage, score) for stage in survey.stages for score in stage.scores if any(map(len, score.values))]
    for stage, score in sorted(every, key=lambda one: -one[1].lost):
        name = f"{_text(stage.name)}: {_text(score.name.replace('_', ' '))}"
        body = histogram(score) + "".join(map(_samples, score.bounds))
        lost = score.lost
        yield (
            f"<h3>{name} <span class=muted>drops {lost:,}</span></h3>{body}"
            if lost
            else f"<details><summary>{name}: drops nothing</summary>{body}</details>"
        )


def _samples(bound: Bound) -> str:
    sides = "".join(
        f"<div><b>{word}</b>{''.join(map(_sample, some)) or '<p class=muted>none</p>'}</div>"
        for word, some in (("kept", bound.kept), ("dropped", bound.dropped))
    )
    which = "at least" if bound.rule.at_least == bound.value else "at most"
    return (
        f"<details><summary>documents nearest to {which} {_number(bound.value)} ({_text(bound.rule.reason)})</summary>"
        f'<div class="two">{sides}</div></details>'
    )


def _sample(sample: Sample) -> str:
    where = f"{_number(sample.value)} <span class=muted>{_text(sample.url)}</span>"
    return f"<div>{where}<pre>{_text(sample.text)}</pre></div>"


def histogram(score: Score) -> str:
    """Bars over the values, on a scale of roots so that few are seen beside many; a line at each bound."""
    bars = score.bars()
    if bars is None:
        return ""
    width, height, side = 760, 110, 26  # of the chart, and of the bars of what lies beyond it
    scale = np.log10 if bars.logarithmic else np.asarray
    low, high = float(scale(bars.edges[0])), float(scale(bars.edges[-1]))
    most = float(max(bars.counts.max(), bars.below, bars.above)) or 1.0

    def place(value: float) -> float:
        return side + 4 + width * (float(scale(value)) - low) / (high - low)

    def bar(x: float, wide: float, count: int, inside: bool, said: str) -> str:
        tall = height * (count / most) ** 0.5
        return (
            f'<rect x="{x:.1f}" y="{height - tall:.1f}" width="{max(wide - 1, 0.5):.1f}" height="{tall:.1f}" '
            f'fill="{KEPT if inside else LOST}"><title>{said}: {count:,}</title></rect>'
        )

    first, last = float(bars.edges[0]), float(bars.edges[-1])
    out = [f'<svg width="{width + 2 * side + 60}" height="{height + 36}">']
    for count, kept, a, b in zip(bars.counts.tolist(), bars.kept.tolist(), bars.edges, bars.edges[1:], strict=False):
        said, x, wide = f"{_number(a)} to {_number(b)}", place(a), place(b) - place(a)
        out += [bar(x, wide, count, False, said)] if count > kept else []
        out += [bar(x, wide, kept, True, f"{said}, kept" if count > kept else said)] if kept else []
    beyond = score.holds(float(np.nextafter(first, -np.inf))), score.holds(float(np.nextafter(last, np.inf)))
    out.append(bar(0, side, bars.below, beyond[0], f"below {_number(first)}"))
    out.append(bar(width + side + 8, side, bars.above, beyond[1], f"above {_number(last)}"))
    for bound in sorted({one.value for one in score.bounds if first <= one.value <= last}):
        x = place(bound)
        out.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height}" stroke="#1c2733" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{x:.1f}" y="{height + 30}" text-anchor="middle">{_number(bound)}</text>')
    out.append(f'<text x="{side + 4}" y="{height + 15}" class="muted">{_number(first)}</text>')
    out.append(f'<text x="{width + side + 4}" y="{height + 15}" text-anchor="end">{_number(last)}</text></svg>')
    return "".join(out)


def _counts(survey: Survey) -> str:
    def table(name: str, rows: list[tuple[str, int]]) -> str:
        inside = "".join(f"<tr><td>{_text(word)}</td><td class=n>{count:,}</td></tr>" for word, count in rows)
        return f"<div><b>{name}</b><table>{inside}</table></div>"

    sources = [
        (f"{name}, {show_bytes(one['train']['bytes'])} to train on", one["train"]["documents"])
        for name, one in survey.summary.items()
    ]
    return (
        '<div class="two">'
        + table("sources (documents kept)", sources)
        + table("languages (documents kept)", survey.languages.most_common(20))
        + table("domains, or first folders (documents kept)", survey.domains["kept"].most_common(20))
        + table("domains, or first folders (records dropped)", survey.domains["dropped"].most_common(20))
        + "".join(
            table(f"tokens to train on, by {by}", found.most_common(20)) for by, found in survey.tokens.items() if found
        )
        + "</div>"
    )


def _clusters(survey: Survey) -> str:
    if not survey.clusters:
        return "<p>No document is a copy of another.</p>"
    rows = "".join(
        f"<tr><td class=n>{size:,}</td><td>{'<br>'.join(map(_text, urls))}</td></tr>" for size, urls in survey.clusters
    )
    return (
        f"<h2>The largest clusters of copies</h2><table><tr><th class=n>copies</th><th>such as</th></tr>{rows}</table>"
    )


def _hits(survey: Survey) -> str:
    """Evaluation items by set and line, each with the documents that hold it."""
    if not survey.hits:
        return ""
    rows = "".join(
        f"<tr><td>{_text(hit.evaluation)}</td><td class=n>{hit.line:,}</td><td class=n>{hit.documents:,}</td>"
        f"<td class=n>{hit.share:.0%}</td><td>{_text(hit.words)}</td><td>{'<br>'.join(map(_text, hit.urls))}</td></tr>"
        for hit in survey.hits[:SHOWN_HITS]
    )
    head = "<tr><th>set</th><th class=n>line</th><th class=n>documents</th><th class=n>share</th><th>words</th>"
    more = len(survey.hits) - SHOWN_HITS
    rest = f"<p class=muted>and {more:,} more: `pretrain inspect --items`</p>" if more > 0 else ""
    return f"<h2>Evaluation items in it</h2><table>{head}<th>such as</th></tr>{rows}</table>{rest}"

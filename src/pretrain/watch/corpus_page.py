"""A corpus on one page that needs nothing else: what came in, where it was lost, what stands near each bound."""

import html
from collections.abc import Iterator

from pretrain.base.units import show_bytes
from pretrain.corpus.survey import Sample, Score, Stage, Survey

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
details { margin: .4em 0 } summary { cursor: pointer }
"""
KEPT, LOST = "#3d7ea6", "#c8553d"


def page(survey: Survey, title: str) -> str:
    """The whole page."""
    body = "\n".join(
        [
            f"<h1>{_text(title)}</h1>",
            _headline(survey),
            "<h2>From records to kept documents</h2>",
            flow(survey),
            _table_of_steps(survey),
            "<h2>Scores and their bounds</h2>",
            f'<p class="muted">Over the documents that each step saw, in {survey.looked_at} of {survey.parts} parts; '
            "the line is the bound, the samples are the nearest to it.</p>",
            *(block for stage in survey.stages for block in _scores(stage)),
            "<h2>What is in it</h2>",
            _counts(survey),
            _clusters(survey),
        ]
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


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


def losses(survey: Survey) -> list[tuple[str, int, int]]:
    """(step, documents in, documents dropped): reading in one, copies where the cut dropped them, at the end."""
    reading = [stage.account for stage in survey.stages if stage.name.startswith("read ")]
    came, stayed = sum(one.rows_in for one in reading), sum(one.rows_out for one in reading)
    out = [("reading", came, came - stayed)]
    for stage in survey.stages:
        if not stage.name.startswith("read ") and stage.name not in survey.copies:
            account = stage.account
            if account.rows_in != account.rows_out or stage.scores:
                out.append((stage.name, account.rows_in, account.rows_in - account.rows_out))
    left = out[-1][1] - out[-1][2]
    for name, count in survey.copies.items():
        out.append((f"{name} (copies)", left, count))
        left -= count
    return out


def flow(survey: Survey) -> str:
    """A band that narrows at each step, with what is lost turning away from it."""
    stages = losses(survey)
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
    out.append(f'<text x="{left}" y="{len(stages) * row + 18}">{final:,} kept</text></svg>')
    return "".join(out)


def _table_of_steps(survey: Survey) -> str:
    rows = []
    for stage in survey.stages:
        account = stage.account
        why = ", ".join(f"{count:,} {_text(reason)}" for reason, count in account.reasons.most_common(6))
        each = f"{1000 * account.cpu_seconds / account.rows_in:.2f}" if account.rows_in else ""
        rows.append(
            f"<tr><td>{_text(stage.name)}</td><td class=n>{account.rows_in:,}</td><td class=n>{account.rows_out:,}</td>"
            f"<td class=n>{account.cpu_seconds:.1f}</td><td class=n>{each}</td><td class=muted>{why}</td></tr>"
        )
    head = "".join(f"<th class=n>{name}</th>" for name in ("in", "out", "CPU s", "ms each"))
    head = f"<tr><th>step</th>{head}<th>why</th></tr>"
    return f"<details open><summary>Every step</summary><table>{head}{''.join(rows)}</table></details>"


def _scores(stage: Stage) -> Iterator[str]:
    for score in stage.scores:
        if not any(len(values) for values in score.values):
            continue
        samples = "".join(
            f"<div><b>{word}</b>{''.join(map(_sample, some)) or '<p class=muted>none</p>'}</div>"
            for word, some in (("kept", score.kept), ("dropped", score.dropped))
        )
        name = f"{_text(stage.name)}: {_text(score.name.replace('_', ' '))}"
        yield (
            f"<h3>{name}</h3>{histogram(score)}<details><summary>samples at the bound</summary>"
            f'<div class="two">{samples}</div></details>'
        )


def _sample(sample: Sample) -> str:
    return f"<div>{sample.value:.4g} <span class=muted>{_text(sample.url)}</span><pre>{_text(sample.text)}</pre></div>"


def histogram(score: Score) -> str:
    """Bars over the values, on a scale of roots so that few are seen beside many; a line at each bound."""
    counts, edges = score.histogram()
    if not len(counts):
        return ""
    width, height = 760, 110
    low, high, most = float(edges[0]), float(edges[-1]), float(counts.max()) or 1.0
    step = width / len(counts)
    out = [f'<svg width="{width + 90}" height="{height + 36}">']
    for i, count in enumerate(counts):
        tall = height * (float(count) / most) ** 0.5
        middle = (edges[i] + edges[i + 1]) / 2
        inside = all(rule.holds(float(middle)) for rule in score.rules)
        out.append(
            f'<rect x="{i * step + 20:.1f}" y="{height - tall:.1f}" width="{step - 1:.1f}" height="{tall:.1f}" '
            f'fill="{KEPT if inside else LOST}"><title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {count:,}</title></rect>'
        )
    for bound in sorted({b for rule in score.rules for b in (rule.at_least, rule.at_most) if b is not None}):
        if low <= bound <= high:
            x = 20 + width * (bound - low) / (high - low)
            out.append(
                f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height}" stroke="#1c2733" stroke-dasharray="4 3"/>'
            )
            out.append(f'<text x="{x:.1f}" y="{height + 30}" text-anchor="middle">{bound:g}</text>')
    out.append(f'<text x="20" y="{height + 15}" class="muted">{low:.4g}</text>')
    out.append(f'<text x="{width + 20}" y="{height + 15}" text-anchor="end">{high:.4g}</text></svg>')
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
        + table("domains (documents kept)", survey.domains["kept"].most_common(20))
        + table("domains (records dropped)", survey.domains["dropped"].most_common(20))
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

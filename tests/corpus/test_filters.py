"""Twin and property: measures as the papers say them, from plain strings; finite for any text."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.errors import UserError
from pretrain.base.extension import find, leaf, names
from pretrain.corpus.document import Document

MUTANTS = [
    ("src/pretrain/corpus/filters/gopher_repetition.py", "np.add.at(covered, starts + n, -1)", "pass"),
    ("src/pretrain/corpus/filters/gopher_repetition.py", "np.where(times > 1, times, 0)", "times"),
    ("src/pretrain/corpus/filters/gopher_quality.py", "line.startswith(BULLETS)", "line.endswith(BULLETS)"),
    ("src/pretrain/corpus/filters/fineweb.py", "again += len(line) if line in seen else 0", "again += 0"),
]
BOOKS = Path(__file__).parents[3] / "shared" / "data" / "text"


def document(text: str, **more: str) -> Document:
    return Document("0" * 32, "web", more.pop("url", "u"), text, **more)  # type: ignore[arg-type]


words = st.lists(
    st.sampled_from(["the", "a", "of", "cat", "dog", "x1", "12", "#", "…", "\n", "\n\n", "- ", "end."]), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(words)
def test_repetition_is_that_of_plain_strings(pieces: list[str]) -> None:
    one = document(" ".join(pieces))
    got = find("corpus.filters", "gopher_repetition").GopherRepetition().measure(one)
    said = [word for word in one.words]
    length = max(sum(map(len, said)), 1)
    for n in range(2, 11):
        grams = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
        if n <= 4:
            sizes = [sum(map(len, gram)) * times for gram, times in Counter(grams).items() if times > 1]
            assert got[f"top_{n}_gram"] == pytest.approx(max(sizes, default=0) / length)
        else:
            seen, covered = set(), set()
            for i, gram in enumerate(grams):
                if gram in seen:
                    covered |= set(range(i, i + n))
                seen.add(gram)
            assert got[f"duplicate_{n}_grams"] == pytest.approx(sum(len(said[i]) for i in covered) / length)
    lines = [line.strip() for line in one.text.split("\n") if line.strip()]
    assert got["duplicate_lines"] == pytest.approx((len(lines) - len(set(lines))) / max(len(lines), 1))


@settings(max_examples=100, deadline=None)
@given(words)
def test_quality_and_fineweb_are_those_of_plain_strings(pieces: list[str]) -> None:
    one = document(" ".join(pieces))
    got = find("corpus.filters", "gopher_quality").GopherQuality().measure(one)
    said, lines = one.words, [line.strip() for line in one.text.split("\n") if line.strip()]
    count = max(len(said), 1)
    assert got["word_length"] == pytest.approx(sum(len(word) for word in said) / count)
    symbols = re.sub(r"^#{1,6} ", "", one.text, flags=re.MULTILINE)
    assert got["symbols_per_word"] == pytest.approx(sum(symbols.count(s) for s in ("#", "…")) / count)
    assert got["alphabetic_words"] == pytest.approx(sum(any(c.isalpha() for c in word) for word in said) / count)
    assert got["bullet_lines"] == pytest.approx(sum(line[0] in "-•*" for line in lines) / max(len(lines), 1))
    assert got["stop_words"] == len({"the", "of"} & set(said))
    fine = find("corpus.filters", "fineweb").Fineweb().measure(one)
    assert fine["punctuated_lines"] == pytest.approx(sum(line[-1] in ".…" for line in lines) / max(len(lines), 1))
    again = [line for i, line in enumerate(lines) if line in lines[:i]]
    assert fine["duplicate_line_characters"] * max(len(one.text.replace("\n", "")), 1) == pytest.approx(
        sum(map(len, again))
    )


def test_repeated_lines_count_from_the_second_time() -> None:
    fine = find("corpus.filters", "fineweb").Fineweb()
    assert fine.measure(document("abcd\nxy\nabcd\nabcd"))["duplicate_line_characters"] == 8 / 14


SIMPLE = [name for name in names("corpus.filters") if name not in ("classifier", "perplexity")]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="a \n.#-0", max_size=200))
def test_any_text_has_finite_measures(text: str) -> None:
    for name in SIMPLE:
        step = leaf("corpus.filters", name)()
        measures = step.measure(document(text))
        assert all(math.isfinite(value) for value in measures.values()), name
        assert {rule.measure for rule in step.rules()} <= set(measures), name


@pytest.mark.skipif(not BOOKS.exists(), reason="needs the books in ../shared/data")
def test_prose_passes_and_junk_does_not() -> None:
    prose = document((BOOKS / "jane-austen_pride-and-prejudice.txt").read_text()[20_000:26_000])
    junk = {
        "gopher_quality": "# … " * 200,
        "gopher_repetition": "buy the best shoes here now\n" * 100,
        "fineweb": "\n".join(["Home", "About", "Contact us"] * 30),
        "code": "x = '" + "QUJD" * 3000 + "'",
        "papers": "\n".join(f"[{i}] A. Author. A title. 19{i:02}." for i in range(99)),
    }
    for name, text in junk.items():
        step = leaf("corpus.filters", name)()

        def passes(one: Document, step=step) -> bool:  # type: ignore[no-untyped-def]
            measures = step.measure(one)
            return all(rule.holds(measures[rule.measure]) for rule in step.rules())

        assert passes(prose) or name == "code", (name, step.measure(prose))
        assert not passes(document(text)), name
    code = leaf("corpus.filters", "code")()
    measures = code.measure(document(Path(__file__).read_text()))
    assert all(rule.holds(measures[rule.measure]) for rule in code.rules())


def test_hosts_and_words_of_addresses(tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("# a list\nbad.com\nsub.other.org\n")
    (tmp_path / "words").write_text("casino\n")
    step = leaf("corpus.filters", "url")((str(tmp_path / "domains"),), (str(tmp_path / "words"),))
    cases = {
        "https://bad.com/a": (1, 0),
        "http://www.very.bad.com": (1, 0),
        "https://notbad.com/": (0, 0),
        "https://other.org/Casino-night": (0, 1),
        "https://sub.other.org:8080/casinos": (1, 0),
        "http://[broken": (0, 0),
    }
    for url, expected in cases.items():
        assert tuple(step.measure(document("t", url=url)).values()) == expected, url


def test_c4_keeps_sentences() -> None:
    c4 = leaf("corpus.edits", "c4")
    text = "Home page\nThis is a whole sentence of words.\nPlease enable JavaScript to see this page.\n"
    text += "A line without an end of it\n"
    text += "We use cookies to make it better here.\nAnd this is one more of them! [3]\n"
    edited, measures = c4().edit(document(text))
    assert edited.text == "This is a whole sentence of words.\nAnd this is one more of them!"
    expected = {"lines_removed": 4.0, "sentences": 2.0, "lorem_ipsum": 0.0, "curly_brackets": 0.0, "bad_words": 0.0}
    assert measures == expected
    assert "A line without an end of it" in c4(terminal=False).edit(document(text))[0].text
    whole = document("One two three four five.\nSix seven eight nine ten.")
    assert c4().edit(whole)[0] is whole
    assert [c4().rules()[0].at_least, c4().min_line_words] == [3, 5], "as C4's code has them"


def test_c4_knows_bad_words_formulas_and_headings(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("darn\nbloody mess\n")
    c4 = leaf("corpus.edits", "c4")(bad_words=(str(tmp_path / "bad"),))
    said = {"What a darn thing it is.": 1, "The darning of old socks is.": 0, "a Bloody mess": 1, "bloody, mess": 0}
    for text, found in said.items():
        assert c4.edit(document(text))[1]["bad_words"] == found, text
    with pytest.raises(UserError, match="no such file"):
        replace(c4, bad_words=("nowhere",)).edit(document("t"))
    said = {"It is $\\frac{1}{2}$ of it.": 0, "f() { return }": 1}
    for text, found in said.items():
        assert c4.edit(document(text))[1]["curly_brackets"] == found, text
    assert c4.edit(document("## Four words it has."))[0].text == ""
    assert c4.edit(document("## Here are five words now."))[0].text == "## Here are five words now."


def test_marks_of_headings_are_no_symbols() -> None:
    quality = leaf("corpus.filters", "gopher_quality")()
    assert quality.measure(document("### One two\n# three\nfour #five"))["symbols_per_word"] == 1 / 5
    fence = document("```\nx = 1\n```\ntext\n```\ny\n```")
    assert fence.lines == ["x = 1", "text", "y"]


@pytest.mark.skipif(not BOOKS.exists(), reason="needs the books in ../shared/data")
def test_a_classifier_tells_what_it_was_not_shown(tmp_path: Path) -> None:
    step = leaf("corpus.filters", "classifier")
    sides = ["charles-darwin_the-origin-of-species.txt", "jane-austen_pride-and-prejudice.txt"]
    texts = [[p for p in (BOOKS / name).read_text().split("\n\n") if len(p.split()) >= 40][:240] for name in sides]
    for name, some in zip(("yes", "no"), texts, strict=True):
        (tmp_path / name).write_text("\n\n".join(some[:160]))
    model = step((str(tmp_path / "yes"),), (str(tmp_path / "no"),), buckets=2**16)
    yes, no = ([model.measure(document(one))["quality"] for one in some[160:]] for some in texts)
    assert replace(model).measure(document(texts[0][170]))["quality"] == yes[10], "trained anew, it is the same"
    area = sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
    assert area > 0.97, area

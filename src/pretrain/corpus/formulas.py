r"""Formulas of a page, in whatever way it holds them, as TeX: `\(…\)` in a line and `\[…\]` by itself.

MathML by its TeX annotation or, without one, read aloud element by element (W3C MathML Core); scripts of MathJax
(`math/tex`); images whose `alt` is TeX; what KaTeX and MathJax have drawn of a formula already goes.
"""

import re
from typing import Any

IMAGE = re.compile(rb"<img[^>]{0,2000}class=[\"'][^\"'>]{0,200}(?:tex|math)")
TEX_IMAGE = re.compile(r"(?:^|[\s_-])(?:tex|latex|math|mwe-math-\S+)(?:[\s_-]|$)", re.IGNORECASE)
DRAWN = re.compile(r"(?:^|\s)(?:katex-html|MathJax(?:_\w+)?)(?:\s|$)")
STYLED = re.compile(r"^\{\\(?:display|text)style\s*(.*)\}$", re.DOTALL)
DEEPEST = 100  # elements of MathML in each other
INLINE = re.compile(r"\\\(((?:[^\\\n]|\\[^()\n])+)\\\)")
DISPLAYED = re.compile(r"\\\[((?:[^\\]|\\[^\[\]])+)\\\]")


def some(page: str) -> bool:
    """Whether a page may have formulas."""
    lower = page.encode("utf-8", "surrogatepass").lower()  # ten times faster than characters'
    return b"<math" in lower or b"math/tex" in lower or IMAGE.search(lower) is not None


def recover(tree: Any) -> None:
    """Puts the TeX of a tree's formulas (lxml) where the extractor finds it."""
    elements = list(tree.iter("math", "script", "img", "span", "div"))
    for element in elements:
        if element.tag in ("span", "div") and DRAWN.search(element.get("class") or ""):
            _drop(element)
    for element in elements:
        if element.tag == "math":
            _annotate(element)
        elif element.tag == "script" and (element.get("type") or "").startswith("math/tex"):
            _put(element, element.text or "", display="display" in element.get("type"))
        elif element.tag == "img" and TEX_IMAGE.search(element.get("class") or "") and element.get("alt"):
            before = element.getprevious()
            if before is not None and before.find(".//math") is not None:  # Wikipedia hides the same as MathML
                _drop(before)
            _put(element, element.get("alt"), display="display" in (element.get("class") or ""))


def dollars(text: str) -> str:
    r"""`\(…\)` and `\[…\]` between dollars, as the LaTeX reader writes formulas."""
    text = INLINE.sub(lambda m: f"${m[1].strip()}$", text)
    return DISPLAYED.sub(lambda m: f"$${m[1].strip()}$$", text)


def _drop(element: Any) -> None:
    parent, before = element.getparent(), element.getprevious()
    if parent is None:
        return
    if element.tail and before is not None:
        before.tail = (before.tail or "") + element.tail
    elif element.tail:
        parent.text = (parent.text or "") + element.tail
    parent.remove(element)


def _put(element: Any, tex: str, *, display: bool) -> None:
    """Makes an element a piece of text."""
    tail, parent = element.tail, element.getparent()
    tex = " ".join(tex.replace("<![CDATA[", "").replace("]]>", "").split())
    styled = STYLED.match(tex)
    element.clear()
    block = display and parent is not None and parent.tag not in ("p", "li", "td", "th", "span", "b", "i", "em", "dd")
    element.tag = "p" if block else "span"
    element.text = f"\\[{tex}\\]" if display else f"\\({styled[1].strip() if styled else tex}\\)"
    element.tail = tail


def _annotate(element: Any) -> None:
    """Sets the `alttext` of MathML that has neither that nor an annotation: the extractor takes it from there."""
    has = any("tex" in (one.get("encoding") or "") and one.text for one in element.iter("annotation"))
    if not has and not element.get("alttext"):
        element.set("alttext", " ".join(_spoken(element, 0).split()))


def _spoken(element: Any, depth: int) -> str:
    """MathML as TeX."""
    name = element.tag.rpartition(":")[2] if isinstance(element.tag, str) else ""
    if depth > DEEPEST or not name or name.startswith("annotation"):
        return ""
    parts = [_spoken(child, depth + 1) for child in element]
    if name in ("mi", "mn", "mo", "ms", "mtext") or not parts:
        said = "".join(element.itertext()).strip()
        return f"\\text{{{said}}}" if name == "mtext" and said else said
    one, two, three = ([*parts, "", "", ""])[:3]
    shapes = {
        "mfrac": rf"\frac{{{one}}}{{{two}}}",
        "msqrt": rf"\sqrt{{{' '.join(parts)}}}",
        "mroot": rf"\sqrt[{two}]{{{one}}}",
        "msup": f"{_braced(one)}^{{{two}}}",
        "msub": f"{_braced(one)}_{{{two}}}",
        "msubsup": f"{_braced(one)}_{{{two}}}^{{{three}}}",
        "munder": f"{_braced(one)}_{{{two}}}",
        "mover": f"{_braced(one)}^{{{two}}}",
        "munderover": f"{_braced(one)}_{{{two}}}^{{{three}}}",
        "mtable": rf"\begin{{matrix}} {' '.join(parts)} \end{{matrix}}",
        "mtr": " & ".join(parts) + r" \\",
    }
    return shapes.get(name, " ".join(part for part in parts if part))


def _braced(said: str) -> str:
    return said if len(said) < 2 else f"{{{said}}}"

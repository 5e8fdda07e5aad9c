"""TeX's groups and macros (Knuth 1984, The TeXbook, chapter 20): definitions taken out, uses replaced."""

import re
from dataclasses import dataclass

from pretrain.corpus.document import LONGEST

EXPANSIONS = 200_000  # of macros in one paper


BRACES = {"{": re.compile(r"\\.|[{}]", re.DOTALL), "[": re.compile(r"\\.|[\[\]]", re.DOTALL)}


def group(text: str, start: int) -> int:
    """Where the group or option that opens at `start` ends (after its bracket), or -1."""
    depth, opening = 0, text[start]
    for found in BRACES[opening].finditer(text, start):
        if len(found[0]) == 1:
            depth += 1 if found[0] == opening else -1
            if depth == 0:
                return found.end()
    return -1


def groups(text: str) -> dict[int, int]:
    """Where each group ends, by where it opens; those that stay open are left out. In one pass."""
    ends, opened = dict[int, int](), list[int]()
    for found in BRACES["{"].finditer(text):
        if found[0] == "{":
            opened.append(found.start())
        elif found[0] == "}" and opened:
            ends[opened.pop()] = found.end()
    return ends


def argument_of(text: str, command: str) -> str:
    """The first argument of a command's first use."""
    found = re.search(rf"\\{command}\s*(?:\[[^\]]{{0,1000}}\])?\s*\{{", text)
    end = group(text, found.end() - 1) if found else -1
    return text[found.end() : end - 1] if found and end > 0 else ""


@dataclass(frozen=True)
class Macro:
    """A user's own command: how many arguments, a default for the first, and what it stands for."""

    arguments: int
    default: str | None
    body: str


DEFINITION = re.compile(
    r"\\(?:(?P<new>newcommand|renewcommand|providecommand|DeclareRobustCommand)\*?\s*\{?\s*\\(?P<name>[A-Za-z@]+)\s*\}?"
    r"\s*(?:\[(?P<count>\d)\])?\s*(?:\[(?P<default>[^\]]{0,1000})\])?\s*"
    r"|(?:g|x|e)?def\s*\\(?P<defined>[A-Za-z@]+)\s*(?P<marks>(?:#\d)*)\s*"
    r"|DeclareMathOperator(?P<star>\*?)\s*\{?\s*\\(?P<operator>[A-Za-z@]+)\s*\}?\s*)(?=\{)"
)


def definitions(text: str) -> tuple[str, dict[str, Macro]]:
    """The text without the definitions of macros, and these."""
    macros, out, place = dict[str, Macro](), list[str](), 0
    while found := DEFINITION.search(text, place):
        end = group(text, found.end())
        if end < 0:
            break
        out.append(text[place : found.start()])
        body = text[found.end() + 1 : end - 1]
        if found["operator"]:
            macros[found["operator"]] = Macro(0, None, f"\\operatorname{found['star']}{{{body}}}")
        elif found["defined"]:
            macros[found["defined"]] = Macro(found["marks"].count("#"), None, body)
        else:
            macros[found["name"]] = Macro(int(found["count"] or 0), found["default"], body)
        place = end
    return "".join([*out, text[place:]]), macros


def expand(text: str, macros: dict[str, Macro]) -> str:
    """Macros replaced by what they stand for, as often as a paper may; one that stands for itself stays."""
    if not macros:
        return text
    out, left, budget = list[str](), EXPANSIONS, 4 * LONGEST
    stack = [(text, 0)]
    command = re.compile(r"\\([A-Za-z@]+)")
    while stack and budget > 0:
        text, place = stack.pop()
        found = command.search(text, place)
        while found and (found[1] not in macros or left <= 0):
            found = command.search(text, found.end())
        if found is None:
            out.append(text[place:])
            budget -= len(text) - place
            continue
        out.append(text[place : found.start()])
        budget -= found.start() - place
        left -= 1
        body, end, unclosed = _applied(macros[found[1]], text, found.end())
        budget -= len(body) // 8 + 8 * unclosed
        stack.append((text, end))
        if len(stack) < 200:
            stack.append((body, 0))
    return "".join(out)


def _applied(macro: Macro, text: str, place: int) -> tuple[str, int, int]:
    """A macro's body with its arguments, where these end, and how many characters were read for groups left open."""
    arguments, unclosed = list[str](), 0
    if macro.default is not None:
        found = re.compile(r"\s*\[").match(text, place)
        end = group(text, found.end() - 1) if found else -1
        arguments.append(text[found.end() : end - 1] if found and end > 0 else macro.default)
        place = end if end > 0 else place
    while len(arguments) < macro.arguments:
        blank = re.compile(r"\s*").match(text, place)
        start = blank.end() if blank else place
        end = group(text, start) if text[start : start + 1] == "{" else 0
        if end > 0:
            arguments.append(text[start + 1 : end - 1])
            place = end
        else:
            unclosed += len(text) - start if end < 0 else 0
            token = re.compile(r"\\[A-Za-z@]+|\\.|.").match(text, start)
            arguments.append(token[0] if token else "")
            place = token.end() if token else start
    body = re.sub(r"#(\d)", lambda m: arguments[int(m[1]) - 1] if 0 < int(m[1]) <= len(arguments) else "", macro.body)
    if macro.arguments == 0 and re.search(r"\\[A-Za-z@]+$", body) and text[place : place + 1].isalpha():
        body += " "
    return body, place, unclosed

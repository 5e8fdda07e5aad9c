"""What a page says of itself in its head: its title, when it was published, under which licence it is."""

import re
from collections.abc import Iterator

LOOKED_AT = 200_000  # characters of a page; a licence is often named at its foot, so as many from its end
TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,500})</title", re.IGNORECASE)
TAG = re.compile(r"<(?:meta|link|time)\s([^<>]{1,1000})>", re.IGNORECASE)
LINK = re.compile(r"<a\s([^<>]{1,1000})$", re.IGNORECASE)
VALUE = re.compile(
    r"([a-z:_-]{1,30})\s{0,3}=\s{0,3}(?:\"([^\"]{0,500})\"|'([^']{0,500})'|([^\s\"'>]{1,200}))", re.IGNORECASE
)
PUBLISHED = frozenset("""
    article:published_time datepublished dc.date dc.date.issued dcterms.issued dcterms.date pubdate date citation_date
    citation_publication_date og:published_time publication_date parsely-pub-date
""".split())  # fmt: skip  # noqa: SIM905
JSON_DATE = re.compile(r'"datePublished"\s{0,3}:\s{0,3}"([^"]{4,40})"')
DATE = re.compile(r"(\d{4})[-/](\d{2})[-/](\d{2})([T ]\d{2}:\d{2}(?::\d{2})?(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?)?")
COMMONS = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/(zero|mark|by(?:-(?:nc|nd|sa)){0,2})/(\d\.\d)")


def title(page: str) -> str:
    """What <title> says, on one line."""
    found = TITLE.search(page[:100_000])
    return " ".join(found[1].split()) if found else ""


def date_and_license(page: str) -> tuple[str | None, str | None]:
    """(ISO 8601 date, SPDX name or address of a licence) of a page; links that are no `rel="license"` say nothing."""
    ends = page if len(page) <= 2 * LOOKED_AT else page[:LOOKED_AT] + page[-LOOKED_AT:]
    date = license = None
    for tag in _tags(ends):
        lower = tag.lower()
        if not ("date" in lower or "publish" in lower or "licens" in lower or "rights" in lower):
            continue  # nine of ten, unread
        said = {name.lower(): a or b or c for name, a, b, c in VALUE.findall(tag)}
        names = {said.get(name, "").lower() for name in ("name", "property", "itemprop")}
        if date is None and names & PUBLISHED:
            date = _date(said.get("content") or said.get("datetime") or "")
        rights = "license" in said.get("rel", "").lower().split() or names & {"license", "dcterms.license", "dc.rights"}
        if license is None and rights:
            license = _license(said.get("href") or said.get("content") or "")
    if date is None and (found := JSON_DATE.search(ends)):
        date = _date(found[1])
    return date, license


def _tags(page: str) -> Iterator[str]:
    """Attributes of the tags that may say it: those of the head, then the links of which there are hundreds."""
    for tag in TAG.finditer(page):
        yield tag[1]
    at = page.find("license")
    while at >= 0:
        stop = page.find(">", at, at + 1000)
        if stop >= 0 and (link := LINK.search(page[max(at - 1000, 0) : stop])):
            yield link[1]
        at = page.find("license", at + 1)


def _date(said: str) -> str | None:
    found = DATE.match(said.strip())
    return "-".join(found.groups()[:3]) + (found[4] or "").replace(" ", "T") if found else None


def _license(said: str) -> str | None:
    """CC-BY-SA-4.0 of an address at creativecommons.org; another address as it is."""
    found = COMMONS.search(said.lower())
    if not found:
        return said if said.startswith(("http://", "https://")) else None
    name = {"zero": "CC0", "mark": "CC-PDM"}.get(found[1], f"CC-{found[1].upper()}")
    return f"{name}-{found[2]}"

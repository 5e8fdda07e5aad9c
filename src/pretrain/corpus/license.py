"""The SPDX name of a licence by phrases that its text alone has (spdx.org/licenses)."""

import re

PHRASES = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0", ("gnu general public license", "version 2, june 1991")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("Zlib", ("this software is provided 'as-is'", "must not be misrepresented")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and", "distribute this software for any purpose with or without fee")),
    ("MIT-0", ("permission is hereby granted, free of charge", "without restriction", "no attribution")),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice")),
)
SAID = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]+?)\s*(?:\*/|-->|$)", re.MULTILINE)


def identify(text: str) -> str | None:
    """The licence of a licence's text, or None."""
    plain = " ".join(text.lower().replace("’", "'").replace('"', "'").split())
    return next((name for name, phrases in PHRASES if all(phrase in plain for phrase in phrases)), None)


def said_in(text: str) -> str | None:
    """What a file says of itself in its first lines: SPDX-License-Identifier."""
    found = SAID.search(text[:2000])
    return found[1] if found else None

"""Closed form and property: what is personal goes, what only looks like it stays; time grows with the text."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.base.extension import leaf
from pretrain.corpus.document import Document

MUTANTS = [
    ("src/pretrain/corpus/edits/redact.py", "sum(doubled) % 10 == 0", "True"),
    ("src/pretrain/corpus/edits/redact.py", ".is_global", ".is_private"),
    ("src/pretrain/corpus/edits/redact.py", "|'(?=\\w)", ""),
]
Redact = leaf("corpus.edits", "redact")


def redacted(text: str) -> str:
    return Redact().edit(Document("0" * 32, "web", "u", text))[0].text


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("write to jane.doe+x@mail.example.co.uk, please", "write to <EMAIL>, please"),
        ("at 8.8.8.8 and 2001:4860:4860:0000:0000:0000:0000:8888.", "at <IP> and <IP>."),
        ("call +49 (0)30 123456 or +1-212-555-0123 or (212) 555-0123", "call <PHONE> or <PHONE> or <PHONE>"),
        ("card 4111 1111 1111 1111 ok", "card <CARD> ok"),
        ("IBAN DE89 3704 0044 0532 0130 00 here", "IBAN <IBAN> here"),
        ("key = 'AKIAIOSFODNN7EXAMPLE'", "key = '<KEY>'"),
        ("token: ghp_" + "a1B2" * 9, "token: <KEY>"),
        ("at 2001:4860:4860::8888 or 2606:4700::1111, port", "at <IP> or <IP>, port"),
        ("o'brien@x.com and 'jane@x.com'", "<EMAIL> and '<EMAIL>'"),
        ("ring 020 7946 0958 or 0049 30 1234567 now", "ring <PHONE> or <PHONE> now"),
        ("glpat-" + "aB3_" * 5 + " npm_" + "aB12" * 9 + " sk_live_" + "aB12" * 6, "<KEY> <KEY> <KEY>"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = <SECRET>"),
        ("api_token: '" + "0a" * 32 + "'", "api_token: '<SECRET>'"),
        ("git clone https://user:s3cret@host.org/x", "git clone https://<SECRET>@host.org/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "<PRIVATE_KEY>"),
    ],
)
def test_personal_data_goes(text: str, after: str) -> None:
    assert redacted(text) == after


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4.5 and 127.0.0.1 and 192.168.1.1",
        "card 4111 1111 1111 1112 is none",
        "IBAN DE89 3704 0044 0532 0130 01 is none",
        "in 1914-1918 and 2001-09-11, 3.14159 26535",
        "pages 100-200, 12,345,678 people, ISBN 978-3-16-148410-0",
        "a @ b, user@localhost, @name and 10.1000/182",
        "commit 'da39a3ee5e6b4b0d3255bfef95601890afd80709' and \"" + "0a" * 32 + '"',
        "std::vector<A::B>, 20::1 and 10:20:30, 2024:10:11, fe80::1, a::b",
        "the key: value pairs, token = next(tokens), https://host.org:8080/a@b",
        "tables 0200 300 and 00123456789, 007 and 0 1 2 3",
        "don't @ me, l'@home, rock'n'roll",
        "@property\ndef x(self): ...",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == text


def test_counts_by_kind() -> None:
    _, counts = Redact().edit(Document("0" * 32, "web", "u", "a@b.de c@d.org 8.8.8.8"))
    assert {kind: count for kind, count in counts.items() if count} == {"emails": 2.0, "ips": 1.0}
    assert Redact(kinds=("ip",)).edit(Document("0" * 32, "web", "u", "a@b.de 8.8.8.8"))[0].text == "a@b.de <IP>"
    with pytest.raises(ValueError, match="'mail'"):
        Redact(kinds=("mail",))


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "1-",
        "a@",
        "a.",
        "::",
        "-----BEGIN PRIVATE KEY-----",
        "eyJa.",
        "+1",
        "DE89 ",
        "key=",
        "://a:",
        "2001:",
        "a'",
        "00",
        "020 ",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        start = time.process_time()
        redacted(text)
        return time.process_time() - start

    small = min(seconds(20_000) for _ in range(3))
    assert seconds(160_000) < 8 * 4 * max(small, 0.002), "eight times the text, in at most four times its share"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="a1@.-+: ()DE\n", max_size=100))
def test_a_second_pass_finds_nothing(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once

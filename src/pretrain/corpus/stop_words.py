"""The commonest function words of languages, by ISO 639-1: a page of prose has several of them."""

STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the be to of and that have with",  # as Gopher has them
        "de": "der die das und ist nicht ein zu mit",
        "fr": "le la les et est que pour dans une",
        "es": "el la los que de y en un por",
        "it": "il la che di e un per non sono",
        "pt": "o a que de e um para não os",
        "nl": "de het een en van is dat niet op",
        "pl": "i w na z że się nie to do",
        "sv": "och att det en som är på för",
        "da": "og at det en som er på til",
        "nb": "og det en som er på til av",
        "fi": "ja on ei se että oli hän mutta",
        "cs": "a se na je že to v s",
        "sk": "a sa na je že to v s",
        "hu": "a az és hogy nem is egy van",
        "ro": "și de la în nu un cu care",
        "tr": "ve bir bu da de için ile çok",
        "ru": "и в не на что он с как",
        "uk": "і в не на що з як до",
        "bg": "и на не да се за е от",
        "el": "και το της να του η με που",
        "id": "yang dan di itu dengan untuk tidak ini",
        "vi": "và của là có không được trong một",
        "ca": "el la que de i en un per",
        "hr": "i je u da se na za ne",
        "la": "et in est non ad ut cum quod",
        "ar": "في من على أن إلى التي هذا ما",
        "fa": "و در به از که این را با",
        "he": "את של על לא הוא זה גם כי",
        "hi": "के में की है और से को का",
        "zh": "的 是 在 不 了 有 和 人",
        "ja": "の に は を た が で て",
    }.items()
}


def stop_words(language: str | None) -> frozenset[str] | None:
    """Those of a language, of English where none is named; None for a language without a table."""
    return STOP_WORDS.get(language or "en")

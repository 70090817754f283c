"""The languages that Whisper knows: codes, names and aliases.

The order is that of the ids in the vocabulary: language number i has the id `sot + 1 + i`; models with
fewer languages know the first ones. Source: openai/whisper tokenizer.py at c0d2f62 (facts: codes, names, order).
"""

from __future__ import annotations

from typing import Final

from stapes.errors import OptionError

_NAMES: Final = """
en=english zh=chinese de=german es=spanish ru=russian ko=korean fr=french ja=japanese pt=portuguese
tr=turkish pl=polish ca=catalan nl=dutch ar=arabic sv=swedish it=italian id=indonesian hi=hindi
fi=finnish vi=vietnamese he=hebrew uk=ukrainian el=greek ms=malay cs=czech ro=romanian da=danish
hu=hungarian ta=tamil no=norwegian th=thai ur=urdu hr=croatian bg=bulgarian lt=lithuanian la=latin
mi=maori ml=malayalam cy=welsh sk=slovak te=telugu fa=persian lv=latvian bn=bengali sr=serbian
az=azerbaijani sl=slovenian kn=kannada et=estonian mk=macedonian br=breton eu=basque is=icelandic
hy=armenian ne=nepali mn=mongolian bs=bosnian kk=kazakh sq=albanian sw=swahili gl=galician mr=marathi
pa=punjabi si=sinhala km=khmer sn=shona yo=yoruba so=somali af=afrikaans oc=occitan ka=georgian
be=belarusian tg=tajik sd=sindhi gu=gujarati am=amharic yi=yiddish lo=lao uz=uzbek fo=faroese
ht=haitian_creole ps=pashto tk=turkmen nn=nynorsk mt=maltese sa=sanskrit lb=luxembourgish my=myanmar
bo=tibetan tl=tagalog mg=malagasy as=assamese tt=tatar haw=hawaiian ln=lingala ha=hausa ba=bashkir
jw=javanese su=sundanese yue=cantonese
"""

#: code -> lower-case English name, in the order of the ids.
LANGUAGES: Final[dict[str, str]] = {
    code: name.replace("_", " ") for code, name in (entry.split("=") for entry in _NAMES.split())
}

#: other names that are understood -> code.
ALIASES: Final[dict[str, str]] = {
    "burmese": "my", "castilian": "es", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "mandarin": "zh",
    "moldavian": "ro", "moldovan": "ro", "panjabi": "pa", "pushto": "ps", "sinhalese": "si", "valencian": "ca",
}  # fmt: skip

#: every name and alias -> code.
CODE_OF_NAME: Final[dict[str, str]] = {**{name: code for code, name in LANGUAGES.items()}, **ALIASES}

#: languages written without spaces between words: their words are split wherever a character ends.
WITHOUT_SPACES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def language_code(name: str) -> str:
    """Give the code for a code, a name or an alias, in any case ("en", "English", "castilian").

    Raises OptionError if no such language is known.
    """
    wanted = name.strip().lower()
    if wanted in LANGUAGES:
        return wanted
    if wanted in CODE_OF_NAME:
        return CODE_OF_NAME[wanted]
    raise OptionError(
        f"unknown language {name!r}; give a code such as 'en' or a name such as 'English', or None to detect it"
    )

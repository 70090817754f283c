"""The languages that Whisper knows: codes, names and aliases.

The order is that of the ids in the vocabulary: language number i has the id `sot + 1 + i`; models with
fewer languages know the first ones. Source: openai/whisper tokenizer.py at c0d2f62 (facts: codes, names, order).
"""

from __future__ import annotations

import re
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


#: a code of ISO 639, and the name of a language's token, which models may have for any code
_CODE: Final = re.compile(r"[a-z]{2,3}")
_TOKEN: Final = re.compile(r"<\|([A-Za-z][A-Za-z0-9_-]{0,30})\|>")
#: names of tokens in that form that are no languages
_NO_LANGUAGES: Final = frozenset(
    (
        "endoftext", "startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech",
        "nocaptions", "notimestamps",
    )
)  # fmt: skip


def language_code(name: str) -> str:
    """Return the code for a code, a name or an alias, in any case ("en", "English", "castilian").

    A code that is not listed here ("gsw", or any as "<|zh-TW|>") is taken as it is: whether a model has a token for
    it is known when the model is. Raises OptionError for anything else.
    """
    wanted = name.strip()
    if code := code_of_token(wanted):
        return code.lower() if code.lower() in LANGUAGES else code
    wanted = wanted.lower()
    if wanted in CODE_OF_NAME:
        return CODE_OF_NAME[wanted]
    if wanted in LANGUAGES or (_CODE.fullmatch(wanted) and wanted not in _HINTS):
        return wanted
    raise OptionError(f"unknown language {name!r}; {_way_out(wanted)}")


# What to give instead of a code or a name that is not Whisper's.

_OTHERS: Final = """
en=eng,us,gb zh=zho,chi,cmn,cn,tw,putonghua,中文,汉语,漢語,普通话 de=deu,ger,deutsch es=spa,español,espanol,castellano
ru=rus,русский ko=kor,kr,한국어 fr=fra,fre,français,francais ja=jpn,jp,日本語 pt=por,português,portugues tr=tur,türkçe
pl=pol,polski ca=cat,català nl=nld,dut,nederlands,vls ar=ara,arb,العربية sv=swe,svenska it=ita,italiano
id=ind,in,bahasa hi=hin,हिन्दी fi=fin,suomi vi=vie,vn he=heb,iw,il,עברית uk=ukr,ua,українська el=ell,gre,gr
ms=msa,may,zsm,melayu cs=ces,cze,cz,čeština ro=ron,rum,mo,mol da=dan,dk,dansk hu=hun,magyar ta=tam
no=nor,nb,nob,norsk,bokmål,bokmal th=tha ur=urd hr=hrv,hrvatski bg=bul lt=lit la=lat mi=mri,mao ml=mal cy=cym,wel
sk=slk,slo te=tel fa=fas,per,pes,prs,ir,farsi,dari lv=lav,lvs bn=ben sr=srp,sh,hbs,rs az=aze,azj,azb sl=slv kn=kan
et=est,ekk mk=mkd,mac br=bre eu=eus,baq is=isl,ice hy=hye,arm ne=nep,npi mn=mon,khk bs=bos kk=kaz sq=sqi,alb,als
sw=swa,swh,kiswahili gl=glg mr=mar pa=pan,pnb si=sin km=khm sn=sna yo=yor so=som af=afr oc=oci ka=kat,geo be=bel
tg=tgk sd=snd gu=guj am=amh yi=yid,ji,ydd uz=uzb,uzn fo=fao ht=hat ps=pus,pbt,pst tk=tuk nn=nno mt=mlt sa=san lb=ltz
my=mya,bur bo=bod,tib tl=fil,tgl,filipino mg=mlg,plt as=asm tt=tat ln=lin ha=hau ba=bak jw=jv,jav su=sun
"""

#: code of ISO 639-2 or 639-3 (https://iso639-3.sil.org/code_tables/639/data), former code, a country's code taken for
#: the language's, or a language's own name -> Whisper's code
_HINTS: Final[dict[str, str]] = {
    other: code for code, others in (entry.split("=") for entry in _OTHERS.split()) for other in others.split(",")
}
#: what other programs call the detection of the language
_DETECTS: Final = frozenset({"auto", "automatic", "autodetect", "auto-detect", "auto_detect", "detect", "none"})
_ALL: Final = "'stapes --help' and stapes.languages.LANGUAGES list all"


def _way_out(wanted: str) -> str:
    """Return what to give instead of an unknown language."""
    if wanted in _DETECTS:
        return "leave it out, or give None, to have it detected"
    code = _nearest(wanted)
    if code is None:
        return f"give a code such as 'en' or a name such as 'English', or None to detect it; {_ALL}"
    return f"did you mean {code!r} ({LANGUAGES[code].title()})? {_ALL}"


def _nearest(wanted: str) -> str | None:
    """Return the code that is meant by a tag with region or script, another standard's code, or a longer name."""
    parts = [part for part in re.split(r"[-_\s.,:;@()/]+", wanted) if part]  # "zh_hant-tw", "de_de.utf-8", "us english"
    if named := [CODE_OF_NAME[part] for part in parts if part in CODE_OF_NAME]:
        return named[0]
    if parts and (parts[0] in LANGUAGES or parts[0] in _HINTS):
        return _HINTS.get(parts[0], parts[0])
    from difflib import get_close_matches  # noqa: PLC0415 (only on this path)

    close = get_close_matches(wanted, CODE_OF_NAME, n=1, cutoff=0.75)
    return CODE_OF_NAME[close[0]] if close else None


def language_token(code: str) -> str:
    """Return the name of a language's token: "en" -> "<|en|>"."""
    return f"<|{code}|>"


def code_of_token(name: str) -> str | None:
    """Return the code in the name of a language's token: "<|en|>" -> "en"; None if it cannot be one's name."""
    found = _TOKEN.fullmatch(name)
    return found[1] if found and found[1] not in _NO_LANGUAGES else None


def language_title(code: str) -> str:
    """Name a language in English ("Haitian Creole"); a code that is not listed here stays as it is."""
    return LANGUAGES[code].title() if code in LANGUAGES else code

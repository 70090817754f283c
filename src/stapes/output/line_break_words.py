"""Short words that belong to the next word, in the most spoken languages; a word that two of them share does no harm.

Articles, prepositions, conjunctions, possessives, subjects, auxiliaries: a line that ends with one reads badly. Words
that begin a phrase begin a line well. Words with several parts of speech are left out where another part is as usual
("it", "out").
"""

from __future__ import annotations

from typing import Final

_BEGIN_A_PHRASE: Final = {
    "en": """
        about after against although among and because before between but during for from if into nor or
        over since so than that though through under unless until upon when where whether which while who
        whom whose with without
    """,
    "de": """
        aber als bevor damit dass daß denn durch für gegen indem mit nach nachdem ob obwohl oder ohne seit
        sobald sondern sowie und während weil wenn wie wegen zwischen
    """,
    "fr": "avec car comme dans dont donc et lorsque mais ou parce pour puisque quand que qui sans si tandis",
    "es": "aunque como con cuando desde donde hasta mientras o para pero porque que quien sin sino y",
    "pt": "com como e embora enquanto mas onde ou para pois porque quando que sem",
    "it": "che come con dove e ma mentre o perché però per quando senza tra",
    "nl": "als dat door en maar met of omdat terwijl toen voor want wanneer zonder",
    "ru": "а без где для если и или когда который которая которые но о от по потому с что чтобы",
}
_LEAN: Final = {
    "en": """
        a along am an any are around as at be been behind below beneath beside beyond by can could did do
        does don't each every except had has have he his her how i i'd i'll i'm i've in is it's its may
        might must my near no not of on onto our per shall she should some the their these they this those
        till to toward towards very via was we were what why will would your
    """,
    "de": """
        am an auf aus bei beim bis das dein deine dem den der deren des dessen die du ein eine einem einen
        einer eines er es hat hatte haben hinter ich ihr ihre im in ins ist kein keine keinen mein meine
        neben nicht sehr sein seine sie sind um unser unter über vom von vor war waren welche welcher
        welches werden wird wir wurde zu zum zur
    """,
    "fr": """
        a ai ainsi au aux ce ces cet cette chez d' de des du elle elles en entre est il ils j' je l' la le
        les leur leurs ma mes mon ne nos notre nous on où par pas plus sa ses son sont sous sur ta tes ton
        très tu un une vers vos votre vous à
    """,
    "es": """
        al de del el en entre es esta estas este estos fue hacia la las lo los mi mis muy más no nuestro
        nuestra por se ser sobre son su sus tu tus un una unas uno unos
    """,
    "pt": """
        a ao aos as da das de do dos em entre foi mais meu minha muito na nas no nos não o os por seu seus
        são sobre sua suas um uma à às é
    """,
    "it": """
        agli ai al alla alle anche col da dal dalla dei del della delle degli di ed fra gli ha hanno i il in
        la le lo loro mia mio molto nel nella non più sono sua sul sulla suo un una uno è
    """,
    "nl": """
        aan bij de deze die dit een haar heeft het hij hun ik in is je mijn naar niet om onze op te uit van
        was we ze zijn
    """,
    "ru": "в во до за из к на не над об он она они под при про со у это я мы",
}

#: a break before one of these is a good one
OPENERS: Final = frozenset(" ".join(_BEGIN_A_PHRASE.values()).split())
#: a break after one of these is a bad one
LEANERS: Final = frozenset(" ".join(_LEAN.values()).split()) | OPENERS
#: titles and abbreviations whose full stop ends no sentence
ABBREVIATIONS: Final = frozenset(
    """
    bsp bzw ca capt col d.h dott dr e.g etc evtl fig gen hon hr i.e jr m mlle mme mr mrs ms nr prof rev sgt sig sr sra
    srta st usw vgl vol vs z.b
    """.split()  # noqa: SIM905 (a table)
)

"""Language codes of three letters to those of two (ISO 639-3 and 639-1, the tables of their registration authority)."""

from __future__ import annotations

import functools
from typing import Final

# ISO 639-3 code and, right behind it, the ISO 639-1 code of the same language.
_PAIRS: Final = """
aaraa abkab afraf akaak amham araar argan asmas avaav aveae aymay azeaz bakba bambm belbe benbn bisbi bodbo bosbs brebr
bulbg catca cescs chach chece chucu chvcv corkw cosco crecr cymcy danda deude divdv dzodz ellel engen epoeo estet euseu
eweee faofo fasfa fijfj finfi frafr fryfy fulff glagd glega glggl glvgv grngn gujgu hatht hauha hbssh hebhe herhz hinhi
hmoho hrvhr hunhu hyehy iboig idoio iiiii ikuiu ileie inaia indid ipkik islis itait javjv jpnja kalkl kankn kasks katka
kaukr kazkk khmkm kikki kinrw kirky komkv konkg korko kuakj kurku laolo latla lavlv limli linln litlt ltzlb lublu luglg
mahmh malml marmr mkdmk mlgmg mltmt monmn mrimi msams myamy nauna navnv nblnr ndend ndong nepne nldnl nnonn nobnb norno
nyany ocioc ojioj orior ormom ossos panpa plipi polpl porpt pusps quequ rohrm ronro runrn rusru sagsg sansa sinsi slksk
slvsl smese smosm snasn sndsd somso sotst spaes sqisq srdsc srpsr sswss sunsu swasw swesv tahty tamta tattt telte tgktg
tgltl thath tirti tonto tsntn tsots tuktk turtr twitw uigug ukruk urdur uzbuz venve vievi volvo wlnwa wolwo xhoxh yidyi
yoryo zhaza zhozh zulzu
"""
# The standard variety of a macrolanguage stands for it, where models name the variety (ISO 639-3 macrolanguage table).
_STANDARD: Final = """
arbar cmnzh pesfa prsfa zsmms swhsw ekket lvslv npine oryor alssq khkmn uznuz azjaz yddyi pltmg kmrku fuvff gazom quyqu
guggn ayray nobno filtl
"""


@functools.cache
def _short() -> dict[str, str]:
    pairs = (_PAIRS + _STANDARD).split()
    return {pair[:3]: pair[3:] for pair in pairs if len(pair) == 5}


def short_code(code: str) -> str:
    """Give the code of two letters.

    Args:
        code: ISO 639-3, or ISO 639-1.

    Returns:
        ISO 639-1 where it exists, else the code as it is.
    """
    return _short().get(code, code)

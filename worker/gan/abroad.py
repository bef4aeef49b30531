"""Colours in other languages: a text that says one of them, and which. Words that are things as
well (a rose, an orange) are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from worker.gan import grammar
from worker.gan.colours import PAINTS
from worker.gan.words import without, words

MOST = 6  # words of a text, of which a longer one may say the colour of something else
SHADES = re.compile(  # before a colour in English, and left out with it
    r"\b(?:light|dark|pale|bright|deep|pastel|neon|lime|sky|navy|royal|baby|hot)[\s-]+"
    rf"(?=(?:{'|'.join((*PAINTS, 'gray', 'violet'))})\b)",
    re.IGNORECASE,
)
_GERMAN = {
    "rot": "red", "gelb": "yellow", "grün": "green", "blau": "blue", "braun": "brown",
    "schwarz": "black", "weiß": "white", "grau": "grey", "violett": "purple", "lila": "purple",
}  # fmt: skip
_ENDINGS = ("", "e", "er", "es", "en", "em")
ARTICLES = frozenset({
    "a", "an", "the", "der", "die", "das", "ein", "eine", "einen", "einem", "einer", "un", "une",
    "le", "la", "les", "des", "el", "los", "las", "una", "unos", "unas", "il", "lo", "i", "gli",
    "o", "os", "as", "um", "uma",
})  # fmt: skip
LINKS = grammar.LINKS | {  # what follows is not what is drawn, or a part of it
    "mit", "ohne", "im", "auf", "unter", "neben", "avec", "sans", "au", "aux", "à", "dans", "sur",
    "en", "con", "sin", "sobre", "senza", "su", "nel", "nella", "com", "sem", "no", "na", "em",
}  # fmt: skip
_OF = ("的", "の")
_WORDS: Mapping[str, str] = MappingProxyType({  # French, Spanish, Italian, Portuguese
    "red": "rouge rouges rojo roja rojos rojas rosso rossa rossi rosse vermelho vermelha",
    "yellow": "jaune jaunes amarillo amarilla amarillos amarillas giallo gialla amarelo amarela",
    "green": "vert verte verts vertes verde verdes",
    "blue": "bleu bleue bleus bleues azul azules azuis blu azzurro azzurra",
    "purple": "violet violets violettes morado morada morados moradas roxo roxa",
    "brown": "marrones marrón marrone marroni brun brune castanho castanha",
    "black": "noir noire noirs noires negro negra negros negras nero nera neri nere preto preta",
    "white": "blanc blanche blancs blanches blanco blanca blancos blancas bianco bianca branco "
    "branca",
    "grey": "gris grise grises grigio grigia cinza cinzento cinzenta",
})  # fmt: skip
_SIGNS: Mapping[str, str] = MappingProxyType({  # Chinese and Japanese
    "red": "红色 紅色 赤い 赤の 赤色", "orange": "橙色 オレンジ色", "yellow": "黄色 黃色",
    "green": "绿色 綠色 緑の 緑色", "blue": "蓝色 藍色 青い 青の 青色", "purple": "紫色 紫の",
    "pink": "粉色 粉红色 粉紅色 ピンク ピンク色", "brown": "棕色 褐色 茶色",
    "black": "黑色 黒い 黒の 黒色", "white": "白色 白い 白の", "grey": "灰色",
})  # fmt: skip


def _spelled() -> Iterator[tuple[str, str]]:
    """Words as `words` reads them."""
    for stem, paint in _GERMAN.items():
        yield from (((stem + ending).casefold(), paint) for ending in _ENDINGS)
    for paint, said in _WORDS.items():
        yield from ((word, paint) for word in said.split())


_PAINT = {word: paint for word, paint in _spelled() if word != "rot"}  # rot is English, too
_SIGN = {sign: paint for paint, said in _SIGNS.items() for sign in said.split()}
_SIGNED = re.compile(f"({'|'.join(sorted(_SIGN, key=len, reverse=True))})[いの的]?")


def coloured(text: str) -> tuple[str, str | None]:
    """A short text without the colour that it says of the thing that it is about, and that colour,
    by its key of `colours.PAINTS`; the text and None where it says none, or two."""
    said, signs = words(text), list(_SIGNED.finditer(text))
    own = [place for place, word in enumerate(said) if word in _PAINT]
    if len(said) > MOST or len(own) + len(signs) != 1:
        return text, None
    if signs:
        plain = text[: signs[0].start()] + text[signs[0].end() :]
        told = bool(plain.strip()) and not any(sign in plain for sign in _OF)
        return (plain.strip(), _SIGN[signs[0][1]]) if told else (text, None)
    rest = [*said[: own[0]], *said[own[0] + 1 :]]
    link = next((place for place, word in enumerate(said) if word in LINKS), len(said))
    if own[0] > link or ARTICLES.issuperset(rest):
        return text, None
    return " ".join(without(text, said[own[0]]).split()), _PAINT[said[own[0]]]

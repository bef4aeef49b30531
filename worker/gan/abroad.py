"""Colours in other languages: a text that says one of them, and which. Words that are things as
well (a rose, an orange) are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from worker.gan.words import words

MOST = 6  # words of a text, of which a longer one may say the colour of something else
_GERMAN = {
    "rot": "red", "gelb": "yellow", "grün": "green", "blau": "blue", "braun": "brown",
    "schwarz": "black", "weiß": "white", "grau": "grey", "violett": "purple", "lila": "purple",
}  # fmt: skip
_ENDINGS = ("e", "er", "es", "en", "em")
_WORDS: Mapping[str, str] = MappingProxyType({  # French, Spanish, Italian, Portuguese
    "red": "rouge rouges rojo roja rojos rojas rosso rossa rossi rosse vermelho vermelha",
    "yellow": "jaune jaunes amarillo amarilla amarillos amarillas giallo gialla amarelo amarela",
    "green": "vert verte verts vertes verde verdes verdi",
    "blue": "bleu bleue bleus bleues azul azules azuis blu azzurro azzurra",
    "purple": "violet violette violets violettes morado morada morados moradas roxo roxa viola",
    "brown": "marron marrones marrón marrone marroni brun brune castanho castanha",
    "black": "noir noire noirs noires negro negra negros negras nero nera neri nere preto preta",
    "white": "blanc blanche blancs blanches blanco blanca blancos blancas bianco bianca branco "
    "branca",
    "grey": "gris grise grises grigio grigia cinza cinzento cinzenta",
})  # fmt: skip
_SIGNS: Mapping[str, str] = MappingProxyType({  # Chinese and Japanese
    "red": "红色 紅色 赤い 赤色", "orange": "橙色 オレンジ色", "yellow": "黄色 黃色",
    "green": "绿色 綠色 緑の 緑色", "blue": "蓝色 藍色 青い 青色", "purple": "紫色 紫の",
    "pink": "粉色 粉红色 粉紅色 ピンク ピンク色", "brown": "棕色 褐色 茶色",
    "black": "黑色 黒い 黒色", "white": "白色 白い", "grey": "灰色",
})  # fmt: skip


def _spelled() -> Iterator[tuple[str, str]]:
    for stem, paint in _GERMAN.items():
        yield from ((stem + ending, paint) for ending in _ENDINGS)
    for paint, said in _WORDS.items():
        yield from ((word, paint) for word in said.split())


_PAINT = dict(_spelled())
_SIGN = {sign: paint for paint, said in _SIGNS.items() for sign in said.split()}
_SIGNED = re.compile(f"(?:{'|'.join(sorted(_SIGN, key=len, reverse=True))})[いの的]?")


def coloured(text: str) -> tuple[str, str | None]:
    """A short text without the colour that it says, and that colour, by its key of
    `colours.PAINTS`; None, and the text, where it says none or two."""
    said = words(text)
    signs = _SIGNED.findall(text)
    own = [word for word in said if word in _PAINT]
    if len(said) > MOST or len(own) + len(signs) != 1:
        return text, None
    if signs:
        sign = signs[0] if signs[0] in _SIGN else signs[0][:-1]
        return text.replace(signs[0], "", 1).strip() or text, _SIGN[sign]
    plain = re.sub(rf"\b{own[0]}\b", "", text, count=1, flags=re.IGNORECASE)
    return " ".join(plain.split()) or text, _PAINT[own[0]]

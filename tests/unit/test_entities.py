"""Names in texts: from a list, from the packages, by a model."""

import pytest

from tasks.core.errors import UserError
from tasks.entities.config import EntitiesConfig
from tasks.entities.find import check, content, load_finder
from tasks.entities.gazetteer import Gazetteer


def found(gazetteer: Gazetteer, text: str) -> list[str]:
    return [text[begin:end] for begin, end in gazetteer.find([text])[0]]


def test_the_longest_name_that_begins_at_a_word_is_found():
    gazetteer = Gazetteer(["New York", "New York City", "York", "東京", "..."])
    assert found(gazetteer, "Not New\nYork, but New York City.") == [
        "New\nYork",
        "York",
        "New York City",
        "York",
    ]
    assert found(gazetteer, "東京タワー") == ["東京"]
    assert gazetteer.find(["", "Yorkshire"]) == [[], []]


def test_a_name_at_the_end_of_a_text_is_not_taken_for_a_longer_one():
    assert found(Gazetteer(["Bay", "Bay City"]), "the Bay") == ["Bay"]


def test_case_and_the_form_of_accents():
    assert found(Gazetteer(["Nice"]), "a nice day in Nice") == ["Nice"]
    assert found(Gazetteer(["Nice"], ignore_case=True), "NICE") == ["NICE"]
    assert found(Gazetteer(["Bogotá"]), "in Bogota\u0301 today") == ["Bogota\u0301"]


def test_a_gazetteer_of_100_000_names_finds_each():
    names = [f"Town {number} of the Lake" for number in range(100_000)]
    gazetteer = Gazetteer(names)
    text = "From Town 99999 of the Lake to Town 7 of the Lake, not to Town 7 of the Hill."
    assert found(gazetteer, text) == ["Town 99999 of the Lake", "Town 7 of the Lake"]


def test_names_come_from_the_packages_and_from_files(tmp_path):
    (tmp_path / "names.txt").write_text("Merrowick\n\nVaskel Bay\n", encoding="utf-8")
    config = EntitiesConfig(by="gazetteer", names=f"geonames, pycountry, {tmp_path}/names.txt")
    texts = ["Ouagadougou is the capital of Burkina Faso", "Merrowick pays in Zloty", "Vaskel Bay"]
    places = load_finder(config).find(texts)
    named = [[text[begin:end] for begin, end in spans] for text, spans in zip(texts, places, strict=True)]
    assert {"Ouagadougou", "Burkina Faso"} <= set(named[0])
    assert named[1] == ["Merrowick", "Zloty"]
    assert "Vaskel Bay" in named[2]


def test_the_cache_key_changes_with_the_names_of_a_file(tmp_path):
    config = EntitiesConfig(by="gazetteer", names=f"{tmp_path}/names.txt")
    (tmp_path / "names.txt").write_text("A\nB\n")
    first = content(config)
    (tmp_path / "names.txt").write_text("B\nA\n")
    assert content(config) == first
    (tmp_path / "names.txt").write_text("B\nC\n")
    assert content(config) != first


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"by": "gazetteer", "names": "no-such-file.txt"}, "entities.names", "does not exist"),
        ({"by": "gazetteer", "names": " , "}, "entities.names", "no name"),
        ({"by": "token_classification"}, "entities.model", "needs a model"),
        ({"by": "token_classification", "model": "./nowhere"}, "entities.model", "no model of transformers"),
    ],
)
def test_what_cannot_be_had_is_said_before_any_row_is_read(settings, field, words):
    with pytest.raises(UserError, match=words) as error:
        check(EntitiesConfig(**settings))
    assert error.value.field == field


def test_a_language_model_is_no_token_classification_model(tiny_model):
    with pytest.raises(UserError, match="LlamaForCausalLM"):
        check(EntitiesConfig(by="token_classification", model=str(tiny_model)))


def test_spacy_finds_entities_or_is_named_as_missing(tmp_path):
    config = EntitiesConfig(by="spacy", model=str(tmp_path / "pipeline"))
    try:
        import spacy
    except ModuleNotFoundError:
        with pytest.raises(UserError, match="spaCy is not installed"):
            check(config)
        return
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": "Vaskel Bay"}])
    pipeline.to_disk(tmp_path / "pipeline")
    check(config)
    assert load_finder(config).find(["in Vaskel Bay", ""]) == [[(3, 13)], []]


def test_a_token_classification_model_finds_entities_also_beyond_its_context(tmp_path):
    from tests.unit.tiny_tagger import build_tagger

    config = EntitiesConfig(by="token_classification", model=str(build_tagger(tmp_path)))
    check(config)
    text = f"Vaskel {'is far from here and ' * 40}Merrowick"
    (short, long, empty) = load_finder(config).find(["to Vaskel", text, " "])
    assert (short, empty) == ([(3, 9)], [])
    assert long == [(0, 6), (len(text) - 9, len(text))]

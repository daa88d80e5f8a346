"""What new instructions cover: clusters, likeness, the map's places, and the language they are in."""

import math
from pathlib import Path

import numpy as np
import pytest

from tasks import base_model
from tasks.base_model import ENCODER, ModelConfig
from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import make_example, read_records, write_rows
from tasks.core.references import ModelRef
from tasks.instruct.coverage import cluster, effective_number, nearest_cosine, positions
from tasks.instruct.embedding import embed
from tasks.instruct.language import check_languages, foreign
from tasks.instruct.mapping import MapConfig, MapInputs, run

COOKING = [f"How long do I bake a {cake} cake in the oven?" for cake in ("lemon", "carrot", "cheese", "plum")]
CODING = [
    f"Write a Python function that sorts a list of {what}." for what in ("words", "numbers", "dates", "files")
]
TRAVEL = [f"Plan three days of sightseeing in {city}." for city in ("Lisbon", "Rome", "Oslo", "Kyoto")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    config = ModelConfig(model=ENCODER)
    out = tmp_path_factory.mktemp("encoder")
    files = base_model.locate(config, "encoder.model")
    return base_model.run(config, files, out, lambda event: None).model


def unit(*angles):
    return np.array([[math.cos(angle), math.sin(angle)] for angle in angles], np.float32)


def test_vectors_are_those_of_every_text_alone_and_have_length_one(encoder):

    texts = [*COOKING, "x", "word " * 400]
    seen = []
    together = embed(Path(encoder.uri), texts, batch_size=4, progress=lambda *done: seen.append(done))
    alone = np.concatenate([embed(Path(encoder.uri), [text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert seen == [(4, 6), (6, 6)]


def test_like_texts_are_one_cluster_and_its_name_is_the_one_in_the_middle():
    vectors = unit(*([0.0, 0.1, 0.2] * 4), *([2.0, 2.1, 2.2] * 4))
    found = cluster(vectors, seed=0, most=2)
    assert len(set(found.labels[:12])) == len(set(found.labels[12:])) == 1
    assert found.labels[0] != found.labels[12]
    assert {place % 3 for place in found.nearest} == {1}


def test_no_cluster_is_empty_where_texts_repeat():
    """As instructions do that stand before many inputs."""
    vectors = unit(*[0.0] * 60, 1.0, 2.0)
    found = cluster(vectors, seed=0)
    assert len(found.nearest) == len(set(found.labels)) == 3
    assert all(found.labels[place] == number for number, place in enumerate(found.nearest))


def test_the_nearest_other_is_never_the_row_itself():
    rows = unit(0.0, 0.3, 2.0)
    assert nearest_cosine(rows, rows, same=True) == pytest.approx(
        [math.cos(0.3), math.cos(0.3), math.cos(1.7)], abs=1e-6
    )
    assert nearest_cosine(rows, unit(0.1)) == pytest.approx(
        [math.cos(0.1), math.cos(0.2), math.cos(1.9)], abs=1e-6
    )
    assert nearest_cosine(rows[:1], rows[:1], same=True) == pytest.approx([-1])
    assert nearest_cosine(rows, rows[:0]) == pytest.approx([-1, -1, -1])


def test_the_effective_number_is_that_of_equal_shares():
    assert effective_number([0, 1, 2, 3]) == pytest.approx(4)
    assert effective_number([5] * 9) == pytest.approx(1)
    assert effective_number([0, 0, 0, 1]) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert effective_number([]) == 0


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_every_text_has_a_place_and_a_seed_the_same_one(count):
    vectors = unit(*np.linspace(0, 3, count))
    places = positions(vectors, 0)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert (places == positions(vectors, 0)).all()


def test_a_map_tells_ground_that_the_seeds_do_not_touch(tmp_path, encoder):
    seeds = [make_example(text, "ok") for text in (*COOKING, *CODING) for _ in range(2)]
    rows = [
        make_example(text, "ok", origin="synthetic", facts={"operation": operation})
        for texts, operation in ((TRAVEL, "evol/breadth"), (COOKING[:2], "paraphrase"))
        for text in texts
        for _ in range(2)
    ]
    inputs = MapInputs(
        encoder=ModelRef(uri=encoder.uri, digest=folder_digest(Path(encoder.uri))),
        seeds=write_rows(tmp_path / "seeds.jsonl", seeds),
        rows=write_rows(tmp_path / "rows.jsonl", rows),
    )
    found = run(MapConfig(clusters=3), inputs, tmp_path, lambda event: None)
    assert (found.clusters, found.without_seed, found.seeds_reached, sum(found.sizes)) == (3, 1, 1, 28)
    by_group = {one.group: one for one in found.groups}
    assert list(by_group) == ["seeds", "evol/breadth", "paraphrase"]
    assert (by_group["evol/breadth"].clusters, by_group["paraphrase"].to_seed) == (1, pytest.approx(1))
    assert by_group["evol/breadth"].to_seed < 0.6
    points = list(read_records(found.points))
    assert [point["group"] for point in points].count("evol/breadth") == 8
    assert found.metrics()["instruct/clusters_without_seed"] == 1


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Schreibe ein Gedicht über den Regen im November.", "de"),
        ("写一首关于雨的诗", "zh"),
        ("Translate “guten Morgen, wie geht es dir heute?” into English.", None),
        ("Name a bird.", None),
        ("Compute 12*7", None),
        ("'Wie geht es dir?'", None),
        ("12 + 7", None),
    ],
)
def test_another_language_is_told_unless_it_is_quoted_or_unclear(text, language):
    assert foreign(text, ["en"]) == language
    if language:
        assert foreign(text, ["en", language]) is None


def test_an_unknown_language_is_refused_with_those_that_are_known():
    check_languages(["en", "de"], "writing.languages")
    with pytest.raises(UserError, match="'xx'") as refused:
        check_languages(["en", "xx"], "writing.languages")
    assert " de " in str(refused.value.mend)

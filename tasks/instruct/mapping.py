"""Stage: a map of the instructions, seeds and new ones: clusters of their meaning, and what every operation covers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.core.store import fetch
from tasks.instruct.coverage import MOST_CLUSTERS, cluster, effective_number, nearest_cosine, positions
from tasks.instruct.embedding import Vectors, embed
from tasks.report.choice import choose

SEEDS = "seeds"


class MapConfig(Config):
    """The map of the instructions that the report shows."""

    on: bool = True
    """Embed seeds and new rows, and report what they cover."""
    most_rows: int = Field(2000, ge=2, le=20_000)
    """Texts on the map; of more a random choice. The embedding's time grows with it, the drawing's faster."""
    clusters: int = Field(MOST_CLUSTERS, ge=1, le=500)
    """Most clusters; there is about one for every eight texts."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides the choice, the clusters and the places."""


class MapInputs(BaseModel):
    """What embeds, and what is embedded."""

    encoder: ModelRef
    seeds: DatasetRef
    rows: DatasetRef


class Covered(BaseModel):
    """What a group of rows covers: the seeds, or the rows of one operation."""

    group: str
    rows: int
    clusters: int
    """Clusters that one of them is in."""
    even_clusters: float
    """As many clusters of equal size would be as evenly filled."""
    to_seed: float
    """Mean cosine to the nearest seed: near 1 is copying."""
    to_own: float
    """Mean cosine to the nearest other one of the group: near 1 is repeating; -1 where it is the only one."""


class MapResult(BaseModel):
    """Places and clusters of the texts (`points`: group, text, x, y, cluster), and what every group covers."""

    points: DatasetRef
    groups: list[Covered]
    clusters: int
    without_seed: int
    """Clusters of new rows alone: ground that the seeds do not touch."""
    seeds_reached: int
    """Clusters with a seed that have a new row."""
    names: list[str]
    """Of every cluster the text nearest to its centre."""
    sizes: list[int]

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        new = [one for one in self.groups if one.group != SEEDS]
        rows = max(1, sum(one.rows for one in new))
        return {
            "instruct/clusters": float(self.clusters),
            "instruct/clusters_without_seed": float(self.without_seed),
            "instruct/to_seed": sum(one.to_seed * one.rows for one in new) / rows,
        }


def run(config: MapConfig, inputs: MapInputs, out: Path, report: Report) -> MapResult:
    """Embed, cluster and place the texts."""
    rows = choose([*read_examples(inputs.seeds), *read_examples(inputs.rows)], config.most_rows, config.seed)
    groups = np.array([_group(row) for row in rows])
    texts = [row.input for row in rows]
    vectors = embed(
        fetch(inputs.encoder),
        texts,
        progress=lambda done, total: report({"progress": [done, total], "text": "texts embedded"}),
    )
    found = cluster(vectors, config.seed, config.clusters)
    labels, places = found.labels, positions(vectors, config.seed)
    seeded = {int(label) for label in labels[groups == SEEDS]}
    new = {int(label) for label in labels[groups != SEEDS]}
    points = (
        {"group": group, "text": text, "x": float(x), "y": float(y), "cluster": int(label)}
        for group, text, (x, y), label in zip(groups.tolist(), texts, places, labels, strict=True)
    )
    return MapResult(
        points=write_rows(out / "points.jsonl", points),
        groups=_covered(groups, vectors, labels),
        clusters=len(found.nearest),
        without_seed=len(new - seeded),
        seeds_reached=len(new & seeded),
        names=[texts[place] for place in found.nearest],
        sizes=np.bincount(labels, minlength=len(found.nearest)).tolist(),
    )


def _group(row: Example) -> str:
    return str(row.facts.get("operation", SEEDS)) if row.origin == "synthetic" else SEEDS


def _covered(groups: "NDArray[np.str_]", vectors: Vectors, labels: "NDArray[np.int64]") -> list[Covered]:
    """The seeds first, the operations in the order of their names."""
    names: Sequence[str] = sorted({str(group) for group in groups} - {SEEDS})
    seeds = vectors[groups == SEEDS]
    found = []
    for name in [SEEDS, *names]:
        own = groups == name
        if not own.any():
            continue
        near_seeds = nearest_cosine(vectors[own], seeds, same=name == SEEDS)
        found.append(
            Covered(
                group=name,
                rows=int(own.sum()),
                clusters=len(set(labels[own].tolist())),
                even_clusters=effective_number(labels[own]),
                to_seed=float(near_seeds.mean()),
                to_own=float(nearest_cosine(vectors[own], vectors[own], same=True).mean()),
            )
        )
    return found


STAGE = Stage("instruct_map", run, MapConfig, MapInputs, MapResult, own_process=True)

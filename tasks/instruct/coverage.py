"""How much of the field the new rows cover: clusters of seeds and rows together, and how near rows are to seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.instruct.embedding import Vectors

_AT_ONCE = 2000  # rows that are compared with all others together
MOST_CLUSTERS = 50


@dataclass(frozen=True)
class Clusters:
    """Which cluster every text is in, and of every cluster the place of the text nearest to its centre."""

    labels: NDArray[np.int64]
    nearest: list[int]


def cluster(vectors: Vectors, seed: int, most: int = MOST_CLUSTERS) -> Clusters:
    """k-means with about a cluster for every eight texts, `most` at the most; none is empty."""
    from sklearn.cluster import KMeans

    # No more than there are different texts: an instruction may stand before many inputs.
    count = min(most, max(1, len(vectors) // 8), len(np.unique(vectors, axis=0)))
    fitted = KMeans(count, n_init=4, random_state=seed).fit(vectors)
    taken, labels = np.unique(fitted.labels_, return_inverse=True)
    nearest = list[int]()
    for number, place in enumerate(taken):
        places = np.flatnonzero(labels == number)
        distances = ((vectors[places] - fitted.cluster_centers_[place]) ** 2).sum(1)
        nearest.append(int(places[distances.argmin()]))
    return Clusters(labels=labels.astype(np.int64), nearest=nearest)


def nearest_cosine(rows: Vectors, others: Vectors, *, same: bool = False) -> NDArray[np.float32]:
    """Of every row the cosine to the nearest of `others`; with `same` these are the rows themselves, and a row does
    not count as its own neighbour. Without others it is -1."""
    found = np.full(len(rows), -1.0, np.float32)
    if not len(others) or (same and len(rows) < 2):
        return found
    for start in range(0, len(rows), _AT_ONCE):
        products = rows[start : start + _AT_ONCE] @ others.T
        if same:
            places = np.arange(len(products))
            products[places, start + places] = -1.0
        found[start : start + _AT_ONCE] = products.max(1)
    return found


def effective_number(labels: Sequence[int] | NDArray[np.int64]) -> float:
    """In how many clusters of equal size the texts would be as evenly spread: the exponential of the entropy."""
    if not len(labels):
        return 0.0
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def positions(vectors: Vectors, seed: int) -> NDArray[np.float64]:
    """Two coordinates for every text (t-SNE from the principal components; these alone for very few texts)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) < 3:
        return np.zeros((len(vectors), 2)) + np.arange(len(vectors))[:, None]
    if len(vectors) < 10:
        return np.asarray(PCA(2, random_state=seed).fit_transform(vectors))
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return np.asarray(
        TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors), float
    )

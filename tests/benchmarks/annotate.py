"""Labelling what a teacher kept: words per second, and how time grows with the number of words.

    python -m tests.benchmarks.annotate

10,000 chunks of 20 to 400 words drawn from a vocabulary as skewed as a language's (Zipf, seed 20240319), each with what
a teacher left of it: a third to two thirds of its words, of which one in fifty is changed and one in fifty stands in
another place. Then growing numbers of such chunks, and single texts of growing length. Seconds are the processor's, of
one thread, for dividing both texts into words and aligning them.
"""

import json
import math
import random
import time

from tasks.compress.annotating import align, word_key
from tasks.core.compression.words import split_words

SEED, WINDOW, CHUNKS = 20240319, 150, 10_000
GROWTH, LENGTHS = (1_000, 3_000, 10_000), (2_000, 20_000, 200_000)
TARGET = 1.1
SYLLABLES = ("ba", "co", "du", "fe", "gi", "ha", "jo", "ka", "lu", "mi", "no", "pa", "ri", "so", "ta")


def vocabulary() -> list[str]:
    """20,000 different words."""
    draw = random.Random(SEED)
    return sorted({"".join(draw.choices(SYLLABLES, k=draw.randint(1, 5))) for _ in range(20_000)})


def pair(words: list[str], length: int, draw: random.Random) -> tuple[str, str]:
    """A text, and what a teacher left of it."""
    text = [words[int(len(words) ** draw.random()) - 1] for _ in range(length)]
    left = [word for word in text if draw.random() < draw.choice((0.33, 0.67))]
    for place in range(len(left)):
        if draw.random() < 0.02:
            left[place] = draw.choice(words) + "x"
        elif draw.random() < 0.02:
            other = min(len(left) - 1, place + 3)
            left[place], left[other] = left[other], left[place]
    return " ".join(text), " ".join(left)


def seconds(pairs: list[tuple[str, str]]) -> tuple[float, int, float]:
    """Processor seconds for all pairs, the words labelled as kept, and the mean alignment gap."""
    word_key.cache_clear()
    begun, kept, gaps = time.process_time(), 0, 0.0
    for original, compressed in pairs:
        found = align(split_words(original).texts, split_words(compressed).texts, WINDOW)
        kept += sum(found.kept)
        gaps += found.gap
    return time.process_time() - begun, kept, gaps / len(pairs)


def main() -> None:
    """Measure, print tables and the JSON line."""
    words, draw = vocabulary(), random.Random(SEED)
    draw.shuffle(words)
    pairs = [pair(words, draw.randint(20, 400), draw) for _ in range(CHUNKS)]
    counts = [len(original.split()) for original, _ in pairs]
    print(f"{'chunks':>9}{'words':>12}{'seconds':>9}{'words/s':>11}{'gap':>9}")
    taken: dict[int, float] = {}
    kept, gap = 0, 0.0
    for count in GROWTH:
        taken[count], kept, gap = seconds(pairs[:count])
        in_all = sum(counts[:count])
        print(
            f"{count:>9,}{in_all:>12,}{taken[count]:>9.2f}{in_all / taken[count]:>11,.0f}{gap:>9.4f}",
            flush=True,
        )
    single: dict[int, float] = {}
    for length in LENGTHS:
        single[length], _, wide = seconds([pair(words, length, draw)])
        print(
            f"{1:>9}{length:>12,}{single[length]:>9.3f}{length / single[length]:>11,.0f}{wide:>9.4f}",
            flush=True,
        )

    def exponent(of: dict[int, float], sizes: list[int]) -> float:
        first, last = min(of), max(of)
        return math.log(of[last] / of[first]) / math.log(sizes[-1] / sizes[0])

    by_chunks = exponent(taken, [sum(counts[:count]) for count in GROWTH])
    by_length = exponent(single, list(LENGTHS))
    print(
        f"seconds grow as words to the power {by_chunks:.2f} (more chunks), {by_length:.2f} (a longer text)"
    )
    figures = {
        "name": "annotate",
        "ratio": round(max(by_chunks, by_length), 3),
        "target": TARGET,
        "exponent_chunks": round(by_chunks, 3),
        "exponent_length": round(by_length, 3),
        "words_per_s": round(sum(counts) / taken[CHUNKS]),
        "chunks": CHUNKS,
        "words": sum(counts),
        "seconds": round(taken[CHUNKS], 2),
        "labelled": kept,
        "mean_gap": round(gap, 5),
        "seed": SEED,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""What compression is measured against keeps other words, as many of them."""

import numpy as np
import pytest

from tasks.compress.arms import as_arm
from tasks.core.compression.chunks import Chunk
from tasks.core.compression.compressor import Scored, select
from tasks.core.compression.config import CompressionConfig
from tasks.core.compression.words import split_words

TEXT = "Please play the song of a band and then, stop the music."


@pytest.fixture
def scored():
    words = split_words(TEXT)
    count = len(words)
    chunks = [Chunk(0, 6, 0, 6), Chunk(6, count, 6, count)]
    return Scored(words, chunks, np.linspace(0, 1, count), np.ones(count, dtype=np.int64))


def kept(scored, arm, rate, seed=0, number=0):
    return select(as_arm(scored, arm, seed, number), CompressionConfig(rate=rate)).text


def test_truncation_keeps_the_beginning(scored):
    assert kept(scored, "truncation", 0.5) == "Please play the song of a band"


def test_stop_words_and_marks_go_before_words_of_content(scored):
    assert kept(scored, "stop words", 0.43) == "Please play song band stop music"
    fewer = kept(scored, "stop words", 0.2).split()
    assert len(fewer) == 2
    assert set(fewer) < {"Please", "play", "song", "band", "stop", "music"}


def test_random_words_hang_on_seed_and_row_alone(scored):
    assert kept(scored, "random", 0.5) == kept(scored, "random", 0.5)
    drawn = {kept(scored, "random", 0.5, seed, number) for seed in range(3) for number in range(3)}
    assert len(drawn) > 5


@pytest.mark.parametrize("arm", ["compressor", "random", "stop words", "truncation"])
def test_every_arm_keeps_as_many_tokens(scored, arm):
    assert int(select(as_arm(scored, arm, 0, 0), CompressionConfig(rate=0.5)).kept_tokens) == 7


def test_whole_inputs_stay_as_they_are(scored):
    assert kept(scored, "whole", 1.0) == TEXT

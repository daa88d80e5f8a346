"""Preference pairs: the row a reward model is trained and tested on."""

import hashlib
import json
from collections.abc import Sequence
from typing import cast

from pydantic import BaseModel, ConfigDict

from tasks.core.examples import content_id, read_records
from tasks.core.generators.base import Message
from tasks.core.references import DatasetRef


class Preference(BaseModel):
    """Two answers to one conversation, of which `chosen` is the better one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    prompt: list[dict[str, str]]
    """Messages, each with `role` and `content`; the last one is the user's."""
    chosen: str
    rejected: str

    @property
    def conversation(self) -> list[Message]:
        """The prompt as messages."""
        return cast(list[Message], self.prompt)


def make_preference(prompt: Sequence[Message], chosen: str, rejected: str) -> Preference:
    """A pair with its content id."""
    messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
    pair_id = content_id(json.dumps(messages, ensure_ascii=False), chosen, [rejected])
    return Preference(id=pair_id, prompt=messages, chosen=chosen, rejected=rejected)


def read_preferences(ref: DatasetRef) -> list[Preference]:
    """The pairs behind a reference, its bytes checked against the digest first."""
    return [Preference.model_validate(record) for record in read_records(ref)]


def in_seeded_order(pairs: Sequence[Preference], seed: int) -> list[Preference]:
    """The pairs ordered by the hash of seed and id: the same for any order they come in."""
    return sorted(pairs, key=lambda pair: seeded(seed, pair.id))


def seeded(seed: int, text: str) -> bytes:
    """What an order that a seed and the content decide sorts by."""
    return hashlib.sha256(f"{seed} {text}".encode()).digest()

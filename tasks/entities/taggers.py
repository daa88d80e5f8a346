"""Names that a model finds: a token classification model of transformers, or a pipeline of spaCy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.entities.spans import Span

FIELD = "entities.model"


class TokenClassifier:
    """A token classification model of transformers. Texts longer than its context are read in overlapping pieces."""

    def __init__(self, model: str, *, least_score: float, batch_size: int) -> None:
        from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, pipeline

        tokenizer = AutoTokenizer.from_pretrained(model)
        longest = AutoConfig.from_pretrained(model).max_position_embeddings - 2
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
        self._pipeline: Any = pipeline(
            "token-classification",
            model=AutoModelForTokenClassification.from_pretrained(model),
            tokenizer=tokenizer,
            aggregation_strategy="simple",
            stride=tokenizer.model_max_length // 4,
        )
        self._least_score, self._batch_size = least_score, batch_size

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Of each text the places of all entities that the model is sure enough of."""
        given = [text for text in texts if text.strip()]
        found = iter(self._pipeline(given, batch_size=self._batch_size) if given else ())
        return [self._places(next(found)) if text.strip() else [] for text in texts]

    def _places(self, entities: list[dict[str, Any]]) -> list[Span]:
        sure = (entity for entity in entities if entity["score"] >= self._least_score)
        return [(int(entity["start"]), int(entity["end"])) for entity in sure]


class SpacyPipeline:
    """A pipeline of spaCy with a component that sets entities."""

    def __init__(self, model: str, *, batch_size: int) -> None:
        self._nlp, self._batch_size = _load_spacy(model), batch_size

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """Of each text the places of all entities."""
        documents = self._nlp.pipe(texts, batch_size=self._batch_size)
        return [[(entity.start_char, entity.end_char) for entity in one.ents] for one in documents]


def check_tagger(by: str, model: str) -> None:
    """Raise UserError when there is no such model, without loading one of transformers."""
    if not model:
        raise UserError(f"{by} needs a model", field=FIELD, mend="name one, for example dslim/bert-base-NER")
    if by == "spacy":
        _load_spacy(model)
        return
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model} is no model of transformers that can be had: {str(error).partition(chr(10))[0]}",
            field=FIELD,
            mend="check folder or hub id, and the network",
        ) from error
    if not any("TokenClassification" in name for name in found.architectures or ()):
        raise UserError(
            f"{model} is no token classification model ({', '.join(found.architectures or ['unknown'])})",
            field=FIELD,
            mend="take one that was trained to recognise named entities",
        )


def _load_spacy(model: str) -> Any:
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise UserError(
            "spaCy is not installed",
            field="entities.by",
            mend="pip install 'loopwright[spacy]', or choose gazetteer or token_classification",
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        known = "" if Path(model).exists() else f"python -m spacy download {model}, or give a folder"
        raise UserError(f"spaCy cannot load {model}", field=FIELD, mend=known) from error

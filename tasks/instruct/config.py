"""How many rows are written, by which strategies, within which budget, and which of them are kept."""

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.instruct.language import check_languages
from tasks.instruct.request import Strategy


class MixConfig(Config):
    """How much of the asking every strategy does, as weights; 0 leaves one out."""

    self_instruct: float = Field(1.0, ge=0.0)
    """New tasks from eight shown ones."""
    evol: float = Field(1.0, ge=0.0)
    """A row made harder in one of four ways, or another one of its field."""
    backtranslation: float = Field(0.0, ge=0.0)
    """The instruction for a text of `data.texts`, curated by the teacher's own marks."""
    paraphrase: float = Field(0.0, ge=0.0)
    """A row in other words."""

    def weights(self) -> dict[Strategy, float]:
        """The strategies that are asked, with their weights."""
        return {name: weight for name in MixConfig.model_fields if (weight := getattr(self, name))}  # type: ignore[misc]


class BudgetConfig(Config):
    """What may be spent on the teacher; 0 is no limit. Asking ends cleanly before it would be exceeded."""

    calls: int = Field(0, ge=0)
    """Requests."""
    tokens: int = Field(0, ge=0)
    """Tokens of prompts and answers."""
    money: float = Field(0.0, ge=0.0)
    """Money, by the two prices."""
    input_price: float = Field(0.0, ge=0.0)
    """For a million tokens of prompts."""
    output_price: float = Field(0.0, ge=0.0)
    """For a million tokens of answers."""


class WritingConfig(Config):
    """How instruction data are written."""

    rows: int = Field(200, ge=1, le=1_000_000)
    """New rows wanted."""
    mix: MixConfig = MixConfig()
    """Which strategies."""
    budget: BudgetConfig = BudgetConfig()
    """What may be spent."""
    per_round: int = Field(16, ge=1, le=10_000)
    """Requests of a round: what is kept in one is shown and evolved in the next, and is safe from a kill."""
    patience: int = Field(5, ge=1, le=1000)
    """Rounds in a row of which nothing is kept, after which the rest is reported as missing."""
    tasks_per_request: int = Field(4, ge=1, le=20)
    """Self-Instruct: new tasks asked for at once."""
    own_share: float = Field(0.25, ge=0.0, le=1.0)
    """Self-Instruct: the share of the shown tasks that the teacher wrote (published: 2 of 8)."""
    breadth_share: float = Field(0.2, ge=0.0, le=1.0)
    """Evol-Instruct: the share of evolutions in breadth; the others deepen (published: one operation of five)."""
    rouge: float = Field(0.7, gt=0.0, le=1.0)
    """Self-Instruct: reject above this ROUGE-L F1 with any seed or kept row (published: 0.7)."""
    near_duplicate: float = Field(0.95, gt=0.0, le=1.0)
    """The same for the other strategies, whose rows resemble their parent by intent."""
    contamination: float = Field(0.8, gt=0.0, le=1.0)
    """Reject above this ROUGE-L F1 with an instruction of `data.test`."""
    least_mark: int = Field(4, ge=1, le=5)
    """Backtranslation: the mark from which on a row is kept (published: 5, then 4 and 5)."""
    languages: tuple[str, ...] = ()
    """Reject instructions that are clearly in another language than these (codes such as "en"); empty takes any."""
    min_words: int = Field(3, ge=1)
    """Shortest instruction, in words (in scripts without spaces two letters count as one)."""
    max_words: int = Field(150, ge=1)
    """Longest instruction, in words (Self-Instruct itself drops those above 150)."""
    instruction_tokens: int = Field(200, ge=1, le=4096)
    """Longest answer to a request for an instruction, in tokens."""
    response_tokens: int = Field(400, ge=1, le=32768)
    """Longest response to an instruction, in tokens; one that is cut is not kept."""
    temperature: float = Field(0.7, ge=0.0, le=5.0)
    """Of requests for instructions (published for Self-Instruct: 0.7)."""
    response_temperature: float = Field(0.0, ge=0.0, le=5.0)
    """Of responses and marks."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling."""
    seed: int = Field(0, ge=0, le=2**31)
    """Decides strategies, parents, operations and what is sampled."""


def check(config: WritingConfig, has_texts: bool, field: str = "writing") -> None:
    """Raise UserError for settings with which nothing can be written."""
    if not config.mix.weights():
        raise UserError(
            "no strategy is left", field=f"{field}.mix", mend="give at least one of them a weight above 0"
        )
    if config.mix.backtranslation and not has_texts:
        raise UserError(
            "backtranslation needs texts",
            field="data.texts",
            mend=f"name a file of texts, or set {field}.mix.backtranslation to 0",
        )
    check_languages(config.languages, f"{field}.languages")
    if config.min_words > config.max_words:
        raise UserError(
            f"{config.min_words} words are more than {config.max_words}",
            field=f"{field}.min_words",
            mend="make it smaller, or max_words larger",
        )
    budget = config.budget
    if budget.money and not (budget.input_price or budget.output_price):
        raise UserError(
            "money is limited, but tokens have no price",
            field=f"{field}.budget.money",
            mend=f"give {field}.budget.input_price and output_price, or limit tokens",
        )

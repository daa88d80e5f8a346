"""The command line: defaults, then the YAML file, then flags; whatever does not fit is named with its mend."""

import json
import subprocess
import sys
from typing import Literal

import pytest
from pydantic import ConfigDict, Field

import flows.__main__ as program
from tasks.core.command_line import fail, field_names, read_config, validate
from tasks.core.config import Config
from tasks.core.errors import StageFailed, UserError


class AdapterConfig(Config):
    """The adapter."""

    rank: int = Field(16, ge=1)
    """Its rank."""


class TrainingConfig(Config):
    """The training."""

    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Peak learning rate."""
    method: Literal["lora", "full"] = "lora"
    """What is trained."""
    shuffle: bool = True
    """Whether rows are shuffled."""
    stops: tuple[str, ...] = ()
    """Texts that end an answer."""
    adapter: AdapterConfig = AdapterConfig()
    """The adapter."""


class MethodConfig(Config):
    """A method for tests."""

    iterations: int = Field(3, ge=1, le=100)
    """How often."""
    name: str = ""
    """Any text."""
    training: TrainingConfig = TrainingConfig()
    """How."""


def read(*arguments: str) -> MethodConfig:
    return read_config(MethodConfig, "python -m flows method", arguments)


def changed(**changes) -> MethodConfig:
    return MethodConfig.model_validate(changes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], changed()),
        (["--iterations=5"], changed(iterations=5)),
        (["--iterations", "5"], changed(iterations=5)),
        (["--training.learning_rate=1e-3"], changed(training={"learning_rate": 1e-3})),
        (["--training.adapter.rank=4"], changed(training={"adapter": {"rank": 4}})),
        (["--training.method=full", "--name=a b"], changed(name="a b", training={"method": "full"})),
        (["--training.shuffle=false"], changed(training={"shuffle": False})),
        (['--training={"learning_rate": 0.5}'], changed(training={"learning_rate": 0.5})),
        (['--training.stops=["a", "b"]'], changed(training={"stops": ("a", "b")})),
        (["--name=--odd"], changed(name="--odd")),
        (["--name="], changed(name="")),
        (["--name=größe=5"], changed(name="größe=5")),
        (["--iterations=2", "--iterations=4"], changed(iterations=4)),
    ],
)
def test_flags_become_the_configuration(arguments, expected):
    assert read(*arguments) == expected


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_flags_have_the_last_word_over_the_file_field_by_field(tmp_path, form):
    path = tmp_path / "run.yaml"
    path.write_text("iterations: 7\ntraining:\n  learning_rate: 1e-3\n  adapter:\n    rank: 2\n")
    arguments = [part.format(path) for part in form]
    assert read(*arguments) == changed(iterations=7, training={"learning_rate": 1e-3, "adapter": {"rank": 2}})
    assert read("--training.learning_rate=0.5", *arguments, "--iterations=1") == changed(
        iterations=1, training={"learning_rate": 0.5, "adapter": {"rank": 2}}
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--iteration=3"], ["unknown flag --iteration", "--iterations"]),
        (["--training.learningrate=1"], ["--training.learningrate", "did you mean --training.learning_rate"]),
        (["--zzz=1"], ["unknown flag --zzz", "--help"]),
        (["--iterations=0"], ["iterations", "greater than or equal to 1", "given: '0'"]),
        (["--iterations=many"], ["iterations", "valid integer", "'many'"]),
        (["--training.learning_rate=nan"], ["training.learning_rate"]),
        (["--training.method=loar"], ["training.method", "lora"]),
        (["--iterations=0", "--training.method=x"], ["iterations:", "training.method:"]),
        (["5"], ["5", "--help"]),
        (["--config"], ["--config needs a file"]),
        (["--config="], ["--config needs a file"]),
        (["--training=fast"], ["training", "--training.epochs=2"]),
        (["--training={"], ["training", "JSON"]),
        (["--iterations"], ["iterations"]),
    ],
)
def test_a_wrong_flag_is_named_with_its_mend(arguments, parts):
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"iteration: 3", ["iteration:", "no such field", "did you mean iterations?"]),
        (b"training:\n  adaptr: {}", ["training.adaptr", "training.adapter"]),
        (b"iterations: 0", ["iterations", "given: 0"]),
        (b"training: fast", ["training", "TrainingConfig"]),
        (b"1: 2", ["1"]),
        (b"", ["holds no fields"]),
        (b"- a\n- b", ["holds no fields"]),
        (b"just text", ["holds no fields"]),
        (b"a: [1", ["cannot be read", "line"]),
        (b"a: 2020-13-45", ["cannot be read", "month"]),
        (b"a: 1\n\tb: 2", ["cannot be read"]),
        (b"name: \xff\xfe", ["cannot be read", "utf-8"]),
        (b"name: !!python/object/apply:os.getcwd []", ["cannot be read", "python/object"]),
    ],
)
def test_a_wrong_file_is_named_with_its_mend(tmp_path, content, parts):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(f"--config={path}")
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "demo.yaml").write_text("iterations: 1")
    with pytest.raises(UserError, match="there is no file") as caught:
        read(f"--config={tmp_path}/dmo.yaml")
    assert "demo.yaml" in caught.value.mend


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(f"--config={tmp_path}")


def test_all_faults_are_told_at_once():
    with pytest.raises(UserError) as caught:
        validate(MethodConfig, {"iterations": 0, "nam": "x", "training": {"shuffle": "perhaps"}})
    text = str(caught.value)
    assert ("iterations" in text, "did you mean name" in text, "training.shuffle" in text) == (
        True,
        True,
        True,
    )


def test_help_names_every_field_with_its_description(capsys):
    with pytest.raises(SystemExit) as caught:
        read("--help")
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert [name for name in field_names(MethodConfig) if f"--{name}" not in printed] == []
    assert "Peak learning rate." in printed


def test_field_names_are_those_of_nested_models_too():
    assert list(field_names(TrainingConfig)) == [
        "learning_rate",
        "method",
        "shuffle",
        "stops",
        "adapter",
        "adapter.rank",
    ]


def test_environment_variables_are_no_configuration(monkeypatch):
    monkeypatch.setenv("ITERATIONS", "9")
    monkeypatch.setenv("NAME", "someone")
    assert read() == changed()


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("wrong", mend="mend it"), 2), (StageFailed("sft", "died"), 1)]
)
def test_an_error_is_one_message_and_an_exit_code(capsys, error, code):
    assert fail(error) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"\n{error}\n")


def _modules_after(*arguments: str) -> tuple[str, list[str]]:
    """What a command of the program prints, and the modules that are loaded when it ends."""
    program = (
        "import sys, json, flows.__main__ as program\n"
        "try: code = program.main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0
    return ran.stdout, modules


def test_the_flows_are_listed_a_line_each_without_loading_any():
    printed, modules = _modules_after()
    assert [line for line in printed.splitlines() if line.startswith("llm2llm ") and "2403.15042" in line]
    assert {"torch", "transformers", "prefect", "mlflow"}.isdisjoint(modules)


def test_help_of_a_flow_loads_no_model_library():
    printed, modules = _modules_after("llm2llm", "--help")
    assert "--training.adapter.rank" in printed
    assert {"torch", "transformers", "trl", "vllm", "datasets", "mlflow", "pandas"}.isdisjoint(modules)


class EndpointConfig(Config):
    """A service."""

    key_env: str = Field("", pattern=r"^[A-Z_]*$")
    """Name of the environment variable that holds its key."""


def test_a_key_given_in_place_of_its_variable_is_not_repeated():
    with pytest.raises(UserError, match="key_env") as caught:
        validate(EndpointConfig, {"key_env": "sk-secret"})
    assert "secret" not in str(caught.value)


def test_what_a_model_keeps_out_of_messages_is_not_repeated():
    class Endpoint(Config):
        """A service."""

        model_config = ConfigDict(hide_input_in_errors=True)
        url: str = Field("", pattern="^https?://")

    class Teacher(Config):
        """Has one."""

        endpoint: Endpoint = Endpoint()
        name: str = Field("", max_length=3)

    with pytest.raises(UserError, match=r"endpoint\.url") as caught:
        validate(Teacher, {"endpoint": {"url": "sk-secret"}, "name": "Socrates"})
    assert "secret" not in str(caught.value)
    assert "(given: 'Socrates')" in str(caught.value)


def test_commands_that_are_no_flows_are_listed_after_them_and_each_exists(capsys):
    assert program.main([]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*program.flow_names(), *program.COMMANDS]
    for name in program.COMMANDS:
        try:
            code = program.main([name, "--help"])
        except SystemExit as end:  # so does the library that reads a configuration from flags
            code = int(end.code or 0)
        assert code == 0
        assert f"python -m flows {name}" in capsys.readouterr().out

"""What Prefect's page makes a form of: the schema of a flow's parameters, in the order a person fills it in.

Only deployments see this schema. The models themselves stay as they are: a stage's cache key counts their code.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from tasks.core.config import Config
from tasks.core.flow_run import FlowConfig

_UNITS = {"s": "(seconds)"}
_NAMES = {
    "url": "URL",
    "uri": "address",
    "env": "environment variable",
    "kl": "KL",
    "eos": "EOS",
    "sft": "SFT",
    "ppo": "PPO",
}

Schema = dict[str, Any]


def form_schema(flow: Any, fill_in: Iterable[str] = ()) -> Schema:
    """The flow's parameter schema with positions and titles; `fill_in` names fields ("data.train") without which no
    run can begin: they come first, are required, and may not be empty.

    Raises KeyError for a field in `fill_in` that there is not.
    """
    from prefect.utilities.callables import parameter_schema

    schema: Schema = deepcopy(parameter_schema(flow).model_dump())
    definitions: dict[str, Schema] = schema["definitions"]
    for name, definition in definitions.items():
        if "properties" in definition:
            definitions[name] = _titled(_ordered(definition, _shared_by_all(config_of(flow), name)))
    for path in fill_in:
        _require(schema, definitions, ["config", *path.split(".")])
    schema["required"] = ["config"]
    _place(schema)
    for definition in definitions.values():
        _place(definition)
    return schema


def whole_parameters(flow: Any, parameters: dict[str, Any], fill_in: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters with every default written out, but for what is to be filled in.

    A form fills what is missing with the defaults of a part's own class, which a flow may have others for.
    """
    whole = config_of(flow).model_validate(parameters.get("config", {})).model_dump(mode="json")
    for path in fill_in:
        *parents, name = path.split(".")
        part = whole
        for parent in parents:
            part = part[parent]
        if not part[name]:
            del part[name]
    return {"config": whole}


def config_of(flow: Any) -> type[Config]:
    """The configuration model that is the flow's parameter `config`."""
    import inspect

    model = inspect.signature(flow.fn, eval_str=True).parameters["config"].annotation
    assert issubclass(model, Config), f"{flow.name} takes no configuration"
    return model


def _shared_by_all(model: type[Config], definition: str) -> set[str]:
    """The fields that every flow has, if `definition` is the flow's own: where and how a run is kept comes last."""
    return set(FlowConfig.model_fields) if definition == model.__name__ else set()


def _ordered(definition: Schema, last: set[str]) -> Schema:
    names = sorted(definition["properties"], key=lambda name: name in last)
    return definition | {"properties": {name: definition["properties"][name] for name in names}}


def _titled(definition: Schema) -> Schema:
    properties = {name: entry | {"title": title(name)} for name, entry in definition["properties"].items()}
    paragraph = definition.get("description", "").split("\n\n")[0]
    return definition | {"properties": properties, "description": " ".join(paragraph.split())}


def title(name: str) -> str:
    """A field's name as a person reads it: `timeout_s` is "Timeout (seconds)"."""
    words = [_NAMES.get(word, word) for word in name.split("_")]
    if len(words) > 1:
        words[-1] = _UNITS.get(words[-1], words[-1])
    text = " ".join(words)
    return text[0].upper() + text[1:]


def _require(schema: Schema, definitions: dict[str, Schema], path: list[str]) -> None:
    """Make the field at `path` required, in definitions of its own: elsewhere the same part may stay optional."""
    name, rest = path[0], path[1:]
    entry = schema["properties"][name]
    schema["required"] = [*(one for one in schema.get("required", []) if one != name), name]
    if not rest:
        schema["properties"][name] = {key: value for key, value in entry.items() if key != "default"} | {
            "minLength": 1
        }
        return
    old, ending = _referred(entry), f"_{name}_to_fill_in"
    new = old if old.endswith(ending) else old + ending
    definitions[new] = definitions.get(new) or deepcopy(definitions[old])
    _refer(entry, new)
    entry.pop("default", None)  # it lacks what is to be filled in
    _require(definitions[new], definitions, rest)


def _referred(entry: Schema) -> str:
    reference = entry["$ref"] if "$ref" in entry else entry["allOf"][0]["$ref"]
    return str(reference).rpartition("/")[2]


def _refer(entry: Schema, name: str) -> None:
    holder = entry if "$ref" in entry else entry["allOf"][0]
    holder["$ref"] = f"#/definitions/{name}"


def _place(definition: Schema) -> None:
    """Number the fields in their order, those that are required first: JSON in a database may lose it."""
    required = definition.get("required", [])
    properties = definition.get("properties", {})
    names = sorted(properties, key=lambda name: name not in required)
    if "properties" in definition:
        definition["properties"] = {
            name: properties[name] | {"position": number} for number, name in enumerate(names)
        }

"""From a problem's name in the configuration to the object that does the work."""

import importlib
import inspect
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from tasks.core.errors import UserError
from tasks.core.user_code import user_code_digest
from tasks.problems.base import Problem, ProblemConfig

BUILT_IN = {
    "classification": "tasks.problems.classification:Classification",
    "numeric": "tasks.problems.numeric:Numeric",
    "multiple_choice": "tasks.problems.multiple_choice:MultipleChoice",
    "exact_match": "tasks.problems.exact_match:ExactMatch",
    "dialogue": "tasks.problems.dialogue:Dialogue",
    "gym": "tasks.problems.gym:Gym",
    "cloze": "tasks.problems.cloze:Cloze",
}
_FIELD = "data.problem"


def load_problem(config: ProblemConfig) -> Problem:
    """The problem a configuration names. Raises UserError if there is none of that name or it cannot be
    used.
    """
    return _problem_class(config.name)(config)


def problem_code(config: ProblemConfig) -> str:
    """SHA-256 of the source of a user's problem and of what it imports from beside it, for cache keys; empty for a
    built-in one."""
    if config.name in BUILT_IN:
        return ""
    _problem_class(config.name)
    module = config.name.partition(":")[0]
    return user_code_digest(module, Path(inspect.getsourcefile(sys.modules[module]) or ""))


def _problem_class(name: str) -> type[Problem]:
    module_name, colon, class_name = BUILT_IN.get(name, name).partition(":")
    if not colon:
        close = get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(
            f"there is no problem {name!r}",
            field=_FIELD,
            mend=f"{hint}built in are {', '.join(BUILT_IN)}; your own is named module:Class",
        )
    module = import_module(module_name, _FIELD)
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Problem)):
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, Problem)
        ]
        raise UserError(
            f"{class_name!r} in {module_name} is not a subclass of tasks.problems.base.Problem"
            if found is not None
            else f"the module {module_name} has no {class_name!r}",
            field=_FIELD,
            mend=f"problems there: {', '.join(own) or 'none'}",
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{name} is not complete", field=_FIELD, mend=f"write its missing methods: {missing}")
    return found


def import_module(name: str, field: str) -> ModuleType:
    """An installed module, or one of the user's in the current folder. Raises UserError, for the configuration field
    `field`, when it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file of the user's never hides an installed package
    importlib.invalidate_caches()  # the file may be newer than the process
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise UserError(
            f"the module {name!r} cannot be imported: {type(error).__name__}: {error}",
            field=field,
            mend=f"it must be installed, or lie in the current folder ({here})",
        ) from error

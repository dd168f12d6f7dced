# Asks one get_models_json.py for its models: python3 -I -B - TREE DIRECTORY, this file on stdin, then a call of main().
#
# The file imports `madengine.utils.discover_models.CustomModel`, which is made here, so that madengine need not be
# installed. The answer is one JSON object on the real standard output; whatever the file prints goes to stderr.

import dataclasses
import importlib.util
import json
import os
import sys
import traceback
import types

FILE = "get_models_json.py"


@dataclasses.dataclass
class CustomModel:
    name: str
    dockerfile: str = ""
    dockercontext: str = ""
    scripts: str = ""
    url: str = ""
    cred: str = ""
    owner: str = ""
    data: str = ""
    n_gpus: str = "-1"
    timeout: int = 7200
    training_precision: str = ""
    tags: list = dataclasses.field(default_factory=list)
    args: str = ""
    multiple_results: str = ""
    skip_gpu_arch: str = ""

    def update_model(self):
        """Completes the model once it is selected; subclasses override it."""

    def to_dict(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(CustomModel)}


class Refused(Exception):
    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


def install_shim():
    # Other modules of an installed madengine stay importable; the one with CustomModel is always this one.
    try:
        spec = importlib.util.find_spec("madengine")
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or []) if spec else []
    package, utils = types.ModuleType("madengine"), types.ModuleType("madengine.utils")
    models = types.ModuleType("madengine.utils.discover_models")
    package.__path__ = places
    utils.__path__ = [os.path.join(place, "utils") for place in places]
    package.utils, utils.discover_models, models.CustomModel = utils, models, CustomModel
    CustomModel.__module__ = models.__name__
    for module in (package, utils, models):
        sys.modules[module.__name__] = module


def load(path):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("get_models_json", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def list_models(module):
    function = getattr(module, "list_models", None)
    if not callable(function):
        raise Refused("there is no function `list_models`", "define `list_models()` that answers a list of `CustomModel`")
    answer = function()
    try:
        models = iter(answer)
    except TypeError:
        raise Refused(
            f"`list_models()` answered a `{type(answer).__name__}`, which is no list",
            "answer a list of `CustomModel`",
        ) from None
    models = list(models)
    for position, model in enumerate(models, 1):
        if not isinstance(model, CustomModel):
            raise Refused(
                f"entry {position} of `list_models()` is a `{type(model).__name__}`",
                "every entry must be a `madengine.utils.discover_models.CustomModel` or of a class derived from it",
            )
    return models


def describe(model):
    described = {}
    for field in dataclasses.fields(CustomModel):
        try:
            value = getattr(model, field.name)
        except AttributeError:
            raise Refused(
                f"a model of class `{type(model).__name__}` has no `{field.name}`",
                "call `super().__init__(name=…)` in its `__init__`",
            ) from None
        try:
            described[field.name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise Refused(
                f"`{field.name}` of a model of class `{type(model).__name__}` is a `{type(value).__name__}`, which JSON cannot hold",
                "use text, numbers, lists and dictionaries",
            ) from None
    return described


def find(listed, wanted):
    named = [entry for entry in listed if entry["model"]["name"] == wanted["name"]]
    if not named:
        raise Refused(f"`list_models()` does not list `{wanted['name']}` any more", "it must answer the same list every time")
    return next((entry for entry in named if entry["model"]["tags"] == wanted["tags"]), named[0])


def finalise(models, selected):
    # update_model() is called once for each model, however often it was selected.
    listed = [{"object": model, "model": describe(model)} for model in models]
    for wanted in selected:
        entry = find(listed, wanted)
        if "answer" not in entry:
            before = entry["model"]
            entry["object"].update_model()
            after = describe(entry["object"])
            kept = {key: before[key] for key in ("name", "tags")}
            changed = [key for key, value in kept.items() if after[key] != value]
            entry["answer"] = {"listed_args": before["args"], "changed": changed, "model": {**after, **kept}}
        yield entry["answer"]


def failure(error, path):
    if isinstance(error, Refused):
        return {"message": str(error), "hint": error.hint, "line": None}
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    message = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    return {"message": message, "hint": None, "line": lines[-1] if lines else None}


def main(request):
    request = json.loads(request)
    tree, directory = sys.argv[1:3]
    path = os.path.join(tree, directory, FILE)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        install_shim()
        models = list_models(load(path))
        if "selected" in request:
            answer = {"finalised": list(finalise(models, request["selected"]))}
        else:
            answer = {"listed": [describe(model) for model in models]}
    except BaseException as error:  # sys.exit() in the file is a failure of the file too
        if not isinstance(error, Refused):
            traceback.print_exception(type(error), error, error.__traceback__)
        answer = {"error": failure(error, path)}
    with answers:
        json.dump(answer, answers)

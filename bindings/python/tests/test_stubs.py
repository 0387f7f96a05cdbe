"""The type stubs have what the module has, with the same parameters."""

import ast
import inspect
import pathlib

import luksmith
from luksmith import _luksmith


def stubs():
    path = pathlib.Path(luksmith.__file__).with_name("_luksmith.pyi")
    return ast.parse(path.read_text())


def parameters_of(function):
    arguments = function.args
    positional = [one.arg for one in arguments.posonlyargs + arguments.args]
    named = [one.arg for one in arguments.kwonlyargs]
    return [name for name in positional if name != "self"], named, arguments.kwarg is not None


def parameters_at_run_time(function):
    kinds = inspect.Parameter
    found = inspect.signature(function).parameters.values()
    ordinary = (kinds.POSITIONAL_OR_KEYWORD, kinds.POSITIONAL_ONLY)
    positional = [one.name for one in found if one.kind in ordinary and one.name != "self"]
    named = [one.name for one in found if one.kind == kinds.KEYWORD_ONLY]
    return positional, named, any(one.kind == kinds.VAR_KEYWORD for one in found)


def test_the_functions_have_their_parameters():
    functions = {one.name: one for one in stubs().body if isinstance(one, ast.FunctionDef)}
    present = {name for name in vars(_luksmith) if callable(getattr(_luksmith, name))}
    classes = {one.name: one for one in stubs().body if isinstance(one, ast.ClassDef)}
    classes = {name: one for name, one in classes.items() if not name.startswith("_")}
    assert present == functions.keys() | classes.keys()
    for name, function in functions.items():
        assert parameters_of(function) == parameters_at_run_time(getattr(_luksmith, name)), name
        assert getattr(_luksmith, name).__doc__
    for name, stub in classes.items():
        built = getattr(_luksmith, name)
        stated = {one.name: one for one in stub.body if isinstance(one, ast.FunctionDef)}
        dunder = {"__enter__", "__exit__"}
        assert stated.keys() == {it for it in vars(built) if not it.startswith("__")} | dunder
        for method, function in stated.items():
            decorators = [one.id for one in function.decorator_list]
            member = getattr(built, method)
            if decorators == ["property"]:
                assert inspect.isdatadescriptor(member), method
            else:
                assert parameters_of(function) == parameters_at_run_time(member), method


def test_all_names_are_there_and_typed():
    assert all(hasattr(luksmith, name) for name in luksmith.__all__)
    assert pathlib.Path(luksmith.__file__).with_name("py.typed").exists()

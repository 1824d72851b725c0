"""Options of solvers: what makes no sense is refused, in the same words everywhere."""

import math
from dataclasses import fields

import pytest
from cases import SOLVERS

from emcore import solvers

OPTIONS = [(name, f.name) for name in SOLVERS for f in fields(solvers.get(name))]
NEVER = ("nonsense", b"em", math.nan, -1, -math.inf, 1j, [], (1,), {})
MEANT = {
    ("daarem", "order"): (None,),
    ("online", "share"): (None,),
    ("online", "averaging"): (True,),
    ("cg", "precondition"): (True,),
}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_values_of_a_wrong_type_are_refused_by_name(name, option):
    for wrong in (*NEVER, None, True):
        if wrong not in MEANT.get((name, option), ()):
            with pytest.raises(ValueError, match=f"^{name}: {option} must be .*, got "):
                type(solvers.get(name))(**{option: wrong})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gradient", {"step_size": 0}, "step_size"),
        ("gradient", {"step_size": -1.0}, "step_size"),
        ("gradient", {"step_size": math.inf}, "step_size"),
        ("gradient", {"step_size": math.nan}, "step_size"),
        ("gradient", {"step_size": "wolfe"}, "step_size must be 'armijo', 'bb' or a finite number > 0"),
        ("gradient", {"step_size": True}, "step_size"),
        ("gradient", {"step_size": None}, "step_size"),
        ("cg", {"beta": "fr"}, r"beta must be 'hz' or 'pr\+', got 'fr'"),
        ("cg", {"precondition": "no"}, "precondition"),
        ("cg", {"c2": 1.0}, "c2"),
        ("cg", {"c2": "small"}, "c2"),
        ("lbfgs", {"memory": 0}, "memory must be a whole number >= 1, got 0"),
        ("lbfgs", {"memory": 2.5}, "memory"),
        ("lbfgs", {"memory": True}, "memory"),
        ("squarem", {"scheme": "S4"}, "scheme must be 'S1', 'S2' or 'S3', got 'S4'"),
        ("squarem", {"slack": -1.0}, "slack must be a finite number >= 0, got -1.0"),
        ("anderson", {"memory": 0}, "memory must be a whole number >= 1, got 0"),
        ("anderson", {"ridge": 0.0}, "ridge must be a finite number > 0, got 0.0"),
        ("anderson", {"slack": math.inf}, "slack"),
        ("daarem", {"order": 1.5}, "order must be None or a whole number"),
        ("daarem", {"slack": "small"}, "slack"),
        ("zal", {"secants": True}, "secants must be a whole number >= 1, got True"),
        ("qn1", {"memory": -1}, "memory"),
        ("qn1", {"slack": None}, "slack"),
        ("qn2", {"memory": 2.0}, "memory"),
        ("incremental", {"n_blocks": 0}, "n_blocks must be a whole number >= 1, got 0"),
        ("incremental", {"n_blocks": 2.0}, "n_blocks"),
        ("incremental", {"n_blocks": True}, "n_blocks"),
        ("incremental", {"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ("online", {"exponent": 0.5}, "exponent must be a number above 0.5, at most 1, got 0.5"),
        ("online", {"exponent": None}, "exponent"),
        ("online", {"share": 0}, "share must be None or a number above 0, at most 1, got 0"),
        ("online", {"share": 1.1}, "share"),
        ("online", {"averaging": 1}, "averaging"),
        ("online", {"n_blocks": 0}, "n_blocks"),
        ("svrem", {"share": 0.0}, "share"),
        ("svrem", {"share": math.nan}, "share"),
        ("svrem", {"seed": 1.5}, "seed"),
        ("adam", {"lr": 0.0}, "lr must be a finite number > 0"),
        ("adam", {"lr": math.inf}, "lr"),
        ("adam", {"beta1": 1.0}, "beta1 must be a number from 0 to below 1"),
        ("adam", {"beta2": -0.1}, "beta2"),
        ("adam", {"schedule": "cosine"}, "schedule must be 'sqrt' or 'constant', got 'cosine'"),
        ("natural", {"step_size": 2.0}, "step_size must be 'adaptive' or a number between 0 and 2"),
        ("natural", {"step_size": "auto"}, "step_size"),
        ("first-order-em", {"step_size": 0.0}, "step_size must be 'auto' or a finite number > 0"),
        ("first-order-em", {"step_size": "bb"}, "step_size"),
        ("newton", {"whole": -1}, "whole must be"),
        ("newton", {"radius": 0.0}, "radius must be"),
        ("proximal", {"beta": 0.0}, "beta must be"),
        ("proximal", {"beta": "fast"}, "beta must be"),
        ("proximal", {"tol": 1.0}, "tol must be"),
        ("proximal", {"inner": 0}, "inner must be"),
        ("proximal", {"whole": 1.5}, "whole must be"),
        ("auto", {"rate": 1.0}, "rate must be a number between 0 and 1, got 1.0"),
        ("auto", {"rate": 0}, "rate must be"),
        ("sparse", {"threshold": 1.0}, "threshold must be a number between 0 and 1, got 1.0"),
        ("auto", {"patience": 0}, "patience must be a whole number >= 1, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, words):
    with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
        type(solvers.get(name))(**options)

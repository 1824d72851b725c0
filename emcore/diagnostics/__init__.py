"""What EM and the gradient have to do with each other, at a point.

Nothing here climbs, and no pass taken here counts as a solver's: `fisher` looks at Fisher's identity, `projection` at the EM
step as P times the gradient (Xu and Jordan 1996), `rate` at how fast EM converges, `condition` at the Hessian before and
after P; `relation` is all of them at one solution, with a verdict. `information` has what second derivatives say: standard
errors, and how much information is missing in which direction; `spectrum` the same for many parameters. `oakes` and `sem` find
them by differences: of the gradient, of EM's map, also of a map in plain Python.
"""

from emcore.diagnostics.condition import Condition, Prediction, condition
from emcore.diagnostics.fisher import Fisher, fisher
from emcore.diagnostics.information import Information, information, spectrum, standard_errors
from emcore.diagnostics.projection import BlockProjection, Projection, projection
from emcore.diagnostics.rate import Rate, rate
from emcore.diagnostics.relation import Relation, relation
from emcore.diagnostics.sem import SEM, oakes, sem

__all__ = [
    "SEM", "BlockProjection", "Condition", "Fisher", "Information", "Prediction", "Projection", "Rate", "Relation",
    "condition", "fisher", "information", "oakes", "projection", "rate", "relation", "sem", "spectrum", "standard_errors",
]  # fmt: skip

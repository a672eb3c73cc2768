"""What a run will cost on chips that are not here, by the compiler's own figures and the chips' published ones.

`jaxcnn plan` prints it; `plan_of(subject_of(config), place_named("v5e:2x4"))` is the same in Python. libtpu compiles
ahead of time for a described topology: `plan_step(config, (224, 224, 3), 1000, "v5e:2x4")` is one step alone.
"""

from jaxcnn.plan.compiling import DoesNotFit, StepFigures, compile_step, figures_of, plan_step
from jaxcnn.plan.planning import Plan, plan_of
from jaxcnn.plan.program import collective_bytes
from jaxcnn.plan.subject import Subject, subject_of, subject_of_run
from jaxcnn.plan.topology import place_named, topology_mesh

__all__ = [
    "DoesNotFit",
    "Plan",
    "StepFigures",
    "Subject",
    "collective_bytes",
    "compile_step",
    "figures_of",
    "place_named",
    "plan_of",
    "plan_step",
    "subject_of",
    "subject_of_run",
    "topology_mesh",
]

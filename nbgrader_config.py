"""nbgrader settings for teachers: put a copy of this file into your nbgrader course folder.

`solutions/NN_name.ipynb` is an nbgrader source notebook as it is. All that differs from nbgrader's usual
steps is how solutions are cleared: a value exercise becomes `name = ...`, not a top-level `raise`.
"""

from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearSolutions

from compresslab.course.clearing import ClearCourseSolutions

c = get_config()  # noqa: F821  (nbgrader provides it)

c.ExecutePreprocessor.timeout = 120
c.GenerateAssignment.preprocessors = [
    ClearCourseSolutions if step is ClearSolutions else step
    for step in GenerateAssignment.preprocessors.default()
]

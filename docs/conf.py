"""Sphinx's settings. The pages are written by `docs.pages` first: build with `make site`, or `python -m docs`."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
warnings.filterwarnings("ignore")  # of libraries, while they are imported for their docstrings

project = "compresslab"
author = "the compresslab authors"
copyright = "the compresslab authors, MIT licence"
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.mathjax",
    "sphinx-mathjax-offline", "docs.links",
]  # fmt: skip

html_theme = "furo"
html_title = "compresslab"
html_static_path = [str(Path(__file__).parent / "_static")]
html_css_files = ["course.css"]
html_js_files = ["tables.js"]
html_copy_source = False
html_show_sphinx = False

nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_dmath_double_inline = True
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]

default_role = "py:obj"
autodoc_default_options = {"exclude-members": "set_fit_request, set_predict_request, set_score_request, set_transform_request"}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 110
add_module_names = False
toc_object_entries_show_parents = "hide"

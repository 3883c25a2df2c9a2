"""Settings of the site: the theme, its fonts and its scripts come with the wheels, so that pages ask no network for anything."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the checkout that the pages are of, whatever is installed

import generate  # noqa: E402

generate.write(HERE / "_generated")

project, author, copyright = "eplb-gap", "the authors of eplb-gap", "the authors of eplb-gap, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "eplb-gap"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_copy_source = False
smartquotes = False  # quotes in types and defaults are code's
html_show_sphinx = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say them
numpydoc_show_class_members = False
add_module_names = False
suppress_warnings = ["myst.header"]  # published tables begin at the second level

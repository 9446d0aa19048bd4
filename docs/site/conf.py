"""The documents as a static site: `make site`. Sources are the repository's own Markdown files.

The source folder is the repository, so that a link leads to the same file here and on a forge.
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

project = "raysynth"
author = "the raysynth authors"
project_copyright = "the raysynth authors, Apache License 2.0"
release = version_of("raysynth")
root_doc = "docs/index"

include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/**/*.md",
    "benchmarks/README.md",
    "deploy/*.md",
    "deploy/**/*.md",
]
exclude_patterns = [".*", "build", "runs", "raysynth", "tests", "**/__pycache__"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "navigation",
    "words",
    "functions",
]
default_role = "code"  # of docstrings, which are written as Markdown
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages: no inventory without a network
show_warning_types = True

# Markdown as a forge shows it.
myst_enable_extensions = ["html_image", "tasklist"]
myst_heading_anchors = 6
myst_links_external_new_tab = False

autodoc_class_signature = "separated"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
napoleon_google_docstring = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "

html_theme = "pydata_sphinx_theme"
html_title = "raysynth"
html_static_path = ["static"]
html_css_files = ["site.css"]
templates_path = ["templates"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["pages.html"]}
html_theme_options = {
    "logo": {"text": "raysynth"},
    "navbar_center": [],
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    """Called by Sphinx: a page at the site's root leads to the first one."""
    app.connect("build-finished", lead_in)


def lead_in(app, error):
    """Write index.html."""
    if not error:
        line = '<meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        link = '<a href="docs/index.html">raysynth</a>\n'
        (Path(app.outdir) / "index.html").write_text(f"<!doctype html>\n{line}{link}")

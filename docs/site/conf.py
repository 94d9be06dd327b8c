"""How Sphinx builds the pages that build.py has gathered; no page loads anything from outside."""

project = "seqlm"
author = "seqlm contributors"
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "index"
exclude_patterns = ["docs/colab.ipynb"]  # a file to take along, no page
html_theme = "furo"
html_title = "seqlm"
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False  # a notebook's pictures are in its page already
html_show_search_summary = False  # it would fetch each page that it names: impossible from the disk
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

# Notebooks are read as the report left them. Their outputs are pictures, tables and text; for
# widgets, which there are none of, myst-nb would load scripts from a public host.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_render_markdown_format = "gfm"

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3
default_role = "code"  # docstrings write `name` for code
napoleon_use_ivar = True  # fields of dataclasses as one list
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"


def for_screen_readers(app, pagename, templatename, context, doctree) -> None:
    """Which pages are Chinese; and of which level the headings of the navigation are."""
    if pagename.endswith("zh-CN"):
        context["language"] = "zh-CN"
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def setup(app) -> None:
    app.connect("html-page-context", for_screen_readers, priority=900)  # after the theme's own

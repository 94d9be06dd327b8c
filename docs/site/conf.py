"""How Sphinx builds the pages that build.py has gathered; no page loads anything from outside."""

import re

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
html_search_language = "en_zh"  # see `setup`
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
    """The language of pages and links; the navigation, with the level of its headings."""
    language = context["language"] = "zh-CN" if "zh-CN" in pagename else "en"
    tree = context.get("furo_navigation_tree", "")
    tree = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    if language == "zh-CN":  # its own pages come first
        rest, caption, chinese = tree.rpartition('<p class="caption"')
        tree = caption + chinese + rest
    context["furo_navigation_tree"] = with_languages(tree, language)
    context["body"] = with_languages(context.get("body", ""), language)


def with_languages(page: str, language: str) -> str:
    """`page` with the language of every link whose words are in another one."""

    def mark(link: re.Match) -> str:
        words = re.sub("<[^>]*>", "", link[2])
        spoken = "zh-CN" if re.search("[\u4e00-\u9fff]", words) else "en"
        known = spoken == language or not re.search(r"[^\W\d_]{2}", words)
        return link[0] if known else f'<a lang="{spoken}" {link[1]}>{link[2]}</a>'

    return re.sub("<a ([^>]*)>(.*?)</a>", mark, page, flags=re.DOTALL)


# Chinese has no spaces: its words are found as all that stands in pairs of neighbouring characters.
SPLIT_QUERY = """
function splitQuery(query) {
  const words = query.match(/[\\u4e00-\\u9fff]+|(?:_|[^\\u4e00-\\u9fff\\s\\p{P}\\p{S}])+/gu) || [];
  const pairs = (word) => [...word.slice(1)].map((_, place) => word.slice(place, place + 2));
  const isLong = (word) => word.length > 2 && /[\\u4e00-\\u9fff]/.test(word);
  return words.flatMap((word) => (isLong(word) ? pairs(word) : [word]));
}
"""


def setup(app) -> None:
    from sphinx.search.en import SearchEnglish

    class SearchBoth(SearchEnglish):
        lang = html_search_language
        js_splitter_code = SPLIT_QUERY

        def split(self, text: str) -> list[str]:
            pieces = re.findall(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+", text)
            words = []
            for piece in pieces:
                is_chinese = "\u4e00" <= piece[0] <= "\u9fff"
                pairs = map("".join, zip(piece, piece[1:], strict=False))
                words += [*piece, *pairs] if is_chinese else [piece]
            return words

    app.add_search_language(SearchBoth)
    app.connect("html-page-context", for_screen_readers, priority=900)  # after the theme's own

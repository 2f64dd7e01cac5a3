"""The README of the benchmarks and its figures as a page of the site: a hook of `make docs`.

Pages link to it where it lies in the source tree, `../benchmarks/README.md`, so that the links work
there too.
"""

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "benchmarks"


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with the files of docs/."""
    from mkdocs.structure.files import File

    for path in (FOLDER / "README.md", *sorted(FOLDER.glob("*.png"))):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page: on the site, the benchmarks lie beside the other
    pages.
    """
    return (
        markdown
        if page.file.src_uri.startswith("benchmarks/")
        else markdown.replace("](../benchmarks/", "](benchmarks/")
    )

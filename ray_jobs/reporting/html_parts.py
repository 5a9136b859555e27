"""The pieces of an HTML page: escaped text, tables, figures, one style sheet. Knows nothing of runs.

Every text goes through `escape`: names and ids come from data and may hold anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --page: #f6f7f8; --card: #fff; --line: #d5dae0;
        --link: #0060a0; --good: #00704f; --bad: #b34700; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --soft: #9aa4af; --page: #14171a; --card: #1e2226; --line: #363c43; --link: #6cb6ee;
          --good: #45c49a; --bad: #f0964e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
h3 { margin: 0 0 .2rem; font-size: 1.05rem; } p { margin: .3rem 0; max-width: 75ch; } a { color: var(--link); }
.soft, figcaption { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.lead { font-size: 1.15rem; } .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
        padding: 1rem; overflow-x: auto; } .card + .card { margin-top: .8rem; } .figures .card { margin: 0; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; margin-top: .6rem; background: #fff;
         border-radius: 4px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 600; }
.number { text-align: right; } .rows td:first-child { white-space: nowrap; }
tr.total td { border-top: 1px solid var(--line); font-weight: 700; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere; } pre { margin: .5rem 0 0;
           overflow-x: auto; white-space: pre-wrap; } summary { cursor: pointer; font-weight: 600; }
"""


def build_page(title: str, parts: Iterable[str]) -> str:
    """A whole page. The policy in its head forbids scripts and anything from elsewhere, whatever a text may say."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body><main>
{"".join(part + chr(10) for part in parts)}</main></body>
</html>
"""


def build_section(heading: str, *parts: str) -> str:
    """A heading and, below it, finished pieces of HTML."""
    return f"<section><h2>{escape(heading)}</h2>\n{chr(10).join(parts)}</section>"


def build_paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def build_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, has_total: bool = False) -> str:
    """A table of plain texts, the first column left and numbers right.

    Args:
        header: a name for each column; empty names: no heading.
        rows: the cells.
        has_total: whether the last row sums up the others.
    """
    classes = ["" if all(not _is_number(row[i]) for row in rows) else ' class="number"' for i in range(len(header))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(classes, header, strict=True))
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(classes, row, strict=True))
        body.append(f"<tr{' class=total' if has_total and number == len(rows) - 1 else ''}>{cells}</tr>")
    return f'<div class="card rows"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def build_figure(title: str, caption: str, png: bytes, file: str) -> str:
    """A picture inside the page, with heading and caption; a click opens its file, given relative to the page."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure class="card"><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>'
        f'<a href="{escape(quote(file))}"><img src="data:image/png;base64,{data}" '
        f'alt="{escape(f"{title}. {caption}")}"></a>'
        "</figure>"
    )


def build_fold_out(heading: str, text: str, *, is_open: bool = False) -> str:
    """Text as it is, that opens on a click."""
    opened = " open" if is_open else ""
    return f'<details class="card"{opened}><summary>{escape(heading)}</summary><pre>{escape(text)}</pre></details>'


def build_link(path: str) -> str:
    """A link to a file, relative to the page."""
    return f'<a href="{escape(quote(path))}"><code>{escape(path)}</code></a>'


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix(" %").removesuffix(" s"))
    except ValueError:
        return False
    return True

"""The example notebook, cell by cell, as Jupyter runs it: the last expression of a cell is shown."""

from __future__ import annotations

import json
import shutil
import subprocess

from support.processes import REPOSITORY
from support.users_scripts import PYTHON, WAIT_S, environment, open_ray

RUNNER = """
import ast, json
for cell in json.load(open("own_trainer.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        *lines, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(lines, []), "cell", "exec"))
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), "cell", "exec"))
        elif (value := eval(compile(ast.Expression(last.value), "cell", "eval"))) is not None:
            print(json.dumps({"shown": value._repr_html_()}))
"""


def test_the_example_notebook_runs_and_shows_scores_and_a_figure(tmp_path):
    for name in ("own_trainer.ipynb", "lots.csv", "new_lots.csv"):
        shutil.copy(REPOSITORY / "examples" / name, tmp_path)
    with open_ray(tmp_path) as address:
        done = subprocess.run(
            [PYTHON, "-c", RUNNER], cwd=tmp_path, env=environment(tmp_path, RAY_ADDRESS=address), text=True,
            capture_output=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [json.loads(line)["shown"] for line in done.stdout.splitlines() if line.startswith('{"shown"')]
    assert len(shown) == 5
    assert shown[1].count("<img") == 1
    assert shown[1].count("<tr") == 1 + 3 + 1, "a heading, three folds, and all rows"
    assert all("<table" in html for html in shown)
    assert (tmp_path / "ray_results/leaves_7/report.html").is_file()

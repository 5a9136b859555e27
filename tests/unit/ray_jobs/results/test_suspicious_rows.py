"""The file of the rows whose truth may be wrong, and their picture in the report."""

import pyarrow.parquet as pq
from support.made_map_run import make_map_run
from support.made_run import make_run

from ray_jobs.reporting.report_figures import write_pictures
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.suspicious_rows import COLUMNS, MOST_ROWS, read_suspects


def test_a_planted_error_is_the_first_row_of_the_file_and_of_the_picture(tmp_path):
    folder, config, summary = make_run(tmp_path / "run", num_rows=400)
    path = folder.fold(1).predictions("validation", "best")
    table = pq.read_table(path)
    target = table["target"].to_numpy().copy()
    target[7] = 1e6
    pq.write_table(table.set_column(table.column_names.index("target"), "target", [target]), path)
    folder.fold(1).write_manifest()
    run_ensemble_stage(str(folder.root))
    rows = read_suspects(folder)
    assert len(rows) == MOST_ROWS
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["id"], rows[0]["fold"], rows[0]["given"]) == ("v1_7", "1", "1e+06")
    suspicion = [float(row["suspicion"]) for row in rows]
    assert suspicion == sorted(suspicion, reverse=True)
    drawn = {one.picture.name: one for one in write_pictures(folder, config, summary)}
    assert drawn["suspicious_rows"].png


def test_of_maps_the_overlays_are_shown(tmp_path):
    folder, config, summary = make_map_run(tmp_path / "run")
    rows = read_suspects(folder)
    assert all((folder.root / row["picture"]).is_file() for row in rows)
    assert "Dice" in rows[0]["predicted"]
    drawn = {one.picture.name: one for one in write_pictures(folder, config, summary)}
    assert drawn["suspicious_rows"].png


def test_without_the_file_the_report_says_so(tmp_path):
    folder, config, summary = make_run(tmp_path / "run")
    folder.suspicious_rows.unlink()
    drawn = {one.picture.name: one for one in write_pictures(folder, config, summary)}
    assert drawn["suspicious_rows"].missing == "nobody judges the truth of these rows"

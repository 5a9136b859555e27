"""What the metrics endpoint, a Prometheus server and the dashboard tell of a submitted run."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from support.browser import CHROMIUM, read_pages
from support.processes import REPOSITORY

from ray_jobs.cluster.access import actor_name
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import read_status


def test_the_last_values_of_the_gauges_are_those_of_the_folds_status_files(submitted_run):
    statuses = [read_status(RunFolder(submitted_run.root), fold) for fold in range(3)]
    assert submitted_run.gauges["ray_kfold_fold_state"] == {"0": 2, "1": 2, "2": 2}
    assert submitted_run.gauges["ray_kfold_epoch"] == {"0": 12, "1": 12, "2": 12}
    for gauge, name in {"train_loss": "train_loss", "val_loss": "val_loss", "score": "score"}.items():
        expected = {str(status.fold): pytest.approx(getattr(status, name)) for status in statuses}
        assert submitted_run.gauges[f"ray_kfold_{gauge}"] == expected


def test_prometheus_gathers_what_the_grafana_board_asks_for(submitted_run, prometheus):
    if prometheus is None:
        pytest.skip("no `prometheus` on PATH (Debian: apt-get install prometheus)")
    board = json.loads((REPOSITORY / "ray_jobs/deploy/grafana_kfold.json").read_text())
    answers = {}
    for expression in (target["expr"] for panel in board["panels"] for target in panel["targets"]):
        now = time.time()
        query = expression.replace("$run", submitted_run.root.name).replace("$fold", ".+")
        words = urllib.parse.urlencode({"query": query, "start": now - 600, "end": now, "step": 1})
        with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{words}", timeout=10) as page:
            answers[expression.partition("{")[0].split("(")[-1]] = json.load(page)["data"]["result"]
    # A machine without a GPU exports no GPU gauges; so short a run may end before a speed is exported.
    assert {name for name, series in answers.items() if not series} <= {
        "ray_node_gpus_utilization",
        "ray_node_gram_used",
        "ray_kfold_samples_per_second",
    }
    last = {series["metric"]["fold"]: series["values"][-1][1] for series in answers["ray_kfold_fold_state"]}
    assert last == {"0": "2", "1": "2", "2": "2"}


def test_the_dashboard_names_the_job_the_folds_and_the_coordinator_after_the_run(cluster, submitted_run):
    (job,) = [job for job in cluster.ask("/api/jobs/") if job["submission_id"] == "job_of_submitted"]
    assert job["status"] == "SUCCEEDED"
    assert "ray_jobs/kfold.py" in job["entrypoint"]
    assert job["metadata"]["job_name"] == "submitted"

    tasks = list_tasks(cluster, job)
    folds = sorted((task["name"], task["state"]) for task in tasks if "/fold " in task["name"])
    assert folds == [(f"submitted/fold {fold} (attempt 2)", "FINISHED") for fold in range(3)]

    actors = cluster.ask("/api/v0/actors?limit=1000&detail=1")["data"]["result"]["result"]
    name = actor_name(RunFolder(submitted_run.root))
    coordinators = [actor["class_name"] for actor in actors if actor["name"] == name]
    assert coordinators == ["Coordinator"] * 2  # one for each time that the job was submitted
    # One actor, and no task for Ray Train's own ends.
    assert [actor["class_name"] for actor in actors if actor["job_id"] == job["job_id"]] == ["Coordinator"]
    others = {task["name"] for task in tasks} - {name for name, _ in folds}
    kinds = {"coordinator" if "oordinator" in name else name for name in others}
    assert kinds == {"coordinator", "package_versions", "_is_there", "prepare_node", "ensemble"}


def list_tasks(cluster, job):
    """The tasks of a job, as the dashboard's table has them."""
    query = f"limit=10000&detail=1&filter_keys=job_id&filter_predicates=%3D&filter_values={job['job_id']}"
    return cluster.ask(f"/api/v0/tasks?{query}")["data"]["result"]["result"]


@pytest.mark.slow
def test_a_person_finds_the_run_its_folds_and_their_logs_on_the_dashboards_pages(cluster, submitted_run, tmp_path):
    """In a browser, with the token typed in; DASHBOARD_PICTURES=FOLDER keeps pictures of the pages."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    (job,) = [job for job in cluster.ask("/api/jobs/") if job["submission_id"] == "job_of_submitted"]
    coordinator = actor_name(RunFolder(submitted_run.root))
    actors = cluster.ask("/api/v0/actors?limit=1000&detail=1")["data"]["result"]["result"]
    (own,) = [actor for actor in actors if actor["name"] == coordinator and actor["job_id"] == job["job_id"]]
    pages = {
        "overview": ("job_of_submitted",),
        "jobs": ("job_of_submitted", "SUCCEEDED", "STOPPED"),
        f"jobs/{job['job_id']}": (
            "job_of_submitted",
            "SUCCEEDED",
            "rows, 3 folds",  # the log's first lines; others as one scrolls
        ),
        f"jobs/{job['job_id']}?tasks": ("submitted/fold 1 (attempt 2)",),
        "actors": (coordinator,),
        f"actors/{own['actor_id']}": (coordinator, "coordinator of submitted", "run submitted: 120 rows, 3 folds"),
        "metrics": ("Prometheus",),
        "logs": (cluster.ask("/api/v0/nodes")["data"]["result"]["result"][0]["node_id"],),
    }
    pictures = Path(os.environ["DASHBOARD_PICTURES"]) if "DASHBOARD_PICTURES" in os.environ else None
    token, typed = cluster.environment["RAY_AUTH_TOKEN"], {"actors": ("Class", "Coordinator")}
    typed[f"jobs/{job['job_id']}?tasks"] = ("Function or Class Name", "train_fold")
    opened = {f"jobs/{job['job_id']}?tasks": "Task Table"}
    texts = read_pages(cluster.dashboard, token, pages, tmp_path, typed=typed, opened=opened, pictures=pictures)
    assert "Token authentication is enabled" in texts.pop("")
    missing = {page: [word for word in pages[page] if word not in text] for page, text in texts.items()}
    assert not any(missing.values()), (missing, texts)
    assert "submitted\tjob_of_submitted" in texts["jobs"]  # the job's name before its submission id


def test_the_dashboard_tells_nothing_without_the_token(cluster):
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30)
    refused.value.close()

"""What the user is told of an autoscaler, from Ray's own form of its status."""

from ray.autoscaler.v2.schema import (
    ClusterStatus,
    LaunchRequest,
    NodeInfo,
    PlacementGroupResourceDemand,
    ResourceDemandSummary,
    ResourceRequestByCount,
)

from ray_jobs.cluster.autoscaler import WaitReport, describe_status


def make_node(kind="one_cpu", **fields):
    return NodeInfo(
        instance_id="i",
        instance_type_name=kind,
        node_status="IDLE",
        node_id="a",
        ip_address="",
        ray_node_type_name=kind,
        **fields,
    )


def test_what_is_pending_starting_and_failed_is_said():
    demands = [
        PlacementGroupResourceDemand(
            [ResourceRequestByCount({"CPU": 1.0, "GPU": 0.5}, count)], details="a:PACK|PENDING"
        )
        for count in (2, 1)
    ]
    launches = [LaunchRequest("m5", "gpu", 2, state, 0, details="out of quota") for state in LaunchRequest.Status]
    status = ClusterStatus(
        active_nodes=[make_node()],
        idle_nodes=[make_node()],
        pending_launches=launches[:1],
        failed_launches=launches[1:],
        pending_nodes=[make_node("gpu")],
        failed_nodes=[make_node("node_1", details=None), make_node("spot", details="no capacity")],
        resource_demands=ResourceDemandSummary(placement_group_demand=demands),
    )
    assert describe_status(status) == (
        "2 node(s) run; no room for 3 × {1 CPU, 0.5 GPU}; starting: 3 × gpu; failed to start: gpu (out of "
        "quota), spot (no capacity)"
    )
    waiting = ClusterStatus(resource_demands=ResourceDemandSummary(placement_group_demand=demands[:1]))
    assert describe_status(waiting) == "0 node(s) run; no room for 2 × {1 CPU, 0.5 GPU}; no node is being started"
    assert describe_status(ClusterStatus()) == "0 node(s) run; nothing waits for room"


def test_folds_that_wait_are_named_again_and_again_until_they_do_not(monkeypatch):
    said, now = [], [100.0]
    monkeypatch.setattr("ray_jobs.cluster.autoscaler.time.monotonic", lambda: now[0])
    monkeypatch.setattr("ray_jobs.cluster.autoscaler.describe_autoscaler", lambda: "no node")
    report, waiting = WaitReport(said.append, interval_s=30), ["fold 1"]
    for _ in range(70):
        now[0] += 1
        report.look(lambda: waiting)
        if now[0] == 140:
            waiting.append("fold 2")
    assert said == [
        "not training yet: fold 1 (30 s); no node",
        "not training yet: fold 1 (60 s), fold 2 (20 s); no node",
    ]
    waiting.clear()
    for _ in range(40):
        now[0] += 1
        report.look(lambda: waiting)
    assert len(said) == 2

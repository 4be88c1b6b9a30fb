"""What the run of a point shows in MLflow."""

from flows.sweep.membership import as_point, compared_metrics, compared_params, point_tags

CONFIG = {
    "ppo": {"beta": 0.02, "gamma": 1.0},
    "seed": 1,
    "tracking": {"root": "/secret"},
    "sweep": {"quality": "score"},
}
METRICS = {"policy/kl": 1.0, "kl/ppo_ptx": 1.0}


def test_outside_a_sweep_every_parameter_but_places_and_weighing() -> None:
    assert compared_params(CONFIG) == {"ppo": {"beta": 0.02, "gamma": 1.0}, "seed": 1}
    assert compared_metrics(METRICS) == {"policy/kl": 1.0}
    assert point_tags() == {}


def test_a_point_shows_its_knobs_as_they_were_read_and_names_that_do_not_depend_on_them() -> None:
    with as_point("parent", "sweep of x", 3, {"ppo.beta": "2e-2", "scale": "miniature"}):
        assert compared_params(CONFIG) == {"ppo.beta": "0.02", "scale": "miniature"}
        assert compared_metrics(METRICS) == {"policy/kl": 1.0}
        assert point_tags() == {
            "mlflow.parentRunId": "parent",
            "plumbline.sweep": "sweep of x",
            "plumbline.point": "3",
        }
    assert point_tags() == {}


def test_a_point_without_knobs_shows_every_parameter_below_its_parent() -> None:
    with as_point("parent", "study", 1):
        assert compared_params(CONFIG) == {"ppo": {"beta": 0.02, "gamma": 1.0}, "seed": 1}
        assert compared_metrics(METRICS) == {"policy/kl": 1.0}
        assert point_tags()["mlflow.parentRunId"] == "parent"

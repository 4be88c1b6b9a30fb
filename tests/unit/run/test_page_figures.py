"""What the page tells of labelers and reward model."""

from flows.run.page import told


def test_questions_that_were_asked_are_told() -> None:
    asked = {"questions/accuracy_precise_if": 0.25, "questions/ties_margin": 0.5, "questions/ties_score": 0.9}
    assert told(asked | {"questions/mean_of_subsets": 0.575}) == [
        ("highest score in precise if", "25.0 %"),
        ("score of equally right ones", "90.0 %"),
        ("mean of subsets", "57.5 %"),
    ]
    of_labels = {"valid/accuracy": 0.651, "valid/accuracy_standard_error": 0.02, "valid/ece": 0.1, "train/loss": 3.0}
    assert told(of_labels) == [("accuracy on held-out comparisons", "65.1 ± 2.0 %"), ("calibration error", "10.0 %")]

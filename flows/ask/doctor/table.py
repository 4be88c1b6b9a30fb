"""The table of checks. A check is a function of the patient that returns findings; one that raises has found an error."""

from collections.abc import Callable, Iterable

from flows.ask.doctor import batches, chat, data, labels, machine, model, requirements, servers, texts, versions
from flows.ask.doctor.patient import Patient
from tasks.engine.errors import PlumblineError
from tasks.engine.findings import Finding, error_from

Check = Callable[[Patient], Iterable[Finding]]


def _required(function: Callable[[Patient], None]) -> Check:
    """A check that refuses by raising, or finds nothing."""

    def check(patient: Patient) -> Iterable[Finding]:
        function(patient)
        return ()

    return check


CHECKS: dict[str, tuple[Check, ...]] = {
    "machine": (
        _required(lambda patient: requirements.check_folders(patient.config)),
        _required(lambda patient: requirements.check_devices(patient.config.runtime)),
        _required(lambda patient: requirements.check_runner(patient.config.runtime.runner)),
        _required(lambda patient: requirements.check_engine(patient.config)),
        machine.precision,
        machine.cores,
        machine.allocator,
        machine.memory,
        machine.disk,
        machine.file_system,
        versions.pinned,
    ),
    "servers": (servers.prefect, servers.mlflow),
    "model": (
        lambda patient: patient.model_findings,
        model.ends,
        model.untrained_tokens,
        _required(lambda patient: requirements.check_adapters(patient.config)),
        _required(lambda patient: requirements.check_dropout(patient.config)),
    ),
    "chat layout": (
        chat.usable,
        chat.start_tokens,
        chat.markup,
        chat.additions,
    ),
    "data": (
        _required(lambda patient: requirements.check_data(patient.config)),
        data.unclaimed_files,
        data.empty_files,
        data.readable,
        data.enough,
        data.losses,
        data.personal,
        data.leaks,
        data.benchmark_leaks,
        data.lengths,
    ),
    "texts": (
        texts.prompt_in_response,
        texts.next_turn_in_response,
        texts.same_response,
        texts.damaged,
        texts.different_prompts,
    ),
    "labels": (
        labels.ties,
        labels.length_bias,
        labels.contradictions,
        labels.few_pairs,
    ),
    "batches": (
        batches.smaller_than_a_batch,
        batches.passes,
        batches.average,
        batches.warmup,
        batches.brake,
        batches.objective,
    ),
    "labelers and judges": (
        _required(lambda patient: requirements.check_hired(patient.config)),
        _required(lambda patient: requirements.check_judges(patient.config.evaluation)),
        _required(lambda patient: requirements.check_rewards(patient.config)),
        _required(
            lambda patient: requirements.check_measures(patient.config.evaluation, patient.config.model.context_tokens)
        ),
        _required(lambda patient: requirements.check_gate(patient.config)),
        _required(lambda patient: requirements.check_opponents(patient.config)),
    ),
}
"""Area -> checks, in the order in which they are reported."""


def examine(patient: Patient) -> dict[str, list[Finding]]:
    """Area -> what its checks found; a sentence is reported once, by the first check that meets it."""
    found = dict[str, list[Finding]]()
    told: list[str] = []
    for area, checks in CHECKS.items():
        found[area] = []
        for finding in (finding for check in checks for finding in _findings(check, patient)):
            if not any(sentence.endswith(str(finding)) for sentence in told):
                found[area].append(finding)
                told += [str(finding)] if finding.severity == "error" else []
    return found


def _findings(check: Check, patient: Patient) -> list[Finding]:
    try:
        return list(check(patient))
    except PlumblineError as error:
        return [error_from(str(error))]

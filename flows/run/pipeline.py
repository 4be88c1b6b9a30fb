"""One run of the pipeline: its task runner, its MLflow run, and the bookkeeping around the stages."""

import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from prefect.futures import PrefectFuture, as_completed

from flows.ask.preflight import check
from flows.config import RLHFConfig
from flows.process.bars import Bars
from flows.process.deadline import DEADLINE
from flows.process.leftovers import (
    PROCESS_TAG,
    claim_flow_run,
    close_stage_runs,
    close_tracked_runs,
    crash_tasks_of_this_run,
    release_flow_run,
    this_process,
)
from flows.process.runners import make_runner, resources_of
from flows.process.stopping import budget, stop, worker_killed
from flows.run.reproduce import command_of, results_config, told_apart
from flows.run.summary import Outcome, StageRecord, link_pages, outcome_of
from flows.sweep.membership import compared_metrics, compared_params, has_name, point_tags
from flows.tracking_config import TrackingConfig
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.caching import CACHED, as_task
from tasks.engine.config import Config, RuntimeConfig
from tasks.engine.context import StageContext, StageName
from tasks.engine.declared import Stage
from tasks.engine.stop import StopSign
from tasks.engine.tracking import deliver, open_run, start_pipeline_run


class RunConfig(Protocol):
    """What any flow of stages is configured with."""

    @property
    def runtime(self) -> RuntimeConfig:
        """Device, precision, parallelism."""
        ...

    @property
    def tracking(self) -> TrackingConfig:
        """Artifact store and MLflow."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The whole configuration."""
        ...


class Pipeline:
    """Submits stages to the task runner and knows, at the end, which of them ran and which were found.

    Args:
        config: of the whole run.
        check: refuses a configuration that cannot work.
        command_of: the command line that makes the same run.
        results_config: the part of the configuration that results depend on.
    """

    def __init__(
        self,
        config: RunConfig,
        check: Callable[[Any], None] = check,
        command_of: Callable[[Any], str] = command_of,
        results_config: Callable[[Any], dict[str, Any]] = results_config,
    ) -> None:
        self.config, self._check, self._command_of, self._results_config = config, check, command_of, results_config
        self.store = config.tracking.open_store()
        self._runner = make_runner(config.runtime)
        self.futures: dict[str, PrefectFuture[ArtifactRef]] = {}
        """Stage name -> future of every stage submitted so far."""
        self._to_tell: dict[str, Callable[[Path], None]] = {}

    def __enter__(self) -> Self:
        self._check(self.config)  # again, because a Prefect worker calls the flow without its command line
        tracking, command = self.config.tracking, self._command_of(self.config)
        experiment_id = tracking.prepare()
        claim_flow_run()
        deliver(tracking.uri)  # what an earlier run could not
        self.store.deliver()
        close_tracked_runs(tracking.uri, experiment_id)
        self.run_id = start_pipeline_run(
            tracking.uri,
            experiment_id,
            tracking.run_name if has_name() else told_apart(tracking.run_name, command),
            compared_params(self.config.model_dump(mode="json")),
            {PROCESS_TAG: this_process(), **point_tags()},
        )
        self.context = StageContext(
            store=str(self.store.root),
            shared=tracking.store,
            tracking_uri=tracking.uri,
            system_metrics=tracking.system_metrics,
            experiment_id=experiment_id,
            parent_run_id=self.run_id,
            runtime=self.config.runtime,
            command=command,
            run_config=self._results_config(self.config),
        )
        self._sign = StopSign(self.store.root, self.run_id)
        self._in_use = ExitStack()
        self._in_use.enter_context(self.store.in_use())
        self._runner.__enter__()
        self._bars = Bars(self._sign.folder, self.config.runtime.progress, waiting_for="the first stage")
        self._bars.__enter__()
        return self

    def __call__(
        self,
        task: Stage,
        group: str,
        config: Config,
        about: str = "",
        **inputs: PrefectFuture[ArtifactRef] | ArtifactRef,
    ) -> PrefectFuture[ArtifactRef]:
        """Submit one stage; returns at once with a future that later stages take as input."""
        stage = StageName(group=group, about=about)
        parameters = {"stage": stage, "config": config, "context": self.context, "inputs": inputs}
        with resources_of(task, self.config.runtime):
            future: PrefectFuture[ArtifactRef] = self._runner.submit(as_task(task), parameters)
        self.futures[str(stage)] = future
        return future

    def when_done(self, stage: str, tell: Callable[[Path], None]) -> None:
        """Have ``tell`` called with a stage's artifact as soon as the pipeline, waiting for its stages, sees it done."""
        self._to_tell[stage] = tell

    def finished(self, wanted: PrefectFuture[ArtifactRef]) -> ArtifactRef:
        """Wait for every stage submitted so far; returns what one of them made.

        Raises:
            PlumblineError: a stage failed; the others are not waited for.
        """
        names = {future.task_run_id: stage for stage, future in self.futures.items()}
        try:
            for done in as_completed(list(self.futures.values())):
                ref = done.result()
                if tell := self._to_tell.pop(names[done.task_run_id], None):
                    tell(self.store.open(ref))
            return wanted.result()
        except BrokenProcessPool:
            raise worker_killed(self._runner, self._sign) from None

    def records(self) -> list[StageRecord]:
        """What every stage did.

        Raises:
            PlumblineError: a stage failed; the others are not waited for.
        """
        records = []
        for stage, future in self.futures.items():
            ref = self.finished(future)
            records.append(StageRecord(stage=stage, artifact=ref.key, ran=future.state.name != CACHED))
        return records

    def outcome(
        self, config: RLHFConfig, report: PrefectFuture[ArtifactRef], policy: PrefectFuture[ArtifactRef]
    ) -> Outcome:
        """Wait for every stage and gather what there is to say.

        Raises:
            PlumblineError: a stage failed; the others are not waited for.
        """
        records, data = self.records(), self.futures["data_prep"].result()
        outcome = outcome_of(self.store, report.result(), policy.result(), data, records, self.run_id)
        link_pages(config.tracking.mlflow_uri, self.context.experiment_id, self.run_id)
        log = open_run(self.context.tracking_uri, self.run_id)
        log.metrics(compared_metrics(outcome.metrics))
        log.flush()
        log.tags({"plumbline.stages_run": str(sum(record.ran for record in records)), "policy": outcome.policy})
        return outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ExitStack() as steps:  # each is taken even if the one before it fails; the last entered comes first
            steps.callback(self._close_tracking, error)
            steps.callback(self._in_use.close)
            steps.callback(release_flow_run)
            if error is not None:
                steps.callback(close_stage_runs, self.config.tracking.uri, self.context.experiment_id, self.run_id)
                steps.callback(crash_tasks_of_this_run)
            steps.callback(self._sign.remove)
            steps.callback(self._bars.__exit__)
            steps.callback(self._runner.__exit__, kind, error, traceback)
            if error is not None:
                steps.callback(self._stop)

    def _stop(self) -> None:
        seconds = budget(self._sign, self.config.runtime.stop_seconds)
        DEADLINE.allow(seconds)
        for words in stop(self._runner, self._sign, seconds):
            print(words, file=sys.stderr)

    def _close_tracking(self, error: BaseException | None) -> None:
        log = open_run(self.context.tracking_uri, self.run_id)
        if error is not None:
            log.tags({"plumbline.error": (str(error).splitlines() or [""])[0]})
        # Ctrl-C and Prefect's TerminationSignal are no Exceptions.
        log.finish("FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else "KILLED")
        # Whoever tells a run to stop does not wait for uploads; the next run shares what is left.
        for left in (deliver(self.context.tracking_uri), self.store.deliver() if error is None else ""):
            if left:
                print(left, file=sys.stderr)

"""What a standing Prefect server does by itself: `python -m deployments.automations`.

A run whose process dies is shown as Crashed by its worker; one whose worker died with it only falls silent. Either is
scheduled again, and goes on from its last checkpoint with the same bytes as if nothing had happened. The event
`plumbline.comparisons.new` starts the nightly deployment; a failed gate is posted to the address in PLUMBLINE_WEBHOOK_URL.
The command may be given again: it replaces what it made.
"""

import os
from datetime import timedelta
from uuid import UUID

from flows.process import environment  # noqa: F401  first: Prefect reads the environment when it is imported

from prefect import get_client  # isort: skip
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from deployments.render import TAG
from flows.parser import Parser

MOST_CRASHES = 5
"""A run that crashes as often does so for a reason of its own, such as too little memory."""
CRASHED_SECONDS = 60.0
"""A dead process is reported twice, by Prefect's runner and then by its worker; a run that began again in between would be
shown as crashed by the second."""
SILENT_SECONDS = 600.0
"""Three times what Prefect takes between two heartbeats unless PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set."""
HEARTBEAT, PENDING, CRASHED = "prefect.flow-run.heartbeat", "prefect.flow-run.Pending", "prefect.flow-run.Crashed"
ENDS = {
    f"prefect.flow-run.{state}"
    for state in ("Completed", "NothingNew", "Failed", "GateFailed", "AwaitingLabels", "Cancelled")
}
STARTS = {f"prefect.flow-run.{state}" for state in ("Running", "Retrying", "Rerunning")}
WAITS = {f"prefect.flow-run.{state}" for state in ("Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Pending")}
NEW_COMPARISONS = "plumbline.comparisons.new"
"""Whoever adds comparisons emits it: `prefect event emit plumbline.comparisons.new --resource-id plumbline.comparisons`."""
WEBHOOK_URL, WEBHOOK_BLOCK = "PLUMBLINE_WEBHOOK_URL", "plumbline-gate"
OURS = {
    "match_related": ResourceSpecification(
        {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    ),
    "for_each": {"prefect.resource.id"},
    "threshold": 1,
}
"""The runs of our deployments, and no others on that server."""


def automations(
    silent_seconds: float = SILENT_SECONDS, crashed_seconds: float = CRASHED_SECONDS
) -> list[AutomationCore]:
    """About runs that lost their process or their machine."""
    any_run = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
    may_go_on = ResourceSpecification(
        {
            "prefect.resource.id": "prefect.flow-run.*",
            "prefect.run-count": [str(count) for count in range(1, MOST_CRASHES)],
        }
    )
    patience = timedelta(seconds=silent_seconds)
    again = ChangeFlowRunState(
        state=StateType.SCHEDULED, name="AwaitingRetry", message="goes on from its last checkpoint"
    )
    return [
        AutomationCore(
            name="plumbline: crashed runs go on",
            description=f"Schedules a crashed run again, until it has crashed {MOST_CRASHES} times.",
            trigger=EventTrigger(
                posture=Posture.Proactive,
                after={CRASHED},
                expect=WAITS | STARTS | ENDS,
                match=may_go_on,
                within=timedelta(seconds=crashed_seconds),
                **OURS,
            ),
            actions=[again],
        ),
        AutomationCore(
            name="plumbline: silent runs are crashed",
            description="A run that stops sending heartbeats has lost its machine.",
            trigger=EventTrigger(
                posture=Posture.Proactive,
                after={HEARTBEAT, *STARTS},
                expect={HEARTBEAT, CRASHED, *ENDS},
                match=any_run,
                within=patience,
                **OURS,
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no sign of life; its machine was lost")],
        ),
        AutomationCore(
            name="plumbline: runs whose worker died before they began are queued again",
            description="A worker that dies between taking a run and starting it leaves it pending.",
            trigger=EventTrigger(
                posture=Posture.Proactive,
                after={PENDING},
                expect=STARTS | ENDS | {CRASHED},
                match=any_run,
                within=patience,
                **OURS,
            ),
            actions=[again],
        ),
    ]


def on_new_comparisons(nightly: UUID) -> AutomationCore:
    """The pipeline runs when somebody reports new comparisons; what did not change is found in the store."""
    return AutomationCore(
        name="plumbline: new comparisons start a run",
        description=f"On the event {NEW_COMPARISONS}, the deployment rlhf/nightly runs.",
        trigger=EventTrigger(posture=Posture.Reactive, expect={NEW_COMPARISONS}, threshold=1),
        actions=[RunDeployment(deployment_id=nightly)],
    )


def on_failed_gate(webhook: UUID) -> AutomationCore:
    """A post of ``{"text": ...}``, which Slack, Mattermost and Teams read, with the run's name and the gate's sentence."""
    return AutomationCore(
        name="plumbline: failed gates are reported",
        description=f"Posts to the address that {WEBHOOK_URL} named when this was installed.",
        trigger=EventTrigger(posture=Posture.Reactive, expect={"prefect.flow-run.GateFailed"}, **OURS),
        actions=[
            CallWebhook(
                block_document_id=webhook,
                payload='{"text": {{ (flow_run.name ~ ": " ~ flow_run.state.message) | tojson }}}',
            )
        ],
    )


def install(silent_seconds: float, crashed_seconds: float) -> None:
    """Make the automations on the server that ``PREFECT_API_URL`` names, in place of those of the same names.

    The address of a webhook is often its secret: it is read from the environment and kept encrypted, as a block.
    """
    wanted = automations(silent_seconds, crashed_seconds)
    if url := os.environ.get(WEBHOOK_URL):
        block = Webhook(url=url, headers={"Content-Type": "application/json"})
        wanted.append(on_failed_gate(UUID(str(block.save(WEBHOOK_BLOCK, overwrite=True)))))
    with get_client(sync_client=True) as api:
        try:
            wanted.append(on_new_comparisons(api.read_deployment_by_name("rlhf/nightly").id))
        except ObjectNotFound:
            print("no deployment rlhf/nightly: new comparisons start nothing; run `prefect deploy`, then this again")
        for automation in wanted:
            for old in api.read_automations_by_name(automation.name):
                api.delete_automation(old.id)
            api.create_automation(automation)
            print(f"{automation.name}: installed")


def main() -> None:
    """Command line."""
    parser = Parser(prog="python -m deployments.automations", description=__doc__)
    parser.add_argument(
        "--silent-seconds",
        type=float,
        default=SILENT_SECONDS,
        help="when a run without a sign of life counts as crashed; at least three times PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    )
    parser.add_argument(
        "--crashed-seconds", type=float, default=CRASHED_SECONDS, help="how long a run is crashed before it goes on"
    )
    given = parser.parse_args()
    install(given.silent_seconds, given.crashed_seconds)


if __name__ == "__main__":
    main()

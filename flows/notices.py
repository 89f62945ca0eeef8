"""Prefect automations: runs whose process is gone are marked Crashed, and somebody is told of a run that failed.

python -m flows.notices [KIND/NAME of a block]
"""

import sys
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from models.errors import UserError

SILENT_SECONDS = 90  # seconds without a heartbeat, after which a run counts as dead
ZOMBIES, FAILURES = "image-conductor: dead runs are crashed", "image-conductor: failed runs are reported"
GONE = "its process sent no heartbeat for 90 s; run the flow again: finished stages and items are kept"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
_RUN: dict[str, str | list[str]] = {"prefect.resource.id": "prefect.flow-run.*"}
_DEPLOYED: dict[str, str | list[str]] = {
    "prefect.resource.role": "deployment",
    "prefect.resource.id": "prefect.deployment.*",
}
_SUBJECT = "{{ flow.name }}: {{ flow_run.state.name }}"
_BODY = "{{ flow.name }}, run {{ flow_run.name }}: {{ flow_run.state.name }}\n{{ flow_run.state.message }}"


class NoticeError(UserError):
    """`flows.notify` of params.yaml names no block that can tell anybody."""


def create_automations(notify: str | None) -> None:
    """Put the automations on the server, in place of those of an earlier start.

    Args:
        notify: `kind/name` of a block: Webhook, or one that notifies, such as slack-webhook or sendgrid-email.

    Raises:
        NoticeError: the server has no such block, or it cannot notify.
    """
    wanted = [_zombies()] + ([_failures(notify)] if notify else [])
    with get_client(sync_client=True) as client:
        for name in (ZOMBIES, FAILURES):
            for old in client.read_automations_by_name(name):
                client.delete_automation(old.id)
    for automation in wanted:
        automation.create()


def _zombies() -> Automation:
    return Automation(
        name=ZOMBIES,
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *_ENDS},
            match=_RUN,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=GONE, force=False)],
    )


def _failures(notify: str) -> Automation:
    return Automation(
        name=FAILURES,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=_RUN,
            match_related=_DEPLOYED,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[_action(notify)],
    )


def _action(notify: str) -> CallWebhook | SendNotification:
    kind, _, name = notify.partition("/")
    with get_client(sync_client=True) as client:
        try:
            block = client.read_block_document_by_name(name, kind)
        except ObjectNotFound:
            raise NoticeError(
                f"params.yaml: flows.notify: no block {notify} on the Prefect server; make it on its page Blocks, or "
                "set flows.notify to null"
            ) from None
        capabilities = block.block_schema.capabilities if block.block_schema else []
    if kind == "webhook":
        return CallWebhook(block_document_id=block.id, payload=_BODY)
    if "notify" not in capabilities:
        raise NoticeError(f"params.yaml: flows.notify: the block {notify} cannot notify; name a webhook or notifier")
    return SendNotification(block_document_id=block.id, subject=_SUBJECT, body=_BODY)


if __name__ == "__main__":
    try:
        create_automations(sys.argv[1] if len(sys.argv) > 1 else None)
    except NoticeError as refused:
        sys.exit(str(refused))

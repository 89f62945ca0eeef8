"""Mark the runs of a worker that died: its flows ended with it, so that nothing waits for them any longer.

python -m flows.dead_runs
"""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from flows.server import WORK_POOL

LIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def crash_dead_runs() -> None:
    """Set every run of the worker's pool that counts as alive to Crashed. Call it while no worker runs."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=LIVE))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[WORK_POOL])),
        )
        for run in runs:
            message = "its worker was killed; run the flow again: finished stages and items are kept"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


if __name__ == "__main__":
    crash_dead_runs()

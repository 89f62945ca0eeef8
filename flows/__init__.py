"""When the pipeline runs: Prefect flows over `dvc repro`, their schedules and the slots of the GPU."""

"""How a stage runs. None of it shapes a result:

command      the command line of a stage
code         which code shapes a result, for recipes and keys
compute      where items are worked on: in process, processes, Dask
locks        no stage runs twice at once
memory       how freed memory is kept
timing       how long it took
mlflow_runs  its run in MLflow
"""

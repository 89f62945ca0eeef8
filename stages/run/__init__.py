"""How a stage runs. None of it shapes a result:

command      the command line of a stage
code         which code shapes a result, for recipes and keys
compute      where items are processed: in this process, in several, on Dask
locks        a stage runs once at a time
memory       how freed memory is kept
timing       how long a stage took
mlflow_runs  a stage's run in MLflow
"""

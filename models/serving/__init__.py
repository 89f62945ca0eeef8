"""How people and programs ask for videos:

cli         the command `image-conductor`; its larger commands lie in modules named after them
convert     trajectory files from one tool's format to another's
push        a saved model to the hub
studio/     the drawing page
track       the motion of a video as strokes
project_commands  commands that work on a checkout of the project
pyfunc      the model behind MLflow's scoring server
request     the body of a request and of its answer
image       pictures from files and requests
load        a model by its address
make_video  from a wish to an encoded video, for all of them
record      what a video was made from, in the video's comment
remake      a video again from its record
limits      what the service allows
service     the ASGI application in front of MLflow's: requests, jobs, health, metrics
body        the body of a request, read and parsed within limits
jobs        the queue, and how work is stopped
metrics     figures for Prometheus
refusal     the answer to a bad request
"""

DEFAULT_MODEL = "artifacts/model"  # the folder that `make repro` writes
